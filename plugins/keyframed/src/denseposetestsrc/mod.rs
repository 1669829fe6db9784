//! `denseposetestsrc`: DensePose pictures of a procedural moving figure.
use gst::{glib, prelude::*};

pub(crate) mod figure;
mod imp;

/// What the figure of `denseposetestsrc` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, glib::Enum)]
#[enum_type(name = "GstDensePoseTestSrcPattern")]
#[repr(i32)]
pub enum Pattern {
    /// Walks on the spot, turning slowly.
    #[default]
    #[enum_value(name = "Walk on the spot, turning slowly left and right", nick = "walk")]
    Walk,
    /// Dances.
    #[enum_value(name = "Dance: squat, sway and swing both arms", nick = "dance")]
    Dance,
    /// Waves the right hand.
    #[enum_value(name = "Stand and wave the right hand", nick = "wave")]
    Wave,
    /// Turns about its own axis.
    #[enum_value(name = "Turn about the own axis, once in about four seconds", nick = "spin")]
    Spin,
    /// Stands still.
    #[enum_value(name = "Stand without moving at all", nick = "still")]
    Still,
}

impl From<Pattern> for figure::Motion {
    fn from(pattern: Pattern) -> Self {
        match pattern {
            Pattern::Walk => Self::Walk,
            Pattern::Dance => Self::Dance,
            Pattern::Wave => Self::Wave,
            Pattern::Spin => Self::Spin,
            Pattern::Still => Self::Still,
        }
    }
}

glib::wrapper! {
    /// Source of DensePose pictures of a procedural moving figure; behaviour in the documentation of `imp`.
    pub struct DensePoseTestSrc(ObjectSubclass<imp::DensePoseTestSrc>)
        @extends gst_base::BaseSrc, gst::Element, gst::Object;
}

/// Registers the element.
pub(crate) fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    Pattern::static_type().mark_as_plugin_api(gst::PluginAPIFlags::empty());
    gst::Element::register(Some(plugin), "denseposetestsrc", gst::Rank::NONE, DensePoseTestSrc::static_type())
}
