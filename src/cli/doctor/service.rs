//! The daemon as a service: installed, running, reachable.

use std::{
    env,
    io::ErrorKind,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
};

use super::Finding;

/// Places of units, the administrator's first.
const UNITS: [&str; 3] = ["/etc/systemd", "/usr/lib/systemd", "/lib/systemd"];

/// Both services.
pub fn unit() -> Finding {
    let what = "systemd services";
    let found: Vec<_> = ["system", "user"]
        .into_iter()
        .filter_map(|kind| {
            let mut places = UNITS.iter().map(|place| Path::new(place).join(kind).join("keyframed.service"));
            places.find(|path| path.is_file()).map(|path| path.display().to_string())
        })
        .collect();
    if found.is_empty() {
        let remedy = "install the package that script/package makes; `keyframed run` needs no service";
        return Finding::without(what, "not installed", remedy);
    }
    Finding::ok(what, found.join(", "))
}

/// Whether a daemon listens where this user's `keyframedctl` looks.
pub fn socket() -> Finding {
    let user = env::var_os("XDG_RUNTIME_DIR").map(|dir| PathBuf::from(dir).join("keyframed"));
    let places: Vec<_> = user.into_iter().chain([PathBuf::from("/run/keyframed")]).collect();
    socket_in(&places)
}

fn socket_in(places: &[PathBuf]) -> Finding {
    let what = "control socket";
    for path in places.iter().map(|place| place.join("control.sock")) {
        match UnixStream::connect(&path) {
            Ok(_) => return Finding::ok(what, path.display().to_string()),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                let remedy = "sudo usermod -aG keyframed $USER, then log in again";
                return Finding::without(what, format!("{}: {error}", path.display()), remedy);
            }
            Err(_) => {}
        }
    }
    let remedy = "start one: keyframed run, systemctl start keyframed or systemctl --user start keyframed";
    Finding::without(what, "no daemon listens", remedy)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::cli::doctor::Verdict;

    #[test]
    fn a_listening_daemon_is_found_and_a_dead_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let places = [dir.path().join("none"), dir.path().to_owned()];
        assert_eq!(socket_in(&places).verdict, Verdict::Without);
        let listener = UnixListener::bind(dir.path().join("control.sock")).unwrap();
        assert_eq!(socket_in(&places).verdict, Verdict::Ok);
        drop(listener);
        assert_eq!(socket_in(&places).verdict, Verdict::Without);
    }
}
