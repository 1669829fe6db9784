//! Runs a pipe: a named thread that opens a pipeline, watches its bus, closes it, and after a failure opens the next
//! one, until it is told to stop.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use gst::prelude::*;
use tokio::sync::watch;

use super::{
    backoff::Backoff,
    bus,
    pipe::{Handle, PipeChange, Shared},
    role::{End, Role},
    transition::Transition,
};

/// How often a pipe looks for what no message tells: silence, stalls, the wish to stop.
const TICK: Duration = Duration::from_millis(50);

/// How long closing may take before it is left to itself. Nothing is opened again before it is through.
const CLOSING: Duration = Duration::from_secs(2);

/// Warnings that are remembered, so that each is logged once.
const WARNINGS: usize = 20;

/// Messages that matter.
const MESSAGES: [gst::MessageType; 7] = [
    gst::MessageType::Error,
    gst::MessageType::Warning,
    gst::MessageType::Eos,
    gst::MessageType::AsyncDone,
    gst::MessageType::SegmentDone,
    gst::MessageType::Element,
    gst::MessageType::Latency,
];

/// Starts the thread that runs a pipe.
///
/// # Errors
/// If no thread can be made.
pub fn start<R: Role>(
    label: String,
    shared: Arc<Shared>,
    role: R,
    backoff: Backoff,
) -> std::io::Result<Handle> {
    let (sender, closed) = watch::channel(None);
    let handle = Handle::new(shared.clone(), closed);
    let runner = Runner { label: label.clone(), shared, role, backoff, warned: Vec::new(), blocked: None };
    thread::Builder::new().name(label).spawn(move || {
        // Nobody may be waiting.
        let _ = sender.send(Some(runner.run()));
    })?;
    Ok(handle)
}

struct Runner<R> {
    /// Of threads, such as `output obs`.
    label: String,
    shared: Arc<Shared>,
    role: R,
    backoff: Backoff,
    /// Warnings that were logged.
    warned: Vec<String>,
    /// The last pipeline, if it did not close in time.
    blocked: Option<Transition>,
}

/// What is known of a pipeline while it is watched.
struct Watched {
    /// Its last state change, or what had to wait for that.
    opening: Transition,
    /// What decoder is missing.
    missing: Option<String>,
    /// Whether an element has said that its latency is another.
    latency_changed: bool,
    /// Since when frames flow.
    flows: Option<Instant>,
    /// Since when it counts as running.
    running: Option<Instant>,
}

impl<R: Role> Runner<R> {
    /// Whether everything is closed.
    fn run(mut self) -> bool {
        loop {
            // Files, ports and devices are free only when the last pipeline is closed.
            self.wait_until_closed(None);
            if self.shared.stop_requested().is_some() {
                return self.blocked.is_none();
            }
            let (end, ran) = self.attempt();
            let pause = match end {
                End::Stop | End::Again => continue,
                End::Over => {
                    self.shared.tell(PipeChange::Eos);
                    Duration::MAX
                }
                End::Retry(change) => {
                    self.shared.tell(change);
                    self.backoff.after(ran)
                }
            };
            self.shared.pause(pause);
            self.shared.restarts.fetch_add(1, Relaxed);
        }
    }

    /// Opens a pipeline and watches it to its end; also tells how long it was running.
    fn attempt(&mut self) -> (End, Duration) {
        let opened = self.role.build().map_err(|error| format!("{error:#}")).and_then(|pipeline| {
            let opening = Transition::start(&self.label, &pipeline, self.role.first_state(), None)
                .map_err(|error| format!("no thread to open it on: {error}"))?;
            Ok((pipeline, opening))
        });
        let (pipeline, opening) = match opened {
            Ok(opened) => opened,
            Err(reason) => return (failed(reason), Duration::ZERO),
        };
        let mut watched =
            Watched { opening, missing: None, latency_changed: false, flows: None, running: None };
        let end = self.watch(&pipeline, &mut watched);
        let ran = watched.running.map_or(Duration::ZERO, |since| since.elapsed());
        if end == End::Stop && self.role.finish(&pipeline) {
            self.drain(&pipeline);
        }
        self.role.closing();
        self.close(&pipeline, watched.opening);
        (end, ran)
    }

    fn watch(&mut self, pipeline: &gst::Pipeline, watched: &mut Watched) -> End {
        let Some(bus) = pipeline.bus() else { return failed("a pipeline without a bus".into()) };
        let settle = self.role.settle(self.shared.state().1.is_some());
        loop {
            if self.shared.stop_requested().is_some() {
                return End::Stop;
            }
            let end = match bus.timed_pop_filtered(clock_time(TICK), &MESSAGES) {
                Some(message) => self.message(pipeline, &message, watched),
                None if watched.opening.poll() == Some(false) => Some(failed("it does not start".into())),
                None => None,
            };
            if watched.running.is_none() && end.is_none() && self.role.is_running(pipeline) {
                let flows = *watched.flows.get_or_insert_with(Instant::now);
                if flows.elapsed() >= settle {
                    watched.running = Some(Instant::now());
                    self.shared.tell(PipeChange::Running);
                }
            }
            if let Some(end) = end.or_else(|| self.role.check(Instant::now())) {
                return end;
            }
            self.spread_latency(pipeline, watched);
        }
    }

    fn message(
        &mut self,
        pipeline: &gst::Pipeline,
        message: &gst::Message,
        watched: &mut Watched,
    ) -> Option<End> {
        use gst::MessageView as M;
        match message.view() {
            // A missing decoder is told before the error that comes of it, and better.
            M::Error(error) => {
                let sentence = bus::sentence(error);
                Some(failed(watched.missing.take().unwrap_or(sentence)))
            }
            M::Warning(warning) => {
                self.warn(bus::warning(warning));
                None
            }
            M::Latency(_) => {
                watched.latency_changed = true;
                None
            }
            M::Element(_) => {
                watched.missing = bus::missing_plugin(message).or(watched.missing.take());
                self.role.message(pipeline, message)
            }
            _ => self.role.message(pipeline, message),
        }
    }

    /// Logs what goes on all the same; the same once.
    fn warn(&mut self, warning: String) {
        if self.warned.len() < WARNINGS && !self.warned.contains(&warning) {
            tracing::warn!("{}: {warning}", self.label);
            self.warned.push(warning);
        }
    }

    /// Lets the sinks know of a changed latency. That waits for state changes under way, which may block.
    fn spread_latency(&self, pipeline: &gst::Pipeline, watched: &mut Watched) {
        if !watched.latency_changed || watched.opening.poll() != Some(true) {
            return;
        }
        watched.latency_changed = false;
        match Transition::latency(&self.label, pipeline) {
            Ok(spreading) => watched.opening = spreading,
            Err(error) => tracing::error!("{}: no thread for its latency: {error}", self.label),
        }
    }

    /// Waits for the end of the stream, so that files are finalised: most of the time there is, for closing wants
    /// some of it too.
    fn drain(&self, pipeline: &gst::Pipeline) {
        let begun = Instant::now();
        let types = [gst::MessageType::Eos, gst::MessageType::Error];
        // The deadline may come nearer meanwhile.
        while let (Some(deadline), Some(bus)) = (self.shared.stop_requested(), pipeline.bus()) {
            let until = begun + deadline.saturating_duration_since(begun) * 4 / 5;
            let left = until.saturating_duration_since(Instant::now());
            match bus.timed_pop_filtered(clock_time(left.min(TICK)), &types) {
                Some(message) if message.type_() == gst::MessageType::Eos => return,
                Some(_) => return tracing::debug!("{}: failed while finishing", self.label),
                None if left.is_zero() => return tracing::warn!("{}: did not finish in time", self.label),
                None => {}
            }
        }
    }

    fn close(&mut self, pipeline: &gst::Pipeline, opening: Transition) {
        match Transition::start(&self.label, pipeline, gst::State::Null, Some(opening)) {
            Ok(closing) => {
                self.blocked = Some(closing);
                self.wait_until_closed(Some(CLOSING));
            }
            Err(error) => tracing::error!("{}: no thread to close it on: {error}", self.label),
        }
    }

    /// Waits for the last pipeline to be closed: up to `limit`, or once a stop is requested up to its deadline.
    fn wait_until_closed(&mut self, limit: Option<Duration>) {
        let begun = Instant::now();
        while let Some(blocked) = &mut self.blocked {
            // At least once.
            let wait = blocked.wait(TICK);
            let late = match self.shared.stop_requested() {
                Some(deadline) => Instant::now() >= deadline,
                None => limit.is_some_and(|limit| begun.elapsed() >= limit),
            };
            if wait.is_some() {
                self.blocked = None;
            } else if late {
                return tracing::debug!("{}: does not close yet", self.label);
            }
        }
    }
}

fn failed(reason: String) -> End {
    End::Retry(PipeChange::Failed(reason))
}

fn clock_time(duration: Duration) -> gst::ClockTime {
    gst::ClockTime::try_from(duration).unwrap_or(gst::ClockTime::MAX)
}
