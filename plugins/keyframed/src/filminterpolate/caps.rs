//! Caps of the two pads: same pictures, any rate.
use std::sync::Arc;

use gst::prelude::*;
use keyframed_engine::Rate;

use crate::video::{rgb_caps, rgb_caps_with_rate};

/// Output rate where neither side names one.
const DEFAULT_RATE: (i32, i32) = (25, 1);

/// What an output picture is sent as.
#[derive(Debug, PartialEq)]
pub struct OutCaps {
    pub caps: gst::Caps,
    pub info: gst_video::VideoInfo,
    pub rate: Rate,
}

impl OutCaps {
    /// The same pictures at the rate of `other`.
    pub fn at_rate_of(self: &Arc<Self>, other: &Arc<Self>) -> Arc<Self> {
        let mut caps = self.caps.clone();
        if let Some(structure) = caps.make_mut().structure_mut(0) {
            structure.set("framerate", other.info.fps());
        }
        match gst_video::VideoInfo::from_caps(&caps) {
            _ if caps == other.caps => other.clone(),
            Ok(info) => Arc::new(Self { caps, info, rate: other.rate }),
            // Their rate is all that was changed.
            Err(_) => self.clone(),
        }
    }
}

/// What one pad can do, given what the peer of the other can: everything but the rate is the same on both.
pub fn across(peer: &gst::Pad, towards_src: bool, filter: Option<&gst::CapsRef>) -> gst::Caps {
    let own = if towards_src { rgb_caps() } else { rgb_caps_with_rate() };
    let mut other = peer.peer_query_caps(None);
    for structure in other.make_mut().iter_mut() {
        structure.remove_field("framerate");
    }
    let caps = other.intersect_with_mode(&own, gst::CapsIntersectMode::First);
    match filter {
        Some(filter) => filter.intersect_with_mode(&caps, gst::CapsIntersectMode::First),
        None => caps,
    }
}

/// Settles the output for what the sink pad carries: the rate that downstream wants, else the input's, else 25.
pub fn negotiate(sinkpad: &gst::Pad, srcpad: &gst::Pad) -> Result<Arc<OutCaps>, String> {
    let mut caps = sinkpad.current_caps().ok_or("there are no input caps")?;
    let input = gst_video::VideoInfo::from_caps(&caps).map_err(|e| e.to_string())?;
    for structure in caps.make_mut().iter_mut() {
        structure.remove_field("framerate");
    }
    let mut caps = caps.intersect_with_mode(&rgb_caps_with_rate(), gst::CapsIntersectMode::First);
    let wanted = srcpad.peer_query_caps(Some(&caps));
    if wanted.is_empty() {
        return Err(format!("downstream does not take {caps}"));
    }
    caps = wanted.intersect_with_mode(&caps, gst::CapsIntersectMode::First);
    caps.truncate();
    let preferred = if input.fps().numer() > 0 { input.fps() } else { gst::Fraction::from(DEFAULT_RATE) };
    if let Some(structure) = caps.make_mut().structure_mut(0) {
        structure.fixate_field_nearest_fraction("framerate", preferred);
    }
    caps.fixate();
    let info = gst_video::VideoInfo::from_caps(&caps).map_err(|e| e.to_string())?;
    let fps = info.fps();
    let side = |n: i32| u32::try_from(n).unwrap_or(0);
    let rate = Rate::new(side(fps.numer()), side(fps.denom())).map_err(|e| e.to_string())?;
    Ok(Arc::new(OutCaps { caps, info, rate }))
}
