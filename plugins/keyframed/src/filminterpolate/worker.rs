//! Live: the thread `film`, which makes FILM's in-betweens before they are due. Which ones is the engine's to say.
use std::{
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{Builder, JoinHandle},
    time::Instant,
};

use gst::{prelude::*, subclass::prelude::*};
use keyframed_engine::{Nanos, Rung, ahead::Job};

use super::{
    film::Loaded,
    imp::{CAT, FilmInterpolate},
    state::{Key, Mode, State},
};
use crate::priority;

/// How much the thread gives way to all others: its pictures are the only ones that something else can stand in for.
const GIVES_WAY: i32 = 10;

/// The thread while it runs.
pub struct Worker {
    /// Set under the state's lock, so that it is not missed by a thread about to wait.
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

/// What there is to do.
enum Todo {
    /// FILM is wanted and not there.
    Load,
    /// This picture, for the stream of this number.
    Make(u64, Job<Key>),
}

impl FilmInterpolate {
    /// Starts the thread unless it runs. It holds the element weakly between two turns. In a pipeline whose threads
    /// give way it does so even more, for it is started from one of them.
    pub(super) fn start_worker(&self) -> Result<(), gst::FlowError> {
        let mut worker = self.worker.lock().unwrap_or_else(PoisonError::into_inner);
        if worker.is_some() {
            return Ok(());
        }
        let stop = Arc::new(AtomicBool::new(false));
        let (this, told) = (self.downgrade(), stop.clone());
        let run = move || {
            priority::give_way(GIVES_WAY);
            while let Some(this) = this.upgrade() {
                if !gst::panic_to_error!(&*this, false, { this.turn(&told) }) {
                    break;
                }
            }
        };
        match Builder::new().name("film".into()).spawn(run) {
            Ok(thread) => {
                *worker = Some(Worker { stop, thread });
                Ok(())
            }
            Err(err) => {
                drop(worker);
                gst::element_imp_error!(self, gst::CoreError::Thread, ("Cannot start FILM's thread: {err}"));
                Err(gst::FlowError::Error)
            }
        }
    }

    /// Ends the thread; waits for the picture that it makes.
    pub(super) fn stop_worker(&self) {
        let worker = self.worker.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Worker { stop, thread }) = worker else { return };
        {
            let _guard = self.state();
            stop.store(true, Relaxed);
        }
        self.changed.notify_all();
        // Whoever is told something by the thread may stop the element from there.
        if thread.thread().id() != std::thread::current().id() && thread.join().is_err() {
            gst::error!(CAT, imp = self, "FILM's thread panicked");
        }
    }

    /// One thing after another; false at the end.
    fn turn(&self, stop: &AtomicBool) -> bool {
        match self.todo(stop) {
            Some(Todo::Load) => self.load_film(stop),
            Some(Todo::Make(stream, job)) => self.make_ahead(stream, &job),
            None => return false,
        }
        true
    }

    /// Waits for something to do; `None` when there never will be.
    fn todo(&self, stop: &AtomicBool) -> Option<Todo> {
        let mut guard = self.state();
        loop {
            if stop.load(Relaxed) {
                return None;
            }
            let state = guard.as_mut()?;
            let (latency, best) = self.asked();
            if best == Rung::Film && state.film.is_none() {
                return Some(Todo::Load);
            }
            state.tune(latency);
            let now = self.running_time(state);
            if let Some(todo) = now.filter(|_| state.flow.is_ok()).and_then(|now| state.todo(now)) {
                return Some(todo);
            }
            guard = self.wait(guard);
        }
    }

    /// Waits until FILM is there or known not to be. The rung follows.
    fn load_film(&self, stop: &AtomicBool) {
        let loaded = {
            let mut film = self.film();
            self.want_film(&mut film);
            film.wait(|| stop.load(Relaxed))
        };
        let Some(loaded) = loaded else { return };
        let (_, best) = self.asked();
        let mut change = None;
        if let Some(state) = self.state().as_mut() {
            // Pairs that are known by now stay as they are.
            if let Some(now) = self.running_time(state) {
                let _ = state.todo(now);
            }
            state.film = Some(loaded == Loaded::Ready);
            state.set_best(best);
            change = state.rung_change();
        }
        self.tell_rung(change);
        if let Loaded::Absent(trouble) = loaded {
            self.report_no_film(trouble);
        }
    }

    fn make_ahead(&self, stream: u64, job: &Job<Key>) {
        // By the pipeline's clock, as everything that it is compared with.
        let clock = self.obj().clock();
        let time = || clock.as_ref().map(|clock| clock.time().nseconds());
        let (started, before) = (Instant::now(), time());
        let made = self.film().make(&job.a.frame, &job.b.frame, job.slot.t());
        let cost = before.zip(time()).map(|(before, after)| after.saturating_sub(before));
        let (picture, trouble) = match made {
            Some(Ok(frame)) => (Some(frame), None),
            Some(Err(err)) => (None, Some(err)),
            None => (None, None),
        };
        gst::trace!(CAT, imp = self, "FILM took {cost:?} ns for {:?}", job.slot);
        let mut first = false;
        if let Some(state) = self.state().as_mut() {
            state.rungs.busy += started.elapsed();
            state.rungs.failed += u64::from(trouble.is_some());
            first = trouble.is_some() && !std::mem::replace(&mut state.warned, true);
            // What was made for a stream that has ended is of no use.
            if let Mode::Live(live) = &mut state.mode
                && live.stream == stream
            {
                live.ahead.done(job.slot, cost.filter(|_| picture.is_some()), picture);
            }
        }
        if let Some(trouble) = trouble.filter(|_| first) {
            self.warn_failed(Rung::Warp, &trouble);
        }
    }

    /// Now, while the element is in PLAYING and has a clock.
    pub(super) fn running_time(&self, state: &State) -> Option<Nanos> {
        let clock = self.obj().clock().filter(|_| state.playing)?;
        Some(clock.time().saturating_sub(self.obj().base_time()?).nseconds())
    }
}

impl State {
    /// What FILM makes now, if anything.
    fn todo(&mut self, now: Nanos) -> Option<Todo> {
        let Mode::Live(live) = &mut self.mode else { return None };
        let ticks = live.pacer.config().max_queued;
        let job = live.ahead.next(now, ticks, &live.pacer, Key::fits)?;
        Some(Todo::Make(live.stream, job))
    }
}
