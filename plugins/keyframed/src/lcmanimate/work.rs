//! The task on the source pad: takes key frames that the maker has begun, finishes them and sends them.
use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

use gst::{prelude::*, subclass::prelude::*};
use keyframed_engine::Frame;

use super::{
    imp::{CAT, LcmAnimate},
    job::{Begun, Job, Taken},
};
use crate::{load, models::describe, video::write_frame};

/// Failures in a row after which a live stream is given up.
const MOST_FAILURES: u64 = 8;

impl LcmAnimate {
    pub(super) fn start_task(&self) -> Result<(), gst::LoggableError> {
        let this = self.downgrade();
        let turn = move || {
            if let Some(this) = this.upgrade() {
                this.catch_panic(|| this.break_off(), Self::run_task);
            }
        };
        self.srcpad.start_task(turn).map_err(|err| gst::loggable_error!(CAT, "Cannot start the task: {err}"))
    }

    /// One turn of the task.
    fn run_task(&self) {
        let slot = self.state().as_ref().map(|state| state.slot.clone());
        let Some(job) = slot.and_then(|slot| slot.recv()) else {
            gst::debug!(CAT, imp = self, "No more work");
            let _ = self.srcpad.pause_task();
            return;
        };
        let epoch = job.item.epoch;
        if let Err(err) = self.send(job.item) {
            self.note_flow(epoch, err);
        }
    }

    /// After a panic, which is on the bus: nobody must wait for this task or the maker any more.
    pub(super) fn break_off(&self) {
        let _ = self.srcpad.pause_task();
        if let Some(state) = self.state().as_mut() {
            if state.flow.is_ok() {
                state.flow = Err(gst::FlowError::Error);
            }
            state.mailbox.close();
            state.slot.close();
        }
        self.push_over();
    }

    fn send(&self, job: Job<Begun>) -> Result<(), gst::FlowError> {
        let epoch = job.epoch;
        for event in job.before {
            self.push_event(epoch, event);
        }
        if let Some(begun) = job.work {
            self.finish(epoch, begun)?;
        }
        for event in job.after {
            self.push_event(epoch, event);
        }
        Ok(())
    }

    /// Whether a flush came after `epoch`, or pushing is of no use any more.
    pub(super) fn is_stale(&self, epoch: u64) -> bool {
        self.state().as_ref().is_none_or(|state| state.is_stale(epoch))
    }

    fn push_event(&self, epoch: u64, event: gst::Event) {
        use gst::EventType as T;
        if let gst::EventView::Caps(caps) = event.view()
            && let Some(state) = self.state().as_mut()
        {
            state.out_info = gst_video::VideoInfo::from_caps(caps.caps()).ok();
        }
        let bound = matches!(event.type_(), T::Segment | T::Eos | T::Gap);
        self.pushing(|state| bound && state.epoch != epoch, || self.srcpad.push_event(event));
    }

    /// Makes the second half of a key frame and sends it.
    fn finish(&self, epoch: u64, begun: Begun) -> Result<(), gst::FlowError> {
        if self.is_stale(epoch) {
            return Ok(());
        }
        let Begun { half, pose: Taken { buffer, since, disturbs, costs }, took } = begun;
        let started = Instant::now();
        let made = half.and_then(|half| guarded(|| half.finish().map_err(|err| describe(&err))));
        let halves = [took, started.elapsed()];
        gst::trace!(CAT, imp = self, "Generated in {halves:?}");
        if let Some(state) = self.state().as_mut() {
            state.counts.busy += halves[1];
            if disturbs {
                state.latency.disturb();
            }
        }
        match made {
            Ok(frame) => {
                self.count_frame(since, halves, costs)?;
                self.push_frame(epoch, &buffer, &frame)
            }
            Err(err) => self.note_failure(&err, costs),
        }
    }

    /// Counts a key frame, and tells what its times change.
    fn count_frame(&self, since: Instant, halves: [Duration; 2], costs: u64) -> Result<(), gst::FlowError> {
        let (latency, sustained) = {
            let mut guard = self.state();
            let state = guard.as_mut().ok_or(gst::FlowError::Flushing)?;
            state.counts.generated += 1;
            (state.counts.last, state.counts.failed_running) = (halves[0] + halves[1], 0);
            let changed = state.live && state.latency.observe(since, Instant::now());
            // Halves of different key frames are made at the same time: the longer one bounds the rate.
            let longer = u64::try_from(halves[0].max(halves[1]).as_nanos()).unwrap_or(u64::MAX);
            let sustained = state.sustain(costs, longer);
            (changed.then_some(state.latency.declared), sustained)
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
        Ok(())
    }

    fn push_frame(&self, epoch: u64, pose: &gst::BufferRef, frame: &Frame) -> Result<(), gst::FlowError> {
        let info = self.state().as_ref().and_then(|state| state.out_info.clone());
        let info = info.ok_or(gst::FlowError::NotNegotiated)?;
        let mut buffer = write_frame(frame, &info).map_err(|err| {
            self.give_up(gst::ResourceError::Write, &format!("Cannot write a key frame: {err}"))
        })?;
        let flags = gst::BufferCopyFlags::FLAGS | gst::BufferCopyFlags::TIMESTAMPS;
        if let Err(err) = pose.copy_into(buffer.make_mut(), flags, ..) {
            gst::warning!(CAT, imp = self, "Timestamps lost: {err}");
        }
        let push = || {
            gst::trace!(CAT, imp = self, "Outgoing {buffer:?}");
            self.srcpad.push(buffer).map(|_| ())
        };
        self.pushing(|state| state.is_stale(epoch), push).unwrap_or(Ok(()))
    }

    /// A live stream goes on without a key frame or two; any other must be complete. `costs` is by which settings it
    /// failed.
    fn note_failure(&self, err: &str, costs: u64) -> Result<(), gst::FlowError> {
        let (live, running) = match self.state().as_mut() {
            Some(state) => {
                state.counts.failed += 1;
                state.counts.failed_running += 1;
                (state.live, state.counts.failed_running)
            }
            None => return Err(gst::FlowError::Flushing),
        };
        if live && running < MOST_FAILURES {
            if is_out_of_memory(err) && self.ask_for_less(err, costs) {
                return Ok(());
            }
            if running == 1 {
                gst::element_imp_warning!(self, gst::StreamError::Failed, ("A key frame failed: {err}"));
            }
            return Ok(());
        }
        Err(self.give_up(gst::StreamError::Failed, &format!("Key frames cannot be made: {err}")))
    }

    /// Takes settings that need less memory: half of the context, in the end none, then no guidance. Whether something
    /// was left to take away; key frames that failed by the same settings take it once.
    fn ask_for_less(&self, err: &str, costs: u64) -> bool {
        let defaults = match self.state().as_mut() {
            Some(state) if state.lessened == Some(costs) => return true,
            Some(state) => state.model.defaults(),
            None => return false,
        };
        let mut less = None;
        self.change_settings(|settings| {
            less = settings.tuning.less(&defaults);
            if let Some(less) = &less {
                settings.tuning = less.clone();
            }
        });
        let Some(less) = less else { return false };
        if let Some(state) = self.state().as_mut() {
            state.lessened = Some(costs);
        }
        gst::warning!(CAT, imp = self, "Out of memory, going on with less: {err}");
        let structure = gst::Structure::builder("keyframed-memory")
            .field("context-frames", less.context_frames.unwrap_or(0))
            .field("guidance-scale", less.guidance_scale.unwrap_or(1.0))
            .field("reason", err)
            .build();
        let message = gst::message::Element::builder(structure).src(&*self.obj()).build();
        let _ = self.obj().post_message(message);
        true
    }

    /// Posts an error; the stream ends.
    pub(super) fn give_up(&self, kind: impl gst::MessageErrorDomain, text: &str) -> gst::FlowError {
        gst::element_imp_error!(self, kind, ("{text}"));
        gst::FlowError::Error
    }

    /// Chain answers `err` from now on.
    pub(super) fn note_flow(&self, epoch: u64, err: gst::FlowError) {
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
pub(super) fn guarded<T>(run: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| Err(panic_text(panic.as_ref())))
}

/// Whether libtorch says so, of a GPU's memory or of the machine's.
fn is_out_of_memory(err: &str) -> bool {
    ["out of memory", "can't allocate memory"].iter().any(|words| err.contains(words))
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "the network panicked".into())
}
