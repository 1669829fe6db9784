//! `filminterpolate`, offline and on a test clock.
mod common;

use std::sync::{Arc, Mutex};

use common::{bytes, fields, first_pixel, flat, init, params, rgb};
use gst::prelude::*;
use gst_check::Harness;
use gstkeyframed::filminterpolate::Quality;

const SOURCE: &str = include_str!("../src/filminterpolate/imp.rs");
const MS: gst::ClockTime = gst::ClockTime::from_mseconds(1);

fn harness(live: bool, quality: &str, input: &str, output: &str) -> Harness {
    init();
    let element = gst::ElementFactory::make("filminterpolate")
        .property_from_str("max-quality", quality)
        .property("latency", 500_000_000u64)
        .build()
        .unwrap();
    let mut h = Harness::with_element(&element, Some("sink"), Some("src"));
    h.set_live(live);
    h.set_src_caps_str(&rgb(16, 8, input));
    if !output.is_empty() {
        h.set_sink_caps_str(&format!("video/x-raw,framerate={output}"));
    }
    h.play();
    h
}

fn key(h: &mut Harness, grey: u8, ms: u64) {
    h.push(flat(16, 8, [grey; 3], ms, 40)).unwrap();
}

fn gap(h: &mut Harness, ms: u64) {
    assert!(h.push_event(gst::event::Gap::builder(ms * MS).duration(40 * MS).build()));
}

/// (timestamp in ms, first value) of what came out.
fn film(h: &mut Harness) -> Vec<(u64, u8)> {
    std::iter::from_fn(|| h.try_pull()).map(|b| (b.pts().unwrap().mseconds(), first_pixel(&b)[0])).collect()
}

fn events(h: &mut Harness) -> Vec<gst::EventType> {
    std::iter::from_fn(|| h.try_pull_event()).map(|e| e.type_()).collect()
}

fn stat(h: &Harness, field: &str) -> u64 {
    h.element().unwrap().property::<gst::Structure>("stats").get::<u64>(field).unwrap()
}

#[test]
fn offline_fills_the_time_between_key_frames() {
    let mut h = harness(false, "crossfade", "25/1", "50/1");
    key(&mut h, 0, 0);
    assert_eq!(film(&mut h), [], "nothing is decided before the next key frame");
    key(&mut h, 80, 80);
    assert_eq!(film(&mut h), [(0, 0), (20, 20), (40, 40), (60, 60)]);
    key(&mut h, 0, 160);
    assert!(h.push_event(gst::event::Eos::new()));
    assert_eq!(film(&mut h), [(80, 80), (100, 60), (120, 40), (140, 20), (160, 0), (180, 0)]);
    use gst::EventType as T;
    assert_eq!(events(&mut h), [T::StreamStart, T::Caps, T::Segment, T::Eos]);
    assert_eq!(
        (stat(&h, "in"), stat(&h, "out"), stat(&h, "interpolated"), stat(&h, "repeated")),
        (3, 10, 6, 1)
    );
    assert_eq!((stat(&h, "crossfade"), stat(&h, "dropped"), stat(&h, "late")), (6, 0, 0));
}

#[test]
fn offline_count_is_duration_times_rate() {
    for (rate, keys) in [("50/1", 7), ("30000/1001", 13), ("24/1", 2), ("10/1", 9), ("60/1", 1), ("7/3", 30)]
    {
        let mut h = harness(false, "repeat", "25/1", rate);
        for n in 0..keys {
            // Irregular, as key poses come.
            key(&mut h, n as u8, n * 40 + n * n * 3 / 40 * 40);
        }
        assert!(h.push_event(gst::event::Eos::new()));
        let out: Vec<gst::Buffer> = std::iter::from_fn(|| h.try_pull()).collect();
        let last = keys - 1;
        let duration = (last * 40 + last * last * 3 / 40 * 40 + 40) as f64 / 1000.;
        let fps =
            rate.split_once('/').map(|(n, d)| n.parse::<f64>().unwrap() / d.parse::<f64>().unwrap()).unwrap();
        assert!(
            (out.len() as f64 - duration * fps).abs() <= 1.,
            "{} frames at {rate} in {duration} s",
            out.len()
        );
        for pair in out.windows(2) {
            assert_eq!(pair[0].pts().unwrap() + pair[0].duration().unwrap(), pair[1].pts().unwrap());
        }
        let end = out[out.len() - 1].pts().unwrap() + out[out.len() - 1].duration().unwrap();
        assert!(
            (end.nseconds() as f64 * 1e-9 - duration).abs() <= 1. / fps,
            "{end} for {duration} s at {rate}"
        );
    }
}

#[test]
fn held_key_frames_repeat_then_move() {
    let mut h = harness(false, "crossfade", "25/1", "25/1");
    key(&mut h, 100, 0);
    gap(&mut h, 120);
    key(&mut h, 200, 200);
    assert_eq!(film(&mut h), [(0, 100), (40, 100), (80, 100), (120, 100), (160, 150)]);
    gap(&mut h, 280);
    assert!(h.push_event(gst::event::Eos::new()));
    // The input ends with the frame that the GAP stands for.
    assert_eq!(film(&mut h), [(200, 200), (240, 200), (280, 200)]);
}

#[test]
fn one_key_frame_and_none() {
    let mut h = harness(false, "warp", "25/1", "");
    key(&mut h, 9, 40);
    assert!(h.push_event(gst::event::Eos::new()));
    assert_eq!(film(&mut h), [(40, 9)]);
    let mut h = harness(false, "warp", "25/1", "");
    assert!(h.push_event(gst::event::Eos::new()));
    assert_eq!(film(&mut h), []);
    assert_eq!(events(&mut h).last(), Some(&gst::EventType::Eos));
}

#[test]
fn rate_comes_from_downstream_then_input_then_25() {
    for (input, output, rate) in
        [("25/1", "60/1", 60), ("30/1", "", 30), ("0/1", "", 25), ("25/1", "[1/1,20/1]", 20)]
    {
        let mut h = harness(false, "repeat", input, output);
        key(&mut h, 0, 0);
        key(&mut h, 0, 1000);
        let caps = h.sinkpad().unwrap().current_caps().unwrap();
        let fps = gst_video::VideoInfo::from_caps(&caps).unwrap().fps();
        assert_eq!(fps, gst::Fraction::new(rate, 1), "{input} to {output:?}");
        assert_eq!(film(&mut h).len(), rate as usize);
    }
}

/// At a variable rate a key frame without a duration lasts no time. Found by fuzzing.
#[test]
fn a_variable_frame_rate_needs_no_durations() {
    let mut h = harness(false, "repeat", "0/1", "25/1");
    for ms in [0, 80] {
        let mut untimed = flat(16, 8, [ms as u8; 3], ms, 0);
        untimed.get_mut().unwrap().set_duration(gst::ClockTime::NONE);
        h.push(untimed).unwrap();
    }
    assert_eq!(film(&mut h), [(0, 0), (40, 0)]);
}

#[test]
fn a_new_size_is_not_mixed_with_the_old() {
    let mut h = harness(false, "crossfade", "25/1", "25/1");
    key(&mut h, 10, 0);
    h.set_src_caps_str(&rgb(32, 8, "25/1"));
    h.push(flat(32, 8, [90; 3], 160, 40)).unwrap();
    h.push(flat(32, 8, [10; 3], 240, 40)).unwrap();
    let out: Vec<_> = std::iter::from_fn(|| h.try_pull()).map(|b| (b.size(), first_pixel(&b)[0])).collect();
    assert_eq!(out, [(384, 10), (384, 10), (384, 10), (384, 10), (768, 90), (768, 50)]);
    use gst::EventType as T;
    assert_eq!(events(&mut h), [T::StreamStart, T::Caps, T::Segment, T::Caps]);
}

#[test]
fn a_new_rate_starts_at_the_last_key_frame() {
    let mut h = harness(false, "crossfade", "25/1", "25/1");
    key(&mut h, 0, 0);
    key(&mut h, 80, 80);
    assert_eq!(film(&mut h), [(0, 0), (40, 40)]);
    h.set_sink_caps_str("video/x-raw,framerate=100/1");
    key(&mut h, 120, 120);
    assert_eq!(film(&mut h), [(80, 80), (90, 90), (100, 100), (110, 110)]);
}

#[test]
fn odd_widths_keep_their_pixels() {
    init();
    // 33 pixels a row are 99 bytes, padded to 100.
    let launch = "denseposetestsrc pattern=dance num-buffers=9 ! video/x-raw,width=33,height=17,framerate=25/1 ! tee name=t ! \
                  queue ! filminterpolate max-quality=repeat ! video/x-raw,framerate=25/1";
    let out = common::run(launch).unwrap();
    let plain = common::run(
        "denseposetestsrc pattern=dance num-buffers=9 ! video/x-raw,width=33,height=17,framerate=25/1",
    )
    .unwrap();
    assert_eq!(out.len(), 9);
    let pixels =
        |b: &gst::Buffer| -> Vec<u8> { bytes(b).chunks(100).flat_map(|row| row[..99].to_vec()).collect() };
    for (a, b) in out.iter().zip(&plain) {
        assert_eq!(pixels(a), pixels(b));
    }
}

#[test]
fn timestamps_are_running_times() {
    let mut h = harness(false, "repeat", "25/1", "25/1");
    let mut segment = gst::FormattedSegment::<gst::ClockTime>::new();
    segment.set_start(5000 * MS);
    segment.set_time(5000 * MS);
    segment.set_base(120 * MS);
    assert!(h.push_event(gst::event::Segment::new(&segment)));
    key(&mut h, 1, 4000);
    key(&mut h, 2, 5000);
    key(&mut h, 3, 5080);
    assert_eq!(film(&mut h), [(120, 2), (160, 2)], "what lies before the segment is not shown");
    let sent = std::iter::from_fn(|| h.try_pull_event()).find_map(|e| match e.view() {
        gst::EventView::Segment(s) => s.segment().downcast_ref::<gst::ClockTime>().cloned(),
        _ => None,
    });
    let sent = sent.unwrap();
    assert_eq!((sent.start(), sent.time()), (Some(gst::ClockTime::ZERO), Some(5000 * MS)));
}

#[test]
fn flush_forgets() {
    let mut h = harness(false, "crossfade", "25/1", "25/1");
    key(&mut h, 0, 0);
    key(&mut h, 0, 400);
    film(&mut h);
    assert!(h.push_event(gst::event::FlushStart::new()));
    assert!(h.push_event(gst::event::FlushStop::builder(true).build()));
    assert!(h.push_event(gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new())));
    key(&mut h, 60, 80);
    key(&mut h, 60, 160);
    assert_eq!(film(&mut h), [(80, 60), (120, 60)], "time may go back, no old picture is mixed in");
    assert_eq!(stat(&h, "in"), 4);
}

#[test]
fn key_frames_at_a_time_that_is_taken_are_not_used() {
    let mut h = harness(false, "crossfade", "25/1", "25/1");
    key(&mut h, 0, 0);
    key(&mut h, 50, 0);
    key(&mut h, 80, 80);
    assert_eq!(film(&mut h), [(0, 0), (40, 40)]);
}

#[test]
fn frames_without_timestamps_are_an_error() {
    let mut h = harness(false, "repeat", "25/1", "");
    let bus = gst::Bus::new();
    h.element().unwrap().set_bus(Some(&bus));
    let mut buffer = flat(16, 8, [0; 3], 0, 40);
    buffer.get_mut().unwrap().set_pts(gst::ClockTime::NONE);
    assert_eq!(h.push(buffer), Err(gst::FlowError::Error));
    let message = bus.pop_filtered(&[gst::MessageType::Error]).unwrap();
    let gst::MessageView::Error(error) = message.view() else { unreachable!() };
    assert!(error.error().to_string().contains("timestamps"), "{}", error.error());
    h.element().unwrap().set_bus(None);
}

#[test]
fn runs_repeat() {
    let launch = "denseposetestsrc pattern=dance num-buffers=25 ! video/x-raw,width=64,height=64 ! keyposeselect ! \
                  filminterpolate max-quality=warp ! video/x-raw,framerate=60/1";
    let film = || -> Vec<_> { common::run(launch).unwrap().iter().map(|b| (b.pts(), bytes(b))).collect() };
    let first = film();
    assert_eq!(first.len(), 60);
    assert_eq!(first, film());
}

/// Sets the clock to the next wait of the output task, and pulls what comes then: (clock, timestamp, value).
#[track_caller]
fn tick(h: &mut Harness) -> (u64, u64, u8) {
    h.crank_single_clock_wait().unwrap();
    let buffer = h.pull().unwrap();
    let now = h.testclock().unwrap().time().mseconds();
    (now, buffer.pts().unwrap().mseconds(), first_pixel(&buffer)[0])
}

fn live(quality: &str) -> Harness {
    let mut h = harness(true, quality, "25/1", "25/1");
    h.set_upstream_latency(100 * MS);
    h.set_time(gst::ClockTime::ZERO).unwrap();
    h
}

#[test]
fn live_ticks_keep_the_promised_latency() {
    let mut h = live("crossfade");
    assert_eq!(h.query_latency(), Some(600 * MS));
    key(&mut h, 0, 0);
    key(&mut h, 100, 100);
    // Due at 600, one tick of 40 ms earlier to have time for making it.
    assert_eq!(tick(&mut h), (560, 0, 0));
    assert_eq!(tick(&mut h), (600, 40, 40));
    assert_eq!(tick(&mut h), (640, 80, 80));
    key(&mut h, 200, 200);
    // 120 lies 20 % of the way from 100 to 200.
    assert_eq!(tick(&mut h), (680, 120, 120));
}

#[test]
fn live_repeats_when_nothing_new_comes() {
    let mut h = live("crossfade");
    key(&mut h, 7, 0);
    for n in 0..30 {
        assert_eq!(tick(&mut h), (560 + 40 * n, 40 * n, 7));
    }
    assert_eq!((stat(&h, "out"), stat(&h, "repeated"), stat(&h, "dropped")), (30, 29, 0));
    // A key frame that comes late is approached from what is on show, without a jump.
    key(&mut h, 107, 1260);
    let (_, pts, grey) = tick(&mut h);
    assert_eq!(pts, 1200);
    assert!(grey > 7 && grey < 107, "{grey}");
}

#[test]
fn live_stall_gives_one_late_picture_and_no_burst() {
    let mut h = live("crossfade");
    key(&mut h, 7, 0);
    assert_eq!(tick(&mut h), (560, 0, 7));
    h.testclock().unwrap().wait_for_next_pending_id();
    // The whole pipeline sleeps for a second.
    h.testclock().unwrap().set_time(1610 * MS);
    h.testclock().unwrap().process_next_clock_id();
    let late = h.pull().unwrap();
    assert_eq!(late.pts(), Some(1040 * MS), "the newest tick due");
    assert_eq!(tick(&mut h), (1640, 1080, 7), "and then the grid goes on");
    assert_eq!((stat(&h, "late"), stat(&h, "dropped")), (1, 25));
}

#[test]
fn live_end_of_stream_comes_after_the_last_picture() {
    let mut h = live("crossfade");
    key(&mut h, 0, 0);
    key(&mut h, 80, 80);
    assert!(h.push_event(gst::event::Eos::new()));
    assert_eq!(tick(&mut h), (560, 0, 0));
    assert!(!events(&mut h).contains(&gst::EventType::Eos));
    assert_eq!(tick(&mut h), (600, 40, 40));
    assert_eq!(tick(&mut h), (640, 80, 80));
    let end = h.pull_event().unwrap();
    assert_eq!(end.type_(), gst::EventType::Eos);
    assert_eq!(h.push(flat(16, 8, [0; 3], 120, 40)), Err(gst::FlowError::Eos));
}

#[test]
fn live_flush_and_go_on() {
    let mut h = live("crossfade");
    key(&mut h, 1, 0);
    assert_eq!(tick(&mut h), (560, 0, 1));
    assert!(h.push_event(gst::event::FlushStart::new()));
    assert_eq!(h.push(flat(16, 8, [0; 3], 40, 40)), Err(gst::FlowError::Flushing));
    assert!(h.push_event(gst::event::FlushStop::builder(false).build()));
    assert!(h.push_event(gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new())));
    key(&mut h, 2, 1000);
    assert_eq!(tick(&mut h), (1560, 1000, 2));
}

#[test]
fn latency_changes_at_once() {
    let mut h = live("crossfade");
    key(&mut h, 1, 0);
    assert_eq!(tick(&mut h), (560, 0, 1));
    h.testclock().unwrap().wait_for_next_pending_id();
    h.element().unwrap().set_property("latency", 700_000_000u64);
    assert_eq!(h.query_latency(), Some(800 * MS));
    // Until the old wait, for 600, is gone from the test clock.
    while h.testclock().unwrap().wait_for_next_pending_id().time() != 800 * MS {
        std::thread::yield_now();
    }
    assert_eq!(tick(&mut h), (800, 40, 1), "nothing is repeated or skipped, the next tick comes later");
    assert_eq!(tick(&mut h), (840, 80, 1));
}

#[test]
fn an_event_changes_all_at_once_and_leaves_before_the_next_picture() {
    let mut h = harness(false, "crossfade", "25/1", "25/1");
    let seen = common::watch(&h.element().unwrap().static_pad("src").unwrap());
    key(&mut h, 0, 0);
    key(&mut h, 80, 80);
    let event = fields().field("latency", 700_000_000u64).field("window", 3u32);
    assert!(h.push_event(params(event.field("max-quality", Quality::Repeat))));
    key(&mut h, 160, 160);
    assert_eq!(film(&mut h), [(0, 0), (40, 40), (80, 80), (120, 80)]);
    assert_eq!(*seen.lock().unwrap(), [Some(0), Some(40), None, Some(80), Some(120)]);
    assert_eq!(h.element().unwrap().property::<u64>("latency"), 700_000_000);
    let bus = gst::Bus::new();
    h.element().unwrap().set_bus(Some(&bus));
    let event = fields().field("latency", 61_000_000_000u64).field("max-quality", Quality::Warp);
    assert!(h.push_event(params(event)));
    assert!(h.push_event(params(fields().field("latency", 1u64).field("max-quality", 1i32))));
    let warnings = common::messages(&bus, gst::MessageType::Warning);
    assert!(warnings[0].contains("latency must be 0 to 60000000000"), "{warnings:?}");
    assert!(warnings[1].contains("max-quality must be of type GstFilmInterpolateQuality"), "{warnings:?}");
    assert_eq!(h.element().unwrap().property::<u64>("latency"), 700_000_000);
    h.element().unwrap().set_bus(None);
}

#[test]
fn events_before_the_first_picture_do_not_pile_up() {
    for is_live in [false, true] {
        let mut h = if is_live { live("crossfade") } else { harness(false, "crossfade", "25/1", "25/1") };
        let events = Arc::new(Mutex::new(Vec::new()));
        let seen = events.clone();
        let src = h.element().unwrap().static_pad("src").unwrap();
        src.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
            if let Some(event) = info.event().filter(|event| event.has_name("keyframed-params")) {
                seen.lock().unwrap().push(event.structure().unwrap().to_owned());
            }
            gst::PadProbeReturn::Ok
        });
        for n in 0..500u64 {
            assert!(h.push_event(params(fields().field("seed", n).field("latency", (500 + n) * 1_000_000))));
            assert!(h.push_event(params(fields().field("lambda", 0.5))));
        }
        key(&mut h, 0, 0);
        if is_live {
            tick(&mut h);
        } else {
            key(&mut h, 80, 80);
            h.pull().unwrap();
        }
        let events = events.lock().unwrap();
        assert_eq!(events.len(), 1, "{events:?}");
        assert_eq!((events[0].get("seed"), events[0].get("lambda")), (Ok(499u64), Ok(0.5)));
        assert_eq!(h.element().unwrap().property::<u64>("latency"), 999_000_000);
    }
}

#[test]
fn live_a_better_quality_than_at_start_takes_effect_at_once() {
    let mut h = live("repeat");
    key(&mut h, 0, 0);
    key(&mut h, 200, 200);
    assert_eq!((tick(&mut h), tick(&mut h)), ((560, 0, 0), (600, 40, 0)));
    h.testclock().unwrap().wait_for_next_pending_id();
    h.element().unwrap().set_property_from_str("max-quality", "crossfade");
    let (_, pts, grey) = tick(&mut h);
    assert!(pts == 80 && grey > 0, "better than at the start, and at once: {grey}");
    assert_eq!(stat(&h, "crossfade"), 1);
}

#[test]
fn stopping_does_not_wait_for_the_clock() {
    let mut h = live("crossfade");
    key(&mut h, 1, 0);
    h.testclock().unwrap().wait_for_next_pending_id();
    h.element().unwrap().set_state(gst::State::Null).unwrap();
}

#[cfg(not(feature = "torch"))]
#[test]
fn without_film_a_warning_and_the_warp() {
    let mut h = harness(false, "film", "25/1", "25/1");
    let bus = gst::Bus::new();
    h.element().unwrap().set_bus(Some(&bus));
    for n in 0..4 {
        key(&mut h, 10 * n, u64::from(n) * 80);
    }
    let warnings: Vec<_> = bus.iter_filtered(&[gst::MessageType::Warning]).collect();
    assert_eq!(warnings.len(), 1);
    assert_eq!((stat(&h, "warp"), stat(&h, "film")), (3, 0));
    h.element().unwrap().set_bus(None);
}

#[test]
fn documented_lines_run() {
    common::check_documented_lines(SOURCE);
}
