//! What source and output pipes have in common as seen from outside: what they tell, how they are doing, how they are
//! stopped.

use std::{
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, atomic::AtomicU64},
    time::{Duration, Instant},
};

use keyframed_control::types::PartState;
use tokio::{
    sync::{mpsc, watch},
    time::timeout_at,
};

/// A pipe's thread keeps to a stop's deadline itself; so much more lets it say so.
const LATE: Duration = Duration::from_millis(100);

/// What happens to a pipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PipeChange {
    /// Frames flow, for the first time or again.
    Running,
    /// It failed: the reason, one sentence. It is opened again after a pause.
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
    /// False if the same was told last, and nothing since: it failed again as before, maybe after a few frames. Who
    /// goes by the state must know; who reports to people need not repeat it.
    pub news: bool,
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
    /// What was told last.
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

    /// Makes the thread close everything by `deadline`, or by that of an earlier request if that is sooner.
    fn request_stop(&self, deadline: Instant) {
        let mut stop = lock(&self.stop);
        *stop = Some(stop.map_or(deadline, |earlier| earlier.min(deadline)));
        self.stopping.notify_all();
    }

    /// Makes the thread close everything at once, unless it was told to stop by some time.
    fn abandon(&self) {
        lock(&self.stop).get_or_insert_with(Instant::now);
        self.stopping.notify_all();
    }

    /// The time to be closed by, if it is to stop.
    pub fn stop_requested(&self) -> Option<Instant> {
        *lock(&self.stop)
    }

    /// Waits, but not for longer than until a stop is requested.
    pub fn pause(&self, pause: Duration) {
        let stop = lock(&self.stop);
        drop(self.stopping.wait_timeout_while(stop, pause, |stop| stop.is_none()));
    }

    /// Tells something that changes nothing in what the pipe does.
    pub fn mention(&self, change: PipeChange) {
        self.send(change, true);
    }

    fn send(&self, change: PipeChange, news: bool) {
        // Waiting here could keep a pipe from stopping; `status` holds what matters.
        if self.events.try_send(PipeEvent { name: self.name.clone(), change, news }).is_err() {
            tracing::debug!("{}: nobody takes events", self.name);
        }
    }

    /// Tells what the pipe does from now on.
    pub fn tell(&self, change: PipeChange) {
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
        let news = state.told.replace(change.clone()).as_ref() != Some(&change);
        drop(state);
        // A file that begins again goes on running; a pipe that fails again was running meanwhile, or may have been.
        if news || change != PipeChange::Running {
            self.send(change, news);
        }
    }
}

/// Nothing that these locks protect is left half done by a panic.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A pipe's thread, as its owner holds it. Dropped, it makes the thread stop.
#[derive(Debug)]
pub struct Handle {
    shared: Arc<Shared>,
    /// Whether everything is closed, once the thread has ended.
    closed: watch::Receiver<Option<bool>>,
}

impl Handle {
    /// Of a thread that tells its end.
    pub fn new(shared: Arc<Shared>, closed: watch::Receiver<Option<bool>>) -> Self {
        Self { shared, closed }
    }

    /// Begins to stop at once. The future is true when everything was closed by `deadline`; what was not goes on
    /// closing by itself. Asked again, the earliest deadline holds, for all.
    pub fn stop_by(&self, deadline: Instant) -> impl Future<Output = bool> + Send + use<> {
        self.shared.request_stop(deadline);
        let mut closed = self.closed.clone();
        async move {
            let ended = closed.wait_for(Option::is_some);
            // A thread that died has closed nothing.
            timeout_at((deadline + LATE).into(), ended)
                .await
                .is_ok_and(|all| all.is_ok_and(|all| *all == Some(true)))
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.abandon();
    }
}
