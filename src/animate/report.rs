//! What a run did, as JSON and as a few lines of text.

use std::{fs, path::Path, sync::atomic::Ordering::Relaxed};

use anyhow::Context as _;
use gst::prelude::*;
use keyframed_engine::Rate;
use serde::Serialize;
use serde_json::Value;

use super::{
    Job,
    input::Clip,
    pipeline::Stages,
    run::{End, Finished},
    seconds,
    watch::Watch,
};
use crate::memory;

/// The report file.
#[derive(Debug, Serialize)]
pub struct Report {
    keyframed: &'static str,
    /// False if the user interrupted the run.
    complete: bool,

    options: Settings,
    reference: String,
    input: Input,
    /// What was written.
    pub output: Output,
    counts: Counts,
    /// Share of pose frames that became key poses.
    key_ratio: f64,
    wall_seconds: Wall,
    /// Output frames made a second, the first frame's wait left out.
    frames_per_second: f64,
    peak_memory_bytes: Option<u64>,
}

/// Settings in force, whether chosen or by default.
#[derive(Debug, Default, Clone, Serialize)]
pub struct Settings {
    model: Value,
    steps: Value,
    guidance_scale: Value,
    prompt: Value,
    lambda: Value,
    window: Value,
    seed: Value,
    device: Value,
}

/// The driving clip.
#[derive(Debug, Serialize)]
struct Input {
    path: String,
    width: u32,
    height: u32,
    fps: Option<String>,
    duration_s: f64,
    off_palette_share: f64,
}

/// The video.
#[derive(Debug, Serialize)]
pub struct Output {
    path: String,
    width: u32,
    height: u32,
    fps: String,
    /// Frames in it.
    pub frames: u64,
    duration_s: f64,
    encoder: &'static str,
    /// Size of the file.
    pub bytes: u64,
}

#[derive(Debug, Serialize)]
struct Counts {
    r#in: u64,
    key: u64,
    generated: u64,
    interpolated: u64,
    repeated: u64,
}

#[derive(Debug, Serialize)]
struct Wall {
    to_first_frame: Option<f64>,
    select: Option<f64>,
    generate: Option<f64>,
    interpolate: Option<f64>,
    total: f64,
}

impl Report {
    /// Collects the figures of a finished run; the output's size in bytes comes later.
    pub fn new(
        job: &Job,
        clip: &Clip,
        rate: Rate,
        stages: &Stages,
        watch: &Watch,
        finished: &Finished,
    ) -> Self {
        let counts = Counts {
            r#in: watch.input.load(Relaxed),
            key: watch.key.load(Relaxed),
            generated: watch.generated.load(Relaxed),
            interpolated: finished.stats.interpolated,
            repeated: finished.stats.repeated,
        };
        let frames = watch.output.load(Relaxed);
        let to_first_frame = finished.to_first_frame.map(|d| d.as_secs_f64());
        let total = finished.total.as_secs_f64();
        let [select, generate, interpolate] = finished.stats.busy.map(|busy| busy.map(seconds));
        let (width, height) = job.options.size.or(watch.size()).unwrap_or((0, 0));
        let count = frames as f64;
        Self {
            keyframed: env!("CARGO_PKG_VERSION"),
            complete: finished.end == End::Finished,
            options: finished.stats.settings.clone(),
            reference: job.reference.display().to_string(),
            input: Input {
                path: clip.path.display().to_string(),
                width: clip.width,
                height: clip.height,
                fps: clip.rate.map(|rate| rate.to_string()),
                duration_s: seconds(watch.input_duration()),
                off_palette_share: watch.off_palette_share(),
            },
            output: Output {
                path: job.output.display().to_string(),
                width,
                height,
                fps: rate.to_string(),
                frames,
                duration_s: count * f64::from(rate.den()) / f64::from(rate.num()),
                encoder: stages.encoder,
                bytes: 0,
            },
            key_ratio: counts.key as f64 / counts.r#in.max(1) as f64,
            counts,
            wall_seconds: Wall { to_first_frame, select, generate, interpolate, total },
            frames_per_second: count / (total - to_first_frame.unwrap_or(0.0)).max(1e-9),
            peak_memory_bytes: memory::peak_bytes(),
        }
    }

    /// Writes it as JSON.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, path: &Path) -> anyhow::Result<()> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        fs::write(path, text).with_context(|| format!("{} cannot be written", path.display()))
    }

    /// A few lines for people.
    pub fn summary(&self, job: &Job) -> String {
        let (out, counts, wall) = (&self.output, &self.counts, &self.wall_seconds);
        let optional = |value: Option<f64>| value.map_or("?".into(), |v| format!("{v:.1} s"));
        let mut lines = vec![
            format!(
                "video    {} ({}x{}, {} frames at {} fps, {:.2} s{})",
                out.path,
                out.width,
                out.height,
                out.frames,
                out.fps,
                out.duration_s,
                if self.complete { "" } else { ", interrupted" }
            ),
            format!(
                "frames   {} poses in, {} key poses ({:.0} %), {} generated, {} interpolated, {} repeated",
                counts.r#in,
                counts.key,
                self.key_ratio * 100.0,
                counts.generated,
                counts.interpolated,
                counts.repeated
            ),
            format!(
                "time     {:.1} s ({} to the first frame, then {:.1} frames a second); select {}, generate {}, \
                 interpolate {}",
                wall.total,
                optional(wall.to_first_frame),
                self.frames_per_second,
                optional(wall.select),
                optional(wall.generate),
                optional(wall.interpolate)
            ),
        ];
        let peak = self.peak_memory_bytes.map(|bytes| format!("memory   {} MiB at most", bytes >> 20));
        lines.extend(peak);
        lines.extend(job.sheet.iter().map(|path| format!("sheet    {}", path.display())));
        lines.extend(job.report.iter().map(|path| format!("report   {}", path.display())));
        lines.join("\n") + "\n"
    }
}

impl Settings {
    /// Asks the elements. While they run they tell what they use; stopped, what they were told.
    pub fn read(stages: &Stages) -> Self {
        Self {
            model: shown(&stages.animate, "model"),
            steps: shown(&stages.animate, "steps"),
            guidance_scale: shown(&stages.animate, "guidance-scale"),
            prompt: shown(&stages.animate, "prompt"),
            lambda: shown(&stages.select, "lambda"),
            window: shown(&stages.select, "window"),
            seed: shown(&stages.animate, "seed"),
            device: shown(&stages.animate, "device"),
        }
    }
}

/// A property as JSON, for the record.
fn shown(element: &gst::Element, name: &str) -> Value {
    if !element.has_property(name) {
        return Value::Null;
    }
    let value = element.property_value(name);
    if let Ok(text) = value.get::<Option<String>>() {
        return text.into();
    }
    let number = value.get::<f64>().map(Value::from);
    let number = number.or_else(|_| value.get::<u32>().map(Value::from));
    number.or_else(|_| value.get::<u64>().map(Value::from)).unwrap_or(Value::Null)
}
