//! `keyframed run` as a process of its own, steered by `keyframedctl`.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener, UdpSocket},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use image::RgbImage;
use serde_json::Value;

/// Longest wait for something that should happen at once on an idle machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A running daemon; it ends with this.
pub struct Daemon {
    child: Child,
    dir: PathBuf,
    runtime: PathBuf,
}

impl Daemon {
    /// Starts it in a folder of its own with this configuration, and waits until it answers.
    #[track_caller]
    pub fn start(dir: &Path, config: &str) -> Self {
        let runtime = dir.join("run");
        if !runtime.exists() {
            fs::DirBuilder::new().mode(0o700).create(&runtime).unwrap();
        }
        Self::start_in(dir, &runtime, config)
    }

    /// As `start`, with an `XDG_RUNTIME_DIR` that others use, too.
    #[track_caller]
    pub fn start_in(dir: &Path, runtime: &Path, config: &str) -> Self {
        Self::start_with(dir, runtime, config, &[])
    }

    /// As `start_in`, with more in its environment.
    #[track_caller]
    pub fn start_with(dir: &Path, runtime: &Path, config: &str, environment: &[(&str, &str)]) -> Self {
        let file = dir.join("keyframed.toml");
        fs::write(&file, config).unwrap();
        let log = fs::OpenOptions::new().create(true).append(true).open(dir.join("daemon.log")).unwrap();
        let child = super::keyframed()
            .args(["run", "-c"])
            .arg(&file)
            .env("XDG_RUNTIME_DIR", runtime)
            .env("HOME", dir)
            // On a busy machine libtorch's threads wait for each other twenty times longer than they compute.
            .env("OMP_NUM_THREADS", "1")
            .envs(environment.iter().copied())
            // GStreamer's own sinks warn; that is no reason to end.
            .env_remove("G_DEBUG")
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut daemon = Self { child, dir: dir.to_owned(), runtime: runtime.to_owned() };
        let started = Instant::now();
        loop {
            let answer = daemon.ctl(&["status"]).output().unwrap();
            if answer.status.success() {
                break;
            }
            let ended = daemon.child.try_wait().unwrap();
            let said = String::from_utf8_lossy(&answer.stderr);
            assert!(ended.is_none() && started.elapsed() < PATIENCE, "{ended:?}\n{said}\n{}", daemon.log());
            std::thread::sleep(Duration::from_millis(100));
        }
        daemon
    }

    /// `keyframedctl` for this daemon.
    pub fn ctl(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_keyframedctl"));
        command.args(arguments).env("XDG_RUNTIME_DIR", &self.runtime).stdin(Stdio::null());
        command
    }

    /// Calls a method and returns its result.
    #[track_caller]
    pub fn call(&self, arguments: &[&str]) -> Value {
        let output = self.ctl(arguments).arg("--json").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}\n{}", self.log());
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Calls a method that must be refused, and returns why.
    #[track_caller]
    pub fn refused(&self, arguments: &[&str]) -> String {
        let output = self.ctl(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}\n{}", self.log());
        said
    }

    /// Writes another configuration; it is not read before a reload.
    #[track_caller]
    pub fn rewrite(&self, config: &str) {
        fs::write(self.dir.join("keyframed.toml"), config).unwrap();
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: i32) {
        // SAFETY: the process is ours and has not been waited for.
        unsafe { libc::kill(self.child.id() as i32, signal) };
    }

    /// What the outputs carry now.
    #[track_caller]
    pub fn snapshot(&self) -> RgbImage {
        let path = self.dir.join("snapshot.png");
        super::succeed(self.ctl(&["snapshot", "-o"]).arg(&path));
        image::open(&path).unwrap().to_rgb8()
    }

    /// Waits until `status` is as wanted, and returns it.
    #[track_caller]
    pub fn wait(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let started = Instant::now();
        loop {
            let status = self.call(&["status"]);
            if wanted(&status) {
                return status;
            }
            assert!(started.elapsed() < PATIENCE, "no {what}: {status:#}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits for animated pictures.
    #[track_caller]
    pub fn wait_live(&self) -> Value {
        self.wait("live picture", |status| status["showing"] == "live" && status["stats"]["key_frames"] != 0)
    }

    /// What it has said so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("daemon.log")).unwrap_or_default()
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to end and waits until it has; returns how long that took.
    #[track_caller]
    pub fn stop(&mut self) -> Duration {
        self.signal(libc::SIGTERM);
        self.wait_end()
    }

    /// Waits until it is gone, however it went.
    pub fn wait_killed(&mut self) -> std::process::ExitStatus {
        self.child.wait().unwrap()
    }

    /// Waits until it has ended in an orderly way; returns how long that took.
    #[track_caller]
    pub fn wait_end(&mut self) -> Duration {
        let started = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(started.elapsed() < PATIENCE, "it does not end\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        };
        assert!(status.success(), "{status}\n{}", self.log());
        started.elapsed()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The model that comes with keyframed, and cheap settings for two cores: 15 frames a second.
pub fn cheap() -> String {
    format!(
        "[video]\nwidth = 256\nheight = 256\nframe_rate_hz = 15\n\n\
         [sources.figure]\nkind = \"test-figure\"\npattern = \"dance\"\nwidth = 256\nheight = 256\n\
         frame_rate_hz = 15\n\n\
         [animation]\nmodel = \"{}/models/mini\"\ndevice = \"cpu\"\nsteps = 1\ncontext_frames = 0\n\
         target_key_rate_hz = 2\nmax_quality = \"crossfade\"\n\n[log]\ntarget = \"stderr\"\n\n",
        env!("CARGO_MANIFEST_DIR")
    )
}

/// A port that nobody uses now.
pub fn free_tcp_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// A port that nobody uses now.
pub fn free_udp_port() -> u16 {
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}
