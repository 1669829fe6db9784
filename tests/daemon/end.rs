//! How it ends: soon, in an orderly way, and with whole recordings, whatever it is at.

use std::{
    ffi::OsStr,
    fs,
    process::{Child, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::*;

/// What is promised.
const PROMISED: Duration = Duration::from_secs(2);

/// A daemon that nobody waits for; it ends with this.
pub struct Starting(pub Child);

impl Starting {
    /// Asks it to end, and returns how it did and how long that took.
    pub fn end(&mut self) -> (ExitStatus, Duration) {
        let asked = Instant::now();
        // SAFETY: the process is ours and has not been waited for.
        unsafe { libc::kill(self.0.id() as i32, libc::SIGTERM) };
        (self.0.wait().unwrap(), asked.elapsed())
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a daemon and waits for nothing.
pub fn spawn(bench: &Bench, config: &str, environment: &[(&str, &Path)]) -> Starting {
    fs::write(bench.path("keyframed.toml"), config).unwrap();
    let runtime = bench.path("run");
    let _ = fs::create_dir(&runtime);
    let log = fs::OpenOptions::new().create(true).append(true).open(bench.path("daemon.log")).unwrap();
    let mut command = common::keyframed();
    command.args([OsStr::new("run"), OsStr::new("-c"), bench.path("keyframed.toml").as_os_str()]);
    command.env("XDG_RUNTIME_DIR", &runtime).env("HOME", bench.path(".")).env("OMP_NUM_THREADS", "1");
    command.envs(environment.iter().copied()).env_remove("G_DEBUG");
    Starting(command.stdout(Stdio::null()).stderr(log).spawn().unwrap())
}

/// Waits until the process has said what is to be done at this signal.
pub fn wait_for_handler(process: &Child, signal: i32) {
    let started = Instant::now();
    loop {
        let status = fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap().trim();
        if u64::from_str_radix(caught, 16).unwrap() & (1 << (signal - 1)) != 0 {
            return;
        }
        assert!(started.elapsed() < PATIENCE, "{status}");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn the_first_moments() {
    let (_alone, bench) = (alone(), bench());
    let config = base(&bench, "cpu") + &figure() + &udp("net", free_udp_port(), 500);
    for after_ms in [0, 5, 20, 50, 100, 200, 400, 800] {
        let mut starting = spawn(&bench, &config, &[]);
        wait_for_handler(&starting.0, libc::SIGTERM);
        thread::sleep(Duration::from_millis(after_ms));
        let (status, took) = starting.end();
        let log = fs::read_to_string(bench.path("daemon.log")).unwrap();
        assert!(status.success() && took < PROMISED, "after {after_ms} ms: {status} in {took:?}\n{log}");
        assert!(!bench.path("run/keyframed/control.sock").exists(), "after {after_ms} ms");
    }
}

#[test]
fn while_the_model_loads() {
    let (_alone, bench) = (alone(), bench());
    let config = base(&bench, "cpu").replace(&format!("model = {:?}", bench.model()), "model = \"mini\"");
    let config = config + &figure() + &udp("net", free_udp_port(), 500);
    // It may be quick.
    for _ in 0..5 {
        let mut daemon = start(&bench, &config);
        let loading = daemon.call(&["status"])["loaded"] == false;
        let took = daemon.stop();
        assert!(took < PROMISED, "{took:?}\n{}", daemon.log());
        if loading && daemon.log().contains("the model is still being loaded") {
            return;
        }
    }
    panic!("it was never asked to end while the model was being loaded");
}

/// An output that takes so long for each frame, and in the end writes a file that is worth nothing if it is not whole.
fn slow(name: &str, per_frame: Duration, file: &Path) -> String {
    format!(
        "[outputs.{name}]\nkind = \"fragment\"\nlaunch = \"identity sleep-time={} ! videoconvert ! x264enc \
         tune=zerolatency speed-preset=ultrafast ! h264parse ! mp4mux ! filesink location={}\"\n\n",
        per_frame.as_micros(),
        file.display()
    )
}

#[test]
fn outputs_that_do_not_end_hold_nobody_up() {
    let (_alone, bench) = (alone(), bench());
    fs::create_dir(bench.path("tapes")).unwrap();
    let stuck = Duration::from_secs(30);
    let config = base(&bench, "cpu")
        + &figure()
        + &["a", "b", "c"].map(|name| slow(name, stuck, &bench.path(name))).concat()
        + &format!("[outputs.tape]\nkind = \"recording\"\ndirectory = {:?}\n\n", bench.path("tapes"));
    let mut daemon = start(&bench, &config);
    daemon.wait_live();
    more_frames(&daemon, "tape", 2 * RATE);
    let recorded = frames(&daemon, "tape");
    let took = daemon.stop();
    assert!(took < PROMISED, "{took:?}\n{}", daemon.log());
    let tape = fs::read_dir(bench.path("tapes")).unwrap().next().unwrap().unwrap().path();
    if let Some(measured) = measure(&tape) {
        assert!(measured.frames >= recorded, "{measured:?}, but {recorded} were sent");
    }
}

#[test]
fn what_a_reload_is_closing_is_waited_for() {
    let (_alone, bench) = (alone(), bench());
    let file = bench.path("slow.mp4");
    let without = base(&bench, "cpu") + &figure();
    let mut daemon = start(&bench, &(without.clone() + &slow("slow", Duration::from_millis(100), &file)));
    daemon.wait_live();
    // Its queue is full: ending it takes a while.
    daemon.wait("full queue", |status| output(status, "slow")["dropped"].as_u64() > Some(0));
    daemon.rewrite(&without);
    daemon.call(&["reload"]);
    let took = daemon.stop();
    assert!(took < PROMISED, "{took:?}\n{}", daemon.log());
    if let Some(measured) = measure(&file) {
        assert!(measured.frames > 5, "{measured:?}");
    }
}
