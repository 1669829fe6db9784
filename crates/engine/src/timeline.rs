//! Stage 4 offline: which picture belongs to each output tick, once the key frames around it are known.

use std::collections::VecDeque;

use crate::{
    counters::Counters,
    error::EngineError,
    frame::Nanos,
    grid::{Grid, Rate, fraction},
};

/// What an output tick shows. Key frames are numbered in the order they were fed, from 0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum What {
    /// This key frame, at its own time.
    Key(u64),
    /// The in-between at `t` of the way from key frame `a` to key frame `b` (always `a + 1`), 0 < `t` < 1.
    Between {
        /// The key frame before.
        a: u64,
        /// The key frame after.
        b: u64,
        /// Where between them.
        t: f32,
    },
    /// This key frame again: it is held, or it is the last.
    Repeat(u64),
}

/// One output frame to be made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tick {
    /// Number of the tick on the grid, from 0, without gaps.
    pub index: u64,
    /// Its time, on the grid.
    pub pts: Nanos,
    /// Time to the next tick.
    pub duration: Nanos,
    /// What to show.
    pub what: What,
}

/// Turns key frames and holds, in time order, into the complete list of output ticks.
///
/// Tick 0 is at the first key frame. Feed with [`key`](Self::key), [`hold`](Self::hold) and
/// [`finish`](Self::finish), and after each take what is decided with [`next_tick`](Self::next_tick). A key frame's
/// picture is needed until the ticks up to the following key frame have been taken: two at a time.
#[derive(Debug)]
pub struct Timeline {
    rate: Rate,
    /// Set by the first key frame.
    grid: Option<Grid>,
    /// Number of the next tick to hand out: each is handed out once, in order.
    next: u64,
    /// Stretches whose picture is decided, in time order.
    spans: VecDeque<Span>,
    /// The last key frame, or the point up to which it is held: the next stretch starts here.
    last: Option<Point>,
    ended: bool,
    counters: Counters,
}

/// A key frame that is valid from `pts` to `held`.
#[derive(Debug, Clone, Copy)]
struct Point {
    key: u64,
    pts: Nanos,
    held: Nanos,
}

/// From a point to the next key frame, or at the end a fixed number of ticks.
#[derive(Debug, Clone, Copy)]
enum Span {
    /// Ticks before `to.pts` (less the snap distance, where the tick is `to` itself).
    Towards { from: Point, to: Point },
    /// Ticks with a number below `count`.
    Tail { from: Point, count: u64 },
}

impl Timeline {
    /// A timeline at the given output rate.
    pub fn new(rate: Rate) -> Self {
        let spans = VecDeque::new();
        Self { rate, grid: None, next: 0, spans, last: None, ended: false, counters: Counters::default() }
    }

    /// The next key frame is at `pts`. Returns its number.
    ///
    /// # Errors
    /// [`EngineError::OutOfOrder`] unless `pts` comes after the last key frame (a hold that reaches further ends
    /// here); [`EngineError::Ended`] after [`finish`](Self::finish). The timeline is unchanged.
    pub fn key(&mut self, pts: Nanos) -> Result<u64, EngineError> {
        self.check_open()?;
        let key = self.counters.generated;
        let point = Point { key, pts, held: pts };
        match self.last {
            None => self.grid = Some(Grid::new(self.rate, pts)),
            Some(last) if pts <= last.pts => return Err(EngineError::OutOfOrder { pts, last: last.pts }),
            Some(mut from) => {
                from.held = from.held.min(pts);
                self.spans.push_back(Span::Towards { from, to: point });
            }
        }
        self.last = Some(point);
        self.counters.generated += 1;
        Ok(key)
    }

    /// The last key frame is valid up to `until`: its picture repeats, and interpolation starts there. Before any
    /// key frame it means nothing.
    ///
    /// # Errors
    /// [`EngineError::OutOfOrder`] if `until` lies before the last key frame or hold; [`EngineError::Ended`] after
    /// [`finish`](Self::finish).
    pub fn hold(&mut self, until: Nanos) -> Result<(), EngineError> {
        self.check_open()?;
        let Some(last) = &mut self.last else { return Ok(()) };
        if until < last.held {
            return Err(EngineError::OutOfOrder { pts: until, last: last.held });
        }
        last.held = until;
        Ok(())
    }

    /// No more key frames; the input ended at `end` (its last timestamp plus that frame's duration). The last key
    /// frame repeats until duration × rate ticks have been made.
    ///
    /// # Errors
    /// [`EngineError::Ended`] the second time.
    pub fn finish(&mut self, end: Nanos) -> Result<(), EngineError> {
        self.check_open()?;
        self.ended = true;
        if let (Some(grid), Some(from)) = (self.grid, self.last) {
            // At an output rate below the input's, rounding could leave the last key frame without a tick.
            let last = grid.at_or_before(from.pts + grid.snap()).map_or(0, |n| n + 1);
            let count = self.rate.count(end.saturating_sub(grid.anchor())).max(last);
            self.spans.push_back(Span::Tail { from, count });
        }
        Ok(())
    }

    /// The next tick whose picture is decided, or `None` until more is fed (after [`finish`](Self::finish): for good).
    pub fn next_tick(&mut self) -> Option<Tick> {
        let grid = self.grid?;
        loop {
            let pts = grid.pts(self.next);
            let Some(what) = self.spans.front()?.at(self.next, pts, grid.snap()) else {
                self.spans.pop_front();
                continue;
            };
            match what {
                What::Key(_) => {}
                What::Between { .. } => self.counters.interpolated += 1,
                What::Repeat(_) => self.counters.repeated += 1,
            }
            let tick = Tick { index: self.next, pts, duration: grid.duration(self.next), what };
            self.next += 1;
            return Some(tick);
        }
    }

    /// Key frames fed, and ticks handed out by kind.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    fn check_open(&self) -> Result<(), EngineError> {
        if self.ended { Err(EngineError::Ended) } else { Ok(()) }
    }
}

impl Span {
    /// What tick `index` at `pts` shows if it belongs to this stretch, `None` if it lies behind it.
    fn at(&self, index: u64, pts: Nanos, snap: Nanos) -> Option<What> {
        match *self {
            Self::Tail { from, count } => (index < count).then(|| from.alone(pts, snap)),
            Self::Towards { to, .. } if pts >= to.pts => None,
            Self::Towards { from, .. } if pts.abs_diff(from.pts) <= snap => Some(What::Key(from.key)),
            Self::Towards { to, .. } if to.pts - pts <= snap => Some(What::Key(to.key)),
            Self::Towards { from, .. } if pts <= from.held => Some(What::Repeat(from.key)),
            Self::Towards { from, to } => {
                let t = fraction(from.held, pts, to.pts);
                Some(What::Between { a: from.key, b: to.key, t })
            }
        }
    }
}

impl Point {
    fn alone(&self, pts: Nanos, snap: Nanos) -> What {
        if pts.abs_diff(self.pts) <= snap { What::Key(self.key) } else { What::Repeat(self.key) }
    }
}
