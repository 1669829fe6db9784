//! FILM itself, and the worker that loads it.
use std::time::Duration;

use keyframed_engine::{Frame, Interpolator};

use crate::{
    loading::Loading,
    models::{LoadResult, describe},
};

/// What loading came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Loaded {
    /// It can be used.
    Ready,
    /// It will never be: why not, when it is told for the first time.
    Absent(Option<String>),
}

/// How far FILM's weights are. Used by whoever makes in-betweens with it: the worker live, the streaming thread offline.
#[derive(Default)]
pub enum Film {
    /// Not asked for.
    #[default]
    Unwanted,
    /// Not to be had, and why, until that has been told.
    Absent(Option<String>),
    /// A worker loads them and sends the result.
    Loading(Loading<Box<dyn Interpolator>>),
    Ready(Box<dyn Interpolator>),
}

impl Film {
    /// Starts `load` on a worker if FILM has not been asked for yet.
    pub fn want(&mut self, load: impl FnOnce() -> LoadResult<Box<dyn Interpolator>> + Send + 'static) {
        if matches!(self, Self::Unwanted) {
            *self = match Loading::start("film-load", load) {
                Ok(loading) => Self::Loading(loading),
                Err(err) => Self::Absent(Some(format!("cannot start the loader: {err}"))),
            };
        }
    }

    /// Waits until FILM is there or known not to be; `None` if it is not wanted, or `give_up`, which is asked now and
    /// then, says so.
    pub fn wait(&mut self, give_up: impl Fn() -> bool) -> Option<Loaded> {
        while let Self::Loading(loading) = self {
            match loading.wait(Duration::from_millis(50)) {
                Some(Ok(film)) => *self = Self::Ready(film),
                Some(Err(err)) => *self = Self::Absent(Some(err)),
                None if give_up() => return None,
                None => {}
            }
        }
        match self {
            Self::Ready(_) => Some(Loaded::Ready),
            Self::Absent(trouble) => Some(Loaded::Absent(trouble.take())),
            Self::Unwanted | Self::Loading(_) => None,
        }
    }

    /// The in-between at `t` of the way from `a` to `b`, or why it failed; `None` if FILM is not there.
    pub fn make(&mut self, a: &Frame, b: &Frame, t: f32) -> Option<Result<Frame, String>> {
        let Self::Ready(film) = self else { return None };
        Some(film.interpolate(a, b, t).map_err(|err| describe(&err)))
    }
}
