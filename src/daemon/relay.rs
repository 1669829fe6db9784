//! The relay: a thread of its own that gives every output one frame a tick, by the rules of the engine.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{Builder, JoinHandle},
    time::Duration,
};

use anyhow::Context as _;
use keyframed_control::types;
use keyframed_engine::{
    Nanos, RelayConfig, SECOND,
    relay::{Content, Emission, Poll, Relay as Rules, Showing},
};
use tokio::sync::watch;

use super::clock::Base;
use crate::config::resolved::Video;

/// How far behind missed ticks are still made up for: more than a busy machine makes a thread wait.
const CATCH_UP: Nanos = 2 * SECOND;

/// Takes a frame, and the running time of the pose that it shows, if it shows one; never blocks.
pub type Outlet = Arc<dyn Fn(&gst::Buffer, Option<gst::ClockTime>) + Send + Sync>;

/// What the relay has done so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    /// Frames sent.
    pub frames: u64,
    /// Of those, ones that repeat a picture, and slates.
    pub repeated: u64,
    /// Of those, ones that left a tick or more late.
    pub late: u64,
    /// Ticks given up.
    pub skipped: u64,
    /// Pictures that were not taken because they show no pose.
    pub stale: u64,
}

/// The newest frame that was sent.
#[derive(Debug, Clone)]
pub struct Shot {
    /// Its pixels: RGB.
    pub buffer: gst::Buffer,
    /// Their size.
    pub video: Video,
    /// What it shows.
    pub showing: types::Showing,
}

/// A picture on its way through the relay.
#[derive(Debug, Clone)]
struct Picture(gst::Buffer);

/// A frame on its way to the outlets.
struct Frame {
    buffer: gst::Buffer,
    pose: Option<gst::ClockTime>,
    showing: types::Showing,
}

/// Behind the lock, which is held for moments only: never while a frame is made or handed on.
struct State {
    rules: Rules<Picture>,
    video: Video,
    slate: gst::Buffer,
    outlets: Vec<(String, Outlet)>,
    counts: Counts,
    newest: Option<Shot>,
    /// Set once, to end the thread.
    ended: bool,
}

/// The relay as others see it; cheap to clone.
#[derive(Clone)]
pub struct Relay {
    shared: Arc<Shared>,
}

struct Shared {
    base: Base,
    state: Mutex<State>,
    /// Signalled when the thread should look again before the time it waits for.
    changed: Condvar,
    /// What is on show; `None` before the first frame.
    showing: watch::Sender<Option<types::Showing>>,
}

/// Ends the thread when dropped.
pub struct Running {
    relay: Relay,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    /// Starts the thread; frames leave from now on.
    ///
    /// # Errors
    /// If there can be no more threads.
    pub fn start(
        base: Base,
        video: Video,
        slate: gst::Buffer,
        slate_after: Duration,
    ) -> anyhow::Result<(Self, Running)> {
        let state = State {
            rules: Rules::new(rules(video, slate_after), base.now()),
            video,
            slate,
            outlets: Vec::new(),
            counts: Counts::default(),
            newest: None,
            ended: false,
        };
        let shared = Shared {
            base,
            state: Mutex::new(state),
            changed: Condvar::new(),
            showing: watch::Sender::new(None),
        };
        let relay = Self { shared: Arc::new(shared) };
        let thread = Builder::new().name("relay".into()).spawn({
            let relay = relay.clone();
            move || relay.run()
        });
        let thread = Some(thread.context("the relay's thread cannot be started")?);
        Ok((relay.clone(), Running { relay, thread }))
    }

    /// A picture of the animation, made for this canvas; its timestamp is the running time of the pose it shows.
    pub fn picture(&self, buffer: gst::Buffer, video: Video) {
        let shows = buffer.pts().map_or(0, gst::ClockTime::nseconds);
        self.change(|state, now| {
            if state.video != video {
                return;
            }
            let live = state.rules.picture(now, shows, Picture(buffer));
            state.counts.stale += u64::from(!live);
        });
    }

    /// No more poses reach the animation; the last was at `from`.
    pub fn feed_stopped(&self, from: Nanos) {
        self.change(|state, _| state.rules.feed_stopped(from));
    }

    /// Poses reach the animation again.
    pub fn feed_resumed(&self, to: Nanos) {
        self.change(|state, _| state.rules.feed_resumed(to));
    }

    /// While paused, what is shown stays.
    pub fn set_paused(&self, paused: bool) {
        self.change(|state, now| state.rules.set_paused(now, paused));
    }

    /// Another slate, unless the canvas has become another meanwhile.
    pub fn set_slate(&self, slate: gst::Buffer, video: Video) {
        self.change(|state, _| {
            if state.video == video {
                state.slate = slate;
            }
        });
    }

    /// Changes how long the last picture is held before the slate is shown.
    pub fn set_slate_after(&self, after: Duration) {
        self.change(|state, _| state.rules.set_slate_after(nanos(after)));
    }

    /// Another canvas: the grid starts anew, and nothing of before is shown any more.
    pub fn set_video(&self, video: Video, slate: gst::Buffer, slate_after: Duration) {
        self.change(|state, now| {
            state.rules = Rules::new(rules(video, slate_after), now);
            (state.video, state.slate, state.newest) = (video, slate, None);
        });
        self.shared.showing.send_replace(Some(types::Showing::Slate));
    }

    /// Frames go to this outlet, too, from the next tick on; instead of the one that had the name.
    pub fn attach(&self, name: &str, outlet: Outlet) {
        self.change(|state, _| {
            state.outlets.retain(|(other, _)| other != name);
            state.outlets.push((name.to_owned(), outlet));
        });
    }

    /// No more frames go to this outlet; one may be under way.
    pub fn detach(&self, name: &str) {
        self.change(|state, _| state.outlets.retain(|(other, _)| other != name));
    }

    /// What it has done so far.
    pub fn counts(&self) -> Counts {
        self.state().counts
    }

    /// The newest frame sent.
    pub fn newest(&self) -> Option<Shot> {
        self.state().newest.clone()
    }

    /// To be told when something else is shown; `None` before the first frame.
    pub fn showing(&self) -> watch::Receiver<Option<types::Showing>> {
        self.shared.showing.subscribe()
    }

    // Nothing that runs under the lock leaves it half changed.
    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut State, Nanos) -> T) -> T {
        let now = self.shared.base.now();
        let result = change(&mut self.state(), now);
        self.shared.changed.notify_one();
        result
    }

    fn run(&self) {
        while let Some((frame, outlets)) = self.next() {
            for (_, outlet) in &outlets {
                outlet(&frame.buffer, frame.pose);
            }
            let showing = frame.showing;
            self.shared.showing.send_if_modified(|shown| shown.replace(showing) != Some(showing));
        }
    }

    /// Waits for the next frame; `None` at the end.
    fn next(&self) -> Option<(Frame, Vec<(String, Outlet)>)> {
        let mut state = self.state();
        loop {
            if state.ended {
                return None;
            }
            let now = self.shared.base.now();
            match state.rules.poll(now) {
                Poll::Emit(emission) => {
                    return Some((state.emit(emission), state.outlets.clone()));
                }
                Poll::Wait(until) => {
                    let wait = Duration::from_nanos(until.saturating_sub(now));
                    let waited = self.shared.changed.wait_timeout(state, wait);
                    state = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        }
    }
}

impl State {
    /// The frame to send: pixels are shared, only the times are its own.
    fn emit(&mut self, emission: Emission<Picture>) -> Frame {
        let showing = wire(emission.showing);
        let is_new = matches!(emission.content, Content::New(_));
        let (mut buffer, pose) = match emission.content {
            Content::New(Picture(buffer)) | Content::Again(Picture(buffer)) => {
                let pose = buffer.pts();
                (buffer, pose)
            }
            Content::Slate => (self.slate.clone(), None),
        };
        self.counts.frames += 1;
        self.counts.repeated += u64::from(!is_new);
        self.counts.late += u64::from(emission.late);
        self.counts.skipped += emission.skipped;
        let stamps = buffer.make_mut();
        stamps.set_pts(gst::ClockTime::from_nseconds(emission.pts));
        stamps.set_duration(gst::ClockTime::from_nseconds(emission.duration));
        stamps.set_dts(gst::ClockTime::NONE);
        self.newest = Some(Shot { buffer: buffer.clone(), video: self.video, showing });
        Frame { buffer, pose, showing }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.relay.change(|state, _| state.ended = true);
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            // Its panic has been reported where it happened.
        }
    }
}

fn rules(video: Video, slate_after: Duration) -> RelayConfig {
    RelayConfig { rate: video.rate, slate_after: nanos(slate_after), catch_up: CATCH_UP }
}

fn nanos(time: Duration) -> Nanos {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn wire(showing: Showing) -> types::Showing {
    match showing {
        Showing::Live => types::Showing::Live,
        Showing::Held => types::Showing::Held,
        Showing::Slate => types::Showing::Slate,
    }
}

#[cfg(test)]
mod tests;
