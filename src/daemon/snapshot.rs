//! The newest frame as a PNG.

use anyhow::Context as _;
use gst::glib;
use gst_video::prelude::*;
use image::{ExtendedColorType, ImageEncoder as _, codecs::png::PngEncoder};
use keyframed_control::types::Snapshot;

use super::relay::Shot;

/// Takes as long as compressing a picture.
///
/// # Errors
/// If the frame cannot be read.
pub fn encode(shot: &Shot) -> anyhow::Result<Snapshot> {
    let (width, height) = (shot.video.width, shot.video.height);
    let info = gst_video::VideoInfo::builder(gst_video::VideoFormat::Rgb, width, height).build()?;
    let frame = gst_video::VideoFrameRef::from_buffer_ref_readable(&shot.buffer, &info)?;
    let (row, stride) = (width as usize * 3, usize::try_from(frame.plane_stride()[0])?);
    let pixels: Vec<u8> =
        frame.plane_data(0)?.chunks(stride).filter_map(|line| line.get(..row)).flatten().copied().collect();
    let mut png = Vec::new();
    PngEncoder::new(&mut png)
        .write_image(&pixels, width, height, ExtendedColorType::Rgb8)
        .context("the frame cannot be compressed")?;
    let png_base64 = glib::base64_encode(&png).to_string();
    Ok(Snapshot { width, height, showing: shot.showing, png_base64 })
}

#[cfg(test)]
mod tests {
    use keyframed_control::types::Showing;
    use keyframed_engine::Rate;

    use super::*;
    use crate::config::resolved::Video;

    #[test]
    fn rows_are_as_long_as_the_picture_is_wide() {
        gst::init().unwrap();
        let video = Video { width: 17, height: 16, rate: Rate::new(25, 1).unwrap() };
        let buffer = crate::daemon::slate::draw(None, video);
        let snapshot = encode(&Shot { buffer, video, showing: Showing::Slate }).unwrap();
        let png = glib::base64_decode(&snapshot.png_base64);
        let picture = image::load_from_memory(&png).unwrap().into_rgb8();
        assert_eq!(picture.dimensions(), (17, 16));
        assert_eq!(picture.get_pixel(16, 15), picture.get_pixel(0, 0));
    }
}
