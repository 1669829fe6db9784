//! A picture of any size and colours becomes part labels, at any other size and back to colours.
#![no_main]

use keyframed_engine::{Frame, Labels, Palette, pose::off_palette_share};
use libfuzzer_sys::fuzz_target;

/// How a picture is described: sizes, stride, and its bytes.
#[derive(Debug, arbitrary::Arbitrary)]
struct Input<'a> {
    width: u16,
    height: u16,
    padding: u8,
    other: (u8, u8),
    spread: bool,
    /// Small pictures are made of these; others repeat them.
    bytes: &'a [u8],
}

fuzz_target!(|input: Input| {
    // What buffers really hold decides, whatever caps say.
    let (width, height) = (u32::from(input.width), u32::from(input.height));
    let _ = Frame::from_strided(width, height, usize::from(input.padding), input.bytes);
    let (width, height) = (width % 25, height % 25);
    let stride = width as usize * 3 + usize::from(input.padding);
    let needed = stride * height as usize;
    let pixels: Vec<u8> = input.bytes.iter().copied().cycle().take(needed).collect();
    let Ok(frame) = Frame::from_strided(width, height, stride, &pixels) else {
        assert!(width == 0 || height == 0 || input.bytes.is_empty());
        return;
    };
    let labels = Labels::from_frame(&frame);
    assert!(labels.data().iter().all(|&label| label <= 24));
    assert!((0.0..=1.0).contains(&off_palette_share(&frame)));
    let palette = if input.spread { Palette::Spread } else { Palette::Viridis };
    let shown = labels.colours(palette);
    // Clean pictures come back unchanged.
    if palette == Palette::Viridis {
        assert!(Labels::from_frame(&shown) == labels);
    }
    if let Ok(other) = labels.resized(input.other.0.into(), input.other.1.into()) {
        assert!(other.data().iter().all(|&label| label <= 24));
    }
});
