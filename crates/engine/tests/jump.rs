//! Live pacing where timestamps of the input jump, and where the output gets another rate.

use keyframed_engine::{
    EngineError, Grid, Nanos, PaceConfig, Pacer, Picture, Poll, Rate, SECOND, Timed, pace::Output,
};
use proptest::prelude::*;

const MS: Nanos = 1_000_000;
/// So that timestamps may jump back.
const START: Nanos = 10_000 * SECOND;
const TICK: Nanos = 40 * MS;

fn rate(fps: u32) -> Rate {
    Rate::new(fps, 1).unwrap()
}

fn pacer(latency: Nanos) -> Pacer<Nanos> {
    Pacer::new(PaceConfig { max_queued: 1000, ..PaceConfig::new(rate(25), latency) }).unwrap()
}

fn key(pacer: &mut Pacer<Nanos>, pts: Nanos) -> Result<Nanos, EngineError> {
    pacer.key(Timed::new(pts, pts))
}

/// Key frames at even distances, each so long after its pose; their timestamps are off by more and more.
struct Feed {
    every: Nanos,
    age: Nanos,
    /// When, and by how much more.
    jumps: Vec<(Nanos, i64)>,
}

impl Feed {
    /// Timestamp of the key frame that comes at `now`, if one does.
    fn at(&self, now: Nanos) -> Option<Nanos> {
        let taken = now.checked_sub(self.age + START)?;
        let off: i64 = self.jumps.iter().filter(|(at, _)| *at <= taken).map(|jump| jump.1).sum();
        taken.is_multiple_of(self.every).then(|| (START + taken).saturating_add_signed(off))
    }
}

/// An output, when it left, and how many key frames there were by then.
type Sent = (Nanos, Output<Nanos>, usize);

/// Plays a feed; what was sent, and the key frames.
fn play(feed: &Feed, pacer: &mut Pacer<Nanos>, asleep: std::ops::Range<Nanos>) -> (Vec<Sent>, Vec<Nanos>) {
    let (mut sent, mut keys) = (Vec::new(), Vec::new());
    for now in (START..START + 20 * SECOND).step_by(MS as usize) {
        if let Some(pts) = feed.at(now) {
            key(pacer, pts).unwrap();
            keys.push(pts);
        }
        if !asleep.contains(&(now - START))
            && let Poll::Emit(output) = pacer.poll(now)
        {
            sent.push((now, output, keys.len()));
        }
    }
    (sent, keys)
}

fn jump() -> impl Strategy<Value = i64> {
    prop_oneof![-9_000..-2_600i64, 2_600..3_600_000i64].prop_map(|ms| ms * MS as i64)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn after_a_jump_all_goes_on_as_before(
        every in 1..4u64, age in 1..300u64, spare in 2..400u64, by in [jump(), jump()],
        first in 1..40u64, stall in prop_oneof![Just(0), 0..4000u64],
    ) {
        let (every, age) = (every * TICK, age * MS);
        // Time for the key frame after the one on show.
        let latency = age + every + spare * MS;
        let jumps = vec![(first * every, by[0]), (10 * SECOND, by[1])];
        let feed = Feed { every, age, jumps };
        let mut pacer = pacer(latency);
        // Around the second jump the sending thread may sleep.
        let asleep = 9 * SECOND..9 * SECOND + stall * MS;
        let (sent, keys) = play(&feed, &mut pacer, asleep.clone());
        let grid = Grid::new(rate(25), START);
        let mut settled = 0;
        for (n, (now, output, known)) in sent.iter().enumerate() {
            prop_assert_eq!(output.pts, grid.pts(output.index));
            let before = n.checked_sub(1).map(|n| &sent[n]);
            prop_assert!(before.is_none_or(|b| b.1.index + 1 == output.index || output.late), "a gap");
            prop_assert!(before.is_none_or(|b| b.1.index < output.index), "backward");
            let newer = &keys[before.map_or(0, |b| b.2).max(1)..*known];
            let jumped = |at: usize| at > 0 && keys[at].abs_diff(keys[at - 1]) > every;
            let jump = (*known - newer.len()..*known).rev().find(|at| jumped(*at));
            if let Some(jump) = jump {
                let shown = matches!(output.picture, Picture::Frame(key) | Picture::Repeat(key) if key >= keys[jump]);
                prop_assert!(shown, "not shown at once: {:?}", output.picture);
                settled = now + latency + every;
            }
            if asleep.end > asleep.start && asleep.contains(&(now - START)) {
                settled = now + latency + every;
            }
            let moves = !matches!(output.picture, Picture::Repeat(_));
            prop_assert!(moves || *now < settled || (stall > 0 && *now < START + asleep.end + 2 * every), "stands still at {now}");
        }
        prop_assert_eq!(pacer.counters().late, sent.iter().filter(|s| s.1.late).count() as u64);
    }
}

/// A pacer that has shown key frames every tick for a second; those of another half wait.
fn running() -> Pacer<Nanos> {
    let mut pacer = pacer(500 * MS);
    for n in 0..25 {
        key(&mut pacer, START + n * TICK).unwrap();
        while let Poll::Emit(_) = pacer.poll(START + n * TICK) {}
    }
    pacer
}

fn next(pacer: &mut Pacer<Nanos>, now: &mut Nanos) -> Output<Nanos> {
    loop {
        match pacer.poll(*now) {
            Poll::Emit(output) => return output,
            Poll::Wait(due) => *now = due,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn less_than_the_latency_and_a_second_is_no_jump() {
    let newest = START + 24 * TICK;
    let mut pacer = running();
    let pts = newest - 1500 * MS;
    assert_eq!(key(&mut pacer, pts), Err(EngineError::OutOfOrder { pts, last: newest }));
    assert_eq!(key(&mut pacer, newest + 1500 * MS), Ok(newest + 1500 * MS), "approached");
    let mut pacer = running();
    let (waiting, tick) = (pacer.waiting().0 as u64, START + TICK * pacer.next_index());
    let at = key(&mut pacer, newest - 1501 * MS).unwrap();
    // 13 ticks ahead, as the one before it; the latency is less.
    assert_eq!(at, tick + 500 * MS);
    assert_eq!(pacer.counters().dropped, 1 + waiting - 1);
}

#[test]
fn holds_and_the_end_move_along() {
    let mut pacer = running();
    let mut now = START + 25 * TICK;
    let jumped = START + 3600 * SECOND;
    pacer.hold(jumped);
    let at = key(&mut pacer, jumped).unwrap();
    pacer.hold(jumped + 5 * TICK);
    assert_eq!(key(&mut pacer, jumped + 7 * TICK), Ok(at + 7 * TICK));
    pacer.finish(jumped + 9 * TICK);
    let mut shown = Vec::new();
    while let Poll::Wait(_) | Poll::Emit(_) = pacer.poll(now) {
        let Some(output) = (pacer.poll(now) != Poll::Done).then(|| next(&mut pacer, &mut now)) else { break };
        shown.push(output);
    }
    let last = shown.last().unwrap();
    assert!(last.pts.abs_diff(at + 8 * TICK) <= TICK, "the end is the input's");
    let between = shown.iter().filter(|o| matches!(o.picture, Picture::Between { .. })).map(|o| o.pts);
    let between: Vec<_> = between.collect();
    assert!(
        !between.is_empty() && between.iter().all(|pts| (at + 5 * TICK..at + 7 * TICK).contains(pts)),
        "{between:?}"
    );
}

#[test]
fn another_rate_takes_key_frames_along() {
    for fps in [10, 24, 50, 60] {
        let mut pacer = running();
        let (mut now, expected) = (START + 24 * TICK, START + TICK * pacer.next_index());
        let waiting = pacer.waiting();
        pacer.set_rate(rate(fps), rate(fps).period() * 4 / 5);
        assert_eq!(pacer.waiting(), waiting);
        let grid = Grid::new(rate(fps), expected);
        for n in 0..5 {
            let output = next(&mut pacer, &mut now);
            assert_eq!((output.index, output.pts, output.late), (n, grid.pts(n), false), "{fps}");
            // Key frames lie 40 ms apart and show their times.
            let shows = match output.picture {
                Picture::Frame(key) => key,
                Picture::Between { a, b, t, .. } => a + ((b - a) as f32 * t) as Nanos,
                Picture::Repeat(_) => panic!("the next key frame is there"),
            };
            assert!(shows.abs_diff(output.pts) <= 2 * MS, "{fps}: {shows} at {}", output.pts);
        }
    }
}

/// A source whose clock is a year ahead is shown now; one that is a little early keeps its time.
#[test]
fn a_first_key_frame_far_ahead_does_not_silence_the_output() {
    for (ahead, first) in [(365 * 86_400 * SECOND, START), (SECOND / 2, START + SECOND / 2)] {
        let mut pacer = pacer(200 * MS);
        let mut sent = Vec::new();
        for now in (START..START + 2 * SECOND).step_by(MS as usize) {
            if (now - START).is_multiple_of(4 * TICK) {
                pacer.first(now + ahead, now);
                key(&mut pacer, now + ahead).unwrap();
            }
            if let Poll::Emit(output) = pacer.poll(now) {
                sent.push((now, output.pts));
            }
        }
        assert_eq!(sent[0], (first + 200 * MS, first), "{ahead}");
        assert!(sent.windows(2).all(|pair| pair[1].1 - pair[0].1 == TICK && pair[1].0 - pair[0].0 == TICK));
    }
}
