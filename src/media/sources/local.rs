//! Sources on this machine.

use std::path::Path;

use anyhow::{Context as _, bail};
use gst::prelude::*;
use keyframed_engine::Rate;

use super::decode::{decoded, decoder, show};
use crate::{
    config::resolved::Capture,
    media::element::{filter, fraction, make, make_with, set},
};

type Built = anyhow::Result<gst::Bin>;

/// A video file.
pub fn file(path: &Path) -> Built {
    decoded(&[make_with("filesrc", &[("location", utf8(path)?)])?])
}

/// A figure that moves by itself.
pub fn test_figure(pattern: &str, seed: u32, capture: Capture) -> Built {
    let seed = seed.to_string();
    let source =
        make_with("denseposetestsrc", &[("is-live", "true"), ("pattern", pattern), ("seed", &seed)])?;
    let filter = filter(&gst::Caps::from(wanted("video/x-raw", capture)))?;
    let bin = gst::Bin::new();
    bin.add_many([&source, &filter])?;
    source.link(&filter)?;
    show(&bin, &filter)?;
    Ok(bin)
}

/// A camera: raw, MJPEG or H.264, whichever it offers at the size and rate asked for.
pub fn v4l2(device: &Path, capture: Capture) -> Built {
    let mut caps = gst::Caps::new_empty();
    let all = caps.make_mut();
    for kind in ["video/x-raw", "image/jpeg", "video/x-h264"] {
        all.append_structure(wanted(kind, capture));
    }
    decoded(&[make_with("v4l2src", &[("device", utf8(device)?)])?, filter(&caps)?])
}

/// What `shmsink` of another program puts there: RGB, rows padded to four bytes as GStreamer does.
pub fn shm(socket: &Path, width: u32, height: u32, rate: Rate) -> Built {
    let source = make_with(
        "shmsrc",
        &[("socket-path", utf8(socket)?), ("is-live", "true"), ("do-timestamp", "true")],
    )?;
    let capture = Capture { width: Some(width), height: Some(height), rate: Some(rate) };
    let mut format = wanted("video/x-raw", capture);
    format.set("format", "RGB");
    format.set("pixel-aspect-ratio", gst::Fraction::new(1, 1));
    let filter = filter(&gst::Caps::from(format))?;
    let bin = gst::Bin::new();
    bin.add_many([&source, &filter])?;
    source.link(&filter)?;
    show(&bin, &filter)?;
    Ok(bin)
}

/// A PipeWire node that gives raw video. What it would decode first is not asked for: a camera that offers both shall
/// not choose.
pub fn pipewire(name: &str, target: Option<&str>) -> Built {
    let source = make_with("pipewiresrc", &[("client-name", &format!("keyframed {name}"))])?;
    if let Some(target) = target {
        set(&source, "target-object", target)?;
    }
    let convert = make("videoconvert")?;
    let bin = gst::Bin::new();
    bin.add_many([&source, &convert])?;
    source.link(&convert)?;
    show(&bin, &convert)?;
    Ok(bin)
}

/// Whatever the user wrote, decoded if need be.
pub fn fragment(launch: &str) -> Built {
    let wrong = || format!("`{launch}` is no piece of a gst-launch-1.0 line that ends in video");
    // Linked by the parser, which waits for pads that come later.
    let inner = gst::parse::bin_from_description(&format!("{launch} ! identity name=kf-last"), false)
        .with_context(wrong)?;
    let last = inner.by_name("kf-last").with_context(wrong)?;
    show(&inner, &last)?;
    let (bin, decoder) = decoder()?;
    bin.add(&inner)?;
    inner.link(&decoder)?;
    Ok(bin)
}

/// A file that can be opened.
pub fn readable(path: &Path) -> anyhow::Result<()> {
    let shown = path.display();
    let file = std::fs::File::open(path).with_context(|| format!("cannot read {shown}"))?;
    if file.metadata()?.is_dir() {
        bail!("{shown} is a folder");
    }
    Ok(())
}

/// A path where something is.
pub fn there(path: &Path, otherwise: &str) -> anyhow::Result<()> {
    if !path.exists() {
        bail!("{otherwise} {}", path.display());
    }
    Ok(())
}

/// Caps of a kind with what is asked for.
fn wanted(kind: &str, capture: Capture) -> gst::Structure {
    let side = |side: u32| i32::try_from(side).unwrap_or(i32::MAX);
    let mut caps = gst::Structure::new_empty(kind);
    if let Some(width) = capture.width {
        caps.set("width", side(width));
    }
    if let Some(height) = capture.height {
        caps.set("height", side(height));
    }
    if let Some(rate) = capture.rate {
        caps.set("framerate", fraction(rate));
    }
    caps
}

fn utf8(path: &Path) -> anyhow::Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))
}
