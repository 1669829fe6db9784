//! The source and the outputs: which of them run, and how one is replaced by another.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use keyframed_control::types::{PartState, PartStatus};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};

use super::{clock::Base, feed::Feed, relay::Relay, supervisor::Note};
use crate::{
    config::resolved::{Output, Source, Video},
    media::{OutputPipe, PipeEvent, PipeStatus, SourcePipe},
    telemetry::events::{Events, Kind},
};

/// How long a part may take to close before its successor is started all the same.
const CLOSING: Duration = Duration::from_secs(3);

/// At the end, parts are to be closed so long before everything is, so that they can say that they are.
const SAYING_SO: Duration = Duration::from_millis(100);

/// What parts are connected to and tell.
pub struct Around {
    /// Running time.
    pub base: Base,
    /// Gives frames to outputs.
    pub relay: Relay,
    /// Takes poses from the source.
    pub feed: Feed,
    /// For what goes wrong.
    pub events: Events,
    /// Takes a word when a part is closed.
    pub notes: mpsc::Sender<Note>,
    /// Takes what happens to sources.
    pub of_sources: mpsc::Sender<PipeEvent>,
    /// Takes what happens to outputs.
    pub of_outputs: mpsc::Sender<PipeEvent>,
}

/// Source and outputs, as configured and as they run.
pub struct Parts {
    around: Around,
    video: Video,
    source: (String, Source),
    open_source: Option<OpenSource>,
    /// Sources that are being closed.
    closing_sources: usize,
    outputs: BTreeMap<String, Output>,
    open_outputs: BTreeMap<String, Arc<OutputPipe>>,
    /// Outputs that are being closed.
    closing_outputs: BTreeSet<String>,
    /// All that are being closed; each tells whether it is closed in the end.
    closing: JoinSet<bool>,
    /// When everything is to be closed by, once that is known: sooner than was said to those that close.
    end: watch::Sender<Option<Instant>>,
}

struct OpenSource {
    pipe: SourcePipe,
    /// Cleared when it is closed: frames that are under way then go nowhere.
    valve: Arc<AtomicBool>,
}

impl Parts {
    /// Starts the source and all outputs.
    pub fn start(
        around: Around,
        video: Video,
        source: (String, Source),
        outputs: BTreeMap<String, Output>,
    ) -> Self {
        let mut parts = Self {
            around,
            video,
            source,
            open_source: None,
            closing_sources: 0,
            outputs,
            open_outputs: BTreeMap::new(),
            closing_outputs: BTreeSet::new(),
            closing: JoinSet::new(),
            end: watch::Sender::new(None),
        };
        parts.open_outputs();
        parts.open_source();
        parts
    }

    /// Another source, or the same with other settings.
    pub fn set_source(&mut self, name: &str, source: &Source) {
        self.source = (name.to_owned(), source.clone());
        match self.close_source(Instant::now() + CLOSING) {
            true => self.closing_sources += 1,
            false => self.open_source(),
        }
    }

    /// A source was closed.
    pub fn source_closed(&mut self) {
        self.forget_closed();
        self.closing_sources = self.closing_sources.saturating_sub(1);
        self.open_source();
    }

    /// From now on these are the outputs; `stop` names those that end or change.
    pub fn set_outputs(&mut self, outputs: &BTreeMap<String, Output>, stop: &[String], video: Video) {
        self.outputs.clone_from(outputs);
        self.video = video;
        for name in stop {
            if self.close_output(name, Instant::now() + CLOSING) {
                self.closing_outputs.insert(name.clone());
            }
        }
        self.open_outputs();
    }

    /// An output was closed.
    pub fn output_closed(&mut self, name: &str) {
        self.forget_closed();
        self.closing_outputs.remove(name);
        self.open_outputs();
    }

    /// Begins to close everything for good; recordings are finalised. The future is true if all is closed at
    /// `deadline`, what was being closed before included.
    pub fn stop(&mut self, deadline: Instant) -> impl Future<Output = bool> + use<> {
        let deadline = deadline.checked_sub(SAYING_SO).unwrap_or(deadline);
        let names: Vec<_> = self.open_outputs.keys().cloned().collect();
        for name in names {
            self.close_output(&name, deadline);
        }
        self.close_source(deadline);
        self.end.send_replace(Some(deadline));
        let mut closing = std::mem::take(&mut self.closing);
        async move {
            let mut all = true;
            while let Some(closed) = closing.join_next().await {
                all &= closed.unwrap_or(false);
            }
            all
        }
    }

    /// The source, for `status`.
    pub fn source_status(&self) -> PartStatus {
        let (name, source) = &self.source;
        status(name, source.kind.name(), self.open_source.as_ref().map(|open| open.pipe.status()))
    }

    /// The outputs, for `status`.
    pub fn output_statuses(&self) -> Vec<PartStatus> {
        let all = self.outputs.iter();
        all.map(|(name, output)| {
            status(name, output.kind.name(), self.open_outputs.get(name).map(|pipe| pipe.status()))
        })
        .collect()
    }

    /// Frames that wait in front of each output, and the age of the oldest in milliseconds.
    pub fn queues(&self) -> Vec<(String, u64, f64)> {
        let all = self.open_outputs.iter();
        all.map(|(name, pipe)| {
            let status = pipe.status();
            (name.clone(), status.queue_frames, status.queue_age.as_secs_f64() * 1e3)
        })
        .collect()
    }

    fn open_source(&mut self) {
        if self.open_source.is_some() || self.closing_sources > 0 {
            return;
        }
        let valve = Arc::new(AtomicBool::new(true));
        let on_frame = {
            let (valve, feed) = (valve.clone(), self.around.feed.clone());
            move |sample: gst::Sample| {
                if valve.load(Relaxed) {
                    feed.pose(&sample);
                }
            }
        };
        let (name, source) = &self.source;
        match SourcePipe::start(name, source, Arc::new(on_frame), self.around.of_sources.clone()) {
            Ok(pipe) => self.open_source = Some(OpenSource { pipe, valve }),
            Err(error) => {
                let part = format!("source {name}");
                self.around.events.emit(Kind::SourceLost, Some(&part), format!("{error:#}"));
            }
        }
    }

    /// Whether there was one.
    fn close_source(&mut self, deadline: Instant) -> bool {
        let Some(open) = self.open_source.take() else { return false };
        open.valve.store(false, Relaxed);
        self.around.feed.interrupt();
        self.close(move |deadline| open.pipe.stop_by(deadline), deadline, Note::SourceClosed);
        true
    }

    fn open_outputs(&mut self) {
        for (name, output) in &self.outputs {
            if self.open_outputs.contains_key(name) || self.closing_outputs.contains(name) {
                continue;
            }
            let Around { base, relay, events, of_outputs, .. } = &self.around;
            match OutputPipe::start(name, output, self.video, *base, of_outputs.clone()) {
                Ok(pipe) => {
                    let pipe = Arc::new(pipe);
                    self.open_outputs.insert(name.clone(), pipe.clone());
                    relay.attach(name, Arc::new(move |frame, pose| pipe.push(frame, pose)));
                }
                Err(error) => {
                    events.emit(Kind::OutputLost, Some(&format!("output {name}")), format!("{error:#}"));
                }
            }
        }
    }

    /// Whether there was one.
    fn close_output(&mut self, name: &str, deadline: Instant) -> bool {
        let Some(pipe) = self.open_outputs.remove(name) else { return false };
        self.around.relay.detach(name);
        self.close(move |deadline| pipe.stop_by(deadline), deadline, Note::OutputClosed(name.to_owned()));
        true
    }

    /// Begins to close a part by `deadline`, or by the end of everything if that is sooner. `stop` owns the part.
    fn close<F>(&mut self, stop: impl Fn(Instant) -> F + Send + 'static, deadline: Instant, note: Note)
    where
        F: Future<Output = bool> + Send + 'static,
    {
        let closed = stop(deadline);
        let (mut end, notes) = (self.end.subscribe(), self.around.notes.clone());
        self.closing.spawn(async move {
            let end = async { end.wait_for(Option::is_some).await.ok().and_then(|end| *end) };
            tokio::select! {
                closed = closed => {
                    // Not by this task: it may be waited for by who takes notes.
                    tokio::spawn(async move { notes.send(note).await });
                    closed
                }
                Some(sooner) = end => stop(sooner).await,
            }
        });
    }

    /// Forgets what has come of parts that are closed.
    fn forget_closed(&mut self) {
        while self.closing.try_join_next().is_some() {}
    }
}

fn status(name: &str, kind: &str, pipe: Option<PipeStatus>) -> PartStatus {
    let (name, kind) = (name.to_owned(), kind.to_owned());
    match pipe {
        Some(pipe) => PartStatus {
            name,
            kind,
            state: pipe.state,
            frames: pipe.frames,
            dropped: pipe.dropped,
            restarts: pipe.restarts,
            last_error: pipe.last_error,
        },
        // Its predecessor is being closed.
        None => PartStatus {
            name,
            kind,
            state: PartState::Starting,
            frames: 0,
            dropped: 0,
            restarts: 0,
            last_error: None,
        },
    }
}
