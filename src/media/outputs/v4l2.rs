//! Asking a video device what it is, before anything is sent there.

use std::{
    ffi::c_ulong,
    fs::{File, OpenOptions},
    io::{Error, ErrorKind},
    os::fd::AsRawFd,
    path::Path,
};

use anyhow::{Context as _, anyhow, bail};

/// `struct v4l2_capability` of linux/videodev2.h.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct Capability {
    driver: [u8; 16],
    card: [u8; 32],
    bus_info: [u8; 32],
    version: u32,
    capabilities: u32,
    device_caps: u32,
    reserved: [u32; 3],
}

/// `_IOR('V', 0, struct v4l2_capability)`.
const VIDIOC_QUERYCAP: c_ulong =
    2 << 30 | (size_of::<Capability>() as c_ulong) << 16 | (b'V' as c_ulong) << 8;

const V4L2_CAP_VIDEO_OUTPUT: u32 = 0x2;
const V4L2_CAP_DEVICE_CAPS: u32 = 0x8000_0000;

/// What a video device says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Such as `v4l2 loopback`.
    pub driver: String,
    /// The label that programs show.
    pub card: String,
    /// Whether it takes video.
    pub takes_video: bool,
}

/// A device that takes video.
///
/// # Errors
/// Says what is wrong with it and what to do.
pub fn output(path: &Path) -> anyhow::Result<Device> {
    let shown = path.display();
    let device = query(path)?;
    if !device.takes_video {
        bail!(
            "{shown} ({}) takes no video: it is a camera, or a v4l2loopback device that another program sends to",
            device.card
        );
    }
    Ok(device)
}

/// What a device says of itself.
///
/// # Errors
/// If it is none, or must not be opened.
pub fn query(path: &Path) -> anyhow::Result<Device> {
    let file = open(path)?;
    let mut capability = Capability::default();
    // SAFETY: the descriptor is open, and the kernel writes one `struct v4l2_capability`, which this is.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), VIDIOC_QUERYCAP as _, &raw mut capability) };
    if result == -1 {
        let error = Error::last_os_error();
        return Err(match error.raw_os_error() {
            Some(libc::ENOTTY | libc::EINVAL) => anyhow!("{} is no video device", path.display()),
            _ => anyhow!("{} does not answer: {error}", path.display()),
        });
    }
    Ok(read(&capability))
}

fn open(path: &Path) -> anyhow::Result<File> {
    let shown = path.display();
    let error = match OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) => return Ok(file),
        Err(error) => error,
    };
    let hint = match error.kind() {
        ErrorKind::NotFound => format!("there is no {shown}: load v4l2loopback (see docs/virtual-camera.md)"),
        ErrorKind::PermissionDenied => format!("{shown} must not be opened: add the user to the group video"),
        _ => format!("{shown} cannot be opened"),
    };
    Err(error).context(hint)
}

fn read(capability: &Capability) -> Device {
    let text = |bytes: &[u8]| {
        let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
        String::from_utf8_lossy(&bytes[..end]).into_owned()
    };
    // The device's own, where the driver tells them apart from those of its siblings.
    let caps = match capability.capabilities & V4L2_CAP_DEVICE_CAPS {
        0 => capability.capabilities,
        _ => capability.device_caps,
    };
    Device {
        driver: text(&capability.driver),
        card: text(&capability.card),
        takes_video: caps & V4L2_CAP_VIDEO_OUTPUT != 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_is_the_kernels() {
        assert_eq!(VIDIOC_QUERYCAP, 0x8068_5600);
    }

    #[test]
    fn what_is_no_device_is_refused() {
        let error = |path: &str| format!("{:#}", output(Path::new(path)).unwrap_err());
        assert_eq!(error("/dev/null"), "/dev/null is no video device");
        assert!(error("/dev/nosuch").starts_with("there is no /dev/nosuch: load v4l2loopback"));
        assert!(error("/").starts_with("/ cannot be opened"));
    }

    #[test]
    fn capabilities_are_read() {
        let mut capability =
            Capability { capabilities: V4L2_CAP_DEVICE_CAPS | 3, device_caps: 1, ..Default::default() };
        capability.driver[..13].copy_from_slice(b"v4l2 loopback");
        capability.card[..9].copy_from_slice(b"keyframed");
        let camera = read(&capability);
        assert_eq!((camera.driver.as_str(), camera.card.as_str()), ("v4l2 loopback", "keyframed"));
        assert!(!camera.takes_video);
        capability.device_caps = V4L2_CAP_VIDEO_OUTPUT;
        assert!(read(&capability).takes_video);
        // An old driver that knows no device_caps.
        let old = Capability { capabilities: V4L2_CAP_VIDEO_OUTPUT, ..Default::default() };
        assert!(read(&old).takes_video);
    }
}
