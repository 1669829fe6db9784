//! Rate control of stage 1: λ that follows the motion, and the rate that the generator sustains.

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
    /// Control towards a key pose every `interval`, starting from `lambda`.
    pub fn new(interval: Nanos, lambda: f64) -> Self {
        let motion = lambda.max(LAMBDA_RANGE.0);
        Self { interval: bounded(interval), motion, correction: 0.0, last: None }
    }

    /// Changes the wanted time between key poses. What is known of the motion is taken along: over short times
    /// MSE grows with time.
    pub fn set_interval(&mut self, interval: Nanos) {
        let old = std::mem::replace(&mut self.interval, bounded(interval));
        let reached = self.motion * self.interval as f64 / old as f64;
        self.motion = reached.clamp(LAMBDA_RANGE.0, LAMBDA_RANGE.1);
    }

    /// While λ is kept at `floor` or above by others, a lower one is not for the correction to make up.
    pub fn rest_at(&mut self, floor: f64) {
        if self.lambda() < floor {
            self.correction = self.correction.max(0.0);
        }
    }

    /// The wanted time between key poses.
    pub fn interval(&self) -> Nanos {
        self.interval
    }

    /// λ to use now.
    pub fn lambda(&self) -> f64 {
        (self.motion * self.correction.exp()).clamp(LAMBDA_RANGE.0, LAMBDA_RANGE.1)
    }

    /// The stream goes on after a gap, or at another time: the next observation is no step from the last one.
    pub fn interrupted(&mut self) {
        self.last = None;
    }

    /// The frame at `pts` is `mse` away from the one `apart` before it.
    pub fn observe(&mut self, mse: f64, apart: Nanos, pts: Nanos) {
        let step = self.last.map_or(0, |last| pts.saturating_sub(last)) as f64;
        self.last = Some(pts);
        if apart == 0 {
            return;
        }
        // While the window is younger than the interval, or frames are further apart, scale: over short times MSE
        // grows with time.
        let reached = (mse * (self.interval as f64 / apart as f64)).min(LAMBDA_RANGE.1);
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

/// Within a microsecond and a day, so that the arithmetic cannot overflow.
fn bounded(interval: Nanos) -> Nanos {
    interval.clamp(1_000, 86_400 * SECOND)
}

/// The wanted time between `rate` key poses a second; `None` if it asks for none (0).
pub fn interval_of(rate: f64) -> Option<Nanos> {
    (rate > 0.0).then(|| bounded((SECOND as f64 / rate).min(1e15) as Nanos))
}

/// Share of the generator's time that is asked for: the rest takes up what varies, so that no key pose has to wait.
const LOAD: f64 = 0.9;

/// Weight of the newest key frame in the average: it follows a change of load within about ten.
const NEWEST: f64 = 0.15;

/// Change of the average that is worth telling.
const TELLING: f64 = 0.05;

/// How often the generator can be given a key pose: its time per key frame, smoothed.
#[derive(Debug, Clone, Default)]
pub struct Capacity {
    average: Option<f64>,
    told: f64,
}

impl Capacity {
    /// A key frame took this long; where several work on key frames at the same time, the one who took longest, since
    /// all wait for that one. Answers the time between key poses that can be sustained, if it is worth telling:
    /// first of all, and whenever it has changed by 5 %.
    pub fn observe(&mut self, took: Nanos) -> Option<Nanos> {
        let took = bounded(took) as f64;
        // One that took very long says that something happened, not that all will.
        let average = self.average.map_or(took, |old| old + NEWEST * (took.min(4.0 * old) - old));
        self.average = Some(average);
        let changed = (average - self.told).abs() > TELLING * self.told;
        changed.then(|| {
            self.told = average;
            (average / LOAD) as Nanos
        })
    }

    /// Forgets what it measured, as after a change of settings.
    pub fn reset(&mut self) {
        *self = Self::default();
    }
}
