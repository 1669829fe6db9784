//! Bad input: one clear message, an exit code, nothing half done left behind.

mod common;

use std::{
    fs,
    io::Read as _,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use common::{Bench, fail, keyframed, measure, succeed};

/// Inputs that are told before anything is written.
#[track_caller]
fn refused(bench: &Bench, reference: &Path, driving: &Path, because: &str) {
    let before = bench.files();
    let said = fail(&mut bench.animate(reference, driving, &bench.path("out.mp4")));
    assert!(said.contains(because), "{said}");
    assert_eq!(bench.files(), before, "something was left behind");
}

#[test]
fn missing_files_are_named() {
    let bench = Bench::new();
    let (clip, picture) = (bench.clip("in.mp4", "walk", 3), bench.picture("ref.png", 64, 64));
    refused(&bench, &picture, &bench.path("none.mp4"), "none.mp4");
    refused(&bench, &bench.path("none.png"), &clip, "none.png");
    refused(&bench, &picture, bench.path("").as_path(), "is a folder");
    refused(&bench, Path::new("nobody"), &clip, "no avatar nobody");
}

#[test]
fn a_prompt_is_refused_by_a_model_that_takes_none() {
    let bench = Bench::new();
    let (clip, picture) = (bench.clip("in.mp4", "walk", 3), bench.picture("ref.png", 64, 64));
    let before = bench.files();
    let said = fail(bench.animate(&picture, &clip, &bench.path("out.mp4")).args(["--prompt", "a dancer"]));
    assert!(said.contains("takes no prompt: its text is stored with it"), "{said}");
    assert_eq!(bench.files(), before, "something was left behind");
}

#[test]
fn files_of_another_kind_are_refused() {
    let bench = Bench::new();
    let (clip, picture) = (bench.clip("in.mp4", "walk", 3), bench.picture("ref.png", 64, 64));
    let (empty, text) = (bench.path("empty.mp4"), bench.path("text.mp4"));
    fs::write(&empty, "").unwrap();
    fs::write(&text, "this is no film\n".repeat(100)).unwrap();
    refused(&bench, &picture, &empty, "is empty (0 bytes)");
    refused(&bench, &picture, &text, "text.mp4 is no video");
    refused(&bench, &text, &clip, "text.mp4 is no picture");
    refused(&bench, &clip, &clip, "in.mp4 is no picture");
    let sound =
        bench.launch("sound.mkv", "audiotestsrc num-buffers=20 ! audioconvert ! vorbisenc ! matroskamux");
    refused(&bench, &picture, &sound, "sound.mkv holds no video");
}

#[test]
fn a_clip_without_frames_is_refused() {
    let bench = Bench::new();
    let picture = bench.picture("ref.png", 64, 64);
    let line =
        "videotestsrc num-buffers=0 ! video/x-raw,width=64,height=64 ! videoconvert ! x264enc ! matroskamux";
    let none = bench.launch("none.mkv", line);
    refused(&bench, &picture, &none, "none.mkv");
}

#[test]
fn an_mp4_cut_before_its_index_is_refused() {
    let bench = Bench::new();
    let picture = bench.picture("ref.png", 64, 64);
    let line =
        "denseposetestsrc num-buffers=50 ! video/x-raw,width=64,height=64 ! videoconvert ! x264enc ! mp4mux";
    let clip = bench.launch("cut.mp4", line);
    let length = fs::metadata(&clip).unwrap().len();
    fs::OpenOptions::new().write(true).open(&clip).unwrap().set_len(length / 2).unwrap();
    refused(&bench, &picture, &clip, "cut.mp4 is no video that can be read");
}

/// The index is there, half of the frames are not: what could be read is animated and kept, and the exit code
/// tells that it is not all.
#[test]
fn an_mp4_cut_after_its_index_is_animated_as_far_as_it_goes() {
    let bench = Bench::new();
    let (clip, picture) = (bench.clip("cut.mp4", "dance", 100), bench.picture("ref.png", 64, 64));
    let length = fs::metadata(&clip).unwrap().len();
    fs::OpenOptions::new().write(true).open(&clip).unwrap().set_len(length * 6 / 10).unwrap();
    let said = fail(bench.animate(&picture, &clip, &bench.path("out.mp4")).args(["--window", "50"]));
    assert!(said.contains("cut short") && said.contains("promises 4.00 s"), "{said}");
    let Some(measured) = measure(&bench.path("out.mp4")) else { return };
    assert!((20..100).contains(&measured.frames), "{measured:?}");
    assert_eq!(measured.rate, "25/1");
}

#[test]
fn pictures_too_small_or_broken_are_refused() {
    let bench = Bench::new();
    let clip = bench.clip("in.mp4", "walk", 3);
    refused(&bench, &bench.picture("dot.png", 1, 1), &clip, "dot.png is too small to animate: 1x1");
    let broken = bench.picture("broken.png", 200, 200);
    let length = fs::metadata(&broken).unwrap().len();
    fs::OpenOptions::new().write(true).open(&broken).unwrap().set_len(length / 2).unwrap();
    refused(&bench, &broken, &clip, "broken.png is no picture that can be read");
}

#[test]
fn an_8k_picture_is_animated() {
    let bench = Bench::new();
    let clip = bench.clip("in.mp4", "walk", 3);
    // Flat, so that making it is quick; JPEG, so that the file is small.
    let huge = bench.path("huge.jpg");
    image::RgbImage::from_pixel(7680, 4320, image::Rgb([200, 90, 40])).save(&huge).unwrap();
    succeed(&mut bench.animate(&huge, &clip, &bench.path("out.mp4")));
    assert!(measure(&bench.path("out.mp4")).is_none_or(|m| m.frames == 3));
}

#[test]
fn clips_of_one_pixel_and_of_8k_are_animated() {
    let bench = Bench::new();
    let picture = bench.picture("ref.png", 64, 64);
    let clips = [
        ("dot.mkv", 1, 1, "video/x-raw,format=RGB ! matroskamux"),
        ("huge.mkv", 7680, 4320, "jpegenc ! matroskamux"),
    ];
    for (name, width, height, format) in clips {
        let caps = format!("video/x-raw,width={width},height={height},framerate=25/1");
        let line = format!("videotestsrc num-buffers=3 pattern=blue ! {caps} ! videoconvert ! {format}");
        let clip = bench.launch(name, &line);
        succeed(&mut bench.animate(&picture, &clip, &bench.path("out.mp4")));
        assert!(measure(&bench.path("out.mp4")).is_none_or(|m| m.frames == 3), "{name}");
    }
}

#[test]
fn a_one_frame_clip_gives_one_frame() {
    let bench = Bench::new();
    let (clip, picture) = (bench.clip("one.mp4", "walk", 1), bench.picture("ref.png", 64, 64));
    succeed(&mut bench.animate(&picture, &clip, &bench.path("out.mp4")));
    let Some(measured) = measure(&bench.path("out.mp4")) else { return };
    assert_eq!(measured.frames, 1);
    assert!((measured.duration - 0.04).abs() < 0.002, "{measured:?}");
}

#[test]
fn a_clip_that_is_not_densepose_is_warned_about_and_runs() {
    let bench = Bench::new();
    let picture = bench.picture("ref.png", 64, 64);
    let line = "videotestsrc num-buffers=5 ! video/x-raw,width=64,height=64,framerate=25/1 ! videoconvert ! x264enc ! mp4mux";
    let bars = bench.launch("bars.mp4", line);
    let report = bench.path("report.json");
    let output =
        bench.animate(&picture, &bars, &bench.path("out.mp4")).arg("--report").arg(&report).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.matches("does not look like DensePose").count() == 1 && said.contains(" % "), "{said}");
    assert!(common::json(&report)["input"]["off_palette_share"].as_f64().unwrap() > 0.25);
}

#[test]
fn outputs_that_cannot_be_written_are_told_first() {
    let bench = Bench::new();
    let (clip, picture) = (bench.clip("in.mp4", "walk", 3), bench.picture("ref.png", 64, 64));
    let said = |command: &mut Command| fail(command);
    assert!(
        said(&mut bench.animate(&picture, &clip, &bench.path("no/out.mp4"))).contains("there is no folder")
    );
    assert!(said(&mut bench.animate(&picture, &clip, &bench.path("out.avi"))).contains(".mp4, .mov or .mkv"));
    assert!(said(&mut bench.animate(&picture, &clip, &clip)).contains("would be overwritten"));
    let mut command = bench.animate(&picture, &clip, &bench.path("out.mp4"));
    assert!(said(command.arg("--report").arg(bench.path("no/report.json"))).contains("there is no folder"));
    assert_eq!(bench.files(), ["in.mp4", "ref.png"]);
}

#[test]
fn a_damaged_weight_file_is_named() {
    let bench = Bench::new();
    let (clip, picture) = (bench.clip("in.mp4", "walk", 3), bench.picture("ref.png", 64, 64));
    let weights = bench.model().join("unet.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&weights, &bytes).unwrap();
    refused(&bench, &picture, &clip, "unet.safetensors");
    bytes.truncate(last);
    fs::write(&weights, &bytes).unwrap();
    refused(&bench, &picture, &clip, "unet.safetensors");
    fs::remove_file(&weights).unwrap();
    refused(&bench, &picture, &clip, "unet.safetensors");
}

/// Checksums hold, but the networks are not those that the manifest describes.
#[test]
fn a_tensor_of_another_shape_is_named() {
    let bench = Bench::new();
    let (clip, picture) = (bench.clip("in.mp4", "walk", 3), bench.picture("ref.png", 64, 64));
    let manifest = bench.model().join("model.toml");
    let text = fs::read_to_string(&manifest).unwrap();
    let other = text.replacen("cross_attention_dim = 12", "cross_attention_dim = 20", 1);
    assert_ne!(text, other);
    fs::write(&manifest, other).unwrap();
    refused(&bench, &picture, &clip, "has shape");
}

#[test]
fn an_unknown_model_or_device_is_refused() {
    let bench = Bench::new();
    let (clip, picture) = (bench.clip("in.mp4", "walk", 3), bench.picture("ref.png", 64, 64));
    let mut command = keyframed();
    command.args(["animate", "--model", "nobody", "--output"]).arg(bench.path("out.mp4"));
    let said = fail(command.arg("--reference").arg(&picture).arg("--driving").arg(&clip));
    assert!(said.contains("no model `nobody`"), "{said}");
    let mut command = bench.animate(&picture, &clip, &bench.path("out.mp4"));
    let said = fail(command.args(["--device", "cuda:77"]));
    assert!(said.contains("cuda:77 does not exist"), "{said}");
    assert_eq!(bench.files(), ["in.mp4", "ref.png"]);
}

/// A limit on file size stands for a full disk: writes fail in the same place.
#[test]
fn a_full_disk_leaves_nothing() {
    let bench = Bench::new();
    let (clip, picture) = (bench.clip("in.mp4", "dance", 25), bench.picture("ref.png", 64, 64));
    let mut command = bench.animate(&picture, &clip, &bench.path("out.mp4"));
    // SAFETY: async-signal-safe calls only, between fork and exec.
    unsafe {
        command.pre_exec(|| {
            let limit = libc::rlimit { rlim_cur: 4096, rlim_max: 4096 };
            libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
            libc::setrlimit(libc::RLIMIT_FSIZE, &limit);
            Ok(())
        });
    }
    let said = fail(&mut command);
    assert!(said.contains("out.mp4 was not made"), "{said}");
    assert_eq!(bench.files(), ["in.mp4", "ref.png"]);
}

/// Ctrl-C closes the file properly: what was done until then can be played.
#[test]
fn an_interrupted_run_leaves_a_video_that_plays() {
    let bench = Bench::new();
    let (clip, picture) = (bench.clip("in.mp4", "dance", 2000), bench.picture("ref.png", 64, 64));
    let out = bench.path("out.mp4");
    let mut child = bench.animate(&picture, &clip, &out).stdout(Stdio::piped()).spawn().unwrap();
    // Until something has been encoded.
    let started = Instant::now();
    while !bench
        .files()
        .iter()
        .any(|f| f.ends_with(".part") && fs::metadata(bench.path(f)).unwrap().len() > 1000)
    {
        assert!(started.elapsed() < Duration::from_secs(120), "nothing is written");
        assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
        std::thread::sleep(Duration::from_millis(50));
    }
    // SAFETY: a signal to our own child, which has not been waited for.
    unsafe { libc::kill(child.id() as i32, libc::SIGINT) };
    let status = child.wait().unwrap();
    let mut said = String::new();
    child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(status.code(), Some(130), "{said}");
    assert!(said.contains("interrupted"), "{said}");
    assert!(measure(&out).is_none_or(|m| (1..2000).contains(&m.frames)));
    assert_eq!(bench.files(), ["in.mp4", "out.mp4", "ref.png"]);
}
