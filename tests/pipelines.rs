//! The runnable examples run, and what they send can be received.

mod common;

use std::{
    env, fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use common::{
    Bench,
    daemon::{Daemon, free_tcp_port, free_udp_port},
    installed, measure, succeed,
};
use gst::prelude::*;

/// A folder that holds the plugin and nothing else.
fn plugin_path(bench: &Bench) -> PathBuf {
    let program = env::current_exe().unwrap();
    let deps = program.parent().unwrap();
    let library = [deps, deps.parent().unwrap()].map(|dir| dir.join("libgstkeyframed.so"));
    let library = library.iter().find(|path| path.is_file()).expect("the plugin is built with the tests");
    let folder = bench.path("plugins");
    fs::create_dir(&folder).unwrap();
    std::os::unix::fs::symlink(library, folder.join("libgstkeyframed.so")).unwrap();
    folder
}

/// A script of `pipelines/`, on the small model, ready for arguments.
fn script(bench: &Bench, name: &str, frames: u32) -> Command {
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines").join(name));
    command.env("GST_PLUGIN_PATH", plugin_path(bench)).env("GST_REGISTRY", bench.path("registry.bin"));
    command.env("REFERENCE", bench.picture("ref.png", 64, 64)).env("MODEL", bench.model());
    command.env("FRAMES", frames.to_string()).env("SINK", "fakesink").stdin(Stdio::null());
    command
}

#[test]
fn every_example_is_tested_here() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines");
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let here = include_str!("pipelines.rs").to_owned() + include_str!("pipewire.rs");
    for name in names.filter(|name| name != "env.sh") {
        assert!(here.contains(&format!("{name}\"")), "{name} is not tested");
    }
}

#[test]
fn file_to_file() {
    let bench = Bench::new();
    let (clip, out) = (bench.clip("in.mp4", "dance", 25), bench.path("out.mp4"));
    let mut command = script(&bench, "file-to-file.sh", 0);
    succeed(command.arg(clip).arg(bench.path("ref.png")).arg(&out));
    assert!(measure(&out).is_none_or(|m| m.frames == 25 && m.rate == "25/1"));
}

#[test]
fn window() {
    let bench = Bench::new();
    succeed(&mut script(&bench, "window.sh", 20));
}

/// A program under way, ended with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn obs_udp() {
    let bench = Bench::new();
    let port = free_udp_port();
    let line = format!("udpsrc port={port} ! tsdemux ! h264parse ! avdec_h264 ! videoconvert");
    let _sender = Running(script(&bench, "obs-udp.sh", 500).arg(port.to_string()).spawn().unwrap());
    receive(&line);
}

#[test]
fn obs_srt() {
    let bench = Bench::new();
    // SRT speaks UDP.
    let port = free_udp_port();
    let line = format!(
        "srtsrc uri=srt://127.0.0.1:{port}?mode=caller ! tsdemux ! h264parse ! avdec_h264 ! videoconvert"
    );
    let _sender = Running(script(&bench, "obs-srt.sh", 500).arg(port.to_string()).spawn().unwrap());
    receive(&line);
}

/// Wants ten decoded frames out of `line`, with pictures in them that change. Returns their size.
#[track_caller]
fn receive(line: &str) -> (u32, u32) {
    let started = Instant::now();
    let pipeline =
        gst::parse::launch(&format!("{line} ! video/x-raw,format=RGB ! appsink name=sink sync=false"))
            .unwrap();
    let sink = pipeline.downcast_ref::<gst::Bin>().unwrap().by_name("sink").unwrap();
    let sink = sink.downcast::<gst_app::AppSink>().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let mut pictures = std::collections::BTreeSet::new();
    let mut frames = 0;
    let mut size = (0, 0);
    while frames < 10 || pictures.len() < 2 {
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "{line}: {frames} frames, {} pictures",
            pictures.len()
        );
        let Some(sample) = sink.try_pull_sample(gst::ClockTime::from_seconds(1)) else { continue };
        let info = gst_video::VideoInfo::from_caps(sample.caps().unwrap()).unwrap();
        size = (info.width(), info.height());
        frames += 1;
        pictures.insert(sample.buffer().unwrap().map_readable().unwrap().to_vec());
    }
    pipeline.set_state(gst::State::Null).unwrap();
    size
}

/// Runs an example in the bench's folder, as it stands but for what the test must choose and for what two cores can
/// do beside other tests.
#[track_caller]
fn example(bench: &Bench, name: &str, changes: &[(&str, &str)]) -> Daemon {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines").join(name);
    let mut text = fs::read_to_string(path).unwrap();
    let cheap = "[animation]\nsteps = 1\ncontext_frames = 0\nmax_quality = \"crossfade\"\n";
    for (from, to) in changes.iter().chain(&[("[animation]\n", cheap)]) {
        assert!(text.contains(from), "{name} has no {from}");
        text = text.replace(from, to);
    }
    let models = concat!(env!("CARGO_MANIFEST_DIR"), "/models");
    let runtime = bench.path("run");
    fs::create_dir(&runtime).unwrap();
    Daemon::start_with(&bench.path(""), &runtime, &text, &[("KEYFRAMED_MODELS", models)])
}

/// An H.264 stream in MPEG-TS, decoded.
const MPEG_TS: &str = "tsdemux ! h264parse ! avdec_h264 ! videoconvert";

#[test]
fn daemon_obs_srt() {
    let (bench, port) = (Bench::new(), free_udp_port());
    let daemon = example(&bench, "obs-srt.toml", &[("9000", &port.to_string())]);
    daemon.wait_live();
    let size = receive(&format!("srtsrc uri=srt://127.0.0.1:{port}?mode=caller ! {MPEG_TS}"));
    assert_eq!(size, (512, 512));
}

#[test]
fn daemon_obs_udp() {
    let (bench, port) = (Bench::new(), free_udp_port());
    let _daemon = example(&bench, "obs-udp.toml", &[("5600", &port.to_string())]);
    receive(&format!("udpsrc port={port} ! {MPEG_TS}"));
}

#[test]
fn daemon_gst_launch() {
    let (bench, port) = (Bench::new(), free_udp_port());
    let _daemon = example(&bench, "gst-launch.toml", &[("5004", &port.to_string())]);
    receive(&format!(
        "udpsrc port={port} caps=\"application/x-rtp,media=video,encoding-name=JPEG,clock-rate=90000\" \
         ! rtpjpegdepay ! jpegdec ! videoconvert"
    ));
}

/// No kernel of a test machine has the devices: both are told as lost, and everything else works.
#[test]
fn daemon_obs_virtual_camera() {
    let bench = Bench::new();
    let daemon = example(
        &bench,
        "obs-virtual-camera.toml",
        &[("/dev/video11", "/dev/no-poses"), ("/dev/video10", "/dev/no-camera")],
    );
    let lost = daemon.wait("lost devices", |status| {
        status["source"]["state"] == "lost" && status["outputs"][0]["state"] == "lost"
    });
    for (part, device) in [(&lost["source"], "/dev/no-poses"), (&lost["outputs"][0], "/dev/no-camera")] {
        assert!(part["last_error"].as_str().is_some_and(|error| error.contains(device)), "{part}");
    }
    daemon.call(&["pipeline", "switch", "test"]);
    daemon.wait_live();
    assert_eq!(daemon.snapshot().dimensions(), (1280, 720));
}

#[test]
fn daemon_file_to_file() {
    let bench = Bench::new();
    bench.clip("clip.mp4", "dance", 50);
    let mut daemon = example(&bench, "file-to-file.toml", &[]);
    daemon.wait_live();
    // The clip has two seconds: it is played again.
    daemon.wait("second round", |status| {
        status["stats"]["frames_in"].as_u64() > Some(60) && status["outputs"][0]["frames"].as_u64() > Some(50)
    });
    daemon.stop();
    let recording = recording(&bench);
    assert!(measure(&recording).is_none_or(|m| m.frames > 50 && m.rate == "25/1" && m.size == (512, 512)));
}

/// The one file that was recorded.
#[track_caller]
fn recording(bench: &Bench) -> PathBuf {
    let files: Vec<_> = fs::read_dir(bench.path("recordings")).unwrap().collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files[0].as_ref().unwrap().path()
}

#[test]
fn daemon_stream() {
    if !installed("ffmpeg") {
        eprintln!("skipped: ffmpeg is not installed");
        return;
    }
    let bench = Bench::new();
    let url = format!("rtmp://127.0.0.1:{}/live/avatar", free_tcp_port());
    let mut service = Command::new("ffmpeg");
    service.args([
        "-v",
        "error",
        "-listen",
        "1",
        "-f",
        "flv",
        "-i",
        &url,
        "-frames:v",
        "20",
        "-f",
        "null",
        "-",
    ]);
    let mut service = Running(service.stdin(Stdio::null()).spawn().unwrap());
    let mut daemon = example(&bench, "stream.toml", &[("rtmp://127.0.0.1/live/avatar", &url)]);
    let started = Instant::now();
    let ended = loop {
        if let Some(ended) = service.0.try_wait().unwrap() {
            break ended;
        }
        assert!(started.elapsed() < common::daemon::PATIENCE, "no stream\n{}", daemon.log());
        std::thread::sleep(Duration::from_millis(100));
    };
    assert!(ended.success(), "{ended}");
    daemon.wait_live();
    daemon.stop();
    assert!(measure(&recording(&bench)).is_none_or(|m| m.frames > 15 && m.size == (1280, 720)));
}

/// GStreamer's RTSP server, from Python, and its port. `None`, with a word, where that is not installed.
fn rtsp_server(bench: &Bench, mode: &str, line: &str) -> Option<(Running, u16)> {
    let mut child = Command::new("/usr/bin/python3")
        .args(["-c", include_str!("../src/media/tests/rtsp_server.py"), mode, line])
        .env("GST_PLUGIN_PATH", bench.path("plugins"))
        .env("GST_REGISTRY", bench.path("rtsp-registry.bin"))
        .env_remove("G_DEBUG")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .ok()?;
    let mut port = String::new();
    BufReader::new(child.stdout.take()?).read_line(&mut port).ok()?;
    let server = Running(child);
    if port.is_empty() {
        eprintln!("skipped: gir1.2-gst-rtsp-server-1.0 and python3-gi are not installed");
        return None;
    }
    Some((server, port.trim().parse().unwrap()))
}

#[test]
fn daemon_rtsp_in_out() {
    let bench = Bench::new();
    plugin_path(&bench);
    let poses = "( denseposetestsrc is-live=true pattern=dance ! video/x-raw,width=256,height=256,framerate=15/1 \
                 ! videoconvert ! x264enc tune=zerolatency key-int-max=15 ! rtph264pay name=pay0 pt=96 )";
    let file = bench.path("avatar.ts");
    let taken = format!(
        "( rtph264depay name=depay0 ! h264parse ! mpegtsmux ! filesink buffer-mode=unbuffered location={} )",
        file.display()
    );
    let Some((_camera, from)) = rtsp_server(&bench, "serve", poses) else { return };
    let Some((_server, to)) = rtsp_server(&bench, "record", &taken) else { return };
    let daemon = example(
        &bench,
        "rtsp-in-out.toml",
        &[
            ("rtsp://127.0.0.1:8554/poses", &format!("rtsp://127.0.0.1:{from}/pose")),
            ("rtsp://127.0.0.1:8554/avatar", &format!("rtsp://127.0.0.1:{to}/pose")),
        ],
    );
    daemon.wait_live();
    let sent = daemon.call(&["status"])["outputs"][0]["frames"].as_u64().unwrap();
    daemon.wait("frames", |status| status["outputs"][0]["frames"].as_u64() > Some(sent + 75));
    let size = receive(&format!("filesrc location={} ! {MPEG_TS}", file.display()));
    assert_eq!(size, (512, 512));
}
