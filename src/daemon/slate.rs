//! What is shown while there is nothing else to show: a picture file, or the reference dimmed, with words on it.

use std::path::Path;

use anyhow::Context as _;
use image::{Rgb, RgbImage, imageops};

use super::gallery;
use crate::{config::resolved::Video, font};

/// What the drawn slate says.
const WORDS: &str = "NO SIGNAL";
/// Brightness left of the reference, in 256ths.
const DIMMED: u16 = 80;
const GROUND: Rgb<u8> = Rgb([24, 26, 30]);
const INK: Rgb<u8> = Rgb([230, 232, 236]);

/// A picture file, scaled to fit, on black.
///
/// # Errors
/// One sentence that names the file and what is wrong with it.
pub fn load(path: &Path, video: Video) -> anyhow::Result<gst::Buffer> {
    let picture = gallery::read(path).context("the slate picture cannot be used")?;
    Ok(frame(&fitted(&picture, video, Rgb([0; 3]))))
}

/// The drawn slate; without a reference, or with one that cannot be read, on plain ground.
pub fn draw(reference: Option<&Path>, video: Video) -> gst::Buffer {
    let mut slate = match reference.and_then(|path| gallery::read(path).ok()) {
        Some(picture) => {
            let mut slate = fitted(&picture, video, GROUND);
            for level in slate.iter_mut() {
                *level = (u16::from(*level) * DIMMED / 256) as u8;
            }
            slate
        }
        None => RgbImage::from_pixel(video.width, video.height, GROUND),
    };
    let letters = WORDS.len() as u32 * font::ADVANCE - 1;
    // Half the width, as large as whole pixels allow.
    let scale = (video.width / 2 / letters).max(1);
    let left = video.width.saturating_sub(letters * scale) / 2;
    let top = video.height.saturating_sub(font::HEIGHT * scale) / 2;
    font::draw(&mut slate, (left, top), scale, WORDS, INK);
    frame(&slate)
}

/// The whole picture, as large as it fits, in the middle of the canvas.
fn fitted(picture: &RgbImage, video: Video, ground: Rgb<u8>) -> RgbImage {
    let factor = (f64::from(video.width) / f64::from(picture.width()))
        .min(f64::from(video.height) / f64::from(picture.height()));
    let side = |side: u32, most: u32| ((f64::from(side) * factor).round() as u32).clamp(1, most);
    let (width, height) = (side(picture.width(), video.width), side(picture.height(), video.height));
    let scaled = imageops::resize(picture, width, height, imageops::FilterType::Triangle);
    let mut canvas = RgbImage::from_pixel(video.width, video.height, ground);
    let (x, y) = ((video.width - width) / 2, (video.height - height) / 2);
    imageops::replace(&mut canvas, &scaled, x.into(), y.into());
    canvas
}

/// As a frame of the canvas: rows begin at multiples of four bytes, as GStreamer has them.
fn frame(picture: &RgbImage) -> gst::Buffer {
    let row = picture.width() as usize * 3;
    let padding = row.next_multiple_of(4) - row;
    let mut bytes = Vec::with_capacity((row + padding) * picture.height() as usize);
    for pixels in picture.chunks_exact(row) {
        bytes.extend_from_slice(pixels);
        bytes.resize(bytes.len() + padding, 0);
    }
    gst::Buffer::from_slice(bytes)
}

#[cfg(test)]
mod tests {
    use keyframed_engine::Rate;

    use super::*;

    #[test]
    fn words_stand_on_the_dimmed_reference() {
        gst::init().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("white.png");
        RgbImage::from_pixel(30, 60, Rgb([255; 3])).save(&path).unwrap();
        for (width, height) in [(321, 90), (64, 64), (16, 16)] {
            let video = Video { width, height, rate: Rate::new(25, 1).unwrap() };
            for reference in [Some(path.as_path()), Some(Path::new("/none")), None] {
                let slate = draw(reference, video);
                let info = gst_video::VideoInfo::builder(gst_video::VideoFormat::Rgb, width, height).build();
                assert_eq!(slate.size(), info.unwrap().size());
                let map = slate.map_readable().unwrap();
                assert!(map.windows(3).any(|p| p == INK.0) && !map.contains(&255));
                // Beside the letters, in the reference's column.
                let beside = (width as usize / 2) * 3;
                assert_eq!(map[beside], if reference == Some(&path) { 79 } else { GROUND.0[0] });
            }
        }
        assert!(
            load(Path::new("/none.png"), Video { width: 8, height: 8, rate: Rate::new(1, 1).unwrap() })
                .unwrap_err()
                .chain()
                .any(|cause| cause.to_string().contains("/none.png"))
        );
    }
}
