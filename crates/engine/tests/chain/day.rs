//! A day of it: the output does not drift, no tick is lost, nothing piles up.

use keyframed_engine::{Nanos, PaceConfig, Pacer, Picture, Rate, SECOND, SelectConfig, select::Rule};

use crate::{
    MS,
    sim::{Chain, Input, Plain},
};

const DAY: Nanos = 24 * 3600 * SECOND;
/// No multiple of anything.
const START: Nanos = 12_345_678_901;

/// Input of a camera whose own clock is 40 ppm slow: a little fewer than 25 frames a second, so that they wander across
/// the output's grid. Timestamps are those of the clock that the output goes by, as a live source's are, so the two do
/// not drift apart. A minute's pause every hour; a generator that takes 90 to 150 ms, and stalls for two seconds every
/// ten minutes.
#[test]
fn a_day_without_drift_gap_or_duplicate() {
    let input = (0..).map(|n: u64| {
        let at = START + n * 40_001_600;
        Input { at, pts: at, pose: n as usize }
    });
    let pause = |at: Nanos| (at / SECOND) % 3600 >= 3540;
    let service = |now: Nanos| match (now / SECOND) % 600 {
        599 => 2 * SECOND,
        _ => (90 + now / MS % 60) * MS,
    };
    for (num, den) in [(25u32, 1u32), (30_000, 1001)] {
        let config = SelectConfig { lambda: 0.2, window: 12, ..Default::default() };
        let mut select = Plain { rule: Rule::new(config).unwrap(), key: 0.0 };
        let latency = 500 * MS;
        let pacer = Pacer::new(PaceConfig::new(Rate::new(num, den).unwrap(), latency)).unwrap();
        let (mut count, mut moving, mut anchor, mut oldest) = (0u64, 0u64, None, 0);
        let mut check = |now: Nanos, output: &keyframed_engine::pace::Output<Nanos>| {
            // Tick n lies n · den / num seconds after the first, to the nearest nanosecond.
            let anchor = *anchor.get_or_insert(output.pts);
            let exact = u128::from(count) * u128::from(den) * u128::from(SECOND);
            let off = (u128::from(output.pts - anchor) * u128::from(num)).abs_diff(exact);
            assert!(off * 2 <= u128::from(num), "tick {count} is off its time");
            assert_eq!((output.index, now), (count, output.pts + latency), "tick {count}");
            count += 1;
            match output.picture {
                Picture::Between { .. } => moving += 1,
                Picture::Frame(key) | Picture::Repeat(key) => oldest = oldest.max(output.pts.abs_diff(key)),
            }
        };
        let chain = Chain {
            select: &mut select,
            pacer,
            service: &service,
            asleep: &[],
            emitted: &mut |now, output, _| check(now, output),
        };
        let input = input.clone().filter(|i| !pause(i.at)).take_while(|i| i.at < START + DAY);
        let log = chain.run(input, START + DAY);
        let whole = u128::from(DAY - latency) * u128::from(num) / (u128::from(den) * u128::from(SECOND));
        assert_eq!(u128::from(count), whole + 1, "{num}/{den}: ticks in a day");
        // The last picture is held over the pauses, no longer, and otherwise the avatar moves.
        assert!((59 * SECOND..63 * SECOND).contains(&oldest), "{num}/{den}: a picture shown for {oldest}");
        assert!(moving * 2 > count, "{num}/{den}: {moving} in-betweens of {count}");
        let waits = log.key_frames.iter().map(|key| key.done - key.offered);
        assert!(waits.max().is_some_and(|longest| longest <= 4 * SECOND), "{num}/{den}: a key frame is late");
    }
}
