//! `avataranimate` with a small random model, and FILM between key frames.
mod common;
#[path = "../../../models/tests/tiny/mod.rs"]
mod tiny;

use std::fs;

use common::{bytes, fields, flat, init, params, rgb};
use gst::prelude::*;
use gst_check::Harness;
use gstkeyframed::filminterpolate::Quality;
use tempfile::TempDir;
use tiny::Tiny;

const SOURCE: &str = include_str!("../src/avataranimate/imp.rs");

/// A folder of models with one, `mini`, that has an avatar.
fn models() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mini = dir.path().join("mini");
    fs::create_dir_all(mini.join("avatars")).unwrap();
    Tiny::new(&mini);
    let shade = |x, y| image::Rgb([200, (x * 9 % 200) as u8, (y * 5 % 200) as u8]);
    image::RgbImage::from_fn(24, 24, shade).save(mini.join("avatars/anna.png")).unwrap();
    dir
}

fn film(models: &TempDir, properties: &str) -> Vec<gst::Buffer> {
    let model = models.path().join("mini").display().to_string();
    common::run(&format!(
        "denseposetestsrc pattern=dance num-buffers=25 ! video/x-raw,width=64,height=32,framerate=25/1 ! \
         avataranimate model={model} device=cpu dtype=f32 {properties} ! video/x-raw,framerate=50/1"
    ))
    .unwrap()
}

#[test]
fn offline_gives_every_frame_and_the_same_bytes_twice() {
    let models = models();
    let first = film(&models, "");
    assert_eq!(first.len(), 50, "one second at 50 frames a second");
    for (n, buffer) in first.iter().enumerate() {
        assert_eq!(buffer.pts(), Some(gst::ClockTime::from_mseconds(20 * n as u64)));
        assert_eq!(buffer.size(), 32 * 16 * 3);
    }
    let again = film(&models, "");
    assert_eq!(first.iter().map(bytes).collect::<Vec<_>>(), again.iter().map(bytes).collect::<Vec<_>>());
}

#[test]
fn film_and_warp_differ() {
    let models = models();
    let (film_, warp) = (film(&models, "lambda=0.02"), film(&models, "lambda=0.02 max-quality=warp"));
    assert_eq!(bytes(&film_[0]), bytes(&warp[0]), "a key frame is a key frame");
    assert!(film_.iter().zip(&warp).any(|(a, b)| bytes(a) != bytes(b)));
}

#[test]
fn properties_reach_the_children() {
    init();
    let bin = gst::ElementFactory::make("avataranimate")
        .property("lambda", 0.03)
        .property("seed", 9u64)
        .property("latency", 123u64)
        .property("model", "other")
        .build()
        .unwrap()
        .downcast::<gst::Bin>()
        .unwrap();
    let child = |name| bin.by_name(name).unwrap();
    assert_eq!(child("select").property::<f64>("lambda"), 0.03);
    assert_eq!(child("animate").property::<u64>("seed"), 9);
    assert_eq!(child("interpolate").property::<u64>("latency"), 123);
    for name in ["animate", "interpolate"] {
        assert_eq!(child(name).property::<String>("model"), "other");
    }
    // All of the children's properties are the bin's, and what one reads is what it has.
    for (name, factory) in
        [("select", "keyposeselect"), ("animate", "lcmanimate"), ("interpolate", "filminterpolate")]
    {
        let child = child(name);
        for property in child.list_properties() {
            let own = property.owner_type() == child.type_() && property.name() != "stats";
            assert!(!own || bin.has_property(property.name()), "{factory}::{} is missing", property.name());
        }
    }
    child("select").set_property("window", 5u32);
    assert_eq!(bin.property::<u32>("window"), 5);
    assert_eq!(bin.property::<f64>("lambda"), 0.03);
    let proxy = bin.dynamic_cast_ref::<gst::ChildProxy>().unwrap();
    assert_eq!(proxy.children_count(), 3);
    assert!(proxy.child_by_name("animate").is_some());
}

#[test]
fn stats_add_up() {
    init();
    let models = models();
    let model = models.path().join("mini").display().to_string();
    let pipeline = gst::parse::launch(&format!(
        "denseposetestsrc pattern=dance num-buffers=25 ! video/x-raw,width=64,height=32 ! \
         avataranimate name=a model={model} device=cpu max-quality=crossfade ! fakesink sync=false"
    ))
    .unwrap()
    .downcast::<gst::Pipeline>()
    .unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let kinds = [gst::MessageType::Eos, gst::MessageType::Error];
    let end = pipeline.bus().unwrap().timed_pop_filtered(gst::ClockTime::from_seconds(60), &kinds).unwrap();
    assert_eq!(end.type_(), gst::MessageType::Eos);
    let stats = pipeline.by_name("a").unwrap().property::<gst::Structure>("stats");
    let get = |field| stats.get::<u64>(field).unwrap();
    assert_eq!(get("in"), 25);
    assert_eq!(get("key"), get("generated"));
    assert_eq!((get("dropped"), get("late")), (0, 0));
    let interpolate = stats.get::<gst::Structure>("interpolate").unwrap();
    assert_eq!(interpolate.get::<u64>("out"), Ok(25));
    assert_eq!(interpolate.get::<u64>("in"), Ok(get("key")));
    pipeline.set_state(gst::State::Null).unwrap();
}

/// The bin of a live or offline harness, on its cheapest settings.
fn harness(models: &TempDir, live: bool) -> (gst::Element, Harness) {
    init();
    let bin = gst::ElementFactory::make("avataranimate")
        .property("model", models.path().join("mini").to_str().unwrap())
        .property("device", "cpu")
        .property("lambda", 0.)
        .property_from_str("max-quality", "crossfade")
        .property("latency", 600_000_000u64)
        .build()
        .unwrap();
    let mut h = Harness::with_element(&bin, Some("sink"), Some("src"));
    h.set_live(live);
    h.set_time(gst::ClockTime::ZERO).unwrap();
    h.set_src_caps_str(&rgb(64, 32, "25/1"));
    h.set_sink_caps_str("video/x-raw,framerate=50/1");
    (bin, h)
}

/// A statistic of the interpolator.
fn made(bin: &gst::Element, rung: &str) -> u64 {
    let stats = bin.property::<gst::Structure>("stats");
    stats.get::<gst::Structure>("interpolate").unwrap().get::<u64>(rung).unwrap()
}

#[test]
fn one_event_changes_all_three_stages() {
    let models = models();
    let (bin, mut h) = harness(&models, false);
    let seen = common::watch(&bin.static_pad("src").unwrap());
    for n in 0..2 {
        h.push(flat(64, 32, [40 * n as u8; 3], 40 * n, 40)).unwrap();
    }
    let event = fields().field("lambda", 1.).field("window", 2u32).field("steps", 1u32).field("seed", 9u64);
    let event = event.field("latency", 1u64).field("max-quality", Quality::Film);
    assert!(h.push_event(params(event)));
    for n in 2..7 {
        h.push(flat(64, 32, [10 * n as u8; 3], 40 * n, 40)).unwrap();
    }
    assert!(h.push_event(gst::event::Eos::new()));
    while let Ok(Some(_)) = h.pull_until_eos() {}
    // Key frames at 0, 40, 120, 200, 240; ticks of 20 ms.
    assert_eq!((made(&bin, "in"), made(&bin, "crossfade"), made(&bin, "film")), (5, 1, 7));
    let seen = seen.lock().unwrap();
    assert_eq!(seen.iter().position(Option::is_none), Some(2), "{seen:?}");
    let read = |name| bin.property_value(name).serialize().unwrap();
    let names = ["lambda", "window", "steps", "seed", "latency", "max-quality"];
    assert_eq!(names.map(|name| read(name).to_string()), ["1", "2", "1", "9", "1", "film"]);
}

#[test]
fn film_is_loaded_while_live_when_it_is_first_wanted() {
    let models = models();
    let (bin, mut h) = harness(&models, true);
    bin.set_property("window", 1u32);
    h.push(flat(64, 32, [0; 3], 0, 40)).unwrap();
    await_key_frames(&bin, 1);
    assert!(h.push_event(params(fields().field("max-quality", Quality::Film))));
    let mut key = 1;
    // Until FILM is there the flow warp makes them.
    while made(&bin, "film") == 0 {
        assert!(key < 500, "no FILM after {key} key frames");
        h.push(flat(64, 32, [(10 * key % 200) as u8; 3], 40 * key, 40)).unwrap();
        key += 1;
        await_key_frames(&bin, key);
        // FILM makes them ahead of time: some key frames must wait.
        for _ in 0..if key > 8 { 2 } else { 0 } {
            h.crank_single_clock_wait().unwrap();
            h.pull().unwrap();
        }
    }
    assert_eq!(made(&bin, "crossfade"), 0);
}

/// Waits until the interpolator has taken `count` key frames.
fn await_key_frames(bin: &gst::Element, count: u64) {
    for _ in 0..6000 {
        let stats = bin.property::<gst::Structure>("stats");
        let taken = stats.get::<gst::Structure>("interpolate").unwrap().get::<u64>("in").unwrap();
        if taken >= count {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("no {count} key frames within a minute");
}

#[test]
fn live_output_is_one_picture_a_tick() {
    let models = models();
    let (bin, mut h) = harness(&models, true);
    // Every pose is a key pose, however long the key frame before took.
    bin.set_property("window", 1u32);
    let latency = h.query_latency().unwrap();
    assert_eq!(
        latency,
        gst::ClockTime::from_mseconds(640),
        "a frame of the selector, and what was asked for"
    );
    for n in 0..5 {
        h.push(flat(64, 32, [10 * n as u8; 3], 40 * n, 40)).unwrap();
        // Else a newer pose would replace one that waits, as it should.
        await_key_frames(&bin, n + 1);
    }
    // 160 ms of key frames, and then nothing new: the pictures go on all the same.
    for n in 0..20 {
        h.crank_single_clock_wait().unwrap();
        let buffer = h.pull().unwrap();
        assert_eq!(buffer.pts(), Some(gst::ClockTime::from_mseconds(20 * n)));
        assert_eq!(buffer.size(), 32 * 16 * 3);
    }
    let stats = bin.property::<gst::Structure>("stats");
    let get = |field| stats.get::<u64>(field).unwrap();
    assert_eq!((get("in"), get("key"), get("generated"), get("dropped"), get("late")), (5, 5, 5, 0, 0));
    assert_eq!((get("interpolated"), get("repeated")), (4, 11));
}

#[test]
fn a_missing_reference_stops_the_pipeline_with_its_name() {
    let models = models();
    let model = models.path().join("mini").display().to_string();
    let launch =
        format!("denseposetestsrc num-buffers=1 ! avataranimate model={model} reference=/nowhere/x.png");
    let error = common::run(&launch).unwrap_err();
    assert!(error.contains("/nowhere/x.png"), "{error}");
}

#[test]
fn documented_lines_run() {
    let models = models();
    common::check_documented_lines_with(SOURCE, &[("KEYFRAMED_MODELS", models.path())]);
}
