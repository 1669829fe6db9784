//! Figures: counters since the start, and rates over the last second.

use std::time::Instant;

use keyframed_control::types::Stats;

use super::{figures::Figures, parts::Parts, relay::Counts};

/// Name of the queue in front of the animation.
const POSES: &str = "poses";

/// Remembers the counters of a second ago.
#[derive(Debug)]
pub struct Report {
    started: Instant,
    before: Option<Sample>,
    rates: Rates,
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Instant,
    output: u64,
    input: u64,
    keys: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Rates {
    output: f64,
    input: f64,
    key_ratio: f64,
}

impl Report {
    /// Times are told from `started` on.
    pub fn new(started: Instant) -> Self {
        Self { started, before: None, rates: Rates::default() }
    }

    /// Seconds since the start.
    pub fn uptime_secs(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    /// Takes the rates anew: once a second.
    pub fn measure(&mut self, received: u64, figures: &Figures, relay: Counts) {
        let now =
            Sample { at: Instant::now(), output: relay.frames, input: received, keys: figures.key_poses };
        if let Some(before) = self.before.replace(now) {
            let secs = now.at.duration_since(before.at).as_secs_f64().max(1e-3);
            let gone = |now: u64, before: u64| now.saturating_sub(before) as f64;
            let input = gone(now.input, before.input);
            self.rates = Rates {
                output: gone(now.output, before.output) / secs,
                input: input / secs,
                key_ratio: (gone(now.keys, before.keys) / input.max(1.0)).min(1.0),
            };
        }
    }

    /// Everything together.
    pub fn stats(&self, received: u64, figures: &Figures, relay: Counts, parts: &Parts) -> Stats {
        let mut stats = Stats {
            uptime_secs: self.uptime_secs(),
            frames_in: received,
            frames_out: relay.frames,
            key_poses: figures.key_poses,
            key_frames: figures.key_frames,
            in_betweens: figures.in_betweens,
            // Those of the animation that were not shown repeat nothing on the outputs.
            repeated: (figures.repeated + relay.repeated).saturating_sub(relay.stale),
            late: figures.late + relay.late,
            dropped: figures.dropped + relay.skipped,
            failed: figures.failed,
            output_rate_hz: self.rates.output,
            input_rate_hz: self.rates.input,
            key_ratio: self.rates.key_ratio,
            lambda: figures.lambda,
            rung: figures.rung.clone().unwrap_or_else(|| "repeat".into()),
            generate_ms: figures.generate_ms,
            latency_ms: figures.latency_ms,
            ..Stats::default()
        };
        let poses = (POSES.to_owned(), figures.waiting, figures.waiting_ms);
        for (queue, frames, age) in parts.queues().into_iter().chain([poses]) {
            stats.queue_frames.insert(queue.clone(), frames);
            stats.queue_age_ms.insert(queue, age);
        }
        stats
    }
}
