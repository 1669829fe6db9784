//! How a key frame's cost grows: the table for people, and for programs.

use std::fmt;

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};
use keyframed_models::{
    ContextMode, DeviceChoice, Settings,
    bench::{Point, Ranges, growth},
    device::Work,
};
use serde_json::{Value, json};

use super::{Plan, table::mib};

/// What was found.
#[derive(Debug)]
pub struct Growth {
    model: String,
    size: (u32, u32),
    settings: Settings,
    device: DeviceChoice,
    found: keyframed_models::bench::Growth,
}

/// Measures a key frame over the default [`Ranges`].
///
/// # Errors
/// What is wrong with the model or the device.
pub fn run(plan: &Plan) -> anyhow::Result<Growth> {
    let (model, settings) = plan.resolve()?;
    let placement = plan.placement(Work::KeyFrames);
    let bar =
        ProgressBar::new_spinner().with_style(ProgressStyle::with_template("{spinner} {elapsed} {msg}")?);
    bar.enable_steady_tick(std::time::Duration::from_millis(200));
    let found =
        growth(&model, &settings, placement, &Ranges::default(), |what| bar.set_message(what.to_owned()))
            .with_context(|| format!("measuring the model {}", plan.model))?;
    bar.finish_and_clear();
    let image = model.manifest().image;
    let size = (image.width, image.height);
    Ok(Growth { model: plan.model.clone(), size, settings, device: plan.device, found })
}

impl Growth {
    /// For programs.
    pub fn json(&self) -> Value {
        let list = |points: &[Point]| points.iter().map(point).collect::<Vec<_>>();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "model": self.model,
            "width": self.size.0,
            "height": self.size.1,
            "device": self.device.to_string(),
            "dtype": if self.found.reduced { "bf16" } else { "f32" },
            "threads": self.found.threads,
            "steps": self.settings.steps,
            "context_frames": self.settings.context_frames,
            "random_motion_modules": self.found.random_motion,
            "growth": {
                "size": list(&self.found.sizes),
                "steps": list(&self.found.steps),
                "context_cache": list(&self.found.cached),
                "context_recompute": list(&self.found.recomputed),
            },
            "peak_bytes": crate::memory::peak_bytes(),
        })
    }
}

fn point(point: &Point) -> Value {
    let Point { image, steps, context_frames, context_mode, cost, context_bytes } = point;
    json!({
        "width": image.width,
        "height": image.height,
        "steps": steps,
        "context_frames": context_frames,
        "context_mode": match context_mode {
            ContextMode::Cache => "cache",
            ContextMode::Recompute => "recompute",
        },
        "gflop": cost.gflop,
        "median_ms": cost.median_ms,
        "p95_ms": cost.p95_ms,
        "runs": cost.runs,
        "context_bytes": context_bytes,
    })
}

impl fmt::Display for Growth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (found, settings, (width, height)) = (&self.found, &self.settings, self.size);
        let dtype = if found.reduced { "bf16" } else { "f32" };
        writeln!(f, "a key frame of {}, {} in {dtype}, {} threads", self.model, self.device, found.threads)?;
        let (steps, context) = (settings.steps, settings.context_frames);
        section(f, &format!("picture ({steps} steps)"), &found.sizes, |point| {
            format!("{}x{}", point.image.width, point.image.height)
        })?;
        let title = format!("steps ({width}x{height}, {context} context frames)");
        section(f, &title, &found.steps, |point| point.steps.to_string())?;
        for (points, mode) in [(&found.cached, "cached"), (&found.recomputed, "recomputed")] {
            let title = format!("context frames, {mode} ({width}x{height}, {steps} steps)");
            section(f, &title, points, |point| point.context_frames.to_string())?;
        }
        if found.random_motion {
            writeln!(
                f,
                "\n{} has no motion modules. For the context it was given some, of the published",
                self.model
            )?;
            writeln!(
                f,
                "shape and with random weights, and norms pooled over the frames; the rest is its own."
            )?;
        }
        Ok(())
    }
}

fn section(
    f: &mut fmt::Formatter<'_>,
    title: &str,
    points: &[Point],
    name: impl Fn(&Point) -> String,
) -> fmt::Result {
    writeln!(f, "\n{title}")?;
    writeln!(f, "{:12} {:>9} {:>9} {:>9} {:>6} {:>10}", "", "GFLOP", "ms", "p95 ms", "runs", "ring MiB")?;
    points.iter().try_for_each(|point| {
        let (cost, ring) = (&point.cost, mib(point.context_bytes as u64));
        let (gflop, median, p95, runs) = (cost.gflop, cost.median_ms, cost.p95_ms, cost.runs);
        writeln!(f, "{:>12} {gflop:9.2} {median:9.1} {p95:9.1} {runs:6} {ring:10.2}", name(point))
    })
}
