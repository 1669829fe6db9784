//! `keyframed config`: what it writes holds, what is wrong is told, and the examples in `pipelines/` are sound.

mod common;

use std::{
    fs,
    net::{TcpListener, UdpSocket},
    os::unix::{fs::PermissionsExt as _, net::UnixListener},
    path::{Path, PathBuf},
    process::Command,
};

use common::{Bench, keyframed, succeed};

/// A folder with a configuration in it, and the program that looks for nothing outside.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn config(&self) -> Command {
        let mut command = keyframed();
        command.arg("config").current_dir(self.dir.path());
        for (name, dir) in [("HOME", "home"), ("XDG_CONFIG_HOME", "config"), ("XDG_RUNTIME_DIR", "run")] {
            fs::create_dir_all(self.path(dir)).unwrap();
            command.env(name, self.path(dir));
        }
        for name in
            ["RUNTIME_DIRECTORY", "DISPLAY", "WAYLAND_DISPLAY", "PIPEWIRE_RUNTIME_DIR", "PIPEWIRE_REMOTE"]
        {
            command.env_remove(name);
        }
        command
    }

    /// `config check` of this text.
    fn check(&self, text: &str) -> Command {
        fs::write(self.path("k.toml"), text).unwrap();
        let mut command = self.config();
        command.args(["check", "-c", "k.toml"]);
        command
    }

    /// Wants a run to be possible, and all of `parts` to be said about it.
    #[track_caller]
    fn warns(&self, text: &str, parts: &[&str]) {
        let told = succeed(&mut self.check(text));
        assert!(parts.iter().all(|part| told.contains(part)), "{parts:?} in\n{told}");
        assert!(told.ends_with("this can run here\n"), "{told}");
    }

    /// Wants the text to be refused, and all of `parts` to be said about it.
    #[track_caller]
    fn refuses(&self, text: &str, parts: &[&str]) {
        let said = refused(&mut self.check(text));
        assert!(parts.iter().all(|part| said.contains(part)), "{parts:?} in\n{said}");
    }
}

/// Wants an orderly failure; returns what was said.
#[track_caller]
fn refused(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{command:?}\n{said}");
    assert!(!said.contains("panicked") && said.len() < 4000, "{said}");
    said
}

/// `upgrade/first.toml` is what `config init` wrote when there first was one.
#[test]
fn the_first_configuration_still_holds() {
    let text =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/upgrade/first.toml")).unwrap();
    let told = succeed(&mut Place::new().check(&text));
    assert!(told.contains("figure by mini") && told.ends_with("this can run here\n"), "{told}");
}

#[test]
fn the_commented_defaults_are_written_and_hold() {
    let place = Place::new();
    let printed = succeed(place.config().arg("init"));
    succeed(place.config().args(["init", "--output", "new.toml"]));
    assert_eq!(fs::read_to_string(place.path("new.toml")).unwrap(), printed);
    let told = succeed(place.config().args(["check", "-c", "new.toml"]));
    assert!(told.contains("source figure") && told.ends_with("this can run here\n"), "{told}");
    // A second time it is not overwritten, unless that is wanted.
    fs::write(place.path("new.toml"), "mine").unwrap();
    let said = refused(place.config().args(["init", "--output", "new.toml"]));
    assert!(said.contains("new.toml is there already (--force overwrites it)"), "{said}");
    assert_eq!(fs::read_to_string(place.path("new.toml")).unwrap(), "mine");
    succeed(place.config().args(["init", "--output", "new.toml", "--force"]));
    assert_eq!(fs::read_to_string(place.path("new.toml")).unwrap(), printed);
    assert!(refused(place.config().args(["init", "--output", "none/new.toml"])).contains("none/new.toml"));
    assert!(
        refused(place.config().args(["init", "--output", ".", "--force"])).contains(". cannot be written")
    );
}

#[test]
fn the_users_file_is_found_and_a_broken_one_is_not_passed_over() {
    let place = Place::new();
    if !Path::new("/etc/keyframed/keyframed.toml").exists() {
        assert!(succeed(place.config().arg("check")).contains("built-in defaults"));
    }
    let own = place.path("config/keyframed/keyframed.toml");
    fs::create_dir_all(own.parent().unwrap()).unwrap();
    fs::write(&own, "[animation]\nreference = 'ben'").unwrap();
    let told = succeed(place.config().arg("check"));
    assert!(told.contains(own.to_str().unwrap()) && told.contains("avatars/ben.png"), "{told}");
    fs::write(&own, "reference = 'ben'").unwrap();
    let said = refused(place.config().arg("check"));
    assert!(
        said.contains("keyframed.toml: line 1: unknown key `reference` at the top of the file"),
        "{said}"
    );
}

#[test]
fn files_that_are_no_configuration_are_named() {
    let place = Place::new();
    let said = |name: &str| refused(place.config().args(["check", "-c", name]));
    assert!(said("none.toml").contains("none.toml cannot be read: No such file"));
    assert!(said(".").contains("it is a folder"));
    assert!(said("/dev/zero").contains("it is not a regular file"));
    let huge = fs::File::create(place.path("huge.toml")).unwrap();
    huge.set_len(100 << 20).unwrap();
    assert!(said("huge.toml").contains("it is longer than 1024 KiB"));
    fs::write(place.path("latin.toml"), b"# fine\npipeline = 'caf\xe9'").unwrap();
    assert!(said("latin.toml").contains("line 2 is not UTF-8 text"));
    let program = fs::read(env!("CARGO_BIN_EXE_keyframed")).unwrap();
    fs::write(place.path("binary.toml"), &program[..100_000]).unwrap();
    assert!(said("binary.toml").contains("is not UTF-8 text"));
    fs::write(place.path("nul.toml"), [0u8; 1000]).unwrap();
    assert!(said("nul.toml").contains("line 1: this is not TOML"));
    fs::write(place.path("empty.toml"), "").unwrap();
    succeed(place.config().args(["check", "-c", "empty.toml"]));
    succeed(&mut place.check("\u{feff}[video]\r\nwidth = 640\r\nheight = 360\r\n"));
}

#[test]
fn everything_wrong_is_told_at_once() {
    let place = Place::new();
    let text = "[animation]\nlatency = 500\n[sources.a]\nkind = 'file'\n[pipelines.p]\nsource = 'b'\n[video]\nwidth = 'wide'";
    place.refuses(
        text,
        &[
            "keyframed: ",
            "k.toml: 4 errors",
            "line 2: unknown key `latency` in [animation]: did you mean `latency_ms`?",
            "line 3: [sources.a] of kind `file` needs `path`",
            "line 6: [pipelines.p] source: there is no source \"b\"",
            "line 8: [video] width: expected a whole number of pixels from 16 to 8192, not the text \"wide\"",
        ],
    );
}

#[test]
fn what_was_found_can_be_read_by_programs() {
    let place = Place::new();
    let json = |command: &mut Command, good: bool| -> serde_json::Value {
        let output = command.arg("--json").output().unwrap();
        assert_eq!(output.status.success(), good, "{output:?}");
        let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(told["ok"], good);
        told
    };
    let good = json(&mut place.check("[outputs.a]\nkind = 'udp'\nport = 5600"), true);
    assert_eq!(good["would_run"]["outputs"]["a"]["to"], "127.0.0.1:5600");
    assert_eq!(good["would_run"]["pipelines"]["figure"]["starts"], true);
    let wrong = json(&mut place.check("\n[video]\nwidth = 1"), false);
    assert_eq!(wrong["errors"][0]["line"], 3);
    let lacking = json(&mut place.check("[outputs.a]\nkind = 'fragment'\nlaunch = 'nosuchelement'"), false);
    assert_eq!(lacking["errors"][0]["part"], "[outputs.a] launch");
    let none = json(place.config().args(["check", "-c", "none"]), false);
    assert!(none["errors"][0]["message"].as_str().unwrap().contains("No such file"));
}

#[test]
fn secrets_are_read_from_private_files_and_never_shown() {
    let place = Place::new();
    let secret = |mode| {
        fs::write(place.path("secret"), "correct horse battery\n").unwrap();
        fs::set_permissions(place.path("secret"), fs::Permissions::from_mode(mode)).unwrap();
    };
    let text =
        "[control]\ntcp = '127.0.0.1:0'\ntoken_file = 'secret'".replace(":0", &format!(":{}", free_port()));
    secret(0o644);
    place
        .refuses(&text, &["line 3: [control] token_file: ", "is open to every user (mode 0644)", "chmod o="]);
    secret(0o600);
    let srt = "[outputs.a]\nkind = 'srt-caller'\npeer = 'h:1'\npassphrase_file = 'secret'";
    let rtmp = "[outputs.b]\nkind = 'rtmp'\nurl = 'rtmp://u:pass@h/app/streamkey'";
    let told = succeed(&mut place.check(&format!("{text}\n{srt}\n{rtmp}")));
    assert!(told.contains("encrypted") && told.contains("rtmp://h/…"), "{told}");
    let json = succeed(place.config().args(["check", "--json", "-c", "k.toml"]));
    for secret in ["correct horse", "streamkey", "u:pass"] {
        assert!(!told.contains(secret) && !json.contains(secret), "{told}{json}");
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn ports_and_sockets_that_are_taken_are_named() {
    let place = Place::new();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = udp.local_addr().unwrap().port();
    let text = format!("[outputs.obs]\nkind = 'srt-listener'\nport = {port}");
    place.warns(&text, &[&format!("warning: [outputs.obs] port: UDP port 127.0.0.1:{port} is in use")]);
    // While the daemon runs it has them itself.
    succeed(place.check(&text).arg("--skip-devices"));
    let reader = UnixListener::bind(place.path("run/shm")).unwrap();
    let shm = "[outputs.shm]\nkind = 'shm'\nsocket_path = 'run/shm'";
    place.warns(shm, &["[outputs.shm] socket_path: somebody answers at"]);
    succeed(place.check(shm).arg("--skip-devices"));
    drop(reader);
    drop(udp);
    succeed(&mut place.check(&text));

    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = tcp.local_addr().unwrap();
    place.refuses(&format!("[metrics]\nlisten = '{address}'"), &["[metrics] listen: TCP port", "is in use"]);
    place.refuses(&format!("[control]\ntcp = '{address}'"), &["[control] tcp: TCP port", "is in use"]);
    place.refuses(
        "[metrics]\nlisten = '203.0.113.9:9464'\nallow_remote = true",
        &["is no address of this machine"],
    );

    let socket = place.path("run/control.sock");
    let text = "[control]\nendpoint = 'ipc://run/control.sock'";
    let listener = UnixListener::bind(&socket).unwrap();
    place.refuses(text, &["[control] endpoint: somebody answers at", "is a daemon running?"]);
    drop(listener);
    // What a dead daemon left behind is no hindrance.
    assert!(socket.exists());
    succeed(&mut place.check(text));
    fs::remove_file(&socket).unwrap();
    fs::write(&socket, "").unwrap();
    place.refuses(text, &["is there and is no socket"]);
}

/// Devices, folders and desktops come and go; the daemon asks for them until they are there.
#[test]
fn what_a_run_waits_for_is_told_and_keeps_nothing_from_starting() {
    let place = Place::new();
    fs::write(place.path("text.png"), "no folder").unwrap();
    fs::write(place.path("empty.mp4"), "").unwrap();
    fs::create_dir(place.path("bare")).unwrap();
    let text = r#"
        pipeline = "clip"
        [sources.clip]
        kind = "file"
        path = "none.mp4"
        [sources.empty]
        kind = "file"
        path = "empty.mp4"
        [sources.camera]
        kind = "v4l2"
        device = "/dev/video97"
        [sources.zero]
        kind = "v4l2"
        device = "/dev/zero"
        [gallery]
        directories = ["bare", "unplugged"]
        [outputs.camera]
        kind = "v4l2"
        device = "/dev/video98"
        [outputs.null]
        kind = "v4l2"
        device = "/dev/null"
        [outputs.window]
        kind = "window"
        [outputs.pw]
        kind = "pipewire"
        [outputs.recording]
        kind = "recording"
        directory = "text.png/recordings"
    "#;
    place.warns(
        text,
        &[
            "warning: [sources.clip] path: ",
            "none.mp4 cannot be read: No such file or directory (os error 2); it is waited for",
            "empty.mp4 is empty (0 bytes)",
            "warning: [sources.camera] device: there is no /dev/video97; it is waited for",
            "warning: [sources.zero] device: /dev/zero is no video device",
            "/bare holds no PNG",
            "/unplugged now; a reload looks again",
            "warning: [outputs.camera] device: there is no /dev/video98: load v4l2loopback",
            "warning: [outputs.null] device: /dev/null is no video device",
            "warning: [outputs.window] kind: a window needs a desktop",
            "warning: [outputs.pw] kind: PipeWire is not running for this user",
            "warning: [outputs.recording] directory: ",
            "text.png is not a folder; it is waited for",
        ],
    );
    assert!(!place.path("text.png/recordings").exists());
    // Before a start and before a reload it is asked less, and never to more effect.
    let told = succeed(place.check(text).arg("--skip-devices"));
    assert!(!told.contains("error: ") && !told.contains("/dev/video97; it is waited for"), "{told}");
}

#[test]
fn what_no_run_could_do_is_told() {
    let place = Place::new();
    fs::write(place.path("text.png"), "no picture").unwrap();
    let text = r#"
        [slate]
        picture = "text.png"
        [sources.typo]
        kind = "fragment"
        launch = "videotestsrc ! ! identity"
        [outputs.unknown]
        kind = "fragment"
        launch = "videoconvert ! nosuchelement"
        [outputs.source]
        kind = "fragment"
        launch = "videotestsrc ! fakesink"
    "#;
    place.refuses(
        text,
        &[
            "error: [slate] picture: ",
            "text.png is no picture",
            "error: [sources.typo] launch: ",
            "error: [outputs.unknown] launch: ",
            "nosuchelement",
            "error: [outputs.source] launch: ",
            "takes no video",
            "4 errors",
        ],
    );
    place.refuses("[animation]\ndevice = 'cuda:77'", &["device: device cuda:77 does not exist"]);
}

#[test]
fn secrets_in_urls_and_launch_lines_are_never_shown() {
    let place = Place::new();
    let text = r#"
        pipeline = "camera"
        [sources.camera]
        kind = "fragment"
        launch = "rtspsrc location=rtsp://user:swordfish@cam/live?key=swordfish user-pw=swordfish ! decodebin"
        [sources.broken]
        kind = "fragment"
        launch = "nosuchelement location=rtsp://user:swordfish@cam/live"
        [sources.value]
        kind = "fragment"
        launch = "srtsrc passphrase=swordfish ! decodebin"
        [outputs.live]
        kind = "fragment"
        launch = "x264enc ! flvmux ! rtmp2sink location=rtmp://h/app/swordfish"
        [outputs.srt]
        kind = "fragment"
        launch = "x264enc ! mpegtsmux ! srtsink pbkeylen=swordfish uri=srt://h:1?passphrase=swordfish"
    "#;
    for command in [&mut place.check(text), place.check(text).arg("--json")] {
        let told = refused(command);
        assert!(told.contains("nosuchelement") && !told.contains("swordfish"), "{told}");
        assert!(told.contains("rtsp://cam/live?… user-pw=***"), "{told}");
    }
    let misplaced = "[outputs.a]\nkind = 'srt-caller'\npeer = 'srt://user:swordfish@cam'\n[sources.a]\nkind = 'udp'\nport = 'rtmp://h/app/swordfish'";
    let told = refused(&mut place.check(misplaced));
    assert!(told.contains("srt://cam") && !told.contains("swordfish"), "{told}");
    let twice = ["a", "b"].map(|name| {
        format!("[outputs.{name}]\nkind = 'srt-caller'\npeer = 'h:1'\nstream_id = 'swordfish'\n")
    });
    let told = refused(&mut place.check(&twice.concat()));
    assert!(told.contains("destination srt h:1 is taken by") && !told.contains("swordfish"), "{told}");
}

#[test]
fn a_model_that_is_not_whole_is_refused() {
    let bench = Bench::new();
    let place = Place::new();
    let text = format!("[animation]\nmodel = '{}'", bench.model().display());
    // It has no pictures of its own.
    place.refuses(&text, &["reference: not set, and the model has no pictures of its own"]);
    bench.picture("me.png", 64, 64);
    let with = format!("{text}\nreference = '{}'", bench.path("me.png").display());
    succeed(&mut place.check(&with));
    fs::write(bench.path("me.png"), "no picture").unwrap();
    place.refuses(&with, &["me.png is no picture"]);
    fs::remove_file(bench.model().join("unet.safetensors")).unwrap();
    place.refuses(&text, &["line 2: [animation] model: ", "unet.safetensors"]);
}

/// Those who copy an example get one that holds, whatever devices this machine has.
#[test]
fn the_examples_hold() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines");
    let mut names: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.retain(|name| Path::new(name).extension().is_some_and(|e| e == "toml"));
    names.sort();
    assert_eq!(
        names,
        [
            "file-to-file.toml",
            "gst-launch.toml",
            "obs-srt.toml",
            "obs-udp.toml",
            "obs-virtual-camera.toml",
            "pipewire-camera.toml",
            "rtsp-in-out.toml",
            "stream.toml",
        ]
    );
    let bench = Bench::new();
    let place = Place::new();
    fs::copy(bench.clip("clip.mp4", "walk", 5), place.path("clip.mp4")).unwrap();
    for name in names {
        let text = fs::read_to_string(folder.join(&name)).unwrap();
        assert!(text.starts_with("# "), "{name:?} does not say what it is for");
        let told = succeed(place.check(&text).arg("--skip-devices"));
        assert!(!told.contains("warning: ") && told.contains("output "), "{name:?}\n{told}");
    }
}
