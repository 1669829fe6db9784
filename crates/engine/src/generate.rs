//! Stage 2 as the engine sees it: what a key-frame generator is, and the single slot in front of it.

#[cfg(not(loom))]
use std::sync::{Condvar, Mutex, MutexGuard};
use std::{fmt, sync::PoisonError};

// Every order in which threads can come to the lock is tried by tests/loom.rs.
#[cfg(loom)]
use loom::sync::{Condvar, Mutex, MutexGuard};

use crate::{
    error::GenerateError,
    frame::{Frame, Nanos},
};

/// Turns key poses into key frames of the reference. Called from one thread at a time, in time order.
///
/// A key frame is made in two halves, so that another thread can finish one while the next is begun.
pub trait KeyframeGenerator: Send {
    /// Sets the still picture whose identity and background are animated. Costs as much as several key frames;
    /// key frames after it show the new reference.
    ///
    /// # Errors
    /// [`GenerateError`]; the old reference, if any, stays in force.
    fn set_reference(&mut self, reference: &Frame) -> Result<(), GenerateError>;

    /// The first half of the key frame for the key pose at `pts`: everything that later key frames, the reference and
    /// settings have to do with.
    ///
    /// # Errors
    /// [`GenerateError::NoReference`] before the first reference, else why it failed; the next call may succeed.
    fn begin(&mut self, pose: &Frame, pts: Nanos) -> Result<Unfinished, GenerateError>;

    /// The key frame for the key pose at `pts`, both halves.
    ///
    /// # Errors
    /// Those of [`begin`](Self::begin) and [`Unfinished::finish`].
    fn generate(&mut self, pose: &Frame, pts: Nanos) -> Result<Frame, GenerateError> {
        self.begin(pose, pts)?.finish()
    }

    /// Forgets the key frames so far (temporal context), as after a flush; the reference stays.
    fn reset(&mut self);
}

/// A key frame whose first half is made. When, on which thread and in which order key frames are finished, or whether
/// at all, changes none of them, and neither does what happens to the generator meanwhile.
pub struct Unfinished(Box<dyn FnOnce() -> Result<Frame, GenerateError> + Send>);

impl Unfinished {
    /// The key frame that `finish` makes.
    pub fn new(finish: impl FnOnce() -> Result<Frame, GenerateError> + Send + 'static) -> Self {
        Self(Box::new(finish))
    }

    /// Makes the second half.
    ///
    /// # Errors
    /// Why it failed; other key frames may succeed.
    pub fn finish(self) -> Result<Frame, GenerateError> {
        (self.0)()
    }
}

impl fmt::Debug for Unfinished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Unfinished")
    }
}

/// What happens when an item comes while one is waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Live: the newer item takes the waiting one's place.
    Replace,
    /// Offline: the sender waits until the slot is free, nothing is lost.
    Block,
}

/// Why an item could not be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The mailbox is closed.
    #[error("the mailbox is closed")]
    Closed,
    /// The mailbox was flushed while the sender waited.
    #[error("the mailbox was flushed")]
    Flushed,
}

/// An item and the time it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting<T> {
    /// The `now` given to [`Mailbox::send`].
    pub since: Nanos,
    /// What was sent.
    pub item: T,
}

impl<T> Waiting<T> {
    /// How long it has waited at `now`.
    pub fn age(&self, now: Nanos) -> Nanos {
        now.saturating_sub(self.since)
    }
}

/// One slot between a sender and a worker. At most one item ever waits, so lag cannot build up.
///
/// Reads no clock: ages come from the times passed in. All methods take `&self`; share it in an `Arc`.
pub struct Mailbox<T> {
    /// Held for a few instructions at a time, never while waiting or while an item is worked on.
    state: Mutex<State<T>>,
    /// Signalled when `state` changes in any way: both sides wait here.
    changed: Condvar,
}

struct State<T> {
    policy: Policy,
    waiting: Option<Waiting<T>>,
    closed: bool,
    /// Number of flushes: a blocked sender that sees it change was flushed.
    flushes: u64,
    /// Items replaced by newer ones or flushed away.
    dropped: u64,
}

impl<T> Mailbox<T> {
    /// An empty mailbox.
    pub fn new(policy: Policy) -> Self {
        let state = State { policy, waiting: None, closed: false, flushes: 0, dropped: 0 };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Puts `item` into the slot at time `now`. Returns the item it replaced, if it did.
    ///
    /// # Errors
    /// [`SendError::Closed`] after [`close`](Self::close), [`SendError::Flushed`] if flushed while waiting for the
    /// slot; `item` is dropped.
    pub fn send(&self, item: T, now: Nanos) -> Result<Option<T>, SendError> {
        let mut state = self.lock();
        let flushes = state.flushes;
        while state.policy == Policy::Block && state.waiting.is_some() && !state.closed {
            state = self.wait(state);
            if state.flushes != flushes {
                return Err(SendError::Flushed);
            }
        }
        if state.closed {
            return Err(SendError::Closed);
        }
        let replaced = state.waiting.replace(Waiting { since: now, item });
        state.dropped += u64::from(replaced.is_some());
        self.changed.notify_all();
        Ok(replaced.map(|w| w.item))
    }

    /// Waits until nothing waits in the slot, or only an item that `joins` accepts: for a sender that wants to make
    /// its next item, from what is newest then, only when there is room for it.
    ///
    /// # Errors
    /// [`SendError::Closed`] after [`close`](Self::close).
    pub fn await_room(&self, joins: impl Fn(&T) -> bool) -> Result<(), SendError> {
        let mut state = self.lock();
        while !state.closed && state.waiting.as_ref().is_some_and(|w| !joins(&w.item)) {
            state = self.wait(state);
        }
        if state.closed { Err(SendError::Closed) } else { Ok(()) }
    }

    /// Waits for an item and takes it. `None` once the mailbox is closed and empty.
    pub fn recv(&self) -> Option<Waiting<T>> {
        let mut state = self.lock();
        while state.waiting.is_none() && !state.closed {
            state = self.wait(state);
        }
        let item = state.waiting.take();
        self.changed.notify_all();
        item
    }

    /// Takes the waiting item, if any, without waiting.
    pub fn try_recv(&self) -> Option<Waiting<T>> {
        let item = self.lock().waiting.take();
        self.changed.notify_all();
        item
    }

    /// Changes the waiting item in place, for news that belongs to it (such as how long its picture is held).
    /// Returns whether there was one.
    pub fn amend(&self, change: impl FnOnce(&mut T)) -> bool {
        let mut state = self.lock();
        match &mut state.waiting {
            Some(waiting) => {
                change(&mut waiting.item);
                self.changed.notify_all();
                true
            }
            None => false,
        }
    }

    /// How long the waiting item has waited at `now`, or `None` if the slot is empty.
    pub fn age(&self, now: Nanos) -> Option<Nanos> {
        self.lock().waiting.as_ref().map(|w| w.age(now))
    }

    /// Drops the waiting item and sends blocked senders away with [`SendError::Flushed`]. Returns the item.
    /// A receiver goes on waiting.
    pub fn flush(&self) -> Option<T> {
        let mut state = self.lock();
        state.flushes += 1;
        let dropped = state.waiting.take();
        state.dropped += u64::from(dropped.is_some());
        self.changed.notify_all();
        dropped.map(|w| w.item)
    }

    /// No more items: senders get [`SendError::Closed`], the receiver gets what still waits and then `None`.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Switches between live and offline; a blocked sender follows at once.
    pub fn set_policy(&self, policy: Policy) {
        self.lock().policy = policy;
        self.changed.notify_all();
    }

    /// Items replaced by newer ones or flushed away since the start.
    pub fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    /// No code that can panic runs under the lock but the closures of `amend` and `await_room`, after which the state is
    /// still sound.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State<T>>) -> MutexGuard<'a, State<T>> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }
}
