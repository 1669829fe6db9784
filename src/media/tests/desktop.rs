//! What needs a desktop session: each in a session of its own, in which this program is run again for one test.

use super::*;

/// Runs an ignored test of this module inside `session`, a shell script that ends in `"$TEST"`.
#[track_caller]
fn run_in(session: &str, test: &str, needed: &[&str]) {
    let missing = needed.iter().find(|name| !Path::new("/usr/bin").join(name).exists());
    if let Some(missing) = missing {
        eprintln!("skipped: {missing} is not installed");
        return;
    }
    let runtime = tempfile::tempdir().unwrap();
    let program = std::env::current_exe().unwrap();
    let output = Command::new("timeout")
        .args(["100", "bash", "-c", session])
        .env(
            "TEST",
            format!("{} --ignored --nocapture --exact media::tests::desktop::{test}", program.display()),
        )
        .env("XDG_RUNTIME_DIR", runtime.path())
        .env("KEYFRAMED_TEST_SESSION", "1")
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("1 passed"), "{out}\n{err}");
}

fn in_session() -> bool {
    std::env::var_os("KEYFRAMED_TEST_SESSION").is_some()
}

#[test]
fn pipewire() {
    let session = r#"dbus-run-session -- bash -c 'trap "kill \$(jobs -p)" EXIT; pipewire & wireplumber & sleep 1; $TEST'"#;
    run_in(session, "pipewire_inner", &["dbus-run-session", "pipewire", "wireplumber"]);
}

#[test]
#[ignore = "run by the test above in a PipeWire session"]
fn pipewire_inner() {
    if !in_session() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut fed = Fed::start(&output(OutputKind::Pipewire { name: "avatar".into() }));
    fed.events.running();
    // Longer than a stall, with nobody looking: it stays.
    thread::sleep(Duration::from_secs(7));
    assert_eq!(fed.events.drain(), []);
    // Another program reads the camera.
    let raw = directory.path().join("frames.rgb");
    let line = format!(
        "pipewiresrc target-object=avatar num-buffers=15 ! videoconvert ! video/x-raw,format=RGB,width=256,height=256 \
         ! filesink location={}",
        raw.display()
    );
    let mut reader = Process::launch(&line);
    eventually("gst-launch", || reader.0.try_wait().unwrap());
    let data = std::fs::read(&raw).unwrap();
    let shape = timecode::Shape { width: 256, height: 256, stride: 768 };
    let times: Vec<_> =
        data.chunks_exact(256 * 256 * 3).filter_map(|rgb| timecode::read(rgb, shape)).collect();
    assert!(times.len() >= 10, "{times:?}");
    assert!(
        times.windows(2).all(|pair| pair[0] <= pair[1]) && times[0] < times[times.len() - 1],
        "{times:?}"
    );
    // And our own source does.
    let timeout = Duration::from_secs(5);
    let mut source = Opened::start(SourceKind::Pipewire { target: Some("avatar".into()) }, timeout);
    source.events.running();
    source.more_frames(15);
    let (width, height, frame) = source.newest().unwrap();
    assert_eq!((width, height), (256, 256));
    assert!(timecode::read(frame.data(), shape).is_some());
    assert!(source.stop(Duration::from_secs(2)).0);
    let (closed, took) = fed.stop(Duration::from_secs(2));
    assert!(closed, "still open after {took:?}");
}

#[test]
fn window() {
    // The server picks a free display and says which.
    let session = r#"exec 3< <(exec Xvfb -displayfd 1 -screen 0 640x480x24 2>/dev/null); XVFB=$!; trap 'kill $XVFB' EXIT
read -r -u 3 number; export DISPLAY=:$number; $TEST"#;
    run_in(session, "window_inner", &["Xvfb"]);
}

#[test]
#[ignore = "run by the test above on a display of its own"]
fn window_inner() {
    if !in_session() {
        return;
    }
    init();
    if gst::ElementFactory::find("ximagesink").is_none() {
        eprintln!("skipped: gstreamer1.0-x is not installed");
        return;
    }
    let mut fed = Fed::start(&output(OutputKind::Window));
    fed.events.running();
    // The screen shows the time.
    let screen = std::env::var("DISPLAY").unwrap();
    let grab = ["-f", "x11grab", "-draw_mouse", "0", "-video_size", "256x256", "-i", screen.as_str()];
    let seen = eventually("a window", || ffmpeg(&grab, 1).filter(|seen| seen.times[0].is_some()));
    eprintln!("{:?}", seen.times);
    let (closed, took) = fed.stop(Duration::from_secs(2));
    assert!(closed, "still open after {took:?}");
}

#[test]
fn no_display_is_told() {
    if std::env::var_os("DISPLAY").is_some() || std::env::var_os("WAYLAND_DISPLAY").is_some() {
        eprintln!("skipped: there is a desktop");
        return;
    }
    let mut fed = Fed::start(&output(OutputKind::Window));
    let reason = fed.events.failed();
    eprintln!("{reason}");
    assert!(reason.contains("desktop"), "{reason}");
}
