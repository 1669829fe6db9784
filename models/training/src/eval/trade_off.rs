//! λ against quality, share of key frames and time (FasterVD's trade-off).

use super::quality::{Mean, quality};
use crate::{
    compare::{Clip, Keys, clips, interpolated},
    synth::Rig,
};
use anyhow::{Context, Result};
use keyframed_engine::{Interpolator, KeyframeGenerator, SelectConfig, Selector};
use plotters::prelude::*;
use serde::Serialize;
use std::path::Path;

const LAMBDAS: [f64; 6] = [0.0, 0.003, 0.006, 0.01, 0.02, 0.04];
/// Avatars, each in a motion of its own.
const CLIPS: usize = 4;
/// Frames of each clip.
const FRAMES: usize = 40;

/// What one λ gives.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Point {
    /// Threshold of stage 1.
    pub lambda: f64,
    /// Key frames per frame.
    pub key_ratio: f64,
    /// Mean PSNR of all frames against the truth, dB.
    pub psnr: f64,
    /// Mean structural similarity of all frames.
    pub ssim: f64,
    /// Seconds for a frame.
    pub seconds_per_frame: f64,
}

/// One point for each λ, with the window that `keyframed animate` takes.
///
/// # Errors
/// Whatever generator or interpolator say.
pub fn measure(
    generator: &mut dyn KeyframeGenerator,
    film: &mut dyn Interpolator,
    rig: &Rig,
    size: usize,
) -> Result<Vec<Point>> {
    let clips = clips(rig, size, CLIPS, FRAMES)?;
    LAMBDAS.iter().map(|&lambda| point(generator, film, &clips, lambda, size)).collect()
}

fn point(
    generator: &mut dyn KeyframeGenerator,
    film: &mut dyn Interpolator,
    clips: &[Clip],
    lambda: f64,
    size: usize,
) -> Result<Point> {
    let (mut mean, mut keys, mut seconds, mut frames) = (Mean::default(), 0, 0.0, 0);
    for clip in clips {
        generator.set_reference(&clip.reference)?;
        let selector = Selector::new(SelectConfig { lambda, window: 12, ..SelectConfig::default() })?;
        let mut chosen = Keys::Selected(Box::new(selector));
        let made = interpolated(generator, film, &clip.poses, &mut chosen)?;
        for (picture, truth) in made.pictures().into_iter().zip(&clip.truth) {
            mean.add(quality(picture, truth, size));
        }
        keys += made.key_frames;
        seconds += made.seconds;
        frames += made.frames.len();
    }
    let (quality, frames) = (mean.mean(), frames as f64);
    Ok(Point {
        lambda,
        key_ratio: keys as f64 / frames,
        psnr: quality.psnr,
        ssim: quality.ssim,
        seconds_per_frame: seconds / frames,
    })
}

/// Draws quality and time against the share of key frames, as SVG.
///
/// # Errors
/// The file cannot be written.
pub fn draw(points: &[Point], path: &Path) -> Result<()> {
    let failed = || format!("cannot draw {}", path.display());
    let canvas = SVGBackend::new(path, (760, 300)).into_drawing_area();
    canvas.fill(&WHITE).with_context(failed)?;
    let halves = canvas.split_evenly((1, 2));
    let titles = ["PSNR, dB", "seconds per frame"];
    for (n, (area, title)) in halves.iter().zip(titles).enumerate() {
        let value = |p: &Point| [p.psnr, p.seconds_per_frame][n];
        let (low, high) =
            points.iter().map(value).fold((f64::MAX, f64::MIN), |(l, h), v| (l.min(v), h.max(v)));
        let margin = ((high - low) * 0.15).max(1e-3);
        let mut chart = ChartBuilder::on(area)
            .caption(title, ("sans-serif", 15))
            .margin(10)
            .x_label_area_size(32)
            .y_label_area_size(48)
            .build_cartesian_2d(0.0..1.05, low - margin..high + margin)
            .with_context(failed)?;
        chart
            .configure_mesh()
            .x_desc("key frames per frame")
            .light_line_style(WHITE)
            .draw()
            .with_context(failed)?;
        let line: Vec<(f64, f64)> = points.iter().map(|p| (p.key_ratio, value(p))).collect();
        chart.draw_series(LineSeries::new(line.iter().copied(), &BLUE)).with_context(failed)?;
        chart.draw_series(line.iter().map(|&at| Circle::new(at, 3, BLUE.filled()))).with_context(failed)?;
        let named = points.iter().map(|p| {
            Text::new(format!("λ {}", p.lambda), (p.key_ratio, value(p) + margin * 0.3), ("sans-serif", 11))
        });
        chart.draw_series(named).with_context(failed)?;
    }
    canvas.present().with_context(failed)
}
