//! The quality ladder under load: down at once, up after a calm.
//!
//! FILM's pictures are made ahead of time, so what counts is not what they cost but whether they are there when they
//! are due. Light rungs are made when they are due and must fit into a tick.

use crate::{frame::Nanos, interpolate::Rung};

/// Settings of a [`Ladder`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LadderConfig {
    /// The best rung to use (`max-quality`).
    pub best: Rung,
    /// What an in-between of a light rung may cost, and how late an output may be.
    pub budget: Nanos,
    /// This long without trouble before a better rung is tried.
    pub calm: Nanos,
}

/// After a better rung failed at once, the calm asked for doubles, up to this many times.
const MAX_DOUBLINGS: u32 = 5;

/// Why the rung in force is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// A stream began.
    Start,
    /// FILM was not there in time.
    Missed,
    /// A light rung took too long.
    Slow,
    /// An output was late.
    Late,
    /// There was no trouble for a while.
    Calm,
    /// The best rung that may be used is another one.
    Limit,
}

impl Reason {
    /// Its name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Missed => "missed",
            Self::Slow => "slow",
            Self::Late => "late",
            Self::Calm => "calm",
            Self::Limit => "limit",
        }
    }
}

/// Picks the rung for the next in-between.
///
/// A light rung that costs more than the budget, an output that is later than that, and FILM's missing two pairs
/// within a calm period step down at once. (One pair may miss because its key frame came late, which a cheaper rung
/// does not mend.) Without trouble for a calm period it steps up; if that rung then fails within a calm period, the
/// next wait is twice as long, so that an overloaded machine is not made to stumble every few seconds.
#[derive(Debug, Clone)]
pub struct Ladder {
    config: LadderConfig,
    rung: Rung,
    /// Why it is that one.
    reason: Reason,
    /// When FILM last missed a pair.
    missed: Option<Nanos>,
    /// Since when there has been no trouble on this rung; `None` before the first observation.
    calm_since: Option<Nanos>,
    /// When the present rung was reached by stepping up, until it has proved itself.
    on_trial: Option<Nanos>,
    doublings: u32,
}

impl Ladder {
    /// A ladder on its best rung.
    pub fn new(config: LadderConfig) -> Self {
        let (rung, reason) = (config.best, Reason::Start);
        Self { config, rung, reason, missed: None, calm_since: None, on_trial: None, doublings: 0 }
    }

    /// The rung to use.
    pub fn rung(&self) -> Rung {
        self.rung
    }

    /// Why it is that one.
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// The best rung that may be used.
    pub fn best(&self) -> Rung {
        self.config.best
    }

    /// Whether the rung was stepped up to and has not proved itself yet.
    pub fn is_on_trial(&self) -> bool {
        self.on_trial.is_some()
    }

    /// At `now`, an in-between on `rung`, made when it was due, was found to have cost this much. Costs of rungs better
    /// than the present one are old news and ignored; cheaper ones stand in for it.
    pub fn observe_cost(&mut self, now: Nanos, rung: Rung, cost: Nanos) {
        if rung >= self.rung {
            self.observe(now, (cost > self.config.budget).then_some(Reason::Slow));
        }
    }

    /// At `now`, an output was emitted this late.
    pub fn observe_lateness(&mut self, now: Nanos, lateness: Nanos) {
        self.observe(now, (lateness > self.config.budget).then_some(Reason::Late));
    }

    /// At `now`, FILM had missed a pair of key frames. Unless FILM is in force that means nothing.
    pub fn observe_missed(&mut self, now: Nanos) {
        if self.rung != Rung::Film {
            return;
        }
        let before = self.missed.replace(now);
        let again = before.is_some_and(|before| now.saturating_sub(before) < self.config.calm);
        if again || self.is_on_trial() {
            self.observe(now, Some(Reason::Missed));
        }
    }

    /// Changes the best rung to use. From the old best it goes to the new one at once; from below it climbs.
    pub fn set_best(&mut self, best: Rung) {
        let old = std::mem::replace(&mut self.config.best, best);
        if best != old && (self.rung == old || self.rung < best) {
            (self.rung, self.reason) = (best, Reason::Limit);
        }
    }

    /// Goes back to the best rung, as after a flush.
    pub fn reset(&mut self) {
        *self = Self::new(self.config);
    }

    fn observe(&mut self, now: Nanos, trouble: Option<Reason>) {
        let calm_since = *self.calm_since.get_or_insert(now);
        if let Some(reason) = trouble {
            self.step_down(now, reason);
            return;
        }
        if self.on_trial.is_some_and(|since| now.saturating_sub(since) >= self.config.calm) {
            self.on_trial = None;
            self.doublings = 0;
        }
        let wait = self.config.calm.saturating_mul(1 << self.doublings);
        if now.saturating_sub(calm_since) >= wait && self.rung > self.config.best {
            self.step_up(now);
        }
    }

    fn step_down(&mut self, now: Nanos, reason: Reason) {
        if self.on_trial.take().is_some() {
            self.doublings = (self.doublings + 1).min(MAX_DOUBLINGS);
        }
        if let Some(cheaper) = self.rung.cheaper() {
            (self.rung, self.reason) = (cheaper, reason);
        }
        (self.calm_since, self.missed) = (Some(now), None);
    }

    fn step_up(&mut self, now: Nanos) {
        if let Some(better) = self.rung.better() {
            (self.rung, self.reason) = (better, Reason::Calm);
        }
        (self.calm_since, self.on_trial) = (Some(now), Some(now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ladder(best: Rung) -> Ladder {
        Ladder::new(LadderConfig { best, budget: 10, calm: 100 })
    }

    #[test]
    fn trouble_steps_down_rung_by_rung_and_calm_steps_up() {
        let mut l = ladder(Rung::Film);
        for (now, want) in [(0, Rung::Warp), (1, Rung::Crossfade), (2, Rung::Repeat), (3, Rung::Repeat)] {
            l.observe_lateness(now, 11);
            assert_eq!(l.rung(), want);
        }
        for (now, want) in
            [(102, Rung::Repeat), (103, Rung::Crossfade), (202, Rung::Crossfade), (203, Rung::Warp)]
        {
            l.observe_lateness(now, 10);
            assert_eq!(l.rung(), want, "at {now}");
        }
    }

    #[test]
    fn old_news_of_a_better_rung_is_ignored_and_the_best_is_kept() {
        let mut l = ladder(Rung::Warp);
        l.observe_cost(0, Rung::Film, 1000);
        assert_eq!(l.rung(), Rung::Warp);
        l.observe_cost(1000, Rung::Warp, 10);
        l.observe_cost(2000, Rung::Warp, 10);
        assert_eq!(l.rung(), Rung::Warp);
    }

    #[test]
    fn the_best_rung_changes() {
        let mut l = ladder(Rung::Crossfade);
        l.set_best(Rung::Film);
        assert_eq!(l.rung(), Rung::Film, "nothing spoke against the best");
        l.observe_lateness(0, 11);
        l.set_best(Rung::Film);
        assert_eq!(l.rung(), Rung::Warp, "no change, no step");
        l.set_best(Rung::Repeat);
        assert_eq!(l.rung(), Rung::Repeat);
        let mut l = ladder(Rung::Warp);
        l.observe_lateness(0, 11);
        l.set_best(Rung::Film);
        assert_eq!(l.rung(), Rung::Crossfade, "an overloaded machine climbs step by step");
        l.observe_lateness(100, 0);
        l.observe_lateness(200, 0);
        assert_eq!(l.rung(), Rung::Film);
    }

    #[test]
    fn a_rung_that_fails_on_trial_is_tried_ever_more_rarely() {
        let mut l = ladder(Rung::Film);
        l.observe_missed(0);
        let mut tries = Vec::new();
        for now in 0..20_000 {
            if l.rung() == Rung::Film {
                tries.push(now);
                l.observe_missed(now);
            } else {
                l.observe_cost(now, l.rung(), 1);
            }
        }
        let waits: Vec<u64> = tries.windows(2).map(|w| w[1] - w[0]).collect();
        assert!(waits.starts_with(&[101, 201, 401, 801, 1601, 3201, 3201]), "{waits:?}");
        // Once it proves itself, the next fall is followed by a short wait again.
        let mut now = 30_000;
        while l.rung() != Rung::Film {
            l.observe_cost(now, l.rung(), 1);
            now += 1;
        }
        (now..now + 200).for_each(|now| l.observe_lateness(now, 1));
        l.observe_missed(now + 199);
        l.observe_missed(now + 200);
        assert_eq!(l.rung(), Rung::Warp);
        l.observe_cost(now + 300, Rung::Warp, 1);
        assert_eq!(l.rung(), Rung::Film);
    }

    #[test]
    fn one_missed_pair_is_forgiven_and_two_are_not() {
        let mut l = ladder(Rung::Film);
        for now in [0, 100, 200, 1000] {
            l.observe_missed(now);
            assert_eq!(l.rung(), Rung::Film, "one in a calm period");
        }
        l.observe_missed(1099);
        assert_eq!((l.rung(), l.reason()), (Rung::Warp, Reason::Missed));
        l.observe_missed(1100);
        assert_eq!(l.rung(), Rung::Warp, "nothing is asked of FILM any more");
        l.observe_lateness(1199, 0);
        assert_eq!((l.rung(), l.reason(), l.is_on_trial()), (Rung::Film, Reason::Calm, true));
        l.observe_missed(1210);
        assert_eq!(l.rung(), Rung::Warp, "on trial nothing is forgiven");
    }

    #[test]
    fn what_stands_in_for_film_must_fit_too() {
        let mut l = ladder(Rung::Film);
        l.observe_cost(0, Rung::Warp, 10);
        assert_eq!(l.rung(), Rung::Film);
        l.observe_cost(1, Rung::Warp, 11);
        assert_eq!((l.rung(), l.reason()), (Rung::Warp, Reason::Slow));
    }
}
