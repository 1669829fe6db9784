//! What the daemon tells of itself: log lines, events, and figures for Prometheus.

pub mod events;
pub mod gst_log;
mod lines;
pub mod log;
pub mod metrics;
mod stderr;
