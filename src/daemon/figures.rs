//! Figures of the animation, as its elements count them.

use gst::prelude::*;
use keyframed_control::types::{InBetweens, Percentiles};

/// Figures of an animation since its start.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    /// Poses that came to stage 1.
    pub input: u64,
    /// Key poses selected.
    pub key_poses: u64,
    /// Key frames generated.
    pub key_frames: u64,
    /// Key frames that could not be made.
    pub failed: u64,
    /// Key poses and output ticks given up.
    pub dropped: u64,
    /// Output frames that repeat a picture.
    pub repeated: u64,
    /// Output frames that came late.
    pub late: u64,
    /// In-betweens.
    pub in_betweens: InBetweens,
    /// λ in force.
    pub lambda: f64,
    /// Rung in force.
    pub rung: Option<String>,
    /// Time of the last key frame, milliseconds.
    pub generate_ms: f64,
    /// Whether the model is loaded.
    pub loaded: bool,
    /// Reference in force.
    pub reference: Option<String>,
    /// From pose to output.
    pub latency_ms: Option<Percentiles>,
    /// Poses that wait.
    pub waiting: u64,
    /// Age of the oldest of these, milliseconds.
    pub waiting_ms: f64,
}

impl Figures {
    /// Those of `stages`, in front of which `poses` wait.
    pub fn of(stages: &gst::Element, poses: &gst_app::AppSrc) -> Self {
        let stats = stages.property::<gst::Structure>("stats");
        let of = |child: &str| {
            stats.get::<gst::Structure>(child).unwrap_or_else(|_| gst::Structure::new_empty("none"))
        };
        let (select, animate, interpolate) = (of("select"), of("animate"), of("interpolate"));
        let count = |of: &gst::StructureRef, field: &str| of.get::<u64>(field).unwrap_or(0);
        let millis = |field: &str| interpolate.get::<u64>(field).ok().map(to_millis);
        let latency = || {
            let [p50, p95, p99] = ["latency-p50", "latency-p95", "latency-p99"].map(millis);
            Some(Percentiles { p50: p50?, p95: p95?, p99: p99? })
        };
        Self {
            input: count(&select, "in"),
            key_poses: count(&select, "key"),
            key_frames: count(&animate, "generated"),
            failed: count(&animate, "failed"),
            dropped: count(&stats, "dropped"),
            repeated: count(&interpolate, "repeated"),
            late: count(&interpolate, "late"),
            in_betweens: InBetweens {
                film: count(&interpolate, "film"),
                warp: count(&interpolate, "warp"),
                crossfade: count(&interpolate, "crossfade"),
            },
            lambda: select.get("lambda").unwrap_or(0.0),
            rung: interpolate.get("rung").ok(),
            generate_ms: to_millis(count(&animate, "last-time")),
            loaded: animate.get("loaded").unwrap_or(false),
            reference: animate.get::<Option<String>>("reference").ok().flatten(),
            latency_ms: latency(),
            waiting: poses.current_level_buffers(),
            waiting_ms: to_millis(poses.current_level_time().nseconds()),
        }
    }

    /// Sums of both; what is no sum is `now`'s.
    pub fn plus(self, now: Self) -> Self {
        Self {
            input: self.input + now.input,
            key_poses: self.key_poses + now.key_poses,
            key_frames: self.key_frames + now.key_frames,
            failed: self.failed + now.failed,
            dropped: self.dropped + now.dropped,
            repeated: self.repeated + now.repeated,
            late: self.late + now.late,
            in_betweens: InBetweens {
                film: self.in_betweens.film + now.in_betweens.film,
                warp: self.in_betweens.warp + now.in_betweens.warp,
                crossfade: self.in_betweens.crossfade + now.in_betweens.crossfade,
            },
            ..now
        }
    }
}

/// As told on the wire.
pub fn to_millis(nanos: u64) -> f64 {
    nanos as f64 / 1e6
}
