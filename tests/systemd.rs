//! What systemd and its tools say of the units, users and folders.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// Exposure that `systemd-analyze security` may find at most, in tenths.
const MOST_EXPOSED: &str = "30";

fn shipped(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd").join(path)
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Runs a tool. `None`, with a word, where it is not installed.
fn run(command: &mut Command) -> Option<Output> {
    match command.output() {
        Ok(output) => Some(output),
        Err(error) => {
            eprintln!("skipped: {}: {error}", command.get_program().display());
            None
        }
    }
}

/// The unit, with the built program in the place of the installed one.
fn built(dir: &Path, unit: &str) -> PathBuf {
    let text = fs::read_to_string(shipped(unit)).unwrap();
    assert!(text.contains("/usr/bin/keyframed run"), "{unit} does not run the program");
    let copy = dir.join("keyframed.service");
    fs::write(&copy, text.replace("/usr/bin/keyframed", env!("CARGO_BIN_EXE_keyframed"))).unwrap();
    copy
}

#[test]
fn systemd_understands_the_units() {
    let dir = tempfile::tempdir().unwrap();
    for (unit, manager) in [("keyframed.service", "--system"), ("user/keyframed.service", "--user")] {
        let runtime = dir.path().join("runtime");
        fs::create_dir_all(&runtime).unwrap();
        fs::set_permissions(&runtime, fs::Permissions::from_mode(0o700)).unwrap();
        let verify = |file: &Path| {
            let mut command = Command::new("systemd-analyze");
            command.args(["verify", "--man=no", "--recursive-errors=no", manager]).arg(file);
            run(command.env("XDG_RUNTIME_DIR", &runtime))
        };
        let Some(output) = verify(&built(dir.path(), unit)) else { return };
        assert!(output.status.success(), "{unit}: {}", said(&output));
        assert!(!said(&output).contains("keyframed.service:"), "{unit}: {}", said(&output));
        // It can fail.
        let broken = dir.path().join("broken.service");
        let text = fs::read_to_string(built(dir.path(), unit)).unwrap();
        fs::write(&broken, text.replace("WatchdogSec=15", "WatchdogSec=soon")).unwrap();
        let told = said(&verify(&broken).unwrap());
        assert!(told.contains("Failed to parse"), "{unit}: {told}");
    }
}

#[test]
fn the_service_is_confined() {
    let mut command = Command::new("systemd-analyze");
    command
        .args(["security", "--offline=true", "--threshold", MOST_EXPOSED])
        .arg(shipped("keyframed.service"));
    let Some(output) = run(&mut command) else { return };
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("Overall exposure level"), "{}", said(&output));
    let text = fs::read_to_string(shipped("keyframed.service")).unwrap();
    assert!(text.contains("\nMemoryMax=80%\n"), "docs/security.md promises a limit");
}

/// Beside cameras and graphics cards, nothing.
#[test]
fn only_named_devices_are_allowed() {
    let text = fs::read_to_string(shipped("keyframed.service")).unwrap();
    assert!(text.contains("\nDevicePolicy=closed\n"));
    let allowed: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("DeviceAllow=")).collect();
    assert!(allowed.contains(&"char-video4linux rw") && allowed.contains(&"char-drm rw"), "{allowed:?}");
    assert!(allowed.iter().all(|line| line.starts_with("char-")), "{allowed:?}");
}

#[test]
fn the_user_is_made_with_its_groups() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("etc")).unwrap();
    let mut command = Command::new("systemd-sysusers");
    command.arg("--root").arg(root.path()).arg(shipped("sysusers.d/keyframed.conf"));
    let Some(output) = run(&mut command) else { return };
    assert!(output.status.success(), "{}", said(&output));
    let read = |name: &str| fs::read_to_string(root.path().join("etc").join(name)).unwrap();
    let groups = read("group");
    for group in ["video", "render"] {
        let line = groups.lines().find(|line| line.starts_with(&format!("{group}:")));
        assert!(line.is_some_and(|line| line.ends_with(":keyframed")), "{groups}");
    }
    let users = read("passwd");
    assert!(users.starts_with("keyframed:") && users.contains(":/var/lib/keyframed:"), "{users}");
}

#[test]
fn folders_are_made_for_the_user_alone() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("etc")).unwrap();
    // As the running user, who may not be root.
    let names = (whoami("-un"), whoami("-gn"));
    let text = fs::read_to_string(shipped("tmpfiles.d/keyframed.conf")).unwrap();
    let text = text.replace("keyframed keyframed -", &format!("{} {} -", names.0, names.1));
    let file = root.path().join("keyframed.conf");
    fs::write(&file, text).unwrap();
    fs::copy("/etc/passwd", root.path().join("etc/passwd")).unwrap();
    fs::copy("/etc/group", root.path().join("etc/group")).unwrap();
    let mut command = Command::new("systemd-tmpfiles");
    command.arg("--create").arg("--root").arg(root.path()).arg(&file);
    let Some(output) = run(&mut command) else { return };
    assert!(output.status.success(), "{}", said(&output));
    for folder in ["", "recordings", "gallery"] {
        let path = root.path().join("var/lib/keyframed").join(folder);
        let mode =
            fs::metadata(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).permissions().mode();
        assert_eq!(mode & 0o777, 0o750, "{}", path.display());
    }
}

fn whoami(what: &str) -> String {
    String::from_utf8(Command::new("id").arg(what).output().unwrap().stdout).unwrap().trim().to_owned()
}

/// The options are those that v4l2loopback knows, and both files are where the guide says.
#[test]
fn the_guide_and_the_module_options_agree() {
    let options = fs::read_to_string(shipped("examples/modprobe.d/keyframed.conf")).unwrap();
    let line = options.lines().find(|line| line.starts_with("options v4l2loopback ")).unwrap();
    for option in ["video_nr=10", "card_label=\"keyframed\"", "exclusive_caps=1"] {
        assert!(line.contains(option), "{line}");
    }
    let guide =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/virtual-camera.md")).unwrap();
    assert!(guide.contains(line), "docs/virtual-camera.md does not have: {line}");
    let module = fs::read_to_string(shipped("examples/modules-load.d/keyframed.conf")).unwrap();
    assert_eq!(module.lines().rfind(|line| !line.starts_with('#')), Some("v4l2loopback"));
}

#[test]
fn a_start_waits_for_no_device() {
    for unit in ["keyframed.service", "user/keyframed.service"] {
        let text = fs::read_to_string(shipped(unit)).unwrap();
        let checks: Vec<_> = text.lines().filter(|line| line.contains("keyframed config check")).collect();
        assert_eq!(checks.len(), 2, "{unit}: one before a start, one before a reload");
        assert!(checks.iter().all(|line| line.contains("config check --skip-devices")), "{checks:?}");
    }
}

/// Installs, removes and purges a package of the units and the maintainer scripts alone, on a copy-on-write copy of
/// this machine that goes with the process.
const ENABLING: &str = r#"
set -eu
work=$1 root=$1/root package=$1/package
mkdir -p "$work/layer" "$root" "$package/DEBIAN"
mount -t tmpfs tmpfs "$work/layer" && mkdir "$work/layer/upper" "$work/layer/work" &&
  mount -t overlay overlay -o "lowerdir=/,upperdir=$work/layer/upper,workdir=$work/layer/work" "$root" &&
  mount -t proc proc "$root/proc" && mount --rbind /dev "$root/dev" || exit 77
cp packaging/scripts/* "$package/DEBIAN/" && chmod 755 "$package"/DEBIAN/*
printf '%s\n' 'Package: keyframed' 'Version: 9' 'Architecture: all' 'Maintainer: x <x@x.invalid>' 'Description: x' >"$package/DEBIAN/control"
install -D -m 644 systemd/keyframed.service "$package/usr/lib/systemd/system/keyframed.service"
install -D -m 644 systemd/user/keyframed.service "$package/usr/lib/systemd/user/keyframed.service"
install -D -m 644 systemd/sysusers.d/keyframed.conf "$package/usr/lib/sysusers.d/keyframed.conf"
install -D -m 644 systemd/tmpfiles.d/keyframed.conf "$package/usr/lib/tmpfiles.d/keyframed.conf"
dpkg-deb --root-owner-group --build "$package" "$root/k.deb" >&2
inside() { chroot "$root" env PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@" >&2; }
inside dpkg --purge --force-all keyframed 2>/dev/null || true
link=$root/etc/systemd/system/multi-user.target.wants/keyframed.service
mask=$root/etc/systemd/system/keyframed.service
state() { echo "$1: link $([ -L "$link" ] && echo yes || echo no), mask $([ -L "$mask" ] && echo yes || echo no)"; }
inside dpkg -i /k.deb && state installed
inside dpkg -r keyframed && inside dpkg -i /k.deb && state "installed again"
inside systemctl enable keyframed && state enabled
inside dpkg -i /k.deb && state upgraded
inside dpkg -r keyframed && state removed
inside dpkg -i /k.deb && state "installed again"
inside systemctl disable keyframed && inside dpkg -i /k.deb && state disabled
inside systemctl enable keyframed && inside dpkg --purge keyframed && state purged
inside dpkg -i /k.deb && state "installed anew"
"#;

#[test]
fn what_was_enabled_is_so_after_a_removal_and_not_after_a_purge() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "bash", "-c", ENABLING, "bash"]).arg(dir.path());
    let Some(output) = run(command.current_dir(env!("CARGO_MANIFEST_DIR"))) else { return };
    let told = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() && told.is_empty() && whoami("-u") != "0" || output.status.code() == Some(77)
    {
        return eprintln!("skipped: no overlay of this machine's files can be mounted (root is needed)");
    }
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(
        told,
        "installed: link no, mask no\n\
         installed again: link no, mask no\n\
         enabled: link yes, mask no\n\
         upgraded: link yes, mask no\n\
         removed: link yes, mask yes\n\
         installed again: link yes, mask no\n\
         disabled: link no, mask no\n\
         purged: link no, mask no\n\
         installed anew: link no, mask no\n",
        "{}",
        said(&output)
    );
}

#[test]
fn the_page_on_running_says_what_the_units_do() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md")).unwrap();
    let words = page.split_whitespace().collect::<Vec<_>>().join(" ");
    for unit in ["keyframed.service", "user/keyframed.service"] {
        let unit = fs::read_to_string(shipped(unit)).unwrap();
        for (setting, told) in [
            ("Restart=on-failure", "A daemon that fails is started again"),
            ("RestartSec=500ms\n", "started again after half a second"),
            ("StartLimitBurst=5\n", "after five starts"),
            ("StartLimitIntervalSec=2min", "within two minutes"),
            ("WatchdogSec=15\n", "if none does for 15 s"),
            ("TimeoutStopSec=10\n", "systemd waits 10 s at most"),
        ] {
            assert!(unit.contains(setting) && words.contains(told), "{setting}: {told}");
        }
    }
    // The user's configuration is made as it says.
    let home = tempfile::tempdir().unwrap();
    let line = |start: &str| {
        let mut lines = page.lines().filter_map(|line| line.strip_prefix("    "));
        lines.find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("no {start}")).to_owned()
    };
    let script =
        [line("mkdir "), line("keyframed config init "), "keyframed config check --skip-devices".into()];
    let programs = Path::new(env!("CARGO_BIN_EXE_keyframed")).parent().unwrap().display().to_string();
    let output = Command::new("bash")
        .args(["-e", "-c", &script.join("\n")])
        .env("HOME", home.path())
        .env_remove("XDG_CONFIG_HOME")
        .env("PATH", format!("{programs}:{}", env::var("PATH").unwrap()))
        .output()
        .unwrap();
    assert!(
        output.status.success() && said(&output).contains(".config/keyframed/keyframed.toml"),
        "{}",
        said(&output)
    );
}
