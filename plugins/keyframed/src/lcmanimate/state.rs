//! What `lcmanimate` remembers while it runs.
use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use keyframed_engine::{Frame, Mailbox, Policy};

use super::job::Job;
use crate::{
    loading::Loading,
    models::{Animator, OpenModel},
};

/// Longest latency that is declared. A machine that needs longer for a key frame shows it late rather than
/// making everything wait for it.
const MOST_LATENCY: Duration = Duration::from_secs(2);
/// Steps in which the declared latency grows.
const LATENCY_STEP: u64 = 10_000_000;

/// Counts since the start.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    pub input: u64,
    pub generated: u64,
    pub dropped: u64,
    pub failed: u64,
    /// Failures since the last key frame.
    pub failed_running: u64,
    /// Time spent generating.
    pub busy: Duration,
    /// Time that the last key frame took.
    pub last: Duration,
}

/// How long key poses take from their arrival to their key frame.
#[derive(Debug, Clone, Copy, Default)]
pub struct Latency {
    /// What the LATENCY query answers, nanoseconds.
    pub declared: u64,
    /// Key poses that came before have waited for what is rare: the model, the first key frame, a new reference.
    steady: Option<Instant>,
}

impl Latency {
    /// Notes that the key frame of a key pose that came at `since` is there at `now`; whether more must be declared.
    pub fn observe(&mut self, since: Instant, now: Instant) -> bool {
        let steady = *self.steady.get_or_insert(now);
        let took = now.duration_since(since).min(MOST_LATENCY);
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        if since < steady || took <= self.declared {
            return false;
        }
        // A quarter more, so that it does not grow with every key frame.
        let most = u64::try_from(MOST_LATENCY.as_nanos()).unwrap_or(u64::MAX);
        self.declared = ((took + took / 4) / LATENCY_STEP + 1).saturating_mul(LATENCY_STEP).min(most);
        true
    }

    /// What comes next takes longer, once.
    pub fn disturb(&mut self) {
        self.steady = None;
    }
}

/// Exists from READY to PAUSED to READY.
pub struct State {
    pub model: Arc<dyn OpenModel>,
    /// Between the sink pad and the worker.
    pub mailbox: Arc<Mailbox<Job>>,
    /// Whether newer key poses replace waiting ones; known with the first.
    pub leaky: Option<bool>,
    /// Whether upstream is live; known with the first key pose.
    pub live: bool,
    /// What the sink pad carries.
    pub in_info: Option<gst_video::VideoInfo>,
    /// What the source pad carries, as far as the worker has come.
    pub out_info: Option<gst_video::VideoInfo>,
    /// Of the sink pad, in TIME format.
    pub segment: Option<gst::FormattedSegment<gst::ClockTime>>,
    /// What pushing last gave; chain returns it. Flushing between flush-start and -stop.
    pub flow: Result<(), gst::FlowError>,
    /// Whether end of stream waits for the worker: no chain call will carry an error upstream any more.
    pub ending: bool,
    /// Flushes so far.
    pub epoch: u64,
    /// A reference that the generator has not taken yet, and where it is from.
    pub next_reference: Option<(Frame, PathBuf)>,
    /// The reference in force.
    pub reference: Option<PathBuf>,
    pub loaded: bool,
    pub latency: Latency,
    pub counts: Counts,
}

/// What only the worker touches.
pub struct Worker {
    /// Arrives once, from the loader.
    pub arriving: Option<Loading<Box<dyn Animator>>>,
    pub animator: Option<Box<dyn Animator>>,
    /// Epoch of the last job.
    pub epoch: u64,
}

impl State {
    pub fn new(model: Arc<dyn OpenModel>, reference: Option<(Frame, PathBuf)>) -> Self {
        Self {
            model,
            mailbox: Arc::new(Mailbox::new(Policy::Block)),
            leaky: None,
            live: false,
            in_info: None,
            out_info: None,
            segment: None,
            flow: Ok(()),
            ending: false,
            epoch: 0,
            next_reference: reference,
            reference: None,
            loaded: false,
            latency: Latency::default(),
            counts: Counts::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_happens_again_is_declared() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut latency = Latency::default();
        assert!(!latency.observe(at(0), at(4000)), "the first waits for the model");
        assert!(!latency.observe(at(3900), at(4200)), "and the next for the first");
        assert!(latency.observe(at(4100), at(4300)));
        assert_eq!(latency.declared, 260_000_000);
        assert!(!latency.observe(at(4400), at(4650)), "that is declared");
        latency.disturb();
        assert!(!latency.observe(at(4500), at(5500)) && !latency.observe(at(5400), at(6000)));
        assert!(latency.observe(at(6000), at(16_000)));
        assert_eq!(latency.declared, 2_000_000_000, "no more than that");
    }
}
