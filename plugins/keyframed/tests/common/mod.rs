//! What the element tests share. Every warning of GLib or GStreamer is fatal, as under `G_DEBUG=fatal-warnings`.
#![allow(dead_code)]
use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::Once,
};

use gst::prelude::*;

/// Initialises GStreamer with the plugin linked into this test.
pub fn init() {
    static INIT: Once = Once::new();
    INIT.call_once(|| {
        gst::init().unwrap();
        gst::glib::log_set_always_fatal(
            gst::glib::LogLevels::LEVEL_WARNING
                | gst::glib::LogLevels::LEVEL_CRITICAL
                | gst::glib::LogLevels::LEVEL_ERROR,
        );
        gstkeyframed::plugin_register_static().unwrap();
    });
}

/// RGB caps as text.
pub fn rgb(width: u32, height: u32, rate: &str) -> String {
    format!(
        "video/x-raw,format=RGB,width={width},height={height},framerate={rate},pixel-aspect-ratio=1/1,\
         interlace-mode=progressive"
    )
}

/// A picture of one colour at `pts_ms`, rows packed; the width must be a multiple of 4.
pub fn flat(width: usize, height: usize, colour: [u8; 3], pts_ms: u64, duration_ms: u64) -> gst::Buffer {
    assert_eq!(width % 4, 0, "GStreamer pads other rows");
    let mut buffer = gst::Buffer::from_mut_slice(colour.repeat(width * height));
    let buffer_ref = buffer.get_mut().unwrap();
    buffer_ref.set_pts(gst::ClockTime::from_mseconds(pts_ms));
    buffer_ref.set_duration(gst::ClockTime::from_mseconds(duration_ms));
    buffer
}

/// The first pixel of a picture.
pub fn first_pixel(buffer: &gst::Buffer) -> [u8; 3] {
    let map = buffer.map_readable().unwrap();
    [map[0], map[1], map[2]]
}

/// The bytes of a picture.
pub fn bytes(buffer: &gst::Buffer) -> Vec<u8> {
    buffer.map_readable().unwrap().to_vec()
}

/// All buffers that `launch ! appsink` gives until end of stream, or the error that came instead.
pub fn run(launch: &str) -> Result<Vec<gst::Buffer>, String> {
    init();
    let pipeline = gst::parse::launch(&format!("{launch} ! appsink name=out sync=false max-buffers=0"))
        .map_err(|e| e.to_string())?
        .downcast::<gst::Pipeline>()
        .unwrap();
    let out = pipeline.by_name("out").unwrap().downcast::<gst_app::AppSink>().unwrap();
    let bus = pipeline.bus().unwrap();
    let started = pipeline.set_state(gst::State::Playing).is_ok();
    let mut buffers = Vec::new();
    while started && let Ok(sample) = out.pull_sample() {
        buffers.push(sample.buffer_owned().unwrap());
    }
    let error = bus.iter_filtered(&[gst::MessageType::Error]).find_map(|message| match message.view() {
        gst::MessageView::Error(error) => Some(error.error().to_string()),
        _ => None,
    });
    pipeline.set_state(gst::State::Null).unwrap();
    match error {
        Some(error) => Err(error),
        None => Ok(buffers),
    }
}

/// The `gst-launch-1.0` lines in an element's documentation: its source between `|[` and `]|`.
pub fn documented_lines(source: &str) -> Vec<String> {
    source
        .split("|[")
        .skip(1)
        .filter_map(|part| part.split("]|").next())
        .map(|block| {
            let lines = block.lines().map(|l| l.trim().trim_start_matches('*').trim());
            lines.map(|l| l.trim_end_matches('\\')).collect::<Vec<_>>().join(" ").trim().to_owned()
        })
        .filter(|line| line.starts_with("gst-launch-1.0 "))
        .collect()
}

/// Runs the documented lines of an element with the built library in `GST_PLUGIN_PATH`, windows replaced by
/// sinks that keep time. Skips with a reason where `gst-launch-1.0` is missing.
pub fn check_documented_lines(source: &str) {
    check_documented_lines_with(source, &[]);
}

/// As `check_documented_lines`, with more environment.
pub fn check_documented_lines_with(source: &str, environment: &[(&str, &Path)]) {
    let lines = documented_lines(source);
    assert!(!lines.is_empty(), "the element's documentation has no gst-launch-1.0 line");
    for line in lines {
        let Some(output) = launch(&line.replace("autovideosink", "fakesink sync=true"), environment) else {
            eprintln!("skipped: gst-launch-1.0 is not installed");
            return;
        };
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}\nended with {}:\n{text}", output.status);
        assert!(!text.contains("WARNING"), "{line}\nwarned:\n{text}");
    }
}

fn launch(line: &str, environment: &[(&str, &Path)]) -> Option<Output> {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    // The library alone: the folder it lies in holds every other build product, too.
    let link = dir.join("libgstkeyframed.so");
    std::os::unix::fs::symlink(library(), &link).unwrap();
    let output = Command::new("sh")
        .arg("-c")
        .arg(format!("exec timeout 120 {line}"))
        .env("GST_PLUGIN_PATH", dir)
        .env("GST_REGISTRY", dir.join("registry.bin"))
        .env("G_DEBUG", "fatal-warnings")
        .envs(environment.iter().copied())
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
        .output()
        .unwrap();
    (output.status.code() != Some(127)).then_some(output)
}

/// The plugin library that cargo built beside this test.
fn library() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let deps = test.parent().unwrap();
    [deps.join("libgstkeyframed.so"), deps.join("../libgstkeyframed.so")]
        .into_iter()
        .find(|path| path.exists())
        .expect("cargo builds the library before its tests")
}

/// Messages of a type that are on the bus, as text.
pub fn messages(bus: &gst::Bus, type_: gst::MessageType) -> Vec<String> {
    bus.iter_filtered(&[type_])
        .map(|message| match message.view() {
            gst::MessageView::Error(m) => m.error().to_string(),
            gst::MessageView::Warning(m) => m.error().to_string(),
            gst::MessageView::Progress(m) => format!("{:?} {}: {}", m.get().0, m.get().1, m.get().2),
            _ => String::new(),
        })
        .collect()
}

/// The event that changes several properties between two buffers.
pub fn params(structure: gst::structure::Builder) -> gst::Event {
    gst::event::CustomDownstream::new(structure.build())
}

/// Its structure, without fields.
pub fn fields() -> gst::structure::Builder {
    gst::Structure::builder("keyframed-params")
}

/// Buffers and `keyframed-params` events that leave a pad from now on, in order: timestamps in milliseconds, `None`
/// for the event.
pub fn watch(pad: &gst::Pad) -> std::sync::Arc<std::sync::Mutex<Vec<Option<u64>>>> {
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let sink = seen.clone();
    pad.add_probe(gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
        match &info.data {
            Some(gst::PadProbeData::Buffer(buffer)) => {
                sink.lock().unwrap().push(buffer.pts().map(gst::ClockTime::mseconds));
            }
            Some(gst::PadProbeData::Event(event)) if event.has_name("keyframed-params") => {
                sink.lock().unwrap().push(None);
            }
            _ => {}
        }
        gst::PadProbeReturn::Ok
    });
    seen
}
