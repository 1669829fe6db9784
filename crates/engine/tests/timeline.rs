//! Offline pacing: every tick once, in order, with the right picture.

use keyframed_engine::{EngineError, Grid, Nanos, Rate, SECOND, Tick, Timeline, What};
use proptest::{collection::vec, prelude::*};

const FRAME: Nanos = SECOND / 25;

fn rate(num: u32, den: u32) -> Rate {
    Rate::new(num, den).unwrap()
}

#[derive(Debug, Clone, Copy)]
enum Feed {
    Key,
    Hold,
}

/// Feeds keys and holds at the given input frames, ends at `frames` frames after `start`, returns all ticks.
fn run(rate: Rate, start: Nanos, feeds: &[(u64, Feed)], frames: u64) -> Vec<Tick> {
    let mut timeline = Timeline::new(rate);
    let mut ticks = Vec::new();
    let mut drain = |timeline: &mut Timeline| {
        while let Some(tick) = timeline.next_tick() {
            ticks.push(tick);
        }
    };
    for &(frame, feed) in feeds {
        match feed {
            Feed::Key => drop(timeline.key(start + frame * FRAME).unwrap()),
            Feed::Hold => timeline.hold(start + frame * FRAME).unwrap(),
        }
        drain(&mut timeline);
    }
    timeline.finish(start + frames * FRAME).unwrap();
    drain(&mut timeline);
    assert_eq!(timeline.next_tick(), None);
    ticks
}

proptest! {
    #[test]
    fn every_tick_once_with_the_right_picture(
        gaps in vec((1..30u64, any::<bool>()), 0..20),
        start in prop_oneof![Just(0), Just(80_000_000), any::<u32>().prop_map(u64::from)],
        (num, den) in prop_oneof![
            Just((25, 1)), Just((50, 1)), Just((60, 1)), Just((30_000, 1001)), Just((24, 1)), Just((10, 1)), Just((7, 3)),
        ],
    ) {
        let mut at = 0;
        let mut feeds = vec![(0, Feed::Key)];
        for &(gap, hold) in &gaps {
            at += gap;
            feeds.push((at, if hold { Feed::Hold } else { Feed::Key }));
        }
        let frames = at + 1;
        let rate = rate(num, den);
        let ticks = run(rate, start, &feeds, frames);
        let grid = Grid::new(rate, start);

        let exact = frames as f64 * FRAME as f64 / SECOND as f64 * f64::from(num) / f64::from(den);
        prop_assert!((ticks.len() as f64 - exact).abs() <= 1.0, "{} ticks for {exact}", ticks.len());
        for (n, tick) in (0..).zip(&ticks) {
            prop_assert_eq!((tick.index, tick.pts, tick.duration), (n, grid.pts(n), grid.duration(n)));
        }
        let keys: Vec<Nanos> = feeds.iter().filter(|f| matches!(f.1, Feed::Key)).map(|f| start + f.0 * FRAME).collect();
        for tick in &ticks {
            check_picture(tick, &keys, &feeds, start, grid.snap());
        }
        if num == 25 {
            prop_assert_eq!(ticks.len() as u64, frames);
            prop_assert_eq!(ticks.iter().filter(|t| matches!(t.what, What::Key(_))).count(), keys.len());
        }
    }

    // Container timestamps are rounded (Matroska: to milliseconds); a key frame still hits its own tick.
    #[test]
    fn rounded_timestamps_hit_their_ticks(off in vec(-500_000..=500_000i64, 2..40)) {
        let mut timeline = Timeline::new(rate(25, 1));
        for (i, off) in (0..).zip(&off) {
            let off = if i == 0 { 0 } else { *off };
            timeline.key((SECOND + i * FRAME).checked_add_signed(off).unwrap()).unwrap();
        }
        timeline.finish(SECOND + off.len() as u64 * FRAME).unwrap();
        let got: Vec<What> = std::iter::from_fn(|| timeline.next_tick()).map(|t| t.what).collect();
        prop_assert_eq!(got, (0..off.len() as u64).map(What::Key).collect::<Vec<_>>());
    }
}

#[track_caller]
fn check_picture(tick: &Tick, keys: &[Nanos], feeds: &[(u64, Feed)], start: Nanos, snap: Nanos) {
    let on_key = keys.iter().position(|k| k.abs_diff(tick.pts) <= snap);
    if let Some(key) = on_key {
        return assert_eq!(tick.what, What::Key(key as u64), "{tick:?}");
    }
    let a = keys.iter().rposition(|&k| k <= tick.pts).expect("the first tick is at the first key");
    // The end of the last hold that belongs to key a.
    let next = keys.get(a + 1).copied().unwrap_or(Nanos::MAX);
    let holds = feeds.iter().filter(|f| matches!(f.1, Feed::Hold)).map(|f| start + f.0 * FRAME);
    let held = holds.filter(|&h| h > keys[a] && h < next).max().unwrap_or(keys[a]);
    match tick.what {
        What::Between { a: from, b, t } => {
            assert_eq!((from, b), (a as u64, a as u64 + 1), "{tick:?}");
            let want = (tick.pts - held) as f64 / (next - held) as f64;
            assert!(tick.pts > held && (f64::from(t) - want).abs() < 1e-6, "{tick:?}, wanted {want}");
            assert!(t > 0.0 && t < 1.0);
        }
        What::Repeat(key) => assert!(key == a as u64 && (tick.pts <= held || next == Nanos::MAX), "{tick:?}"),
        What::Key(_) => panic!("{tick:?} is not on a key frame"),
    }
}

#[test]
fn a_clip_of_one_frame_is_one_tick() {
    let ticks = run(rate(25, 1), 0, &[(0, Feed::Key)], 1);
    assert_eq!(ticks.iter().map(|t| t.what).collect::<Vec<_>>(), [What::Key(0)]);
    assert_eq!(run(rate(25, 1), 0, &[(0, Feed::Key)], 0).len(), 1);
    assert_eq!(run(rate(50, 1), 0, &[(0, Feed::Key)], 1).len(), 2);
}

#[test]
fn a_hold_repeats_and_interpolation_starts_behind_it() {
    let ticks = run(rate(25, 1), 0, &[(0, Feed::Key), (3, Feed::Hold), (5, Feed::Key)], 7);
    let between = What::Between { a: 0, b: 1, t: 0.5 };
    let [key, again] = [What::Key(0), What::Repeat(0)];
    let want = [key, again, again, again, between, What::Key(1), What::Repeat(1)];
    assert_eq!(ticks.iter().map(|t| t.what).collect::<Vec<_>>(), want);
}

#[test]
fn nothing_comes_of_nothing() {
    let mut timeline = Timeline::new(rate(25, 1));
    timeline.hold(5).unwrap();
    assert_eq!(timeline.next_tick(), None);
    timeline.finish(SECOND).unwrap();
    assert_eq!(timeline.next_tick(), None);
    assert_eq!(timeline.key(3), Err(EngineError::Ended));
    assert_eq!(timeline.finish(SECOND), Err(EngineError::Ended));
}

#[test]
fn disorder_is_refused_and_leaves_no_trace() {
    let mut timeline = Timeline::new(rate(25, 1));
    timeline.key(FRAME).unwrap();
    assert_eq!(timeline.key(FRAME), Err(EngineError::OutOfOrder { pts: FRAME, last: FRAME }));
    assert_eq!(timeline.key(0), Err(EngineError::OutOfOrder { pts: 0, last: FRAME }));
    assert!(timeline.hold(0).is_err());
    timeline.hold(9 * FRAME).unwrap();
    // A key frame inside the hold ends it.
    timeline.key(2 * FRAME).unwrap();
    timeline.finish(3 * FRAME).unwrap();
    let ticks: Vec<Tick> = std::iter::from_fn(|| timeline.next_tick()).collect();
    assert_eq!(ticks.iter().map(|t| t.what).collect::<Vec<_>>(), [What::Key(0), What::Key(1)]);
    assert_eq!(timeline.counters().generated, 2);
}

#[test]
fn a_day_between_key_frames_is_listed_lazily() {
    let mut timeline = Timeline::new(rate(60, 1));
    timeline.key(0).unwrap();
    timeline.key(24 * 3600 * SECOND).unwrap();
    for n in 1..=10 {
        timeline.next_tick();
        assert_eq!(timeline.counters().interpolated, n - 1);
    }
}
