//! Stage 3 as the engine sees it: what an interpolator is, the quality ladder's rungs, and the cheapest of them.

use std::{fmt, str::FromStr};

use crate::{
    error::{EngineError, InterpolateError},
    frame::Frame,
    warp::Warp,
};

/// Makes frames between two key frames. Called from one thread at a time.
pub trait Interpolator: Send {
    /// The frame at `t` of the way from `a` to `b`, of their size; 0 < `t` < 1.
    ///
    /// # Errors
    /// [`InterpolateError::SizeMismatch`], [`InterpolateError::BadTime`], or why it failed.
    fn interpolate(&mut self, a: &Frame, b: &Frame, t: f32) -> Result<Frame, InterpolateError>;
}

/// Checks what every interpolator asks of its arguments.
///
/// # Errors
/// [`InterpolateError::SizeMismatch`] or [`InterpolateError::BadTime`].
pub fn check(a: &Frame, b: &Frame, t: f32) -> Result<(), InterpolateError> {
    if (a.width(), a.height()) != (b.width(), b.height()) {
        return Err(InterpolateError::SizeMismatch(a.width(), a.height(), b.width(), b.height()));
    }
    // Written so that NaN fails too.
    if t > 0.0 && t < 1.0 { Ok(()) } else { Err(InterpolateError::BadTime(t)) }
}

/// The quality ladder, best first: `Film < Warp < Crossfade < Repeat`, by cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rung {
    /// The FILM network.
    Film,
    /// [`Warp`]: motion estimated at half size, no network.
    Warp,
    /// [`Crossfade`].
    Crossfade,
    /// [`Repeat`].
    Repeat,
}

impl Rung {
    /// All rungs, best first.
    pub const ALL: [Self; 4] = [Self::Film, Self::Warp, Self::Crossfade, Self::Repeat];

    /// Its name in settings and statistics: `film`, `warp`, `crossfade` or `repeat`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Film => "film",
            Self::Warp => "warp",
            Self::Crossfade => "crossfade",
            Self::Repeat => "repeat",
        }
    }

    /// The next cheaper rung; `None` from the last.
    pub fn cheaper(self) -> Option<Self> {
        Self::ALL.get(self as usize + 1).copied()
    }

    /// The next better rung; `None` from the first.
    pub fn better(self) -> Option<Self> {
        (self as usize).checked_sub(1).map(|i| Self::ALL[i])
    }

    /// The interpolator of a light rung; `None` for [`Rung::Film`], which needs a network.
    pub fn light(self) -> Option<Box<dyn Interpolator>> {
        match self {
            Self::Film => None,
            Self::Warp => Some(Box::new(Warp::new())),
            Self::Crossfade => Some(Box::new(Crossfade)),
            Self::Repeat => Some(Box::new(Repeat)),
        }
    }
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Rung {
    type Err = EngineError;

    fn from_str(name: &str) -> Result<Self, EngineError> {
        let found = Self::ALL.into_iter().find(|r| r.name() == name);
        let names = "film, warp, crossfade and repeat";
        found.ok_or_else(|| EngineError::BadSetting(format!("`{name}` is not a quality; there are {names}")))
    }
}

/// Mixes the two pictures in proportion to time.
#[derive(Debug, Clone, Copy, Default)]
pub struct Crossfade;

impl Interpolator for Crossfade {
    fn interpolate(&mut self, a: &Frame, b: &Frame, t: f32) -> Result<Frame, InterpolateError> {
        check(a, b, t)?;
        let share = share(t);
        let data = a.data().iter().zip(b.data()).map(|(&a, &b)| mix(a, b, share)).collect();
        Ok(Frame::from_parts(a.width(), a.height(), data))
    }
}

/// Shows the earlier picture again.
#[derive(Debug, Clone, Copy, Default)]
pub struct Repeat;

impl Interpolator for Repeat {
    fn interpolate(&mut self, a: &Frame, b: &Frame, t: f32) -> Result<Frame, InterpolateError> {
        check(a, b, t)?;
        Ok(a.clone())
    }
}

/// `t` in 1/256, for [`mix`].
pub(crate) fn share(t: f32) -> u16 {
    (t * 256.0).round() as u16
}

/// `a` and `b` mixed, `share` / 256 of `b`, rounded to nearest.
pub(crate) fn mix(a: u8, b: u8, share: u16) -> u8 {
    ((u16::from(a) * (256 - share) + u16::from(b) * share + 128) >> 8) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crossfade_mixes_and_checks() {
        let black = Frame::filled(3, 2, [0; 3]).unwrap();
        let white = Frame::filled(3, 2, [255; 3]).unwrap();
        let grey = Crossfade.interpolate(&black, &white, 0.5).unwrap();
        assert_eq!(grey, Frame::filled(3, 2, [128; 3]).unwrap());
        assert_eq!(Crossfade.interpolate(&white, &white, 0.3).unwrap(), white);
        for t in [0.0, 1.0, -0.1, f32::NAN, f32::INFINITY] {
            assert!(matches!(Crossfade.interpolate(&black, &white, t), Err(InterpolateError::BadTime(_))));
        }
        let small = Frame::filled(2, 2, [0; 3]).unwrap();
        assert!(matches!(Repeat.interpolate(&small, &white, 0.5), Err(InterpolateError::SizeMismatch(..))));
    }

    #[test]
    fn rungs_step_and_parse() {
        assert_eq!(Rung::Film.cheaper(), Some(Rung::Warp));
        assert_eq!(Rung::Repeat.cheaper(), None);
        assert_eq!(Rung::Warp.better(), Some(Rung::Film));
        assert_eq!(Rung::Film.better(), None);
        for rung in Rung::ALL {
            assert_eq!(rung.name().parse(), Ok(rung));
            assert_eq!(rung.light().is_none(), rung == Rung::Film);
        }
        assert!("FILM".parse::<Rung>().is_err());
    }
}
