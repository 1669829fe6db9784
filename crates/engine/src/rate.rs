//! Rate control of stage 1: λ that follows the motion.

use crate::frame::{Nanos, SECOND};

/// Bounds of λ under control: below, codec noise would select; above, nothing but a scene change would.
pub const LAMBDA_RANGE: (f64, f64) = (1e-5, 0.25);

/// Time constant of the smoothing: λ follows a change of motion within a second or two and no single frame.
const SMOOTHING: Nanos = SECOND;

/// Each key pose raises the correction by this much (natural logarithm of a factor), and it sinks by as much in every
/// wanted interval. The correction settles within a dozen key poses; a single one moves λ by 8 %.
const GAIN: f64 = 0.08;

/// The correction never exceeds a factor of 4 either way, so that a change of motion finds λ near where it belongs.
const MOST_CORRECTION: f64 = 1.386;

/// Motion grows by at most this factor a frame, so that a cut is not taken for motion to come. After stillness it is
/// back where it was within 30 frames.
const MOST_GROWTH: f64 = 1.25;

/// Holds λ where the given key rate comes out of the present motion.
///
/// Mostly it looks ahead: the MSE that a pose has typically gathered one wanted interval after another pose *is* the
/// λ that selects at that interval, so λ starts from that MSE, averaged exponentially over time. What this leaves
/// (whole frames, motion that comes back on itself) a slow, bounded correction from the key poses themselves makes
/// good.
#[derive(Debug, Clone)]
pub struct LambdaControl {
    interval: Nanos,
    /// Averaged MSE over one interval.
    motion: f64,
    /// Natural logarithm of the factor between `motion` and λ.
    correction: f64,
    /// Time of the last observation.
    last: Option<Nanos>,
}

impl LambdaControl {
    /// Control towards `rate` key poses a second, starting from `lambda`; `None` if `rate` asks for none (0).
    pub fn new(rate: f64, lambda: f64) -> Option<Self> {
        // Within a microsecond and a day, so that the arithmetic below cannot overflow.
        let interval = (SECOND as f64 / rate).clamp(1e3, 86_400e9) as Nanos;
        (rate > 0.0).then_some(Self {
            interval,
            motion: lambda.max(LAMBDA_RANGE.0),
            correction: 0.0,
            last: None,
        })
    }

    /// The wanted time between key poses.
    pub fn interval(&self) -> Nanos {
        self.interval
    }

    /// λ to use now.
    pub fn lambda(&self) -> f64 {
        (self.motion * self.correction.exp()).clamp(LAMBDA_RANGE.0, LAMBDA_RANGE.1)
    }

    /// The frame at `pts` is `mse` away from the one `apart` before it.
    pub fn observe(&mut self, mse: f64, apart: Nanos, pts: Nanos) {
        let step = self.last.map_or(0, |last| pts.saturating_sub(last)) as f64;
        self.last = Some(pts);
        if apart == 0 {
            return;
        }
        // While the window is younger than the interval, extrapolate: over short times MSE grows with time.
        let reached = (mse * (self.interval as f64 / apart as f64).max(1.0)).min(LAMBDA_RANGE.1);
        let share = 1.0 - (-step / SMOOTHING as f64).exp();
        let wanted = self.motion + share * (reached - self.motion);
        self.motion = wanted.clamp(LAMBDA_RANGE.0, self.motion * MOST_GROWTH);
        // In a still stream no λ gives the wanted rate, and the correction must not run away meanwhile.
        if self.motion > 10.0 * LAMBDA_RANGE.0 {
            self.correct(-GAIN * step / self.interval as f64);
        }
    }

    /// A key pose was selected.
    pub fn selected(&mut self) {
        self.correct(GAIN);
    }

    fn correct(&mut self, by: f64) {
        self.correction = (self.correction + by).clamp(-MOST_CORRECTION, MOST_CORRECTION);
    }
}
