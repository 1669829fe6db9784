//! `keyframed bench`: options as typed.

use std::{process::ExitCode, time::Duration};

use anyhow::anyhow;
use keyframed_models::{ContextMode, DeviceChoice, DtypeChoice, Schedule, bench::Way};

use crate::bench::{self, Plan};

/// Options of `keyframed bench`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Model directory, or the name of an installed model
    #[arg(long, value_name = "DIR", default_value = "mini")]
    model: String,
    /// Where the networks run: auto, cpu, cuda or cuda:N
    #[arg(long, value_name = "D", default_value = "auto")]
    device: DeviceChoice,
    /// Number format of the networks: auto, f32, bf16 or (on CUDA devices) f16
    #[arg(long, value_name = "T", default_value = "auto")]
    dtype: DtypeChoice,
    /// Denoising steps for a key frame [default: the model's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=50))]
    steps: Option<u32>,
    /// Key frames that a new one sees [default: the model's]
    #[arg(long, value_name = "N")]
    context_frames: Option<u32>,
    /// How they are seen: cache or recompute
    #[arg(long, value_name = "M", default_value = "cache", value_parser = parse_mode)]
    context_mode: ContextMode,
    /// Order of denoising steps: sequential, or pipelined for the steps of successive key frames as one batch
    #[arg(long, value_name = "S", default_value = "sequential")]
    schedule: Schedule,
    /// Start a key frame's operations one by one on CUDA devices, instead of as one graph
    #[arg(long)]
    no_graphs: bool,
    /// Threads of one operation [default: as many as it has live, beside the other network]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    threads: Option<u32>,
    /// Length of the live run; 0 leaves it out
    #[arg(long, value_name = "N", default_value_t = 20)]
    seconds: u32,
    /// Selection threshold of the live run; 0 asks for a key frame for every pose [default: as live]
    #[arg(long, value_name = "L", value_parser = super::animate::parse_unit)]
    lambda: Option<f64>,
    /// Most pose frames from one key pose to the next in the live run [default: as live]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    window: Option<u32>,
    /// How far the live run's pictures stay behind for in-betweens, milliseconds: a window and 80 ms [default: as live]
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u32).range(..=60_000))]
    latency: Option<u32>,
    /// Instead: how a key frame's cost grows with picture, steps and context (takes minutes)
    #[arg(long, conflicts_with = "seconds")]
    growth: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Measures and prints.
    ///
    /// # Errors
    /// What went wrong, with context.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let json = self.json;
        if self.growth {
            let growth = bench::growth::run(&self.plan())?;
            let text = if json { format!("{:#}\n", growth.json()) } else { growth.to_string() };
            return super::print(&text).map(|()| ExitCode::SUCCESS);
        }
        super::init_gstreamer()?;
        let report = bench::run(&self.plan())?;
        let text = if json { format!("{:#}\n", report.json()) } else { report.to_string() };
        super::print(&text).map(|()| ExitCode::SUCCESS)
    }

    fn plan(self) -> Plan {
        Plan {
            model: self.model,
            device: self.device,
            dtype: self.dtype,
            steps: self.steps.map(|n| n as usize),
            context_frames: self.context_frames.map(|n| n as usize),
            context_mode: self.context_mode,
            way: Way { schedule: self.schedule, graphs: !self.no_graphs },
            threads: self.threads.map(|n| n as usize),
            live: Duration::from_secs(self.seconds.into()),
            lambda: self.lambda,
            window: self.window,
            latency: self.latency.map(|ms| Duration::from_millis(ms.into())),
        }
    }
}

fn parse_mode(text: &str) -> anyhow::Result<ContextMode> {
    match text {
        "cache" => Ok(ContextMode::Cache),
        "recompute" => Ok(ContextMode::Recompute),
        _ => Err(anyhow!("there are cache and recompute")),
    }
}
