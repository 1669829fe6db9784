//! Between the animation and the outputs: one frame for every tick of a grid that never stops, whatever comes in.
//!
//! A live picture is passed on at once if its tick is due, half a period sooner or later. If none has come by
//! then, the last one goes out again, and after a while, or if there never was one, the slate.
//!
//! Timestamps lie on a grid that never moves. What follows the animation is the *lead*, the time by which frames
//! leave before their timestamps: when pictures come again after a pause, the lead is set so that they come in the
//! middle of their ticks' time, and it is kept there by small steps. A frame leaves before its timestamp as long as
//! the caller polls in time, so a sink that waits for timestamps is never late.

use crate::{
    frame::Nanos,
    grid::{Grid, Rate},
};

/// Share of a picture's distance from the middle of its tick's time that the lead is corrected by.
const CORRECTION: i64 = 8;

/// Without a live picture for so many periods the last one counts as held.
const GRACE_TICKS: u64 = 3;

/// Settings of a [`Relay`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelayConfig {
    /// Frames a second.
    pub rate: Rate,
    /// Time without live pictures after which the slate is shown.
    pub slate_after: Nanos,
    /// Ticks missed because the caller polled late are made up for, no closer than half a period, if it is no
    /// later than this; otherwise they are skipped.
    pub catch_up: Nanos,
}

/// What is on show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Showing {
    /// The animation.
    Live,
    /// Its last picture.
    Held,
    /// Nothing of it.
    Slate,
}

/// What an emission carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content<F> {
    /// A picture for the first time.
    New(F),
    /// The last picture again.
    Again(F),
    /// The slate.
    Slate,
}

/// One frame to be sent now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Emission<F> {
    /// Number of its tick; ascending by one, but for [`skipped`](Self::skipped).
    pub index: u64,
    /// Its time, on the grid.
    pub pts: Nanos,
    /// Time to the next tick.
    pub duration: Nanos,
    /// What to send.
    pub content: Content<F>,
    /// What that means.
    pub showing: Showing,
    /// Whether it leaves a period or more after it should have.
    pub late: bool,
    /// Ticks before it that were given up.
    pub skipped: u64,
}

/// Answer to [`Relay::poll`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Poll<F> {
    /// Send this, then poll again.
    Emit(Emission<F>),
    /// Nothing to do before this time, or the next [`Relay::picture`].
    Wait(Nanos),
}

/// Whether poses reach the animation. While they do not, it goes on repeating its last picture; its frames tell the
/// time of the pose they show, and those of times without poses are not live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Gap {
    /// The last pose before it.
    from: Nanos,
    /// The first one after it, once there is one.
    to: Option<Nanos>,
}

/// Decides what is sent and when; `F` is the caller's picture (cheap to clone), which the relay never looks at.
#[derive(Debug)]
pub struct Relay<F> {
    config: RelayConfig,
    grid: Grid,
    /// Number of the next tick.
    next: u64,
    /// Frames leave so long before their timestamps: from half a period to two.
    lead: Nanos,
    /// When the last frame left.
    left: Option<Nanos>,
    /// A live picture that has not left yet; a newer one takes its place.
    waiting: Option<F>,
    /// The last one that left.
    last: Option<F>,
    /// When that was, for the first time.
    lived: Option<Nanos>,
    showing: Showing,
    gap: Option<Gap>,
    paused: bool,
    /// End of the last pause.
    resumed: Nanos,
}

impl<F: Clone> Relay<F> {
    /// The first frame is due at `start`.
    pub fn new(config: RelayConfig, start: Nanos) -> Self {
        let lead = config.rate.period();
        Self {
            config,
            grid: Grid::new(config.rate, start.saturating_add(lead)),
            next: 0,
            lead,
            left: None,
            waiting: None,
            last: None,
            lived: None,
            showing: Showing::Slate,
            gap: None,
            paused: false,
            resumed: 0,
        }
    }

    /// A picture of the animation has come; it shows the pose of the time `shows`. Returns whether it is live.
    pub fn picture(&mut self, now: Nanos, shows: Nanos, picture: F) -> bool {
        if self.is_stale(shows) {
            return false;
        }
        self.follow(now);
        self.waiting = Some(picture);
        true
    }

    /// No more poses reach the animation; the last was at `from`.
    pub fn feed_stopped(&mut self, from: Nanos) {
        let from = self.gap.filter(|gap| gap.to.is_none()).map_or(from, |gap| gap.from.min(from));
        self.gap = Some(Gap { from, to: None });
    }

    /// Poses reach the animation again, the first at `to`.
    pub fn feed_resumed(&mut self, to: Nanos) {
        if let Some(gap) = &mut self.gap {
            gap.to.get_or_insert(to);
        }
    }

    /// While paused, what is shown stays: the time until the slate counts from the pause's end.
    pub fn set_paused(&mut self, now: Nanos, paused: bool) {
        if self.paused && !paused {
            self.resumed = now;
        }
        self.paused = paused;
    }

    /// Changes how long the last picture is held.
    pub fn set_slate_after(&mut self, slate_after: Nanos) {
        self.config.slate_after = slate_after;
    }

    /// What the last frame showed.
    pub fn showing(&self) -> Showing {
        self.showing
    }

    /// What to do at `now`.
    pub fn poll(&mut self, now: Nanos) -> Poll<F> {
        let half = self.config.rate.period() / 2;
        let apart = self.left.map_or(0, |left| left.saturating_add(half));
        let due = self.due(self.next);
        let from = if self.waiting.is_some() { due.saturating_sub(half) } else { due.saturating_add(half) };
        let from = from.max(apart);
        if now < from {
            return Poll::Wait(from);
        }
        let skipped = self.skip(now);
        let index = self.next;
        let late = skipped > 0 || now >= self.due(index).saturating_add(self.config.rate.period());
        self.next += 1;
        self.left = Some(now);
        let content = self.content(now);
        let (pts, duration) = (self.grid.pts(index), self.grid.duration(index));
        Poll::Emit(Emission { index, pts, duration, content, showing: self.showing, late, skipped })
    }

    /// When tick `n` should leave.
    fn due(&self, n: u64) -> Nanos {
        self.grid.pts(n).saturating_sub(self.lead)
    }

    /// Gives up the ticks that cannot be made up for.
    fn skip(&mut self, now: Nanos) -> u64 {
        if now.saturating_sub(self.due(self.next)) <= self.config.catch_up {
            return 0;
        }
        let latest = self.grid.at_or_before(now.saturating_add(self.lead)).unwrap_or(self.next);
        let skipped = latest.saturating_sub(self.next);
        self.next += skipped;
        skipped
    }

    fn content(&mut self, now: Nanos) -> Content<F> {
        if let Some(picture) = self.waiting.take() {
            (self.last, self.lived, self.showing) = (Some(picture.clone()), Some(now), Showing::Live);
            return Content::New(picture);
        }
        self.showing = self.without_picture(now);
        match &self.last {
            Some(last) if self.showing != Showing::Slate => Content::Again(last.clone()),
            _ => Content::Slate,
        }
    }

    /// What a frame without a new picture shows.
    fn without_picture(&self, now: Nanos) -> Showing {
        let Some(lived) = self.lived else { return Showing::Slate };
        let since = now.saturating_sub(lived.max(self.resumed));
        if self.showing == Showing::Slate || (since >= self.config.slate_after && !self.paused) {
            Showing::Slate
        } else if self.is_live(now) {
            Showing::Live
        } else {
            Showing::Held
        }
    }

    /// Whether the last picture is so recent that missing one is mere lateness.
    fn is_live(&self, now: Nanos) -> bool {
        let grace = GRACE_TICKS * self.config.rate.period();
        self.lived.is_some_and(|lived| now.saturating_sub(lived) < grace)
    }

    fn is_stale(&self, shows: Nanos) -> bool {
        self.gap.is_some_and(|gap| shows > gap.from && gap.to.is_none_or(|to| shows < to))
    }

    /// Brings the lead towards where a picture that comes at `now` comes in the middle of its tick's time; all the
    /// way if none came lately.
    fn follow(&mut self, now: Nanos) {
        let period = signed(self.config.rate.period());
        // How much later than the middle it comes, within half a period either way.
        let late = (signed(now) - signed(self.due(self.next))).rem_euclid(period);
        let late = if late > period / 2 { late - period } else { late };
        let step = if self.is_live(now) { late / CORRECTION } else { late };
        let mut lead = signed(self.lead) - step;
        if lead < period / 2 {
            lead += period;
        } else if lead > 2 * period {
            lead -= period;
        }
        self.lead = lead.unsigned_abs();
    }
}

/// Times are far below 292 years.
fn signed(time: Nanos) -> i64 {
    i64::try_from(time).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
