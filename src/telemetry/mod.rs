//! What the daemon tells of itself: events, and figures for Prometheus.

pub mod events;
pub mod metrics;
