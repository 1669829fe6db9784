//! Runs one output.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use gst::prelude::*;
use gst_video::prelude::*;
use keyframed_engine::SECOND;
use tokio::sync::{mpsc, oneshot};

use super::{
    output,
    pipe::{self, End, PipeChange, PipeEvent, PipeStatus, Role, Shared, lock},
    timecode,
};
use crate::{
    config::resolved::{Output, OutputKind, Video},
    daemon::clock::Base,
};

/// An output that takes no frame for so long, while frames come, has stalled.
const STALL: Duration = Duration::from_secs(5);

/// Frames that wait in front of an output: enough for an encoder's hiccup, too few to be seen as delay.
const QUEUE_FRAMES: u64 = 6;

/// In front of a recording, where no frame shall be lost and delay does not matter: seconds.
const RECORDING_QUEUE_SECS: u64 = 2;

/// An output that is opened again whenever it fails.
#[derive(Debug)]
pub struct OutputPipe {
    shared: Arc<Shared>,
    feed: Arc<Mutex<Feed>>,
    video: Video,
    /// Whether frames get a time code, and how they lie in memory.
    timecode: bool,
    canvas: gst_video::VideoInfo,
    base: Base,
    closed: Mutex<Option<oneshot::Receiver<bool>>>,
}

/// Where frames go now.
#[derive(Debug, Default)]
struct Feed {
    /// Of the open pipeline.
    entry: Option<Entry>,
    /// Frames lost in front of pipelines that are closed by now.
    lost: u64,
}

/// The way into a pipeline.
#[derive(Debug)]
struct Entry {
    appsrc: gst_app::AppSrc,
    /// The daemon's running time when the pipeline was opened: its own running time starts there, so that streams
    /// and files begin near 0.
    offset: gst::ClockTime,
    pushed: u64,
    /// Frames that left the queue.
    passed: Arc<AtomicU64>,
    /// Timestamp of the newest frame pushed, in the daemon's running time.
    newest: gst::ClockTime,
}

impl Entry {
    fn queued(&self) -> u64 {
        self.appsrc.current_level_buffers()
    }

    fn dropped(&self) -> u64 {
        self.pushed.saturating_sub(self.passed.load(Relaxed)).saturating_sub(self.queued())
    }
}

impl OutputPipe {
    /// Starts to run an output; failures to open it are events, and it is tried again.
    ///
    /// # Errors
    /// If the canvas is none that GStreamer knows, or no thread can be made.
    pub fn start(
        name: &str,
        output: &Output,
        video: Video,
        base: Base,
        events: mpsc::Sender<PipeEvent>,
    ) -> anyhow::Result<Self> {
        let canvas = gst_video::VideoInfo::from_caps(&output::canvas_caps(video))?;
        let shared = Shared::new(name, events);
        let feed = Arc::new(Mutex::new(Feed::default()));
        let role = OutputRole {
            shared: shared.clone(),
            feed: feed.clone(),
            output: output.clone(),
            video,
            base,
            progress: Progress::default(),
        };
        let closed = pipe::start(format!("output {name}"), shared.clone(), role, output.retry)?;
        Ok(Self {
            shared,
            feed,
            video,
            timecode: output.timecode,
            canvas,
            base,
            closed: Mutex::new(Some(closed)),
        })
    }

    /// Gives it a canvas frame, stamped with the daemon's running time; never waits. A frame that finds the queue full
    /// takes the oldest one's place; while the output is lost, frames go nowhere.
    ///
    /// `shows` is the timestamp of the pose that the frame shows, in the daemon's running time, for the time code.
    pub fn push(&self, frame: &gst::Buffer, shows: Option<gst::ClockTime>) {
        let mut feed = lock(&self.feed);
        let (Some(entry), Some(pts)) = (&mut feed.entry, frame.pts()) else { return };
        // Made before this pipeline was.
        let Some(own) = pts.checked_sub(entry.offset) else { return };
        // The pixels are shared; the timestamps are this output's own.
        let mut frame = match shows {
            Some(shows) if self.timecode => with_time(frame, &self.canvas, self.base.base_time + shows),
            _ => frame.clone(),
        };
        let stamps = frame.make_mut();
        stamps.set_pts(own);
        stamps.set_dts(gst::ClockTime::NONE);
        // Refused only while it is being closed.
        if entry.appsrc.push_buffer(frame).is_ok() {
            entry.pushed += 1;
            entry.newest = pts;
        }
    }

    /// How it is doing.
    pub fn status(&self) -> PipeStatus {
        let (state, last_error) = self.shared.state();
        let feed = lock(&self.feed);
        let queue_frames = feed.entry.as_ref().map_or(0, Entry::queued);
        let queue_age = match &feed.entry {
            Some(entry) if queue_frames > 0 => {
                // Frames lie one period apart: the oldest lies so many periods before the newest.
                let oldest =
                    entry.newest.nseconds().saturating_sub((queue_frames - 1) * self.video.rate.period());
                Duration::from_nanos(self.base.now().saturating_sub(oldest))
            }
            _ => Duration::ZERO,
        };
        PipeStatus {
            state,
            frames: self.shared.frames.load(Relaxed),
            dropped: feed.lost + feed.entry.as_ref().map_or(0, Entry::dropped),
            restarts: self.shared.restarts.load(Relaxed),
            last_error,
            queue_frames,
            queue_age,
        }
    }

    /// Begins to stop at once: ends the stream, so that recordings are finalised, and closes. The future is true when
    /// everything was closed within `limit`; what was not goes on closing by itself.
    pub fn stop(&self, limit: Duration) -> impl Future<Output = bool> + Send + use<> {
        self.shared.request_stop(Instant::now() + limit);
        let closed = lock(&self.closed).take();
        async move {
            let Some(closed) = closed else { return true };
            // The thread keeps to the limit itself; a little more lets it say so.
            tokio::time::timeout(limit + Duration::from_millis(100), closed).await == Ok(Ok(true))
        }
    }
}

impl Drop for OutputPipe {
    fn drop(&mut self) {
        self.shared.request_stop(Instant::now());
    }
}

/// A copy of the frame with the time drawn into it.
fn with_time(frame: &gst::Buffer, canvas: &gst_video::VideoInfo, monotonic: gst::ClockTime) -> gst::Buffer {
    let Ok(mut copy) = frame.copy_deep() else { return frame.clone() };
    if let Some(buffer) = copy.get_mut()
        && let Ok(mut picture) = gst_video::VideoFrameRef::from_buffer_ref_writable(buffer, canvas)
        && let Ok(stride) = usize::try_from(picture.plane_stride()[0])
    {
        let shape =
            timecode::Shape { width: canvas.width() as usize, height: canvas.height() as usize, stride };
        if let Ok(rgb) = picture.plane_data_mut(0) {
            timecode::draw(rgb, shape, timecode::millis(monotonic));
        }
    }
    copy
}

struct OutputRole {
    shared: Arc<Shared>,
    feed: Arc<Mutex<Feed>>,
    output: Output,
    video: Video,
    base: Base,
    progress: Progress,
}

/// For noticing stalls.
#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    passed: u64,
    /// Frames pushed when the last one passed.
    pushed: u64,
    since: Option<Instant>,
}

impl OutputRole {
    fn queue_frames(&self) -> u64 {
        match self.output.kind {
            OutputKind::Recording { .. } => {
                (RECORDING_QUEUE_SECS * SECOND / self.video.rate.period().max(1)).max(QUEUE_FRAMES)
            }
            _ => QUEUE_FRAMES,
        }
    }

    /// Whether it takes no frames while nobody looks: PipeWire gives its buffers to readers and gets them back. The
    /// camera is there all the same, and must not come and go.
    fn waits_for_readers(&self) -> bool {
        matches!(self.output.kind, OutputKind::Pipewire { .. })
    }

    fn appsrc(&self, passed: Arc<AtomicU64>) -> anyhow::Result<gst_app::AppSrc> {
        let appsrc = gst_app::AppSrc::builder()
            .name("frames")
            .caps(&output::canvas_caps(self.video))
            .is_live(true)
            .format(gst::Format::Time)
            .max_buffers(self.queue_frames())
            .max_bytes(0)
            .max_time(gst::ClockTime::ZERO)
            .leaky_type(gst_app::AppLeakyType::Downstream)
            .build();
        let pad = appsrc.static_pad("src").ok_or_else(|| anyhow::anyhow!("an appsrc without a pad"))?;
        let shared = self.shared.clone();
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
            passed.fetch_add(1, Relaxed);
            shared.frames.fetch_add(1, Relaxed);
            gst::PadProbeReturn::Ok
        });
        Ok(appsrc)
    }
}

impl Role for OutputRole {
    fn build(&mut self) -> anyhow::Result<gst::Pipeline> {
        let passed = Arc::new(AtomicU64::new(0));
        let appsrc = self.appsrc(passed.clone())?;
        output::prepare(&self.output.kind)?;
        let bin = output::build(&self.shared.name, &self.output, self.video)?;
        let pipeline = gst::Pipeline::new();
        pipeline.add_many([appsrc.upcast_ref(), &bin])?;
        appsrc.link(&bin)?;
        let offset = gst::ClockTime::from_nseconds(self.base.now());
        Base { base_time: self.base.base_time + offset }.apply(&pipeline);
        self.progress = Progress { since: Some(Instant::now()), ..Progress::default() };
        lock(&self.feed).entry = Some(Entry { appsrc, offset, pushed: 0, passed, newest: offset });
        Ok(pipeline)
    }

    fn message(&mut self, _: &gst::Pipeline, message: &gst::Message) -> Option<End> {
        if let Some(begun) = message.structure().filter(|s| s.name() == "splitmuxsink-fragment-opened")
            && let Ok(file) = begun.get::<String>("location")
        {
            self.shared.mention(PipeChange::File(file.into()));
        }
        // Nobody asked for it: a sink gave up, as a window does that is closed.
        (message.type_() == gst::MessageType::Eos)
            .then(|| End::Retry(PipeChange::Failed("it ended by itself".into())))
    }

    fn is_running(&self, pipeline: &gst::Pipeline) -> bool {
        let state = pipeline.current_state();
        if self.waits_for_readers() {
            return state >= gst::State::Paused && self.progress.pushed > 0;
        }
        self.progress.passed > 0 && state == gst::State::Playing
    }

    fn settle(&self, again: bool) -> Duration {
        match self.output.kind {
            // Whether there is room on the disk is seen when the first fragments are written.
            OutputKind::Recording { .. } if again => Duration::from_secs(3),
            // They begin to connect when the first frame comes.
            OutputKind::SrtCaller { .. } | OutputKind::Rtmp { .. } | OutputKind::Rtsp { .. } => {
                Duration::from_secs(1)
            }
            _ if again => Duration::from_secs(1),
            _ => Duration::ZERO,
        }
    }

    fn check(&mut self, now: Instant) -> Option<End> {
        let (pushed, passed) = {
            let feed = lock(&self.feed);
            let entry = feed.entry.as_ref()?;
            (entry.pushed, entry.passed.load(Relaxed))
        };
        let last = self.progress;
        // With no frames to take, nothing has stalled.
        if passed > last.passed || pushed == last.pushed || self.waits_for_readers() {
            self.progress = Progress { passed, pushed, since: Some(now) };
            return None;
        }
        let stalled = last.since.is_some_and(|since| now.duration_since(since) > STALL);
        stalled.then_some(End::Retry(PipeChange::Stalled))
    }

    fn finish(&mut self) -> bool {
        if matches!(
            self.output.kind,
            OutputKind::Pipewire { .. } | OutputKind::V4l2 { .. } | OutputKind::Window
        ) {
            // Nothing is left behind that could be whole or not.
            return false;
        }
        let feed = lock(&self.feed);
        feed.entry.as_ref().is_some_and(|entry| entry.pushed > 0 && entry.appsrc.end_of_stream().is_ok())
    }

    fn closing(&mut self) {
        let mut feed = lock(&self.feed);
        if let Some(entry) = feed.entry.take() {
            feed.lost += entry.dropped();
        }
    }
}
