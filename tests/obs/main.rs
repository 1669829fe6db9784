//! OBS, as a real client: it shows the avatar from SRT, UDP and RTMP, soon after the pose, and again after the daemon
//! was away.

mod client;
#[path = "../common/mod.rs"]
mod common;
mod studio;
#[path = "../../src/media/timecode.rs"]
#[allow(dead_code, reason = "drawing is the daemon's business")]
mod timecode;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use common::{
    daemon::{Daemon, PATIENCE, cheap, free_tcp_port, free_udp_port},
    docs,
    look::{Album, difference, save_sheet, without_time},
};
use gst::prelude::*;
use image::RgbImage;
use serde_json::{Value, json};
use studio::Studio;

/// A way from the daemon to OBS.
struct Way {
    name: &'static str,
    /// What the daemon's configuration says.
    output: String,
    /// What is entered in OBS, as docs/obs.md says.
    input: Value,
    seen: Vec<Seen>,
}

/// A picture that OBS showed.
struct Seen {
    picture: RgbImage,
    /// How long before the screenshot was there the pose had come.
    delay_ms: u32,
    /// The time that it shows.
    time: u32,
}

/// As docs/obs.md has it, but for the ports.
fn ways() -> [Way; 3] {
    let way = |name, ports: &str, port: u16| {
        let section = docs::section("obs.md", &format!("## {name}")).replace(ports, &port.to_string());
        Way {
            name,
            output: docs::toml(&section)
                .replace("[outputs.obs]", &format!("[outputs.{}]", name.to_lowercase())),
            input: json!({
                "input": docs::field(&section, "Input"),
                "input_format": docs::field(&section, "Input Format"),
                "ffmpeg_options": docs::field(&section, "FFmpeg Options"),
            }),
            seen: Vec::new(),
        }
    };
    [
        way("SRT", "9000", free_udp_port()),
        way("UDP", "5600", free_udp_port()),
        way("RTMP", "1935", free_tcp_port()),
    ]
}

fn config(ways: &[Way]) -> String {
    let outputs = ways.iter().map(|way| format!("{}timecode = true\nbitrate_kbps = 1500\n\n", way.output));
    cheap() + &outputs.collect::<String>()
}

/// What OBS shows of a source now, if it has a picture with a time.
fn look(studio: &mut Studio, source: &str) -> Option<Seen> {
    let picture = studio.client.screenshot(source)?;
    let now = timecode::millis(gst::SystemClock::obtain().time());
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    let time = timecode::read(&picture, timecode::Shape { width, height, stride: 3 * width })?;
    Some(Seen { picture: without_time(&picture), delay_ms: now.wrapping_sub(time), time })
}

/// Waits until OBS shows something of a pose that came after `since`.
#[track_caller]
fn await_picture(studio: &mut Studio, daemon: &Daemon, source: &str, since: u32) -> Duration {
    let started = Instant::now();
    while look(studio, source).is_none_or(|seen| seen.time.wrapping_sub(since) as i32 <= 0) {
        assert!(
            started.elapsed() < PATIENCE,
            "OBS shows nothing of {source}\n{}\n{}",
            studio.log(),
            daemon.log()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    started.elapsed()
}

fn now() -> u32 {
    timecode::millis(gst::SystemClock::obtain().time())
}

/// Looks at all sources for a while, and at what the daemon shows.
fn observe(studio: &mut Studio, daemon: &Daemon, ways: &mut [Way], time: Duration) -> Vec<RgbImage> {
    let mut shown = Vec::new();
    let started = Instant::now();
    while started.elapsed() < time {
        shown.push(without_time(&daemon.snapshot()));
        for way in &mut *ways {
            way.seen.extend(look(studio, way.name));
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    shown
}

/// Wants moving pictures of what the daemon showed, and tells the delay.
#[track_caller]
fn judge(way: &Way, shown: &Album, inside: f64) {
    let Way { name, seen, .. } = way;
    let moved = seen.windows(2).filter(|pair| difference(&pair[0].picture, &pair[1].picture) > 0.5).count();
    assert!(seen.len() >= 20 && moved * 3 > seen.len(), "{name}: {moved} of {} pictures move", seen.len());
    let worst = seen.iter().map(|seen| shown.likeness(&seen.picture)).fold(f64::MAX, f64::min);
    assert!(worst > 0.8, "{name}: a picture is only {worst:.3} like anything that the daemon showed");
    let mut delays: Vec<_> = seen.iter().map(|seen| seen.delay_ms).collect();
    delays.sort_unstable();
    let (median, most) = (delays[delays.len() / 2], delays[delays.len() - 1]);
    eprintln!(
        "{name}: from pose to OBS {median} ms (median of {}), at most {most} ms; {inside:.0} ms of it to the output; \
         at least {worst:.3} like a snapshot",
        delays.len()
    );
    assert!(f64::from(median) < inside + 2000., "{name}: {median} ms from pose to OBS");
}

#[test]
fn obs_shows_the_avatar() {
    gst::init().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut ways = ways();
    let config = config(&ways);
    let home = dir.path().join("obs");
    std::fs::create_dir(&home).unwrap();
    let Some(mut studio) = Studio::start(home) else { return };
    let mut daemon = Daemon::start(dir.path(), &config);
    daemon.wait_live();
    for (place, way) in (0..).zip(&ways) {
        studio.client.add_media(way.name, place, way.input.clone());
    }
    let begun = now();
    for way in &ways {
        let waited = await_picture(&mut studio, &daemon, way.name, begun);
        eprintln!("{}: a picture after {waited:.1?} more", way.name);
    }
    let shown = observe(&mut studio, &daemon, &mut ways, Duration::from_secs(12));
    let inside = daemon.call(&["status"])["stats"]["latency_ms"]["p50"].as_f64().unwrap();
    let sheet = |pictures: Vec<&RgbImage>| -> Vec<_> {
        let step = (pictures.len() / 10).max(1);
        pictures.into_iter().step_by(step).take(10).cloned().collect()
    };
    let rows = ways.iter().map(|way| sheet(way.seen.iter().map(|seen| &seen.picture).collect()));
    save_sheet("obs", &std::iter::once(sheet(shown.iter().collect())).chain(rows).collect::<Vec<_>>());
    studio.photograph();
    let shown = Album::new(&shown);
    for way in &ways {
        judge(way, &shown, inside);
    }
    let other = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/mini/avatars/mara.png");
    let strange = shown.likeness(&without_time(&image::open(other).unwrap().to_rgb8()));
    assert!(strange < 0.5, "another avatar is {strange:.3} like what was shown");

    daemon.stop();
    let stopped = now();
    let daemon = Daemon::start(dir.path(), &config);
    for way in &ways {
        let waited = await_picture(&mut studio, &daemon, way.name, stopped);
        eprintln!("{}: back after {waited:.1?} more", way.name);
    }
}
