//! Whatever comes in, and however long the generator takes: an output on every tick.

use std::sync::LazyLock;

use keyframed_engine::{
    Grid, Nanos, PaceConfig, Pacer, Picture, Rate, Rung, SECOND, SelectConfig, Selector, Thumbnail,
    pace::Output,
};
use proptest::{collection::vec, prelude::*, sample::Index};

use crate::{
    MS, film,
    sim::{Chain, Filmed, Input, KeyFrame, Log},
};

/// Where simulated time starts, so that timestamps may jump back.
const START: Nanos = 7200 * SECOND;

static FIGURE: LazyLock<Vec<Thumbnail>> = LazyLock::new(|| film::figure(100));

/// How pose frames come for a while.
#[derive(Debug, Clone, Copy)]
enum Feed {
    /// So many a second.
    Steady(u64),
    /// Apart by anything from 5 to 200 ms.
    Irregular(Index),
    /// At 25 a second, but so many at a time.
    Bursts(u64),
    /// As before, but from here on timestamps are off by so much more, in milliseconds.
    Jump(i64),
    /// The pose does not change.
    Still,
    /// Not at all.
    Silent,
}

#[derive(Debug, Clone)]
struct Phase {
    length: Nanos,
    feed: Feed,
    /// What a key frame takes.
    service: Nanos,
    /// When, of this phase, the generator stalls and for how long.
    stall: Option<(Nanos, Nanos)>,
    /// The same for the thread that sends the output.
    asleep: Option<(Nanos, Nanos)>,
}

fn phases() -> impl Strategy<Value = Vec<Phase>> {
    let feed = prop_oneof![
        3 => (10..=60u64).prop_map(Feed::Steady),
        2 => any::<Index>().prop_map(Feed::Irregular),
        1 => (2..40u64).prop_map(Feed::Bursts),
        1 => (-3_600_000..3_600_000i64).prop_map(Feed::Jump),
        1 => (-300..300i64).prop_map(Feed::Jump),
        1 => Just(Feed::Still),
        1 => Just(Feed::Silent),
    ];
    let stall = || prop::option::weighted(0.3, (0..2 * SECOND, 10 * MS..10 * SECOND));
    let phase = (SECOND / 2..5 * SECOND, feed, 1..400 * MS, stall(), stall());
    let phase = phase.prop_map(|(length, feed, service, stall, asleep)| Phase {
        length,
        feed,
        service,
        stall,
        asleep,
    });
    vec(phase, 1..8)
}

/// What the phases come to.
struct Script {
    input: Vec<Input>,
    /// From, to, time of a key frame.
    services: Vec<(Nanos, Nanos, Nanos)>,
    stalls: Vec<(Nanos, Nanos)>,
    asleep: Vec<(Nanos, Nanos)>,
    end: Nanos,
}

impl Script {
    fn new(phases: &[Phase]) -> Self {
        let (input, services) = (Vec::new(), Vec::new());
        let mut script = Self { input, services, stalls: Vec::new(), asleep: Vec::new(), end: START };
        let mut off = 0i64;
        for phase in phases {
            let (from, to) = (script.end, script.end + phase.length);
            if let Feed::Jump(by) = phase.feed {
                // The first timestamp says what time it is; there is nothing to jump from.
                off += if script.input.is_empty() { 0 } else { by };
            }
            script.feed(phase.feed, from, to, off);
            script.services.push((from, to, phase.service));
            script.stalls.extend(phase.stall.map(|(at, length)| (from + at, from + at + length)));
            let awake = script.asleep.last().map_or(0, |last| last.1 + 1);
            let asleep = phase.asleep.map(|(at, length)| (from + at, from + at + length));
            script.asleep.extend(asleep.filter(|asleep| asleep.0 > awake));
            script.end = to;
        }
        script
    }

    fn feed(&mut self, feed: Feed, from: Nanos, to: Nanos, off: i64) {
        let mut time = from;
        while time < to {
            let n = self.input.len();
            let (apart, chunk) = match feed {
                Feed::Steady(rate) => (SECOND / rate, 1),
                Feed::Irregular(seed) => (5 * MS + seed.index(1 << 20) as u64 * (n as u64 + 1) % 195 * MS, 1),
                Feed::Bursts(length) => (SECOND / 25, length * SECOND / 25),
                Feed::Jump(_) | Feed::Still => (SECOND / 25, 1),
                Feed::Silent => return,
            };
            let last = self.input.last().map_or(0, |input| input.pose);
            let pose = if matches!(feed, Feed::Still) { last } else { (time - START) as usize / 40_000_000 };
            let pts = time.saturating_add_signed(off * MS as i64);
            let at = if chunk == 1 { time } else { (time / chunk + 1) * chunk };
            self.input.push(Input { at, pts, pose });
            time += apart;
        }
    }

    fn service(&self, now: Nanos) -> Nanos {
        let within = |from: Nanos, to: Nanos| (from..to).contains(&now);
        let stalled = self.stalls.iter().filter(|s| within(s.0, s.1)).map(|s| s.1 - now).max().unwrap_or(0);
        let usual = self.services.iter().find(|s| within(s.0, s.1)).map_or(100 * MS, |s| s.2);
        stalled + usual
    }
}

/// An output, when it left, and how many key frames there were by then.
type Sent = (Nanos, Output<Nanos>, usize);

fn play(script: &Script, config: PaceConfig, select: SelectConfig) -> (Log, Vec<Sent>) {
    let mut select = Filmed { selector: Selector::new(select).unwrap(), film: &FIGURE };
    let mut sent = Vec::new();
    let mut input = script.input.clone();
    // A burst reaches into the next phase.
    input.sort_by_key(|input| input.at);
    let chain = Chain {
        select: &mut select,
        pacer: Pacer::new(config).unwrap(),
        service: &|now| script.service(now),
        asleep: &script.asleep,
        emitted: &mut |now, output, keys| sent.push((now, output.clone(), keys.len())),
    };
    let log = chain.run(input, script.end);
    (log, sent)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn an_output_on_every_tick_whatever_happens(
        phases in phases(),
        rate in prop_oneof![Just((25, 1)), Just((30_000, 1001)), Just((60, 1)), Just((10, 1))],
        latency in prop_oneof![Just(0), 0..SECOND],
        target in prop_oneof![Just(0.0), 1.0..20.0f64],
        window in 1..30u32,
    ) {
        let script = Script::new(&phases);
        let rate = Rate::new(rate.0, rate.1).unwrap();
        // Room for all: which ones are given up is tested elsewhere.
        let config = PaceConfig { max_queued: 10_000, ..PaceConfig::new(rate, latency) };
        let select = SelectConfig { target_key_rate: target, window, ..Default::default() };
        let (log, sent) = play(&script, config, select);
        check_beat(&script, rate, latency, &log, &sent)?;
        check_pictures(rate, &log, &sent)?;
        check_queue(&log)?;
        check_window(&log, window)?;
    }
}

/// Every tick once, on its time, but for those that the sending thread slept through.
fn check_beat(
    script: &Script,
    rate: Rate,
    latency: Nanos,
    log: &Log,
    sent: &[Sent],
) -> Result<(), TestCaseError> {
    let Some(anchor) = log.key_frames.first().map(|key| key.pts) else {
        prop_assert!(sent.is_empty());
        return Ok(());
    };
    let grid = Grid::new(rate, anchor);
    let woke = |now: Nanos| script.asleep.iter().any(|asleep| asleep.1 == now);
    for (n, (now, output, _)) in sent.iter().enumerate() {
        let due = output.pts + latency;
        let exact = (grid.pts(output.index), grid.duration(output.index));
        prop_assert_eq!((output.pts, output.duration), exact, "off the grid");
        prop_assert!(*now == due || (*now > due && (n == 0 || woke(*now))), "left {} after {due}", now - due);
        prop_assert!(*now < due + output.duration, "a newer tick was due: no fast-forward");
    }
    for pair in sent.windows(2) {
        let missed = pair[1].1.index.checked_sub(pair[0].1.index + 1);
        prop_assert!(missed.is_some(), "a tick twice, or out of order");
        prop_assert!(missed == Some(0) || woke(pair[1].0), "{missed:?} ticks left out at {}", pair[1].0);
        prop_assert_eq!(missed > Some(0), pair[1].1.late);
    }
    // It goes on to the end.
    let over = script.asleep.last().is_none_or(|asleep| asleep.1 < script.end);
    if let Some((_, last, _)) = sent.last().filter(|_| over) {
        prop_assert!(last.pts + last.duration + latency > script.end, "nothing after {}", last.pts);
    }
    Ok(())
}

/// What the pacer must have, by what it said where key frames lie.
#[derive(Default)]
struct Known {
    /// Visible from, time of the input; of this stretch, or the one on show before it.
    keys: Vec<(Nanos, Nanos)>,
    /// Where the stretch lies.
    offset: i128,
    /// Whether the stretch began since the last output.
    fresh: bool,
}

impl Known {
    fn add(&mut self, key: &KeyFrame) {
        let Some(at) = key.at else { return };
        let offset = i128::from(at) - i128::from(key.pts);
        if offset != self.offset {
            *self = Self { keys: vec![], offset, fresh: true };
        }
        self.keys.push((at, key.pts));
    }

    /// A stretch begins with the output at `pts`, which should have been at `expected`.
    fn settle(&mut self, pts: Nanos, expected: Nanos) {
        if std::mem::take(&mut self.fresh) {
            self.offset += i128::from(pts - expected);
            self.keys.iter_mut().for_each(|key| key.0 += pts - expected);
            self.keys[0].0 = pts;
        }
    }
}

/// The newest key frame at or before a tick is what it shows or starts from: the last good one, however old. After a
/// jump it is the one that jumped.
fn check_pictures(rate: Rate, log: &Log, sent: &[Sent]) -> Result<(), TestCaseError> {
    let snap = Grid::new(rate, 0).snap();
    let (mut known, mut came) = (Known::default(), 0);
    let mut expected = log.key_frames.first().map_or(0, |key| key.pts);
    for (_, output, count) in sent {
        log.key_frames[came..*count].iter().for_each(|key| known.add(key));
        came = *count;
        known.settle(output.pts, expected);
        expected = output.pts + output.duration;
        let visible = known.keys.iter().take_while(|key| key.0 <= output.pts + snap).count();
        let (before, after) = (known.keys[..visible].last(), known.keys.get(visible).map(|key| key.1));
        match output.picture {
            Picture::Frame(key) => {
                prop_assert!(before.is_some_and(|b| b.1 == key && b.0.abs_diff(output.pts) <= snap))
            }
            Picture::Repeat(key) => prop_assert_eq!(Some(key), before.map(|b| b.1)),
            Picture::Between { a, b, t, rung } => {
                prop_assert_eq!((Some(a), Some(b)), (before.map(|b| b.1), after));
                prop_assert!(t > 0.0 && t < 1.0 && rung != Rung::Repeat);
            }
        }
    }
    Ok(())
}

/// One key pose waits at most, the newest, and no longer than the key frame takes that is being made.
fn check_queue(log: &Log) -> Result<(), TestCaseError> {
    let keys: Vec<Nanos> = log.keys().collect();
    let mut before: Option<&KeyFrame> = None;
    for key in &log.key_frames {
        if key.taken > key.offered {
            let busy = before.filter(|b| b.done == key.taken && b.taken <= key.offered);
            prop_assert!(busy.is_some(), "{key:?} waited for nothing");
        }
        let newer = keys.iter().filter(|&&at| at > key.offered && at <= key.taken).count();
        prop_assert_eq!(newer, 0, "{:?} was not the newest", key);
        before = Some(key);
    }
    let made = log.replaced + log.key_frames.len() as u64;
    let under_way = (keys.len() as u64).checked_sub(made);
    prop_assert!(under_way.is_some_and(|n| n <= 2), "{under_way:?} key poses under way");
    Ok(())
}

/// Something is decided at least every `window` frames, whatever λ is.
fn check_window(log: &Log, window: u32) -> Result<(), TestCaseError> {
    let mut since = 0;
    for (at, decision) in &log.decisions {
        since += 1;
        prop_assert!(since <= window, "nothing decided for {since} frames at {at}");
        if *decision != keyframed_engine::Decision::Skip {
            since = 0;
        }
    }
    Ok(())
}
