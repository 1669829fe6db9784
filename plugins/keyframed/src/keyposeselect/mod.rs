//! `keyposeselect`: forwards key poses, drops the other pose frames.
use gst::{glib, prelude::*};

mod imp;

glib::wrapper! {
    /// Filter that forwards key poses; behaviour in the documentation of `imp`.
    pub struct KeyPoseSelect(ObjectSubclass<imp::KeyPoseSelect>) @extends gst::Element, gst::Object;
}

pub(crate) use imp::properties;

/// Registers the element.
pub(crate) fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(Some(plugin), "keyposeselect", gst::Rank::NONE, KeyPoseSelect::static_type())
}
