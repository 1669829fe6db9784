//! Caps and buffers that do not keep to them, in front of the element that reads DensePose streams.
#![no_main]

use std::sync::OnceLock;

use gst::{ClockTime, prelude::*};
use gst_check::Harness;
use libfuzzer_sys::fuzz_target;

/// A stream: what its caps say, and what comes.
#[derive(Debug, arbitrary::Arbitrary)]
struct Input<'a> {
    /// Text of caps instead of the fields below.
    caps: Option<&'a str>,
    format: u8,
    size: (u16, u16),
    rate: (i16, u8),
    interlaced: bool,
    buffers: Vec<Buffer<'a>>,
}

#[derive(Debug, arbitrary::Arbitrary)]
struct Buffer<'a> {
    /// As long as the caps say, made of `bytes`; else `bytes` alone.
    whole: bool,
    bytes: &'a [u8],
    pts: Option<u64>,
    duration: Option<u64>,
    flags: u8,
}

const FORMATS: [&str; 6] = ["RGB", "RGBA", "I420", "GRAY8", "NV12", "nonsense"];

fn ready() {
    static READY: OnceLock<()> = OnceLock::new();
    READY.get_or_init(|| {
        gst::init().expect("GStreamer");
        gstkeyframed::plugin_register_static().expect("our elements");
    });
}

impl Input<'_> {
    fn caps(&self) -> Option<gst::Caps> {
        if let Some(text) = self.caps {
            return text.parse().ok();
        }
        let (width, height) = (i32::from(self.size.0), i32::from(self.size.1));
        // Most runs are to get beyond negotiation.
        let format = if self.format < 200 { "RGB" } else { FORMATS[usize::from(self.format) % FORMATS.len()] };
        let mut caps = gst::Caps::builder("video/x-raw").field("format", format).field("width", width).field("height", height);
        if self.rate.1 > 0 {
            caps = caps.field("framerate", gst::Fraction::new(self.rate.0.into(), self.rate.1.into()));
        }
        if self.interlaced {
            caps = caps.field("interlace-mode", "interleaved");
        }
        Some(caps.build())
    }
}

impl Buffer<'_> {
    fn made(&self, size: usize) -> gst::Buffer {
        let bytes = match self.whole {
            true => self.bytes.iter().copied().chain([0]).cycle().take(size.min(1 << 20)).collect(),
            false => self.bytes.to_vec(),
        };
        let mut buffer = gst::Buffer::from_mut_slice(bytes);
        let made = buffer.make_mut();
        made.set_pts(self.pts.and_then(|n| ClockTime::try_from(n).ok()));
        made.set_duration(self.duration.and_then(|n| ClockTime::try_from(n).ok()));
        made.set_flags(gst::BufferFlags::from_bits_truncate(u32::from(self.flags) << 4));
        buffer
    }
}

fuzz_target!(|input: Input| {
    ready();
    let Some(caps) = input.caps() else { return };
    if !caps.is_fixed() {
        return;
    }
    let size = gst_video::VideoInfo::from_caps(&caps).map_or(64, |info| info.size());
    let mut harness = Harness::new("keyposeselect");
    harness.play();
    harness.push_event(gst::event::StreamStart::new("fuzz"));
    if harness.push_event(gst::event::Caps::new(&caps)) {
        harness.push_event(gst::event::Segment::new(&gst::FormattedSegment::<ClockTime>::new()));
        for buffer in input.buffers.iter().take(8) {
            let _ = harness.push(buffer.made(size));
        }
    }
    harness.push_event(gst::event::Eos::new());
    while harness.try_pull().is_some() {}
});
