//! The source and the outputs: which of them run, and how one is replaced by another.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use keyframed_control::types::{PartState, PartStatus};
use tokio::sync::mpsc;

use super::{clock::Base, feed::Feed, relay::Relay, supervisor::Note};
use crate::{
    config::resolved::{Output, Source, Video},
    media::{OutputPipe, PipeEvent, PipeStatus, SourcePipe},
    telemetry::events::{Events, Kind},
};

/// How long a part may take to close before its successor is started all the same.
const CLOSING: Duration = Duration::from_secs(3);

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
        };
        parts.open_outputs();
        parts.open_source();
        parts
    }

    /// Another source, or the same with other settings.
    pub fn set_source(&mut self, name: &str, source: &Source) {
        self.source = (name.to_owned(), source.clone());
        match self.close_source(CLOSING) {
            Some(closed) => {
                self.closing_sources += 1;
                let notes = self.around.notes.clone();
                tokio::spawn(async move {
                    closed.await;
                    let _ = notes.send(Note::SourceClosed).await;
                });
            }
            None => self.open_source(),
        }
    }

    /// A source was closed.
    pub fn source_closed(&mut self) {
        self.closing_sources = self.closing_sources.saturating_sub(1);
        self.open_source();
    }

    /// From now on these are the outputs; `stop` names those that end or change.
    pub fn set_outputs(&mut self, outputs: &BTreeMap<String, Output>, stop: &[String], video: Video) {
        self.outputs.clone_from(outputs);
        self.video = video;
        for name in stop {
            let Some(closed) = self.close_output(name, CLOSING) else { continue };
            self.closing_outputs.insert(name.clone());
            let (notes, name) = (self.around.notes.clone(), name.clone());
            tokio::spawn(async move {
                closed.await;
                let _ = notes.send(Note::OutputClosed(name)).await;
            });
        }
        self.open_outputs();
    }

    /// An output was closed.
    pub fn output_closed(&mut self, name: &str) {
        self.closing_outputs.remove(name);
        self.open_outputs();
    }

    /// Closes everything for good; recordings are finalised. The future is true if all is closed within `limit`.
    pub fn stop(&mut self, limit: Duration) -> impl Future<Output = bool> + use<> {
        let names: Vec<_> = self.open_outputs.keys().cloned().collect();
        let outputs: Vec<_> = names.iter().filter_map(|name| self.close_output(name, limit)).collect();
        let source = self.close_source(limit);
        // Begun at once, waited for one after the other.
        async move {
            let mut all = true;
            for closed in outputs {
                all &= closed.await;
            }
            if let Some(closed) = source {
                all &= closed.await;
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

    fn close_source(&mut self, limit: Duration) -> Option<impl Future<Output = bool> + use<>> {
        let open = self.open_source.take()?;
        open.valve.store(false, Relaxed);
        self.around.feed.interrupt();
        Some(open.pipe.stop(limit))
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

    fn close_output(&mut self, name: &str, limit: Duration) -> Option<impl Future<Output = bool> + use<>> {
        let pipe = self.open_outputs.remove(name)?;
        self.around.relay.detach(name);
        Some(pipe.stop(limit))
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
