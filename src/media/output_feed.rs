//! The way of frames into an output's pipeline.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

/// Where frames go now.
#[derive(Debug, Default)]
pub struct Feed {
    /// Of the open pipeline.
    pub entry: Option<Entry>,
    /// Frames lost in front of pipelines that are closed by now.
    pub lost: u64,
}

/// The way into a pipeline.
#[derive(Debug)]
pub struct Entry {
    pub appsrc: gst_app::AppSrc,
    /// The daemon's running time when the pipeline was opened: its own running time starts there, so that streams
    /// and files begin near 0.
    pub offset: gst::ClockTime,
    pub pushed: u64,
    /// Frames that left the queue.
    pub passed: Arc<AtomicU64>,
    /// Timestamp of the newest frame pushed, in the daemon's running time.
    pub newest: gst::ClockTime,
}

impl Entry {
    /// Frames that wait.
    pub fn queued(&self) -> u64 {
        self.appsrc.current_level_buffers()
    }

    /// Frames that gave way to newer ones.
    pub fn dropped(&self) -> u64 {
        self.pushed.saturating_sub(self.passed.load(Relaxed)).saturating_sub(self.queued())
    }
}
