use super::*;

const NO_LATENCY: Duration = Duration::from_millis(20);

fn localhost(port: u16) -> std::net::SocketAddr {
    ([127, 0, 0, 1], port).into()
}

/// The output runs, and ffmpeg reads `input` from it.
#[track_caller]
fn read_by_ffmpeg(kind: OutputKind, input: &[&str]) {
    let mut fed = Fed::start(&output(kind));
    fed.events.running();
    let seen = eventually("ffmpeg", || ffmpeg(input, 15));
    seen.check();
    let (closed, took) = fed.stop(Duration::from_secs(2));
    assert!(closed, "still open after {took:?}");
    assert_eq!(fed.events.drain(), []);
}

/// ffmpeg waits with `input`, and the output comes to it by itself.
#[track_caller]
fn sent_to_ffmpeg(kind: OutputKind, input: &[&str]) {
    let input: Vec<String> = input.iter().map(|arg| (*arg).to_owned()).collect();
    let client = thread::Builder::new().name("ffmpeg".into()).spawn(move || {
        let input: Vec<_> = input.iter().map(String::as_str).collect();
        ffmpeg(&input, 15)
    });
    // It is tried again until ffmpeg is there.
    let mut fed = Fed::start(&output(kind));
    let seen = client.unwrap().join().unwrap().expect("ffmpeg got nothing");
    seen.check();
    let (closed, took) = fed.stop(Duration::from_secs(2));
    assert!(closed, "still open after {took:?}");
}

#[test]
fn udp() {
    let port = udp_port();
    read_by_ffmpeg(
        OutputKind::Udp { address: localhost(port) },
        &["-f", "mpegts", "-i", &format!("udp://127.0.0.1:{port}?timeout=20000000")],
    );
}

#[test]
fn udp_multicast() {
    let port = udp_port();
    let address = ([239, 255, 77, 77], port).into();
    read_by_ffmpeg(
        OutputKind::Udp { address },
        &["-f", "mpegts", "-i", &format!("udp://239.255.77.77:{port}?timeout=20000000")],
    );
}

#[test]
fn srt_listener() {
    let port = udp_port();
    read_by_ffmpeg(
        OutputKind::SrtListener { address: localhost(port), latency: NO_LATENCY, passphrase: None },
        &["-f", "mpegts", "-i", &format!("srt://127.0.0.1:{port}?mode=caller")],
    );
}

#[test]
fn srt_listener_with_passphrase() {
    let port = udp_port();
    let kind = OutputKind::SrtListener {
        address: localhost(port),
        latency: NO_LATENCY,
        passphrase: Some("correct-horse-battery".into()),
    };
    let url = |passphrase: &str| {
        format!("srt://127.0.0.1:{port}?mode=caller&passphrase={passphrase}&timeout=3000000")
    };
    let mut fed = Fed::start(&output(kind));
    fed.events.running();
    assert!(ffmpeg(&["-f", "mpegts", "-i", &url("wrong-horse-battery")], 1).is_none());
    eventually("ffmpeg", || ffmpeg(&["-f", "mpegts", "-i", &url("correct-horse-battery")], 15)).check();
}

#[test]
fn srt_caller() {
    let port = udp_port();
    sent_to_ffmpeg(
        OutputKind::SrtCaller {
            peer: format!("127.0.0.1:{port}"),
            latency: NO_LATENCY,
            passphrase: None,
            stream_id: Some("a,b=c/d".into()),
        },
        &["-f", "mpegts", "-i", &format!("srt://127.0.0.1:{port}?mode=listener")],
    );
}

#[test]
fn rtmp_through_a_server() {
    let directory = tempfile::tempdir().unwrap();
    let Some((_server, port)) = rtmp_server(directory.path()) else { return };
    let url = format!("rtmp://127.0.0.1:{port}/live/avatar");
    read_by_ffmpeg(OutputKind::Rtmp { url: url.clone() }, &["-rtmp_live", "live", "-f", "flv", "-i", &url]);
}

#[test]
fn rtmp() {
    // rtmp2sink of GStreamer 1.22 warns of an answer of ffmpeg's that it could not read, and goes on.
    gst::glib::log_set_always_fatal(gst::glib::LogLevels::LEVEL_ERROR);
    let port = tcp_port();
    let url = format!("rtmp://127.0.0.1:{port}/live/avatar");
    sent_to_ffmpeg(OutputKind::Rtmp { url: url.clone() }, &["-listen", "1", "-f", "flv", "-i", &url]);
}

#[test]
fn rtsp() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("published.ts");
    let line = format!(
        "( rtph264depay name=depay0 ! h264parse ! mpegtsmux ! filesink buffer-mode=unbuffered location={} )",
        file.display()
    );
    let Some((_server, port)) = rtsp_server("record", &line) else { return };
    let mut fed = Fed::start(&output(OutputKind::Rtsp { url: format!("rtsp://127.0.0.1:{port}/pose") }));
    fed.events.running();
    eventually("frames", || (fed.pipe.status().frames > 60).then_some(()));
    let seen = eventually("a file", || ffmpeg(&["-f", "mpegts", "-i", file.to_str().unwrap()], 15));
    seen.check();
    let (closed, took) = fed.stop(Duration::from_secs(2));
    assert!(closed, "still open after {took:?}");
    assert_eq!(fed.events.drain(), []);
}

#[test]
fn shared_memory() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("video.shm");
    let mut fed = Fed::start(&output(OutputKind::Shm { socket: socket.clone() }));
    fed.events.running();
    let raw = directory.path().join("frames.rgb");
    let line = format!(
        "shmsrc socket-path={} num-buffers=10 ! filesink location={}",
        socket.display(),
        raw.display()
    );
    let mut reader = Process::launch(&line);
    eventually("gst-launch", || reader.0.try_wait().unwrap());
    let data = std::fs::read(&raw).unwrap();
    assert_eq!(data.len(), 10 * 256 * 256 * 3);
    let shape = timecode::Shape { width: 256, height: 256, stride: 768 };
    let times: Vec<_> =
        data.chunks_exact(256 * 256 * 3).map(|rgb| timecode::read(rgb, shape).unwrap()).collect();
    assert!(times.windows(2).all(|pair| pair[0] < pair[1]), "{times:?}");
    assert!(fed.stop(Duration::from_secs(2)).0);
    assert!(!socket.exists());
}

#[test]
fn a_socket_left_by_a_crash_is_taken_over_and_one_in_use_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("video.shm");
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    assert!(socket.exists());
    let mut first = Fed::start(&output(OutputKind::Shm { socket: socket.clone() }));
    first.events.running();
    let mut second = Fed::start(&output(OutputKind::Shm { socket }));
    assert!(second.events.failed().ends_with("is in use by another program"));
}

#[test]
fn what_is_no_socket_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("video.shm");
    let reason = || Fed::start(&output(OutputKind::Shm { socket: path.clone() })).events.failed();
    std::fs::write(&path, "precious").unwrap();
    assert!(reason().ends_with("exists and is no socket"));
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    // A name that leads to a file is not followed.
    let target = directory.path().join("target");
    std::fs::rename(&path, &target).unwrap();
    std::os::unix::fs::symlink(&target, &path).unwrap();
    assert!(reason().ends_with("exists and is no socket"));
    assert!(path.is_symlink() && target.exists());
    // What the system says is passed on.
    let socket = target.join("video.shm");
    let reason = Fed::start(&output(OutputKind::Shm { socket })).events.failed();
    assert!(reason.starts_with("cannot look at ") && reason.contains("Not a directory"), "{reason}");
}

#[test]
fn fragment() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("out.y4m");
    let launch =
        format!("videoconvert ! video/x-raw,format=I420 ! y4menc ! filesink location={}", file.display());
    let mut fed = Fed::start(&output(OutputKind::Fragment { launch }));
    fed.events.running();
    eventually("frames", || (fed.pipe.status().frames > 20).then_some(()));
    assert!(fed.stop(Duration::from_secs(2)).0);
    let seen = ffmpeg(&["-i", file.to_str().unwrap()], 15).unwrap();
    assert!(seen.times.iter().all(Option::is_some));
}

#[test]
fn a_fragment_with_sound_of_its_own_is_whole() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("out.mp4");
    let launch = format!(
        "videoconvert ! video/x-raw,format=I420 ! x264enc tune=zerolatency ! queue ! mux. \
         audiotestsrc is-live=true ! audioconvert ! alawenc ! queue ! mux. qtmux name=mux ! filesink location={}",
        file.display()
    );
    let mut fed = Fed::start(&output(OutputKind::Fragment { launch }));
    fed.events.running();
    eventually("frames", || (fed.pipe.status().frames > 20).then_some(()));
    let (closed, took) = fed.stop(LIMIT);
    assert!(closed && took < LIMIT / 4, "{closed} {took:?}");
    // Its index comes last.
    let seen = ffmpeg(&["-i", file.to_str().unwrap()], 15).unwrap();
    assert!(seen.log.contains("Audio: pcm_alaw"), "{}", seen.log);
}

#[test]
fn size_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("out.y4m");
    let launch =
        format!("videoconvert ! video/x-raw,format=I420 ! y4menc ! filesink location={}", file.display());
    let output = Output { size: Some((320, 180)), ..output(OutputKind::Fragment { launch }) };
    let mut fed = Fed::start(&output);
    fed.events.running();
    eventually("frames", || (fed.pipe.status().frames > 5).then_some(()));
    assert!(fed.stop(Duration::from_secs(2)).0);
    let seen = ffmpeg(&["-i", file.to_str().unwrap()], 1).unwrap();
    assert!(seen.log.contains("320x180"), "{}", seen.log);
}
