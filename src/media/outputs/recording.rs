//! Recording: fragmented MP4, a new file at each start and at each rotation.

use std::{
    ffi::CString,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, bail};
use gst::{glib, prelude::*};

use super::{encoder, local::utf8};
use crate::{
    config::resolved::{Output, Video},
    media::{
        bus,
        element::{make, make_with, millis},
    },
};

/// With less room than this nothing is begun: each attempt would leave an empty file behind.
const ROOM: u64 = 4 << 20;

/// Makes the folder, if need be, and looks for room there.
///
/// # Errors
/// If nothing can be written there.
pub fn prepare(directory: &Path) -> anyhow::Result<()> {
    let shown = directory.display();
    std::fs::create_dir_all(directory).with_context(|| format!("cannot make {shown}"))?;
    writable(directory).with_context(|| format!("cannot write to {shown}"))?;
    if room(directory).with_context(|| format!("cannot look into {shown}"))? < ROOM {
        // As the file itself says it when the disk fills up later.
        bail!(bus::NO_SPACE);
    }
    Ok(())
}

fn writable(directory: &Path) -> anyhow::Result<()> {
    let path = CString::new(directory.as_os_str().as_bytes())?;
    // SAFETY: the path ends in a zero byte.
    if unsafe { libc::access(path.as_ptr(), libc::W_OK) } != 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    Ok(())
}

/// Bytes that the user may still write.
fn room(directory: &Path) -> anyhow::Result<u64> {
    let path = CString::new(directory.as_os_str().as_bytes())?;
    // SAFETY: plain numbers, for which zeros are fine.
    let mut disk: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: the path ends in a zero byte, and the kernel fills in one `struct statvfs`.
    if unsafe { libc::statvfs(path.as_ptr(), &raw mut disk) } != 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// From raw video to files in `directory`.
///
/// # Errors
/// If an element is missing.
pub fn build(
    name: &str,
    output: &Output,
    video: Video,
    directory: &Path,
    fragment: Duration,
    rotate: Option<Duration>,
) -> anyhow::Result<Vec<gst::Element>> {
    // A file that is cut off anywhere plays up to its last whole fragment.
    let muxer =
        make_with("mp4mux", &[("fragment-duration", &millis(fragment.max(Duration::from_millis(1))))])?;
    let sink = make("splitmuxsink")?;
    sink.set_property("muxer", &muxer);
    // An unnamed first file must not exist even for a moment.
    sink.set_property("location", utf8(&directory.join(format!("{name}.mp4")))?);
    if let Some(rotate) = rotate {
        sink.set_property("max-size-time", u64::try_from(rotate.as_nanos()).unwrap_or(0));
        sink.set_property("send-keyframe-requests", true);
    }
    let (directory, name) = (directory.to_owned(), name.to_owned());
    sink.connect("format-location", false, move |_| {
        let path = free_name(&directory, &name, SystemTime::now());
        Some(path.to_string_lossy().to_value())
    });
    let mut parts = encoder::h264(output.encoder, video)?;
    parts.push(sink);
    Ok(parts)
}

/// A file that does not exist yet, named by UTC time: `NAME-20261123T104500Z.mp4`.
fn free_name(directory: &Path, name: &str, now: SystemTime) -> PathBuf {
    let stem = format!("{name}-{}", utc(now));
    (1u32..)
        .map(|n| match n {
            1 => directory.join(format!("{stem}.mp4")),
            n => directory.join(format!("{stem}-{n}.mp4")),
        })
        .find(|path| !path.exists())
        .unwrap_or_else(|| directory.join(format!("{stem}.mp4")))
}

/// As in ISO 8601's basic form.
fn utc(now: SystemTime) -> String {
    let secs = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    i64::try_from(secs)
        .ok()
        .and_then(|secs| glib::DateTime::from_unix_utc(secs).ok())
        .and_then(|time| time.format("%Y%m%dT%H%M%SZ").ok())
        .map_or_else(|| secs.to_string(), Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_by_utc_time_and_never_overwritten() {
        let now = UNIX_EPOCH + Duration::from_secs(1_795_430_700);
        let directory = tempfile::tempdir().unwrap();
        let first = free_name(directory.path(), "rec", now);
        assert_eq!(first.file_name().unwrap(), "rec-20261123T104500Z.mp4");
        std::fs::write(&first, "").unwrap();
        let second = free_name(directory.path(), "rec", now);
        assert_eq!(second.file_name().unwrap(), "rec-20261123T104500Z-2.mp4");
    }
}
