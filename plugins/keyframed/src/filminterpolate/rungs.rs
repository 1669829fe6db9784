//! The light ways of making an in-between: flow warp, cross-fade, repeat.
use std::time::{Duration, Instant};

use keyframed_engine::{Crossfade, Frame, Interpolator, Repeat, Rung, Warp};

use crate::models::describe;

/// Counts and times by rung.
#[derive(Debug, Clone, Copy, Default)]
pub struct RungStats {
    /// In-betweens shown, indexed by `Rung`.
    pub made: [u64; 4],
    /// In-betweens that failed on the rung asked for and were made on a cheaper one.
    pub failed: u64,
    /// Time spent making them.
    pub busy: Duration,
}

impl RungStats {
    /// Adds an in-between.
    pub fn count(&mut self, made: &Made) {
        self.made[made.rung as usize] += 1;
        self.failed += u64::from(made.trouble.is_some());
        self.busy += made.cost;
    }
}

/// An in-between and what it took.
pub struct Made {
    pub frame: Frame,
    /// The rung it was made on.
    pub rung: Rung,
    pub cost: Duration,
    /// Why it was not made on the rung asked for.
    pub trouble: Option<String>,
}

/// The light rungs. Used by the one thread that sends pictures.
pub struct Light(Warp);

impl Light {
    pub fn new() -> Self {
        Self(Warp::new())
    }

    /// The in-between at `t` of the way from `a` to `b`, on `rung` or the best below it that works; in place of FILM
    /// the flow warp.
    pub fn make(&mut self, rung: Rung, a: &Frame, b: &Frame, t: f32) -> Made {
        let started = Instant::now();
        let (mut rung, mut trouble) = (rung.max(Rung::Warp), None);
        let frame = loop {
            let result = match rung {
                Rung::Film | Rung::Warp => self.0.interpolate(a, b, t),
                Rung::Crossfade => Crossfade.interpolate(a, b, t),
                Rung::Repeat => Repeat.interpolate(a, b, t),
            };
            match (result, rung.cheaper()) {
                (Ok(frame), _) => break frame,
                // Even repeating failed: the two differ in size, or the time is not between them.
                (Err(_), None) => break if t < 0.5 { a.clone() } else { b.clone() },
                (Err(err), Some(cheaper)) => {
                    trouble.get_or_insert_with(|| describe(&err));
                    rung = cheaper;
                }
            }
        };
        Made { frame, rung, cost: started.elapsed(), trouble }
    }
}
