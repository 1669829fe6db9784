//! Outputs on this machine, raw video all of them.

use std::{
    io::ErrorKind,
    os::unix::{fs::FileTypeExt as _, net::UnixStream},
    path::Path,
};

use anyhow::{Context as _, bail};
use gst::prelude::*;

use crate::{
    config::resolved::Video,
    media::element::{filter, make_with},
};

pub(super) type Elements = anyhow::Result<Vec<gst::Element>>;

/// A v4l2loopback device.
pub fn v4l2(device: &Path) -> Elements {
    // What every program that reads cameras understands.
    let caps = gst_video::VideoCapsBuilder::new().format(gst_video::VideoFormat::Yuy2).build();
    let sink = make_with("v4l2sink", &[("device", &utf8(device)?), ("sync", "false")])?;
    Ok(vec![filter(&caps)?, sink])
}

/// Raw RGB in shared memory.
pub fn shm(socket: &Path, video: Video) -> Elements {
    let caps = gst_video::VideoCapsBuilder::new().format(gst_video::VideoFormat::Rgb).build();
    // Frames that readers have not given back yet lie in there too.
    let frame = u64::from(video.width).next_multiple_of(4) * u64::from(video.height) * 3;
    let size = (frame * SHM_FRAMES).clamp(1 << 20, u64::from(u32::MAX)).to_string();
    let sink = [
        ("socket-path", utf8(socket)?.as_str()),
        ("shm-size", &size),
        ("wait-for-connection", "false"),
        ("sync", "false"),
    ]
    .map(|(name, value)| (name, value.to_owned()));
    let sink = sink.each_ref().map(|(name, value)| (*name, value.as_str()));
    Ok(vec![filter(&caps)?, make_with("shmsink", &sink)?])
}

/// Frames that fit into the shared memory.
const SHM_FRAMES: u64 = 16;

/// shmsink takes another name where a socket exists; one that nobody listens on was left behind by a crash. Anything
/// else at its path is the user's and stays.
pub fn free_socket(socket: &Path) -> anyhow::Result<()> {
    let shown = socket.display();
    match socket.symlink_metadata() {
        Ok(found) if !found.file_type().is_socket() => bail!("{shown} exists and is no socket"),
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("cannot look at {shown}")),
    }
    match UnixStream::connect(socket) {
        Ok(_) => bail!("{shown} is in use by another program"),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            std::fs::remove_file(socket).with_context(|| format!("{shown} is in the way"))
        }
        // Its owner has just ended.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot tell whether {shown} is in use")),
    }
}

/// Whether there is a desktop. Without one, autovideosink shows its frames to nobody.
pub fn desktop() -> anyhow::Result<()> {
    if ["DISPLAY", "WAYLAND_DISPLAY"].iter().all(|name| std::env::var_os(name).is_none()) {
        bail!("there is no desktop to show a window on: neither DISPLAY nor WAYLAND_DISPLAY is set");
    }
    Ok(())
}

/// A window on the desktop.
pub fn window() -> Elements {
    Ok(vec![make_with("autovideosink", &[("sync", "false")])?])
}

/// Whatever the user wrote.
pub fn fragment(launch: &str) -> Elements {
    let bin = gst::parse::bin_from_description(launch, true)
        .with_context(|| format!("`{launch}` is no piece of a gst-launch-1.0 line"))?;
    if bin.static_pad("sink").is_none() {
        bail!("`{launch}` takes no video: its first element needs a free sink pad");
    }
    Ok(vec![bin.upcast()])
}

/// Paths go to GStreamer as text.
pub fn utf8(path: &Path) -> anyhow::Result<String> {
    Ok(path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?.to_owned())
}
