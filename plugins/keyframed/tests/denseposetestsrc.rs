//! `denseposetestsrc` on a harness with a test clock.
mod common;

use std::collections::HashSet;

use common::{bytes, init, rgb};
use gst::prelude::*;
use gst_check::Harness;

const SOURCE: &str = include_str!("../src/denseposetestsrc/imp.rs");

fn pull_all(launch: &str) -> Vec<gst::Buffer> {
    common::run(launch).unwrap()
}

#[test]
fn defaults_are_512_square_at_25() {
    init();
    let mut h = Harness::new_parse("denseposetestsrc num-buffers=1");
    h.play();
    let buffer = h.pull().unwrap();
    assert_eq!(buffer.size(), 512 * 512 * 3);
    assert_eq!(buffer.duration(), Some(gst::ClockTime::from_mseconds(40)));
    let caps = h.sinkpad().unwrap().current_caps().unwrap();
    let info = gst_video::VideoInfo::from_caps(&caps).unwrap();
    assert_eq!((info.width(), info.height(), info.fps()), (512, 512, gst::Fraction::new(25, 1)));
}

#[test]
fn timestamps_are_exact_and_contiguous() {
    let buffers =
        pull_all("denseposetestsrc num-buffers=301 ! video/x-raw,width=32,height=32,framerate=30000/1001");
    assert_eq!(buffers.len(), 301);
    for (n, pair) in buffers.windows(2).enumerate() {
        assert_eq!(pair[0].pts().unwrap() + pair[0].duration().unwrap(), pair[1].pts().unwrap());
        assert_eq!((pair[0].offset(), pair[0].offset_end()), (n as u64, n as u64 + 1));
    }
    // 300 frames of 1001/30000 s.
    assert_eq!(buffers[300].pts(), Some(gst::ClockTime::from_mseconds(10_010)));
}

#[test]
fn only_densepose_colours_appear() {
    let palette: HashSet<[u8; 3]> = keyframed_engine::Palette::Viridis.colours().iter().copied().collect();
    let mut seen = HashSet::new();
    for buffer in pull_all(
        "denseposetestsrc pattern=spin num-buffers=20 ! video/x-raw,width=128,height=128,framerate=5/1",
    ) {
        seen.extend(bytes(&buffer).chunks(3).map(|p| [p[0], p[1], p[2]]));
    }
    assert_eq!(seen, palette, "a figure that turns shows every part and nothing else");
}

#[test]
fn runs_repeat_and_seeds_differ() {
    let film = |seed| -> Vec<Vec<u8>> {
        let launch = format!(
            "denseposetestsrc pattern=dance seed={seed} num-buffers=5 ! video/x-raw,width=96,height=64"
        );
        pull_all(&launch).iter().map(bytes).collect()
    };
    assert_eq!(film(1), film(1));
    assert_ne!(film(1), film(2));
}

#[test]
fn the_picture_depends_on_time_not_on_rate() {
    let at = |rate, n: usize| {
        let launch = format!(
            "denseposetestsrc pattern=walk num-buffers=9 ! video/x-raw,width=64,height=64,framerate={rate}/1"
        );
        bytes(&pull_all(&launch)[n])
    };
    assert_eq!(at(10, 2), at(20, 4));
}

#[test]
fn still_never_changes_and_others_do() {
    for pattern in ["still", "walk", "dance", "wave", "spin"] {
        let buffers = pull_all(&format!(
            "denseposetestsrc pattern={pattern} num-buffers=2 ! video/x-raw,framerate=5/1"
        ));
        assert_eq!(bytes(&buffers[0]) == bytes(&buffers[1]), pattern == "still", "{pattern}");
    }
}

#[test]
fn live_frames_wait_for_their_time() {
    init();
    let mut h = Harness::new_parse("denseposetestsrc is-live=true");
    h.set_sink_caps_str(&rgb(32, 32, "10/1"));
    h.set_time(gst::ClockTime::ZERO).unwrap();
    h.play();
    for n in 0..4 {
        let due = gst::ClockTime::from_mseconds(100 * n);
        h.crank_single_clock_wait().unwrap();
        let buffer = h.pull().unwrap();
        assert_eq!(buffer.pts(), Some(due));
        assert_eq!(h.testclock().unwrap().time(), due, "not before its time and not after");
    }
}

#[test]
fn latency_answers_by_mode() {
    init();
    for live in [true, false] {
        let src = gst::ElementFactory::make("denseposetestsrc").property("is-live", live).build().unwrap();
        let mut query = gst::query::Latency::new();
        src.set_state(gst::State::Ready).unwrap();
        assert!(src.query(&mut query));
        assert_eq!(query.result(), (live, gst::ClockTime::ZERO, None));
        src.set_state(gst::State::Null).unwrap();
    }
}

#[test]
fn renegotiation_goes_on_from_the_last_frame() {
    init();
    let pipeline = gst::parse::launch(
        "denseposetestsrc ! capsfilter name=f caps=video/x-raw,width=64,height=64,framerate=10/1 ! \
         appsink name=out sync=false max-buffers=1",
    )
    .unwrap()
    .downcast::<gst::Pipeline>()
    .unwrap();
    let out = pipeline.by_name("out").unwrap().downcast::<gst_app::AppSink>().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let mut next = gst::ClockTime::ZERO;
    let mut sizes = Vec::new();
    for n in 0..60 {
        if n == 10 {
            let caps = "video/x-raw,width=48,height=80,framerate=30/1".parse::<gst::Caps>().unwrap();
            pipeline.by_name("f").unwrap().set_property("caps", caps);
        }
        let sample = out.pull_sample().unwrap();
        let buffer = sample.buffer().unwrap();
        assert_eq!(buffer.pts(), Some(next), "frame {n}");
        next += buffer.duration().unwrap();
        let info = gst_video::VideoInfo::from_caps(sample.caps().unwrap()).unwrap();
        assert_eq!(buffer.size(), info.size());
        sizes.push((info.width(), info.height(), info.fps().numer()));
    }
    pipeline.set_state(gst::State::Null).unwrap();
    sizes.dedup();
    assert_eq!(sizes, [(64, 64, 10), (48, 80, 30)]);
}

#[test]
fn pattern_changes_while_running() {
    init();
    let src = gst::ElementFactory::make("denseposetestsrc")
        .property_from_str("pattern", "still")
        .property("is-live", true)
        .build()
        .unwrap();
    let mut h = Harness::with_element(&src, None, Some("src"));
    h.set_sink_caps_str(&rgb(64, 64, "10/1"));
    h.play();
    h.crank_single_clock_wait().unwrap();
    let first = h.pull().unwrap();
    src.set_property_from_str("pattern", "spin");
    let mut last = first.clone();
    for _ in 0..3 {
        h.crank_single_clock_wait().unwrap();
        last = h.pull().unwrap();
    }
    assert_ne!(bytes(&first), bytes(&last));
}

#[test]
fn offline_seeks_to_the_frame_at_or_before() {
    init();
    let pipeline = gst::parse::launch(
        "denseposetestsrc num-buffers=50 ! video/x-raw,width=32,height=32,framerate=10/1 ! appsink name=out sync=false",
    )
    .unwrap()
    .downcast::<gst::Pipeline>()
    .unwrap();
    let out = pipeline.by_name("out").unwrap().downcast::<gst_app::AppSink>().unwrap();
    pipeline.set_state(gst::State::Paused).unwrap();
    out.pull_preroll().unwrap();
    let flags = gst::SeekFlags::FLUSH | gst::SeekFlags::ACCURATE;
    pipeline.seek_simple(flags, gst::ClockTime::from_mseconds(1250)).unwrap();
    let sample = out.pull_preroll().unwrap();
    assert_eq!(sample.buffer().unwrap().pts(), Some(gst::ClockTime::from_mseconds(1200)));
    pipeline.set_state(gst::State::Null).unwrap();
}

#[test]
fn odd_sizes_have_gstreamer_strides() {
    let buffers = pull_all("denseposetestsrc num-buffers=1 ! video/x-raw,width=33,height=17");
    assert_eq!(buffers[0].size(), 100 * 17);
    assert_eq!(pull_all("denseposetestsrc num-buffers=1 ! video/x-raw,width=1,height=1").len(), 1);
}

#[test]
fn documented_lines_run() {
    common::check_documented_lines(SOURCE);
}
