//! Reloading, and what the service manager hears of it.

use std::{fs, os::unix::net::UnixDatagram, thread, time::Duration};

use super::*;

/// A service manager, and what it was told and nobody asked for yet.
pub struct Manager(UnixDatagram, Vec<String>);

impl Manager {
    /// Waits for a message with lines that begin like these, in any order with others.
    #[track_caller]
    fn hears(&mut self, wanted: &[&str]) {
        let started = Instant::now();
        let fits =
            |text: &String| wanted.iter().all(|wanted| text.lines().any(|line| line.starts_with(wanted)));
        loop {
            if let Some(found) = self.1.iter().position(fits) {
                self.1.remove(found);
                return;
            }
            assert!(started.elapsed() < PATIENCE, "no {wanted:?} but {:?}", self.1);
            let mut bytes = [0; 4096];
            if let Ok(length) = self.0.recv(&mut bytes) {
                self.1.push(String::from_utf8_lossy(&bytes[..length]).into_owned());
            }
        }
    }
}

#[test]
fn a_service_manager_is_told() {
    let (_alone, bench) = (alone(), bench());
    let path = bench.path("notify");
    let mut manager = Manager(UnixDatagram::bind(&path).unwrap(), Vec::new());
    manager.0.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let config = base(&bench, "cpu") + &figure();
    let runtime = bench.path("run");
    fs::create_dir(&runtime).unwrap();
    let environment = [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "3000000")];
    let mut daemon = Daemon::start_with(&bench.path("."), &runtime, &config, &environment);
    manager.hears(&["READY=1"]);
    manager.hears(&["WATCHDOG=1"]);
    manager.hears(&["STATUS=Live; source figure; 0 of 0 outputs run"]);
    assert!(!manager.1.iter().any(|text| text.contains("READY")), "ready once");
    daemon.signal(libc::SIGHUP);
    manager.hears(&["RELOADING=1", "MONOTONIC_USEC="]);
    manager.hears(&["READY=1"]);
    manager.1.clear();
    manager.hears(&["WATCHDOG=1"]);
    daemon.stop();
    manager.hears(&["STOPPING=1"]);
}

#[test]
fn a_reload_while_it_starts_does_not_make_it_ready() {
    let (_alone, bench) = (alone(), bench());
    let path = bench.path("notify");
    let mut manager = Manager(UnixDatagram::bind(&path).unwrap(), Vec::new());
    manager.0.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let mut starting = end::spawn(&bench, &(base(&bench, "cpu") + &figure()), &[("NOTIFY_SOCKET", &path)]);
    end::wait_for_handler(&starting.0, libc::SIGHUP);
    // SAFETY: the process is ours and has not been waited for.
    unsafe { libc::kill(starting.0.id() as i32, libc::SIGHUP) };
    manager.hears(&["STATUS=Live"]);
    let heard: Vec<_> = manager.1.iter().filter(|m| m.contains("READY") || m.contains("RELOADING")).collect();
    assert!(heard[0].contains("READY=1"), "{heard:?}");
    assert_eq!(heard.iter().filter(|message| message.contains("READY")).count() % 2, 1, "{heard:?}");
    starting.end();
}

#[test]
fn reloads_come_one_after_the_other() {
    let (_alone, bench) = (alone(), bench());
    let config = base(&bench, "cpu") + &figure();
    let mut daemon = start(&bench, &config);
    daemon.wait_live();
    daemon.rewrite(&config.replace("steps = 1", "steps = 2"));
    thread::scope(|scope| {
        let all: Vec<_> = (0..6).map(|_| scope.spawn(|| daemon.call(&["reload"]))).collect();
        // What is written while they are at it is what the last one reads.
        daemon.rewrite(&config.replace("steps = 1", "steps = 3"));
        daemon.call(&["reload"]);
        assert_eq!(daemon.call(&["params.get"])["steps"], 3);
        for answer in all {
            answer.join().unwrap();
        }
    });
    assert_eq!(daemon.call(&["params.get"])["steps"], 3);
    // What needs a start is told each time.
    daemon.rewrite(&(config + "[metrics]\nlisten = \"127.0.0.1:1\"\n"));
    for _ in 0..2 {
        assert_eq!(daemon.call(&["reload"])["deferred"], serde_json::json!(["metrics"]));
    }
    daemon.stop();
}

#[test]
fn a_reference_asked_for_before_a_switch_does_not_win() {
    let (_alone, bench) = (alone(), bench());
    let config = base(&bench, "cpu").replace("[video]", "pipeline = \"figure\"\n\n[video]")
        + &figure()
        + "[pipelines.second]\nsource = \"figure\"\n\n[pipelines.second.animation]\nreference = \"two\"\n\n";
    // Decoding takes a while.
    let noise = |x: u32, y: u32| image::Rgb([(x * y % 251) as u8, (x ^ y) as u8, (x * 31 + y * 17) as u8]);
    image::RgbImage::from_fn(6000, 6000, noise).save(bench.path("gallery/large.png")).unwrap();
    let mut daemon = start(&bench, &config);
    daemon.wait_live();
    thread::scope(|scope| {
        let before = daemon.call(&["status"])["stats"]["frames_out"].as_u64().unwrap();
        let asked = scope.spawn(|| daemon.refused(&["reference.set", "large"]));
        // One more frame: the request is there.
        daemon.wait("frames", |status| status["stats"]["frames_out"].as_u64().unwrap() > before + 2);
        daemon.call(&["pipeline.switch", "second"]);
        let why = asked.join().unwrap();
        assert!(why.contains("meanwhile"), "{why}");
    });
    let two = bench.path("gallery/two.png").canonicalize().unwrap();
    daemon.wait("its own reference", |status| status["reference"] == two.to_str().unwrap());
    // The element has nothing else in store.
    daemon.wait("key frames", |status| status["showing"] == "live");
    let keys = |status: &Value| status["stats"]["key_frames"].as_u64().unwrap();
    let before = keys(&daemon.call(&["status"]));
    let status = daemon.wait("key frames", |status| keys(status) > before + 2);
    assert_eq!(status["reference"], two.to_str().unwrap());
    assert!(!daemon.log().contains("large.png\""), "{}", daemon.log());
    daemon.stop();
}

#[test]
fn a_chosen_reference_that_was_exchanged_for_a_link_is_not_followed() {
    let (_alone, bench) = (alone(), bench());
    let mut daemon = start(&bench, &(base(&bench, "cpu") + &figure()));
    daemon.wait_live();
    let chosen = bench.path("gallery/two.png");
    daemon.call(&["reference.set", "two"]);
    fs::rename(&chosen, bench.path("outside.png")).unwrap();
    std::os::unix::fs::symlink(bench.path("outside.png"), &chosen).unwrap();
    // Other networks: the reference is read anew.
    daemon.rewrite(&(base(&bench, "auto") + &figure()));
    daemon.call(&["reload"]);
    daemon.wait("failure", |_| daemon.log().contains("animation-lost"));
    assert!(daemon.log().contains("two.png cannot be opened"), "{}", daemon.log());
    fs::rename(bench.path("outside.png"), &chosen).unwrap();
    daemon.wait("its return", |status| status["loaded"] == true && status["showing"] == "live");
    daemon.stop();
}
