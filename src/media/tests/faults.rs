use std::{
    io::Read as _,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use super::*;

/// Pushing never waits for an output; so much the scheduler may take on a busy machine.
const PUSH: Duration = Duration::from_millis(500);

/// An output that cannot work: says so, is tried again, never blocks who feeds it, and stops.
#[track_caller]
fn fails(kind: OutputKind) -> PipeChange {
    let mut fed = Fed::start(&output(kind));
    let change = fed.events.wait_for("trouble", |change| *change != PipeChange::Running);
    eprintln!("{change:?}");
    eventually("another attempt", || (fed.pipe.status().restarts > 0).then_some(()));
    let (_, took) = fed.stop(Duration::from_secs(2));
    assert!(took < Duration::from_secs(4), "{took:?}");
    assert!(*lock(&fed.slowest) < PUSH, "{:?}", lock(&fed.slowest));
    change
}

#[track_caller]
fn reason(kind: OutputKind) -> String {
    match fails(kind) {
        PipeChange::Failed(reason) => reason,
        change => panic!("{change:?}"),
    }
}

/// An output whose other end is there, and silent: fails, again and again, and is never said to run.
#[track_caller]
fn never_answered(kind: OutputKind) {
    let mut fed = Fed::start(&output(kind));
    let change = fed.events.wait_for("anything", |_| true);
    eprintln!("{change:?}");
    eventually("more attempts", || (fed.pipe.status().restarts > 1).then_some(()));
    let all: Vec<_> = [change].into_iter().chain(fed.events.drain()).collect();
    assert!(!all.contains(&PipeChange::Running), "{all:?}");
    let (_, took) = fed.stop(Duration::from_secs(2));
    assert!(took < Duration::from_secs(4), "{took:?}");
    assert!(*lock(&fed.slowest) < PUSH, "{:?}", lock(&fed.slowest));
}

fn srt_to(peer: SocketAddr) -> OutputKind {
    let latency = Duration::from_millis(20);
    OutputKind::SrtCaller { peer: peer.to_string(), latency, passphrase: None, stream_id: None }
}

#[test]
fn srt_peer_never_answers() {
    // It is there, and silent.
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    never_answered(srt_to(silent.local_addr().unwrap()));
}

#[test]
fn rtmp_server_is_not_there() {
    assert!(!reason(OutputKind::Rtmp { url: format!("rtmp://127.0.0.1:{}/live/x", tcp_port()) }).is_empty());
}

#[test]
fn rtmp_server_never_answers() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    never_answered(OutputKind::Rtmp { url: format!("rtmp://127.0.0.1:{port}/live/x") });
}

#[test]
fn rtsp_server_never_answers() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let mut fed = Fed::start(&output(OutputKind::Rtsp { url: format!("rtsp://127.0.0.1:{port}/x") }));
    let change = fed.events.wait_for("trouble", |change| *change != PipeChange::Running);
    eprintln!("{change:?}");
    let (_, took) = fed.stop(Duration::from_secs(2));
    assert!(took < Duration::from_secs(4), "{took:?}");
    assert!(*lock(&fed.slowest) < PUSH);
}

#[test]
fn a_fifo_that_nobody_reads() {
    let directory = tempfile::tempdir().unwrap();
    let fifo = directory.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let launch =
        format!("videoconvert ! video/x-raw,format=I420 ! y4menc ! filesink location={}", fifo.display());
    let mut fed = Fed::start(&output(OutputKind::Fragment { launch }));
    fed.events.wait_for("a stall", |change| *change == PipeChange::Stalled);
    assert!(*lock(&fed.slowest) < PUSH);
    // It blocks in open(), where nothing can be done; a reader frees it, and it is opened again.
    // One that writes too sees no end between two pipelines.
    let mut reader = std::fs::OpenOptions::new().read(true).write(true).open(&fifo).unwrap();
    let mut start = [0; 9];
    eventually("a stream", || {
        reader.read_exact(&mut start).ok()?;
        Some(())
    });
    assert_eq!(&start, b"YUV4MPEG2");
    // Ends with the test.
    let reading = thread::Builder::new().name("reader".into());
    reading.spawn(move || std::io::copy(&mut reader, &mut std::io::sink())).unwrap();
    fed.events.running();
    let (closed, took) = fed.stop(Duration::from_secs(2));
    assert!(closed, "still open after {took:?}");
}

#[test]
fn stop_does_not_wait_for_who_blocks() {
    let directory = tempfile::tempdir().unwrap();
    let fifo = directory.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let launch = format!("identity ! filesink location={}", fifo.display());
    let mut fed = Fed::start(&output(OutputKind::Fragment { launch }));
    eventually("frames in front of it", || (fed.pipe.status().queue_frames > 0).then_some(()));
    let (closed, took) = fed.stop(Duration::from_secs(1));
    assert!(!closed);
    assert!(took < Duration::from_secs(3), "{took:?}");
    // Lets its thread go.
    drop(std::fs::File::open(&fifo));
}

#[test]
fn the_earliest_deadline_holds() {
    let directory = tempfile::tempdir().unwrap();
    let fifo = directory.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let launch = format!("identity ! filesink location={}", fifo.display());
    let fed = Fed::start(&output(OutputKind::Fragment { launch }));
    eventually("frames in front of it", || (fed.pipe.status().queue_frames > 0).then_some(()));
    let started = Instant::now();
    // As a reload that replaces an output, and then the end of it all.
    let unhurried = fed.pipe.stop(LIMIT);
    let hurried = fed.pipe.stop(Duration::from_millis(500));
    let later = fed.pipe.stop(LIMIT);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let closed = runtime.block_on(async { (hurried.await, unhurried.await, later.await) });
    assert_eq!(closed, (false, false, false));
    assert!(started.elapsed() < LIMIT / 4, "{:?}", started.elapsed());
    // Lets its thread go.
    drop(std::fs::File::open(&fifo));
}

#[test]
fn a_stalled_sink_drops_and_is_told() {
    // A sink that takes a frame every ten seconds.
    let launch = "identity sleep-time=10000000 ! fakesink sync=false".into();
    let mut fed = Fed::start(&output(OutputKind::Fragment { launch }));
    fed.events.wait_for("a stall", |change| *change == PipeChange::Stalled);
    let status = fed.pipe.status();
    eprintln!("{status:?}");
    assert!(status.dropped > 20, "{status:?}");
    assert!(status.last_error.is_some());
    assert!(*lock(&fed.slowest) < PUSH);
}

#[test]
fn queue_is_bounded_and_its_age_is_told() {
    let launch = "identity sleep-time=1000000 ! fakesink sync=false".into();
    let mut fed = Fed::start(&output(OutputKind::Fragment { launch }));
    fed.events.running();
    let status = eventually("a full queue", || Some(fed.pipe.status()).filter(|status| status.dropped > 5));
    eprintln!("{status:?}");
    assert!((1..=6).contains(&status.queue_frames), "{status:?}");
    let age = status.queue_age;
    // Six frames at 15 a second, give or take a busy machine.
    assert!(age > Duration::from_millis(150) && age < Duration::from_secs(3), "{age:?}");
    fed.stop(Duration::from_secs(2));
}

#[test]
fn nonsense_fragments() {
    for (launch, told) in [
        ("nosuchelement", "no element \"nosuchelement\""),
        ("videotestsrc ! fakesink", "takes no video"),
        ("! !", "is no piece of a gst-launch-1.0 line"),
        ("", "is no piece of a gst-launch-1.0 line"),
    ] {
        let reason = reason(OutputKind::Fragment { launch: launch.into() });
        assert!(reason.contains(told), "`{launch}`: {reason}");
    }
}

#[test]
fn v4l2_devices_that_are_none() {
    assert!(reason(OutputKind::V4l2 { device: "/dev/nosuch".into() }).starts_with("there is no /dev/nosuch"));
    assert_eq!(reason(OutputKind::V4l2 { device: "/dev/null".into() }), "/dev/null is no video device");
}

#[test]
fn port_in_use() {
    let port = udp_port();
    let address: SocketAddr = ([127, 0, 0, 1], port).into();
    let _taken = UdpSocket::bind(address).unwrap();
    let kind = OutputKind::SrtListener { address, latency: Duration::from_millis(20), passphrase: None };
    let reason = reason(kind);
    assert!(!reason.is_empty());
}

/// A file system of its own; `None`, with the reason printed, where we may not mount one.
struct Mount(tempfile::TempDir);

impl Mount {
    fn tmpfs(options: &str) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(directory.path())
            .stderr(Stdio::null())
            .status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self(directory));
        }
        eprintln!("skipped: only root can mount a small disk");
        None
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

fn recording(directory: PathBuf) -> OutputKind {
    OutputKind::Recording { directory, fragment: Duration::from_millis(500), rotate: None }
}

#[test]
fn full_disk_is_told_once_and_recording_goes_on_when_there_is_room() {
    let Some(disk) = Mount::tmpfs("size=8m") else { return };
    let mut fed = Fed::start(&output(recording(disk.path().to_owned())));
    fed.events.running();
    let filler = disk.path().join("filler");
    let filled = std::fs::write(&filler, vec![0; 16 << 20]).unwrap_err();
    assert_eq!(filled.kind(), std::io::ErrorKind::StorageFull);
    assert_eq!(fed.events.failed(), "no space is left on the disk");
    eventually("more attempts", || (fed.pipe.status().restarts >= 4).then_some(()));
    assert_eq!(fed.events.drain(), []);
    // The filler and one recording, not one for each attempt.
    assert_eq!(std::fs::read_dir(disk.path()).unwrap().count(), 2);
    std::fs::remove_file(filler).unwrap();
    fed.events.running();
    assert!(fed.stop(Duration::from_secs(2)).0);
    assert_eq!(std::fs::read_dir(disk.path()).unwrap().count(), 2);
}

#[test]
fn read_only_disk() {
    let Some(disk) = Mount::tmpfs("ro") else { return };
    let reason = reason(recording(disk.path().to_owned()));
    assert!(reason.contains("Read-only file system"), "{reason}");
    let reason = self::reason(recording(disk.path().join("new")));
    assert!(reason.starts_with("cannot make"), "{reason}");
}
