//! The ways of making an in-between, from FILM down to repeating, and the worker that loads FILM.
use std::time::{Duration, Instant};

use keyframed_engine::{Crossfade, Frame, Interpolator, Repeat, Rung, Warp};

use crate::{
    loading::Loading,
    models::{LoadResult, describe},
};

/// How far FILM's weights are.
enum Film {
    /// Not asked for.
    Unwanted,
    /// Not to be had.
    Absent,
    /// A worker loads them and sends the result.
    Loading(Loading<Box<dyn Interpolator>>),
    Ready(Box<dyn Interpolator>),
}

/// Counts and times by rung.
#[derive(Debug, Clone, Copy, Default)]
pub struct RungStats {
    /// In-betweens made, indexed by `Rung`.
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

/// All rungs. Used by the one thread that makes pictures.
pub struct Rungs {
    film: Film,
    warp: Warp,
    /// Why FILM cannot be loaded, until it has been told.
    trouble: Option<String>,
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

impl Rungs {
    /// The light rungs.
    pub fn new() -> Self {
        Self { film: Film::Unwanted, warp: Warp::new(), trouble: None }
    }

    /// Starts `load` on a worker if FILM has not been asked for yet.
    pub fn want_film(&mut self, load: impl FnOnce() -> LoadResult<Box<dyn Interpolator>> + Send + 'static) {
        if matches!(self.film, Film::Unwanted) {
            match Loading::start("film-load", load) {
                Ok(loading) => self.film = Film::Loading(loading),
                Err(err) => {
                    self.film = Film::Absent;
                    self.trouble = Some(format!("cannot start the loader: {err}"));
                }
            }
        }
    }

    /// Waits until FILM is there or known not to be; returns why not. `give_up` is asked now and then.
    pub fn wait_for_film(&mut self, give_up: impl Fn() -> bool) -> Option<String> {
        while let Film::Loading(loading) = &self.film {
            match loading.wait(Duration::from_millis(50)) {
                Some(result) => return self.settle(result),
                None if give_up() => return None,
                None => {}
            }
        }
        self.trouble.take()
    }

    /// Takes FILM if it has arrived; returns why it never will.
    pub fn poll_film(&mut self) -> Option<String> {
        let Film::Loading(loading) = &self.film else { return self.trouble.take() };
        let result = loading.wait(Duration::ZERO)?;
        self.settle(result)
    }

    fn settle(&mut self, result: LoadResult<Box<dyn Interpolator>>) -> Option<String> {
        match result {
            Ok(film) => {
                self.film = Film::Ready(film);
                None
            }
            Err(err) => {
                self.film = Film::Absent;
                Some(err)
            }
        }
    }

    /// The in-between at `t` of the way from `a` to `b`, on `rung` or the best below it that works.
    pub fn make(&mut self, rung: Rung, a: &Frame, b: &Frame, t: f32) -> Made {
        let started = Instant::now();
        let (mut rung, mut trouble) = (rung, None);
        if rung == Rung::Film && !matches!(self.film, Film::Ready(_)) {
            rung = Rung::Warp;
        }
        let frame = loop {
            let result = match (rung, &mut self.film) {
                (Rung::Film, Film::Ready(film)) => film.interpolate(a, b, t),
                (Rung::Film | Rung::Warp, _) => self.warp.interpolate(a, b, t),
                (Rung::Crossfade, _) => Crossfade.interpolate(a, b, t),
                (Rung::Repeat, _) => Repeat.interpolate(a, b, t),
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
        let cost = started.elapsed();
        Made { frame, rung, cost, trouble }
    }
}
