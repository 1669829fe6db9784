//! The maker: a thread that takes key poses and makes the first halves of their key frames, while the source pad's
//! task finishes the key frame before.
use std::{
    io,
    sync::Arc,
    thread::{self, Builder, JoinHandle},
    time::{Duration, Instant},
};

use gst::subclass::prelude::*;
use keyframed_engine::{Mailbox, Unfinished};

use super::{
    imp::{CAT, LcmAnimate},
    job::{Begun, Job, Pose, Taken},
    state::Worker,
    work::guarded,
};
use crate::{
    fault,
    models::{Animator, describe},
    params, priority,
};

/// How much the thread gives way to the output.
const GIVES_WAY: i32 = 5;

/// Properties that the event `keyframed-params` sets.
pub(super) const PARAMS: [&str; 6] =
    ["steps", "guidance-scale", "lora-scale", "prompt", "context-frames", "seed"];

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
        if std::mem::replace(&mut worker.epoch, epoch) != epoch {
            self.forget(worker);
        }
        for event in job.before {
            self.pass(worker, slot, epoch, event);
        }
        if let Some(pose) = job.work
            && let Err(err) = self.begin(worker, slot, epoch, pose)
        {
            return self.note_flow(epoch, err);
        }
        for event in job.after {
            self.pass(worker, slot, epoch, event);
        }
    }

    /// Takes what an event has for this element, in its place, and passes it on. All that was before it comes out
    /// first: it may end the stream, change settings or say that nothing comes for a while.
    fn pass(&self, worker: &mut Worker, slot: &Mailbox<Job<Begun>>, epoch: u64, event: gst::Event) {
        self.drain(worker, slot, epoch);
        params::take(&*self.obj(), &event, &PARAMS, |values| self.set_params(values));
        Job::offer_event(slot, epoch, event, |event| self.joins(event));
    }

    /// Brings all key frames that are on their way out, or gives them up if they are of no use any more.
    fn drain(&self, worker: &mut Worker, slot: &Mailbox<Job<Begun>>, epoch: u64) {
        while !worker.taken.is_empty() {
            if self.is_stale(epoch) {
                return self.forget(worker);
            }
            self.advance(worker, slot, epoch, |animator| match animator.begin_rest() {
                Ok(None) => Err("a key frame that was on its way is gone".into()),
                other => other.map_err(|err| describe(&err)),
            });
        }
    }

    fn forget(&self, worker: &mut Worker) {
        let lost = worker.forget();
        if let Some(state) = self.state().as_mut() {
            state.counts.dropped += lost;
        }
    }

    /// Lets the networks work once, and passes on the key frame that comes out. If that fails, all that were on their
    /// way are lost, and each is told.
    fn advance(
        &self,
        worker: &mut Worker,
        slot: &Mailbox<Job<Begun>>,
        epoch: u64,
        work: impl FnOnce(&mut dyn Animator) -> Result<Option<Unfinished>, String>,
    ) {
        let Some(animator) = &mut worker.animator else { return };
        let started = Instant::now();
        let half = guarded(|| fault::strike().and_then(|()| work(animator.as_mut())));
        let took = started.elapsed();
        gst::trace!(CAT, imp = self, "First half made in {took:?}");
        if let Some(state) = self.state().as_mut() {
            state.counts.busy += took;
        }
        // A slot that is closed or was flushed needs nothing any more.
        match half {
            Ok(None) => {}
            Ok(Some(half)) => {
                if let Some(pose) = worker.taken.pop_front() {
                    let _ = Job::offer(slot, epoch, Begun { half: Ok(half), pose, took }, 0);
                }
            }
            Err(err) => {
                for pose in std::mem::take(&mut worker.taken) {
                    let _ = Job::offer(slot, epoch, Begun { half: Err(err.clone()), pose, took }, 0);
                }
            }
        }
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

    /// Hands a key pose to the networks, unless it is of no use any more.
    fn begin(
        &self,
        worker: &mut Worker,
        slot: &Mailbox<Job<Begun>>,
        epoch: u64,
        pose: Pose,
    ) -> Result<(), gst::FlowError> {
        self.await_model(worker, epoch)?;
        if self.is_stale(epoch) || worker.animator.is_none() {
            return Ok(());
        }
        let disturbs = self.refresh(worker, slot, epoch)?;
        let Pose { frame, buffer, time, since } = pose;
        let costs = worker.costs;
        worker.taken.push_back(Taken { buffer, since, disturbs, costs });
        self.advance(worker, slot, epoch, |animator| {
            animator.begin(&frame, time).map_err(|err| describe(&err))
        });
        Ok(())
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

    /// Brings the generator up to date with the properties, once all key frames of before are out; whether it has a
    /// new reference. Only the first reference must succeed.
    fn refresh(
        &self,
        worker: &mut Worker,
        slot: &Mailbox<Job<Begun>>,
        epoch: u64,
    ) -> Result<bool, gst::FlowError> {
        let tuning = self.settings().tuning;
        let next = self.state().as_mut().and_then(|state| state.next_reference.take());
        let tuned = worker.tuning.as_ref() == Some(&tuning);
        if !tuned || next.is_some() {
            self.drain(worker, slot, epoch);
        }
        let Some(animator) = &mut worker.animator else { return Ok(false) };
        if !tuned {
            let old = worker.tuning.replace(tuning.clone());
            match guarded(|| animator.tune(&tuning)) {
                // What is told upstream changes with the first key frame that is made by them.
                Ok(()) => worker.costs += u64::from(old.is_some_and(|old| !old.costs_as(&tuning))),
                Err(err) => {
                    gst::element_imp_warning!(
                        self,
                        gst::LibraryError::Settings,
                        ("Settings not used: {err}")
                    );
                }
            }
        }
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
