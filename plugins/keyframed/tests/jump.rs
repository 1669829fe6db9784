//! Live, selection and interpolation together: a new output rate and jumps of timestamps in mid-stream.
mod common;

use common::{first_pixel, flat, init, rgb};
use gst_check::Harness;

const MS: gst::ClockTime = gst::ClockTime::from_mseconds(1);

/// Every pose is a key pose, and cross-fades lie between them; upstream is live and declares 100 ms.
fn harness(input: &str, output: &str) -> Harness {
    init();
    let line = "keyposeselect lambda=0 ! filminterpolate max-quality=crossfade latency=500000000";
    let bin = gst::parse::bin_from_description(line, true).unwrap();
    let mut h = Harness::with_element(&bin, Some("sink"), Some("src"));
    h.set_live(true);
    h.set_src_caps_str(&rgb(16, 8, input));
    h.set_sink_caps_str(&format!("video/x-raw,framerate={output}"));
    h.set_upstream_latency(100 * MS);
    h.play();
    h.set_time(gst::ClockTime::ZERO).unwrap();
    h
}

fn pose(h: &mut Harness, grey: u8, ms: u64) {
    h.push(flat(16, 8, [grey; 3], ms, 40)).unwrap();
}

/// Turns the clock from wait to wait until the output has sent something: (timestamp, its end, first value).
#[track_caller]
fn tick(h: &mut Harness) -> (u64, u64, u8) {
    for _ in 0..10 {
        h.crank_single_clock_wait().unwrap();
        // Whatever it did, it waits again.
        h.testclock().unwrap().wait_for_next_pending_id();
        if let Some(buffer) = h.try_pull() {
            let (pts, duration) = (buffer.pts().unwrap(), buffer.duration().unwrap());
            return (pts.mseconds(), (pts + duration).mseconds(), first_pixel(&buffer)[0]);
        }
    }
    panic!("ten turns without a picture");
}

#[test]
fn a_new_output_rate_leaves_no_gap() {
    for (rate, period) in [("50/1", 20), ("10/1", 100)] {
        let mut h = harness("25/1", "25/1");
        for n in 0..12 {
            pose(&mut h, 10 * n, 40 * u64::from(n));
        }
        assert_eq!((0..3).map(|_| tick(&mut h).0).collect::<Vec<_>>(), [0, 40, 80]);
        h.set_sink_caps_str(&format!("video/x-raw,framerate={rate}"));
        pose(&mut h, 120, 480);
        for n in 0..4 {
            let (pts, end, grey) = tick(&mut h);
            assert_eq!((pts, end), (120 + n * period, 120 + (n + 1) * period), "{rate}");
            // A pose is as bright as it is late.
            assert!(u64::from(grey).abs_diff(pts / 4) <= 1, "{rate}: {grey} at {pts}");
        }
        let caps = std::iter::from_fn(|| h.try_pull_event()).filter_map(|event| match event.view() {
            gst::EventView::Caps(caps) => Some(caps.caps_owned()),
            _ => None,
        });
        let fps = |caps: gst::Caps| caps.structure(0).unwrap().get::<gst::Fraction>("framerate").unwrap();
        let rates: Vec<_> = caps.map(fps).collect();
        assert_eq!(rates, [gst::Fraction::new(25, 1), gst::Fraction::new(1000 / period as i32, 1)]);
    }
}

#[test]
fn the_picture_moves_on_after_a_jump() {
    for jump in [-60_000i64, 60_000] {
        let mut h = harness("25/1", "25/1");
        let (start, mut end) = (100_000, None);
        let mut go_on = |h: &mut Harness| {
            let (pts, next, grey) = tick(h);
            assert!(end.is_none_or(|end| end == pts), "{end:?} {pts}");
            end = Some(next);
            grey
        };
        for n in 0..15 {
            pose(&mut h, 10, start + 40 * n);
        }
        for n in 15..40 {
            pose(&mut h, 10, start + 40 * n);
            assert_eq!(go_on(&mut h), 10);
        }
        let mut seen = Vec::new();
        for n in 40..205u64 {
            let grey = if n % 2 == 0 { 200 } else { 240 };
            pose(&mut h, grey, (start + 40 * n).saturating_add_signed(jump));
            seen.push(go_on(&mut h));
        }
        // At once, until it is as late as poses were before; then all follow at their own pace.
        let moves = seen.iter().position(|&grey| grey != 200).unwrap();
        assert!((10..20).contains(&moves), "jump by {jump} ms: {seen:?}");
        let paced =
            seen[moves..].iter().enumerate().all(|(n, &grey)| grey == if n % 2 == 0 { 240 } else { 200 });
        assert!(paced, "jump by {jump} ms: {seen:?}");
    }
}
