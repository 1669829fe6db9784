//! In-betweens that are made before they are due: what is announced is what is asked for, and who makes it when.

use std::collections::BTreeMap;

use keyframed_engine::{
    Ahead, Costs, LadderConfig, Nanos, PaceConfig, Pacer, Picture, Poll, Rate, Rung, SECOND, Slot, Timed,
};
use proptest::{collection::vec, prelude::*};

const MS: Nanos = 1_000_000;

fn rate(num: u32, den: u32) -> Rate {
    Rate::new(num, den).unwrap()
}

/// One thing that happens to the pacer.
#[derive(Debug, Clone, Copy)]
enum Event {
    /// A key frame comes whose pose is this old.
    Key(Nanos),
    /// The last key frame still holds.
    Hold,
    /// The pacing thread does not run for this long.
    Stall(Nanos),
    /// The latency changes.
    Latency(Nanos),
    /// The input ends.
    End,
}

fn events() -> impl Strategy<Value = Vec<(Nanos, Event)>> {
    let event = prop_oneof![
        16 => (0..600 * MS).prop_map(Event::Key),
        3 => Just(Event::Hold),
        3 => (10 * MS..3 * SECOND).prop_map(Event::Stall),
        2 => (0..800 * MS).prop_map(Event::Latency),
        1 => Just(Event::End),
    ];
    vec((0..400 * MS, event), 1..60)
}

/// The slots that are announced, and of which key frames.
fn announced(pacer: &Pacer<Nanos>) -> Vec<(Slot, Nanos, Nanos)> {
    let upcoming: Vec<_> = pacer.upcoming(HORIZON).collect();
    assert!(upcoming.windows(2).all(|w| w[0].due < w[1].due && w[0].slot.index < w[1].slot.index));
    let latency = pacer.config().latency;
    assert!(upcoming.iter().all(|u| u.due == u.slot.pts + latency && (*u.a, *u.b) == (u.slot.a, u.slot.b)));
    upcoming.into_iter().map(|u| (u.slot, *u.a, *u.b)).collect()
}

/// Ticks that are looked ahead: more than key frames ever span here.
const HORIZON: usize = 4000;

/// Polls until `until`; whatever is asked for must have been announced, and the other way round.
fn advance(pacer: &mut Pacer<Nanos>, now: &mut Nanos, until: Nanos) -> Result<u32, TestCaseError> {
    let mut between = 0;
    while *now <= until {
        let before = announced(pacer);
        match pacer.poll(*now) {
            Poll::Emit(output) => {
                let found = before.iter().find(|(slot, ..)| slot.index == output.index).copied();
                match output.picture {
                    Picture::Between { a, b, t, .. } => {
                        between += 1;
                        prop_assert_eq!(output.slot.map(|slot| (slot, a, b)), found);
                        prop_assert_eq!(output.slot.map(|slot| slot.t()), Some(t));
                    }
                    _ => prop_assert_eq!((output.slot, found), (None, None), "nothing in vain"),
                }
                let left: Vec<_> =
                    before.into_iter().filter(|(slot, ..)| slot.index > output.index).collect();
                prop_assert_eq!(announced(pacer), left, "what was announced stays");
            }
            Poll::Wait(wake) => *now = wake,
            Poll::Idle | Poll::Done => break,
        }
    }
    *now = (*now).max(until);
    Ok(between)
}

proptest! {
    #[test]
    fn what_is_announced_is_what_is_asked_for(
        events in events(), fps in prop_oneof![Just(rate(25, 1)), Just(rate(30_000, 1001)), Just(rate(7, 3)), Just(rate(144, 1))],
        latency in 0..800 * MS, max_queued in 1..9usize,
    ) {
        let ladder = LadderConfig { best: Rung::Film, budget: Nanos::MAX, calm: SECOND };
        let mut pacer = Pacer::new(PaceConfig { rate: fps, latency, max_queued, ladder }).unwrap();
        let mut now = SECOND;
        for (after, event) in events {
            let at = now + after;
            advance(&mut pacer, &mut now, at - 1)?;
            now = now.max(at);
            match event {
                Event::Key(age) => {
                    let pts = now.saturating_sub(age);
                    let before = announced(&pacer);
                    let approached = before.last().map(|last| last.2);
                    if pacer.key(Timed::new(pts, pts)).is_ok() {
                        // A key frame changes nothing but what leads to the last one before it.
                        let kept = |list: Vec<(Slot, Nanos, Nanos)>| -> Vec<_> {
                            list.into_iter().filter(|s| Some(s.2) < approached).collect()
                        };
                        prop_assert_eq!(kept(announced(&pacer)), kept(before));
                    }
                }
                Event::Hold => pacer.hold(now),
                Event::Stall(length) => now += length,
                Event::Latency(latency) => pacer.set_latency(latency, max_queued),
                Event::End => pacer.finish(now),
            }
        }
        let end = now + SECOND;
        advance(&mut pacer, &mut now, end)?;
    }
}

/// What came of a simulated stream.
#[derive(Debug, Default)]
struct Played {
    /// By pair: in-betweens by FILM, light ones, and whether the estimates were right when it began.
    pairs: BTreeMap<(Nanos, Nanos), (u32, u32, bool)>,
    /// When FILM began with a picture.
    begun: Vec<Nanos>,
    started: bool,
    late: u64,
    missed: u64,
    costs: Costs,
}

/// A machine: FILM's cost for the first of a pair and each other at a time; key frames `every` so often, each there
/// `age` after its pose.
struct Machine<C> {
    cost: C,
    every: Nanos,
    age: Nanos,
    latency: Nanos,
}

impl<C: Fn(Nanos) -> (Nanos, Nanos)> Machine<C> {
    fn play(&self, length: Nanos) -> Played {
        let fps = rate(25, 1);
        let max_queued = PaceConfig::most_waiting(fps, self.latency);
        let mut pacer = Pacer::new(PaceConfig { max_queued, ..PaceConfig::new(fps, self.latency) }).unwrap();
        let mut ahead = Ahead::<Slot>::new(Costs::default());
        let (mut played, mut busy, mut motion) = (Played::default(), None, None);
        for now in (0..length).step_by(MS as usize) {
            if let Some(pts) = now.checked_sub(self.age)
                && pts.is_multiple_of(self.every)
            {
                pacer.key(Timed::new(pts, ())).unwrap();
            }
            if let Some((done, slot, cost)) = busy
                && now >= done
            {
                ahead.done(slot, Some(cost), Some(slot));
                busy = None;
            }
            if busy.is_none()
                && let Some(job) = ahead.next(now, max_queued, &pacer, |_, _| true)
            {
                let pair = (job.slot.a, job.slot.b);
                let (first, further) = (self.cost)(now);
                let cost = if motion == Some(pair) { further } else { first };
                let known = ahead.costs().first >= first && ahead.costs().further >= further;
                played.pairs.entry(pair).or_insert((0, 0, known));
                (motion, busy) = (Some(pair), Some((now + cost, job.slot, cost)));
                played.begun.push(now);
            }
            assert!(ahead.kept() <= max_queued, "memory is bounded");
            if let Poll::Emit(output) = pacer.poll(now) {
                // The first may be late because its key frame is.
                assert!(!played.started || now == output.pts + self.latency, "no tick waits");
                played.started = true;
                let film = ahead.take(now, &mut pacer, &output);
                assert!(film.is_none() || film == output.slot, "the right one");
                if let Some(slot) = output.slot {
                    let pair = played.pairs.entry((slot.a, slot.b)).or_insert((0, 0, true));
                    *if film.is_some() { &mut pair.0 } else { &mut pair.1 } += 1;
                }
            }
        }
        (played.late, played.missed) = (pacer.counters().late, ahead.counts().missed);
        played.costs = ahead.costs();
        played
    }
}

impl Played {
    /// Pairs whose first key frame is in `range`: made by FILM, mixed, light.
    fn count(&self, range: std::ops::Range<Nanos>) -> [usize; 3] {
        let mut counts = [0; 3];
        for (_, (film, light, _)) in self.pairs.range((range.start, 0)..(range.end, 0)) {
            counts[match (film, light) {
                (_, 0) => 0,
                (0, _) => 2,
                _ => 1,
            }] += 1;
        }
        counts
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_pair_is_all_film_or_all_light(
        first in 1..300u64, further in 1..90u64, every in 1..10u64, age in 0..300u64, latency in 1..700u64,
    ) {
        let cost = move |_| (first * MS, further * MS);
        let machine = Machine { cost, every: every * 45 * MS, age: age * MS, latency: latency * MS };
        let played = machine.play(12 * SECOND);
        prop_assert_eq!(played.late, 0);
        for (pair, (film, light, known)) in &played.pairs {
            prop_assert!(!known || *film == 0 || *light == 0, "{pair:?}: {film} by FILM, {light} not");
        }
    }
}

#[test]
fn film_that_takes_several_ticks_makes_everything() {
    // 100 + 3 · 15 ms for the three pictures between key frames 160 ms apart.
    let machine = Machine { cost: |_| (100 * MS, 15 * MS), every: 160 * MS, age: 50 * MS, latency: 400 * MS };
    let played = machine.play(20 * SECOND);
    assert_eq!(played.count(0..19 * SECOND), [119, 0, 0]);
    assert_eq!((played.missed, played.late), (0, 0));
    assert_eq!((played.costs.first, played.costs.further), (100 * MS, 15 * MS));
}

#[test]
fn film_that_is_too_slow_is_tried_ever_more_rarely_until_it_is_fast() {
    // The first of a pair alone takes longer than there is; after half a minute it is four times as fast.
    let cost = |now| if now < 30 * SECOND { (500 * MS, 60 * MS) } else { (120 * MS, 10 * MS) };
    let machine = Machine { cost, every: 160 * MS, age: 50 * MS, latency: 400 * MS };
    let played = machine.play(100 * SECOND);
    let tries = played.begun.iter().filter(|at| **at < 30 * SECOND).count();
    assert!((1..=12).contains(&tries), "{tries} pictures were begun in vain");
    let [film, mixed, light] = played.count(70 * SECOND..99 * SECOND);
    assert!(film > 170 && mixed == 0 && light == 0, "{film} {mixed} {light}");
    assert_eq!(played.late, 0);
}

#[test]
fn one_slow_pair_does_not_end_film() {
    let cost = |now| {
        if (10 * SECOND..10 * SECOND + 160 * MS).contains(&now) {
            (SECOND, SECOND)
        } else {
            (90 * MS, 15 * MS)
        }
    };
    let machine = Machine { cost, every: 160 * MS, age: 50 * MS, latency: 400 * MS };
    let played = machine.play(30 * SECOND);
    let [film, mixed, light] = played.count(16 * SECOND..29 * SECOND);
    assert_eq!((mixed, light), (0, 0), "{film}");
}

#[test]
fn estimates_rise_fast_fall_slowly_and_shrug_off_outliers() {
    let mut ahead = Ahead::<()>::new(Costs::default());
    let slot = |a: Nanos| Slot { index: 1, pts: a + 1, a, from: a, b: a + 2 };
    let mut first = |n: Nanos, cost: Nanos| {
        ahead.done(slot(n), Some(cost), Some(()));
        ahead.costs().first
    };
    assert_eq!(first(0, 9000), 0, "the very first one prepares much");
    assert_eq!((first(1, 80), first(2, 100), first(3, 10)), (80, 90, 80));
    assert_eq!(first(4, 80_000), 120);
    ahead.done(slot(4), Some(7), Some(()));
    assert_eq!((ahead.costs().first, ahead.costs().further), (120, 7));
}
