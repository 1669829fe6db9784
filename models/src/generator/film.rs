//! Stage 3's best rung: FILM between key frames.

use super::picture;
use crate::{
    checkpoint::{ModelDir, Role},
    device::{DtypeChoice, Place, Placement},
    error::{ModelError, Result},
    film::{Film, FilmConfig, Motion, PadBox, Pyramid},
};
use keyframed_engine::{Frame, InterpolateError, Interpolator, interpolate::check};
use std::sync::Arc;
use tch::Kind;

/// Frames between two frames, at any time directly by time-scaled flow.
///
/// A picture's features are computed once for the pair before and the pair
/// after it, the motion once for all times of a pair.
pub struct FilmInterpolator {
    film: Film,
    place: Place,
    pair: Option<Pair>,
}

struct Pair {
    first: Known,
    second: Known,
    motion: Motion,
}

struct Known {
    frame: Frame,
    pyramid: Pyramid,
}

impl Known {
    /// The same bytes, not only equal ones: comparing would cost more than a miss now and then.
    fn is(&self, frame: &Frame) -> bool {
        let same = Arc::ptr_eq(&self.frame.shared(), &frame.shared());
        same && (self.frame.width(), self.frame.height()) == (frame.width(), frame.height())
    }
}

impl FilmInterpolator {
    /// Loads the FILM network of a model.
    ///
    /// # Errors
    /// [`ModelError::BadFile`] if the model has none, or whatever is wrong with the file or the device.
    pub fn new(model: &ModelDir, placement: Placement) -> Result<Self> {
        let table = model.manifest().networks.film.clone().unwrap_or_default();
        let config: FilmConfig = model.network("film", &table)?;
        // Flow in 16 bits is off by pixels on large pictures: only who asks for it gets it.
        let dtype = match placement.dtype {
            DtypeChoice::Auto => DtypeChoice::F32,
            asked => asked,
        };
        let place = Placement { dtype, ..placement }.resolve(config.filters)?;
        let _running = place.enter();
        let source = model.source(Role::Film, place.device, Kind::Float)?.packed(place.packs());
        let film = Film::new(&source.root(), &config)?;
        source.finish()?;
        Ok(Self::with(film, place))
    }

    /// Uses a network that was loaded already.
    pub fn with(film: Film, place: Place) -> Self {
        Self { film, place, pair: None }
    }

    fn known(&self, frame: &Frame) -> Result<Known> {
        let pair = self.pair.iter().flat_map(|pair| [&pair.first, &pair.second]);
        let pyramid = match pair.into_iter().find(|known| known.is(frame)) {
            Some(known) => known.pyramid.shallow_clone(),
            None => {
                let image = picture::tensor(frame, self.place.device)?;
                let padding = self.padding(frame);
                self.film.pyramid(&padding.pad(&image))
            }
        };
        Ok(Known { frame: frame.clone(), pyramid })
    }

    fn padding(&self, frame: &Frame) -> PadBox {
        let alignment = self.film.config().alignment();
        PadBox::new(i64::from(frame.height()), i64::from(frame.width()), alignment)
    }

    fn between(&mut self, a: &Frame, b: &Frame, t: f32) -> Result<Frame> {
        let _running = self.place.enter();
        if !self.pair.as_ref().is_some_and(|pair| pair.first.is(a) && pair.second.is(b)) {
            let (first, second) = (self.known(a)?, self.known(b)?);
            let motion = self.film.motion(&first.pyramid, &second.pyramid);
            self.pair = Some(Pair { first, second, motion });
        }
        let Some(pair) = &self.pair else {
            return Err(ModelError::Input("no pair of frames".into()));
        };
        let made = self.film.at(&pair.motion, f64::from(t));
        picture::frame(&self.padding(a).crop(&made.image.to_kind(Kind::Float)))
    }
}

impl Interpolator for FilmInterpolator {
    fn interpolate(&mut self, a: &Frame, b: &Frame, t: f32) -> Result<Frame, InterpolateError> {
        check(a, b, t)?;
        self.between(a, b, t).map_err(|error| InterpolateError::Failed(Box::new(error)))
    }
}
