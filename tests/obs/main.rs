//! OBS, as a real client: it shows the avatar from SRT, UDP and RTMP, soon after the pose, and again after the daemon
//! was away.

mod client;
#[path = "../common/mod.rs"]
mod common;
mod studio;
mod tap;
#[path = "../../src/media/timecode.rs"]
#[allow(dead_code, reason = "drawing is the daemon's business")]
mod timecode;

use std::time::{Duration, Instant};

use common::{
    daemon::{Daemon, PATIENCE, cheap, free_tcp_port, free_udp_port},
    docs,
    look::{judge, without_time},
};
use gst::prelude::*;
use image::RgbImage;
use serde_json::{Value, json};
use studio::Studio;
use tap::Tap;

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
    /// When the screenshot had come; as the time code, milliseconds.
    now: u32,
    /// When the pose had come that it shows.
    pose: u32,
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
    let shot = studio.client.screenshot(source)?;
    let now = now();
    let picture = image::load_from_memory(&shot).unwrap().to_rgb8();
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    let pose = timecode::read(&picture, timecode::Shape { width, height, stride: 3 * width })?;
    Some(Seen { picture: without_time(&picture), now, pose })
}

/// Waits until OBS shows something of a pose that came after `since`.
#[track_caller]
fn await_picture(studio: &mut Studio, daemon: &Daemon, source: &str, since: u32) -> Duration {
    let started = Instant::now();
    while look(studio, source).is_none_or(|seen| seen.pose.wrapping_sub(since) as i32 <= 0) {
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

/// Looks at all sources, and at what the daemon shows, as often as it takes to judge them.
#[track_caller]
fn observe(studio: &mut Studio, daemon: &Daemon, ways: &mut [Way]) -> Vec<RgbImage> {
    let mut shown = Vec::new();
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(10) || ways.iter().any(|way| way.seen.len() < 30) {
        let counts = ways.iter().map(|way| way.seen.len());
        assert!(started.elapsed() < PATIENCE, "{:?} pictures", counts.collect::<Vec<_>>());
        for way in &mut *ways {
            shown.push(without_time(&daemon.snapshot()));
            way.seen.extend(look(studio, way.name));
        }
    }
    shown
}

/// Tells the delays, and wants those that are not the animation's to be no longer than explained.
#[track_caller]
fn tell_delay(way: &Way, tap: &Tap) {
    let describe = |mut delays: Vec<u32>| {
        delays.sort_unstable();
        let at = |share: usize| delays.get(delays.len() * share / 100).copied().unwrap_or(u32::MAX);
        (at(50), format!("median {} ms, 95 % within {} ms, of {}", at(50), at(95), delays.len()))
    };
    let (_, whole) = describe(way.seen.iter().map(|seen| seen.now.wrapping_sub(seen.pose)).collect());
    let sent = way.seen.iter().filter_map(|seen| Some(seen.now.wrapping_sub(tap.sent_once(seen.pose)?)));
    let (median, behind) = describe(sent.collect());
    eprintln!("{}: from pose to OBS {whole}; from the daemon's output to OBS {behind}", way.name);
    assert!(median < 2000, "{}: {median} ms from the daemon's output to OBS", way.name);
}

#[test]
fn obs_shows_the_avatar() {
    gst::init().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut ways = ways();
    let socket = dir.path().join("tap");
    let config = config(&ways) + &Tap::output(&socket);
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
    let tap = Tap::open(&socket);
    let shown = observe(&mut studio, &daemon, &mut ways);
    studio.photograph();
    for way in &ways {
        let pictures: Vec<_> = way.seen.iter().map(|seen| seen.picture.clone()).collect();
        judge(&format!("OBS {}", way.name), &pictures, &shown);
        tell_delay(way, &tap);
    }

    drop(tap);
    daemon.stop();
    let stopped = now();
    let daemon = Daemon::start(dir.path(), &config);
    daemon.wait_live();
    for way in &ways {
        let waited = await_picture(&mut studio, &daemon, way.name, stopped);
        eprintln!("{}: back {waited:.1?} later", way.name);
    }
}
