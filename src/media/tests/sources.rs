use std::path::{Path, PathBuf};

use keyframed_engine::{Frame, Labels, pose::off_palette_share};

use super::*;
use crate::config::resolved::Capture;

const TIMEOUT: Duration = Duration::from_secs(3);

/// A second of the test figure, H.264.
fn clip(directory: &Path, name: &str, size: u32, muxer: &str) -> PathBuf {
    init();
    let path = directory.join(name);
    let line = format!(
        "denseposetestsrc num-buffers=15 ! video/x-raw,format=RGB,width={size},height={size},framerate=15/1 \
         ! videoconvert ! video/x-raw,format=I420 ! x264enc bitrate=2000 key-int-max=15 bframes=0 ! h264parse \
         ! video/x-h264,stream-format={} {muxer} ! filesink location={}",
        if muxer.is_empty() { "byte-stream" } else { "avc" },
        path.display()
    );
    let line = line.replace("stream-format=avc ! mpegtsmux", "stream-format=byte-stream ! mpegtsmux");
    let pipeline = gst::parse::launch(&line).unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let types = [gst::MessageType::Eos, gst::MessageType::Error];
    let end = pipeline.bus().unwrap().timed_pop_filtered(gst::ClockTime::NONE, &types).unwrap();
    assert_eq!(end.type_(), gst::MessageType::Eos, "{end:?}");
    pipeline.set_state(gst::State::Null).unwrap();
    path
}

fn mp4(directory: &Path) -> PathBuf {
    clip(directory, "clip.mp4", 256, "! mp4mux")
}

/// ffmpeg that sends `clip` for ever at its own speed.
fn ffmpeg_sends(clip: &Path, to: &[&str]) -> Process {
    let clip = clip.to_str().unwrap();
    let mut args = vec!["-v", "error", "-re", "-stream_loop", "-1", "-i", clip, "-c", "copy"];
    args.extend(to);
    Process::start("ffmpeg", &args)
}

/// Frames come, and they are the test figure.
#[track_caller]
fn receives(source: &mut Opened) {
    source.events.running();
    source.more_frames(20);
    let (width, height, frame) = source.newest().unwrap();
    assert_eq!((width, height), (256, 256));
    let off = off_palette_share(&frame);
    let parts = Labels::from_frame(&frame).data().iter().filter(|&&label| label != 0).count();
    eprintln!("off the palette: {:.1} %, figure: {parts} pixels", 100.0 * off);
    assert!(off < 0.08, "{off}");
    assert!(parts > 2000, "{parts}");
    let (closed, took) = source.stop(Duration::from_secs(2));
    assert!(closed, "still open after {took:?}");
}

#[test]
fn test_figure() {
    let rate = Rate::new(15, 1).unwrap();
    let capture = Capture { width: Some(256), height: Some(256), rate: Some(rate) };
    let kind = SourceKind::TestFigure { pattern: "dance".into(), seed: 3, capture };
    let mut source = Opened::start(kind, TIMEOUT);
    receives(&mut source);
    let (_, _, frame) = source.newest().unwrap();
    assert_eq!(off_palette_share(&frame), 0.0);
}

#[test]
fn file_repeats_without_a_pause() {
    let directory = tempfile::tempdir().unwrap();
    for (name, muxer) in [("clip.mp4", "! mp4mux"), ("clip.mkv", "! matroskamux"), ("clip.ts", "! mpegtsmux")]
    {
        let path = clip(directory.path(), name, 256, muxer);
        let mut source = Opened::start(SourceKind::File { path, repeat: true }, TIMEOUT);
        source.events.running();
        source.more_frames(60);
        let status = source.pipe.status();
        let times = lock(&source.times).clone();
        let took = times[times.len() - 1].duration_since(times[0]).as_secs_f64();
        let rate = (times.len() - 1) as f64 / took;
        let longest = times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
        eprintln!("{name}: {rate:.1} frames a second, longest gap {longest:?}, restarts {}", status.restarts);
        assert!(source.events.0.try_recv().is_err(), "{name}");
        // A round of 15 frames in a little more than a second, also where the file is opened anew for each.
        assert!((8.0..16.5).contains(&rate), "{name}: {rate}");
        receives_after(&source, name);
    }
}

#[track_caller]
fn receives_after(source: &Opened, name: &str) {
    let (_, _, frame) = source.newest().unwrap();
    assert!(off_palette_share(&frame) < 0.08, "{name}");
    assert!(source.stop(Duration::from_secs(2)).0, "{name}");
}

#[test]
fn file_is_over() {
    let directory = tempfile::tempdir().unwrap();
    let mut source = Opened::start(SourceKind::File { path: mp4(directory.path()), repeat: false }, TIMEOUT);
    source.events.wait_for("the end", |change| *change == PipeChange::Eos);
    assert_eq!(source.frames(), 15);
    thread::sleep(Duration::from_millis(500));
    let status = source.pipe.status();
    assert_eq!((status.frames, status.restarts), (15, 0));
    assert!(source.stop(Duration::from_secs(2)).0);
}

#[test]
fn file_changes_its_size() {
    let directory = tempfile::tempdir().unwrap();
    let small = std::fs::read(clip(directory.path(), "small.h264", 256, "")).unwrap();
    let large = std::fs::read(clip(directory.path(), "large.h264", 320, "")).unwrap();
    let path = directory.path().join("both.h264");
    std::fs::write(&path, [small, large].concat()).unwrap();
    let mut source = Opened::start(SourceKind::File { path, repeat: true }, TIMEOUT);
    source.events.running();
    for size in [320, 256, 320] {
        eventually("the other size", || source.newest().filter(|(width, ..)| *width == size));
    }
    assert_eq!(source.events.drain(), []);
}

#[test]
fn pictures_that_are_too_large_are_not_decoded() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let line = "videotestsrc num-buffers=5 ! video/x-raw,format=I420,width=4112,height=64,framerate=15/1 ! x264enc \
                speed-preset=ultrafast ! h264parse ! video/x-h264,stream-format=byte-stream ! filesink location=";
    let end = Process::launch(&format!("{line}{}", path("wide.h264").display())).0.wait().unwrap();
    assert!(end.success());
    // From the beginning, and once it has begun with others.
    let mut both = std::fs::read(clip(directory.path(), "small.h264", 256, "")).unwrap();
    both.extend(std::fs::read(path("wide.h264")).unwrap());
    std::fs::write(path("both.h264"), both).unwrap();
    for name in ["wide.h264", "both.h264"] {
        let mut source = Opened::start(SourceKind::File { path: path(name), repeat: true }, TIMEOUT);
        let change = source.events.wait_for("trouble", |change| *change != PipeChange::Running);
        let PipeChange::Failed(reason) = change else { panic!("{name}: {change:?}") };
        assert!(reason.contains("4112x64") && reason.contains("4096"), "{name}: {reason}");
        assert!(source.newest().is_none_or(|(width, ..)| width == 256), "{name}");
        assert!(source.stop(Duration::from_secs(2)).0);
    }
}

#[test]
fn what_is_no_video_is_told_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("text.mp4"), "no video at all").unwrap();
    let picture = image::RgbImage::new(64, 64);
    picture.save(path("picture.png")).unwrap();
    let sound = "audiotestsrc num-buffers=50 ! wavenc ! filesink location=";
    assert!(Process::launch(&format!("{sound}{}", path("sound.wav").display())).0.wait().unwrap().success());
    for name in ["nosuch.mp4", "text.mp4", "picture.png", "sound.wav", "."] {
        let mut source = Opened::start(SourceKind::File { path: path(name), repeat: true }, TIMEOUT);
        let reason = source.events.failed();
        eprintln!("{name}: {reason}");
        assert!(reason.len() < 300 && !reason.contains('\n'), "{reason}");
        eventually("another attempt", || (source.pipe.status().restarts >= 2).then_some(()));
        assert!(source.stop(Duration::from_secs(2)).0);
        let again = source.events.drain();
        assert!(!again.contains(&PipeChange::Failed(reason)), "{again:?}");
    }
}

#[test]
fn a_repeated_failure_is_told_each_time_and_is_news_once() {
    let kind = SourceKind::File { path: "/nosuch.mp4".into(), repeat: true };
    let mut source = Opened::start(kind, TIMEOUT);
    let news: Vec<bool> = (0..3)
        .map(|_| {
            let event = eventually("an event", || source.events.0.try_recv().ok());
            assert!(matches!(event.change, PipeChange::Failed(_)), "{event:?}");
            event.news
        })
        .collect();
    assert_eq!(news, [true, false, false]);
}

#[test]
fn udp() {
    let directory = tempfile::tempdir().unwrap();
    let port = udp_port();
    let clip = mp4(directory.path());
    let mut source = Opened::start(SourceKind::Udp { address: ([127, 0, 0, 1], port).into() }, TIMEOUT);
    let url = format!("udp://127.0.0.1:{port}?pkt_size=1316");
    let sender = ffmpeg_sends(&clip, &["-f", "mpegts", &url]);
    source.events.running();
    source.more_frames(10);
    drop(sender);
    let reason = source.events.failed();
    assert_eq!(reason, "no frame for 3.0 s");
    let _sender = ffmpeg_sends(&clip, &["-f", "mpegts", &url]);
    receives(&mut source);
}

#[test]
fn udp_multicast() {
    let directory = tempfile::tempdir().unwrap();
    let port = udp_port();
    let mut source = Opened::start(SourceKind::Udp { address: ([239, 255, 78, 78], port).into() }, TIMEOUT);
    let url = format!("udp://239.255.78.78:{port}?pkt_size=1316");
    let _sender = ffmpeg_sends(&mp4(directory.path()), &["-f", "mpegts", &url]);
    receives(&mut source);
}

#[test]
fn srt_listener() {
    let directory = tempfile::tempdir().unwrap();
    let port = udp_port();
    let clip = mp4(directory.path());
    let kind = SourceKind::SrtListener {
        address: ([127, 0, 0, 1], port).into(),
        latency: Duration::from_millis(40),
        passphrase: Some("correct-horse-battery".into()),
    };
    let mut source = Opened::start(kind, TIMEOUT);
    let url = format!("srt://127.0.0.1:{port}?mode=caller&passphrase=correct-horse-battery");
    // Two senders, one after the other.
    for round in 0..2 {
        let mut sender = ffmpeg_sends(&clip, &["-f", "mpegts", &url]);
        let before = source.frames();
        eventually("frames", || {
            if sender.0.try_wait().unwrap().is_some() {
                sender = ffmpeg_sends(&clip, &["-f", "mpegts", &url]);
            }
            (source.frames() > before + 10).then_some(())
        });
        drop(sender);
        eprintln!("round {round}: {}", source.events.failed());
    }
    assert!(source.stop(Duration::from_secs(2)).0);
}

#[test]
fn srt_caller() {
    let directory = tempfile::tempdir().unwrap();
    let port = udp_port();
    let kind = SourceKind::SrtCaller {
        peer: format!("127.0.0.1:{port}"),
        latency: Duration::from_millis(40),
        passphrase: None,
        stream_id: Some("pose".into()),
    };
    let mut source = Opened::start(kind, TIMEOUT);
    let reason = source.events.failed();
    eprintln!("nobody there: {reason}");
    let url = format!("srt://127.0.0.1:{port}?mode=listener");
    let _sender = ffmpeg_sends(&mp4(directory.path()), &["-f", "mpegts", &url]);
    receives(&mut source);
}

#[test]
fn rtmp() {
    let directory = tempfile::tempdir().unwrap();
    let Some((_server, port)) = rtmp_server(directory.path()) else { return };
    let url = format!("rtmp://127.0.0.1:{port}/live/pose");
    // Before anybody publishes, the server is silent.
    let mut source = Opened::start(SourceKind::Rtmp { url: url.clone() }, TIMEOUT);
    let _sender = ffmpeg_sends(&mp4(directory.path()), &["-f", "flv", &url]);
    receives(&mut source);
}

#[test]
fn rtsp() {
    let line = "( videotestsrc is-live=true pattern=solid-color foreground-color=0xff440154 \
                ! video/x-raw,width=256,height=256,framerate=15/1 ! x264enc tune=zerolatency key-int-max=15 \
                ! rtph264pay name=pay0 pt=96 audiotestsrc is-live=true ! alawenc ! rtppcmapay name=pay1 pt=8 )";
    let Some((_server, port)) = rtsp_server("serve", line) else { return };
    for tcp in [true, false] {
        let url = format!("rtsp://127.0.0.1:{port}/pose");
        let mut source =
            Opened::start(SourceKind::Rtsp { url, latency: Duration::from_millis(50), tcp }, TIMEOUT);
        source.events.running();
        source.more_frames(20);
        let (width, height, frame) = source.newest().unwrap();
        assert_eq!((width, height), (256, 256));
        assert!(off_palette_share(&frame) < 0.01);
        let (closed, took) = source.stop(Duration::from_secs(2));
        assert!(closed, "still open after {took:?}");
    }
}

#[test]
fn shared_memory() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("poses.shm");
    let rate = Rate::new(15, 1).unwrap();
    let mut source =
        Opened::start(SourceKind::Shm { socket: socket.clone(), width: 250, height: 200, rate }, TIMEOUT);
    assert!(source.events.failed().starts_with("nobody has opened "));
    let line = format!(
        "videotestsrc is-live=true pattern=smpte ! video/x-raw,format=RGB,width=250,height=200,framerate=15/1 \
         ! shmsink socket-path={} wait-for-connection=false",
        socket.display()
    );
    let sender = Process::launch(&line);
    source.events.running();
    source.more_frames(20);
    let (width, height, frame) = source.newest().unwrap();
    assert_eq!((width, height), (250, 200));
    // The first bar is grey, and rows lie where they belong.
    assert_eq!(frame.data()[..3], frame.data()[3 * 250 * 100..3 * 250 * 100 + 3]);
    drop(sender);
    source.events.failed();
    assert!(source.stop(Duration::from_secs(2)).0);
}

#[test]
fn fragments() {
    let directory = tempfile::tempdir().unwrap();
    let path = mp4(directory.path());
    let file = format!("filesrc location={} ! qtdemux", path.display());
    for launch in [
        "denseposetestsrc is-live=true ! video/x-raw,width=256,height=256,framerate=15/1",
        "denseposetestsrc is-live=true ! video/x-raw,width=256,height=256,framerate=15/1 ! videoconvert ! x264enc tune=zerolatency",
        &file,
    ] {
        let mut source = Opened::start(SourceKind::Fragment { launch: launch.into() }, TIMEOUT);
        source.events.running();
        source.more_frames(14);
        let (_, _, frame) = source.newest().unwrap();
        assert!(off_palette_share(&frame) < 0.08, "{launch}");
        assert!(source.stop(Duration::from_secs(2)).0, "{launch}");
    }
    for launch in ["nosuchelement", "videotestsrc !", "audiotestsrc", "", "fakesink"] {
        let mut source = Opened::start(SourceKind::Fragment { launch: launch.into() }, TIMEOUT);
        eprintln!("`{launch}`: {}", source.events.failed());
    }
}

/// Labels survive x264, MPEG-TS, UDP and the source.
#[test]
fn colours_survive() {
    let port = udp_port();
    let address = ([127, 0, 0, 1], port).into();
    let mut source = Opened::start(SourceKind::Udp { address }, TIMEOUT);
    let mut output = output(OutputKind::Udp { address });
    output.timecode = false;
    output.encoder.bitrate_kbps = 3000;
    let mut fed = Fed::start(&output);
    source.events.running();
    source.more_frames(30);
    let (_, _, frame) = source.newest().unwrap();
    fed.stop(Duration::from_secs(2));
    let got = Labels::from_frame(&frame);
    // It is one of the figure's frames: the one that it is most like.
    let best = figure_frames()
        .iter()
        .map(|buffer| {
            let map = buffer.map_readable().unwrap();
            let sent = Labels::from_frame(&Frame::new(256, 256, map.to_vec()).unwrap());
            let equal = sent.data().iter().zip(got.data()).filter(|(a, b)| a == b).count();
            equal as f64 / f64::from(256 * 256)
        })
        .fold(0.0, f64::max);
    let off = off_palette_share(&frame);
    eprintln!("{:.2} % of the labels, {:.2} % off the palette", 100.0 * best, 100.0 * off);
    assert!(best > 0.97, "{best}");
    assert!(off < 0.05, "{off}");
}

/// Whatever ffmpeg makes of the clip, the source gives the figure back.
#[test]
fn codecs_ranges_and_matrices() {
    let directory = tempfile::tempdir().unwrap();
    let clip = mp4(directory.path());
    let sound = ["-f", "lavfi", "-i", "sine=d=1", "-shortest", "-c:a"];
    let bt709_full = [
        "-vf",
        "scale=out_color_matrix=bt709:out_range=full,format=yuv420p",
        "-color_range",
        "pc",
        "-colorspace",
        "bt709",
        "-c:v",
        "libx264",
    ];
    let bt601 = [
        "-vf",
        "scale=out_color_matrix=bt601:out_range=tv,format=yuv420p",
        "-colorspace",
        "smpte170m",
        "-c:v",
        "libx264",
    ];
    for (name, sound_codec, arguments) in [
        ("full.mp4", "aac", &bt709_full[..]),
        ("bt601.mp4", "aac", &bt601),
        ("vp8.mkv", "libopus", &["-c:v", "libvpx", "-b:v", "3M"]),
        ("h265.mp4", "aac", &["-c:v", "libx265", "-crf", "18", "-x265-params", "log-level=error"]),
        ("mjpeg.avi", "pcm_s16le", &["-c:v", "mjpeg", "-q:v", "2"]),
    ] {
        let path = directory.path().join(name);
        let made = Command::new("ffmpeg")
            .args(["-v", "error", "-i", clip.to_str().unwrap()])
            .args(sound)
            .arg(sound_codec)
            .args(arguments)
            .arg(&path)
            .status();
        assert!(made.unwrap().success(), "{name}");
        let mut source = Opened::start(SourceKind::File { path, repeat: true }, TIMEOUT);
        eprint!("{name}: ");
        receives(&mut source);
    }
}
