//! What `lcmanimate` remembers while it runs.
use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::Arc,
    thread::ThreadId,
    time::{Duration, Instant},
};

use keyframed_engine::{Frame, Mailbox, Policy, rate::Capacity};

use super::job::{Begun, Job, Pose, Taken};
use crate::{
    loading::Loading,
    models::{Animator, OpenModel, Tuning},
};

/// Longest latency that is declared. A machine that needs longer for a key frame shows it late rather than
/// making everything wait for it.
const MOST_LATENCY: Duration = Duration::from_secs(2);
/// Two of these without a slow key frame, and the declared latency shrinks.
const SPELL: Duration = Duration::from_secs(20);
/// For so long after the first key frames other networks may still load or run for the first time.
const SETTLING: Duration = Duration::from_secs(5);
/// Latency is not declared anew to save less than this, a tick at 25 pictures a second: it costs the output a tick.
const LEAST_SAVING: u64 = 40_000_000;
/// Steps in which the declared latency changes.
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
    /// Time spent generating, whichever thread did.
    pub busy: Duration,
    /// Time that the last key frame took, both halves.
    pub last: Duration,
}

/// How long key poses take from their arrival to their key frame.
#[derive(Debug, Clone, Copy, Default)]
pub struct Latency {
    /// What the LATENCY query answers, nanoseconds.
    pub declared: u64,
    /// Key poses that came before have waited for what is rare: the model, the first key frame, a new reference.
    steady: Option<Instant>,
    /// Until then key frames are slow because something loads: none but the first is declared.
    settled: Option<Instant>,
    /// The two slowest key frames of the present spell and of the one before, slowest first.
    slowest: [[u64; 2]; 2],
    /// When the present spell began.
    spell: Option<Instant>,
}

impl Latency {
    /// Notes that the key frame of a key pose that came at `since` is there at `now`; whether another latency must be
    /// declared. One that was too short twice in two spells grows at once (a single key frame may be late: that costs
    /// no tick, only the one in-between or two that approach it); one that was much too long for a while shrinks. What
    /// comes soon after the first counts only if nothing is declared yet.
    pub fn observe(&mut self, since: Instant, now: Instant) -> bool {
        let steady = *self.steady.get_or_insert(now);
        let took = now.duration_since(since).min(MOST_LATENCY);
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        if since < steady {
            return false;
        }
        if self.declared == 0 {
            self.declared = declaration(took);
            self.settled = Some(now + SETTLING);
            return true;
        }
        if self.settled.is_some_and(|settled| now < settled) {
            return false;
        }
        let calm = self.note(took, now);
        let mut slowest = self.slowest.as_flattened().to_vec();
        slowest.sort_unstable_by(|a, b| b.cmp(a));
        let again = slowest[1];
        let saves = |slowest| {
            let less = declaration(slowest);
            less < self.declared / 3 * 2 && less + LEAST_SAVING <= self.declared
        };
        if again <= self.declared && !calm.is_some_and(saves) {
            return false;
        }
        self.declared = declaration(calm.unwrap_or(again).max(again));
        true
    }

    /// At the end of a spell, what two whole ones had more than once.
    fn note(&mut self, took: u64, now: Instant) -> Option<u64> {
        let spell = *self.spell.get_or_insert(now);
        let [first, second] = self.slowest[0];
        self.slowest[0] = [first.max(took), second.max(took.min(first))];
        if now.duration_since(spell) < SPELL {
            return None;
        }
        self.spell = Some(now);
        let [present, before] = self.slowest;
        self.slowest = [[0; 2], present];
        // Before the first spell there was none.
        (before[0] > 0).then(|| present[1].max(before[1]))
    }

    /// What comes next takes longer, once.
    pub fn disturb(&mut self) {
        self.steady = None;
    }
}

/// What to declare if the slowest key frame took so long: a sixteenth more, so that it does not change with each.
fn declaration(slowest: u64) -> u64 {
    let most = u64::try_from(MOST_LATENCY.as_nanos()).unwrap_or(u64::MAX);
    ((slowest + slowest / 16) / LATENCY_STEP + 1).saturating_mul(LATENCY_STEP).min(most)
}

/// Exists from READY to PAUSED to READY.
pub struct State {
    pub model: Arc<dyn OpenModel>,
    /// Between the sink pad and the maker.
    pub mailbox: Arc<Mailbox<Job<Pose>>>,
    /// Between the maker and the source pad's task. The maker takes a key pose only when no key frame waits here.
    pub slot: Arc<Mailbox<Job<Begun>>>,
    /// Whether newer key poses replace waiting ones; known with the first.
    pub leaky: Option<bool>,
    /// Whether upstream is live; known with the first key pose.
    pub live: bool,
    /// What the sink pad carries.
    pub in_info: Option<gst_video::VideoInfo>,
    /// What the source pad carries, as far as its task has come.
    pub out_info: Option<gst_video::VideoInfo>,
    /// Of the sink pad, in TIME format.
    pub segment: Option<gst::FormattedSegment<gst::ClockTime>>,
    /// What pushing last gave; chain returns it. Flushing between flush-start and -stop.
    pub flow: Result<(), gst::FlowError>,
    /// Whether end of stream waits for key frames: no chain call will carry an error upstream any more.
    pub ending: bool,
    /// Flushes so far.
    pub epoch: u64,
    /// The thread that is pushing at the moment.
    pub pushing: Option<ThreadId>,
    /// A reference that the generator has not taken yet, and where it is from.
    pub next_reference: Option<(Frame, PathBuf)>,
    /// The reference in force.
    pub reference: Option<PathBuf>,
    pub loaded: bool,
    pub latency: Latency,
    /// How often key poses may come.
    pub capacity: Capacity,
    /// Which settings that was measured with; see [`Worker`].
    pub measured: u64,
    pub counts: Counts,
    /// By which settings memory ran out last: less was asked for since.
    pub lessened: Option<u64>,
}

/// What only the maker touches.
pub struct Worker {
    /// Arrives once, from the loader.
    pub arriving: Option<Loading<Box<dyn Animator>>>,
    pub animator: Option<Box<dyn Animator>>,
    /// Epoch of the last job.
    pub epoch: u64,
    /// What the animator was last told, used or refused.
    pub tuning: Option<Tuning>,
    /// Counts changes of settings that change what a key frame costs.
    pub costs: u64,
    /// Key poses whose key frames have not come out of the animator, oldest first.
    pub taken: VecDeque<Taken>,
}

impl Worker {
    /// Without networks yet.
    pub fn new(arriving: Loading<Box<dyn Animator>>) -> Self {
        let taken = VecDeque::new();
        Self { arriving: Some(arriving), animator: None, epoch: 0, tuning: None, costs: 0, taken }
    }

    /// Gives up the key frames that are on their way, and says how many. The animator sees no earlier ones either.
    pub fn forget(&mut self) -> u64 {
        if let Some(animator) = &mut self.animator {
            animator.reset();
        }
        let lost = self.taken.len();
        self.taken.clear();
        u64::try_from(lost).unwrap_or(u64::MAX)
    }
}

impl State {
    pub fn new(model: Arc<dyn OpenModel>, reference: Option<(Frame, PathBuf)>) -> Self {
        Self {
            model,
            mailbox: Arc::new(Mailbox::new(Policy::Block)),
            slot: Arc::new(Mailbox::new(Policy::Block)),
            leaky: None,
            live: false,
            in_info: None,
            out_info: None,
            segment: None,
            flow: Ok(()),
            ending: false,
            epoch: 0,
            pushing: None,
            next_reference: reference,
            reference: None,
            loaded: false,
            latency: Latency::default(),
            capacity: Capacity::default(),
            measured: 0,
            counts: Counts::default(),
            lessened: None,
        }
    }

    /// Whether a flush came after `epoch`, or pushing is of no use any more.
    pub fn is_stale(&self, epoch: u64) -> bool {
        self.epoch != epoch || self.flow.is_err()
    }

    /// Notes that a key frame took so long by these settings; answers as [`Capacity::observe`]. The first by new settings
    /// also waits for what is prepared once, and what was measured by the old ones is forgotten.
    pub fn sustain(&mut self, costs: u64, took: u64) -> Option<u64> {
        if std::mem::replace(&mut self.measured, costs) != costs {
            self.capacity.reset();
            return None;
        }
        if self.live && self.counts.generated > 1 { self.capacity.observe(took) } else { None }
    }

    /// How long the key pose that waits has done so; zero if none does.
    pub fn waiting_age(&self) -> Duration {
        let mut age = Duration::ZERO;
        self.mailbox.amend(|job| age = job.work.as_ref().map_or(age, |pose| pose.since.elapsed()));
        age
    }

    /// Drops what is under way; key poses are refused from now on.
    pub fn flush(&mut self) {
        self.flow = Err(gst::FlowError::Flushing);
        self.epoch += 1;
        let waiting = self.mailbox.flush().is_some_and(|job| job.work.is_some());
        let begun = self.slot.flush().is_some_and(|job| job.work.is_some());
        self.counts.dropped += u64::from(waiting) + u64::from(begun);
    }

    /// Drops what is under way and lets both threads come to their end.
    pub fn end(&mut self) {
        self.flush();
        self.mailbox.close();
        self.slot.close();
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
        assert_eq!(latency.declared, 220_000_000);
        for ms in [4400, 6000, 8900] {
            assert!(!latency.observe(at(ms), at(ms + 350)), "something else loads");
        }
        assert!(!latency.observe(at(9400), at(9620)), "that is declared");
        assert!(!latency.observe(at(9700), at(9950)), "one may be late");
        assert!(latency.observe(at(9800), at(10_050)), "but not two");
        assert_eq!(latency.declared, 270_000_000);
        latency.disturb();
        assert!(!latency.observe(at(9500), at(10_500)) && !latency.observe(at(10_400), at(11_000)));
        assert!(!latency.observe(at(11_000), at(21_000)));
        assert!(latency.observe(at(11_000), at(21_000)));
        assert_eq!(latency.declared, 2_000_000_000, "no more than that");
        let mut told = vec![];
        for ms in (25_000..120_000).step_by(100) {
            if latency.observe(at(ms - 300), at(ms)) {
                told.push((ms, latency.declared));
            }
        }
        // After two whole spells, once, to what is true now.
        assert!(matches!(told[..], [(25_000..=75_000, 320_000_000)]), "{told:?}");
    }

    #[test]
    fn what_saves_less_than_a_tick_is_not_worth_it() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        for (first, further, declared) in [(50, 20, 60), (85, 30, 40)] {
            let mut latency = Latency::default();
            assert!(!latency.observe(at(0), at(50)) && latency.observe(at(100), at(100 + first)));
            for ms in (10_000..100_000).step_by(100) {
                latency.observe(at(ms), at(ms + further));
            }
            assert_eq!(latency.declared, declared * 1_000_000, "{first} ms, then {further}");
        }
    }

    #[cfg(feature = "torch")]
    #[test]
    fn other_settings_are_measured_anew() {
        let model = crate::models::open(crate::models::EMBEDDED).unwrap();
        let mut state = State::new(model.into(), None);
        state.live = true;
        state.counts.generated = 2;
        let told = |state: &mut State, costs, took: u64| state.sustain(costs, took).map(|every| every / 900);
        assert_eq!(told(&mut state, 0, 900_000), Some(1111));
        assert_eq!(told(&mut state, 0, 900_000), None, "nothing new");
        assert_eq!(told(&mut state, 1, 9_000_000), None, "prepares much");
        assert_eq!(told(&mut state, 1, 90_000), Some(111), "nothing is left of what was slower");
    }

    #[test]
    fn not_all_settings_change_what_a_key_frame_costs() {
        let with = |change: fn(&mut Tuning)| {
            let mut tuning = Tuning::default();
            change(&mut tuning);
            tuning
        };
        let old = with(|t| t.guidance_scale = Some(2.0));
        assert!(old.costs_as(&with(|t| (t.guidance_scale, t.seed) = (Some(7.0), 3))));
        let others: [fn(&mut Tuning); 4] = [
            |t| t.guidance_scale = Some(1.0),
            |t| (t.guidance_scale, t.steps) = (Some(2.0), Some(2)),
            |t| (t.guidance_scale, t.context_frames) = (Some(2.0), Some(0)),
            |t| (t.guidance_scale, t.lora_scale) = (Some(2.0), Some(0.5)),
        ];
        assert!(others.iter().all(|other| !old.costs_as(&with(*other))));
    }
}
