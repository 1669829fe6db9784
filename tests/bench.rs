//! `keyframed bench` on the embedded model.

mod common;

use std::{fs, process::Stdio, thread, time::Duration};

use common::keyframed;
use serde_json::Value;

/// The 19th field of a thread's `stat`, behind the name in parentheses.
fn niceness(stat: &str) -> Option<i64> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(16)?.parse().ok()
}

fn own_niceness() -> i64 {
    niceness(&fs::read_to_string("/proc/thread-self/stat").unwrap()).unwrap()
}

/// How nice the thread of the live run's source is, while the process lasts.
fn source_niceness(pid: u32) -> Option<i64> {
    while let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) {
        let read = threads.flatten().filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok());
        let mut sources = read.filter(|stat| stat.contains("(denseposetest"));
        if let Some(found) = sources.find_map(|stat| niceness(&stat)) {
            return Some(found);
        }
        thread::sleep(Duration::from_millis(5));
    }
    None
}

#[test]
fn the_report_is_whole_and_adds_up() {
    let mut bench = keyframed();
    bench.args(["bench", "--seconds", "2", "--json", "--steps", "1"]);
    let bench = bench.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let pid = bench.id();
    let watch = thread::Builder::new().spawn(move || source_niceness(pid)).unwrap();
    let output = bench.wait_with_output().unwrap();
    let niceness = watch.join().unwrap();
    assert_eq!(niceness, Some(own_niceness() + 5), "the live run's threads give way as the daemon's do");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let number = |path: &str| report.pointer(path).and_then(Value::as_f64).unwrap_or(-1.0);
    assert!(number("/peak_gflop_per_s") > 1.0);
    let networks = report["networks"].as_array().unwrap();
    let of = |name: &str| {
        let network = networks.iter().find(|n| n["name"] == name).unwrap();
        network["gflop"].as_f64().unwrap()
    };
    let whole = of("pose embedding") + of("ControlNet") + of("U-Net") + of("VAE decoder");
    // What no pose reaches, part of the U-Net's way down, was done before.
    let spared = whole - number("/key_frame/gflop");
    assert!((0.05..0.5).contains(&(spared / of("U-Net"))), "{spared}: {report:#}");
    assert!((number("/key_frames_per_s") - 1e3 / number("/key_frame/median_ms")).abs() < 1e-6);
    assert_eq!(report["in_betweens"].as_array().map(Vec::len), Some(2));
    // Whatever this machine does meanwhile, pictures come.
    assert!(number("/live/output_frames") > 0.0 && number("/live/latency_ms/p50") > 0.0, "{report:#}");
    let samples = report.pointer("/live/resident_bytes/samples").and_then(Value::as_array).map(Vec::len);
    assert_eq!(samples, Some(2), "at the start and at the end: {report:#}");
    assert_eq!(report.pointer("/live/resident_bytes/growth_percent_after_first_minute"), Some(&Value::Null));
    assert!(number("/live/minutes/0/output_frames") > 0.0 && number("/live/minutes/0/resident_bytes") > 1e8);
    assert!(number("/live/file_descriptors/start") > 3.0 && number("/live/threads/end") > 1.0, "{report:#}");
    assert!(number("/peak_bytes") > 1e8);
}

#[test]
fn growth_leaves_out_the_live_run() {
    let output = keyframed().args(["bench", "--growth", "--seconds", "5"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
    let output = keyframed().args(["bench", "--growth", "--model", "nowhere"]).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("nowhere"));
}

#[test]
fn what_is_not_there_is_named() {
    for (args, words) in [
        (["--model", "nowhere"], ["nowhere", "model"]),
        (["--device", "cuda:97"], ["cuda:97", "does not exist"]),
    ] {
        let output = keyframed().arg("bench").args(args).args(["--seconds", "0"]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{args:?}: {said}");
        assert!(
            words.iter().all(|word| said.contains(word)) && said.lines().count() == 1,
            "{args:?}: {said}"
        );
    }
}
