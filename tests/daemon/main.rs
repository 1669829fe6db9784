//! The daemon as a whole: the output never stops, whatever happens around it, and it ends as it was asked to.

#[path = "../common/mod.rs"]
mod common;
mod end;
mod faults;
mod reload;

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use common::{
    Bench,
    daemon::{Daemon, PATIENCE, free_tcp_port, free_udp_port},
    installed, measure,
};
use gst::prelude::*;
use serde_json::Value;

/// Frames a second of the outputs.
const RATE: u64 = 15;

/// One daemon at a time: two on a small machine take each other's time.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Everything but sources and outputs, on a small random model.
fn base(bench: &Bench, device: &str) -> String {
    format!(
        "[video]\nwidth = 64\nheight = 64\nframe_rate_hz = {RATE}\n\n\
         [animation]\nmodel = {:?}\ndevice = \"{device}\"\nreference = \"one\"\nsteps = 1\nmax_quality = \"crossfade\"\nlatency_ms = 300\n\n\
         [gallery]\ndirectories = [{:?}]\n\n\
         [slate]\nafter_ms = 1000\n\n[log]\nlevel = \"info\"\ntarget = \"stderr\"\n\n",
        bench.model(),
        bench.path("gallery")
    )
}

fn figure() -> String {
    format!(
        "[sources.figure]\nkind = \"test-figure\"\nwidth = 64\nheight = 64\nframe_rate_hz = {RATE}\n\n\
         [pipelines.figure]\nsource = \"figure\"\n\n"
    )
}

/// An output that writes H.264 in MPEG-TS to a file: its timestamps are exact at this rate.
fn to_file(name: &str, path: &Path) -> String {
    format!(
        "[outputs.{name}]\nkind = \"fragment\"\nlaunch = \"videoconvert ! x264enc tune=zerolatency \
         speed-preset=ultrafast key-int-max={RATE} ! h264parse ! mpegtsmux ! filesink location={}\"\n\n",
        path.display()
    )
}

fn udp(name: &str, port: u16, bitrate: u32) -> String {
    format!(
        "[outputs.{name}]\nkind = \"udp\"\naddress = \"127.0.0.1\"\nport = {port}\nbitrate_kbps = {bitrate}\n\n"
    )
}

fn bench() -> Bench {
    let bench = Bench::new();
    fs::create_dir(bench.path("gallery")).unwrap();
    bench.picture("gallery/one.png", 64, 64);
    bench.picture("gallery/two.png", 48, 64);
    bench
}

fn start(bench: &Bench, config: &str) -> Daemon {
    Daemon::start(&bench.path("."), config)
}

/// A live source of poses in this process, which can be lost.
struct Camera(gst::Element);

impl Camera {
    fn start(socket: &Path) -> Self {
        let line = format!(
            "denseposetestsrc is-live=true ! video/x-raw,format=RGB,width=64,height=64,framerate={RATE}/1 \
             ! shmsink socket-path={} wait-for-connection=false sync=false shm-size=1000000",
            socket.display()
        );
        let pipeline = gst::parse::launch(&line).unwrap();
        pipeline.set_state(gst::State::Playing).unwrap();
        Self(pipeline)
    }
}

impl Drop for Camera {
    fn drop(&mut self) {
        let _ = self.0.set_state(gst::State::Null);
    }
}

fn output<'a>(status: &'a Value, name: &str) -> &'a Value {
    let all = status["outputs"].as_array().unwrap();
    all.iter().find(|output| output["name"] == name).unwrap_or_else(|| panic!("no output {name}: {status:#}"))
}

fn frames(daemon: &Daemon, name: &str) -> u64 {
    output(&daemon.call(&["status"]), name)["frames"].as_u64().unwrap()
}

/// Waits until so many more frames have gone to the output.
fn more_frames(daemon: &Daemon, name: &str, count: u64) {
    let until = frames(daemon, name) + count;
    daemon.wait("frames", |status| output(status, name)["frames"].as_u64().unwrap() >= until);
}

fn showing(daemon: &Daemon, wanted: &str) {
    daemon.wait(wanted, |status| status["showing"] == wanted);
}

/// Timestamps of all pictures in a file, in order, in units of its time base, and ticks a second of that.
fn timestamps(video: &Path) -> Option<(Vec<i64>, f64)> {
    if !installed("ffprobe") {
        eprintln!("skipped: ffprobe is not installed");
        return None;
    }
    let mut command = Command::new("ffprobe");
    command.args(["-v", "error", "-select_streams", "v:0", "-of", "json"]);
    command.args(["-show_entries", "packet=pts:stream=time_base"]).arg(video);
    let parsed: Value = serde_json::from_slice(&command.output().unwrap().stdout).unwrap();
    let (one, base) = parsed["streams"][0]["time_base"].as_str().unwrap().split_once('/').unwrap();
    let per_second = base.parse::<f64>().unwrap() / one.parse::<f64>().unwrap();
    let packets = parsed["packets"].as_array().unwrap();
    let mut all: Vec<_> = packets.iter().map(|packet| packet["pts"].as_i64().unwrap()).collect();
    all.sort_unstable();
    Some((all, per_second))
}

/// Every picture lies on the grid, one after the other, without a gap. Returns how many there are.
#[track_caller]
fn assert_constant_rate(video: &Path) -> Option<usize> {
    let (all, per_second) = timestamps(video)?;
    let period = per_second / RATE as f64;
    for (i, pts) in all.iter().enumerate() {
        let off = (pts - all[0]) as f64 - i as f64 * period;
        assert!(off.abs() <= 1.5, "picture {i} of {} is {:.4} s off the grid", all.len(), off / per_second);
    }
    Some(all.len())
}

#[test]
fn the_output_never_misses_a_tick() {
    let (_alone, bench) = (alone(), bench());
    let (video, socket) = (bench.path("out.ts"), bench.path("camera"));
    let ports = [free_udp_port(), free_udp_port()];
    let config = |device: &str, port: u16| {
        base(&bench, device).replace("[video]", "pipeline = \"camera\"\n\n[video]")
            + &figure()
            + &format!(
                "[sources.camera]\nkind = \"shm\"\nsocket_path = {socket:?}\nwidth = 64\nheight = 64\n\
                 frame_rate_hz = {RATE}\ntimeout_ms = 2000\nretry_min_ms = 100\nretry_max_ms = 500\n\n\
                 [pipelines.camera]\nsource = \"camera\"\n\n"
            )
            + &to_file("file", &video)
            + &udp("other", port, 500)
    };
    let mut daemon = start(&bench, &config("cpu", ports[0]));
    showing(&daemon, "slate");
    let camera = Camera::start(&socket);
    daemon.wait_live();

    // The source is lost: the last frame, then the slate; and it comes back by itself.
    drop(camera);
    daemon.wait("lost source", |status| status["source"]["state"] == "lost");
    showing(&daemon, "slate");
    let _camera = Camera::start(&socket);
    showing(&daemon, "live");

    let before = daemon.call(&["status"]);
    daemon.call(&["pipeline.switch", "figure"]);
    daemon.wait("figure", |status| {
        status["source"]["name"] == "figure" && status["source"]["state"] == "running"
    });
    showing(&daemon, "live");
    let before = before["stats"]["key_frames"].as_u64();
    let after = daemon.wait("key frames", |status| status["stats"]["key_frames"].as_u64() > before);
    assert_eq!(after["pipeline"], "figure");
    assert_eq!(daemon.log().matches("model-loaded").count(), 1, "the networks stay for another source");

    let reloaded = {
        daemon.rewrite(&config("cpu", ports[1]));
        daemon.call(&["reload"])
    };
    assert_eq!(reloaded["restarted"], serde_json::json!(["output other"]));
    daemon.wait("other output", |status| output(status, "other")["state"] == "running");

    let set = daemon.call(&["reference.set", "two"]);
    assert!(set["path"].as_str().unwrap().ends_with("gallery/two.png"), "{set}");
    daemon.wait("reference", |status| status["reference"] == set["path"]);

    daemon.rewrite(&config("auto", ports[1]));
    assert_eq!(daemon.call(&["reload"])["restarted"], serde_json::json!(["animation"]));
    daemon.wait("new networks", |_| daemon.log().matches("model-loaded").count() == 2);
    showing(&daemon, "live");
    assert_eq!(daemon.call(&["status"])["reference"], set["path"], "it outlives the networks");

    daemon.call(&["pause"]);
    showing(&daemon, "held");
    more_frames(&daemon, "file", 2 * RATE);
    assert_eq!(daemon.call(&["status"])["showing"], "held", "no slate in a pause");
    daemon.call(&["resume"]);
    showing(&daemon, "live");

    let status = daemon.call(&["status"]);
    let (sent, dropped) = (&output(&status, "file")["frames"], &output(&status, "file")["dropped"]);
    assert_eq!(
        (output(&status, "file")["restarts"].as_u64(), dropped.as_u64()),
        (Some(0), Some(0)),
        "{status:#}"
    );
    daemon.stop();
    if let Some(pictures) = assert_constant_rate(&video) {
        assert!(pictures as u64 >= sent.as_u64().unwrap(), "{pictures} of {sent}");
        let expected = status["uptime_secs"].as_f64().unwrap() * RATE as f64;
        assert!(pictures as f64 > expected * 0.9, "{pictures} pictures, not about {expected}");
    }
}

#[test]
fn sigterm_finalises_recordings_within_two_seconds() {
    let (_alone, bench) = (alone(), bench());
    // The model that comes with keyframed, at work all the time.
    let config = base(&bench, "cpu")
        .replace(&format!("model = {:?}", bench.model()), "model = \"mini\"\nlambda = 0.0")
        + &figure()
        + &format!("[outputs.tape]\nkind = \"recording\"\ndirectory = {:?}\n\n", bench.path("tapes"))
        + &udp("net", free_udp_port(), 500);
    fs::create_dir(bench.path("tapes")).unwrap();
    let mut daemon = start(&bench, &config);
    daemon.wait_live();
    more_frames(&daemon, "tape", 2 * RATE);
    let recorded = frames(&daemon, "tape");
    let took = daemon.stop();
    assert!(took < Duration::from_secs(2), "{took:?}\n{}", daemon.log());
    let tapes: Vec<_> = fs::read_dir(bench.path("tapes")).unwrap().map(|file| file.unwrap().path()).collect();
    assert_eq!(tapes.len(), 1, "{tapes:?}");
    if let Some(measured) = measure(&tapes[0]) {
        assert!(measured.frames >= recorded, "{measured:?}, but {recorded} were sent");
        assert_constant_rate(&tapes[0]);
    }
    assert!(!bench.path("run/keyframed/control.sock").exists(), "the socket's file is left behind");
}

#[test]
fn a_bad_configuration_changes_nothing() {
    let (_alone, bench) = (alone(), bench());
    let video = bench.path("out.ts");
    let good = base(&bench, "cpu") + &figure() + &to_file("file", &video);
    let mut daemon = start(&bench, &good);
    daemon.wait_live();
    let no_model = good.replace(&format!("{:?}", bench.model()), "\"/no/such/model\"");
    let no_picture = good.replace("[slate]", "[slate]\npicture = \"/no/such.png\"");
    let misspelt = good.replace("steps = 1", "stepz = 1");
    for bad in ["[outputs.file]\nkind = \"udp\"\n", "no toml [", &misspelt, &no_model, &no_picture] {
        daemon.rewrite(bad);
        let refusals = daemon.log().matches("reload-refused").count();
        daemon.signal(libc::SIGHUP);
        daemon.wait("refusal", |_| daemon.log().matches("reload-refused").count() > refusals);
        let why = daemon.refused(&["reload"]);
        assert!(why.contains("keyframed.toml") && why.contains("Nothing was changed"), "{why}");
    }
    let status = daemon.call(&["status"]);
    assert_eq!(output(&status, "file")["restarts"], 0);
    showing(&daemon, "live");
    // A good one is taken, of the changes only what changed; what a client has set stays.
    daemon.call(&["params.set", "lambda=0.2"]);
    daemon.rewrite(&good.replace("steps = 1", "steps = 2"));
    daemon.signal(libc::SIGHUP);
    daemon.wait("reload", |_| daemon.log().contains("\"reloaded\""));
    let params = daemon.call(&["params.get"]);
    assert_eq!((params["steps"].as_u64(), params["lambda"].as_f64()), (Some(2), Some(0.2)));
    daemon.stop();
    assert_constant_rate(&video);
}

#[test]
fn an_output_that_fails_stops_no_other() {
    let (_alone, bench) = (alone(), bench());
    let (video, port) = (bench.path("out.ts"), free_tcp_port());
    let config = base(&bench, "cpu")
        + &figure()
        + &to_file("good", &video)
        + &to_file("bad", &bench.path("no/such/folder.ts"))
        + &format!("[outputs.rtmp]\nkind = \"rtmp\"\nurl = \"rtmp://127.0.0.1:{port}/live/x\"\n\n");
    let mut daemon = start(&bench, &config);
    daemon.wait_live();
    let lost = |status: &Value, name: &str| {
        let output = output(status, name);
        output["state"] == "lost" && output["last_error"].is_string()
    };
    daemon.wait("failures", |status| lost(status, "bad") && lost(status, "rtmp"));
    more_frames(&daemon, "good", RATE);
    // What keeps it from working is mended: it comes by itself.
    fs::create_dir_all(bench.path("no/such")).unwrap();
    daemon.wait("mended output", |status| output(status, "bad")["state"] == "running");
    more_frames(&daemon, "bad", RATE);
    let status = daemon.call(&["status"]);
    assert_eq!(output(&status, "good")["restarts"], 0, "{status:#}");
    daemon.stop();
    assert_constant_rate(&video);
    assert_constant_rate(&bench.path("no/such/folder.ts"));
}

#[test]
fn an_animation_that_fails_is_told_and_comes_back() {
    let (_alone, bench) = (alone(), bench());
    let video = bench.path("out.ts");
    let config = |device: &str| base(&bench, device) + &figure() + &to_file("file", &video);
    let mut daemon = start(&bench, &config("cpu"));
    daemon.wait_live();
    let weights = bench.model().join("unet.safetensors");
    let whole = fs::read(&weights).unwrap();
    // Of the right length, so that the configuration is valid; what is in it shows only when it is read.
    fs::write(&weights, vec![0xff; whole.len()]).unwrap();
    // Other networks: they are read anew.
    daemon.rewrite(&config("auto"));
    daemon.signal(libc::SIGHUP);
    daemon.wait("failure", |_| daemon.log().contains("animation-lost"));
    showing(&daemon, "slate");
    more_frames(&daemon, "file", 3 * RATE);
    assert_eq!(daemon.log().matches("animation-lost").count(), 1, "told once\n{}", daemon.log());
    fs::write(&weights, whole).unwrap();
    showing(&daemon, "live");
    daemon.stop();
    assert_constant_rate(&video);
}

#[test]
fn clients_steer_it() {
    let (_alone, bench) = (alone(), bench());
    let config = base(&bench, "cpu") + &figure();
    let daemon = start(&bench, &config);
    daemon.wait_live();
    // All or none.
    let before = daemon.call(&["params.get"]);
    let why = daemon.refused(&["params.set", "steps=2", "lambda=7"]);
    assert!(why.contains("lambda"), "{why}");
    assert_eq!(daemon.call(&["params.get"]), before);
    let after = daemon.call(&["params.set", "steps=2", "lambda=0.5", "max_quality=warp"]);
    assert_eq!((after["steps"].as_u64(), after["lambda"].as_f64()), (Some(2), Some(0.5)));
    daemon.wait("lambda", |status| status["stats"]["lambda"] == 0.5);

    let names = daemon.call(&["reference.list"]);
    let names: Vec<_> = names.as_array().unwrap().iter().map(|r| r["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"one") && names.contains(&"two"), "{names:?}");
    fs::write(bench.path("gallery/broken.png"), "no picture").unwrap();
    fs::copy(bench.path("gallery/one.png"), bench.path("outside.png")).unwrap();
    let outside = format!("path={}", bench.path("outside.png").display());
    let sneaky = format!("path={}", bench.path("gallery/../outside.png").display());
    symlink(bench.path("outside.png"), bench.path("gallery/link.png")).unwrap();
    let link = format!("path={}", bench.path("gallery/link.png").display());
    let proc = format!("path=/proc/self/root{}", bench.path("outside.png").display());
    let reference = daemon.call(&["status"])["reference"].clone();
    for bad in ["broken", "nobody", "link", &outside, &sneaky, &link, &proc, "path=/proc/self/environ"] {
        daemon.refused(&["reference.set", bad]);
    }
    assert_eq!(daemon.call(&["status"])["reference"], reference, "the old one stays");

    assert!(daemon.refused(&["pipeline.switch", "nowhere"]).contains("figure"));
    assert_eq!(daemon.snapshot().dimensions(), (64, 64));
    assert_eq!(daemon.call(&["pipeline.list"])[0]["current"], true);

    // Another canvas: everything on it begins anew.
    daemon.rewrite(&config.replacen("width = 64", "width = 96", 1));
    assert_eq!(daemon.call(&["reload"])["restarted"], serde_json::json!(["video", "animation"]));
    daemon.wait_live();
    assert_eq!(daemon.snapshot().dimensions(), (96, 64));
    daemon.call(&["shutdown"]);
}

#[test]
fn a_second_daemon_at_the_same_socket_is_refused() {
    let (_alone, bench) = (alone(), bench());
    let config = base(&bench, "cpu") + &figure();
    let mut daemon = start(&bench, &config);
    let mut second = common::keyframed();
    second.args(["run", "-c"]).arg(bench.path("keyframed.toml")).env("XDG_RUNTIME_DIR", bench.path("run"));
    let said = common::fail(second.env("HOME", bench.path(".")));
    assert!(said.contains("control.sock"), "{said}");
    daemon.call(&["status"]);
    daemon.stop();
}
