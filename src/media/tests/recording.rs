use std::path::{Path, PathBuf};

use super::*;

fn recording(directory: &Path, rotate: Option<Duration>) -> Output {
    let fragment = Duration::from_millis(500);
    output(OutputKind::Recording { directory: directory.to_owned(), fragment, rotate })
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Frames that ffprobe finds in a file, by decoding it all; `None`: it is broken.
fn frames_in(file: &Path) -> Option<u64> {
    let output = Command::new("ffprobe")
        .args(["-v", "error", "-count_frames", "-show_entries", "stream=nb_read_frames", "-of", "csv=p=0"])
        .arg(file)
        .output()
        .unwrap();
    eprintln!(
        "{}: {}{}",
        file.display(),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}

#[test]
fn is_whole_after_a_stop() {
    let directory = tempfile::tempdir().unwrap();
    let mut fed = Fed::start(&recording(directory.path(), None));
    let told = fed.events.wait_for("a file", |change| matches!(change, PipeChange::File(_)));
    eventually("frames", || (fed.pipe.status().frames >= 30).then_some(()));
    let (closed, took) = fed.stop(Duration::from_secs(2));
    assert!(closed, "still open after {took:?}");
    let files = files(directory.path());
    assert_eq!(files.len(), 1, "{files:?}");
    assert_eq!(told, PipeChange::File(files[0].clone()));
    let status = fed.pipe.status();
    assert_eq!(status.dropped, 0);
    assert_eq!(frames_in(&files[0]), Some(status.frames));
}

#[test]
fn rotates_without_losing_a_frame() {
    let directory = tempfile::tempdir().unwrap();
    let mut fed = Fed::start(&recording(directory.path(), Some(Duration::from_secs(2))));
    fed.events.running();
    eventually("three files", || (files(directory.path()).len() >= 3).then_some(()));
    assert!(fed.stop(Duration::from_secs(2)).0);
    let files = files(directory.path());
    let frames: u64 = files.iter().map(|file| frames_in(file).expect("a broken file")).sum();
    let status = fed.pipe.status();
    assert_eq!(status.dropped, 0);
    assert_eq!(frames, status.frames, "{files:?}");
}

/// Run by the test below in a process of its own, that is killed.
#[test]
#[ignore = "records until it is killed"]
fn record_until_killed() {
    let Some(directory) = std::env::var_os("KEYFRAMED_TEST_DIRECTORY") else { return };
    let fed = Fed::start(&recording(Path::new(&directory), None));
    thread::sleep(Duration::from_secs(120));
    drop(fed);
}

#[test]
fn plays_after_the_recorder_was_killed() {
    let directory = tempfile::tempdir().unwrap();
    let mut recorder = Process(
        Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "media::tests::recording::record_until_killed"])
            .env("KEYFRAMED_TEST_DIRECTORY", directory.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap(),
    );
    let file = eventually("a file", || files(directory.path()).pop());
    // Some fragments are on the disk.
    eventually("pictures", || std::fs::metadata(&file).ok().filter(|data| data.len() > 300_000));
    recorder.0.kill().unwrap();
    recorder.0.wait().unwrap();
    let frames = frames_in(&file).expect("a file that plays");
    assert!(frames >= 15, "{frames}");
}
