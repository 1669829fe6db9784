//! Stage 1 against a naive rendering of its rule, over recorded and random pose distances.

mod common;

use common::Table;
use keyframed_engine::{
    Decision, Frame, KeyReason, SECOND, SelectConfig, Selector, Thumbnail,
    rate::{Capacity, LAMBDA_RANGE, LambdaControl},
    select::Rule,
};
use proptest::{collection::vec, prelude::*};

/// The decisions of [`Rule`], the end of the stream included.
fn online(frames: usize, mse: impl Fn(usize, usize) -> f64, config: &SelectConfig) -> Vec<Decision> {
    let mut rule = Rule::new(config.clone()).expect("good settings");
    let mut key = 0;
    let mut out: Vec<Decision> = Vec::new();
    for i in 0..frames {
        out.push(rule.decide(mse(key, i)));
        if matches!(out[i], Decision::Key(_)) {
            key = i;
        }
    }
    if let (Some(last), Some(decision)) = (out.last_mut(), rule.finish()) {
        assert_eq!(*last, Decision::Skip, "only a skipped frame is decided again");
        *last = decision;
    }
    out
}

/// The rule as one would do it with the whole clip at hand: from each decision, look for the next.
fn offline(frames: usize, mse: impl Fn(usize, usize) -> f64, config: &SelectConfig) -> Vec<Decision> {
    let mut out = vec![Decision::Skip; frames];
    if frames == 0 {
        return out;
    }
    out[0] = Decision::Key(KeyReason::First);
    let (mut key, mut from) = (0, 0);
    while from < frames - 1 {
        let end = (from + config.window as usize).min(frames - 1);
        let moved = (from + 1..=end).find(|&i| mse(key, i) >= config.lambda);
        let next = moved.unwrap_or(end);
        out[next] = match moved {
            Some(_) => Decision::Key(KeyReason::Motion),
            None if mse(key, next) < config.still_epsilon => Decision::Hold,
            None if next - from == config.window as usize => Decision::Key(KeyReason::Window),
            None => Decision::Key(KeyReason::Last),
        };
        if out[next] != Decision::Hold {
            key = next;
        }
        from = next;
    }
    out
}

fn config(lambda: f64, window: u32, still_epsilon: f64) -> SelectConfig {
    SelectConfig { lambda, window, still_epsilon, target_key_rate: 0.0 }
}

/// What must hold of any decisions.
#[track_caller]
fn check_promises(decisions: &[Decision], window: u32) {
    let decided = |d: &Decision| *d != Decision::Skip;
    if let Some(first) = decisions.first() {
        assert_eq!(*first, Decision::Key(KeyReason::First));
    }
    assert!(decisions.last().is_none_or(decided), "the last frame is decided on");
    let at: Vec<usize> = (0..decisions.len()).filter(|&i| decided(&decisions[i])).collect();
    assert!(at.windows(2).all(|w| w[1] - w[0] <= window as usize), "a gap exceeds the window");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn equals_the_papers_rule_on_recorded_distances(lambda in 0.0..0.04, window in 1..=Table::LAGS as u32) {
        for table in Table::all() {
            let config = config(lambda, window, 2e-5);
            let got = online(table.frames(), |a, b| table.mse(a, b), &config);
            prop_assert_eq!(&got, &offline(table.frames(), |a, b| table.mse(a, b), &config), "{}", table.name);
            check_promises(&got, window);
            prop_assert!(matches!(got.last(), Some(Decision::Key(_))), "the real clips never stand still");
        }
    }

    // Poses on a line, many of them at rest: distances that the recordings do not have, holds among them.
    #[test]
    fn equals_the_papers_rule_on_random_distances(
        steps in vec(prop_oneof![3 => Just(0.0), 1 => -0.2..0.2f64], 0..120),
        lambda in 0.0..0.1,
        window in 1..20u32,
        epsilon in prop_oneof![Just(0.0), Just(1e-6), Just(1e-3)],
    ) {
        let at: Vec<f64> = steps.iter().scan(0.0, |x, s| { *x += s; Some(*x) }).collect();
        let mse = |a: usize, b: usize| (at[a] - at[b]).powi(2).min(1.0);
        let config = config(lambda, window, epsilon);
        let got = online(at.len(), mse, &config);
        prop_assert_eq!(&got, &offline(at.len(), mse, &config));
        check_promises(&got, window);
    }

    #[test]
    fn the_selector_measures_what_the_rule_decides_on(
        shades in vec(0u8..8, 1..40), lambda in 0.0..0.02, window in 1..12u32,
    ) {
        let frames: Vec<Frame> = shades.iter().map(|&s| square(s)).collect();
        let thumbnails: Vec<Thumbnail> = frames.iter().map(Thumbnail::new).collect();
        let config = config(lambda, window, 1e-6);
        let want = online(frames.len(), |a, b| thumbnails[a].mse(&thumbnails[b]), &config);
        let mut selector = Selector::new(config).unwrap();
        let mut got: Vec<Decision> = (0..).zip(&frames).map(|(i, f)| selector.push(f, i * 40)).collect();
        if let Some(end) = selector.finish() {
            prop_assert_eq!(end.pts, 40 * (frames.len() as u64 - 1));
            *got.last_mut().unwrap() = end.item;
        }
        prop_assert_eq!(&got, &want);
        prop_assert_eq!(selector.finish(), None);
        let stats = selector.stats();
        prop_assert_eq!(stats.input, frames.len() as u64);
        prop_assert_eq!(stats.keys() + stats.held + stats.skipped, stats.input);
        for reason in KeyReason::ALL {
            let count = got.iter().filter(|d| **d == Decision::Key(reason)).count();
            prop_assert_eq!(stats.by_reason(reason), count as u64);
        }
    }
}

#[test]
fn an_unchanged_pose_generates_nothing() {
    let pose = Thumbnail::new(&square(3));
    for (window, frames) in [(1, 2), (1, 30), (2, 31), (7, 49), (7, 50), (7, 51), (12, 13), (19, 5)] {
        let mut selector = Selector::new(config(0.01, window, 2e-5)).unwrap();
        for i in 0..frames {
            let want = match i {
                0 => Decision::Key(KeyReason::First),
                i if i % window == 0 => Decision::Hold,
                _ => Decision::Skip,
            };
            assert_eq!(selector.push_thumbnail(pose.clone(), i.into()), want);
        }
        let decided = (frames - 1) % window == 0;
        assert_eq!(selector.finish().map(|d| d.item), (!decided).then_some(Decision::Hold));
        assert_eq!(selector.stats().keys(), 1);
    }
}

/// A bright square at one of eight places.
fn square(place: u8) -> Frame {
    let left = u32::from(place) * 4;
    let pixel = |x: u32, y: u32| {
        if (left..left + 16).contains(&x) && (8..24).contains(&y) { [200u8; 3] } else { [10; 3] }
    };
    let data: Vec<u8> = (0..48).flat_map(|y| (0..48).flat_map(move |x| pixel(x, y))).collect();
    Frame::new(48, 48, data).unwrap()
}

/// λ control over an endless loop of a recorded clip at 25 frames a second: λ frame by frame, and the keys' numbers.
fn steer(table: &Table, rate: f64, frames: usize) -> (Vec<f64>, Vec<usize>) {
    let window = Table::LAGS;
    let mut rule = Rule::new(config(0.01, window as u32, 2e-5)).unwrap();
    let mut control = LambdaControl::new((SECOND as f64 / rate) as u64, 0.01);
    let (mut lambdas, mut keys) = (Vec::new(), Vec::new());
    let mse = |a: usize, b: usize| table.mse(table.looped(a), table.looped(b));
    let frame_time = SECOND / 25;
    for i in 0..frames {
        let lag = (control.interval().div_ceil(frame_time) as usize).min(window).min(i);
        control.observe(mse(i - lag, i), lag as u64 * frame_time, i as u64 * frame_time);
        rule.set_lambda(control.lambda());
        if let Decision::Key(_) = rule.decide(mse(keys.last().copied().unwrap_or(0), i)) {
            keys.push(i);
            control.selected();
        }
        lambdas.push(control.lambda());
    }
    (lambdas, keys)
}

#[test]
fn lambda_follows_the_motion_to_the_wanted_rate() {
    for table in Table::all() {
        for rate in [2.0, 4.0, 6.0, 8.0, 12.0, 20.0] {
            let (lambdas, keys) = steer(&table, rate, 750);
            // After ten seconds to settle, over twenty.
            let got = keys.iter().filter(|&&k| k >= 250).count() as f64 / 20.0;
            let name = table.name;
            assert!((got / rate - 1.0).abs() < 0.1, "{name}: wanted {rate} key poses a second, got {got}");
            assert!(lambdas.iter().all(|l| (LAMBDA_RANGE.0..=LAMBDA_RANGE.1).contains(l)));
            // No oscillation: no jumps, and no more than the clip's own motion varies.
            let jump = lambdas.windows(2).map(|w| (w[1] / w[0]).ln().abs()).fold(0.0, f64::max);
            assert!(jump < 0.32, "{name} at {rate}: λ jumps by a factor of {}", jump.exp());
            let settled = &lambdas[250..];
            let (low, high) = settled.iter().fold((f64::MAX, 0.0f64), |(l, h), &x| (l.min(x), h.max(x)));
            assert!(high / low < 6.0, "{name} at {rate}: λ runs between {low} and {high}");
        }
    }
}

#[test]
fn lambda_stays_bounded_through_stillness_and_cuts() {
    let mut selector =
        Selector::new(SelectConfig { window: 12, target_key_rate: 5.0, ..Default::default() }).unwrap();
    let frame_time = SECOND / 25;
    let mut keys = Vec::new();
    // 20 s still, 20 s moving, 20 s still, 20 s cutting between black and white.
    for i in 0..2000u64 {
        let pose = match i / 500 {
            0 | 2 => square(3),
            1 => square((i % 14).min(14 - i % 14) as u8),
            _ => Frame::filled(48, 48, [if i % 2 == 0 { 0 } else { 255 }; 3]).unwrap(),
        };
        if let Decision::Key(_) = selector.push(&pose, i * frame_time) {
            keys.push(i);
        }
        assert!((LAMBDA_RANGE.0..=LAMBDA_RANGE.1).contains(&selector.stats().lambda));
    }
    let count = |from: u64, to: u64| keys.iter().filter(|k| (from..to).contains(k)).count();
    assert_eq!(count(0, 500), 1, "stillness needs the first key pose only");
    let moving = count(500, 1000);
    assert!((70..=140).contains(&moving), "wanted 100 key poses in 20 s of motion, got {moving}");
    assert!(count(1012, 1500) == 0, "nothing is generated while the pose stands still");
}

/// A figure that swings: its distance from where it was grows and falls.
fn swing(i: u64) -> Frame {
    let at = (f64::from(i as u32) * 0.31).sin() + (f64::from(i as u32) * 0.113).sin();
    square(((at + 2.0) * 1.75) as u8)
}

/// The loop of selection, one waiting key pose and a generator, in simulated time. Returns key poses, those replaced
/// before they were made, and λ frame by frame.
fn live(target: f64, frames: u64, took: impl Fn(u64) -> u64) -> (u64, u64, Vec<f64>) {
    let frame_time = SECOND / 25;
    let mut selector =
        Selector::new(SelectConfig { window: 12, target_key_rate: target, ..Default::default() }).unwrap();
    let (mut capacity, mut waiting, mut busy_until) = (Capacity::default(), false, None);
    let (mut keys, mut replaced, mut lambdas) = (0, 0, Vec::new());
    for i in 0..frames {
        let now = i * frame_time;
        if busy_until.is_some_and(|(until, _)| until <= now) {
            let (_, spent) = busy_until.take().unwrap_or_default();
            if let Some(every) = capacity.observe(spent) {
                selector.set_sustained(every);
            }
        }
        if let Decision::Key(_) = selector.push(&swing(i), now) {
            keys += 1;
            replaced += u64::from(std::mem::replace(&mut waiting, true));
        }
        if waiting && busy_until.is_none() {
            // A generator's times vary.
            let spent = took(i) * (85 + (i * 37) % 31) / 100;
            (waiting, busy_until) = (false, Some((now + spent, spent)));
        }
        lambdas.push(selector.stats().lambda);
    }
    (keys, replaced, lambdas)
}

#[test]
fn lambda_rises_to_what_the_generator_sustains_and_comes_back() {
    let ms = SECOND / 1000;
    // A generator that keeps up changes nothing.
    let (free, replaced, lambdas) = live(0.0, 1000, |_| 5 * ms);
    assert_eq!((replaced, lambdas.iter().all(|&l| l == 0.01)), (0, true));
    assert!(free > 300, "a lively figure: {free} key poses in 40 s");
    // One that makes four a second is given about as many, and hardly one is made in vain.
    let (keys, replaced, lambdas) = live(0.0, 2000, |_| 250 * ms);
    assert!((200..=340).contains(&keys), "{keys} key poses in 80 s");
    assert!(replaced * 8 < keys, "{replaced} of {keys} key poses were replaced");
    let settled = &lambdas[500..];
    let (low, high) = settled.iter().fold((f64::MAX, 0.0f64), |(l, h), &x| (l.min(x), h.max(x)));
    assert!(low >= 0.01 && high / low < 6.0, "λ runs between {low} and {high}");
    // Overload for a while: λ rises and returns.
    let (_, _, lambdas) = live(0.0, 3000, |i| if (1000..2000).contains(&i) { 400 * ms } else { 5 * ms });
    let mean = |from: usize, to: usize| lambdas[from..to].iter().sum::<f64>() / (to - from) as f64;
    let (calm, loaded) = (mean(500, 1000), mean(1200, 2000));
    assert!(calm < 0.0101 && loaded > 0.015, "{calm} {loaded}");
    assert!(mean(2500, 3000) < 0.0101, "{}", mean(2500, 3000));
    // A target beyond what is sustained gives what is sustained; one below, itself.
    let (more, _, _) = live(20.0, 2000, |_| 250 * ms);
    assert!((200..=340).contains(&more), "{more} key poses in 80 s");
    let (fewer, _, _) = live(2.5, 2000, |_| 100 * ms);
    assert!((160..=260).contains(&fewer), "{fewer} key poses in 80 s");
}

#[test]
fn capacity_is_smooth_and_tells_only_changes() {
    let ms = SECOND / 1000;
    let mut capacity = Capacity::default();
    assert_eq!(capacity.observe(90 * ms), Some(100 * ms));
    assert_eq!((0..50).filter_map(|i| capacity.observe((88 + i % 5) * ms)).count(), 0, "the same");
    let spike = capacity.observe(60_000 * ms).unwrap_or_default();
    assert!(spike < 150 * ms, "one slow key frame is no trend: {spike}");
    let told: Vec<u64> = (0..40).filter_map(|_| capacity.observe(180 * ms)).collect();
    let last = told.last().copied().unwrap_or_default();
    assert!((188 * ms..=212 * ms).contains(&last), "{told:?}");
}

#[test]
fn bad_settings_are_named() {
    for (bad, word) in [
        (SelectConfig { lambda: -0.1, ..Default::default() }, "lambda"),
        (SelectConfig { lambda: f64::NAN, ..Default::default() }, "lambda"),
        (SelectConfig { window: 0, ..Default::default() }, "window"),
        (SelectConfig { still_epsilon: 2.0, ..Default::default() }, "still epsilon"),
        (SelectConfig { target_key_rate: f64::INFINITY, ..Default::default() }, "key rate"),
        (SelectConfig { target_key_rate: -1.0, ..Default::default() }, "key rate"),
    ] {
        let mut running = Selector::new(SelectConfig::default()).unwrap();
        let error = running.configure(bad.clone()).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
        assert_eq!(*running.config(), SelectConfig::default());
        assert!(Selector::new(bad).is_err());
    }
}

#[test]
fn settings_change_between_frames_and_a_reset_starts_afresh() {
    let mut selector = Selector::new(config(0.5, 100, 1e-6)).unwrap();
    assert_eq!(selector.push(&square(0), 0), Decision::Key(KeyReason::First));
    assert_eq!(selector.push(&square(7), 1), Decision::Skip);
    selector.configure(config(0.001, 100, 1e-6)).unwrap();
    assert_eq!(selector.push(&square(7), 2), Decision::Key(KeyReason::Motion));
    assert_eq!(selector.push(&square(7), 3), Decision::Skip);
    // The window counts from the last key pose, also when it is shortened on the way.
    selector.configure(config(0.001, 1, 1e-6)).unwrap();
    assert_eq!(selector.push(&square(7), 4), Decision::Hold);
    selector.reset();
    assert_eq!(selector.finish(), None);
    assert_eq!(selector.push(&square(7), 5), Decision::Key(KeyReason::First));
    assert_eq!(selector.stats().input, 1);
}
