//! FILM ahead of time, with one in FILM's place that takes as long as a test wants. The real one is in `tests/ahead.rs`.
use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard},
    time::Duration,
};

use gst::{prelude::*, subclass::prelude::*};
use gst_check::Harness;
use keyframed_engine::{Frame, InterpolateError, Interpolator};

use super::film::Film;

#[path = "../../tests/common/mod.rs"]
mod common;
use common::{first_pixel, flat, init, rgb};

const MS: gst::ClockTime = gst::ClockTime::from_mseconds(1);

/// Value of the pixels of all pictures that come from FILM.
const FILM: u8 = 250;

/// What the test and the one in FILM's place share.
#[derive(Default)]
struct Gate {
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Default)]
struct Inner {
    /// Pictures that were asked for.
    asked: usize,
    /// How many of them may be made.
    allowed: usize,
    broken: bool,
}

impl Gate {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    /// Lets pictures be made, so many in all.
    fn allow(&self, count: usize) {
        self.lock().allowed = count;
        self.changed.notify_all();
    }

    /// Waits until so many were asked for.
    fn await_asked(&self, count: usize) {
        let limit = Duration::from_secs(20);
        let (inner, timeout) =
            self.changed.wait_timeout_while(self.lock(), limit, |inner| inner.asked < count).unwrap();
        assert!(!timeout.timed_out(), "{} of {count} asked for", inner.asked);
    }
}

struct Gated(Arc<Gate>);

impl Interpolator for Gated {
    fn interpolate(&mut self, a: &Frame, _b: &Frame, _t: f32) -> Result<Frame, InterpolateError> {
        let mut inner = self.0.lock();
        inner.asked += 1;
        self.0.changed.notify_all();
        let number = inner.asked;
        let inner = self.0.changed.wait_while(inner, |inner| inner.allowed < number).unwrap();
        if inner.broken {
            return Err(InterpolateError::Failed("on purpose".into()));
        }
        Ok(Frame::filled(a.width(), a.height(), [FILM; 3]).unwrap())
    }
}

/// Output stays 600 ms behind; ticks are made 560 ms after their time.
fn live(gate: &Arc<Gate>) -> Harness {
    init();
    let element = gst::ElementFactory::make("filminterpolate")
        .property("latency", 500_000_000u64)
        // There is none: no weights are read.
        .property("model", "/nowhere")
        .build()
        .unwrap();
    let mut h = Harness::with_element(&element, Some("sink"), Some("src"));
    h.set_live(true);
    h.set_src_caps_str(&rgb(16, 8, "25/1"));
    h.set_sink_caps_str("video/x-raw,framerate=25/1");
    h.play();
    let imp = element.downcast_ref::<super::FilmInterpolate>().unwrap().imp();
    *imp.film() = Film::Ready(Box::new(Gated(gate.clone())));
    h.set_upstream_latency(100 * MS);
    h.set_time(gst::ClockTime::ZERO).unwrap();
    let bus = gst::Bus::new();
    element.set_bus(Some(&bus));
    key(&mut h, 0, 0);
    let mut told = Vec::new();
    eventually("FILM", || {
        told.extend(changes(&bus));
        !told.is_empty()
    });
    assert_eq!(told, [["warp", "film", "limit"]]);
    element.set_bus(None);
    h
}

fn key(h: &mut Harness, grey: u8, ms: u64) {
    h.push(flat(16, 8, [grey; 3], ms, 40)).unwrap();
}

/// Time of leaving, timestamp, first value of the next picture.
fn tick(h: &mut Harness) -> (u64, u64, u8) {
    h.crank_single_clock_wait().unwrap();
    let buffer = h.pull().unwrap();
    let now = h.testclock().unwrap().time().mseconds();
    (now, buffer.pts().unwrap().mseconds(), first_pixel(&buffer)[0])
}

fn stats(h: &Harness) -> gst::Structure {
    h.element().unwrap().property("stats")
}

fn text(h: &Harness, field: &str) -> String {
    stats(h).get(field).unwrap_or_default()
}

fn stat(h: &Harness, field: &str) -> u64 {
    stats(h).get(field).unwrap()
}

#[track_caller]
fn eventually(what: &str, mut is: impl FnMut() -> bool) {
    for _ in 0..4000 {
        if is() {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("{what} does not come");
}

/// Changes of the rung that were posted: from, to, why.
fn changes(bus: &gst::Bus) -> Vec<[String; 3]> {
    let field = |message: &gst::Message, name| message.structure().unwrap().get::<String>(name).unwrap();
    bus.iter_filtered(&[gst::MessageType::Element])
        .filter(|message| message.has_name("keyframed-quality"))
        .map(|message| ["from", "to", "reason"].map(|name| field(&message, name)))
        .collect()
}

#[test]
fn pictures_made_ahead_are_shown() {
    let gate = Arc::new(Gate::default());
    gate.allow(100);
    let mut h = live(&gate);
    key(&mut h, 160, 160);
    eventually("all of the pair", || stat(&h, "prepared") == 3);
    assert_eq!(tick(&mut h), (560, 0, 0));
    for n in 1..4 {
        assert_eq!(tick(&mut h), (560 + 40 * n, 40 * n, FILM));
    }
    assert_eq!(tick(&mut h), (720, 160, 160));
    assert_eq!((stat(&h, "film"), stat(&h, "interpolated"), stat(&h, "warp")), (3, 3, 0));
    assert_eq!((stat(&h, "missed"), stat(&h, "declined"), stat(&h, "late")), (0, 0, 0));
}

#[test]
fn slow_film_gives_way_to_light_rungs_and_no_tick_waits() {
    let gate = Arc::new(Gate::default());
    let mut h = live(&gate);
    let bus = gst::Bus::new();
    h.element().unwrap().set_bus(Some(&bus));
    key(&mut h, 160, 160);
    gate.await_asked(1);
    // FILM is busy, and stays so.
    assert_eq!(tick(&mut h), (560, 0, 0));
    for n in 1..4 {
        let (now, pts, grey) = tick(&mut h);
        assert_eq!((now, pts), (560 + 40 * n, 40 * n));
        assert_ne!(grey, FILM);
    }
    assert_eq!(tick(&mut h), (720, 160, 160));
    assert_eq!((stat(&h, "missed"), stat(&h, "warp"), stat(&h, "late")), (3, 3, 0));
    assert_eq!(text(&h, "rung"), "film", "one pair is forgiven");
    // What comes too late is not shown, and the rest of the pair not begun.
    gate.allow(1);
    key(&mut h, 200, 280);
    gate.await_asked(2);
    assert_eq!(stat(&h, "prepared"), 0);
    for n in 5..7 {
        let (now, pts, grey) = tick(&mut h);
        assert_eq!((now, pts), (560 + 40 * n, 40 * n));
        assert_ne!(grey, FILM);
    }
    assert_eq!(text(&h, "rung"), "warp");
    assert_eq!(changes(&bus), [["film", "warp", "missed"]]);
    assert_eq!((stat(&h, "missed"), stat(&h, "late"), stat(&h, "dropped")), (4, 0, 0));
    gate.allow(100);
    eventually("what it took", || stat(&h, "film-first") == 80_000_000);
    // FILM is tried again two seconds later, and then it is fast.
    while text(&h, "rung") == "warp" {
        assert!(tick(&mut h).1 < 4000, "FILM does not come back");
    }
    assert_eq!(changes(&bus), [["warp", "film", "calm"]]);
    let (now, pts, _) = tick(&mut h);
    // The last one took 80 ms, and so much time there is.
    key(&mut h, 100, pts + 40);
    key(&mut h, 100, pts + 120);
    eventually("the next pair", || stat(&h, "prepared") == 1);
    assert_eq!(tick(&mut h), (now + 40, pts + 40, 100));
    assert_eq!(tick(&mut h), (now + 80, pts + 80, FILM));
    h.element().unwrap().set_bus(None);
}

#[test]
fn what_cannot_be_there_in_time_is_not_begun() {
    let gate = Arc::new(Gate::default());
    gate.allow(1);
    let mut h = live(&gate);
    key(&mut h, 50, 80);
    eventually("the first, which prepares FILM", || stat(&h, "prepared") == 1);
    // It takes 600 ms for the next one.
    key(&mut h, 100, 160);
    gate.await_asked(2);
    assert_eq!(tick(&mut h), (560, 0, 0));
    assert_eq!(tick(&mut h), (600, 40, FILM));
    gate.allow(2);
    eventually("what it took", || stat(&h, "film-first") == 600_000_000);
    assert_eq!(tick(&mut h).1, 80);
    key(&mut h, 100, 240);
    for n in 3..6 {
        assert_eq!(tick(&mut h).1, 40 * n);
    }
    assert_eq!((stat(&h, "declined"), gate.lock().asked), (1, 2), "no time for that");
    assert_eq!(stat(&h, "late"), 0);
}

#[test]
fn flush_and_stop_while_film_is_busy() {
    let gate = Arc::new(Gate::default());
    let mut h = live(&gate);
    key(&mut h, 160, 160);
    gate.await_asked(1);
    // None of it waits for FILM.
    assert!(h.push_event(gst::event::FlushStart::new()));
    assert!(h.push_event(gst::event::FlushStop::builder(false).build()));
    assert!(h.push_event(gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new())));
    key(&mut h, 10, 1000);
    key(&mut h, 90, 1160);
    gate.allow(2);
    gate.await_asked(3);
    assert_eq!(stat(&h, "prepared"), 1, "of the old stream nothing is kept");
    // The rest of the pair is under way when the element stops: what is being made is waited for.
    let element = h.element().unwrap();
    let stopping = std::thread::Builder::new().spawn(move || element.set_state(gst::State::Null)).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    assert!(!stopping.is_finished());
    gate.allow(3);
    stopping.join().unwrap().unwrap();
    assert_eq!(gate.lock().asked, 3);
    assert_eq!(Arc::strong_count(&gate), 1, "FILM is gone, and so is its thread");
    let element = h.element().unwrap();
    assert!(element.downcast_ref::<super::FilmInterpolate>().unwrap().imp().worker.lock().unwrap().is_none());
    let weak = element.downgrade();
    drop((element, h));
    assert!(weak.upgrade().is_none(), "nothing holds the element");
}

#[test]
fn a_new_rate_in_mid_stream() {
    let gate = Arc::new(Gate::default());
    let mut h = live(&gate);
    key(&mut h, 80, 80);
    gate.await_asked(1);
    assert_eq!(tick(&mut h), (560, 0, 0));
    h.set_sink_caps_str("video/x-raw,framerate=50/1");
    key(&mut h, 160, 160);
    gate.allow(100);
    // The new grid starts at the next tick, 40, and no key frame is lost. What FILM was busy with is of no use.
    eventually("both pairs at the new rate", || stat(&h, "prepared") == 5);
    assert_eq!(gate.lock().asked, 6);
    let mut seen = Vec::new();
    while seen.last().is_none_or(|(pts, _)| *pts < 160) {
        let (_, pts, grey) = tick(&mut h);
        seen.push((pts, grey));
    }
    let film = |pts| (pts, FILM);
    assert_eq!(seen, [film(40), film(60), (80, 80), film(100), film(120), film(140), (160, 160)]);
    assert_eq!(stat(&h, "film"), 5);
}

#[test]
fn film_that_fails_is_told_once() {
    let gate = Arc::new(Gate::default());
    gate.lock().broken = true;
    gate.allow(100);
    let mut h = live(&gate);
    let bus = gst::Bus::new();
    h.element().unwrap().set_bus(Some(&bus));
    for n in 1..6 {
        key(&mut h, 100, 80 * n);
        eventually("the failure", || stat(&h, "failed") == n);
    }
    for n in 0..9 {
        let (_, pts, grey) = tick(&mut h);
        assert_eq!(pts, 40 * n);
        assert_ne!(grey, FILM);
    }
    let warnings = common::messages(&bus, gst::MessageType::Warning);
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("on purpose") && warnings[0].contains("using warp"), "{warnings:?}");
    assert_eq!(text(&h, "rung"), "warp", "what fails is not asked again at once");
    h.element().unwrap().set_bus(None);
}

#[test]
fn max_quality_holds_at_once_for_what_was_made_ahead() {
    let gate = Arc::new(Gate::default());
    gate.allow(100);
    let mut h = live(&gate);
    let bus = gst::Bus::new();
    h.element().unwrap().set_bus(Some(&bus));
    key(&mut h, 160, 160);
    eventually("all of the pair", || stat(&h, "prepared") == 3);
    assert_eq!((tick(&mut h).2, tick(&mut h).2), (0, FILM));
    h.testclock().unwrap().wait_for_next_pending_id();
    h.element().unwrap().set_property_from_str("max-quality", "crossfade");
    assert_eq!(tick(&mut h), (640, 80, 80));
    assert_eq!((stat(&h, "film"), stat(&h, "crossfade"), stat(&h, "missed")), (1, 1, 0));
    assert_eq!(changes(&bus), [["film", "crossfade", "limit"]]);
    h.element().unwrap().set_bus(None);
}

#[test]
fn what_waits_is_bounded_and_told() {
    let gate = Arc::new(Gate::default());
    gate.allow(1000);
    let mut h = live(&gate);
    for n in 1..100 {
        key(&mut h, 100, 10 * n);
    }
    // 600 ms are 15 ticks.
    assert_eq!(stat(&h, "waiting"), 17);
    h.set_time(300 * MS).unwrap();
    assert_eq!(stat(&h, "waiting-age"), 290_000_000, "the first of them is of 10 ms");
    // 400 ms are 10; the first tick is due after 360.
    h.element().unwrap().set_property("latency", 300_000_000u64);
    key(&mut h, 100, 1000);
    assert_eq!(stat(&h, "waiting"), 12);
}
