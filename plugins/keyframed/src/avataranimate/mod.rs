//! `avataranimate`: a DensePose stream in, constant-rate video of the avatar out.
use gst::{glib, prelude::*};

mod imp;

glib::wrapper! {
    /// Bin of `keyposeselect`, `lcmanimate` and `filminterpolate`; behaviour in the documentation of `imp`.
    pub struct AvatarAnimate(ObjectSubclass<imp::AvatarAnimate>)
        @extends gst::Bin, gst::Element, gst::Object,
        @implements gst::ChildProxy;
}

/// Registers the element.
pub(crate) fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(Some(plugin), "avataranimate", gst::Rank::NONE, AvatarAnimate::static_type())
}
