//! The worker: a task on the source pad that takes jobs, makes key frames and sends them.
use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

use gst::{prelude::*, subclass::prelude::*};
use keyframed_engine::Frame;

use super::{
    imp::{CAT, LcmAnimate},
    job::{Job, Pose},
    state::Worker,
};
use crate::{
    load,
    models::{Animator, describe},
    params,
    video::write_frame,
};

/// Properties that the event `keyframed-params` sets.
pub(super) const PARAMS: [&str; 5] = ["steps", "guidance-scale", "lora-scale", "context-frames", "seed"];

/// Failures in a row after which a live stream is given up.
const MOST_FAILURES: u64 = 8;

impl LcmAnimate {
    pub(super) fn start_task(&self) -> Result<(), gst::LoggableError> {
        let this = self.downgrade();
        let turn = move || {
            if let Some(this) = this.upgrade() {
                this.run_task();
            }
        };
        self.srcpad
            .start_task(turn)
            .map_err(|err| gst::loggable_error!(CAT, "Cannot start the worker: {err}"))
    }

    /// One turn of the task.
    fn run_task(&self) {
        let Some(mailbox) = self.state().as_ref().map(|state| state.mailbox.clone()) else {
            let _ = self.srcpad.pause_task();
            return;
        };
        let Some(job) = mailbox.recv() else {
            gst::debug!(CAT, imp = self, "No more work");
            let _ = self.srcpad.pause_task();
            return;
        };
        let epoch = job.item.epoch;
        if let Err(err) = self.work(job.item) {
            self.note_flow(epoch, err);
        }
    }

    fn work(&self, job: Job) -> Result<(), gst::FlowError> {
        let epoch = job.epoch;
        for event in job.before {
            self.push_event(epoch, event);
        }
        if let Some(pose) = job.pose {
            self.animate(epoch, pose)?;
        }
        for event in job.after {
            self.push_event(epoch, event);
        }
        Ok(())
    }

    /// Whether a flush came after `epoch`, or pushing is of no use any more.
    fn is_stale(&self, epoch: u64) -> bool {
        self.state().as_ref().is_none_or(|state| state.epoch != epoch || state.flow.is_err())
    }

    fn push_event(&self, epoch: u64, event: gst::Event) {
        use gst::EventType as T;
        let flushed = self.state().as_ref().is_none_or(|state| state.epoch != epoch);
        if flushed && matches!(event.type_(), T::Segment | T::Eos | T::Gap) {
            return;
        }
        if let gst::EventView::Caps(caps) = event.view()
            && let Some(state) = self.state().as_mut()
        {
            state.out_info = gst_video::VideoInfo::from_caps(caps.caps()).ok();
        }
        params::take(&*self.obj(), &event, &PARAMS, |values| self.set_params(values));
        self.srcpad.push_event(event);
    }

    /// Sets properties all at once; they are valid.
    fn set_params(&self, values: &[params::Value]) {
        self.change_settings(|settings| {
            for (name, value) in values {
                if let Err(err) = settings.set(name, value) {
                    gst::error!(CAT, imp = self, "Property {name}: {err}");
                }
            }
        });
    }

    /// Makes and sends the key frame of a key pose.
    fn animate(&self, epoch: u64, pose: Pose) -> Result<(), gst::FlowError> {
        let mut worker = self.worker();
        self.await_model(&mut worker, epoch)?;
        if self.is_stale(epoch) {
            return Ok(());
        }
        let tuning = self.settings().tuning;
        let Worker { animator: Some(animator), epoch: last, .. } = &mut *worker else { return Ok(()) };
        self.refresh(animator.as_mut(), &tuning)?;
        if std::mem::replace(last, epoch) != epoch {
            animator.reset();
        }
        let started = Instant::now();
        let made = guarded(|| animator.generate(&pose.frame, pose.time).map_err(|err| describe(&err)));
        let took = started.elapsed();
        drop(worker);
        gst::trace!(CAT, imp = self, "Generated in {took:?}");
        match made {
            Ok(frame) => self.push_frame(epoch, pose, &frame, took),
            Err(err) => self.note_failure(&err, took),
        }
    }

    /// Waits until the model is there.
    fn await_model(&self, worker: &mut Worker, epoch: u64) -> Result<(), gst::FlowError> {
        while let Some(arriving) = &worker.arriving {
            match arriving.wait(Duration::from_millis(50)) {
                Some(Ok(animator)) => {
                    (worker.animator, worker.arriving) = (Some(animator), None);
                    gst::debug!(CAT, imp = self, "The model is loaded");
                    if let Some(state) = self.state().as_mut() {
                        state.loaded = true;
                    }
                }
                Some(Err(err)) => return Err(self.give_up(gst::LibraryError::Init, &err)),
                None if self.is_stale(epoch) => return Ok(()),
                None => {}
            }
        }
        Ok(())
    }

    /// Brings the generator up to date with the properties. Only the first reference must succeed.
    fn refresh(
        &self,
        animator: &mut dyn Animator,
        tuning: &crate::models::Tuning,
    ) -> Result<(), gst::FlowError> {
        if let Err(err) = guarded(|| animator.tune(tuning)) {
            gst::element_imp_warning!(self, gst::LibraryError::Settings, ("Settings not used: {err}"));
        }
        let next = self.state().as_mut().and_then(|state| state.next_reference.take());
        let Some((picture, path)) = next else { return Ok(()) };
        let set = guarded(|| animator.set_reference(&picture).map_err(|err| describe(&err)));
        let mut guard = self.state();
        let first = guard.as_ref().is_none_or(|state| state.reference.is_none());
        match (set, &mut *guard) {
            (Ok(()), Some(state)) => {
                gst::info!(CAT, imp = self, "Reference is {}", path.display());
                state.reference = Some(path);
                state.latency.disturb();
                Ok(())
            }
            (Ok(()), None) => Ok(()),
            (Err(err), _) => {
                drop(guard);
                let text = format!("The reference picture {} cannot be used: {err}", path.display());
                if first {
                    return Err(self.give_up(gst::ResourceError::Read, &text));
                }
                gst::element_imp_warning!(
                    self,
                    gst::ResourceError::Read,
                    ("{text}. The old reference stays")
                );
                Ok(())
            }
        }
    }

    fn push_frame(
        &self,
        epoch: u64,
        pose: Pose,
        frame: &Frame,
        took: Duration,
    ) -> Result<(), gst::FlowError> {
        let (info, latency, sustained) = {
            let mut guard = self.state();
            let state = guard.as_mut().ok_or(gst::FlowError::Flushing)?;
            state.counts.generated += 1;
            (state.counts.last, state.counts.failed_running) = (took, 0);
            state.counts.busy += took;
            let changed = state.live && state.latency.observe(pose.since, Instant::now());
            let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
            // The first also waits for what is prepared once.
            let steady = state.live && state.counts.generated > 1;
            let sustained = if steady { state.capacity.observe(took) } else { None };
            (state.out_info.clone(), changed.then_some(state.latency.declared), sustained)
        };
        if let Some(interval) = sustained {
            // Nobody upstream may care.
            let _ = self.sinkpad.push_event(load::event(interval));
        }
        if let Some(latency) = latency {
            let latency = gst::ClockTime::from_nseconds(latency);
            gst::info!(
                CAT,
                imp = self,
                "Key frames take another time than declared: latency is {latency} now"
            );
            let _ = self.obj().post_message(gst::message::Latency::builder().src(&*self.obj()).build());
        }
        let info = info.ok_or(gst::FlowError::NotNegotiated)?;
        let mut buffer = write_frame(frame, &info).map_err(|err| {
            self.give_up(gst::ResourceError::Write, &format!("Cannot write a key frame: {err}"))
        })?;
        let flags = gst::BufferCopyFlags::FLAGS | gst::BufferCopyFlags::TIMESTAMPS;
        if let Err(err) = pose.buffer.copy_into(buffer.make_mut(), flags, ..) {
            gst::warning!(CAT, imp = self, "Timestamps lost: {err}");
        }
        if self.is_stale(epoch) {
            return Ok(());
        }
        gst::trace!(CAT, imp = self, "Outgoing {buffer:?}");
        self.srcpad.push(buffer).map(|_| ())
    }

    /// A live stream goes on without a key frame or two; any other must be complete.
    fn note_failure(&self, err: &str, took: Duration) -> Result<(), gst::FlowError> {
        let (live, running) = match self.state().as_mut() {
            Some(state) => {
                state.counts.failed += 1;
                state.counts.failed_running += 1;
                state.counts.busy += took;
                (state.live, state.counts.failed_running)
            }
            None => return Err(gst::FlowError::Flushing),
        };
        if live && running < MOST_FAILURES {
            if running == 1 {
                gst::element_imp_warning!(self, gst::StreamError::Failed, ("A key frame failed: {err}"));
            }
            return Ok(());
        }
        Err(self.give_up(gst::StreamError::Failed, &format!("Key frames cannot be made: {err}")))
    }

    /// Posts an error; the stream ends.
    fn give_up(&self, kind: impl gst::MessageErrorDomain, text: &str) -> gst::FlowError {
        gst::element_imp_error!(self, kind, ("{text}"));
        gst::FlowError::Error
    }

    /// Chain answers `err` from now on.
    fn note_flow(&self, epoch: u64, err: gst::FlowError) {
        let mut unreported = false;
        if let Some(state) = self.state().as_mut() {
            if state.epoch != epoch {
                // Of before a flush that may be over by now.
                return;
            }
            if state.flow.is_ok() {
                state.flow = Err(err);
            }
            unreported =
                state.ending && matches!(err, gst::FlowError::NotLinked | gst::FlowError::NotNegotiated);
            state.mailbox.flush();
        }
        if unreported {
            gst::element_imp_error!(self, gst::StreamError::Failed, ("Output stopped: {err}"));
        }
        gst::debug!(CAT, imp = self, "Pushing failed: {err}");
    }
}

/// Runs a network; a panic inside it is its failure, not ours.
fn guarded<T>(run: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| Err(panic_text(panic.as_ref())))
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "the network panicked".into())
}
