//! `filminterpolate` live with FILM itself, small and random.
mod common;
#[path = "../../../models/tests/tiny/mod.rs"]
mod tiny;

use std::time::Duration;

use common::{bytes, init, rgb};
use gst::prelude::*;
use gst_check::Harness;
use tiny::Tiny;

const MS: gst::ClockTime = gst::ClockTime::from_mseconds(1);

fn harness(model: &std::path::Path, live: bool) -> Harness {
    init();
    let element = gst::ElementFactory::make("filminterpolate")
        .property("model", model.to_str().unwrap())
        .property("device", "cpu")
        .property("latency", 500_000_000u64)
        .build()
        .unwrap();
    let mut h = Harness::with_element(&element, Some("sink"), Some("src"));
    h.set_live(live);
    h.set_src_caps_str(&rgb(32, 16, "25/1"));
    h.set_sink_caps_str("video/x-raw,framerate=25/1");
    h.play();
    if live {
        h.set_upstream_latency(100 * MS);
        h.set_time(gst::ClockTime::ZERO).unwrap();
    }
    h
}

/// A picture that differs from those at other times.
fn key(h: &mut Harness, ms: u64) {
    let data: Vec<u8> = (0..32 * 16 * 3).map(|i| (i * 7 + ms * 13) as u8).collect();
    let mut buffer = gst::Buffer::from_mut_slice(data);
    let buffer_ref = buffer.get_mut().unwrap();
    buffer_ref.set_pts(ms * MS);
    buffer_ref.set_duration(40 * MS);
    h.push(buffer).unwrap();
}

fn stats(h: &Harness) -> gst::Structure {
    h.element().unwrap().property("stats")
}

#[track_caller]
fn eventually(h: &Harness, what: &str, is: impl Fn(&gst::StructureRef) -> bool) {
    for _ in 0..6000 {
        if is(&stats(h)) {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("{what} does not come: {:?}", stats(h));
}

#[test]
fn what_is_made_ahead_is_what_is_made_offline() {
    let dir = tempfile::tempdir().unwrap();
    Tiny::new(dir.path());
    let times = [0, 160, 200, 320];
    let mut h = harness(dir.path(), false);
    times.iter().for_each(|ms| key(&mut h, *ms));
    let offline: Vec<_> = std::iter::from_fn(|| h.try_pull()).map(|b| bytes(&b)).collect();
    assert_eq!(offline.len(), 8);

    let mut h = harness(dir.path(), true);
    key(&mut h, times[0]);
    eventually(&h, "FILM", |stats| stats.get("rung") == Ok("film"));
    times[1..].iter().for_each(|ms| key(&mut h, *ms));
    eventually(&h, "all in-betweens", |stats| stats.get("prepared") == Ok(5u64));
    for (n, picture) in offline.iter().enumerate() {
        h.crank_single_clock_wait().unwrap();
        let buffer = h.pull().unwrap();
        assert_eq!(buffer.pts(), Some(40 * n as u64 * MS));
        assert!(bytes(&buffer) == *picture, "picture {n} differs");
    }
    let stats = stats(&h);
    for (field, count) in [("film", 5u64), ("warp", 0), ("missed", 0), ("declined", 0), ("late", 0)] {
        assert_eq!(stats.get(field), Ok(count), "{field}");
    }
}

#[test]
fn flush_and_stop_at_any_time() {
    let dir = tempfile::tempdir().unwrap();
    Tiny::new(dir.path());
    for round in 0..8 {
        let mut h = harness(dir.path(), true);
        key(&mut h, 0);
        if round > 0 {
            eventually(&h, "FILM", |stats| stats.get("rung") == Ok("film"));
        }
        key(&mut h, 480);
        // FILM is loading, beginning, or in the middle.
        if round > 4 {
            eventually(&h, "an in-between", |stats| stats.get("prepared").is_ok_and(|n: u64| n > 0));
        }
        if round % 2 == 0 {
            assert!(h.push_event(gst::event::FlushStart::new()));
            assert!(h.push_event(gst::event::FlushStop::builder(false).build()));
            let segment = gst::FormattedSegment::<gst::ClockTime>::new();
            assert!(h.push_event(gst::event::Segment::new(&segment)));
            key(&mut h, 0);
            key(&mut h, 480);
        }
        let element = h.element().unwrap();
        element.set_state(gst::State::Null).unwrap();
        let weak = element.downgrade();
        drop((element, h));
        assert!(weak.upgrade().is_none(), "nothing holds the element");
    }
}
