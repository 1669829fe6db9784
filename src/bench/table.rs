//! The report for people.

use std::fmt;

use keyframed_models::{Schedule, bench::Cost};

use super::Report;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (costs, settings, (width, height)) = (&self.costs, &self.settings, self.size);
        let (dtype, threads, peak) = (costs.dtype, costs.threads, costs.peak_gflop_per_s);
        writeln!(
            f,
            "{} {width}x{height}, {} steps, {} context frames, {} in {dtype}, {threads} threads",
            self.model, settings.steps, settings.context_frames, self.device
        )?;
        if costs.way.schedule == Schedule::Pipelined || costs.replayed {
            let graph = if costs.replayed { ", key frames replayed as one CUDA graph" } else { "" };
            writeln!(f, "{} schedule{graph}", costs.way.schedule)?;
        }
        writeln!(f, "convolutions reach {peak:.0} GFLOP/s here\n")?;
        writeln!(f, "{:22} {:>8} {:>9} {:>9} {:>9} {:>6}", "", "GFLOP", "ms", "p95 ms", "GFLOP/s", "peak")?;
        let all = costs.networks.iter().chain([&costs.key_frame]).chain(&costs.in_betweens);
        all.into_iter().try_for_each(|cost| row(f, cost, peak))?;
        writeln!(f, "\n{:.1} key frames a second", 1e3 / costs.key_frame.median_ms)?;
        if costs.context_bytes > 0 {
            writeln!(f, "context ring: {:.1} MiB", mib(costs.context_bytes as u64))?;
        }
        if let Some(memory) = costs.device_memory {
            let [tensors, taken] = [memory.tensors, memory.taken].map(mib);
            writeln!(f, "most memory on the device: {tensors:.0} MiB of tensors, {taken:.0} MiB taken")?;
        }
        if let Some(live) = &self.live {
            write!(f, "{live}")?;
        }
        match crate::memory::peak_bytes() {
            Some(bytes) => writeln!(f, "most memory held: {:.0} MiB", mib(bytes)),
            None => Ok(()),
        }
    }
}

fn row(f: &mut fmt::Formatter<'_>, cost: &Cost, peak: f64) -> fmt::Result {
    let Cost { name, gflop, median_ms, p95_ms, .. } = cost;
    let rate = cost.gflop_per_s();
    let share = 100.0 * rate / peak;
    writeln!(f, "{name:22} {gflop:8.2} {median_ms:9.1} {p95_ms:9.1} {rate:9.0} {share:5.0}%")
}

/// 2²⁰ bytes.
pub fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
