//! Live pacing under any arrival pattern, over simulated time.

use keyframed_engine::{
    EngineError, Grid, LadderConfig, Nanos, PaceConfig, Pacer, Picture, Poll, Rate, Rung, SECOND, Timed,
    pace::Output,
};
use proptest::{collection::vec, prelude::*};

const MS: Nanos = 1_000_000;

fn rate(num: u32, den: u32) -> Rate {
    Rate::new(num, den).unwrap()
}

/// One thing that happens to the pacer.
#[derive(Debug, Clone, Copy)]
enum Event {
    /// After `after`, a key frame comes whose pose is `age` old.
    Key { after: Nanos, age: Nanos },
    /// After `after`, word comes that the last key frame still holds.
    Hold { after: Nanos },
    /// The pacing thread does not run for this long.
    Stall { length: Nanos },
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        8 => (0..400 * MS, 0..600 * MS).prop_map(|(after, age)| Event::Key { after, age }),
        1 => (0..400 * MS).prop_map(|after| Event::Hold { after }),
        2 => (10 * MS..10 * SECOND).prop_map(|length| Event::Stall { length }),
    ];
    vec(event, 1..60)
}

fn rates() -> impl Strategy<Value = Rate> {
    prop_oneof![
        Just(rate(25, 1)),
        Just(rate(30_000, 1001)),
        Just(rate(60, 1)),
        Just(rate(7, 3)),
        Just(rate(144, 1))
    ]
}

/// Polls as a thread would: whenever the pacer asked to be woken, until `until`.
fn advance(pacer: &mut Pacer<Nanos>, now: &mut Nanos, until: Nanos, out: &mut Emitted) {
    while *now <= until {
        match pacer.poll(*now) {
            Poll::Emit(output) => out.push((*now, output)),
            Poll::Wait(wake) => {
                assert!(wake > *now, "a wait must lie ahead");
                *now = wake;
            }
            Poll::Idle | Poll::Done => break,
        }
    }
    *now = (*now).max(until);
}

/// Outputs with their emission times.
type Emitted = Vec<(Nanos, Output<Nanos>)>;

/// Plays the events; returns the outputs, the pacer, and the time of the first key frame.
fn play(config: PaceConfig, events: &[Event]) -> (Emitted, Pacer<Nanos>, Option<Nanos>) {
    let mut pacer = Pacer::new(config).unwrap();
    let (mut now, mut out, mut anchor) = (SECOND, Vec::new(), None);
    for &event in events {
        match event {
            Event::Stall { length } => now += length,
            Event::Key { after, age } => {
                let at = now + after;
                advance(&mut pacer, &mut now, at - 1, &mut out);
                now = now.max(at);
                let pts = now.saturating_sub(age);
                if pacer.key(Timed::new(pts, pts)).is_ok() {
                    anchor = anchor.or(Some(pts));
                }
            }
            Event::Hold { after } => {
                let at = now + after;
                advance(&mut pacer, &mut now, at - 1, &mut out);
                now = now.max(at);
                pacer.hold(now);
            }
        }
    }
    let end = now + SECOND;
    advance(&mut pacer, &mut now, end, &mut out);
    (out, pacer, anchor)
}

proptest! {
    #[test]
    fn on_the_grid_in_order_and_never_in_bursts(
        events in events(), rate in rates(), latency in 0..800 * MS, max_queued in 1..4usize,
    ) {
        let config = PaceConfig { max_queued, ..PaceConfig::new(rate, latency) };
        let (out, pacer, anchor) = play(config, &events);
        let Some(anchor) = anchor else {
            prop_assert!(out.is_empty());
            return Ok(());
        };
        let grid = Grid::new(rate, anchor);
        for (now, o) in &out {
            prop_assert_eq!((o.pts, o.duration), (grid.pts(o.index), grid.duration(o.index)), "off the grid");
            prop_assert!(*now >= o.pts + latency, "emitted before its time");
            prop_assert!(*now < grid.pts(o.index + 1) + latency, "a newer tick was due");
        }
        for pair in out.windows(2) {
            let (a, b) = (&pair[0].1, &pair[1].1);
            prop_assert!(a.index < b.index, "twice or out of order");
            prop_assert_eq!(b.late, b.index > a.index + 1, "late means that ticks were dropped");
        }
        // No fast-forward: between two emissions at least one tick became due.
        let counters = pacer.counters();
        prop_assert_eq!(counters.late, out.iter().filter(|o| o.1.late).count() as u64);
        let missed: u64 = out.windows(2).map(|p| p[1].1.index - p[0].1.index - 1).sum();
        let refused_or_replaced = counters.dropped - missed;
        prop_assert!(refused_or_replaced <= counters.generated);
        for (_, o) in &out {
            check_picture(o, grid.snap())?;
        }
        let kinds = |f: fn(&Picture<Nanos>) -> bool| out.iter().filter(|o| f(&o.1.picture)).count() as u64;
        prop_assert_eq!(counters.interpolated, kinds(|p| matches!(p, Picture::Between { .. })));
        prop_assert_eq!(counters.repeated, kinds(|p| matches!(p, Picture::Repeat(_))));
    }
}

fn check_picture(o: &Output<Nanos>, snap: Nanos) -> Result<(), TestCaseError> {
    match o.picture {
        Picture::Frame(key) => prop_assert!(key.abs_diff(o.pts) <= snap),
        Picture::Repeat(key) => prop_assert!(key <= o.pts),
        Picture::Between { a, b, t, rung } => {
            prop_assert!(a < o.pts && o.pts < b && t > 0.0 && t < 1.0 && rung != Rung::Repeat);
        }
    }
    Ok(())
}

/// A pacer with key frames every 80 ms, each there 100 ms after its pose, and one tick short of a second behind.
fn steady(latency: Nanos) -> (Pacer<Nanos>, impl Fn(&mut Pacer<Nanos>, Nanos)) {
    let pacer = Pacer::new(PaceConfig { max_queued: 200, ..PaceConfig::new(rate(25, 1), latency) }).unwrap();
    let feed = |pacer: &mut Pacer<Nanos>, now: Nanos| {
        if let Some(pts) = now.checked_sub(100 * MS)
            && pts.is_multiple_of(80 * MS)
        {
            pacer.key(Timed::new(pts, pts)).unwrap();
        }
    };
    (pacer, feed)
}

#[test]
fn in_steady_state_keys_and_in_betweens_alternate_at_the_latency() {
    let (mut pacer, feed) = steady(200 * MS);
    let mut out = Vec::new();
    for now in (0..4 * SECOND).step_by(MS as usize) {
        feed(&mut pacer, now);
        if let Poll::Emit(o) = pacer.poll(now) {
            assert_eq!(now, o.pts + 200 * MS);
            match o.picture {
                Picture::Frame(key) => assert!(o.index % 2 == 0 && key == o.pts),
                Picture::Between { t, rung, .. } => {
                    assert!(o.index % 2 == 1 && t == 0.5 && rung == Rung::Film)
                }
                Picture::Repeat(_) => panic!("nothing need be repeated"),
            }
            out.push(o);
        }
    }
    assert_eq!(out.len(), 95);
    let latency = pacer.latencies().percentiles().unwrap();
    assert_eq!((latency.p50, latency.p99), (200 * MS, 200 * MS));
    assert_eq!((pacer.counters().late, pacer.counters().dropped), (0, 0));
}

#[test]
fn after_a_stall_one_late_frame_and_then_the_beat_again() {
    for stall in [10 * MS, 39 * MS, 40 * MS, 41 * MS, 500 * MS, 10 * SECOND] {
        let (mut pacer, feed) = steady(200 * MS);
        let mut emitted = Vec::new();
        let from = SECOND + 5 * MS;
        for now in (0..14 * SECOND).step_by(MS as usize) {
            feed(&mut pacer, now);
            if !(from..from + stall).contains(&now)
                && let Poll::Emit(o) = pacer.poll(now)
            {
                emitted.push((now, o));
            }
        }
        let late: Vec<_> = emitted.iter().filter(|e| e.1.late).collect();
        assert_eq!(late.len(), usize::from(stall > 75 * MS), "stall {stall}");
        // At most one output off its beat, all later ones on it.
        let off = emitted.iter().filter(|(now, o)| *now != o.pts + 200 * MS).count();
        assert!(off <= 1, "stall {stall}: {off} outputs off the beat");
        assert_eq!(
            pacer.counters().dropped,
            emitted.windows(2).map(|w| w[1].1.index - w[0].1.index - 1).sum::<u64>()
        );
    }
}

#[test]
fn a_day_without_drift() {
    let rate = rate(30_000, 1001);
    let mut pacer = Pacer::new(PaceConfig::new(rate, 100 * MS)).unwrap();
    let anchor = 123_456_789;
    let (mut now, mut key, mut count) = (anchor, 0u64, 0u64);
    let day = 24 * 3600 * SECOND;
    while now < anchor + day {
        while anchor + key * 500 * MS <= now {
            pacer.key(Timed::new(anchor + key * 500 * MS, ())).unwrap();
            key += 1;
        }
        match pacer.poll(now) {
            Poll::Emit(o) => {
                // Exactly n · 1001/30000 s after the anchor, to the nearest nanosecond.
                let exact = u128::from(count) * 1001 * u128::from(SECOND);
                let off = (u128::from(o.pts - anchor) * 30_000).abs_diff(exact);
                assert!(o.index == count && off * 2 <= 30_000, "tick {count} is off");
                assert_eq!(now, o.pts + 100 * MS);
                count += 1;
            }
            Poll::Wait(wake) => now = wake,
            other => panic!("{other:?}"),
        }
    }
    let expected = (day - 100 * MS) as f64 / 1e9 * 30_000.0 / 1001.0;
    assert!((count as f64 - expected).abs() <= 1.0, "{count} ticks, expected {expected}");
    assert_eq!((pacer.counters().late, pacer.counters().dropped), (0, 0));
}

#[test]
fn at_most_the_allowed_key_frames_wait() {
    let mut pacer = Pacer::new(PaceConfig::new(rate(25, 1), SECOND)).unwrap();
    for n in 0..10 {
        pacer.key(Timed::new(n * 80 * MS, n)).unwrap();
    }
    // Key frame 0 is on show, 1 is approached, 9 is the newest; the others were replaced.
    assert_eq!(pacer.counters().dropped, 7);
    let mut seen = Vec::new();
    for tick in 0..25 {
        if let Poll::Emit(o) = pacer.poll(SECOND + tick * 40 * MS) {
            seen.push(o.picture);
        }
    }
    assert_eq!(seen[0], Picture::Frame(0));
    assert!(matches!(seen[1], Picture::Between { a: 0, b: 1, .. }));
    assert_eq!(seen[2], Picture::Frame(1));
    assert!(matches!(seen[3], Picture::Between { a: 1, b: 9, .. }));
    assert_eq!(seen[18], Picture::Frame(9));
    assert_eq!(seen[24], Picture::Repeat(9));
}

#[test]
fn a_late_key_frame_is_approached_without_a_jump() {
    let mut pacer = Pacer::new(PaceConfig::new(rate(25, 1), 100 * MS)).unwrap();
    let tick = |pacer: &mut Pacer<u8>, n: u64| match pacer.poll(n * 40 * MS + 100 * MS) {
        Poll::Emit(o) => o.picture,
        other => panic!("{other:?}"),
    };
    pacer.key(Timed::new(0, 0)).unwrap();
    assert_eq!(tick(&mut pacer, 0), Picture::Frame(0));
    for n in 1..=6 {
        assert_eq!(tick(&mut pacer, n), Picture::Repeat(0));
    }
    // Due at tick 10, known at tick 6: four steps of a quarter each.
    pacer.key(Timed::new(400 * MS, 1)).unwrap();
    for (n, t) in [(7, 0.25), (8, 0.5), (9, 0.75)] {
        assert_eq!(tick(&mut pacer, n), Picture::Between { a: 0, b: 1, t, rung: Rung::Film });
    }
    assert_eq!(tick(&mut pacer, 10), Picture::Frame(1));
    // What was repeated counts as old: the latency figures say so.
    assert_eq!(pacer.latencies().percentiles().unwrap().p99, 340 * MS);
}

#[test]
fn the_end_is_paced_too() {
    let mut pacer = Pacer::new(PaceConfig::new(rate(25, 1), 100 * MS)).unwrap();
    assert_eq!(pacer.poll(0), Poll::Idle);
    pacer.key(Timed::new(0, 0)).unwrap();
    pacer.key(Timed::new(80 * MS, 1)).unwrap();
    pacer.finish(160 * MS);
    assert_eq!(pacer.key(Timed::new(120 * MS, 2)), Err(EngineError::Ended));
    let mut now = 0;
    let mut indices = Vec::new();
    loop {
        match pacer.poll(now) {
            Poll::Emit(o) => indices.push(o.index),
            Poll::Wait(wake) => now = wake,
            Poll::Done => break,
            Poll::Idle => panic!("there is work"),
        }
    }
    assert_eq!((indices, now), (vec![0, 1, 2, 3], 220 * MS));
    pacer.reset();
    assert_eq!(pacer.poll(now), Poll::Idle);
    pacer.finish(now);
    assert_eq!(pacer.poll(now), Poll::Done);
}

#[test]
fn disorder_is_refused_and_counted() {
    let mut pacer = Pacer::new(PaceConfig::new(rate(25, 1), 0)).unwrap();
    pacer.key(Timed::new(SECOND, ())).unwrap();
    for pts in [0, SECOND] {
        assert_eq!(pacer.key(Timed::new(pts, ())), Err(EngineError::OutOfOrder { pts, last: SECOND }));
    }
    assert_eq!((pacer.counters().generated, pacer.counters().dropped), (3, 2));
    assert!(Pacer::<()>::new(PaceConfig { max_queued: 0, ..PaceConfig::new(rate(25, 1), 0) }).is_err());
}

#[test]
fn under_overload_quality_goes_down_and_comes_back() {
    let budget = 32 * MS;
    let config = PaceConfig {
        ladder: LadderConfig { best: Rung::Film, budget, calm: SECOND },
        ..PaceConfig::new(rate(25, 1), 200 * MS)
    };
    let mut pacer = Pacer::new(PaceConfig { max_queued: 20, ..config }).unwrap();
    // FILM costs 50 ms for the first 10 s, then 20 ms; the warp 5 ms.
    let cost = |now: Nanos, rung: Rung| match rung {
        Rung::Film if now < 10 * SECOND => 50 * MS,
        Rung::Film => 20 * MS,
        _ => 5 * MS,
    };
    let (mut now, mut key, mut film) = (0, 0, Vec::new());
    while now < 40 * SECOND {
        while key + 100 * MS <= now {
            pacer.key(Timed::new(key, ())).unwrap();
            key += 80 * MS;
        }
        match pacer.poll(now) {
            Poll::Emit(Output { picture: Picture::Between { rung, .. }, .. }) => {
                let cost = cost(now, rung);
                now += cost;
                pacer.observe_cost(now, rung, cost);
                film.push((now, rung == Rung::Film));
            }
            Poll::Emit(_) => {}
            Poll::Wait(wake) => now = wake.min(key + 100 * MS),
            Poll::Idle => now = key + 100 * MS,
            Poll::Done => break,
        }
    }
    let tries = film.iter().filter(|f| f.1 && f.0 < 10 * SECOND).count();
    assert!((2..=5).contains(&tries), "while overloaded, FILM is tried now and then: {tries} times");
    assert!(film.iter().filter(|f| f.0 > 30 * SECOND).all(|f| f.1), "at the end all is FILM again");
}

#[test]
fn a_shorter_latency_is_no_stall() {
    let mut pacer = Pacer::new(PaceConfig::new(rate(25, 1), 500 * MS)).unwrap();
    pacer.key(Timed::new(0, 'a')).unwrap();
    let tick = |pacer: &mut Pacer<char>, now: u64| match pacer.poll(now * MS) {
        Poll::Emit(output) => (output.index, output.late),
        other => panic!("{other:?}"),
    };
    assert_eq!(tick(&mut pacer, 500), (0, false));
    pacer.set_latency(100 * MS, 5);
    assert_eq!(tick(&mut pacer, 540), (11, false), "what is due now, and nobody is blamed");
    let counts = |pacer: &Pacer<char>| {
        let counters = pacer.counters();
        (counters.late, counters.dropped, counters.skipped)
    };
    assert_eq!(counts(&pacer), (0, 0, 10), "left out on purpose");
    assert_eq!(pacer.rung(), Rung::Film);
    assert_eq!(tick(&mut pacer, 700), (15, true), "a stall still is one");
    assert_eq!(counts(&pacer), (1, 3, 10));
}
