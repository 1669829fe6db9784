//! Decoding users' videos.

use std::{fs, path::Path};

use gst::prelude::*;
use keyframed_train::video;

/// Runs a pipeline to its end.
fn run(launch: &str) {
    gst::init().unwrap();
    let pipeline = gst::parse::launch(launch).unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let kinds = [gst::MessageType::Eos, gst::MessageType::Error];
    let message = pipeline.bus().unwrap().timed_pop_filtered(gst::ClockTime::from_seconds(60), &kinds);
    assert_eq!(message.as_ref().map(|m| m.type_()), Some(gst::MessageType::Eos), "{message:?}");
    pipeline.set_state(gst::State::Null).unwrap();
}

fn times(file: &Path) -> Vec<u64> {
    let mut times = Vec::new();
    video::read(file, |pts, frame| {
        assert_eq!((frame.width(), frame.height()), (64, 48));
        times.push((pts + 500_000) / 1_000_000);
        Ok(())
    })
    .unwrap();
    times
}

/// Encoders that reorder frames begin later on their own clock; a transport stream begins anywhere.
#[test]
fn times_count_from_the_beginning_whatever_the_container_says() {
    let dir = tempfile::tempdir().unwrap();
    let source = "videotestsrc num-buffers=20 ! video/x-raw,width=64,height=48,framerate=25/1 ! \
                  x264enc bframes=3 b-adapt=false key-int-max=10";
    let expected: Vec<u64> = (0..20).map(|i| i * 40).collect();
    for (name, rest) in [("b.mp4", "mp4mux"), ("b.mkv", "h264parse ! matroskamux")] {
        let file = dir.path().join(name);
        run(&format!("{source} ! {rest} ! filesink location={}", file.display()));
        assert_eq!(times(&file), expected, "{name}");
    }
}

#[test]
fn what_is_no_video_is_refused_soon() {
    let dir = tempfile::tempdir().unwrap();
    let said = |name: &str| {
        let error = video::read(&dir.path().join(name), |_, _| Ok(())).unwrap_err();
        format!("{error:#}")
    };
    assert!(said("missing.mp4").contains("is no file"));
    fs::write(dir.path().join("notes.mp4"), "not a video at all\n".repeat(50)).unwrap();
    let text = said("notes.mp4");
    assert!(text.contains("notes.mp4") && text.len() > 40, "{text}");
    let sound = dir.path().join("sound.ogg");
    run(&format!("audiotestsrc num-buffers=20 ! vorbisenc ! oggmux ! filesink location={}", sound.display()));
    let heard = said("sound.ogg");
    assert!(heard.contains("sound.ogg"), "{heard}");
}
