//! Rate control of stage 1: λ that follows the motion.

use crate::frame::{Nanos, SECOND};

/// Bounds of λ under control: below, codec noise would select; above, nothing but a scene change would.
pub const LAMBDA_RANGE: (f64, f64) = (1e-5, 0.25);

/// Time constant of the smoothing: λ follows a change of motion within a second or two and no single frame.
const SMOOTHING: Nanos = SECOND;

/// Holds λ where the given key rate comes out of the present motion.
///
/// The MSE that a pose has typically gathered one wanted interval after another pose *is* the λ that selects at that
/// interval, so λ is that MSE, averaged exponentially over time. Nothing is fed back from the keys selected, so there
/// is no loop that could oscillate.
#[derive(Debug, Clone)]
pub struct LambdaControl {
    interval: Nanos,
    lambda: f64,
    /// Time of the last observation.
    last: Option<Nanos>,
}

impl LambdaControl {
    /// Control towards `rate` key poses a second, starting from `lambda`; `None` if `rate` asks for none (0).
    pub fn new(rate: f64, lambda: f64) -> Option<Self> {
        // Within a microsecond and a day, so that the arithmetic below cannot overflow.
        let interval = (SECOND as f64 / rate).clamp(1e3, 86_400e9);
        (rate > 0.0).then_some(Self { interval: interval as Nanos, lambda, last: None })
    }

    /// The wanted time between key poses.
    pub fn interval(&self) -> Nanos {
        self.interval
    }

    /// Takes the MSE between the poses at `pts` and at `pts - apart`, and returns the λ to use at `pts`.
    pub fn observe(&mut self, mse: f64, apart: Nanos, pts: Nanos) -> f64 {
        let step = self.last.map_or(0, |last| pts.saturating_sub(last));
        self.last = Some(pts);
        if apart == 0 {
            return self.lambda;
        }
        // While the window is younger than the interval, extrapolate: over short times MSE grows with time.
        let reached = mse * (self.interval as f64 / apart as f64).max(1.0);
        let share = 1.0 - (-(step as f64) / SMOOTHING as f64).exp();
        self.lambda += share * (reached - self.lambda);
        self.lambda = self.lambda.clamp(LAMBDA_RANGE.0, LAMBDA_RANGE.1);
        self.lambda
    }
}
