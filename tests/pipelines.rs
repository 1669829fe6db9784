//! The runnable examples run, and what they send can be received.

mod common;

use std::{
    env, fs,
    net::UdpSocket,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use common::{Bench, measure, succeed};
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
fn every_script_is_tested_here() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines");
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| name.ends_with(".sh")).collect();
    names.sort();
    assert_eq!(names, ["env.sh", "file-to-file.sh", "obs-srt.sh", "obs-udp.sh", "window.sh"]);
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
    let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let line = format!("udpsrc port={port} ! tsdemux ! h264parse ! avdec_h264 ! videoconvert");
    let _sender = Running(script(&bench, "obs-udp.sh", 500).arg(port.to_string()).spawn().unwrap());
    receive(&line);
}

#[test]
fn obs_srt() {
    let bench = Bench::new();
    // SRT speaks UDP.
    let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let line = format!(
        "srtsrc uri=srt://127.0.0.1:{port}?mode=caller ! tsdemux ! h264parse ! avdec_h264 ! videoconvert"
    );
    let _sender = Running(script(&bench, "obs-srt.sh", 500).arg(port.to_string()).spawn().unwrap());
    receive(&line);
}

/// Wants ten decoded frames out of `line`, with pictures in them that change.
#[track_caller]
fn receive(line: &str) {
    let started = Instant::now();
    let pipeline =
        gst::parse::launch(&format!("{line} ! video/x-raw,format=RGB ! appsink name=sink sync=false"))
            .unwrap();
    let sink = pipeline.downcast_ref::<gst::Bin>().unwrap().by_name("sink").unwrap();
    let sink = sink.downcast::<gst_app::AppSink>().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let mut pictures = std::collections::BTreeSet::new();
    let mut frames = 0;
    while frames < 10 || pictures.len() < 2 {
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "{line}: {frames} frames, {} pictures",
            pictures.len()
        );
        let Some(sample) = sink.try_pull_sample(gst::ClockTime::from_seconds(1)) else { continue };
        frames += 1;
        pictures.insert(sample.buffer().unwrap().map_readable().unwrap().to_vec());
    }
    pipeline.set_state(gst::State::Null).unwrap();
}
