//! State changes, and other calls that may block, such as opening a fifo that nobody reads or joining a thread that
//! hangs in a connect(): each on a thread of its own, waited for only so long.

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
        let pipeline = pipeline.clone();
        Self::run(format!("{name} {state:?}"), move || {
            if let Some(before) = &mut before {
                before.wait(Duration::MAX);
            }
            pipeline.set_state(state).is_ok()
        })
    }

    /// Begins to ask the elements of `pipeline` for their latency anew, and to tell the sum to its sinks.
    ///
    /// # Errors
    /// If no thread can be made.
    pub fn latency(name: &str, pipeline: &gst::Pipeline) -> io::Result<Self> {
        let pipeline = pipeline.clone();
        Self::run(format!("{name} latency"), move || {
            if let Err(error) = pipeline.recalculate_latency() {
                tracing::debug!("{}: {error}", pipeline.name());
            }
            // It plays on with what it had.
            true
        })
    }

    /// Begins to send `event` to `elements`.
    ///
    /// # Errors
    /// If no thread can be made.
    pub fn send(name: &str, elements: Vec<gst::Element>, event: gst::Event) -> io::Result<Self> {
        Self::run(format!("{name} {:?}", event.type_()), move || {
            elements.iter().all(|element| element.send_event(event.clone()))
        })
    }

    fn run(name: String, change: impl FnOnce() -> bool + Send + 'static) -> io::Result<Self> {
        let (sender, done) = sync_channel(1);
        thread::Builder::new().name(name).spawn(move || {
            // What it held is gone by now: who hears that a pipeline is closed may count on its files and ports being
            // free.
            let ok = change();
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
