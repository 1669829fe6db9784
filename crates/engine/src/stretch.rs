//! Stretches of input: timestamps within one follow each other, and each lies somewhere of its own in the output.

use crate::frame::Nanos;

/// The present stretch.
#[derive(Debug, Default)]
pub(crate) struct Stretch {
    /// What is added to a time of the input to get that of the output; 0 before the first jump.
    offset: i128,
    /// How far ahead of the next tick its last key frame was when it came.
    lead: Nanos,
}

impl Stretch {
    /// Where a time of the input lies in the output; far off if it does not belong to this stretch.
    fn exact(&self, time: Nanos) -> i128 {
        i128::from(time) + self.offset
    }

    /// The same, as a time that there can be.
    pub fn place(&self, time: Nanos) -> Nanos {
        Nanos::try_from(self.exact(time).max(0)).unwrap_or(Nanos::MAX)
    }

    /// Whether a key frame at `time` lies more than `slack` before what is known up to `known`.
    pub fn jumps_back(&self, time: Nanos, known: Nanos, slack: Nanos) -> bool {
        self.exact(time) + i128::from(slack) < i128::from(known)
    }

    /// Whether a key frame at `time` lies more than `slack` after `present`.
    pub fn jumps_ahead(&self, time: Nanos, present: Nanos, slack: Nanos) -> bool {
        self.exact(time) > i128::from(present) + i128::from(slack)
    }

    /// A key frame that lies at `at` has come before the tick at `present`.
    pub fn came(&mut self, at: Nanos, present: Nanos) {
        self.lead = at.saturating_sub(present);
    }

    /// How far ahead of its tick the last key frame came.
    pub fn lead(&self) -> Nanos {
        self.lead
    }

    /// Begins another stretch: `time` of the input lies at `at`.
    pub fn begin(&mut self, time: Nanos, at: Nanos) {
        self.offset = i128::from(at) - i128::from(time);
    }

    /// Moves the stretch.
    pub fn shift(&mut self, by: Nanos) {
        self.offset += i128::from(by);
    }
}
