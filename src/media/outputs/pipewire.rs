//! A camera that PipeWire offers, and whether PipeWire is still there.

use std::{
    env,
    ffi::OsString,
    io::{ErrorKind, Read as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
};

use gst::prelude::*;

use super::local::Elements;
use crate::media::element::{filter, make_with};

/// A camera that PipeWire offers.
pub fn camera(name: &str) -> Elements {
    let sink = make_with("pipewiresink", &[("mode", "provide"), ("sync", "false")])?;
    let properties = gst::Structure::builder("props")
        .field("media.class", "Video/Source")
        .field("media.role", "Camera")
        .field("node.name", name)
        .field("node.description", name)
        .build();
    sink.set_property("stream-properties", properties);
    // What every camera program understands. The sink's buffer pool, which it offers upstream, has no memory before
    // somebody looks: converters that take it crash.
    let caps = gst_video::VideoCapsBuilder::new().format(gst_video::VideoFormat::Yuy2).build();
    Ok(vec![filter(&caps)?, make_with("identity", &[("drop-allocation", "true")])?, sink])
}

/// A connection of our own to PipeWire, on which nothing is said: it ends when PipeWire does. `pipewiresink` 0.3 says
/// nothing then, and takes frames for ever.
#[derive(Debug)]
pub struct Server(UnixStream);

impl Server {
    /// Connects to the PipeWire that `pipewiresink` uses; `None` if that cannot be had, which the sink then tells.
    pub fn connect() -> Option<Self> {
        Self::at(&socket(|name| env::var_os(name))?)
    }

    fn at(path: &Path) -> Option<Self> {
        let stream = UnixStream::connect(path).ok()?;
        stream.set_nonblocking(true).ok()?;
        Some(Self(stream))
    }

    /// Whether it has ended.
    pub fn is_gone(&self) -> bool {
        match (&self.0).read(&mut [0; 64]) {
            Ok(0) => true,
            Ok(_) => false,
            Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
        }
    }
}

/// Where PipeWire listens, by the rules of its library.
fn socket(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    let folder = ["PIPEWIRE_RUNTIME_DIR", "XDG_RUNTIME_DIR", "USERPROFILE"].into_iter().find_map(set);
    let remote = PathBuf::from(set("PIPEWIRE_REMOTE").unwrap_or_else(|| "pipewire-0".into()));
    // An absolute name replaces the folder.
    if remote.is_absolute() { Some(remote) } else { Some(PathBuf::from(folder?).join(remote)) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn the_end_of_the_server_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pipewire-0");
        assert!(Server::at(&path).is_none());
        let listener = UnixListener::bind(&path).unwrap();
        let server = Server::at(&path).unwrap();
        let (client, _) = listener.accept().unwrap();
        assert!(!server.is_gone());
        drop(client);
        assert!(server.is_gone());
    }

    #[test]
    fn it_is_sought_where_its_library_seeks() {
        let at = |set: &[(&str, &str)]| {
            let set: Vec<_> =
                set.iter().map(|(name, value)| (name.to_string(), OsString::from(value))).collect();
            let found = |name: &str| set.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone());
            socket(found).map(|path| path.display().to_string())
        };
        assert_eq!(at(&[]), None);
        assert_eq!(at(&[("XDG_RUNTIME_DIR", "/run/me")]).as_deref(), Some("/run/me/pipewire-0"));
        let both =
            [("PIPEWIRE_RUNTIME_DIR", "/pw"), ("XDG_RUNTIME_DIR", "/run/me"), ("PIPEWIRE_REMOTE", "mine")];
        assert_eq!(at(&both).as_deref(), Some("/pw/mine"));
        assert_eq!(at(&[("PIPEWIRE_REMOTE", "/a/socket")]).as_deref(), Some("/a/socket"));
    }
}
