//! `filminterpolate`: constant-rate video from key frames.
use gst::{glib, prelude::*};
use keyframed_engine::Rung;

mod caps;
mod film;
mod imp;
mod live;
mod offline;
mod output;
mod pads;
mod rungs;
mod state;
mod worker;

#[cfg(test)]
mod tests;

/// The best way of making in-betweens that `filminterpolate` may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, glib::Enum)]
#[enum_type(name = "GstFilmInterpolateQuality")]
#[repr(i32)]
pub enum Quality {
    /// FILM.
    #[default]
    #[enum_value(name = "FILM, the network", nick = "film")]
    Film,
    /// Flow warp.
    #[enum_value(name = "Flow warp at half size", nick = "warp")]
    Warp,
    /// Cross-fade.
    #[enum_value(name = "Cross-fade", nick = "crossfade")]
    Crossfade,
    /// Repeat.
    #[enum_value(name = "Repeat the key frame", nick = "repeat")]
    Repeat,
}

impl From<Quality> for Rung {
    fn from(quality: Quality) -> Self {
        match quality {
            Quality::Film => Self::Film,
            Quality::Warp => Self::Warp,
            Quality::Crossfade => Self::Crossfade,
            Quality::Repeat => Self::Repeat,
        }
    }
}

glib::wrapper! {
    /// Filter that fills the time between key frames; behaviour in the documentation of `imp`.
    pub struct FilmInterpolate(ObjectSubclass<imp::FilmInterpolate>) @extends gst::Element, gst::Object;
}

pub(crate) use imp::properties;

/// Registers the element.
pub(crate) fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    Quality::static_type().mark_as_plugin_api(gst::PluginAPIFlags::empty());
    gst::Element::register(Some(plugin), "filminterpolate", gst::Rank::NONE, FilmInterpolate::static_type())
}
