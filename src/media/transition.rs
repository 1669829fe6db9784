//! State changes that may block, such as opening a fifo that nobody reads or joining a thread that hangs in a
//! connect(): each on a thread of its own, waited for only so long.

use std::{
    io,
    sync::mpsc::{Receiver, RecvTimeoutError, sync_channel},
    thread,
    time::Duration,
};

use gst::prelude::*;

/// A state change under way.
#[derive(Debug)]
pub struct Transition {
    done: Receiver<bool>,
    result: Option<bool>,
}

impl Transition {
    /// Begins to bring `pipeline` to `state`, after the transition `before` is over.
    ///
    /// # Errors
    /// If no thread can be made.
    pub fn start(
        name: &str,
        pipeline: &gst::Pipeline,
        state: gst::State,
        mut before: Option<Self>,
    ) -> io::Result<Self> {
        let (sender, done) = sync_channel(1);
        let pipeline = pipeline.clone();
        thread::Builder::new().name(format!("{name} {state:?}")).spawn(move || {
            if let Some(before) = &mut before {
                before.wait(Duration::MAX);
            }
            let ok = pipeline.set_state(state).is_ok();
            // The pipeline goes first: who hears that it is closed may count on its files and ports being free.
            drop(pipeline);
            // Nobody may be waiting any more.
            let _ = sender.send(ok);
        })?;
        Ok(Self { done, result: None })
    }

    /// Whether it went well, once it is over.
    pub fn poll(&mut self) -> Option<bool> {
        self.wait(Duration::ZERO)
    }

    /// As [`poll`](Self::poll), after waiting for it up to `limit`.
    pub fn wait(&mut self, limit: Duration) -> Option<bool> {
        if self.result.is_none() {
            self.result = match self.done.recv_timeout(limit) {
                Ok(ok) => Some(ok),
                // The thread panicked, so the state change is over as well.
                Err(RecvTimeoutError::Disconnected) => Some(false),
                Err(RecvTimeoutError::Timeout) => None,
            };
        }
        self.result
    }
}
