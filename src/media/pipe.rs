//! What source and output pipes have in common: a named thread that opens a pipeline, watches its bus, closes it, and
//! after a failure opens the next one, until it is told to stop.

use std::{
    path::PathBuf,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use gst::prelude::*;
use keyframed_control::types::PartState;
use tokio::sync::{mpsc, oneshot};

use super::{backoff::Backoff, bus, transition::Transition};

/// How often a pipe looks for what no message tells: silence, stalls, the wish to stop.
const TICK: Duration = Duration::from_millis(50);

/// How long closing may take before it is left to itself. Nothing is opened again before it is through.
const CLOSING: Duration = Duration::from_secs(2);

/// Messages that matter.
const MESSAGES: [gst::MessageType; 5] = [
    gst::MessageType::Error,
    gst::MessageType::Eos,
    gst::MessageType::AsyncDone,
    gst::MessageType::SegmentDone,
    gst::MessageType::Element,
];

/// What happens to a pipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PipeChange {
    /// Frames flow, for the first time or again.
    Running,
    /// It failed: the reason, one sentence. It is opened again after a pause. The same reason is told once until
    /// frames have flowed again.
    Failed(String),
    /// Its pipeline takes no frames any more; it is opened again after a pause.
    Stalled,
    /// A source that does not repeat is over, for good.
    Eos,
    /// A recording has begun this file.
    File(PathBuf),
}

/// What happened to which pipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PipeEvent {
    /// Its name in the configuration.
    pub name: String,
    /// What happened.
    pub change: PipeChange,
}

/// How a pipe is doing.
#[derive(Debug, Clone, PartialEq)]
pub struct PipeStatus {
    /// What it does.
    pub state: PartState,
    /// Frames that came from a source or went into an output, over all its pipelines.
    pub frames: u64,
    /// Frames that an output was too slow for.
    pub dropped: u64,
    /// Times that it was opened again.
    pub restarts: u64,
    /// Why it failed last.
    pub last_error: Option<String>,
    /// Frames that wait in front of an output.
    pub queue_frames: u64,
    /// How old the oldest of them is.
    pub queue_age: Duration,
}

/// What a pipe's thread, its streaming threads and whoever asks share.
#[derive(Debug)]
pub struct Shared {
    /// In the configuration.
    pub name: String,
    /// Frames that passed, over all pipelines.
    pub frames: AtomicU64,
    /// Pipelines opened after the first.
    pub restarts: AtomicU64,
    state: Mutex<State>,
    /// When to be closed by, once it is to stop.
    stop: Mutex<Option<Instant>>,
    stopping: Condvar,
    events: mpsc::Sender<PipeEvent>,
}

#[derive(Debug)]
struct State {
    part: PartState,
    last_error: Option<String>,
    /// What was told since frames flowed last.
    told: Option<PipeChange>,
}

impl Shared {
    /// Of a pipe that is about to be opened.
    pub fn new(name: &str, events: mpsc::Sender<PipeEvent>) -> Arc<Self> {
        let state = State { part: PartState::Starting, last_error: None, told: None };
        Arc::new(Self {
            name: name.to_owned(),
            frames: AtomicU64::new(0),
            restarts: AtomicU64::new(0),
            state: Mutex::new(state),
            stop: Mutex::new(None),
            stopping: Condvar::new(),
            events,
        })
    }

    /// What it does and why it failed last.
    pub fn state(&self) -> (PartState, Option<String>) {
        let state = lock(&self.state);
        (state.part, state.last_error.clone())
    }

    /// Makes the thread close everything by `deadline`.
    pub fn request_stop(&self, deadline: Instant) {
        lock(&self.stop).get_or_insert(deadline);
        self.stopping.notify_all();
    }

    /// The time to be closed by, if it is to stop.
    pub fn stop_requested(&self) -> Option<Instant> {
        *lock(&self.stop)
    }

    /// Waits, but not for longer than until a stop is requested.
    fn pause(&self, pause: Duration) {
        let stop = lock(&self.stop);
        drop(self.stopping.wait_timeout_while(stop, pause, |stop| stop.is_none()));
    }

    /// Tells something that changes nothing in what the pipe does.
    pub fn mention(&self, change: PipeChange) {
        // Waiting here could keep a pipe from stopping; `status` holds what matters.
        if self.events.try_send(PipeEvent { name: self.name.clone(), change }).is_err() {
            tracing::debug!("{}: nobody takes events", self.name);
        }
    }

    fn tell(&self, change: PipeChange) {
        let part = match &change {
            PipeChange::Running => PartState::Running,
            _ => PartState::Lost,
        };
        let mut state = lock(&self.state);
        state.part = part;
        match &change {
            PipeChange::Failed(reason) => state.last_error = Some(reason.clone()),
            PipeChange::Stalled => state.last_error = Some("it takes no frames any more".into()),
            PipeChange::Eos => state.last_error = Some("the file is over".into()),
            PipeChange::Running | PipeChange::File(_) => {}
        }
        if state.told.as_ref() == Some(&change) {
            return;
        }
        state.told = Some(change.clone());
        drop(state);
        self.mention(change);
    }
}

/// Nothing that these locks protect is left half done by a panic.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Open again after a pause.
    Retry(PipeChange),
    /// Open again at once: nothing is wrong.
    Again,
    /// Never again.
    Over,
    /// A stop was requested.
    Stop,
}

/// What sources and outputs do differently.
pub trait Role: Send + 'static {
    /// Builds the pipeline.
    fn build(&mut self) -> anyhow::Result<gst::Pipeline>;

    /// The state to bring it to first: PAUSED if something is to be done there.
    fn first_state(&self) -> gst::State {
        gst::State::Playing
    }

    /// A message that is no error came. `Some`: this attempt is over.
    fn message(&mut self, pipeline: &gst::Pipeline, message: &gst::Message) -> Option<End>;

    /// Whether frames flow.
    fn is_running(&self, pipeline: &gst::Pipeline) -> bool;

    /// How long frames must flow until the pipe counts as running; `again`: after a failure. What fails soon after
    /// each start, such as a recording on a full disk, shall not come and go for ever.
    fn settle(&self, again: bool) -> Duration;

    /// Looks for silence and stalls. `Some`: this attempt is over.
    fn check(&mut self, now: Instant) -> Option<End>;

    /// Asks for the stream's end before a stop; false if there is nothing to wait for.
    fn finish(&mut self) -> bool {
        false
    }

    /// The pipeline is about to be closed.
    fn closing(&mut self) {}
}

/// Starts the thread that runs a pipe. What it returns resolves when the pipe has stopped: true when everything is
/// closed.
///
/// # Errors
/// If no thread can be made.
pub fn start<R: Role>(
    label: String,
    shared: Arc<Shared>,
    role: R,
    retry: (Duration, Duration),
) -> std::io::Result<oneshot::Receiver<bool>> {
    let (sender, closed) = oneshot::channel();
    let runner = Runner { label: label.clone(), shared, role, backoff: Backoff::new(retry), blocked: None };
    thread::Builder::new().name(label).spawn(move || {
        // Nobody may be waiting.
        let _ = sender.send(runner.run());
    })?;
    Ok(closed)
}

struct Runner<R> {
    /// Of threads, such as `output obs`.
    label: String,
    shared: Arc<Shared>,
    role: R,
    backoff: Backoff,
    /// The last pipeline, if it did not close in time.
    blocked: Option<Transition>,
}

impl<R: Role> Runner<R> {
    /// Whether everything is closed.
    fn run(mut self) -> bool {
        while self.shared.stop_requested().is_none() {
            self.wait_until_closed();
            let started = Instant::now();
            let end = self.attempt();
            let pause = match end {
                End::Stop => break,
                End::Again => continue,
                End::Over => {
                    self.shared.tell(PipeChange::Eos);
                    Duration::MAX
                }
                End::Retry(change) => {
                    self.shared.tell(change);
                    self.backoff.after(started.elapsed())
                }
            };
            self.shared.pause(pause);
            self.shared.restarts.fetch_add(1, Relaxed);
        }
        self.blocked.is_none()
    }

    /// Opens a pipeline and watches it to its end.
    fn attempt(&mut self) -> End {
        let pipeline = match self.role.build() {
            Ok(pipeline) => pipeline,
            Err(error) => return failed(format!("{error:#}")),
        };
        let state = self.role.first_state();
        let opening = match Transition::start(&self.label, &pipeline, state, None) {
            Ok(opening) => opening,
            Err(error) => return failed(format!("no thread to open it on: {error}")),
        };
        let (end, opening) = self.watch(&pipeline, opening);
        if end == End::Stop && self.role.finish() {
            self.drain(&pipeline);
        }
        self.role.closing();
        self.close(&pipeline, opening);
        end
    }

    fn watch(&mut self, pipeline: &gst::Pipeline, mut opening: Transition) -> (End, Transition) {
        let Some(bus) = pipeline.bus() else { return (failed("a pipeline without a bus".into()), opening) };
        let settle = self.role.settle(self.shared.state().1.is_some());
        let mut flows: Option<Instant> = None;
        let mut running = false;
        let mut missing = None;
        loop {
            if self.shared.stop_requested().is_some() {
                return (End::Stop, opening);
            }
            let message = bus.timed_pop_filtered(clock_time(TICK), &MESSAGES);
            let end = match &message {
                Some(message) => self.message(pipeline, message, &mut missing),
                None if opening.poll() == Some(false) => Some(failed("it does not start".into())),
                None => None,
            };
            if !running && end.is_none() && self.role.is_running(pipeline) {
                running = flows.get_or_insert_with(Instant::now).elapsed() >= settle;
                if running {
                    self.shared.tell(PipeChange::Running);
                }
            }
            if let Some(end) = end.or_else(|| self.role.check(Instant::now())) {
                return (end, opening);
            }
        }
    }

    fn message(
        &mut self,
        pipeline: &gst::Pipeline,
        message: &gst::Message,
        missing: &mut Option<String>,
    ) -> Option<End> {
        match message.view() {
            // A missing decoder is told before the error that comes of it, and better.
            gst::MessageView::Error(error) => {
                let sentence = bus::sentence(error);
                Some(failed(missing.take().unwrap_or(sentence)))
            }
            gst::MessageView::Element(_) => {
                *missing = bus::missing_plugin(message).or(missing.take());
                self.role.message(pipeline, message)
            }
            _ => self.role.message(pipeline, message),
        }
    }

    /// Waits for the end of the stream, so that files are finalised: most of the time there is, for closing wants
    /// some of it too.
    fn drain(&self, pipeline: &gst::Pipeline) {
        let (Some(deadline), Some(bus)) = (self.shared.stop_requested(), pipeline.bus()) else { return };
        let left = deadline.saturating_duration_since(Instant::now());
        let types = [gst::MessageType::Eos, gst::MessageType::Error];
        match bus.timed_pop_filtered(clock_time(left * 4 / 5), &types) {
            Some(message) if message.type_() == gst::MessageType::Eos => {}
            Some(_) => tracing::debug!("{}: failed while finishing", self.label),
            None => tracing::warn!("{}: did not finish in time", self.label),
        }
    }

    fn close(&mut self, pipeline: &gst::Pipeline, opening: Transition) {
        let limit = self.shared.stop_requested().map_or(CLOSING, |deadline| {
            deadline.saturating_duration_since(Instant::now()).clamp(TICK, CLOSING)
        });
        match Transition::start(&self.label, pipeline, gst::State::Null, Some(opening)) {
            Ok(mut closing) => {
                if closing.wait(limit).is_none() {
                    tracing::debug!("{}: does not close yet", self.label);
                    self.blocked = Some(closing);
                }
            }
            Err(error) => tracing::error!("{}: no thread to close it on: {error}", self.label),
        }
    }

    /// Files, ports and devices are free only when the last pipeline is closed.
    fn wait_until_closed(&mut self) {
        let Some(blocked) = &mut self.blocked else { return };
        while blocked.wait(TICK).is_none() {
            if self.shared.stop_requested().is_some() {
                return;
            }
        }
        self.blocked = None;
    }
}

fn failed(reason: String) -> End {
    End::Retry(PipeChange::Failed(reason))
}

fn clock_time(duration: Duration) -> gst::ClockTime {
    gst::ClockTime::try_from(duration).unwrap_or(gst::ClockTime::MAX)
}
