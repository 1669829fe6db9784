//! RGB video between GStreamer's buffers and the engine's frames.
use gst_video::prelude::*;
use keyframed_engine::Frame;

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

/// Time of frame `index` at `fps`, and so without drift however long the stream: rounded from zero. `None` at a rate of
/// 0/1, which stands for any in caps.
pub fn frame_time(index: u64, fps: gst::Fraction) -> Option<gst::ClockTime> {
    let (num, den) =
        (u64::try_from(fps.numer()).ok().filter(|&num| num > 0)?, u64::try_from(fps.denom()).ok()?);
    index.mul_div_round(den * gst::ClockTime::SECOND.nseconds(), num).map(gst::ClockTime::from_nseconds)
}

/// A copy of the picture in `buffer`, whatever its strides.
///
/// # Errors
/// If the buffer is smaller than `info` says, or cannot be mapped.
pub fn read_frame(buffer: &gst::BufferRef, info: &gst_video::VideoInfo) -> Result<Frame, String> {
    let mapped =
        gst_video::VideoFrameRef::from_buffer_ref_readable(buffer, info).map_err(|e| e.to_string())?;
    let stride = usize::try_from(mapped.plane_stride()[0]).map_err(|_| "negative stride".to_owned())?;
    let data = mapped.plane_data(0).map_err(|e| e.to_string())?;
    Frame::from_strided(info.width(), info.height(), stride, data).map_err(|e| e.to_string())
}

/// A buffer with `frame` laid out as `info` says. A picture whose rows need no padding is shared, not copied.
///
/// # Errors
/// If the two differ in size.
pub fn write_frame(frame: &Frame, info: &gst_video::VideoInfo) -> Result<gst::Buffer, String> {
    if (frame.width(), frame.height()) != (info.width(), info.height()) {
        let (w, h) = (frame.width(), frame.height());
        return Err(format!("it has {w}x{h} pixels, not {}x{}", info.width(), info.height()));
    }
    let stride = usize::try_from(info.stride()[0]).map_err(|_| "negative stride")?;
    if stride == frame.width() as usize * 3 {
        return Ok(gst::Buffer::from_slice(frame.shared()));
    }
    let mut data = vec![0; info.size()];
    frame.copy_to_strided(&mut data, stride).map_err(|e| e.to_string())?;
    Ok(gst::Buffer::from_mut_slice(data))
}
