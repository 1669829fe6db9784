//! Live: a task on the source pad sends a picture a tick, by the pipeline's clock.
use std::sync::Arc;

use gst::{prelude::*, subclass::prelude::*};
use keyframed_engine::{
    Ahead, EngineError, Frame, LadderConfig, Nanos, PaceConfig, Pacer, Poll, Rung, SECOND,
    pace::{Output, Picture as Shown},
};

use super::{
    caps::OutCaps,
    imp::{CAT, FilmInterpolate},
    output::Picture,
    state::{Key, Live, Mode, RungChange, State},
};

/// Time without trouble after which a better rung is tried.
const CALM: Nanos = 2 * SECOND;

/// What is to be done next, decided under the state lock.
enum Step {
    /// With the picture that FILM has made ahead.
    Send(Output<Key>, Option<Frame>),
    /// Wait on the clock.
    Sleep(gst::SingleShotClockId),
    /// Somebody was waited for: look again.
    Again,
    /// Send end of stream.
    End(gst::Event),
}

impl State {
    /// Starts a pacer with the rate of `key`, or hands out the one that runs; at another rate it goes on at that.
    pub fn live_for(
        &mut self,
        key: &Key,
        best: Rung,
        latency: gst::ClockTime,
    ) -> Result<&mut Live, EngineError> {
        let rate = key.out.rate;
        let budget = rate.period() * 4 / 5;
        match &mut self.mode {
            Mode::Live(live) if live.pacer.config().rate == rate => {}
            Mode::Live(_) => self.change_rate(&key.out, budget),
            _ => {
                self.retire();
                let ladder = LadderConfig { best, budget, calm: CALM };
                // `tune` says below what they are.
                let (latency, max_queued) = (0, PaceConfig::most_waiting(rate, 0));
                let pacer = Pacer::new(PaceConfig { rate, latency, max_queued, ladder })?;
                let (ahead, stream) = (Ahead::new(self.costs), self.stream);
                self.mode = Mode::Live(Box::new(Live { pacer, ahead, stream }));
            }
        }
        self.tune(latency);
        match &mut self.mode {
            Mode::Live(live) => Ok(live),
            _ => Err(EngineError::Ended),
        }
    }

    /// Lets the pacer go on at another rate, with the key frames that wait. What FILM has made is for ticks that do not
    /// come any more.
    fn change_rate(&mut self, out: &Arc<OutCaps>, budget: Nanos) {
        let (counts, costs) = (self.ahead_counts(), self.costs());
        let Mode::Live(live) = &mut self.mode else { return };
        live.pacer.set_rate(out.rate, budget);
        for key in live.pacer.items_mut() {
            key.out = key.out.at_rate_of(out);
        }
        self.stream += 1;
        (live.ahead, live.stream) = (Ahead::new(costs), self.stream);
        self.past_ahead = counts;
        // The next tick is due at another time.
        self.wake();
    }
}

impl Live {
    /// What FILM has made ahead for `output`, which is due now.
    fn film_for(&mut self, now: Nanos, output: &Output<Key>) -> Option<Frame> {
        match &output.picture {
            Shown::Between { a, b, .. } if !a.fits(b) => None,
            _ => self.ahead.take(now, &mut self.pacer, output),
        }
    }
}

impl FilmInterpolate {
    /// Starts the output task and FILM's thread unless they run. The task holds the element weakly: a pad's task must not keep it alive.
    pub(super) fn start_task(&self) -> Result<(), gst::FlowError> {
        if self.srcpad.task_state() == gst::TaskState::Started {
            return Ok(());
        }
        self.start_worker()?;
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
            Ok(Step::Send(output, film)) => self.send(output, film),
            Ok(Step::Sleep(id)) => {
                // There is room for one more picture made ahead. Told last: FILM's thread takes the lock when it wakes,
                // and gives way to all others, so whoever needs the lock meanwhile waits for it.
                self.changed.notify_all();
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
        let (latency, _) = self.asked();
        let mut guard = self.state();
        let state = guard.as_mut().ok_or(gst::FlowError::Flushing)?;
        state.flow?;
        let now = self.running_time(state);
        state.tune(latency);
        let (Some(now), Mode::Live(live)) = (now, &mut state.mode) else {
            drop(self.wait(guard));
            return Ok(Step::Again);
        };
        match live.pacer.poll(now) {
            Poll::Emit(output) => {
                let film = live.film_for(now, &output);
                // After the end of a stream: an older tick of the next one.
                let stale = output.pts < state.sent_until;
                state.rungs.made[Rung::Film as usize] += u64::from(film.is_some() && !stale);
                let change = state.rung_change();
                drop(guard);
                self.tell_rung(change);
                Ok(if stale { Step::Again } else { Step::Send(output, film) })
            }
            Poll::Wait(due) => {
                let Some((clock, base)) = self.obj().clock().zip(self.obj().base_time()) else {
                    return Ok(Step::Again);
                };
                let id = clock.new_single_shot_id(base + gst::ClockTime::from_nseconds(due));
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

    /// Makes a picture unless FILM has made it ahead, and sends it; no lock is held meanwhile.
    fn send(&self, output: Output<Key>, film: Option<Frame>) -> Result<(), gst::FlowError> {
        if output.late {
            gst::debug!(CAT, imp = self, "Late at {}", gst::ClockTime::from_nseconds(output.pts));
        }
        let mut light = None;
        let (key, frame) = match (output.picture, film) {
            (Shown::Between { a, .. }, Some(frame)) => (a, frame),
            (Shown::Between { a, b, t, rung }, None) if a.fits(&b) => {
                let (_, best) = self.asked();
                let made = light.insert(self.light().make(rung.max(best), &a.frame, &b.frame, t));
                let frame = made.frame.clone();
                (a, frame)
            }
            (Shown::Frame(a) | Shown::Repeat(a) | Shown::Between { a, .. }, _) => {
                let frame = a.frame.clone();
                (a, frame)
            }
        };
        let picture = Picture { pts: output.pts, duration: output.duration, frame, out: key.out };
        self.push_picture(picture, light.as_ref()).map(|_| ())
    }

    /// Tells, once, that a rung does not work.
    pub(super) fn warn_failed(&self, instead: Rung, trouble: &str) {
        gst::element_imp_warning!(
            self,
            gst::StreamError::Failed,
            ("Interpolation failed, using {instead} instead: {trouble}")
        );
    }

    /// Posts a message if the rung in force is another one than the last told.
    pub(super) fn tell_rung(&self, change: RungChange) {
        let Some((from, to, reason)) = change else { return };
        gst::debug!(CAT, imp = self, "In-betweens by {to} instead of {from}: {}", reason.name());
        let structure = gst::Structure::builder("keyframed-quality")
            .field("from", from.name())
            .field("to", to.name())
            .field("reason", reason.name())
            .build();
        let _ = self.obj().post_message(gst::message::Element::builder(structure).src(&*self.obj()).build());
    }
}
