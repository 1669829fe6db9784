//! The way of poses from the source's thread into the animation: stamped with the daemon's running time, held back
//! while paused. The supervisor only turns valves; no frame waits for it.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use keyframed_engine::Nanos;

use super::{clock::Base, relay::Relay};

/// Cheap to clone.
#[derive(Clone)]
pub struct Feed {
    shared: Arc<Shared>,
}

struct Shared {
    base: Base,
    relay: Relay,
    state: Mutex<State>,
    /// Poses that came from sources, fed or not.
    received: AtomicU64,
}

struct State {
    /// The animation that runs, if any.
    animation: Option<gst_app::AppSrc>,
    /// Format that the animation was told.
    caps: Option<gst::Caps>,
    paused: bool,
    /// Whether the next pose is the first after a gap.
    interrupted: bool,
    /// Running time of the last pose fed.
    last: Nanos,
}

impl Feed {
    /// Leads nowhere yet.
    pub fn new(base: Base, relay: Relay) -> Self {
        let state = State { animation: None, caps: None, paused: false, interrupted: false, last: 0 };
        Self {
            shared: Arc::new(Shared { base, relay, state: Mutex::new(state), received: AtomicU64::new(0) }),
        }
    }

    /// A pose has left its source.
    pub fn pose(&self, sample: &gst::Sample) {
        self.shared.received.fetch_add(1, Relaxed);
        let Some((buffer, caps)) = sample.buffer_owned().zip(sample.caps_owned()) else { return };
        let mut state = self.state();
        if state.paused {
            return;
        }
        let Some(animation) = state.animation.clone() else { return };
        // Never the same time twice: the clock is finer than any source, but not by definition.
        let now = self.shared.base.now().max(state.last + 1);
        if state.caps.as_ref() != Some(&caps) {
            animation.set_caps(Some(&caps));
            state.caps = Some(caps);
        }
        state.last = now;
        if std::mem::take(&mut state.interrupted) {
            self.shared.relay.feed_resumed(now);
        }
        // It only fails while the animation stops or has failed, of which its bus tells.
        let _ = animation.push_buffer(stamped(buffer, now));
    }

    /// Poses go to this animation from now on.
    pub fn connect(&self, animation: Option<gst_app::AppSrc>) {
        let mut state = self.state();
        (state.animation, state.caps) = (animation, None);
    }

    /// No poses come for a while: the source was lost or is being changed.
    pub fn interrupt(&self) {
        self.interrupt_locked(&mut self.state());
    }

    /// While paused, poses are dropped.
    pub fn set_paused(&self, paused: bool) {
        let mut state = self.state();
        state.paused = paused;
        if paused {
            self.interrupt_locked(&mut state);
        }
        self.shared.relay.set_paused(paused);
    }

    /// Poses that came from sources so far.
    pub fn received(&self) -> u64 {
        self.shared.received.load(Relaxed)
    }

    fn interrupt_locked(&self, state: &mut State) {
        state.interrupted = true;
        self.shared.relay.feed_stopped(state.last);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn stamped(mut buffer: gst::Buffer, now: Nanos) -> gst::Buffer {
    let pose = buffer.make_mut();
    pose.set_pts(gst::ClockTime::from_nseconds(now));
    pose.set_dts(gst::ClockTime::NONE);
    pose.set_duration(gst::ClockTime::NONE);
    buffer
}
