//! How an output's pipeline is built, watched and ended.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use gst::prelude::*;
use keyframed_engine::SECOND;

use super::{
    output,
    output_feed::{Entry, Feed},
    outputs::{network, pipewire},
    pipe::{PipeChange, Shared, lock},
    role::{End, Role},
    transition::Transition,
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

/// How an output's pipeline is built, watched and ended.
pub struct OutputRole {
    shared: Arc<Shared>,
    feed: Arc<Mutex<Feed>>,
    output: Output,
    video: Video,
    base: Base,
    progress: Progress,
    /// Of a PipeWire camera.
    server: Option<pipewire::Server>,
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
    /// Of an output whose frames come through `feed`.
    pub fn new(
        shared: Arc<Shared>,
        feed: Arc<Mutex<Feed>>,
        output: &Output,
        video: Video,
        base: Base,
    ) -> Self {
        Self {
            shared,
            feed,
            output: output.clone(),
            video,
            base,
            progress: Progress::default(),
            server: None,
        }
    }

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

    /// A fragment may bring sources of its own, such as sound: their streams must end, too, for a file to be whole.
    fn end_other_sources(&self, pipeline: &gst::Pipeline, ours: &gst_app::AppSrc) {
        let others: Vec<_> = pipeline
            .iterate_recurse()
            .into_iter()
            .flatten()
            .filter(|element| element.element_flags().contains(gst::ElementFlags::SOURCE))
            .filter(|element| !element.is::<gst::Bin>() && element != ours.upcast_ref::<gst::Element>())
            .collect();
        if others.is_empty() {
            return;
        }
        // Waits for a frame on its way, which may block. Nobody waits for this: closing frees it.
        let name = format!("output {}", self.shared.name);
        if let Err(error) = Transition::send(&name, others, gst::event::Eos::new()) {
            tracing::error!("{name}: no thread to end its sources on: {error}");
        }
    }
}

impl Role for OutputRole {
    fn build(&mut self) -> anyhow::Result<gst::Pipeline> {
        self.server = self.waits_for_readers().then(pipewire::Server::connect).flatten();
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
        self.progress.passed > 0
            && state == gst::State::Playing
            && network::is_answered(&self.output.kind, pipeline)
    }

    fn settle(&self, again: bool) -> Duration {
        match self.output.kind {
            // Whether there is room on the disk is seen when the first fragments are written.
            OutputKind::Recording { .. } if again => Duration::from_secs(3),
            // They begin to connect when the first frame comes.
            OutputKind::Rtmp { .. } | OutputKind::Rtsp { .. } => Duration::from_secs(1),
            _ if again => Duration::from_secs(1),
            _ => Duration::ZERO,
        }
    }

    fn check(&mut self, now: Instant) -> Option<End> {
        if self.server.as_ref().is_some_and(pipewire::Server::is_gone) {
            return Some(End::Retry(PipeChange::Failed("PipeWire has ended".into())));
        }
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

    fn finish(&mut self, pipeline: &gst::Pipeline) -> bool {
        if matches!(
            self.output.kind,
            OutputKind::Pipewire { .. } | OutputKind::V4l2 { .. } | OutputKind::Window
        ) {
            // Nothing is left behind that could be whole or not.
            return false;
        }
        let feed = lock(&self.feed);
        let Some(entry) = feed.entry.as_ref().filter(|entry| entry.pushed > 0) else { return false };
        if let OutputKind::Fragment { .. } = self.output.kind {
            self.end_other_sources(pipeline, &entry.appsrc);
        }
        entry.appsrc.end_of_stream().is_ok()
    }

    fn closing(&mut self) {
        let mut feed = lock(&self.feed);
        if let Some(entry) = feed.entry.take() {
            feed.lost += entry.dropped();
        }
    }
}
