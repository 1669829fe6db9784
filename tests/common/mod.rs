//! What whole-program tests share: clips and pictures made on the spot, runs of the program, measurements.
#![allow(dead_code, reason = "each test file uses a part")]

pub mod daemon;
pub mod docs;
pub mod look;
#[path = "../../models/tests/tiny/mod.rs"]
mod tiny;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::Once,
};

use gst::prelude::*;
use keyframed_models::checkpoint::{Role, WeightFile};

/// A folder for one test, and the program in it.
pub struct Bench {
    dir: tempfile::TempDir,
    /// Small random networks: they make no picture worth looking at, by the code that makes good ones.
    model: tempfile::TempDir,
}

impl Bench {
    #[track_caller]
    pub fn new() -> Self {
        static GSTREAMER: Once = Once::new();
        GSTREAMER.call_once(|| {
            gst::init().unwrap();
            gstkeyframed::plugin_register_static().unwrap();
        });
        let model = tempfile::tempdir().unwrap();
        tiny::Tiny::new(model.path());
        Self { dir: tempfile::tempdir().unwrap(), model }
    }

    /// The model's directory.
    pub fn model(&self) -> &Path {
        self.model.path()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Names of the files there, sorted.
    pub fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.dir.path()).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Writes a file with a `gst-launch` line that ends in a muxer. What an element called `late` passes on comes
    /// three seconds later.
    #[track_caller]
    pub fn launch(&self, name: &str, line: &str) -> PathBuf {
        let path = self.path(name);
        let line = format!("{line} ! filesink location=\"{}\"", path.display());
        let pipeline = gst::parse::launch(&line).unwrap();
        let bus = pipeline.bus().unwrap();
        if let Some(late) = pipeline.downcast_ref::<gst::Bin>().and_then(|bin| bin.by_name("late")) {
            late.static_pad("src").unwrap().set_offset(3_000_000_000);
        }
        pipeline.set_state(gst::State::Playing).unwrap();
        let wait = gst::ClockTime::from_seconds(60);
        let message = bus.timed_pop_filtered(wait, &[gst::MessageType::Eos, gst::MessageType::Error]);
        pipeline.set_state(gst::State::Null).unwrap();
        let message = message.unwrap_or_else(|| panic!("{line}: no end within {wait}"));
        assert!(message.type_() == gst::MessageType::Eos, "{line}: {message:?}");
        path
    }

    /// A DensePose clip of the test figure: 25 frames a second, 128x128.
    #[track_caller]
    pub fn clip(&self, name: &str, pattern: &str, frames: u32) -> PathBuf {
        self.sized_clip(name, pattern, frames, "width=128,height=128,framerate=25/1")
    }

    #[track_caller]
    pub fn sized_clip(&self, name: &str, pattern: &str, frames: u32, caps: &str) -> PathBuf {
        self.launch(
            name,
            &format!(
                "denseposetestsrc pattern={pattern} num-buffers={frames} ! video/x-raw,{caps} ! videoconvert \
                 ! x264enc pass=quant quantizer=10 speed-preset=ultrafast ! h264parse ! mp4mux faststart=true"
            ),
        )
    }

    /// A reference picture: a disc on a gradient.
    #[track_caller]
    pub fn picture(&self, name: &str, width: u32, height: u32) -> PathBuf {
        let path = self.path(name);
        let (cx, cy, r) =
            (f64::from(width) / 2.0, f64::from(height) / 2.0, f64::from(width.min(height)) / 3.0);
        let picture = image::RgbImage::from_fn(width, height, |x, y| {
            let inside = (f64::from(x) - cx).hypot(f64::from(y) - cy) < r;
            image::Rgb(if inside {
                [210, 120, 60]
            } else {
                [(x * 255 / width) as u8, (y * 255 / height) as u8, 90]
            })
        });
        picture.save(&path).unwrap();
        path
    }

    /// `keyframed animate` on the small model, ready for further options.
    pub fn animate(&self, reference: &Path, driving: &Path, output: &Path) -> Command {
        let mut command = keyframed();
        command.arg("animate").arg("--reference").arg(reference).arg("--driving").arg(driving);
        command.arg("--output").arg(output).arg("--model").arg(self.model());
        command
    }
}

/// The program, deaf to the settings of whoever runs the tests.
pub fn keyframed() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keyframed"));
    command.stdin(Stdio::null()).env_remove("RUST_LOG").env_remove("GST_DEBUG").env("LC_ALL", "C");
    command
}

/// Whether a program is found where the shell looks.
pub fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// Runs the command and wants it to succeed. Returns what it said on standard output.
#[track_caller]
pub fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}\n{}", output.status, text(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs the command and wants it to fail in an orderly way: exit code, one line, no panic. Returns that line.
#[track_caller]
pub fn fail(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = text(&output);
    assert!(output.status.code().is_some_and(|code| code == 1), "{command:?}: {}\n{said}", output.status);
    assert!(!said.contains("panicked"), "{said}");
    let errors: Vec<_> = said.lines().filter(|line| line.starts_with("keyframed: ")).collect();
    assert!(errors.len() == 1, "one message, not {}:\n{said}", errors.len());
    assert!(
        said.lines().count() - errors.len() <= said.matches(" WARN ").count(),
        "more than one message:\n{said}"
    );
    errors[0].to_owned()
}

pub fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// What `ffprobe` counts and reads in a video.
#[derive(Debug, PartialEq)]
pub struct Measured {
    pub frames: u64,
    pub duration: f64,
    pub rate: String,
    pub size: (u32, u32),
}

/// Measures a video with a program that is not ours. `None`, with a word, where there is no ffprobe.
#[track_caller]
pub fn measure(video: &Path) -> Option<Measured> {
    let mut command = Command::new("ffprobe");
    command.args(["-v", "error", "-select_streams", "v:0", "-count_frames", "-of", "json", "-show_entries"]);
    command.arg("stream=nb_read_frames,duration,r_frame_rate,width,height").arg(video);
    let Ok(output) = command.output() else {
        eprintln!("skipped: ffprobe is not installed");
        return None;
    };
    assert!(output.status.success(), "{}", text(&output));
    let parsed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let stream = &parsed["streams"][0];
    let number = |key: &str| {
        stream[key].as_str().unwrap_or_else(|| panic!("no {key}: {stream}")).parse::<f64>().unwrap()
    };
    Some(Measured {
        frames: number("nb_read_frames") as u64,
        duration: number("duration"),
        rate: stream["r_frame_rate"].as_str().unwrap().to_owned(),
        size: (stream["width"].as_u64().unwrap() as u32, stream["height"].as_u64().unwrap() as u32),
    })
}

/// A small random model whose numbers grow beyond all bounds when it runs; nothing is wrong with its files.
pub fn overflowing(dir: &Path) {
    let mut tiny = tiny::Tiny::new(dir);
    let file = WeightFile::read(&dir.join("unet.safetensors")).unwrap();
    let grown = |(key, tensor): (String, tch::Tensor)| {
        let last = key == "conv_out.weight";
        (key, if last { tensor * 1e38 } else { tensor })
    };
    tiny.put(Role::Unet, file.tensors.into_iter().map(grown).collect());
    tiny.write();
}

pub fn json(path: &Path) -> serde_json::Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// All frames of a video as RGB squares of this side.
#[track_caller]
pub fn decode(video: &Path, side: u32) -> Vec<Vec<u8>> {
    let caps = format!("video/x-raw,format=RGB,width={side},height={side},pixel-aspect-ratio=1/1");
    let line = format!(
        "filesrc location=\"{}\" ! decodebin ! videoconvert ! videoscale ! {caps} ! appsink name=sink sync=false",
        video.display()
    );
    let pipeline = gst::parse::launch(&line).unwrap();
    let sink = pipeline.downcast_ref::<gst::Bin>().unwrap().by_name("sink").unwrap();
    let sink = sink.downcast::<gst_app::AppSink>().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let samples = std::iter::from_fn(|| sink.pull_sample().ok());
    let frames = samples.map(|sample| sample.buffer().unwrap().map_readable().unwrap().to_vec()).collect();
    pipeline.set_state(gst::State::Null).unwrap();
    frames
}
