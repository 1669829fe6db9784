//! RGB video between GStreamer's buffers and the engine's frames.
use gst_video::prelude::*;

/// Any size and rate of what the elements speak: packed 8-bit RGB in system memory.
pub fn rgb_caps() -> gst::Caps {
    gst_video::VideoCapsBuilder::new().format(gst_video::VideoFormat::Rgb).build()
}

/// As `rgb_caps`, for pads that need a constant rate above zero.
pub fn rgb_caps_with_rate() -> gst::Caps {
    let lowest = gst::Fraction::new(1, i32::MAX);
    gst_video::VideoCapsBuilder::new()
        .format(gst_video::VideoFormat::Rgb)
        .framerate_range(lowest..=gst::Fraction::new(i32::MAX, 1))
        .build()
}

/// Time of frame `index` at `fps`, and so without drift however long the stream: rounded from zero.
pub fn frame_time(index: u64, fps: gst::Fraction) -> Option<gst::ClockTime> {
    let (num, den) = (u64::try_from(fps.numer()).ok()?, u64::try_from(fps.denom()).ok()?);
    index.mul_div_round(den * gst::ClockTime::SECOND.nseconds(), num).map(gst::ClockTime::from_nseconds)
}
