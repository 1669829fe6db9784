//! Frames to tensors and back.
//!
//! Pictures of another shape than the model's are scaled to fit completely
//! (letterbox), so that no part of a figure is lost: a reference is surrounded
//! by its own border pixels, a pose by background.

use crate::{
    checkpoint::{ImageSize, PaletteName, PoseInput},
    error::{ModelError, Result},
    torch_cuda,
};
use image::{ImageBuffer, Rgb, imageops};
use keyframed_engine::{Frame, Labels, Palette};
use std::borrow::Cow;
use tch::{Device, Kind, Tensor};

/// Where a picture lies within the model's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fit {
    width: u32,
    height: u32,
    left: u32,
    top: u32,
}

impl Fit {
    fn new(width: u32, height: u32, within: ImageSize) -> Self {
        let (w, h) = (f64::from(width.max(1)), f64::from(height.max(1)));
        let scale = (f64::from(within.width) / w).min(f64::from(within.height) / h);
        let side = |length: f64, most: u32| ((length * scale).round() as u32).clamp(1, most);
        let (width, height) = (side(w, within.width), side(h, within.height));
        Self { width, height, left: (within.width - width) / 2, top: (within.height - height) / 2 }
    }

    /// Left, right, top, bottom.
    fn margins(&self, within: ImageSize) -> [i64; 4] {
        let right = within.width - self.width - self.left;
        let bottom = within.height - self.height - self.top;
        [self.left, right, self.top, bottom].map(i64::from)
    }
}

/// The picture's bytes, scaled with antialiasing.
fn scaled(frame: &Frame, width: u32, height: u32) -> Result<Cow<'_, [u8]>> {
    if (frame.width(), frame.height()) == (width, height) {
        return Ok(Cow::Borrowed(frame.data()));
    }
    let view = ImageBuffer::<Rgb<u8>, &[u8]>::from_raw(frame.width(), frame.height(), frame.data());
    let view = view.ok_or_else(|| ModelError::Input("a picture without its pixels".into()))?;
    let small = imageops::resize(&view, width, height, imageops::FilterType::Triangle);
    Ok(Cow::Owned(small.into_raw()))
}

/// `[1, 3, height, width]` on `device`, levels 0..255 as float32. What travels there is three bytes a pixel.
fn planes(rgb: &[u8], width: u32, height: u32, device: Device) -> Result<Tensor> {
    let rows = match device {
        Device::Cuda(index) => torch_cuda::upload(rgb, index)?,
        _ => Tensor::from_slice(rgb),
    };
    let rows = rows.view([1, i64::from(height), i64::from(width), 3]);
    Ok(rows.permute([0, 3, 1, 2]).to_kind(Kind::Float).contiguous())
}

/// A reference picture, `[1, 3, h, w]` in −1..1.
pub(super) fn reference(frame: &Frame, size: ImageSize, device: Device) -> Result<Tensor> {
    let fit = Fit::new(frame.width(), frame.height(), size);
    let levels = planes(&scaled(frame, fit.width, fit.height)?, fit.width, fit.height, device)?;
    Ok(levels.replication_pad2d(fit.margins(size)) / 127.5 - 1.0)
}

/// A pose picture as the ControlNet was trained to see it, `[1, 3, h, w]` in 0..1.
pub(super) fn pose(frame: &Frame, input: PoseInput, size: ImageSize, device: Device) -> Result<Tensor> {
    let palette = match input.palette {
        PaletteName::Viridis => Palette::Viridis,
        PaletteName::Spread => Palette::Spread,
    };
    let fit = Fit::new(frame.width(), frame.height(), size);
    let coloured;
    let levels = if input.relabel || palette != Palette::Viridis {
        let labels = Labels::from_frame(frame).resized(fit.width, fit.height);
        coloured = labels.map_err(|e| ModelError::Input(e.to_string()))?.colours(palette);
        Cow::Borrowed(coloured.data())
    } else {
        scaled(frame, fit.width, fit.height)?
    };
    let whole = surrounded(levels, &fit, size, palette.colours()[0]);
    Ok(planes(&whole, size.width, size.height, device)? / 255.0)
}

/// The bytes of a picture of `size` that shows `rgb` where `fit` says and `colour` elsewhere.
fn surrounded<'a>(rgb: Cow<'a, [u8]>, fit: &Fit, size: ImageSize, colour: [u8; 3]) -> Cow<'a, [u8]> {
    let bytes = |pixels: u32| pixels as usize * 3;
    if (fit.width, fit.height) == (size.width, size.height) {
        return rgb;
    }
    let mut whole = colour.repeat(size.width as usize * size.height as usize);
    let rows = whole.chunks_exact_mut(bytes(size.width)).skip(fit.top as usize);
    for (row, own) in rows.zip(rgb.chunks_exact(bytes(fit.width))) {
        row[bytes(fit.left)..][..own.len()].copy_from_slice(own);
    }
    Cow::Owned(whole)
}

/// Pictures 0..1 `[1, 3, h, w]`, clamped and rounded to 8 bits where they are: bytes travel.
pub(super) fn frame(image: &Tensor) -> Result<Frame> {
    let bytes = (image.clamp(0.0, 1.0) * 255.0).round().to_kind(Kind::Uint8);
    let rows = bytes.squeeze_dim(0).permute([1, 2, 0]).contiguous();
    let rows = match rows.device() {
        Device::Cuda(index) => torch_cuda::download(&rows, index)?,
        _ => rows,
    };
    let size = rows.size();
    let mut data = vec![0; rows.numel()];
    let length = data.len();
    rows.f_copy_data_u8(&mut data, length)?;
    Frame::new(size[1] as u32, size[0] as u32, data).map_err(|e| ModelError::Input(e.to_string()))
}

/// A frame as `[1, 3, h, w]` in 0..1.
pub(super) fn tensor(frame: &Frame, device: Device) -> Result<Tensor> {
    Ok(planes(frame.data(), frame.width(), frame.height(), device)? / 255.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDE: ImageSize = ImageSize { width: 32, height: 16 };

    fn checker(width: u32, height: u32) -> Option<Frame> {
        let data: Vec<u8> = (0..width * height * 3).map(|i| (i * 37 % 256) as u8).collect();
        Frame::new(width, height, data).ok()
    }

    #[test]
    fn frames_come_back_unchanged() {
        let there = checker(7, 5);
        let back = there.as_ref().and_then(|there| frame(&tensor(there, Device::Cpu).ok()?).ok());
        assert!(back.is_some() && back == there);
    }

    #[test]
    fn pictures_of_any_shape_fit_completely() {
        for (width, height) in [(1, 1), (32, 16), (1000, 3), (3, 1000), (33, 17), (4000, 2000)] {
            let fit = Fit::new(width, height, WIDE);
            let [left, right, top, bottom] = fit.margins(WIDE);
            assert!(fit.width == 32 || fit.height == 16, "{fit:?}");
            assert_eq!(left + right + i64::from(fit.width), 32);
            assert_eq!(top + bottom + i64::from(fit.height), 16);
            assert!((left - right).abs() <= 1 && (top - bottom).abs() <= 1);
        }
    }

    #[test]
    fn references_are_scaled_and_surrounded_by_their_border() -> Result<()> {
        let Ok(red) = Frame::filled(5, 90, [255, 0, 0]) else { return Ok(()) };
        let image = reference(&red, WIDE, Device::Cpu)?;
        assert_eq!(image.size(), [1, 3, 16, 32]);
        let wanted = Tensor::from_slice(&[1f32, -1.0, -1.0]).view([1, 3, 1, 1]);
        assert_eq!((image - wanted).abs().max().double_value(&[]), 0.0);
        Ok(())
    }

    #[test]
    fn poses_are_surrounded_by_background_in_the_models_colours() -> Result<()> {
        let part = Palette::Viridis.colours()[4];
        let Ok(pose_frame) = Frame::filled(40, 40, part) else { return Ok(()) };
        for (palette, name) in
            [(Palette::Viridis, PaletteName::Viridis), (Palette::Spread, PaletteName::Spread)]
        {
            for relabel in [false, true] {
                let image = pose(&pose_frame, PoseInput { palette: name, relabel }, WIDE, Device::Cpu)?;
                assert_eq!(image.size(), [1, 3, 16, 32]);
                let Ok(made) = frame(&image) else { continue };
                assert_eq!(made.pixel(0, 0), Some(palette.colours()[0]));
                assert_eq!(made.pixel(31, 15), Some(palette.colours()[0]));
                assert_eq!(made.pixel(16, 8), Some(palette.colours()[4]));
            }
        }
        Ok(())
    }
}
