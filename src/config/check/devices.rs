//! Files, folders and devices. The daemon goes on asking for those that are not there, so they are warned about: a
//! camera that is plugged in later must not keep it from starting.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use super::{Findings, may_make};
use crate::{
    config::resolved::{Config, OutputKind, SourceKind},
    media::v4l2,
};

/// Free space below which a recording is warned about, bytes.
const LITTLE: u64 = 1 << 30;

/// Files that are read and folders that are written to.
pub fn files(config: &Config, findings: &mut Findings) {
    for (name, source) in &config.sources {
        if let SourceKind::File { path, .. } = &source.kind
            && let Err(reason) = readable(path)
        {
            findings.warning(format!("[sources.{name}] path"), waited(&reason));
        }
    }
    for (name, output) in &config.outputs {
        if let OutputKind::Recording { directory, .. } = &output.kind {
            let part = format!("[outputs.{name}] directory");
            match may_make(directory) {
                Ok(()) => space(directory, part, findings),
                Err(reason) => findings.warning(part, waited(&reason)),
            }
        }
    }
}

fn readable(path: &Path) -> Result<(), String> {
    let shown = path.display();
    let metadata = fs::metadata(path).map_err(|error| format!("{shown} cannot be read: {error}"))?;
    if metadata.is_dir() {
        return Err(format!("{shown} is a folder"));
    }
    if metadata.is_file() && metadata.len() == 0 {
        return Err(format!("{shown} is empty (0 bytes)"));
    }
    // Opening a pipe would wait for its writer.
    if metadata.is_file() {
        fs::File::open(path).map_err(|error| format!("{shown} cannot be read: {error}"))?;
    }
    Ok(())
}

fn space(directory: &Path, part: String, findings: &mut Findings) {
    let Some(there) = directory.ancestors().find(|folder| folder.is_dir()) else { return };
    let Ok(disk) = rustix::fs::statvfs(there) else { return };
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    if free < LITTLE {
        findings.warning(part, format!("only {} MiB are free there", free >> 20));
    }
}

/// Devices, and the desktop that windows and PipeWire need.
pub fn check(config: &Config, findings: &mut Findings) {
    for (name, source) in &config.sources {
        match &source.kind {
            SourceKind::V4l2 { device, .. } if !device.exists() => {
                let message = waited(&format!("there is no {}", device.display()));
                findings.warning(format!("[sources.{name}] device"), message);
            }
            SourceKind::V4l2 { device, .. } => {
                if let Err(error) = v4l2::query(device) {
                    findings.warning(format!("[sources.{name}] device"), waited(&format!("{error:#}")));
                }
            }
            SourceKind::Pipewire { .. } => pipewire(format!("[sources.{name}] kind"), findings),
            SourceKind::Shm { socket, .. } if !socket.exists() => {
                let message = waited(&format!("there is no {}", socket.display()));
                findings.warning(format!("[sources.{name}] socket_path"), message);
            }
            _ => {}
        }
    }
    for (name, output) in &config.outputs {
        match &output.kind {
            OutputKind::V4l2 { device } if !device.exists() => {
                let device = device.display();
                let message = format!("there is no {device}: load v4l2loopback (docs/virtual-camera.md)");
                findings.warning(format!("[outputs.{name}] device"), waited(&message));
            }
            OutputKind::V4l2 { device } => {
                if let Err(error) = v4l2::output(device) {
                    findings.warning(format!("[outputs.{name}] device"), waited(&format!("{error:#}")));
                }
            }
            OutputKind::Pipewire { .. } => pipewire(format!("[outputs.{name}] kind"), findings),
            OutputKind::Window if !has_desktop() => {
                let message = "a window needs a desktop: neither WAYLAND_DISPLAY nor DISPLAY is set";
                findings.warning(format!("[outputs.{name}] kind"), waited(message));
            }
            _ => {}
        }
    }
}

/// Ends a message about what the daemon asks for again and again.
fn waited(message: &str) -> String {
    format!("{message}; it is waited for")
}

fn pipewire(part: String, findings: &mut Findings) {
    if pipewire_socket().is_none_or(|socket| !socket.exists()) {
        let message = "PipeWire is not running for this user: log into a desktop, or start it";
        findings.warning(part, waited(message));
    }
}

fn pipewire_socket() -> Option<PathBuf> {
    let dir = env::var_os("PIPEWIRE_RUNTIME_DIR").or_else(|| env::var_os("XDG_RUNTIME_DIR"))?;
    let name = env::var_os("PIPEWIRE_REMOTE").unwrap_or_else(|| "pipewire-0".into());
    Some(Path::new(&dir).join(name))
}

fn has_desktop() -> bool {
    ["WAYLAND_DISPLAY", "DISPLAY"].iter().any(|name| env::var_os(name).is_some_and(|value| !value.is_empty()))
}
