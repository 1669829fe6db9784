//! The fixed grid of output ticks, in exact rational arithmetic: tick n is never off by more than half a
//! nanosecond, after a day as after a second.

use std::fmt;

use crate::{
    error::EngineError,
    frame::{Nanos, SECOND},
};

/// Frames a second as a fraction, such as 25/1 or 30000/1001.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    num: u32,
    den: u32,
}

impl Rate {
    /// `num / den` frames a second.
    ///
    /// # Errors
    /// [`EngineError::BadSetting`] if either is zero, or the rate exceeds one frame a microsecond.
    pub fn new(num: u32, den: u32) -> Result<Self, EngineError> {
        if num == 0 || den == 0 || u64::from(num) > u64::from(den) * 1_000_000 {
            return Err(EngineError::BadSetting(format!("{num}/{den} is not a frame rate")));
        }
        Ok(Self { num, den })
    }

    /// Numerator.
    pub fn num(self) -> u32 {
        self.num
    }

    /// Denominator.
    pub fn den(self) -> u32 {
        self.den
    }

    /// Time between two ticks, rounded to a nanosecond: for budgets and labels; ticks come from [`Grid::pts`].
    pub fn period(self) -> Nanos {
        self.offset(1)
    }

    /// Ticks in a stream of this duration: duration × rate, rounded, at least one.
    pub fn count(self, duration: Nanos) -> u64 {
        let per = u128::from(self.den) * u128::from(SECOND);
        let count = (u128::from(duration) * u128::from(self.num) + per / 2) / per;
        u64::try_from(count).unwrap_or(u64::MAX).max(1)
    }

    /// Time of tick `n` from tick 0: n · den · 10⁹ / num, rounded to nearest; saturates after 584 years.
    fn offset(self, n: u64) -> Nanos {
        let exact = u128::from(n) * u128::from(self.den) * u128::from(SECOND);
        let rounded = (exact + u128::from(self.num / 2)) / u128::from(self.num);
        Nanos::try_from(rounded).unwrap_or(Nanos::MAX)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.num, self.den)
    }
}

/// Output ticks at a constant rate from an anchor on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grid {
    rate: Rate,
    anchor: Nanos,
}

impl Grid {
    /// Ticks at `rate`, tick 0 at `anchor`.
    pub fn new(rate: Rate, anchor: Nanos) -> Self {
        Self { rate, anchor }
    }

    /// The rate.
    pub fn rate(&self) -> Rate {
        self.rate
    }

    /// Time of tick 0.
    pub fn anchor(&self) -> Nanos {
        self.anchor
    }

    /// Time of tick `n`.
    pub fn pts(&self, n: u64) -> Nanos {
        self.anchor.saturating_add(self.rate.offset(n))
    }

    /// Time from tick `n` to the next, so that durations add up without gaps.
    pub fn duration(&self, n: u64) -> Nanos {
        self.pts(n + 1) - self.pts(n)
    }

    /// The last tick at or before `time`, or `None` before the anchor.
    pub fn at_or_before(&self, time: Nanos) -> Option<u64> {
        let since = u128::from(time.checked_sub(self.anchor)?);
        let per = u128::from(self.rate.den) * u128::from(SECOND);
        // Rounding moves ticks by half a nanosecond at most, so the floor is right or one too low.
        let floor = u64::try_from(since * u128::from(self.rate.num) / per).unwrap_or(u64::MAX - 1);
        let n = if self.pts(floor + 1) <= time { floor + 1 } else { floor };
        Some(if self.pts(n) <= time { n } else { n - 1 })
    }

    /// A key frame within this distance of a tick *is* the frame of that tick: 1/32 of the period, more than the
    /// rounding of container timestamps (½ ms in Matroska) at usual rates and less than an eye can see.
    pub fn snap(&self) -> Nanos {
        self.rate.period() / 32
    }
}

/// How far `time` is from `from` to `to`, `from < time < to`: strictly between 0 and 1 also after rounding.
pub(crate) fn fraction(from: Nanos, time: Nanos, to: Nanos) -> f32 {
    let t = (time - from) as f64 / (to - from) as f64;
    (t as f32).clamp(f32::EPSILON, 1.0 - f32::EPSILON)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_exact_after_a_day() {
        let grid = Grid::new(Rate::new(30_000, 1001).unwrap(), 7);
        assert_eq!(grid.pts(0), 7);
        assert_eq!(grid.pts(1), 7 + 33_366_667);
        // 1001 s hold exactly 30,000 ticks, so 86,486.4 s hold 2,592,000.
        assert_eq!(grid.pts(2_592_000), 7 + 86_486_400_000_000);
    }

    #[test]
    fn at_or_before_inverts_pts() {
        for (num, den) in [(25, 1), (30_000, 1001), (60, 1), (7, 3), (1, 10), (1_000_000, 1), (999_983, 7)] {
            let grid = Grid::new(Rate::new(num, den).unwrap(), 123);
            for n in (0..1000).chain(1 << 27..(1 << 27) + 1000) {
                let pts = grid.pts(n);
                assert_eq!(grid.at_or_before(pts), Some(n), "{num}/{den} tick {n}");
                assert_eq!(grid.at_or_before(pts - 1), n.checked_sub(1), "{num}/{den} before tick {n}");
            }
        }
    }

    #[test]
    fn counts_round() {
        let rate = Rate::new(25, 1).unwrap();
        assert_eq!(rate.count(0), 1);
        assert_eq!(rate.count(4 * SECOND), 100);
        assert_eq!(rate.count(4 * SECOND + 1), 100);
        assert_eq!(rate.count(4 * SECOND - 1), 100);
        assert!(Rate::new(0, 1).is_err() && Rate::new(1, 0).is_err() && Rate::new(u32::MAX, 1).is_err());
    }
}
