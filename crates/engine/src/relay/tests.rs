use proptest::prelude::*;

use super::*;
use crate::frame::SECOND;

const MS: Nanos = 1_000_000;
const PERIOD: Nanos = 40 * MS;

fn config() -> RelayConfig {
    RelayConfig { rate: Rate::new(25, 1).unwrap(), slate_after: SECOND, catch_up: 2 * SECOND }
}

/// An emission and when it left.
type Sent = (Nanos, Emission<u32>);

/// Polls whenever the relay wants to be, up to `until`.
fn run(relay: &mut Relay<u32>, now: &mut Nanos, until: Nanos, sent: &mut Vec<Sent>) {
    loop {
        match relay.poll(*now) {
            Poll::Emit(emission) => sent.push((*now, emission)),
            Poll::Wait(time) if time > until => break,
            Poll::Wait(time) => {
                assert!(time > *now, "waiting for the past");
                *now = time;
            }
        }
    }
    *now = until;
}

/// Feeds pictures at these times, all live, and returns what was sent.
fn feed(times: &[Nanos], end: Nanos) -> Vec<Sent> {
    let (mut relay, mut now, mut sent) = (Relay::new(config(), 0), 0, Vec::new());
    for (i, time) in times.iter().enumerate() {
        run(&mut relay, &mut now, *time, &mut sent);
        relay.picture(now, *time, i as u32);
    }
    run(&mut relay, &mut now, end, &mut sent);
    sent
}

fn showings(sent: &[Sent]) -> Vec<Showing> {
    let mut all: Vec<_> = sent.iter().map(|(_, e)| e.showing).collect();
    all.dedup();
    all
}

#[test]
fn pictures_on_time_pass_at_once() {
    let times: Vec<_> = (0..100).map(|i| 310 * MS + i * PERIOD + (i * 7 % 11) * MS).collect();
    let sent = feed(&times, 310 * MS + 100 * PERIOD);
    let live: Vec<_> = sent.iter().filter(|(_, e)| matches!(e.content, Content::New(_))).collect();
    assert_eq!(live.len(), 100, "none is lost");
    // The first may have to keep its distance from the frame before it.
    for ((left, _), time) in live.iter().zip(&times).skip(1) {
        assert_eq!(left, time);
    }
    assert_eq!(showings(&sent)[..2], [Showing::Slate, Showing::Live]);
}

#[test]
fn holds_then_slate_then_live_again() {
    let mut times: Vec<_> = (0..25).map(|i| i * PERIOD).collect();
    times.extend((0..25).map(|i| 5 * SECOND + 13 * MS + i * PERIOD));
    let sent = feed(&times, 8 * SECOND);
    use Showing::{Held, Live, Slate};
    let mut seen = showings(&sent);
    if seen[0] == Slate {
        seen.remove(0);
    }
    assert_eq!(seen, [Live, Held, Slate, Live, Held, Slate]);
    let (slate, _) = sent.iter().find(|(at, e)| *at > SECOND && e.showing == Slate).unwrap();
    assert!((24 * PERIOD + SECOND..24 * PERIOD + SECOND + 2 * PERIOD).contains(slate), "{slate}");
}

#[test]
fn repeats_without_poses_are_not_live() {
    let (mut relay, mut now, mut sent) = (Relay::new(config(), 0), 0, Vec::new());
    // The animation shows poses 300 ms late, and repeats when there are none.
    let mut tick = |relay: &mut Relay<u32>, i: u64, sent: &mut Vec<Sent>| {
        run(relay, &mut now, i * PERIOD, sent);
        relay.picture(now, now.saturating_sub(300 * MS), i as u32)
    };
    for i in 0..50 {
        assert!(tick(&mut relay, i, &mut sent));
    }
    relay.feed_stopped(50 * PERIOD);
    let live = (50..100).filter(|i| tick(&mut relay, *i, &mut sent)).count();
    assert_eq!(live, 8, "pictures of poses before the loss are still shown");
    relay.feed_resumed(100 * PERIOD);
    let live = (100..150).filter(|i| tick(&mut relay, *i, &mut sent)).count();
    assert_eq!(live, 42);
    assert_eq!(showings(&sent), [Showing::Live, Showing::Held, Showing::Slate, Showing::Live]);
}

#[test]
fn a_pause_holds_for_ever() {
    let (mut relay, mut now, mut sent) = (Relay::new(config(), 0), 0, Vec::new());
    relay.picture(0, 0, 1);
    run(&mut relay, &mut now, SECOND / 2, &mut sent);
    relay.set_paused(now, true);
    run(&mut relay, &mut now, 60 * SECOND, &mut sent);
    assert_eq!(relay.showing(), Showing::Held);
    relay.set_paused(now, false);
    run(&mut relay, &mut now, 60 * SECOND + SECOND / 2, &mut sent);
    assert_eq!(relay.showing(), Showing::Held, "counted from the end of the pause");
    run(&mut relay, &mut now, 62 * SECOND, &mut sent);
    assert_eq!(relay.showing(), Showing::Slate);
    relay.set_paused(now, true);
    run(&mut relay, &mut now, 70 * SECOND, &mut sent);
    assert_eq!(relay.showing(), Showing::Slate);
}

#[test]
fn short_stalls_are_made_up_for_and_long_ones_skipped() {
    let (mut relay, mut now, mut sent) = (Relay::new(config(), 0), 0, Vec::new());
    run(&mut relay, &mut now, SECOND, &mut sent);
    now += SECOND;
    run(&mut relay, &mut now, 4 * SECOND, &mut sent);
    assert!(sent.iter().all(|(_, e)| e.skipped == 0));
    assert!(sent.iter().any(|(_, e)| e.late));
    assert_eq!(sent.len() as u64, sent.last().unwrap().1.index + 1);
    now += 3600 * SECOND;
    run(&mut relay, &mut now, 3605 * SECOND, &mut sent);
    let skipped: u64 = sent.iter().map(|(_, e)| e.skipped).sum();
    assert!((90_000 - 60..=90_000).contains(&skipped), "{skipped}");
    assert_eq!(sent.len() as u64 + skipped, sent.last().unwrap().1.index + 1);
    let (at, last) = sent.last().unwrap();
    assert!(last.pts.abs_diff(*at) <= 2 * PERIOD, "on time again");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever comes in, at a grid's rate or not.
    #[test]
    fn one_frame_a_tick_never_a_burst(
        (num, den) in prop_oneof![Just((25, 1)), Just((30_000, 1001)), Just((7, 3)), Just((240, 1))],
        steps in prop::collection::vec((0u64..3 * PERIOD, prop::bool::weighted(0.1)), 1..200),
        stops in prop::collection::vec(any::<bool>(), 200),
    ) {
        let rate = Rate::new(num, den).unwrap();
        let period = rate.period();
        let start = 123_456;
        let grid_start = start + period;
        let mut relay = Relay::new(RelayConfig { rate, ..config() }, start);
        let (mut now, mut sent) = (start, Vec::new());
        for (i, ((step, long), stop)) in steps.iter().zip(&stops).enumerate() {
            let until = now + if *long { step * 30 } else { *step };
            run(&mut relay, &mut now, until, &mut sent);
            match i % 17 {
                5 if *stop => relay.feed_stopped(now),
                9 => relay.feed_resumed(now),
                11 => relay.set_paused(now, *stop),
                _ => {}
            }
            relay.picture(now, now, i as u32);
            prop_assert!((period / 2..=2 * period).contains(&relay.lead), "lead {}", relay.lead);
        }
        let end = now;
        for (i, (left, e)) in sent.iter().enumerate() {
            prop_assert_eq!(e.index, i as u64, "one per tick");
            prop_assert_eq!(e.skipped, 0);
            prop_assert_eq!(e.pts, Grid::new(rate, grid_start).pts(e.index), "on the grid");
            prop_assert!(*left <= e.pts, "frame {} left {} after its time", i, left.saturating_sub(e.pts));
            prop_assert!(e.pts <= left + 3 * period, "frame {} far too soon", i);
        }
        for pair in sent.windows(2) {
            prop_assert!(pair[1].0 - pair[0].0 >= period / 2, "burst");
            prop_assert!(pair[1].0 - pair[0].0 <= 3 * period, "gap");
        }
        // No tick is owed at the end.
        prop_assert!(Grid::new(rate, grid_start).pts(sent.len() as u64) + period > end);
    }

    /// At the animation's own rate, whatever its phase, pictures are neither lost nor repeated.
    #[test]
    fn any_phase_is_taken_over(phase in 0..PERIOD, jitter in prop::collection::vec(0..PERIOD / 4, 100)) {
        let times: Vec<_> =
            jitter.iter().enumerate().map(|(i, j)| SECOND + phase + i as u64 * PERIOD + j).collect();
        let sent = feed(&times, 10 * SECOND);
        let shown: Vec<_> = sent.iter().filter_map(|(_, e)| match e.content {
            Content::New(i) => Some(i),
            _ => None,
        }).collect();
        // One may go while the lead settles.
        prop_assert!(shown.len() >= 99, "{} of 100", shown.len());
    }
}
