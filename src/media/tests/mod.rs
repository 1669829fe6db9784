//! Pipes with real clients and servers at their other ends: ffmpeg and gst-launch, in processes of their own.

mod desktop;
mod faults;
mod outputs;
mod recording;
mod runner;
mod sources;

use std::{
    io::{BufRead as _, BufReader},
    net::{TcpListener, TcpStream, UdpSocket},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, Once,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use gst::prelude::*;
use gst_video::prelude::*;
use keyframed_engine::Rate;
use tokio::sync::mpsc;

use super::{OutputPipe, PipeChange, PipeEvent, SourcePipe, pipe::lock, timecode};
use crate::{
    config::resolved::{Encoder, Output, OutputKind, Source, SourceKind, Video},
    daemon::clock::Base,
};

/// For what takes a moment: the machine may be busy with other tests.
pub const LIMIT: Duration = Duration::from_secs(60);

pub fn init() {
    static GSTREAMER: Once = Once::new();
    GSTREAMER.call_once(|| {
        gst::init().unwrap();
        gstkeyframed::plugin_register_static().unwrap();
    });
}

pub fn video() -> Video {
    Video { width: 256, height: 256, rate: Rate::new(15, 1).unwrap() }
}

pub fn output(kind: OutputKind) -> Output {
    let encoder = Encoder { bitrate_kbps: 1500, key_interval: Duration::from_secs(1) };
    let retry = (Duration::from_millis(100), Duration::from_millis(400));
    Output { kind, size: None, encoder, timecode: true, retry }
}

/// Waits for `what` to be there.
#[track_caller]
pub fn eventually<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(started.elapsed() < LIMIT, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// What a pipe tells, less what is no news.
pub struct Events(mpsc::Receiver<PipeEvent>);

impl Events {
    #[track_caller]
    pub fn wait_for(&mut self, what: &str, wanted: impl Fn(&PipeChange) -> bool) -> PipeChange {
        let mut seen = vec![];
        let found = eventually_or(|| {
            let event = self.0.try_recv().ok().filter(|event| event.news)?;
            seen.push(event.change.clone());
            wanted(&event.change).then_some(event.change)
        });
        found.unwrap_or_else(|| panic!("no event {what}, but {seen:?}"))
    }

    #[track_caller]
    pub fn running(&mut self) {
        self.wait_for("running", |change| *change == PipeChange::Running);
    }

    #[track_caller]
    pub fn failed(&mut self) -> String {
        let failed = self.wait_for("failed", |change| matches!(change, PipeChange::Failed(_)));
        match failed {
            PipeChange::Failed(reason) => reason,
            _ => unreachable!("just asked for"),
        }
    }

    /// What was told since that is new.
    pub fn drain(&mut self) -> Vec<PipeChange> {
        let events = std::iter::from_fn(|| self.0.try_recv().ok());
        events.filter(|event| event.news).map(|event| event.change).collect()
    }
}

fn eventually_or<T>(mut found: impl FnMut() -> Option<T>) -> Option<T> {
    let started = Instant::now();
    while started.elapsed() < LIMIT {
        if let Some(found) = found() {
            return Some(found);
        }
        thread::sleep(Duration::from_millis(10));
    }
    None
}

/// An output that is given frames all the time.
pub struct Fed {
    pub pipe: Arc<OutputPipe>,
    pub events: Events,
    stop: Arc<AtomicBool>,
    /// The longest that a push took.
    pub slowest: Arc<Mutex<Duration>>,
    feeder: Option<JoinHandle<()>>,
}

impl Fed {
    #[track_caller]
    pub fn start(output: &Output) -> Self {
        init();
        let base = Base::start();
        let (sender, events) = mpsc::channel(64);
        let pipe = Arc::new(OutputPipe::start("test", output, video(), base, sender).unwrap());
        let (stop, slowest) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Duration::ZERO)));
        let feeder = thread::Builder::new().name("feeder".into()).spawn({
            let (pipe, stop, slowest) = (pipe.clone(), stop.clone(), slowest.clone());
            move || feed(&pipe, base, &stop, &slowest)
        });
        Self { pipe, events: Events(events), stop, slowest, feeder: Some(feeder.unwrap()) }
    }

    /// Stops feeding and the pipe; whether it closed in time, and how long that took.
    pub fn stop(&mut self, limit: Duration) -> (bool, Duration) {
        self.stop.store(true, Relaxed);
        let started = Instant::now();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let closed = self.pipe.stop(limit);
        (runtime.block_on(closed), started.elapsed())
    }
}

impl Drop for Fed {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(feeder) = self.feeder.take() {
            let _ = feeder.join();
        }
        // libsrt crashes where the program ends while it sends.
        self.stop(Duration::from_secs(2));
    }
}

/// Frames on the grid, each showing the pose of its own time.
fn feed(pipe: &OutputPipe, base: Base, stop: &AtomicBool, slowest: &Mutex<Duration>) {
    let frames = figure_frames();
    let period = video().rate.period();
    for n in (base.now() / period)..u64::MAX {
        if stop.load(Relaxed) {
            return;
        }
        thread::sleep(Duration::from_nanos((n * period).saturating_sub(base.now())));
        let mut frame = frames[n as usize % frames.len()].clone();
        let pts = gst::ClockTime::from_nseconds(n * period);
        frame.make_mut().set_pts(pts);
        frame.make_mut().set_duration(gst::ClockTime::from_nseconds(period));
        let started = Instant::now();
        pipe.push(&frame, Some(pts));
        let took = started.elapsed();
        let mut slowest = lock(slowest);
        *slowest = took.max(*slowest);
    }
}

/// Pictures of the test figure.
pub fn figure_frames() -> Vec<gst::Buffer> {
    init();
    let line = "denseposetestsrc num-buffers=30 pattern=dance ! video/x-raw,format=RGB,width=256,height=256,framerate=15/1 \
                ! appsink name=sink sync=false";
    let pipeline = gst::parse::launch(line).unwrap().downcast::<gst::Pipeline>().unwrap();
    let sink = pipeline.by_name("sink").unwrap().downcast::<gst_app::AppSink>().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let frames = (0..30).map(|_| sink.pull_sample().unwrap().buffer_owned().unwrap()).collect();
    pipeline.set_state(gst::State::Null).unwrap();
    frames
}

/// A source whose frames are counted and the newest of which is kept.
pub struct Opened {
    pub pipe: SourcePipe,
    pub events: Events,
    pub newest: Arc<Mutex<Option<gst::Sample>>>,
    pub times: Arc<Mutex<Vec<Instant>>>,
}

impl Opened {
    #[track_caller]
    pub fn start(kind: SourceKind, timeout: Duration) -> Self {
        init();
        let (sender, events) = mpsc::channel(64);
        let (newest, times) = (Arc::new(Mutex::new(None)), Arc::new(Mutex::new(vec![])));
        let on_frame = Arc::new({
            let (newest, times) = (newest.clone(), times.clone());
            move |sample| {
                *lock(&newest) = Some(sample);
                lock(&times).push(Instant::now());
            }
        });
        let retry = (Duration::from_millis(100), Duration::from_millis(400));
        let pipe = SourcePipe::start("test", &Source { kind, timeout, retry }, on_frame, sender).unwrap();
        Self { pipe, events: Events(events), newest, times }
    }

    pub fn frames(&self) -> u64 {
        self.pipe.status().frames
    }

    #[track_caller]
    pub fn more_frames(&self, count: u64) {
        let before = self.frames();
        eventually("frames", || (self.frames() >= before + count).then_some(()));
    }

    pub fn newest(&self) -> Option<(u32, u32, keyframed_engine::Frame)> {
        let sample = lock(&self.newest).clone()?;
        let info = gst_video::VideoInfo::from_caps(sample.caps()?).ok()?;
        let picture = gst_video::VideoFrameRef::from_buffer_ref_readable(sample.buffer()?, &info).ok()?;
        let (width, height) = (info.width(), info.height());
        let stride = picture.plane_stride()[0] as usize;
        let data = picture.plane_data(0).ok()?;
        let rows = data.chunks(stride).take(height as usize);
        let rgb: Vec<u8> = rows.flat_map(|row| &row[..3 * width as usize]).copied().collect();
        Some((width, height, keyframed_engine::Frame::new(width, height, rgb).ok()?))
    }

    pub fn stop(&self, limit: Duration) -> (bool, Duration) {
        let started = Instant::now();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let closed = self.pipe.stop(limit);
        (runtime.block_on(closed), started.elapsed())
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.stop(Duration::from_secs(2));
    }
}

/// A process that ends with the test.
pub struct Process(pub Child);

impl Process {
    #[track_caller]
    pub fn start(program: &str, args: &[&str]) -> Self {
        let child = Command::new(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{program}: {error}"));
        Self(child)
    }

    /// A `gst-launch-1.0` line.
    #[track_caller]
    pub fn launch(line: &str) -> Self {
        Self::start(
            "gst-launch-1.0",
            &["-q", "-e"].into_iter().chain(line.split_whitespace()).collect::<Vec<_>>(),
        )
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// GStreamer's RTSP server, from Python; `None`, with the reason printed, where that is not installed.
pub fn rtsp_server(mode: &str, line: &str) -> Option<(Process, u16)> {
    let mut child = Command::new("/usr/bin/python3")
        .args(["-c", include_str!("rtsp_server.py"), mode, line])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .ok()?;
    let mut port = String::new();
    // Buffered reading takes no more than the line that comes.
    let _ = BufReader::new(child.stdout.take()?).read_line(&mut port);
    let server = Process(child);
    match port.trim().parse() {
        Ok(port) => Some((server, port)),
        Err(_) => {
            eprintln!("skipped: gir1.2-gst-rtsp-server-1.0 and python3-gi are not installed");
            None
        }
    }
}

/// nginx as an RTMP server, application `live`; `None`, with the reason printed, where it is not installed.
pub fn rtmp_server(directory: &Path) -> Option<(Process, u16)> {
    let module = Path::new("/usr/lib/nginx/modules/ngx_rtmp_module.so");
    if !module.exists() {
        eprintln!("skipped: nginx and libnginx-mod-rtmp are not installed");
        return None;
    }
    let port = tcp_port();
    let configuration = directory.join("nginx.conf");
    let text = format!(
        "load_module {};\ndaemon off;\nmaster_process off;\npid {}/pid;\nerror_log stderr;\nevents {{}}\n\
         rtmp {{ server {{ listen 127.0.0.1:{port}; application live {{ live on; }} }} }}\n",
        module.display(),
        directory.display()
    );
    std::fs::write(&configuration, text).unwrap();
    let [prefix, configuration] = [directory, &configuration].map(|path| path.to_str().unwrap());
    let server = Process::start("/usr/sbin/nginx", &["-p", prefix, "-c", configuration]);
    eventually("nginx", || TcpStream::connect(("127.0.0.1", port)).ok());
    Some((server, port))
}

pub fn tcp_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

pub fn udp_port() -> u16 {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// What ffmpeg sees.
pub struct Seen {
    /// Time codes of its frames.
    pub times: Vec<Option<u32>>,
    /// What it says about the stream.
    pub log: String,
}

/// Lets ffmpeg read `frames` frames; `None` if it does not get them.
pub fn ffmpeg(input: &[&str], frames: usize) -> Option<Seen> {
    let count = frames.to_string();
    let output = Command::new("timeout")
        .args(["60", "ffmpeg", "-nostdin", "-hide_banner", "-loglevel", "info"])
        .args(input)
        .args(["-map", "0:v", "-frames:v", &count, "-vsync", "passthrough", "-vf", "scale=256:256"])
        .args(["-f", "rawvideo", "-pix_fmt", "rgb24", "-"])
        .output()
        .unwrap();
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    let pictures: Vec<_> = output.stdout.chunks_exact(256 * 256 * 3).collect();
    if pictures.len() < frames {
        eprintln!("{log}");
        return None;
    }
    let shape = timecode::Shape { width: 256, height: 256, stride: 768 };
    let times = pictures.iter().map(|rgb| timecode::read(rgb, shape)).collect();
    Some(Seen { times, log })
}

impl Seen {
    /// Every frame carries a time, each later than the one before, the last one a moment ago.
    #[track_caller]
    pub fn check(&self) {
        let times: Vec<u32> =
            self.times.iter().map(|time| time.expect("a frame without a time code")).collect();
        assert!(times.windows(2).all(|pair| pair[0] < pair[1]), "{times:?}");
        let now = timecode::millis(crate::daemon::clock::clock().time());
        let age = now.wrapping_sub(*times.last().unwrap());
        assert!(age < 60_000, "the last frame is {age} ms old");
        eprintln!("{} frames, the last {age} ms old", times.len());
        assert!(self.log.contains("Video: h264"), "{}", self.log);
        assert!(self.log.contains("256x256"), "{}", self.log);
    }
}
