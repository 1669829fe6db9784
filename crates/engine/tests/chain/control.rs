//! λ follows the motion and the generator: key poses come as often as it sustains, evenly.

use keyframed_engine::{Nanos, PaceConfig, Pacer, Rate, SECOND, SelectConfig, Selector, Thumbnail};

use crate::{
    MS, film,
    sim::{Chain, Filmed, Input, Log},
};

/// Share of the generator's time that is asked for, as `rate.rs` has it.
const LOAD: f64 = 0.9;

/// Time over which key rates are looked at: long enough that one key pose more or less matters little.
const SPAN: Nanos = 4 * SECOND;

/// What a key rate over [`SPAN`] may be, as shares of what is sustained. The recorded dances pause and leap.
const EVEN: (f64, f64) = (0.65, 1.5);

/// After a change of the generator's speed, λ has followed within this time.
const FOLLOWS: Nanos = 5 * SECOND;

/// Lively: without rate control the figures give 13 to 25 key poses a second.
fn lively() -> SelectConfig {
    SelectConfig { lambda: 0.003, window: 12, ..Default::default() }
}

/// 25 pose frames a second for so long, `pts` being the timestamp of what comes at a time.
fn play(
    film: &[Thumbnail],
    seconds: u64,
    service: &dyn Fn(Nanos) -> Nanos,
    pts: impl Fn(Nanos) -> Option<Nanos>,
) -> Log {
    let mut select = Filmed { selector: Selector::new(lively()).unwrap(), film };
    let pacer = Pacer::new(PaceConfig::new(Rate::new(25, 1).unwrap(), 600 * MS)).unwrap();
    let chain = Chain { select: &mut select, pacer, service, asleep: &[], emitted: &mut |_, _, _| {} };
    let input = (0..seconds * 25).filter_map(|n| {
        let at = START + n * SECOND / 25;
        Some(Input { at, pts: pts(at)?, pose: n as usize })
    });
    chain.run(input, START + seconds * SECOND)
}

/// Room for timestamps to jump back.
const START: Nanos = 100_000 * SECOND;

/// A generator's times vary.
fn about(took: Nanos, now: Nanos) -> Nanos {
    took * (85 + (now / MS * 37) % 31) / 100
}

/// Key poses a second over every [`SPAN`] from one time to another, in seconds from the start.
fn rates(log: &Log, from: u64, to: u64) -> impl Iterator<Item = f64> {
    let keys: Vec<Nanos> = log.keys().collect();
    let (from, to) = (START + from * SECOND, START + to * SECOND - SPAN);
    (from..=to).step_by(SECOND as usize / 25).map(move |at| {
        let count = keys.iter().filter(|key| (at..at + SPAN).contains(key)).count();
        count as f64 / (SPAN / SECOND) as f64
    })
}

#[track_caller]
fn check_even(name: &str, log: &Log, from: u64, to: u64, sustained: f64) {
    let range = |r: f64| (EVEN.0..=EVEN.1).contains(&(r / sustained));
    let odd: Vec<f64> = rates(log, from, to).filter(|&r| !range(r)).collect();
    assert!(odd.is_empty(), "{name}: {sustained:.2} key poses a second can be made, asked for were {odd:?}");
}

/// How unevenly key poses come is measured, on real motion where there is some.
#[test]
fn key_poses_come_as_often_as_they_can_be_made() {
    for (name, film) in film::films() {
        for took in [100, 250, 400] {
            let log = play(&film, 40, &|now| about(took * MS, now), Some);
            let sustained = LOAD * 1000.0 / took as f64;
            let settled = START + 10 * SECOND;
            let mean = log.keys().filter(|&at| at >= settled).count() as f64 / 30.0;
            assert!(
                (mean / sustained - 1.0).abs() < 0.1,
                "{name}: {mean} key poses a second, not {sustained}"
            );
            check_even(&name, &log, 10, 40, sustained);
            let keys = log.keys().count() as u64;
            assert!(
                log.replaced * 4 < keys,
                "{name}: {} of {keys} key poses were made in vain",
                log.replaced
            );
            let lambdas = &log.lambdas[250..];
            let (low, high) = lambdas.iter().fold((f64::MAX, 0.0f64), |(l, h), &x| (l.min(x), h.max(x)));
            assert!(high / low < 4.0, "{name} at {took} ms: λ runs between {low} and {high}");
        }
    }
}

#[test]
fn a_generator_that_slows_down_and_recovers_is_followed_without_ringing() {
    let (slow, fast) = (30, 60);
    for (name, film) in film::films() {
        let within = |now: Nanos| (START + slow * SECOND..START + fast * SECOND).contains(&now);
        let log = play(&film, 90, &|now| about(if within(now) { 300 } else { 100 } * MS, now), Some);
        for (from, to, took) in [(10, slow, 100.0), (slow, fast, 300.0), (fast, 90, 100.0)] {
            let (begin, end) = (START + from * SECOND, START + to * SECOND);
            let settled = begin + FOLLOWS;
            let wanted = took / LOAD * MS as f64;
            let off = |every: Nanos| every as f64 / wanted;
            let told: Vec<_> = log.told.iter().filter(|t| (begin..end).contains(&t.0)).collect();
            for (at, every) in &told {
                // It comes from one side and stays: what is asked for neither overshoots nor comes back.
                let fair = if *at < settled { 0.3..3.3 } else { 0.87..1.15 };
                assert!(fair.contains(&off(*every)), "{name}: {every} asked for at {at}, not {wanted}");
                let over = if took > 200.0 { off(*every) > 1.12 } else { off(*every) < 0.9 };
                assert!(!over, "{name}: {every} asked for at {at} goes beyond {wanted}");
            }
            check_even(&name, &log, from + FOLLOWS / SECOND, to, 1e9 / wanted);
        }
    }
}

/// Neither a hole in the input nor a source that changes its mind about the time makes a flood of key poses, or
/// a drought.
#[test]
fn jumps_in_timestamps_do_not_disturb_the_rate() {
    let film = film::figure(100);
    let jump = START + 20 * SECOND;
    let hours = 3600 * SECOND as i64;
    for by in [-24 * hours, -hours, -3, -1, 1, 3, hours, 24 * hours] {
        let by = if by.abs() < 10 { by * SECOND as i64 } else { by };
        let log = play(&film, 40, &|now| about(200 * MS, now), |at| {
            at.checked_add_signed(if at >= jump { by } else { 0 })
        });
        check_rate_goes_on(&log, 20, &format!("a jump by {} s", by / SECOND as i64));
    }
    let silent = jump..jump + 10 * SECOND;
    let log = play(&film, 50, &|now| about(200 * MS, now), |at| (!silent.contains(&at)).then_some(at));
    check_rate_goes_on(&log, 30, "ten seconds without input");
}

#[track_caller]
fn check_rate_goes_on(log: &Log, from: u64, after: &str) {
    let keys = |from: Nanos, to: Nanos| log.keys().filter(|at| (from..to).contains(at)).count();
    let begin = START + from * SECOND;
    // Four and a half a second can be made.
    for second in 0..8 {
        let at = begin + second * SECOND;
        let count = keys(at, at + 2 * SECOND);
        assert!((5..=14).contains(&count), "{count} key poses in 2 s, {second} s after {after}");
    }
}
