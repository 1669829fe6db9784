//! Where the daemon is.

use std::{
    env, fs,
    io::ErrorKind,
    os::unix::{fs::MetadataExt as _, net::UnixStream},
    path::PathBuf,
};

/// Where a daemon's control socket usually lies: that of the user's own daemon first.
fn usual() -> Vec<PathBuf> {
    let own = env::var_os("XDG_RUNTIME_DIR")
        .filter(|dir| !dir.is_empty())
        .map(|d| PathBuf::from(d).join("keyframed"));
    let user = rustix::process::geteuid().as_raw();
    // Where a daemon goes that has no runtime folder; it counts only if nobody else made it.
    let fallback = env::temp_dir().join(format!("keyframed-{user}"));
    let fallback = fs::symlink_metadata(&fallback).is_ok_and(|m| m.uid() == user).then_some(fallback);
    let folders = own.into_iter().chain(["/run/keyframed".into()]).chain(fallback);
    folders.map(|dir| dir.join("control.sock")).collect()
}

/// The endpoint of a daemon that answers, or a sentence on where none does.
///
/// # Errors
/// Nothing listens where it should: the places, why each failed, and how to start a daemon.
pub fn find(given: Option<&str>) -> Result<String, String> {
    let places = match given {
        Some(given) => match given.strip_prefix("ipc://") {
            Some(path) => vec![PathBuf::from(path)],
            // Whether somebody answers at a TCP address shows when it is called.
            None => return Ok(given.to_owned()),
        },
        None => usual(),
    };
    let (mut tried, mut remedy) = (Vec::new(), HOW_TO_START);
    for path in places {
        match UnixStream::connect(&path) {
            Ok(_) => return Ok(format!("ipc://{}", path.display())),
            Err(error) => {
                if error.kind() == ErrorKind::PermissionDenied {
                    remedy = HOW_TO_BE_LET_IN;
                }
                tried.push(format!("  ipc://{}: {}", path.display(), plain(&error)));
            }
        }
    }
    Err(format!("no keyframed answers; looked at\n{}\n{remedy}", tried.join("\n")))
}

/// What helps when no daemon answers.
pub const HOW_TO_START: &str = "Start one with `keyframed run` or `systemctl --user start keyframed`, or say where it \
                                is with --endpoint.";

/// What helps when one is there that this user may not use.
const HOW_TO_BE_LET_IN: &str = "The service's daemon takes requests from the group keyframed: `sudo usermod -aG \
                                keyframed $USER`, then log in again.";

fn plain(error: &std::io::Error) -> String {
    use ErrorKind as K;
    match error.kind() {
        K::NotFound => "there is no socket".into(),
        K::ConnectionRefused => "a socket is there, but its daemon is gone".into(),
        K::PermissionDenied => "no permission; its group may use it (see `ls -l`)".into(),
        _ => error.to_string(),
    }
}

/// The telemetry endpoint that goes with a control endpoint: `telemetry.sock` beside `control.sock`.
pub fn telemetry_beside(control: &str) -> Option<String> {
    control
        .strip_prefix("ipc://")?
        .strip_suffix("control.sock")
        .map(|dir| format!("ipc://{dir}telemetry.sock"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_daemon_is_told_with_places_and_a_remedy() {
        let text = find(Some("ipc:///nonexistent/control.sock")).unwrap_err();
        assert!(text.contains("ipc:///nonexistent/control.sock: there is no socket"), "{text}");
        assert!(text.contains("keyframed run"), "{text}");
    }

    #[test]
    fn who_may_not_is_told_how_to_be_let_in() {
        use std::os::unix::fs::PermissionsExt as _;
        if rustix::process::geteuid().is_root() {
            eprintln!("skipped: root may use every socket");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
        let text = find(Some(&format!("ipc://{}", path.display()))).unwrap_err();
        assert!(text.contains("usermod") && !text.contains("keyframed run"), "{text}");
    }

    #[test]
    fn telemetry_lies_beside_control() {
        let beside = telemetry_beside("ipc:///run/keyframed/control.sock");
        assert_eq!(beside.as_deref(), Some("ipc:///run/keyframed/telemetry.sock"));
        assert_eq!(telemetry_beside("tcp://127.0.0.1:1"), None);
    }
}
