//! Runs one source.

use std::{
    sync::{Arc, Mutex, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use gst::prelude::*;
use tokio::sync::mpsc;

use super::{
    backoff::Backoff,
    element::{filter, make},
    pipe::{Handle, PipeChange, PipeEvent, PipeStatus, Shared, lock},
    role::{End, Role},
    runner, source,
};
use crate::config::resolved::{Source, SourceKind};

/// The first frame may take longer than the next ones: connections are made, an intra frame is waited for.
const FIRST_FRAME: Duration = Duration::from_secs(10);

/// Frames that wait for the animation; older ones give way.
const QUEUE_FRAMES: u32 = 2;

/// A file that is over sooner than this is not repeated at once: a single picture would keep a core busy.
const SHORTEST_FILE: Duration = Duration::from_millis(100);

/// What is called with each frame, on a streaming thread: RGB, square pixels; its size may change from one to the
/// next.
pub type OnFrame = Arc<dyn Fn(gst::Sample) + Send + Sync>;

/// A source that is opened again whenever it fails, ends or falls silent.
#[derive(Debug)]
pub struct SourcePipe {
    shared: Arc<Shared>,
    handle: Handle,
}

impl SourcePipe {
    /// Starts to run a source; failures to open it are events, and it is tried again.
    ///
    /// # Errors
    /// If no thread can be made.
    pub fn start(
        name: &str,
        source: &Source,
        on_frame: OnFrame,
        events: mpsc::Sender<PipeEvent>,
    ) -> anyhow::Result<Self> {
        let shared = Shared::new(name, events);
        let role = SourceRole {
            shared: shared.clone(),
            source: source.clone(),
            on_frame,
            last: Arc::new(Mutex::new(None)),
            opened: Instant::now(),
            played: Instant::now(),
            begun: false,
        };
        let backoff = Backoff::new(source.retry);
        let handle = runner::start(format!("source {name}"), shared.clone(), role, backoff)?;
        Ok(Self { shared, handle })
    }

    /// How it is doing.
    pub fn status(&self) -> PipeStatus {
        let (state, last_error) = self.shared.state();
        PipeStatus {
            state,
            frames: self.shared.frames.load(Relaxed),
            dropped: 0,
            restarts: self.shared.restarts.load(Relaxed),
            last_error,
            queue_frames: 0,
            queue_age: Duration::ZERO,
        }
    }

    /// As [`stop_by`](Self::stop_by), `limit` from now.
    #[cfg(test)]
    pub fn stop(&self, limit: Duration) -> impl Future<Output = bool> + Send + use<> {
        self.stop_by(Instant::now() + limit)
    }

    /// Begins to stop at once. The future is true when everything was closed by `deadline`; what was not goes on
    /// closing by itself. Asked again, the earliest deadline holds, for all.
    pub fn stop_by(&self, deadline: Instant) -> impl Future<Output = bool> + Send + use<> {
        self.handle.stop_by(deadline)
    }
}

struct SourceRole {
    shared: Arc<Shared>,
    source: Source,
    on_frame: OnFrame,
    /// When the open pipeline's last frame came.
    last: Arc<Mutex<Option<Instant>>>,
    opened: Instant,
    /// When the file was begun last.
    played: Instant,
    /// Whether a file that repeats was told so.
    begun: bool,
}

impl SourceRole {
    fn appsink(&self) -> gst_app::AppSink {
        let (shared, on_frame, last) = (self.shared.clone(), self.on_frame.clone(), self.last.clone());
        let callbacks = gst_app::AppSinkCallbacks::builder()
            .new_sample(move |sink| {
                let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
                shared.frames.fetch_add(1, Relaxed);
                *lock(&last) = Some(Instant::now());
                on_frame(sample);
                Ok(gst::FlowSuccess::Ok)
            })
            .build();
        gst_app::AppSink::builder()
            .name("poses")
            .sync(source::is_paced(&self.source.kind))
            .max_buffers(QUEUE_FRAMES)
            .drop(true)
            .callbacks(callbacks)
            .build()
    }

    /// The file can be read: from now on it ends in a message instead of the stream's end, and goes on from its start
    /// without a pause.
    fn begin(&mut self, pipeline: &gst::Pipeline) -> Option<End> {
        if !std::mem::replace(&mut self.begun, true) {
            let flags = gst::SeekFlags::FLUSH | gst::SeekFlags::SEGMENT;
            if knows_segments(pipeline) && pipeline.seek_simple(flags, gst::ClockTime::ZERO).is_err() {
                tracing::debug!("{}: cannot be wound back, is opened again instead", self.shared.name);
            }
            if pipeline.set_state(gst::State::Playing).is_err() {
                return Some(End::Retry(PipeChange::Failed("it does not play".into())));
            }
        }
        None
    }

    /// The file is over; plays it again, from the start or by opening it again.
    fn repeat(&mut self, pipeline: &gst::Pipeline, message: gst::MessageType) -> Option<End> {
        let took = std::mem::replace(&mut self.played, Instant::now()).elapsed();
        if took < SHORTEST_FILE {
            let reason = "the file holds no video, or a single picture";
            return Some(End::Retry(PipeChange::Failed(reason.into())));
        }
        let goes_on = message == gst::MessageType::SegmentDone
            && pipeline.seek_simple(gst::SeekFlags::SEGMENT, gst::ClockTime::ZERO).is_ok();
        (!goes_on).then_some(End::Again)
    }
}

/// Whether the file's demultiplexer ends a segment with a message, so that the next one follows without a pause. With
/// others (MPEG-TS, streams without a container) such a seek ends nowhere.
fn knows_segments(pipeline: &gst::Pipeline) -> bool {
    let demuxers = ["qtdemux", "matroskademux", "avidemux"];
    pipeline
        .iterate_recurse()
        .into_iter()
        .flatten()
        .any(|element| element.factory().is_some_and(|factory| demuxers.contains(&factory.name().as_str())))
}

impl Role for SourceRole {
    fn build(&mut self) -> anyhow::Result<gst::Pipeline> {
        source::prepare(&self.source.kind)?;
        let bin = source::build(&self.shared.name, &self.source.kind)?;
        let caps = gst_video::VideoCapsBuilder::new()
            .format(gst_video::VideoFormat::Rgb)
            .pixel_aspect_ratio((1, 1).into())
            .build();
        let tail = [bin, make("videoconvert")?, make("videoscale")?, filter(&caps)?, self.appsink().upcast()];
        let pipeline = gst::Pipeline::new();
        pipeline.add_many(&tail)?;
        gst::Element::link_many(&tail).context("the source's elements do not go together")?;
        *lock(&self.last) = None;
        self.opened = Instant::now();
        self.played = self.opened;
        self.begun = false;
        Ok(pipeline)
    }

    fn first_state(&self) -> gst::State {
        match self.source.kind {
            SourceKind::File { repeat: true, .. } => gst::State::Paused,
            _ => gst::State::Playing,
        }
    }

    fn message(&mut self, pipeline: &gst::Pipeline, message: &gst::Message) -> Option<End> {
        match (message.type_(), &self.source.kind) {
            (gst::MessageType::AsyncDone, SourceKind::File { repeat: true, .. }) => self.begin(pipeline),
            (gst::MessageType::SegmentDone, _) => self.repeat(pipeline, message.type_()),
            (gst::MessageType::Eos, SourceKind::File { repeat: true, .. }) => {
                self.repeat(pipeline, message.type_())
            }
            (gst::MessageType::Eos, SourceKind::File { repeat: false, .. }) => Some(End::Over),
            (gst::MessageType::Eos, _) => Some(End::Retry(PipeChange::Failed("the stream ended".into()))),
            _ => None,
        }
    }

    fn is_running(&self, _: &gst::Pipeline) -> bool {
        lock(&self.last).is_some()
    }

    fn settle(&self, _again: bool) -> Duration {
        match self.source.kind {
            // A single picture shall not come and go.
            SourceKind::File { repeat: true, .. } => SHORTEST_FILE,
            _ => Duration::ZERO,
        }
    }

    fn check(&mut self, now: Instant) -> Option<End> {
        let last = *lock(&self.last);
        let (since, limit) = match last {
            Some(last) => (last, self.source.timeout),
            None if source::waits(&self.source.kind) => return None,
            None => (self.opened, self.source.timeout.max(FIRST_FRAME)),
        };
        let silent = now.saturating_duration_since(since);
        (silent > limit)
            .then(|| End::Retry(PipeChange::Failed(format!("no frame for {:.1} s", limit.as_secs_f64()))))
    }
}
