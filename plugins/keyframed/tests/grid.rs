//! What sinks and applications see of the timing, stage 1 and stage 4 together: the grid, the LATENCY query, QoS,
//! flushes, new caps and new segments. Needs no networks.
mod common;

use common::{first_pixel, flat, init, messages, rgb};
use gst::prelude::*;
use gst_check::Harness;

const MS: gst::ClockTime = gst::ClockTime::from_mseconds(1);
const SECOND: gst::ClockTime = gst::ClockTime::SECOND;

/// Every pose is a key pose, and cross-fades lie between them; upstream is live and declares 100 ms.
fn harness(input: &str, output: &str) -> (gst::Bin, Harness) {
    init();
    let line = "keyposeselect lambda=0 ! filminterpolate name=i max-quality=crossfade latency=500000000";
    let bin = gst::parse::bin_from_description(line, true).unwrap();
    let mut h = Harness::with_element(&bin, Some("sink"), Some("src"));
    h.set_live(true);
    h.set_src_caps_str(&rgb(16, 8, input));
    h.set_sink_caps_str(&format!("video/x-raw,framerate={output}"));
    h.set_upstream_latency(100 * MS);
    h.play();
    h.set_time(gst::ClockTime::ZERO).unwrap();
    (bin, h)
}

fn pose(h: &mut Harness, grey: u8, ms: u64) {
    h.push(flat(16, 8, [grey; 3], ms, 40)).unwrap();
}

/// Turns the clock from wait to wait until the output has sent something.
#[track_caller]
fn next(h: &mut Harness) -> (u64, gst::Buffer) {
    for _ in 0..10 {
        h.crank_single_clock_wait().unwrap();
        let clock = h.testclock().unwrap();
        let now = clock.time().mseconds();
        // Whatever it did, it waits again.
        clock.wait_for_next_pending_id();
        if let Some(buffer) = h.try_pull() {
            return (now, buffer);
        }
    }
    panic!("ten turns without a picture");
}

/// The next picture: (clock, timestamp, value).
#[track_caller]
fn tick(h: &mut Harness) -> (u64, u64, u8) {
    let (now, buffer) = next(h);
    (now, buffer.pts().unwrap().mseconds(), first_pixel(&buffer)[0])
}

fn segment(start: gst::ClockTime, base: gst::ClockTime) -> gst::Event {
    let mut segment = gst::FormattedSegment::<gst::ClockTime>::new();
    segment.set_start(start);
    segment.set_time(start);
    segment.set_base(base);
    gst::event::Segment::new(&segment)
}

fn stat(bin: &gst::Bin, field: &str) -> u64 {
    let stats = bin.by_name("i").unwrap().property::<gst::Structure>("stats");
    stats.get::<u64>(field).unwrap()
}

/// Timestamps of all buffers that come to a pad.
fn timestamps(pad: &gst::Pad) -> std::sync::Arc<std::sync::Mutex<Vec<u64>>> {
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let sink = seen.clone();
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        sink.lock().unwrap().extend(info.buffer().and_then(|b| b.pts()).map(gst::ClockTime::nseconds));
        gst::PadProbeReturn::Ok
    });
    seen
}

/// By the real clock, so nothing is said of how many ticks a busy machine leaves out.
#[test]
fn sinks_of_all_kinds_see_the_same_grid() {
    init();
    let file = tempfile::Builder::new().suffix(".mkv").tempfile().unwrap();
    let pipeline = gst::parse::launch(&format!(
        "denseposetestsrc is-live=true pattern=dance num-buffers=50 ! \
         video/x-raw,width=64,height=64,framerate=25/1 ! keyposeselect ! \
         filminterpolate max-quality=crossfade latency=300000000 ! video/x-raw,framerate=30000/1001 ! \
         tee name=t ! queue ! fakesink name=fake sync=true \
         t. ! queue ! appsink name=app sync=true \
         t. ! queue ! matroskamux ! filesink location={}",
        file.path().display()
    ))
    .unwrap()
    .downcast::<gst::Pipeline>()
    .unwrap();
    let fake = timestamps(&pipeline.by_name("fake").unwrap().static_pad("sink").unwrap());
    let app = pipeline.by_name("app").unwrap().downcast::<gst_app::AppSink>().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let mut pulled = Vec::new();
    while let Ok(sample) = app.pull_sample() {
        let buffer = sample.buffer().unwrap();
        pulled.push((buffer.pts().unwrap().nseconds(), buffer.duration().unwrap().nseconds()));
    }
    let ends = [gst::MessageType::Eos, gst::MessageType::Error];
    let end = pipeline.bus().unwrap().timed_pop_filtered(60 * SECOND, &ends).unwrap();
    assert_eq!(end.type_(), gst::MessageType::Eos);
    pipeline.set_state(gst::State::Null).unwrap();

    let at: Vec<u64> = pulled.iter().map(|p| p.0).collect();
    assert!(at.len() > 10, "{at:?}");
    assert_eq!(*fake.lock().unwrap(), at, "fakesink and appsink");
    check_grid(&pulled);
    let location = file.path().display();
    let stored = common::run(&format!("filesrc location={location} ! matroskademux ! video/x-raw")).unwrap();
    assert_eq!(stored.len(), at.len(), "all are in the file");
    for (buffer, time) in stored.iter().zip(&at) {
        // Matroska's timestamps are in milliseconds.
        let off = buffer.pts().unwrap().nseconds().abs_diff(*time);
        assert!(off <= 500_001, "{:?} is not {time} in the file", buffer.pts());
    }
}

/// (timestamp, duration) lie on the grid of 30000/1001 from the first on, each later than the one before.
#[track_caller]
fn check_grid(at: &[(u64, u64)]) {
    let time = |n: u64| at[0].0 + (n as f64 * 1001e9 / 30_000.).round() as u64;
    let mut last = None;
    for (pts, duration) in at {
        let n = ((pts - at[0].0) as f64 * 30_000. / 1001e9).round() as u64;
        assert!(time(n).abs_diff(*pts) <= 1, "{pts} is off the grid");
        assert!(time(n + 1).abs_diff(pts + duration) <= 1, "{pts} lasts {duration}");
        assert!(last < Some(n), "tick {n} comes twice, or out of order");
        last = Some(n);
    }
}

#[track_caller]
fn eventually(what: &str, mut is: impl FnMut() -> bool) {
    for _ in 0..4000 {
        if is() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    panic!("{what} does not come");
}

/// Timestamps of what comes to a synchronising sink at 50 pictures a second, milliseconds, and how many were late. The
/// clock moves on whenever so many threads wait for it.
fn at_a_sink(queue: &str, waiting: u32) -> (Vec<u64>, u64) {
    init();
    let line = format!(
        "appsrc name=poses is-live=true format=time ! filminterpolate name=i max-quality=crossfade latency=200000000 ! \
         video/x-raw,framerate=50/1 ! {queue} fakesink name=sink sync=true"
    );
    let pipeline = gst::parse::launch(&line).unwrap().downcast::<gst::Pipeline>().unwrap();
    let clock = gst_check::TestClock::new();
    pipeline.use_clock(Some(&clock));
    // What is asked for, and the sink's own `processing-deadline`.
    pipeline.set_latency(220 * MS);
    let seen = timestamps(&pipeline.by_name("sink").unwrap().static_pad("sink").unwrap());
    let poses = pipeline.by_name("poses").unwrap().downcast::<gst_app::AppSrc>().unwrap();
    poses.set_caps(Some(&rgb(16, 8, "25/1").parse().unwrap()));
    pipeline.set_state(gst::State::Playing).unwrap();
    for n in 0..4 {
        poses.push_buffer(flat(16, 8, [50 * n; 3], 200 * u64::from(n), 40)).unwrap();
    }
    let turn = |waiting| {
        eventually("threads that wait", || clock.peek_id_count() >= waiting);
        clock.crank();
    };
    // At first only the output does.
    turn(1);
    for _ in 0..40 {
        turn(waiting);
    }
    let late = stat(pipeline.upcast_ref(), "late");
    pipeline.set_state(gst::State::Null).unwrap();
    let seen = seen.lock().unwrap().iter().map(|ns| ns / 1_000_000).collect();
    (seen, late)
}

#[test]
fn a_queue_in_front_of_a_sink_that_waits_leaves_time_for_the_next_tick() {
    let (seen, late) = at_a_sink("queue max-size-buffers=2 max-size-bytes=0 max-size-time=0 !", 2);
    assert_eq!(late, 0);
    assert!(seen.len() > 15, "{seen:?}");
    assert!(seen.iter().zip(0..).all(|(pts, n)| *pts == 20 * n), "{seen:?}");
    // Without it the output waits in the sink.
    let (seen, late) = at_a_sink("", 1);
    assert!(late > 15, "{late}: {seen:?}");
    assert!(seen.iter().zip(0..).all(|(pts, n)| *pts == 40 * n), "{seen:?}");
}

#[test]
fn a_new_input_rate_changes_the_latency_and_says_so() {
    let (bin, mut h) = harness("25/1", "25/1");
    let bus = gst::Bus::new();
    bin.set_bus(Some(&bus));
    pose(&mut h, 0, 0);
    assert_eq!(h.query_latency(), Some(640 * MS), "upstream's, a frame, and what was asked for");
    messages(&bus, gst::MessageType::Latency);
    h.set_src_caps_str(&rgb(16, 8, "50/1"));
    pose(&mut h, 0, 40);
    assert_eq!(messages(&bus, gst::MessageType::Latency).len(), 1);
    assert_eq!(h.query_latency(), Some(620 * MS));
    h.set_src_caps_str(&rgb(32, 8, "50/1"));
    h.push(flat(32, 8, [0; 3], 60, 20)).unwrap();
    assert!(messages(&bus, gst::MessageType::Latency).is_empty(), "a new size is nothing to the latency");
    bin.by_name("i").unwrap().set_property("latency", 300_000_000u64);
    assert_eq!(messages(&bus, gst::MessageType::Latency).len(), 1);
    assert_eq!(h.query_latency(), Some(420 * MS));
    bin.set_bus(None::<&gst::Bus>);
}

/// The first caps of a live stream come after the pipeline has asked for its latency.
#[test]
fn the_first_caps_change_the_latency_and_say_so() {
    init();
    let select = gst::ElementFactory::make("keyposeselect").build().unwrap();
    let bus = gst::Bus::new();
    select.set_bus(Some(&bus));
    let mut h = Harness::with_element(&select, Some("sink"), Some("src"));
    h.set_live(true);
    h.play();
    assert_eq!(h.query_latency(), Some(gst::ClockTime::ZERO));
    h.set_src_caps_str(&rgb(16, 8, "10/1"));
    pose(&mut h, 0, 0);
    assert_eq!(messages(&bus, gst::MessageType::Latency).len(), 1);
    assert_eq!(h.query_latency(), Some(100 * MS));
    select.set_bus(None);
}

#[test]
fn what_is_sent_keeps_the_latency_that_was_answered() {
    for input in ["25/1", "10/1", "60/1"] {
        let (_bin, mut h) = harness(input, "25/1");
        pose(&mut h, 0, 0);
        let latency = h.query_latency().unwrap().mseconds();
        pose(&mut h, 200, 200);
        for n in 0..20 {
            let (now, pts, _) = tick(&mut h);
            // One tick early, to have time for making it.
            assert_eq!((now, pts), (40 * n + latency - 40, 40 * n), "input at {input}");
        }
    }
}

#[test]
fn qos_events_pass_upstream_and_change_nothing() {
    let (bin, mut h) = harness("25/1", "25/1");
    pose(&mut h, 0, 0);
    pose(&mut h, 100, 100);
    assert_eq!(tick(&mut h), (600, 0, 0));
    while h.try_pull_upstream_event().is_some() {}
    let qos = gst::event::Qos::builder(gst::QOSType::Underflow, 2.5, 300_000_000i64)
        .timestamp(Some(40 * MS))
        .build();
    assert!(h.push_upstream_event(qos));
    let passed = std::iter::from_fn(|| h.try_pull_upstream_event()).find_map(|event| match event.view() {
        gst::EventView::Qos(qos) => Some(qos.get()),
        _ => None,
    });
    assert_eq!(passed, Some((gst::QOSType::Underflow, 2.5, 300_000_000, Some(40 * MS))));
    assert_eq!(tick(&mut h), (640, 40, 40));
    assert_eq!((stat(&bin, "crossfade"), stat(&bin, "late"), stat(&bin, "dropped")), (1, 0, 0));
}

#[test]
fn a_flush_starts_a_new_grid_without_old_pictures() {
    let (bin, mut h) = harness("25/1", "25/1");
    pose(&mut h, 10, 0);
    pose(&mut h, 20, 40);
    assert_eq!(tick(&mut h), (600, 0, 10));
    assert!(h.push_event(gst::event::FlushStart::new()));
    assert!(h.push_event(gst::event::FlushStop::builder(true).build()));
    assert!(h.push_event(segment(gst::ClockTime::ZERO, gst::ClockTime::ZERO)));
    while h.try_pull_event().is_some() {}
    h.set_time(5000 * MS).unwrap();
    for (n, grey) in [(0, 100), (1, 110), (2, 120)] {
        pose(&mut h, grey, 5013 + 40 * n);
    }
    assert_eq!(tick(&mut h), (5613, 5013, 100));
    let events: Vec<_> = std::iter::from_fn(|| h.try_pull_event()).map(|event| event.type_()).collect();
    assert!(events.contains(&gst::EventType::Segment), "{events:?}");
    assert_eq!(tick(&mut h), (5653, 5053, 110));
    assert_eq!(tick(&mut h), (5693, 5093, 120));
    assert_eq!((stat(&bin, "late"), stat(&bin, "dropped")), (0, 0));
}

/// Input of another size and rate in mid-stream: ticks go on at their times, pictures of two sizes are not mixed.
#[test]
fn new_input_caps_do_not_move_the_grid() {
    let (bin, mut h) = harness("25/1", "25/1");
    for n in 0..5 {
        pose(&mut h, 10 * n, 40 * u64::from(n));
    }
    let mut got: Vec<_> = (0..3).map(|_| tick(&mut h)).collect();
    h.set_src_caps_str(&rgb(32, 16, "50/1"));
    for n in 0..10u64 {
        h.push(flat(32, 16, [100; 3], 200 + 20 * n, 20)).unwrap();
    }
    let mut sizes = Vec::new();
    for _ in 3..9 {
        let (now, buffer) = next(&mut h);
        got.push((now, buffer.pts().unwrap().mseconds(), first_pixel(&buffer)[0]));
        sizes.push(buffer.size());
    }
    let want = [0, 10, 20, 30, 40, 100, 100, 100, 100];
    let want: Vec<_> = (0..).zip(want).map(|(n, grey)| (600 + 40 * n, 40 * n, grey)).collect();
    assert_eq!(got, want);
    assert_eq!(sizes, [384, 384, 1536, 1536, 1536, 1536]);
    assert_eq!((stat(&bin, "late"), stat(&bin, "dropped")), (0, 0));
}

/// A source that begins again, or skips: timestamps jump, a new segment says that time goes on.
#[test]
fn new_segments_do_not_move_the_grid() {
    let jumps = [gst::ClockTime::ZERO, 3600 * SECOND, 120 * MS];
    for start in jumps {
        let (bin, mut h) = harness("25/1", "25/1");
        assert!(h.push_event(segment(60 * SECOND, gst::ClockTime::ZERO)));
        for n in 0..5u64 {
            pose(&mut h, 10 * n as u8, 60_000 + 40 * n);
        }
        assert!(h.push_event(segment(start, 200 * MS)));
        for n in 0..5u64 {
            pose(&mut h, 50 + 10 * n as u8, start.mseconds() + 40 * n);
        }
        let got: Vec<_> = (0..10).map(|_| tick(&mut h)).collect();
        let want: Vec<_> = (0..10).map(|n| (600 + 40 * n, 40 * n, 10 * n as u8)).collect();
        assert_eq!(got, want, "a segment from {start}");
        assert_eq!((stat(&bin, "late"), stat(&bin, "dropped")), (0, 0));
    }
}

/// A segment that puts running time back a little, and timestamps that jump so without one: what comes for a time that
/// has been is not shown, the last good picture is, and the grid goes on. Larger jumps are in `jump.rs`.
#[test]
fn time_that_jumps_back_a_little_leaves_the_last_picture_on_a_whole_grid() {
    for with_segment in [true, false] {
        let (bin, mut h) = harness("25/1", "25/1");
        assert!(h.push_event(segment(gst::ClockTime::ZERO, 400 * MS)));
        for n in 0..3 {
            pose(&mut h, 10 * n, 1000 + 40 * u64::from(n));
        }
        if with_segment {
            assert!(h.push_event(segment(gst::ClockTime::ZERO, gst::ClockTime::ZERO)));
        }
        for n in 0..5u64 {
            pose(&mut h, 200, 40 * n);
        }
        let first = 1400;
        let got: Vec<_> = (0..20).map(|_| tick(&mut h)).collect();
        let want: Vec<_> =
            (0..20).map(|n| (first + 600 + 40 * n, first + 40 * n, 20.min(10 * n as u8))).collect();
        assert_eq!(got, want, "with a segment: {with_segment}");
        assert_eq!((stat(&bin, "late"), stat(&bin, "out")), (0, 20));
    }
}
