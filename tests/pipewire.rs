//! The PipeWire camera, read by another process as a video call would.

mod common;

use std::{
    fs,
    os::unix::{fs::DirBuilderExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use common::{
    daemon::{Daemon, PATIENCE, cheap, free_udp_port},
    docs,
    look::judge,
};
use image::RgbImage;
use serde_json::Value;

/// Side of the pictures.
const SIDE: u32 = 256;

/// PipeWire and its session manager, with a bus and a runtime folder of their own.
struct Session {
    dir: tempfile::TempDir,
    child: Child,
}

impl Session {
    /// `None`, with a word, where it cannot run.
    #[track_caller]
    fn start() -> Option<Self> {
        for program in ["dbus-run-session", "pipewire", "wireplumber", "pw-dump", "gst-launch-1.0"] {
            if !common::installed(program) {
                eprintln!("skipped: {program} is not installed");
                return None;
            }
        }
        gst::init().unwrap();
        if gst::ElementFactory::find("pipewiresink").is_none() {
            eprintln!("skipped: GStreamer has no pipewiresink (package gstreamer1.0-pipewire)");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        fs::DirBuilder::new().mode(0o700).create(dir.path().join("run")).unwrap();
        let child = Self::spawn(dir.path());
        let session = Self { dir, child };
        session.wait();
        Some(session)
    }

    fn spawn(dir: &Path) -> Child {
        let log = fs::File::options().create(true).append(true).open(dir.join("session.log")).unwrap();
        Command::new("dbus-run-session")
            .args(["--", "sh", "-c", "pipewire & sleep 0.5; exec wireplumber"])
            .env("XDG_RUNTIME_DIR", dir.join("run"))
            .env("HOME", dir)
            .env_remove("G_DEBUG")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .process_group(0)
            .spawn()
            .unwrap()
    }

    /// Until the session manager makes itself known as a client.
    #[track_caller]
    fn wait(&self) {
        let started = Instant::now();
        while !self.dump().iter().any(|object| object.to_string().contains("WirePlumber")) {
            assert!(started.elapsed() < PATIENCE, "no PipeWire: {}", self.log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Ends everything; [`Session::again`] starts it again in the same place.
    fn end(&mut self) {
        // SAFETY: the group is ours: it was made for this child, which has not been waited for.
        unsafe { libc::kill(-(self.child.id() as i32), libc::SIGTERM) };
        let _ = self.child.wait();
    }

    fn again(&mut self) {
        self.child = Self::spawn(self.dir.path());
        self.wait();
    }

    fn runtime(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("session.log")).unwrap_or_default()
    }

    /// A program that talks to this PipeWire.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("XDG_RUNTIME_DIR", self.runtime()).env_remove("G_DEBUG").stdin(Stdio::null());
        command
    }

    /// Everything PipeWire knows.
    fn dump(&self) -> Vec<Value> {
        let output = self.command("pw-dump").stderr(Stdio::null()).output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    /// Properties of the node with this name, once it is there.
    #[track_caller]
    fn node(&self, name: &str) -> Value {
        let started = Instant::now();
        loop {
            let nodes = self.dump().into_iter().filter(|object| object["type"] == "PipeWire:Interface:Node");
            let mut properties = nodes.map(|mut node| node["info"]["props"].take());
            if let Some(properties) = properties.find(|properties| properties["node.name"] == name) {
                return properties;
            }
            assert!(started.elapsed() < PATIENCE, "no node {name}: {}", self.log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Starts to read so many frames of the camera.
    fn watch(&self, camera: &str, frames: u32, name: &str) -> Viewer {
        let path = self.dir.path().join(name);
        let child = self
            .command("gst-launch-1.0")
            .args(["-q", "pipewiresrc", &format!("target-object={camera}"), &format!("num-buffers={frames}")])
            .args([
                "!",
                "videoconvert",
                "!",
                "videoscale",
                "!",
                &format!("video/x-raw,format=RGB,width={SIDE},height={SIDE}"),
            ])
            .args(["!", "filesink", &format!("location={}", path.display())])
            .spawn()
            .unwrap();
        Viewer { child, path }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.end();
    }
}

/// A process that reads the camera.
struct Viewer {
    child: Child,
    path: PathBuf,
}

impl Viewer {
    /// Whether it has all its frames.
    fn is_done(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some_and(|status| {
            assert!(status.success(), "{status}");
            true
        })
    }

    /// The frames it has seen.
    fn frames(&self) -> Vec<RgbImage> {
        let data = fs::read(&self.path).unwrap();
        let frames = data.chunks_exact((SIDE * SIDE * 3) as usize);
        frames.map(|frame| RgbImage::from_raw(SIDE, SIDE, frame.to_vec()).unwrap()).collect()
    }

    #[track_caller]
    fn wait(&mut self) -> Vec<RgbImage> {
        let started = Instant::now();
        while !self.is_done() {
            assert!(started.elapsed() < PATIENCE, "only {} frames", self.frames().len());
            std::thread::sleep(Duration::from_millis(50));
        }
        self.frames()
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A daemon with the camera and, beside it, UDP to nobody.
fn daemon(session: &Session) -> Daemon {
    let config = format!(
        "{}{}\n[outputs.network]\nkind = \"udp\"\naddress = \"127.0.0.1\"\nport = {}\n",
        cheap(),
        docs::toml(&docs::section("virtual-camera.md", "## PipeWire")),
        free_udp_port()
    );
    let daemon = Daemon::start_in(session.dir.path(), &session.runtime(), &config);
    daemon.wait_live();
    daemon
}

/// An output in `status`.
#[track_caller]
fn output<'a>(status: &'a Value, name: &str) -> &'a Value {
    let outputs = status["outputs"].as_array().unwrap();
    outputs.iter().find(|output| output["name"] == name).unwrap()
}

#[test]
fn another_process_sees_the_avatar() {
    let Some(session) = Session::start() else { return };
    let daemon = daemon(&session);
    let properties = session.node("keyframed");
    assert_eq!(properties["media.class"], "Video/Source", "{properties:#}");
    assert_eq!(properties["media.role"], "Camera", "{properties:#}");
    assert_eq!(properties["node.description"], "keyframed", "{properties:#}");
    // What the page says one should see.
    let page = docs::section("virtual-camera.md", "## PipeWire");
    let line = page.lines().find(|line| line.starts_with("    pw-dump")).unwrap();
    let seen = common::succeed(session.command("sh").args(["-c", line]));
    assert!(seen.contains("\"node.name\": \"keyframed\""), "{line}\n{seen}");
    // One that stays, and two that come and go meanwhile.
    let mut shown = vec![daemon.snapshot()];
    let mut long = session.watch("keyframed", 150, "long.rgb");
    let mut frames = Vec::new();
    for name in ["first", "second"] {
        let mut short = session.watch("keyframed", 20, name);
        let started = Instant::now();
        while !short.is_done() {
            assert!(started.elapsed() < PATIENCE, "{name} has {} frames", short.frames().len());
            shown.push(daemon.snapshot());
        }
        frames.extend(short.frames());
    }
    let started = Instant::now();
    while !long.is_done() {
        assert!(started.elapsed() < PATIENCE, "only {} frames", long.frames().len());
        shown.push(daemon.snapshot());
    }
    frames.extend(long.frames());
    assert_eq!(frames.len(), 190);
    judge("PipeWire", &frames, &shown);
}

#[test]
fn nobody_looking_stops_nothing() {
    let Some(session) = Session::start() else { return };
    let daemon = daemon(&session);
    session.node("keyframed");
    let before = daemon.call(&["status"]);
    // Longer than an output may stall before it is started anew.
    std::thread::sleep(Duration::from_secs(8));
    let after = daemon.call(&["status"]);
    for (name, least) in [("camera", 0), ("network", 80)] {
        let (before, after) = (output(&before, name), output(&after, name));
        assert_eq!((&after["state"], &after["restarts"]), (&"running".into(), &0.into()), "{after:#}");
        let frames = after["frames"].as_u64().unwrap() - before["frames"].as_u64().unwrap();
        assert!(frames >= least, "{name} got {frames} frames in 8 s");
    }
    // The first who looks sees what is shown now, not what was shown when nobody looked.
    let mut shown = Vec::new();
    let mut viewer = session.watch("keyframed", 75, "late.rgb");
    let started = Instant::now();
    while !viewer.is_done() {
        assert!(started.elapsed() < PATIENCE, "only {} frames", viewer.frames().len());
        shown.push(daemon.snapshot());
    }
    judge("PipeWire, late", &viewer.frames(), &shown);
}

#[test]
fn the_camera_comes_back_with_pipewire() {
    let Some(mut session) = Session::start() else { return };
    let daemon = daemon(&session);
    session.node("keyframed");
    let state = |name: &str| output(&daemon.call(&["status"]), name)["state"].clone();
    let wait = |wanted: &str, log: &str| {
        let started = Instant::now();
        while state("camera") != wanted {
            assert!(started.elapsed() < PATIENCE, "never {wanted}: {}\n{log}", daemon.call(&["status"]));
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    wait("running", &session.log());
    session.end();
    wait("lost", &session.log());
    assert_eq!(state("network"), "running", "the others do not notice");
    session.again();
    session.node("keyframed");
    wait("running", &session.log());
    assert_eq!(session.watch("keyframed", 20, "again.rgb").wait().len(), 20);
}

#[test]
fn the_example_is_a_camera() {
    let Some(session) = Session::start() else { return };
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/pipelines/pipewire-camera.toml");
    let cheap = "[animation]\nsteps = 1\ncontext_frames = 0\nmax_quality = \"crossfade\"\n";
    let config = fs::read_to_string(path).unwrap().replace("[animation]\n", cheap);
    let models = concat!(env!("CARGO_MANIFEST_DIR"), "/models");
    let _daemon =
        Daemon::start_with(session.dir.path(), &session.runtime(), &config, &[("KEYFRAMED_MODELS", models)]);
    session.node("keyframed");
    assert_eq!(session.watch("keyframed", 20, "example.rgb").wait().len(), 20);
}
