//! What every stage counts, and how late the output is.

use std::fmt;

use ringbuf::{
    HeapRb,
    traits::{Consumer, RingBuffer},
};

use crate::frame::Nanos;

/// Counts since the start of the stream. Each stage fills the fields it knows; [`merge`](Self::merge) adds them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Pose frames that entered stage 1.
    pub input: u64,
    /// Key poses that stage 1 kept.
    pub key: u64,
    /// Key frames that stage 2 made.
    pub generated: u64,
    /// Output frames made by interpolation, on any rung.
    pub interpolated: u64,
    /// Output frames that repeat a key frame.
    pub repeated: u64,
    /// Stalls: output frames in front of which ticks were dropped because nobody asked for those in time. What comes
    /// later than its time, but before the next tick, is not counted.
    pub late: u64,
    /// Output ticks dropped by stalls, and key frames or key poses replaced by newer ones or refused.
    pub dropped: u64,
    /// Output ticks left out on purpose: a shorter latency makes several due at once, and only the last is emitted.
    pub skipped: u64,
}

impl Counters {
    /// Adds another stage's counts to these.
    pub fn merge(&mut self, other: &Self) {
        self.input += other.input;
        self.key += other.key;
        self.generated += other.generated;
        self.interpolated += other.interpolated;
        self.repeated += other.repeated;
        self.late += other.late;
        self.dropped += other.dropped;
        self.skipped += other.skipped;
    }
}

/// Latencies of the last outputs: a bounded window, so that the figures follow what happens now. A pacer keeps 1,024, so
/// its p99 says nothing of what was before them.
pub struct Latencies {
    recent: HeapRb<Nanos>,
}

/// Percentiles over the window, in nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Percentiles {
    /// Half of the outputs were at most this late.
    pub p50: Nanos,
    /// 95 of 100 outputs were at most this late.
    pub p95: Nanos,
    /// 99 of 100 outputs were at most this late.
    pub p99: Nanos,
}

impl Latencies {
    /// A window of the last `len` outputs (at least one).
    pub fn new(len: usize) -> Self {
        Self { recent: HeapRb::new(len.max(1)) }
    }

    /// Adds one latency; the oldest leaves.
    pub fn record(&mut self, latency: Nanos) {
        self.recent.push_overwrite(latency);
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.recent.clear();
    }

    /// A copy of the window, oldest first: for who must not hold up the output while it is sorted.
    pub fn recent(&self) -> Vec<Nanos> {
        self.recent.iter().copied().collect()
    }

    /// Percentiles over the window, or `None` before the first output.
    pub fn percentiles(&self) -> Option<Percentiles> {
        Percentiles::of(self.recent())
    }
}

impl Percentiles {
    /// Percentiles by nearest rank, or `None` of nothing.
    pub fn of(mut latencies: Vec<Nanos>) -> Option<Self> {
        if latencies.is_empty() {
            return None;
        }
        latencies.sort_unstable();
        // Nearest rank: the smallest value that at least `p` of 100 values do not exceed.
        let rank = |p: usize| latencies[(latencies.len() * p).div_ceil(100).max(1) - 1];
        Some(Self { p50: rank(50), p95: rank(95), p99: rank(99) })
    }
}

impl fmt::Debug for Latencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Latencies({:?})", self.percentiles())
    }
}

impl Default for Latencies {
    /// 1,024 outputs: 40 s at 25 frames a second.
    fn default() -> Self {
        Self::new(1024)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_rank_over_the_window() {
        let mut l = Latencies::new(100);
        assert_eq!(l.percentiles(), None);
        (0..1000).chain(1..=100).for_each(|n| l.record(n));
        assert_eq!(l.percentiles(), Some(Percentiles { p50: 50, p95: 95, p99: 99 }));
    }
}
