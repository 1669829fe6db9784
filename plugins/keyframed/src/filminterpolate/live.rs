//! Live: a task on the source pad sends a picture a tick, by the pipeline's clock.
use gst::{prelude::*, subclass::prelude::*};
use keyframed_engine::{
    EngineError, LadderConfig, Nanos, PaceConfig, Pacer, Poll, Rung, SECOND, Timed,
    pace::{Output, Picture as Shown},
};

use super::{
    imp::{CAT, FilmInterpolate},
    output::Picture,
    state::{Key, Live, Mode, State},
};

/// Most key frames that wait: as many as come within a long latency at a high key rate. The pacer drops those
/// that are past by itself; this only bounds memory if upstream runs away.
const MAX_QUEUED: usize = 64;

/// Time without trouble after which a better rung is tried.
const CALM: Nanos = 2 * SECOND;

/// What is to be done next, decided under the state lock.
enum Step {
    Send(Output<Key>),
    /// Wait on the clock.
    Sleep(gst::SingleShotClockId),
    /// Somebody was waited for: look again.
    Again,
    /// Send end of stream.
    End(gst::Event),
}

impl State {
    /// Starts a pacer with the rate of `key`, or hands out the one that runs at it.
    pub fn live_for(&mut self, key: &Key, best: Rung) -> Result<&mut Live, EngineError> {
        let last = match &self.mode {
            Mode::Live(live) if live.pacer.config().rate == key.out.rate => None,
            Mode::Live(live) => Some(live.last.clone()),
            _ => Some(None),
        };
        if let Some(last) = last {
            self.retire();
            let rate = key.out.rate;
            let ladder = LadderConfig { best, budget: rate.period() * 4 / 5, calm: CALM };
            // The latency is not the pacer's business: `delay` shifts the clock that it is shown.
            let mut pacer = Pacer::new(PaceConfig { rate, latency: 0, max_queued: MAX_QUEUED, ladder })?;
            if let Some((pts, last)) = last {
                pacer.key(Timed::new(pts, Key { out: key.out.clone(), ..last }))?;
            }
            self.mode = Mode::Live(Box::new(Live { pacer, last: None }));
        }
        match &mut self.mode {
            Mode::Live(live) => Ok(live),
            _ => Err(EngineError::Ended),
        }
    }

    /// How far behind running time the tick being made is. One tick less than promised: that is the time for
    /// making it.
    pub fn delay(&self, latency: gst::ClockTime) -> Nanos {
        let period = match &self.mode {
            Mode::Live(live) => live.pacer.config().rate.period(),
            _ => 0,
        };
        (self.upstream_latency + latency.nseconds()).saturating_sub(period)
    }
}

impl FilmInterpolate {
    /// Starts the output task unless it runs. It holds the element weakly: a pad's task must not keep it alive.
    pub(super) fn start_task(&self) -> Result<(), gst::FlowError> {
        if self.srcpad.task_state() == gst::TaskState::Started {
            return Ok(());
        }
        let this = self.downgrade();
        let turn = move || {
            if let Some(this) = this.upgrade() {
                this.run_task();
            }
        };
        self.srcpad.start_task(turn).map_err(|err| {
            gst::element_imp_error!(self, gst::CoreError::Thread, ("Cannot start the output: {err}"));
            gst::FlowError::Error
        })
    }

    /// One turn of the task.
    fn run_task(&self) {
        let result = match self.next_step() {
            Ok(Step::Send(output)) => self.send(output),
            Ok(Step::Sleep(id)) => {
                let _ = id.wait();
                Ok(())
            }
            Ok(Step::Again) => Ok(()),
            Ok(Step::End(eos)) => {
                gst::debug!(CAT, imp = self, "End of stream");
                self.push_eos(eos);
                Err(gst::FlowError::Eos)
            }
            Err(err) => Err(err),
        };
        if let Err(err) = result {
            self.stop_task(err);
        }
    }

    /// Ends the task; chain answers `err` from now on.
    fn stop_task(&self, err: gst::FlowError) {
        let mut unreported = false;
        if let Some(state) = self.state().as_mut() {
            // Flushing may have been set meanwhile: it stays.
            if state.flow.is_ok() {
                state.flow = Err(err);
            }
            // After end of stream no chain call will carry the error upstream.
            unreported =
                state.eos.is_some() && !matches!(err, gst::FlowError::Flushing | gst::FlowError::Eos);
        }
        if unreported {
            gst::element_imp_error!(self, gst::StreamError::Failed, ("Output stopped: {err}"));
        }
        gst::debug!(CAT, imp = self, "Output task stops: {err}");
        let _ = self.srcpad.pause_task();
    }

    fn next_step(&self) -> Result<Step, gst::FlowError> {
        let latency = self.settings().latency;
        let mut guard = self.state();
        let state = guard.as_mut().ok_or(gst::FlowError::Flushing)?;
        state.flow?;
        let clock = self.obj().clock().filter(|_| state.playing);
        let Some((clock, base)) = clock.zip(self.obj().base_time()) else {
            drop(self.wait(guard));
            return Ok(Step::Again);
        };
        let now = clock.time().saturating_sub(base).nseconds();
        let delay = state.delay(latency);
        let Mode::Live(live) = &mut state.mode else {
            drop(self.wait(guard));
            return Ok(Step::Again);
        };
        let poll = if now < delay { Poll::Wait(0) } else { live.pacer.poll(now - delay) };
        match poll {
            Poll::Emit(output) => Ok(Step::Send(output)),
            Poll::Wait(due) => {
                let id = clock.new_single_shot_id(base + gst::ClockTime::from_nseconds(due + delay));
                state.clock_id = Some(id.clone());
                Ok(Step::Sleep(id))
            }
            Poll::Done if state.eos.is_some() => Ok(state.eos.take().map_or(Step::Again, Step::End)),
            Poll::Idle | Poll::Done => {
                drop(self.wait(guard));
                Ok(Step::Again)
            }
        }
    }

    /// Makes a picture and sends it; no lock is held meanwhile.
    fn send(&self, output: Output<Key>) -> Result<(), gst::FlowError> {
        if self.state().as_ref().is_some_and(|state| output.pts < state.sent_until) {
            // After a change of rate: an older tick of the new grid.
            return Ok(());
        }
        let (key, frame) = match output.picture {
            Shown::Frame(key) | Shown::Repeat(key) => {
                let frame = key.frame.clone();
                (key, frame)
            }
            Shown::Between { a, b, t, rung } => {
                let frame = self.between(&a, &b, t, rung);
                (a, frame)
            }
        };
        if output.late {
            gst::debug!(CAT, imp = self, "Late at {}", gst::ClockTime::from_nseconds(output.pts));
        }
        let picture = Picture { pts: output.pts, duration: output.duration, frame, out: key.out };
        self.push_picture(picture).map(|_| ())
    }

    /// An in-between; the ladder learns what it cost.
    fn between(&self, a: &Key, b: &Key, t: f32, rung: Rung) -> keyframed_engine::Frame {
        if a.out.info.width() != b.out.info.width() || a.out.info.height() != b.out.info.height() {
            return a.frame.clone();
        }
        let rung = rung.max(self.settings().max_quality.into());
        let (made, missing) = {
            let mut rungs = self.rungs();
            self.want_film(&mut rungs);
            let missing = rungs.poll_film();
            (rungs.make(rung, &a.frame, &b.frame, t), missing)
        };
        self.report_no_film(missing);
        let now = self.obj().current_running_time().map_or(0, gst::ClockTime::nseconds);
        let cost = u64::try_from(made.cost.as_nanos()).unwrap_or(u64::MAX);
        let latency = self.settings().latency;
        let mut first = false;
        if let Some(state) = self.state().as_mut() {
            state.rungs.count(&made);
            let delay = state.delay(latency);
            first = made.trouble.is_some() && !std::mem::replace(&mut state.warned, true);
            if let Mode::Live(live) = &mut state.mode {
                live.pacer.observe_cost(now.saturating_sub(delay), made.rung, cost);
            }
        }
        if let Some(trouble) = made.trouble.filter(|_| first) {
            gst::element_imp_warning!(
                self,
                gst::StreamError::Failed,
                ("Interpolation failed, using {} instead: {trouble}", made.rung)
            );
        }
        made.frame
    }
}
