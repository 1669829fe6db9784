//! `keyposeselect` on a harness.
mod common;

use common::{bytes, fields, flat, init, params, rgb};
use gst::prelude::*;
use gst_check::Harness;

const SOURCE: &str = include_str!("../src/keyposeselect/imp.rs");
const MS: gst::ClockTime = gst::ClockTime::from_mseconds(1);

fn harness(properties: &str) -> Harness {
    init();
    // Not `new_parse`: it wraps the element in a bin, which has no `stats`.
    let element = gst::parse::launch(&format!("keyposeselect {properties}")).unwrap();
    let mut h = Harness::with_element(&element, Some("sink"), Some("src"));
    h.set_src_caps_str(&rgb(16, 8, "25/1"));
    h.play();
    h
}

/// Pushes flat grey pictures, 40 ms apart.
fn push(h: &mut Harness, greys: &[u8], from: u64) {
    for (n, grey) in greys.iter().enumerate() {
        h.push(flat(16, 8, [*grey; 3], (from + n as u64) * 40, 40)).unwrap();
    }
}

/// Timestamps, in frames of 40 ms, of the buffers that came out.
fn keys(h: &mut Harness) -> Vec<u64> {
    std::iter::from_fn(|| h.try_pull()).map(|b| b.pts().unwrap().mseconds() / 40).collect()
}

/// Timestamps, in frames, of the GAPs that came out.
fn gaps(h: &mut Harness) -> Vec<u64> {
    let events = std::iter::from_fn(|| h.try_pull_event());
    events
        .filter_map(|event| match event.view() {
            gst::EventView::Gap(gap) => Some(gap.get().0.mseconds() / 40),
            _ => None,
        })
        .collect()
}

fn count(h: &Harness, field: &str) -> u64 {
    h.element().unwrap().property::<gst::Structure>("stats").get::<u64>(field).unwrap()
}

/// Caps of streams from the network often say 0/1. Found by fuzzing.
#[test]
fn a_stream_of_variable_frame_rate_is_taken() {
    let mut h = harness("lambda=0.01 window=100");
    h.set_src_caps_str(&rgb(16, 8, "0/1"));
    push(&mut h, &[0, 10, 40], 0);
    let mut untimed = flat(16, 8, [90; 3], 120, 0);
    untimed.get_mut().unwrap().set_duration(gst::ClockTime::NONE);
    h.push(untimed).unwrap();
    assert_eq!(keys(&mut h), [0, 2, 3]);
}

#[test]
fn motion_selects_and_marks() {
    // A step of 26 levels is an MSE of about 0.0104.
    let mut h = harness("lambda=0.01 window=100");
    push(&mut h, &[0, 10, 26, 30, 51, 53, 80], 0);
    let out: Vec<gst::Buffer> = std::iter::from_fn(|| h.try_pull()).collect();
    let marks: Vec<_> =
        out.iter().map(|b| (b.pts().unwrap().mseconds() / 40, b.offset(), b.offset_end())).collect();
    assert_eq!(marks, [(0, 0, 0), (2, 1, 2), (5, 2, 5), (6, 3, 6)]);
    assert!(out.iter().all(|b| !b.flags().contains(gst::BufferFlags::DELTA_UNIT)));
    assert_eq!(bytes(&out[1]), [26; 16 * 8 * 3]);
    assert_eq!((count(&h, "in"), count(&h, "key-motion"), count(&h, "skipped")), (7, 3, 3));
}

#[test]
fn window_bounds_the_wait() {
    let mut h = harness("lambda=1 window=3");
    push(&mut h, &[0, 1, 2, 3, 4, 5, 6, 7], 0);
    assert_eq!(keys(&mut h), [0, 3, 6]);
    assert_eq!(count(&h, "key-window"), 2);
    assert!(gaps(&mut h).is_empty());
}

#[test]
fn unchanged_poses_are_held() {
    let mut h = harness("window=3");
    push(&mut h, &[9; 8], 0);
    assert_eq!(keys(&mut h), [0]);
    assert_eq!(gaps(&mut h), [3, 6]);
    assert_eq!(count(&h, "held"), 2);
}

#[test]
fn the_last_frame_comes_before_the_end() {
    let mut h = harness("lambda=1 window=100");
    push(&mut h, &[0, 1, 2, 3], 0);
    assert_eq!(keys(&mut h), [0]);
    assert!(h.push_event(gst::event::Eos::new()));
    assert_eq!(keys(&mut h), [3]);
    assert_eq!(count(&h, "key-last"), 1);
    // Unchanged, it is a GAP, and that comes before the end, too.
    let mut h = harness("window=100");
    push(&mut h, &[7; 4], 0);
    assert!(h.push_event(gst::event::Eos::new()));
    assert_eq!(keys(&mut h), [0]);
    let types: Vec<_> = std::iter::from_fn(|| h.try_pull_event()).map(|e| e.type_()).collect();
    assert_eq!(types[types.len() - 2..], [gst::EventType::Gap, gst::EventType::Eos]);
}

#[test]
fn one_frame_is_a_stream() {
    let mut h = harness("");
    push(&mut h, &[5], 0);
    assert!(h.push_event(gst::event::Eos::new()));
    assert_eq!(keys(&mut h), [0]);
    assert_eq!((count(&h, "key"), count(&h, "key-first")), (1, 1));
}

#[test]
fn flush_starts_anew() {
    let mut h = harness("lambda=1 window=100");
    push(&mut h, &[0, 1], 0);
    assert_eq!(keys(&mut h), [0]);
    assert!(h.push_event(gst::event::FlushStart::new()));
    assert!(h.push_event(gst::event::FlushStop::builder(true).build()));
    assert!(h.push_event(gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new())));
    push(&mut h, &[1, 1], 10);
    let out: Vec<_> = std::iter::from_fn(|| h.try_pull()).map(|b| b.offset()).collect();
    assert_eq!(out, [0], "the frame that waited is gone, counting starts again");
    assert_eq!(count(&h, "in"), 2);
}

#[test]
fn a_new_size_does_not_interrupt() {
    let mut h = harness("lambda=0.01 window=100");
    push(&mut h, &[0, 1], 0);
    h.set_src_caps_str(&rgb(32, 12, "50/1"));
    h.push(flat(32, 12, [2; 3], 80, 20)).unwrap();
    assert_eq!(keys(&mut h), [0], "the pose is the same at the new size");
    h.push(flat(32, 12, [60; 3], 120, 20)).unwrap();
    assert_eq!(keys(&mut h), [3]);
    let caps = h.sinkpad().unwrap().current_caps().unwrap();
    assert_eq!(caps.structure(0).unwrap().get::<i32>("width"), Ok(32));
}

#[test]
fn properties_change_between_frames() {
    let mut h = harness("lambda=1 window=100");
    push(&mut h, &[0, 30, 60], 0);
    assert_eq!(keys(&mut h), [0]);
    h.element().unwrap().set_property("lambda", 0.01);
    push(&mut h, &[61, 62], 3);
    assert_eq!(keys(&mut h), [3]);
    h.element().unwrap().set_property("window", 2u32);
    push(&mut h, &[64, 67, 70, 73], 5);
    assert_eq!(keys(&mut h), [5, 7]);
}

#[test]
fn an_event_changes_all_at_once_in_its_place() {
    let mut h = harness("lambda=1 window=100");
    let seen = common::watch(&h.element().unwrap().static_pad("src").unwrap());
    push(&mut h, &[0, 30, 60], 0);
    let event =
        fields().field("lambda", 0.01).field("window", 2u32).field("steps", 3u32).field("nonsense", "x");
    assert!(h.push_event(params(event)));
    push(&mut h, &[61, 62, 63], 3);
    assert_eq!(
        *seen.lock().unwrap(),
        [Some(0), None, Some(120), Some(200)],
        "motion at once, then the window"
    );
    let element = h.element().unwrap();
    assert_eq!((element.property::<f64>("lambda"), element.property::<u32>("window")), (0.01, 2));
    assert_eq!(element.property::<f64>("target-key-rate"), 0., "what the event has no field for stays");
}

#[test]
fn an_event_with_a_bad_field_changes_nothing() {
    let bad: [(&str, gst::glib::SendValue, &str); 5] = [
        ("lambda", 2f64.to_send_value(), "lambda must be 0 to 1, not 2"),
        ("lambda", f64::NAN.to_send_value(), "lambda must be 0 to 1, not NaN"),
        ("lambda", "0.5".to_send_value(), "lambda must be of type gdouble, not gchararray"),
        ("lambda", 1u32.to_send_value(), "lambda must be of type gdouble, not guint"),
        ("target-key-rate", (-1f64).to_send_value(), "target-key-rate must be 0 to 1000, not -1"),
    ];
    for (name, value, text) in bad {
        let mut h = harness("lambda=1 window=100");
        let bus = gst::Bus::new();
        h.element().unwrap().set_bus(Some(&bus));
        let seen = common::watch(&h.element().unwrap().static_pad("src").unwrap());
        push(&mut h, &[0], 0);
        assert!(h.push_event(params(fields().field("window", 2u32).field(name, value))));
        push(&mut h, &[1, 2, 3], 1);
        assert_eq!(*seen.lock().unwrap(), [Some(0), None], "it passes on all the same");
        let warnings = common::messages(&bus, gst::MessageType::Warning);
        assert!(warnings.len() == 1 && warnings[0].contains(text), "{warnings:?}");
        assert_eq!(h.element().unwrap().property::<u32>("window"), 100);
        h.element().unwrap().set_bus(None);
    }
}

#[test]
fn rate_control_follows_the_motion() {
    for wanted in [3, 8] {
        let out = common::run(&format!(
            "denseposetestsrc pattern=dance num-buffers=250 ! video/x-raw,width=128,height=128,framerate=25/1 ! \
             keyposeselect target-key-rate={wanted} window=25"
        ));
        // The first two seconds are for finding λ.
        let settled = out.unwrap().iter().filter(|b| b.pts().unwrap() >= 2000 * MS).count() as f64 / 8.;
        let wanted = f64::from(wanted);
        assert!(
            (0.6 * wanted..1.5 * wanted).contains(&settled),
            "{settled} key poses a second, not {wanted}"
        );
    }
}

#[test]
fn what_the_generator_sustains_holds_key_poses_back() {
    // Motion in every frame, at random: 25 key poses a second if nothing holds them back.
    let keys_of = |every_ms: Option<u64>| {
        let mut h = harness("lambda=0.001 window=100");
        if let Some(ms) = every_ms {
            let load =
                gst::Structure::builder("keyframed-load").field("key-interval", ms * 1_000_000).build();
            assert!(h.push_upstream_event(gst::event::CustomUpstream::new(load)));
        }
        let greys: Vec<u8> = (0..500u32).map(|i| ((i * i * 31 + i * 17) % 200) as u8).collect();
        push(&mut h, &greys, 0);
        let lambda = h.element().unwrap().property::<gst::Structure>("stats").get::<f64>("lambda").unwrap();
        (keys(&mut h).len(), lambda)
    };
    let ((all, fixed), (few, raised)) = (keys_of(None), keys_of(Some(200)));
    assert!(all > 450 && fixed == 0.001, "{all} {fixed}");
    assert!((80..=160).contains(&few) && raised > 0.01, "{few} key poses in 20 s, λ {raised}");
    assert_eq!(keys_of(Some(10)), (all, fixed), "a generator that keeps up changes nothing");
}

#[test]
fn latency_is_one_frame() {
    init();
    let mut h = Harness::new_parse("keyposeselect");
    h.set_src_caps_str(&rgb(16, 8, "25/1"));
    h.set_upstream_latency(7 * MS);
    h.play();
    push(&mut h, &[0], 0);
    assert_eq!(h.query_latency(), Some(47 * MS));
}

#[test]
fn frames_without_timestamps_are_an_error() {
    let mut h = harness("");
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
fn a_stream_that_is_not_densepose_is_warned_of_once() {
    let mut h = harness("lambda=0");
    let bus = gst::Bus::new();
    h.element().unwrap().set_bus(Some(&bus));
    push(&mut h, &[200; 30], 0);
    assert!(h.push_event(gst::event::Eos::new()));
    let warnings: Vec<_> = bus.iter_filtered(&[gst::MessageType::Warning]).collect();
    assert_eq!(warnings.len(), 1);
    let gst::MessageView::Warning(warning) = warnings[0].view() else { unreachable!() };
    assert!(warning.error().to_string().starts_with("100 %"), "{}", warning.error());
    assert_eq!(keys(&mut h).len(), 30, "the stream runs on");
    h.element().unwrap().set_bus(None);
}

#[test]
fn runs_repeat() {
    let launch = "denseposetestsrc pattern=walk num-buffers=40 ! video/x-raw,width=96,height=96 ! keyposeselect lambda=0.003";
    let film = || -> Vec<_> { common::run(launch).unwrap().iter().map(|b| (b.pts(), bytes(b))).collect() };
    let first = film();
    assert!((3..38).contains(&first.len()), "{} key poses", first.len());
    assert_eq!(first, film());
}

#[test]
fn documented_lines_run() {
    common::check_documented_lines(SOURCE);
}
