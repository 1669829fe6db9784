//! Stage 3 live: in-betweens that FILM makes before they are due.
//!
//! Output runs behind input, so both key frames of a pair are known a while before the ticks between them are due.
//! FILM takes longer than a tick for the first picture of a pair and less for each further one; over the pair there
//! may be time enough. A worker asks [`Ahead::next`] what to make and hands it in with [`Ahead::done`]; whoever emits
//! the ticks asks [`Ahead::take`] for what is there and never waits.
//!
//! A pair is judged as a whole: if not all its pictures can be there in time none is begun, and once one is missing
//! the others are given up. So the sharpness of the picture changes within a pair only when an estimate was wrong.

use std::collections::{BTreeMap, VecDeque};

use crate::{
    frame::Nanos,
    grid::fraction,
    interpolate::Rung,
    pace::{Output, Pacer},
};

/// Names an in-between: at the same tick, between the same key frames, from the same start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// Number of its tick.
    pub index: u64,
    /// Time of its tick.
    pub pts: Nanos,
    /// Time of the key frame before.
    pub a: Nanos,
    /// When motion starts from there; later than `a` if that key frame is held, or shown because the next one was late.
    pub from: Nanos,
    /// Time of the key frame after.
    pub b: Nanos,
}

impl Slot {
    /// Where it lies between the two: 0 < t < 1.
    pub fn t(&self) -> f32 {
        fraction(self.from, self.pts, self.b)
    }

    fn pair(&self) -> Pair {
        (self.a, self.b)
    }
}

/// Two key frames that follow each other, by their times.
type Pair = (Nanos, Nanos);

/// An in-between that is coming.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Upcoming<'a, F> {
    /// Which.
    pub slot: Slot,
    /// When it is emitted.
    pub due: Nanos,
    /// The key frame before.
    pub a: &'a F,
    /// The key frame after.
    pub b: &'a F,
}

/// An in-between to be made now.
#[derive(Debug, Clone, PartialEq)]
pub struct Job<F> {
    /// Which.
    pub slot: Slot,
    /// The key frame before.
    pub a: F,
    /// The key frame after.
    pub b: F,
}

/// What FILM is expected to take: for the first picture of a pair, for which the motion is estimated, and for each
/// further one. 0 where nothing is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Costs {
    /// First of a pair.
    pub first: Nanos,
    /// Each further one.
    pub further: Nanos,
    /// Whether FILM has run before.
    warm: bool,
}

impl Costs {
    /// Adds what one has taken. Rises fast and falls slowly, for missing a tick is worse than idling; and one
    /// outlier moves it by half at most.
    fn observe(&mut self, first: bool, cost: Nanos) {
        // The first picture of all prepares memory and kernels.
        if !std::mem::replace(&mut self.warm, true) {
            return;
        }
        let known = if first { &mut self.first } else { &mut self.further };
        *known = match *known {
            0 => cost,
            old if cost > old => old + (cost.min(old.saturating_mul(2)) - old) / 2,
            old => old - (old - cost) / 8,
        };
    }

    fn halve(&mut self) {
        (self.first, self.further) = (self.first / 2, self.further / 2);
    }
}

/// Counts of in-betweens for which FILM was in force.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AheadCounts {
    /// Made before they were due.
    pub prepared: u64,
    /// Not there when they were due though their pair had been begun or judged to fit.
    pub missed: u64,
    /// Never begun, because there was no time for their pair.
    pub declined: u64,
}

impl AheadCounts {
    /// Adds others.
    pub fn merge(&mut self, other: &Self) {
        self.prepared += other.prepared;
        self.missed += other.missed;
        self.declined += other.declined;
    }
}

/// What was decided about a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// FILM makes its in-betweens.
    Film,
    /// There is no time for it.
    Declined,
    /// FILM was to make it, and does no more.
    Missed,
    /// It was there before FILM came into force.
    Light,
}

/// A pair that was judged.
#[derive(Debug)]
struct Judged {
    pair: Pair,
    verdict: Verdict,
    /// Whether the ladder was told that FILM was missing.
    told: bool,
}

/// Most pairs that are remembered: more than can wait, for a pair whose second key frame is replaced is a new one.
const MOST_PAIRS: usize = 256;

/// Decides what FILM makes ahead of time, and keeps it until it is due; `P` is the caller's picture.
#[derive(Debug)]
pub struct Ahead<P> {
    /// By number of the tick.
    ready: BTreeMap<u64, (Slot, P)>,
    /// Oldest first.
    judged: VecDeque<Judged>,
    costs: Costs,
    /// The pair whose motion FILM has.
    motion: Option<Pair>,
    /// All ticks before this one are over.
    passed: u64,
    counts: AheadCounts,
}

impl<P> Ahead<P> {
    /// For a new stream; `costs` are those of the last one, or the default.
    pub fn new(costs: Costs) -> Self {
        let (ready, judged) = (BTreeMap::new(), VecDeque::new());
        Self { ready, judged, costs, motion: None, passed: 0, counts: AheadCounts::default() }
    }

    /// What to make now, if anything. Asked again when something has changed: a key frame has come, a tick is over,
    /// the last job is done. `ticks` is how far ahead to look, which bounds what is kept; FILM can make an in-between
    /// of two key frames only if `fits`.
    pub fn next<F: Clone>(
        &mut self,
        now: Nanos,
        ticks: usize,
        pacer: &Pacer<F>,
        fits: impl Fn(&F, &F) -> bool,
    ) -> Option<Job<F>> {
        self.pass(pacer.next_index());
        let coming: Vec<_> = pacer.upcoming(ticks).filter(|u| fits(u.a, u.b)).collect();
        let film = pacer.rung() == Rung::Film;
        for pair in coming.chunk_by(|x, y| x.slot.pair() == y.slot.pair()) {
            let open: Vec<_> = pair.iter().filter(|u| !self.has(&u.slot)).collect();
            let Some(first) = open.first() else { continue };
            let judged = self.judged(first.slot.pair());
            let verdict = match judged {
                // What is begun is finished.
                Some(Verdict::Film) if !film && self.motion != Some(first.slot.pair()) => Verdict::Light,
                // Judged to fit, but it falls behind: what cannot be there in time is not begun.
                Some(Verdict::Film) if !self.in_time(now, &open[..1]) => Verdict::Missed,
                Some(verdict) => verdict,
                None if !film => Verdict::Light,
                None if self.in_time(now, &open) => Verdict::Film,
                None => {
                    // While FILM is declined nothing measures it, so on trial an estimate must not stand for ever.
                    if pacer.ladder().is_on_trial() {
                        self.costs.halve();
                    }
                    Verdict::Declined
                }
            };
            self.judge(first.slot.pair(), verdict);
            if verdict == Verdict::Film {
                return Some(Job { slot: first.slot, a: first.a.clone(), b: first.b.clone() });
            }
        }
        None
    }

    /// A job is done: `cost` is what it took if that is known, `picture` what came of it if it did not fail.
    pub fn done(&mut self, slot: Slot, cost: Option<Nanos>, picture: Option<P>) {
        let pair = slot.pair();
        if let Some(cost) = cost {
            self.costs.observe(self.motion != Some(pair), cost);
        }
        self.motion = picture.is_some().then_some(pair);
        match picture {
            Some(picture) if slot.index >= self.passed && self.judged(pair) == Some(Verdict::Film) => {
                self.counts.prepared += 1;
                self.ready.insert(slot.index, (slot, picture));
            }
            // Too late, or not wanted any more.
            Some(_) => {}
            None => self.judge(pair, Verdict::Missed),
        }
    }

    /// The picture for `output`, if it is an in-between and was made ahead. If FILM is in force and has missed a pair,
    /// the pacer's ladder is told.
    pub fn take<F: Clone>(&mut self, now: Nanos, pacer: &mut Pacer<F>, output: &Output<F>) -> Option<P> {
        let ready = self.ready.remove(&output.index);
        self.pass(output.index + 1);
        let slot = output.slot?;
        if pacer.ladder().best() != Rung::Film {
            self.ready.clear();
            return None;
        }
        match ready {
            Some((made_for, picture)) if made_for == slot => Some(picture),
            _ => {
                self.miss(now, pacer, slot.pair());
                None
            }
        }
    }

    /// What FILM is expected to take.
    pub fn costs(&self) -> Costs {
        self.costs
    }

    /// Counts so far.
    pub fn counts(&self) -> AheadCounts {
        self.counts
    }

    /// How many pictures are kept.
    pub fn kept(&self) -> usize {
        self.ready.len()
    }

    /// The rest of the pair is made on a light rung.
    fn miss<F: Clone>(&mut self, now: Nanos, pacer: &mut Pacer<F>, pair: Pair) {
        let film = pacer.rung() == Rung::Film;
        let verdict = match self.judged(pair) {
            _ if !film => Verdict::Light,
            None => Verdict::Declined,
            Some(Verdict::Film) => Verdict::Missed,
            Some(verdict) => verdict,
        };
        self.judge(pair, verdict);
        self.ready.retain(|_, (slot, _)| slot.pair() != pair);
        match verdict {
            Verdict::Missed => self.counts.missed += 1,
            Verdict::Declined => self.counts.declined += 1,
            Verdict::Light | Verdict::Film => return,
        }
        let told = self.judged.iter_mut().find(|judged| judged.pair == pair).map(|judged| &mut judged.told);
        if told.is_some_and(|told| !std::mem::replace(told, true)) {
            pacer.observe_missed(now);
        }
    }

    /// Ticks before `index` are over.
    fn pass(&mut self, index: u64) {
        self.passed = self.passed.max(index);
        self.ready = self.ready.split_off(&self.passed);
    }

    fn has(&self, slot: &Slot) -> bool {
        self.ready.get(&slot.index).is_some_and(|(made_for, _)| made_for == slot)
    }

    /// Whether all of these, of one pair, can be made in this order before they are due.
    fn in_time<F>(&self, now: Nanos, open: &[&Upcoming<'_, F>]) -> bool {
        let mut done = now;
        open.iter().enumerate().all(|(n, upcoming)| {
            let first = n == 0 && self.motion != Some(upcoming.slot.pair());
            let cost = if first { self.costs.first } else { self.costs.further };
            done = done.saturating_add(cost);
            done <= upcoming.due
        })
    }

    fn judged(&self, pair: Pair) -> Option<Verdict> {
        self.judged.iter().find(|judged| judged.pair == pair).map(|judged| judged.verdict)
    }

    fn judge(&mut self, pair: Pair, verdict: Verdict) {
        if let Some(judged) = self.judged.iter_mut().find(|judged| judged.pair == pair) {
            judged.verdict = verdict;
            return;
        }
        if self.judged.len() == MOST_PAIRS {
            self.judged.pop_front();
        }
        self.judged.push_back(Judged { pair, verdict, told: false });
    }
}
