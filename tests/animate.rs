//! The main job, file to file, by the program itself.

mod common;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use common::{Bench, Measured, decode, installed, json, keyframed, measure, succeed};

/// Every frame's checksum, decoded. `None` where there is no ffmpeg.
fn pictures(video: &Path) -> Option<Vec<u8>> {
    let mut command = Command::new("ffmpeg");
    let output =
        command.args(["-v", "error", "-i"]).arg(video).args(["-f", "framemd5", "-"]).output().ok()?;
    assert!(output.status.success());
    Some(output.stdout)
}

#[test]
fn a_clip_becomes_a_video_with_report_and_sheet() {
    let bench = Bench::new();
    let (clip, picture) = (bench.clip("in.mp4", "dance", 50), bench.picture("ref.png", 80, 60));
    let (out, report, sheet) = (bench.path("out.mp4"), bench.path("report.json"), bench.path("sheet.png"));
    let mut command = bench.animate(&picture, &clip, &out);
    let said = succeed(command.arg("--report").arg(&report).arg("--sheet").arg(&sheet));
    assert!(said.contains("out.mp4") && said.contains("sheet.png"), "{said}");

    let report = json(&report);
    let count = |name: &str| report["counts"][name].as_u64().unwrap_or_else(|| panic!("{name}: {report}"));
    assert_eq!((count("in"), report["output"]["frames"].as_u64()), (50, Some(50)));
    assert!((2..50).contains(&count("key")), "{report}");
    assert_eq!(count("generated"), count("key"), "offline, no key pose is lost");
    // At the clip's own rate every key frame lies on a tick.
    assert_eq!(count("generated") + count("interpolated") + count("repeated"), 50);
    assert!(count("interpolated") > 0);
    let ratio = report["key_ratio"].as_f64().unwrap();
    assert!((ratio - count("key") as f64 / 50.0).abs() < 1e-9);
    for stage in ["select", "generate", "interpolate", "total"] {
        assert!(report["wall_seconds"][stage].as_f64().unwrap() > 0.0, "{stage}: {report}");
    }
    assert!(report["peak_memory_bytes"].as_u64().unwrap() > 10 << 20);
    assert_eq!(report["output"]["bytes"].as_u64(), Some(fs::metadata(&out).unwrap().len()));
    assert_eq!(report["options"]["steps"], 2);

    let sheet = image::open(&sheet).unwrap();
    assert!(sheet.width() > 3 * sheet.height() / 2, "{}x{}", sheet.width(), sheet.height());
    let measured = measure(&out);
    let expected = Measured { frames: 50, duration: 2.0, rate: "25/1".into(), size: (32, 16) };
    assert!(measured.is_none_or(|measured| measured == expected));
}

/// Frame count is duration x rate and the duration stays, whatever the rates.
#[test]
fn any_output_rate_keeps_the_duration() {
    let bench = Bench::new();
    let picture = bench.picture("ref.png", 64, 64);
    let clip = bench.sized_clip("in.mp4", "walk", 37, "width=96,height=64,framerate=24/1");
    let duration = 37.0 / 24.0;
    for (fps, number) in [("24", 24.0), ("60", 60.0), ("29.97", 30000.0 / 1001.0), ("5", 5.0)] {
        let out = bench.path("out.mp4");
        succeed(bench.animate(&picture, &clip, &out).args(["--fps", fps]));
        let Some(measured) = measure(&out) else { return };
        let expected = duration * number;
        assert!((measured.frames as f64 - expected).abs() <= 1.0, "{fps}: {measured:?}, not {expected}");
        assert!(
            (measured.duration - duration).abs() <= 1.0 / number + 1e-3,
            "{fps}: {measured:?}, not {duration}"
        );
    }
}

#[test]
fn the_same_seed_gives_the_same_pictures() {
    let bench = Bench::new();
    let (clip, picture) = (bench.clip("in.mp4", "spin", 20), bench.picture("ref.png", 64, 64));
    let made = |seed: &str| {
        let out = bench.path("out.mkv");
        succeed(bench.animate(&picture, &clip, &out).args(["--seed", seed]));
        pictures(&out)
    };
    let Some(first) = made("7") else { return };
    assert!(made("7") == Some(first.clone()), "seed 7 gave two different videos");
    assert!(made("8") != Some(first), "the seed changes nothing");
}

/// Threads that add up in another order must not show. The files differ all the same: containers note when they were
/// made, and x264 how many threads it had.
#[test]
fn one_processor_makes_the_same_pictures_as_two() {
    if !installed("taskset") {
        eprintln!("skipped: taskset is not installed");
        return;
    }
    // The two that this process may use: a container's need not begin at 0.
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap().trim();
    let Some((first, second)) = two_of(allowed) else {
        eprintln!("skipped: there is one processor");
        return;
    };
    let bench = Bench::new();
    let (clip, picture) = (bench.clip("in.mp4", "spin", 20), bench.picture("ref.png", 64, 64));
    let made = |processors: &str, threads: &str| {
        let out = bench.path("out.mkv");
        let animate = bench.animate(&picture, &clip, &out);
        let mut command = Command::new("taskset");
        command.args(["-c", processors]).arg(animate.get_program()).args(animate.get_args());
        // What runs the tests may have said one for all.
        command.env("OMP_NUM_THREADS", threads).env("LC_ALL", "C");
        succeed(&mut command);
        pictures(&out)
    };
    let Some(one) = made(&first.to_string(), "1") else { return };
    let two = made(&format!("{first},{second}"), "2");
    assert!(two == Some(one), "two processors make other pictures than one");
}

/// The first two of a list such as `0-3,8`.
fn two_of(list: &str) -> Option<(u32, u32)> {
    let ranges = list.split(',').map(|range| range.split_once('-').unwrap_or((range, range)));
    let mut all = ranges.flat_map(|(from, to)| from.parse::<u32>().unwrap()..=to.parse().unwrap());
    Some((all.next()?, all.next()?))
}

#[test]
fn options_reach_the_stages() {
    let bench = Bench::new();
    let (clip, picture) = (bench.clip("in.mp4", "dance", 26), bench.picture("ref.png", 64, 64));
    let (out, report) = (bench.path("out.mov"), bench.path("report.json"));
    let run = |options: &[&str]| {
        succeed(bench.animate(&picture, &clip, &out).arg("--report").arg(&report).args(options));
        json(&report)
    };
    let all = run(&[
        "--lambda",
        "0",
        "--steps",
        "1",
        "--guidance-scale",
        "1.5",
        "--size",
        "64x64",
        "--device",
        "cpu",
    ]);
    assert_eq!(all["counts"]["key"], 26, "with lambda 0 every frame is a key pose");
    assert_eq!((&all["options"]["steps"], &all["options"]["guidance_scale"]), (&1.into(), &1.5.into()));
    assert!(measure(&out).is_none_or(|m| m.size == (64, 64) && m.frames == 26));
    let few = run(&["--lambda", "1", "--window", "5"]);
    // First, every fifth, last.
    assert_eq!(few["counts"]["key"], 6);
}

#[test]
fn a_still_pose_generates_once() {
    let bench = Bench::new();
    let (clip, picture) = (bench.clip("in.mp4", "still", 40), bench.picture("ref.png", 64, 64));
    let report = bench.path("report.json");
    succeed(bench.animate(&picture, &clip, &bench.path("out.mp4")).arg("--report").arg(&report));
    let report = json(&report);
    assert_eq!(report["counts"]["generated"], 1, "{report}");
    assert_eq!(report["output"]["frames"], 40);
}

/// Containers, codecs, shapes, sound and start times as they come.
#[test]
fn clips_of_many_kinds_are_read() {
    let bench = Bench::new();
    let picture = bench.picture("ref.png", 64, 64);
    let source = |caps: &str| format!("denseposetestsrc num-buffers=12 ! video/x-raw,{caps} ! videoconvert");
    let square = source("width=64,height=64,framerate=25/1");
    let clips = [
        ("mjpeg.avi", format!("{square} ! jpegenc ! avimux")),
        (
            "vp8.webm",
            format!("{} ! vp8enc deadline=1 ! webmmux", source("width=50,height=90,framerate=25/1")),
        ),
        ("odd.mkv", format!("{} ! x264enc ! matroskamux", source("width=101,height=67,framerate=25/1"))),
        ("tall.mp4", format!("{square} ! video/x-raw,pixel-aspect-ratio=1/1 ! x264enc ! mp4mux")),
        ("late.mkv", format!("{square} ! identity name=late ! x264enc ! matroskamux")),
        (
            "sound.mp4",
            format!(
                "audiotestsrc num-buffers=30 ! audioconvert ! avenc_aac ! mux. {square} ! x264enc ! mp4mux name=mux"
            ),
        ),
    ];
    for (name, line) in clips {
        let clip = bench.launch(name, &line);
        if name == "late.mkv"
            && let Some(start) = start_time(&clip)
        {
            assert!((start - 3.0).abs() < 0.1, "{name} begins at {start} s");
        }
        let out = bench.path("out.mp4");
        succeed(&mut bench.animate(&picture, &clip, &out));
        let Some(measured) = measure(&out) else { return };
        assert!(measured.frames.abs_diff(12) <= 1, "{name}: {measured:?}");
        assert!((measured.duration - 0.48).abs() <= 0.041, "{name}: {measured:?}");
        let start = start_time(&out).unwrap();
        assert!(start.abs() < 0.041, "{name}: the result begins at {start} s");
    }
}

/// When a file's first picture is shown, in seconds. `None` where there is no ffprobe.
fn start_time(video: &Path) -> Option<f64> {
    let mut command = Command::new("ffprobe");
    command.args(["-v", "error", "-select_streams", "v:0", "-show_entries", "stream=start_time"]);
    let output = command.args(["-of", "csv=p=0"]).arg(video).output().ok()?;
    let said = String::from_utf8(output.stdout).unwrap();
    Some(said.trim().parse().unwrap_or_else(|err| panic!("{}: {said:?}: {err}", video.display())))
}

#[test]
fn the_embedded_avatar_follows_dancing2() {
    follows("dancing2.mp4", 100);
}

#[test]
fn the_embedded_avatar_follows_demo4() {
    follows("demo4.mp4", 107);
}

#[test]
fn the_embedded_avatar_follows_running() {
    follows("running.mp4", 42);
}

/// Animates a clip of the MagicAnimate project, where it lies beside the repository, with the embedded model and one
/// of its avatars, and wants the picture to move where the pose does.
#[track_caller]
fn follows(name: &str, frames: usize) {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared");
    let clip = env::var_os("KEYFRAMED_SHARED").map_or_else(beside, PathBuf::from).join("driving").join(name);
    if !clip.is_file() {
        eprintln!("skipped: {} is not here", clip.display());
        return;
    }
    let bench = Bench::new();
    let (out, sheet, report) = (bench.path("out.mp4"), bench.path("sheet.png"), bench.path("report.json"));
    let mut command = keyframed();
    command.arg("animate").arg("--reference").arg(first_avatar()).arg("--driving").arg(&clip);
    command.arg("--output").arg(&out).arg("--sheet").arg(&sheet).arg("--report").arg(&report);
    succeed(command.args(["--lambda", "0.02"]));
    assert!(image::open(&sheet).is_ok());
    assert_eq!(json(&report)["counts"]["in"], frames);
    let (poses, pictures) = (decode(&clip, 64), decode(&out, 64));
    assert_eq!((poses.len(), pictures.len()), (frames, frames));
    let (moving, still) = motion(&poses, &pictures);
    eprintln!("{moving:.1} levels where the pose moves, {still:.1} in the background");
    assert!(
        moving > 4.0 * still,
        "the avatar does not move with the pose: {moving:.1} there, {still:.1} elsewhere"
    );
}

/// The first reference picture of the embedded model.
fn first_avatar() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/mini/avatars");
    let pictures = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    pictures.filter(|path| path.extension().is_some_and(|e| e == "png")).min().unwrap()
}

/// How much the pictures change from frame to a later frame, in levels, where the pose changes and where both poses
/// are background.
fn motion(poses: &[Vec<u8>], pictures: &[Vec<u8>]) -> (f64, f64) {
    const LATER: usize = 10;
    let background = |pixel: &[u8]| pixel[0].abs_diff(68) < 12 && pixel[1] < 12 && pixel[2].abs_diff(84) < 12;
    let change =
        |a: &[u8], b: &[u8]| a.iter().zip(b).map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>() / 3.0;
    let (mut moving, mut still) = ((0.0, 0.0), (0.0, 0.0));
    for n in 0..poses.len().saturating_sub(LATER) {
        let pose = poses[n].chunks_exact(3).zip(poses[n + LATER].chunks_exact(3));
        let picture = pictures[n].chunks_exact(3).zip(pictures[n + LATER].chunks_exact(3));
        for ((from, to), (a, b)) in pose.zip(picture) {
            let sum = match (background(from), background(to)) {
                (true, true) => &mut still,
                (false, false) => continue,
                _ => &mut moving,
            };
            sum.0 += change(a, b);
            sum.1 += 1.0;
        }
    }
    (moving.0 / f64::max(moving.1, 1.0), still.0 / f64::max(still.1, 1.0))
}
