//! `keyframed animate`: options as typed, checked and turned into a [`Job`].

use std::{path::PathBuf, process::ExitCode, str::FromStr};

use keyframed_engine::Rate;
use keyframed_models::DeviceChoice;

use crate::{
    animate::{self, Job, Options, Outcome},
    rate,
};

/// Options of `keyframed animate`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Picture to animate: a PNG, JPEG or WebP file, or the name of an avatar of the model
    #[arg(long, short, value_name = "PICTURE")]
    reference: PathBuf,
    /// DensePose clip that drives it: any file GStreamer reads
    #[arg(long, short, value_name = "CLIP")]
    driving: PathBuf,
    /// Video to write: .mp4, .mov or .mkv
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// Output frames a second: 25, 29.97 or 30000/1001 [default: the clip's]
    #[arg(long, value_name = "N", value_parser = rate::parse)]
    fps: Option<Rate>,
    /// Denoising steps for a key frame [default: the model's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=50))]
    steps: Option<u32>,
    /// Classifier-free guidance; 1 or less runs the conditional pass alone [default: the model's]
    #[arg(long, value_name = "G", value_parser = parse_guidance)]
    guidance_scale: Option<f64>,
    /// What the text encoder reads, for models that have one; its first 75 tokens count [default: nothing]
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// Pose change that makes a key pose, as mean squared error of pixels in 0 to 1 [default: 0.01]
    #[arg(long, value_name = "X", value_parser = parse_unit)]
    lambda: Option<f64>,
    /// Most pose frames from one key pose to the next [default: 12]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    window: Option<u32>,
    /// Model directory, or the name of an installed model [default: the embedded one]
    #[arg(long, value_name = "DIR")]
    model: Option<String>,
    /// Seed of the noise; the same seed gives the same video [default: 0]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Output size in pixels, even numbers; another shape is filled up with black [default: the model's]
    #[arg(long, value_name = "WxH", value_parser = parse_size)]
    size: Option<(u32, u32)>,
    /// Where the networks run: auto, cpu, cuda or cuda:N
    #[arg(long, value_name = "D")]
    device: Option<DeviceChoice>,
    /// Write counts, times and memory of the run as JSON
    #[arg(long, value_name = "FILE.json")]
    report: Option<PathBuf>,
    /// Write a contact sheet: poses, key frames and in-betweens
    #[arg(long, value_name = "FILE.png")]
    sheet: Option<PathBuf>,
}

impl Args {
    /// Runs the job and says what came of it on standard output.
    ///
    /// # Errors
    /// What went wrong, with context.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        super::init_gstreamer()?;
        let job = Job {
            reference: self.reference,
            driving: self.driving,
            output: self.output,
            report: self.report,
            sheet: self.sheet,
            options: Options {
                fps: self.fps,
                steps: self.steps,
                guidance_scale: self.guidance_scale,
                prompt: self.prompt,
                lambda: self.lambda,
                window: self.window,
                model: self.model,
                seed: self.seed,
                size: self.size,
                device: self.device,
            },
        };
        match animate::run(&job)? {
            Outcome::Complete(summary) => super::print(&summary).map(|()| ExitCode::SUCCESS),
            // 128 + SIGINT, as shells report it.
            Outcome::Interrupted(summary) => super::print(&summary).map(|()| ExitCode::from(130)),
        }
    }
}

/// `640x480`; even sides, because 4:2:0 video halves them.
fn parse_size(text: &str) -> Result<(u32, u32), String> {
    let side = |text: &str| u32::from_str(text).ok().filter(|s| (16..=8192).contains(s) && s % 2 == 0);
    text.split_once(['x', 'X'])
        .and_then(|(w, h)| side(w).zip(side(h)))
        .ok_or_else(|| "expected WxH with even numbers from 16 to 8192, such as 512x512".into())
}

pub(super) fn parse_unit(text: &str) -> Result<f64, String> {
    let value = f64::from_str(text).ok().filter(|v| (0.0..=1.0).contains(v));
    value.ok_or_else(|| "expected a number from 0 to 1".into())
}

fn parse_guidance(text: &str) -> Result<f64, String> {
    let value = f64::from_str(text).ok().filter(|v| (0.0..=30.0).contains(v));
    value.ok_or_else(|| "expected a number from 0 to 30".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_even_and_bounded() {
        assert_eq!(parse_size("640x360"), Ok((640, 360)));
        for bad in ["640", "641x360", "0x0", "10000x16", "-2x16", "x", "640x360x1"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }
}
