//! v4l2loopback: is it installed, loaded as a camera, and may this user write to it?

use std::{
    fs::{self, OpenOptions},
    io::ErrorKind,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::Finding;

const WHAT: &str = "virtual camera (v4l2loopback)";
const OPTIONS: &str = "video_nr=10 card_label=keyframed exclusive_caps=1";

/// What there is of it on this machine.
pub fn check() -> Finding {
    check_in(Path::new("/"), &installed)
}

/// With the kernel's files below `root`.
fn check_in(root: &Path, installed: &dyn Fn() -> bool) -> Finding {
    let module = root.join("sys/module/v4l2loopback");
    if !module.exists() {
        return if installed() {
            Finding::without(WHAT, "installed, not loaded", format!("sudo modprobe v4l2loopback {OPTIONS}"))
        } else {
            let remedy = "sudo apt-get install v4l2loopback-dkms, then see docs/virtual-camera.md; PipeWire and \
                          OBS's media source need no module";
            Finding::without(WHAT, "not installed for this kernel", remedy)
        };
    }
    let devices = devices(root);
    if devices.is_empty() {
        let remedy = format!("sudo modprobe -r v4l2loopback && sudo modprobe v4l2loopback {OPTIONS}");
        return Finding::without(WHAT, "loaded, without a device", remedy);
    }
    let capabilities = fs::read_to_string(module.join("parameters/exclusive_caps")).unwrap_or_default();
    let shown: Vec<_> = devices.iter().map(|(path, card)| format!("{} \"{card}\"", path.display())).collect();
    let shown = shown.join(", ");
    if !capabilities.trim().starts_with(['Y', '1']) {
        let remedy = format!(
            "browsers list it only with exclusive_caps=1: sudo modprobe -r v4l2loopback && sudo modprobe \
             v4l2loopback {OPTIONS}"
        );
        return Finding::without(WHAT, format!("{shown}, exclusive_caps off"), remedy);
    }
    for (path, _) in &devices {
        let file = root.join(path.strip_prefix("/").unwrap_or(path));
        if let Err(error) = OpenOptions::new().read(true).write(true).open(&file) {
            let remedy = match error.kind() {
                ErrorKind::PermissionDenied => "sudo usermod -aG video $USER, then log in again".to_owned(),
                _ => format!("see who uses it: sudo fuser -v {}", path.display()),
            };
            return Finding::without(WHAT, format!("{} cannot be opened: {error}", path.display()), remedy);
        }
    }
    Finding::ok(WHAT, shown)
}

/// Virtual video devices with the labels that programs show.
fn devices(root: &Path) -> Vec<(PathBuf, String)> {
    let entries = fs::read_dir(root.join("sys/devices/virtual/video4linux")).into_iter().flatten().flatten();
    let mut found: Vec<_> = entries
        .map(|entry| {
            let card = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
            (Path::new("/dev").join(entry.file_name()), card.trim().to_owned())
        })
        .collect();
    found.sort();
    found
}

/// Whether the module is there for the running kernel.
fn installed() -> bool {
    let mut modinfo = Command::new("/sbin/modinfo");
    modinfo.arg("v4l2loopback").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    modinfo.status().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::Verdict;

    fn write(root: &Path, file: &str, text: &str) {
        let path = root.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// The kernel here has no such module; its files are those that v4l2loopback 0.12 makes.
    #[test]
    fn each_state_of_the_module_has_its_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let look = |installed: bool| check_in(root, &move || installed);
        let remedy = |finding: &Finding| finding.remedy.clone().unwrap_or_default();
        assert!(remedy(&look(false)).contains("apt-get install v4l2loopback-dkms"));
        assert!(remedy(&look(true)).starts_with("sudo modprobe v4l2loopback "));
        write(root, "sys/module/v4l2loopback/parameters/exclusive_caps", "N,N,N\n");
        assert_eq!(look(true).found, "loaded, without a device");
        write(root, "sys/devices/virtual/video4linux/video10/name", "keyframed\n");
        assert!(look(true).found.ends_with("exclusive_caps off"));
        write(root, "sys/module/v4l2loopback/parameters/exclusive_caps", "Y,N,N\n");
        assert!(look(true).found.starts_with("/dev/video10 cannot be opened"));
        write(root, "dev/video10", "");
        let sound = look(true);
        assert_eq!((sound.verdict, sound.found.as_str()), (Verdict::Ok, "/dev/video10 \"keyframed\""));
    }
}
