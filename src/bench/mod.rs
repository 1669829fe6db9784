//! `keyframed bench`: what a model costs on this machine, and how it does live.

pub mod growth;
mod live;
mod minutes;
mod table;

use std::time::Duration;

use anyhow::Context as _;
use keyframed_models::{
    ContextMode, DeviceChoice, DtypeChoice, ModelDir, Placement, Settings,
    bench::{Cost, Costs, Way, measure},
    device::{Work, share},
};
use serde_json::{Value, json};

pub use live::Live;

/// What to measure.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Name or directory.
    pub model: String,
    /// Where.
    pub device: DeviceChoice,
    /// In which number format.
    pub dtype: DtypeChoice,
    /// Denoising steps; the model's if `None`.
    pub steps: Option<usize>,
    /// Context frames; the model's if `None`.
    pub context_frames: Option<usize>,
    /// How they are seen.
    pub context_mode: ContextMode,
    /// The order of denoising steps, and whether CUDA graphs may be used. The live run is sequential.
    pub way: Way,
    /// Threads of one operation; as many as it has live if `None`.
    pub threads: Option<usize>,
    /// Length of the live run; none if zero.
    pub live: Duration,
    /// Selection threshold of that run; the element's if `None`.
    pub lambda: Option<f64>,
    /// Its window, pose frames; the element's if `None`.
    pub window: Option<u32>,
    /// How far its pictures stay behind for in-betweens; the element's if `None`.
    pub latency: Option<Duration>,
}

impl Plan {
    /// The model, and its own settings where the plan has none.
    fn resolve(&self) -> anyhow::Result<(ModelDir, Settings)> {
        let model = ModelDir::find(&self.model)?;
        let default = Settings::of(&model);
        let settings = Settings {
            steps: self.steps.unwrap_or(default.steps),
            context_frames: self.context_frames.unwrap_or(default.context_frames),
            context_mode: self.context_mode,
            ..default
        };
        Ok((model, settings))
    }

    fn placement(&self, work: Work) -> Placement {
        let threads = Some(self.threads.unwrap_or_else(|| share(work)));
        Placement { device: self.device, dtype: self.dtype, threads }
    }
}

/// What was found.
#[derive(Debug)]
pub struct Report {
    model: String,
    size: (u32, u32),
    settings: Settings,
    device: DeviceChoice,
    costs: Costs,
    live: Option<Live>,
}

/// Time spent on each piece of work before the live run.
const EACH: Duration = Duration::from_secs(1);

/// Measures.
///
/// # Errors
/// What is wrong with the model, the device or the pipeline.
pub fn run(plan: &Plan) -> anyhow::Result<Report> {
    let (model, settings) = plan.resolve()?;
    let costs = measure(&model, &settings, |work| plan.placement(work), plan.way, EACH)
        .with_context(|| format!("measuring the model {}", plan.model))?;
    let live = match plan.live.is_zero() {
        true => None,
        false => Some(live::run(plan, &settings)?),
    };
    let image = model.manifest().image;
    let size = (image.width, image.height);
    Ok(Report { model: plan.model.clone(), size, settings, device: plan.device, costs, live })
}

impl Report {
    /// For programs.
    pub fn json(&self) -> Value {
        let peak = self.costs.peak_gflop_per_s;
        let cost = |cost: &Cost| {
            json!({
                "name": cost.name,
                "gflop": cost.gflop,
                "median_ms": cost.median_ms,
                "p95_ms": cost.p95_ms,
                "gflop_per_s": cost.gflop_per_s(),
                "share_of_peak": cost.gflop_per_s() / peak,
                "runs": cost.runs,
            })
        };
        let list = |costs: &[Cost]| costs.iter().map(cost).collect::<Vec<_>>();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "model": self.model,
            "width": self.size.0,
            "height": self.size.1,
            "device": self.device.to_string(),
            "dtype": self.costs.dtype,
            "schedule": self.costs.way.schedule.to_string(),
            "cuda_graph": self.costs.replayed,
            "threads": self.costs.threads,
            "steps": self.settings.steps,
            "context_frames": self.settings.context_frames,
            "context_bytes": self.costs.context_bytes,
            "peak_gflop_per_s": peak,
            "networks": list(&self.costs.networks),
            "key_frame": cost(&self.costs.key_frame),
            "key_frames_per_s": 1e3 / self.costs.key_frame.median_ms,
            "in_betweens": list(&self.costs.in_betweens),
            "live": self.live.as_ref().map(Live::json),
            "peak_bytes": crate::memory::peak_bytes(),
            "device_memory": self.costs.device_memory.map(|memory| {
                json!({ "tensors_bytes": memory.tensors, "taken_bytes": memory.taken })
            }),
        })
    }
}
