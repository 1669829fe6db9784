//! The maker: a thread that takes key poses and makes the first halves of their key frames, while the source pad's
//! task finishes the key frame before.
use std::{
    io,
    sync::Arc,
    thread::{self, Builder, JoinHandle},
    time::{Duration, Instant},
};

use gst::subclass::prelude::*;
use keyframed_engine::Mailbox;

use super::{
    imp::{CAT, LcmAnimate},
    job::{Begun, Job, Pose},
    state::Worker,
    work::guarded,
};
use crate::{
    models::{Animator, Tuning, describe},
    params, priority,
};

/// How much the thread gives way to the output.
const GIVES_WAY: i32 = 5;

/// Properties that the event `keyframed-params` sets.
pub(super) const PARAMS: [&str; 5] = ["steps", "guidance-scale", "lora-scale", "context-frames", "seed"];

/// The running thread. Its end comes when the mailbox and the slot are closed; dropping this waits for it, since a
/// process must not exit while one is inside libtorch.
pub struct Maker(Option<JoinHandle<()>>);

impl Maker {
    /// Starts it. It owns the networks, and takes from `mailbox` whenever no key frame waits in `slot`: so the key
    /// pose that it takes is the newest, and no more than two key frames are under way.
    pub fn start(
        element: &LcmAnimate,
        mut worker: Worker,
        mailbox: Arc<Mailbox<Job<Pose>>>,
        slot: Arc<Mailbox<Job<Begun>>>,
    ) -> io::Result<Self> {
        let element = element.downgrade();
        let run = move || {
            priority::give_way(GIVES_WAY);
            while slot.await_room(|job| job.work.is_none()).is_ok()
                && let Some(job) = mailbox.recv()
                && let Some(element) = element.upgrade()
            {
                let make = |element: &LcmAnimate| element.make(&mut worker, job.item, &slot);
                element.catch_panic(|| element.break_off(), make);
            }
        };
        Builder::new().name("lcm-make".into()).spawn(run).map(|thread| Self(Some(thread)))
    }
}

impl Drop for Maker {
    fn drop(&mut self) {
        // Whoever hears of an error may stop the element on this very thread.
        let other = self.0.take().filter(|thread| thread.thread().id() != thread::current().id());
        if let Some(Err(_)) = other.map(JoinHandle::join) {
            // Its panic has been reported where it happened.
        }
    }
}

impl LcmAnimate {
    fn make(&self, worker: &mut Worker, job: Job<Pose>, slot: &Mailbox<Job<Begun>>) {
        let epoch = job.epoch;
        for event in job.before {
            self.pass(slot, epoch, event);
        }
        if let Some(pose) = job.work {
            match self.begin(worker, epoch, pose) {
                // A slot that is closed needs nothing any more.
                Ok(Some(begun)) => _ = Job::offer(slot, epoch, begun, 0),
                Ok(None) => {}
                Err(err) => return self.note_flow(epoch, err),
            }
        }
        for event in job.after {
            self.pass(slot, epoch, event);
        }
    }

    /// Takes what an event has for this element, in its place, and passes it on.
    fn pass(&self, slot: &Mailbox<Job<Begun>>, epoch: u64, event: gst::Event) {
        params::take(&*self.obj(), &event, &PARAMS, |values| self.set_params(values));
        Job::offer_event(slot, epoch, event, |event| self.joins(event));
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

    /// Makes the first half of the key frame of a key pose, unless it is of no use any more.
    fn begin(&self, worker: &mut Worker, epoch: u64, pose: Pose) -> Result<Option<Begun>, gst::FlowError> {
        self.await_model(worker, epoch)?;
        if self.is_stale(epoch) {
            return Ok(None);
        }
        let tuning = self.settings().tuning;
        let Worker { animator: Some(animator), epoch: last, tuned, costs, .. } = worker else {
            return Ok(None);
        };
        if self.tune(animator.as_mut(), &tuning)
            && tuned.replace(tuning).is_some_and(|old| !old.costs_as(&tuning))
        {
            // The key frame that is being finished is of the settings before: what is told upstream changes with the
            // first that is not.
            *costs += 1;
        }
        let disturbs = self.refresh(animator.as_mut())?;
        if std::mem::replace(last, epoch) != epoch {
            animator.reset();
        }
        let Pose { frame, buffer, time, since } = pose;
        let started = Instant::now();
        let half = guarded(|| animator.begin(&frame, time).map_err(|err| describe(&err)));
        let took = started.elapsed();
        gst::trace!(CAT, imp = self, "First half made in {took:?}");
        if let Some(state) = self.state().as_mut() {
            state.counts.busy += took;
        }
        Ok(Some(Begun { half, buffer, since, took, disturbs, costs: *costs }))
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

    /// Brings the generator up to date with the properties, if it can take them.
    fn tune(&self, animator: &mut dyn Animator, tuning: &Tuning) -> bool {
        let tuned = guarded(|| animator.tune(tuning));
        if let Err(err) = &tuned {
            gst::element_imp_warning!(self, gst::LibraryError::Settings, ("Settings not used: {err}"));
        }
        tuned.is_ok()
    }

    /// Gives the generator the new reference, if there is one; whether it has taken it. Only the first must succeed.
    fn refresh(&self, animator: &mut dyn Animator) -> Result<bool, gst::FlowError> {
        let next = self.state().as_mut().and_then(|state| state.next_reference.take());
        let Some((picture, path)) = next else { return Ok(false) };
        let set = guarded(|| animator.set_reference(&picture).map_err(|err| describe(&err)));
        let mut guard = self.state();
        let first = guard.as_ref().is_none_or(|state| state.reference.is_none());
        match set {
            Ok(()) => {
                gst::info!(CAT, imp = self, "Reference is {}", path.display());
                if let Some(state) = guard.as_mut() {
                    state.reference = Some(path);
                }
                Ok(true)
            }
            Err(err) => {
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
                Ok(false)
            }
        }
    }
}
