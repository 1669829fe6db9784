//! Stage 4 live: output ticks on a fixed grid at a fixed latency behind the input.

use std::collections::VecDeque;

use crate::{
    ahead::{Slot, Upcoming},
    counters::{Counters, Latencies},
    error::EngineError,
    frame::{Nanos, SECOND, Timed},
    grid::{Grid, Rate},
    interpolate::Rung,
    ladder::{Ladder, LadderConfig},
    stretch::Stretch,
};

/// Settings of a [`Pacer`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PaceConfig {
    /// Output frames a second.
    pub rate: Rate,
    /// The tick for time T is emitted at T + latency. In-betweens need the key frame after T by then, so it should
    /// cover the time between key poses plus what generating one takes.
    pub latency: Nanos,
    /// Most key frames waiting after the one on show; at least 1. Where the latency spans many key frames, allow
    /// as many: [`most_waiting`](Self::most_waiting).
    pub max_queued: usize,
    /// When to use which rung.
    pub ladder: LadderConfig,
}

impl PaceConfig {
    /// At most two key frames waiting, 80 % of a tick for a light in-between, two seconds of calm before a better rung.
    pub fn new(rate: Rate, latency: Nanos) -> Self {
        let ladder = LadderConfig { best: Rung::Film, budget: rate.period() * 4 / 5, calm: 2 * SECOND };
        Self { rate, latency, max_queued: 2, ladder }
    }

    /// How many key frames may wait at this rate and latency: one for each tick within it, and two.
    pub fn most_waiting(rate: Rate, latency: Nanos) -> usize {
        usize::try_from(latency / rate.period().max(1)).unwrap_or(usize::MAX).saturating_add(2)
    }
}

/// What an output frame shows, with the key frames it is made from.
#[derive(Debug, Clone, PartialEq)]
pub enum Picture<F> {
    /// A key frame, at its own time.
    Frame(F),
    /// The in-between at `t` of the way from `a` to `b`, 0 < `t` < 1, to be made on `rung` (never
    /// [`Rung::Repeat`]).
    Between {
        /// The key frame before.
        a: F,
        /// The key frame after.
        b: F,
        /// Where between them.
        t: f32,
        /// How to make it.
        rung: Rung,
    },
    /// This key frame again: it is held, the next one is not here yet, or there is no time for more.
    Repeat(F),
}

/// One output frame to be made and pushed now.
#[derive(Debug, Clone, PartialEq)]
pub struct Output<F> {
    /// Number of the tick on the grid; ascending, with gaps only where ticks were dropped by a stall or skipped because
    /// the latency became shorter.
    pub index: u64,
    /// Its time, on the grid: the time of the input that it shows (moved, after a jump of the input's timestamps), not
    /// of its emission.
    pub pts: Nanos,
    /// Time to the next tick.
    pub duration: Nanos,
    /// What to show.
    pub picture: Picture<F>,
    /// Which in-between that is, if it is one.
    pub slot: Option<Slot>,
    /// A stall: ticks before it were dropped, for it is emitted a tick or more after the first of them was due.
    pub late: bool,
}

/// Answer to [`Pacer::poll`].
#[derive(Debug, Clone, PartialEq)]
pub enum Poll<F> {
    /// Make and push this frame, then poll again.
    Emit(Output<F>),
    /// Nothing to do before this time.
    Wait(Nanos),
    /// Nothing to do before the first key frame.
    Idle,
    /// The stream has ended.
    Done,
}

/// Decides what to emit and when; `F` is the caller's picture (cheap to clone), which the pacer never looks at.
///
/// The grid starts at the first key frame and never moves. After a stall the ticks that were missed are dropped and
/// the latest due one is emitted, once, marked late: no fast-forward, no burst.
///
/// Timestamps of the input may jump, back or ahead, by more than the latency and a second. The grid goes on; the key
/// frame is shown from the next tick on, whatever waited is dropped, and what follows it plays at its own pace from
/// there.
#[derive(Debug)]
pub struct Pacer<F> {
    config: PaceConfig,
    /// Set by the first key frame, or just before it.
    grid: Option<Grid>,
    /// Number of the next tick; all before it are emitted or dropped.
    next: u64,
    /// Whether a tick has been emitted: what passes before that is start-up, not a stall.
    started: bool,
    /// Whether the latency has become shorter since the last tick.
    shortened: bool,
    /// Key frames in time order: the front one is on show, the others wait.
    keys: VecDeque<Key<F>>,
    /// Input time of the last key frame accepted.
    last: Nanos,
    /// Where input times lie in the output.
    stretch: Stretch,
    /// Whether that stretch has begun since the last tick.
    fresh: bool,
    /// Number of ticks in all, once the end is known.
    count: Option<u64>,
    ladder: Ladder,
    counters: Counters,
    latencies: Latencies,
}

/// Times are those of the output.
#[derive(Debug)]
struct Key<F> {
    pts: Nanos,
    /// Valid from `pts` up to here; never before `pts`.
    held: Nanos,
    /// Shown up to here, valid or not; never before `held`. Interpolation starts from here, so that a key frame
    /// that came late is approached from what is on show, without a jump.
    shown: Nanos,
    item: F,
}

impl<F: Clone> Pacer<F> {
    /// A pacer before its first key frame.
    ///
    /// # Errors
    /// [`EngineError::BadSetting`] if no key frame may wait.
    pub fn new(config: PaceConfig) -> Result<Self, EngineError> {
        if config.max_queued == 0 {
            return Err(EngineError::BadSetting("at least one key frame must be allowed to wait".into()));
        }
        Ok(Self {
            config,
            grid: None,
            next: 0,
            started: false,
            shortened: false,
            keys: VecDeque::new(),
            last: 0,
            stretch: Stretch::default(),
            fresh: false,
            count: None,
            ladder: Ladder::new(config.ladder),
            counters: Counters::default(),
            latencies: Latencies::default(),
        })
    }

    /// A key frame has come. If too many wait, it takes the place of the newest waiting one: the one being
    /// approached stays, so that motion does not jump. Answers its time in the output, which differs from its own
    /// after a jump.
    ///
    /// # Errors
    /// [`EngineError::OutOfOrder`] if it does not come after the last, but not by so much that it is a jump;
    /// [`EngineError::Ended`] after [`finish`](Self::finish). The key frame is dropped and counted so.
    pub fn key(&mut self, key: Timed<F>) -> Result<Nanos, EngineError> {
        self.counters.generated += 1;
        let jumps = self.jumps_back(key.pts) || self.jumps_ahead(key.pts);
        let refused = match self.keys.back() {
            _ if self.count.is_some() => Some(EngineError::Ended),
            Some(_) if key.pts <= self.last && !jumps => {
                Some(EngineError::OutOfOrder { pts: key.pts, last: self.last })
            }
            _ => None,
        };
        if let Some(error) = refused {
            self.counters.dropped += 1;
            return Err(error);
        }
        let present = self.grid.get_or_insert(Grid::new(self.config.rate, key.pts)).pts(self.next);
        if jumps {
            self.begin_stretch(key.pts, present);
        }
        let at = self.stretch.place(key.pts);
        self.stretch.came(at, present);
        self.last = key.pts;
        let pts = if jumps { present } else { at };
        self.keys.push_back(Key { pts, held: at, shown: at, item: key.item });
        while self.keys.len() > 1 + self.config.max_queued {
            let _replaced = self.keys.remove(self.keys.len() - 2);
            self.counters.dropped += 1;
        }
        Ok(at)
    }

    /// A key frame at `pts` of the input is about to come, at `now`. If it is the first one and lies so far ahead that
    /// later it would be a jump, the grid starts now and not when that time has come.
    pub fn first(&mut self, pts: Nanos, now: Nanos) {
        if self.grid.is_none() && pts > now.saturating_add(self.slack()) {
            self.grid = Some(Grid::new(self.config.rate, now));
            self.stretch.begin(pts, now);
        }
    }

    /// The newest key frame is valid up to `until`: its picture repeats, and interpolation starts there. A time
    /// before that, or no key frame yet, means nothing, nor does one after a jump ahead; a key frame that comes before
    /// `until` ends the hold.
    pub fn hold(&mut self, until: Nanos) {
        if self.jumps_ahead(until) {
            return;
        }
        let until = self.stretch.place(until);
        if let Some(key) = self.keys.back_mut() {
            key.held = key.held.max(until);
            key.shown = key.shown.max(until);
        }
    }

    /// No more key frames; the input ended at `end`. Ticks before it are still emitted, each at its time.
    pub fn finish(&mut self, end: Nanos) {
        let newest = self.keys.back().map_or(0, |newest| newest.held);
        // An end that has jumped without a key frame says nothing.
        let end = if self.jumps_ahead(end) { newest } else { self.stretch.place(end).max(newest) };
        let anchor = self.grid.map_or(end, |g| g.anchor());
        self.count.get_or_insert(self.config.rate.count(end.saturating_sub(anchor)));
    }

    /// Goes on at another rate: its grid starts with the next tick, counted from 0, and all key frames stay. The
    /// ladder starts anew with that budget for an in-between.
    pub fn set_rate(&mut self, rate: Rate, budget: Nanos) {
        self.config.rate = rate;
        self.config.ladder.budget = budget;
        self.ladder = Ladder::new(self.config.ladder);
        if let Some(grid) = &mut self.grid {
            *grid = Grid::new(rate, grid.pts(self.next));
            self.next = 0;
        }
    }

    /// The pictures of the key frame on show and of those that wait.
    pub fn items_mut(&mut self) -> impl Iterator<Item = &mut F> {
        self.keys.iter_mut().map(|key| &mut key.item)
    }

    /// What to do at `now`.
    pub fn poll(&mut self, now: Nanos) -> Poll<F> {
        let Some(grid) = self.grid else {
            return if self.count.is_some() { Poll::Done } else { Poll::Idle };
        };
        if self.count.is_some_and(|count| self.next >= count) {
            return Poll::Done;
        }
        let due = grid.pts(self.next).saturating_add(self.config.latency);
        if now < due {
            return Poll::Wait(due);
        }
        let latest = grid.at_or_before(now - self.config.latency).unwrap_or(self.next).max(self.next);
        let index = self.count.map_or(latest, |count| latest.min(count - 1));
        // Ticks that are due because less latency is asked for are no stall.
        let watched = self.started && !std::mem::take(&mut self.shortened);
        let late = watched && index > self.next;
        if watched {
            self.counters.dropped += index - self.next;
            self.ladder.observe_lateness(now, now - due);
        } else if self.started {
            self.counters.skipped += index - self.next;
        }
        self.counters.late += u64::from(late);
        self.started = true;
        self.settle(&grid, index);
        self.next = index + 1;
        match self.show(&grid, index, now) {
            Some((picture, slot)) => {
                let (pts, duration) = (grid.pts(index), grid.duration(index));
                Poll::Emit(Output { index, pts, duration, picture, slot, late })
            }
            // There is a grid only after a key frame, and one always stays on show.
            None => Poll::Idle,
        }
    }

    /// The in-betweens among the next `ticks` ticks, in the order they are due, as [`poll`](Self::poll) will ask for
    /// them if until then no key frame comes or is held, each tick is polled when it is due, and the rung is not
    /// [`Rung::Repeat`]. A key frame that comes changes at most those that lead to the newest waiting one.
    pub fn upcoming(&self, ticks: usize) -> impl Iterator<Item = Upcoming<'_, F>> {
        let end = self.next.saturating_add(u64::try_from(ticks).unwrap_or(u64::MAX));
        let end = self.count.map_or(end, |count| end.min(count));
        let mut front = 0;
        let ticks = self.grid.into_iter().flat_map(move |grid| (self.next..end).map(move |n| (grid, n)));
        ticks
            .map_while(move |(grid, index)| {
                front = self.front_at(front, &grid, index);
                // Behind the newest key frame nothing is known.
                let (a, b) = (self.keys.get(front)?, self.keys.get(front + 1)?);
                let due = grid.pts(index).saturating_add(self.config.latency);
                let slot = self.slot(front, &grid, index);
                Some(slot.map(|slot| Upcoming { slot, due, a: &a.item, b: &b.item }))
            })
            .flatten()
    }

    /// Number of the next tick: all before it are emitted or dropped.
    pub fn next_index(&self) -> u64 {
        self.next
    }

    /// Key frames that wait after the one on show, and the time of the oldest of them.
    pub fn waiting(&self) -> (usize, Option<Nanos>) {
        (self.keys.len().saturating_sub(1), self.keys.get(1).map(|key| key.pts))
    }

    /// What making an in-between on `rung` when it was due cost, measured by the caller; `now` is when it was done.
    pub fn observe_cost(&mut self, now: Nanos, rung: Rung, cost: Nanos) {
        self.ladder.observe_cost(now, rung, cost);
    }

    /// At `now`, the first in-between of a pair was due that FILM had not made ahead of time.
    pub fn observe_missed(&mut self, now: Nanos) {
        self.ladder.observe_missed(now);
    }

    /// Changes the best rung to use, from the next in-between on.
    pub fn set_best(&mut self, best: Rung) {
        self.config.ladder.best = best;
        self.ladder.set_best(best);
    }

    /// Changes the latency from the next tick on (where it is shorter, ticks are skipped and counted so), and how many key frames may wait (at least 1).
    pub fn set_latency(&mut self, latency: Nanos, max_queued: usize) {
        self.shortened |= latency < self.config.latency;
        self.config.latency = latency;
        self.config.max_queued = max_queued.max(1);
    }

    /// The ladder: the rung in force and why.
    pub fn ladder(&self) -> &Ladder {
        &self.ladder
    }

    /// The rung in force.
    pub fn rung(&self) -> Rung {
        self.ladder.rung()
    }

    /// Counts so far (`input` and `key` are stage 1's and stay 0).
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// From the time of the pose shown to the emission: for an output at its proper time that is the configured
    /// latency; for a repeated key frame the time since it stopped being valid adds to it.
    pub fn latencies(&self) -> &Latencies {
        &self.latencies
    }

    /// The settings in force.
    pub fn config(&self) -> &PaceConfig {
        &self.config
    }

    /// Forgets the stream, as after a flush: the next key frame starts a new grid. Counts go on.
    pub fn reset(&mut self) {
        self.grid = None;
        self.next = 0;
        self.started = false;
        self.shortened = false;
        self.keys.clear();
        self.last = 0;
        (self.stretch, self.fresh) = (Stretch::default(), false);
        self.count = None;
        self.ladder.reset();
    }

    /// How far timestamps may be off before they belong to another stretch: a key frame may wait for as long as the
    /// latency.
    fn slack(&self) -> Nanos {
        self.config.latency.saturating_add(SECOND)
    }

    /// Whether a time of the input lies far before what is known.
    fn jumps_back(&self, time: Nanos) -> bool {
        self.keys.back().is_some_and(|newest| self.stretch.jumps_back(time, newest.held, self.slack()))
    }

    /// Whether a time of the input lies far after what is known and after the next tick: in the future.
    fn jumps_ahead(&self, time: Nanos) -> bool {
        let Some((newest, grid)) = self.keys.back().zip(self.grid) else { return false };
        self.stretch.jumps_ahead(time, newest.held.max(grid.pts(self.next)), self.slack())
    }

    /// Drops what waits, for a key frame at `pts` of the input. It is shown from the tick at `present` on and lies as
    /// far behind it as the last one came ahead of its tick: so there is as much time for in-betweens as before.
    fn begin_stretch(&mut self, pts: Nanos, present: Nanos) {
        let unseen = self.keys.len() - usize::from(self.started && !self.fresh);
        self.counters.dropped += unseen as u64;
        self.keys.clear();
        // While no tick passes nothing tells how early key frames come.
        let lead = if self.started { self.stretch.lead() } else { Nanos::MAX };
        self.stretch.begin(pts, present.saturating_add(lead.min(self.config.latency)));
        self.fresh = true;
    }

    /// A stretch that has just begun does so with the tick that is emitted: those up to tick `index` are dropped.
    fn settle(&mut self, grid: &Grid, index: u64) {
        if std::mem::take(&mut self.fresh) && index > self.next {
            let by = grid.pts(index) - grid.pts(self.next);
            self.stretch.shift(by);
            for key in &mut self.keys {
                for time in [&mut key.pts, &mut key.held, &mut key.shown] {
                    *time = time.saturating_add(by);
                }
            }
        }
    }

    /// The picture for tick `index`, emitted at `now`.
    fn show(&mut self, grid: &Grid, index: u64, now: Nanos) -> Option<(Picture<F>, Option<Slot>)> {
        let pts = grid.pts(index);
        self.keys.drain(..self.front_at(0, grid, index));
        let rung = self.ladder.rung();
        let slot = self.slot(0, grid, index).filter(|_| rung != Rung::Repeat);
        let b = self.keys.get(1).map(|b| b.item.clone());
        let a = self.keys.front_mut()?;
        let mut valid = pts;
        let picture = match (slot, b) {
            (Some(slot), Some(b)) => {
                self.counters.interpolated += 1;
                Picture::Between { a: a.item.clone(), b, t: slot.t(), rung }
            }
            _ if a.pts.abs_diff(pts) <= grid.snap() => Picture::Frame(a.item.clone()),
            _ => {
                valid = a.held.min(pts);
                a.shown = a.shown.max(pts);
                self.counters.repeated += 1;
                Picture::Repeat(a.item.clone())
            }
        };
        self.latencies.record(now.saturating_sub(valid));
        Some((picture, slot))
    }

    /// The key frame on show at tick `index`, of those from `front` on; by place in the queue.
    fn front_at(&self, front: usize, grid: &Grid, index: u64) -> usize {
        let reached = grid.pts(index).saturating_add(grid.snap());
        let passed = self.keys.iter().skip(front + 1).take_while(|next| next.pts <= reached);
        front + passed.count()
    }

    /// The in-between at tick `index` after the key frame at `front`; `None` if that one itself is shown.
    fn slot(&self, front: usize, grid: &Grid, index: u64) -> Option<Slot> {
        let (a, b) = (self.keys.get(front)?, self.keys.get(front + 1)?);
        let pts = grid.pts(index);
        let between = a.pts.abs_diff(pts) > grid.snap() && a.shown < pts;
        between.then_some(Slot { index, pts, a: a.pts, from: a.shown, b: b.pts })
    }
}
