//! Runs the pipeline to its end: errors, interruption, progress.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow};
use gst::prelude::*;
use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use keyframed_engine::{Nanos, Rate};

use super::{input::Clip, pipeline::Stages, report::Settings, seconds, watch::Watch};

/// How often progress is shown and interruption noticed.
const TICK: gst::ClockTime = gst::ClockTime::from_mseconds(100);

/// A run that has written its video.
#[derive(Debug)]
pub struct Finished {
    /// Why it ended.
    pub end: End,
    /// Time to the first output frame: loading the model, mostly.
    pub to_first_frame: Option<Duration>,
    /// Time of the whole run.
    pub total: Duration,
    /// What the elements counted.
    pub stats: Stats,
}

/// Figures that elements forget when they stop.
#[derive(Debug, Default)]
pub struct Stats {
    /// Output frames between key frames.
    pub interpolated: u64,
    /// Output frames that show a key frame again.
    pub repeated: u64,
    /// Nanoseconds that stages 1, 2 and 3 were at work.
    pub busy: [Option<Nanos>; 3],
    /// Settings in force.
    pub settings: Settings,
}

impl Stats {
    fn read(stages: &Stages) -> Self {
        Self {
            interpolated: stat(&stages.interpolate, "interpolated").unwrap_or(0),
            repeated: stat(&stages.interpolate, "repeated").unwrap_or(0),
            busy: [&stages.select, &stages.animate, &stages.interpolate]
                .map(|element| stat(element, "busy-time")),
            settings: Settings::read(stages),
        }
    }
}

/// A number from an element's `stats`.
fn stat(element: &gst::Element, name: &str) -> Option<u64> {
    if !element.has_property("stats") {
        return None;
    }
    element.property::<Option<gst::Structure>>("stats")?.get(name).ok()
}

/// Why a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The clip was over.
    Finished,
    /// SIGINT or SIGTERM came.
    Interrupted,
}

/// Plays the pipeline until its end of stream and stops it.
///
/// # Errors
/// The first error that an element reported.
pub fn to_end(stages: &Stages, watch: &Watch, clip: &Clip, rate: Rate) -> anyhow::Result<Finished> {
    let interrupted = interruption()?;
    let progress = Progress::new(clip, rate);
    let started = Instant::now();
    let mut finished =
        Finished { end: End::Finished, to_first_frame: None, total: Duration::ZERO, stats: Stats::default() };
    let result = play(stages, watch, &interrupted, &progress, &mut finished.end);
    progress.bar.finish_and_clear();
    finished.stats = Stats::read(stages);
    // Also after an error: threads end and the file is closed.
    let stopped = stages.pipeline.set_state(gst::State::Null);
    finished.total = started.elapsed();
    finished.to_first_frame = watch.first_output().map(|first| first.duration_since(started));
    result?;
    stopped.context("the pipeline does not stop")?;
    Ok(finished)
}

fn play(
    stages: &Stages,
    watch: &Watch,
    interrupted: &AtomicBool,
    progress: &Progress,
    end: &mut End,
) -> anyhow::Result<()> {
    let bus = stages.pipeline.bus().context("the pipeline has no bus")?;
    if stages.pipeline.set_state(gst::State::Playing).is_err() {
        // The reason lies on the bus.
        let reason = bus.pop_filtered(&[gst::MessageType::Error]).map(|message| failure(&message));
        return Err(reason.unwrap_or_else(|| anyhow!("the pipeline does not start")));
    }
    loop {
        match bus.timed_pop_filtered(TICK, &[gst::MessageType::Error, gst::MessageType::Eos]) {
            Some(message) if message.type_() == gst::MessageType::Eos => return Ok(()),
            Some(message) => return Err(failure(&message)),
            None => {}
        }
        progress.show(watch);
        if interrupted.load(Relaxed) && *end == End::Finished {
            *end = End::Interrupted;
            // What is under way is finished and the file closed properly.
            stages.pipeline.send_event(gst::event::Eos::new());
        }
    }
}

/// An error message as one sentence; GStreamer's own details go to the log.
fn failure(message: &gst::Message) -> anyhow::Error {
    let gst::MessageView::Error(message) = message.view() else { return anyhow!("unknown failure") };
    let error = message.error();
    let source = message.src().map(|src| src.name().to_string()).unwrap_or_default();
    tracing::debug!("{source}: {error}: {}", message.debug().unwrap_or_default());
    if error.matches(gst::ResourceError::NoSpaceLeft) {
        return anyhow!("no space is left on the disk");
    }
    // Ours are whole sentences; others' make sense with the element's name.
    let ours = message.src().and_then(|src| src.downcast_ref::<gst::Element>()?.factory());
    match ours.and_then(|factory| factory.plugin()) {
        Some(plugin) if plugin.plugin_name() == "keyframed" => anyhow!("{}", error.message()),
        _ => anyhow!("{} ({source})", error.message().trim_end_matches('.')),
    }
}

/// A flag that SIGINT and SIGTERM set; a second one ends the program at once.
fn interruption() -> anyhow::Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // The order matters: the first signal must not find the flag set by itself.
        signal_hook::flag::register_conditional_shutdown(signal, 130, flag.clone()).context("signals")?;
        signal_hook::flag::register(signal, flag.clone()).context("signals")?;
    }
    Ok(flag)
}

/// Says that the container promised more than could be decoded, if so.
pub fn truncation(clip: &Clip, watch: &Watch, finished: &Finished) -> Option<String> {
    let promised = clip.duration.filter(|_| finished.end == End::Finished)?;
    let got = watch.input_duration();
    // Sound may outlast the pictures a little, and the last frame's duration is a guess.
    let slack = (promised / 50).max(Nanos::from(gst::ClockTime::from_mseconds(500)));
    (got + slack < promised).then(|| {
        let shown = clip.path.display();
        format!(
            "{shown} is cut short: it promises {:.2} s and ends after {:.2} s",
            seconds(promised),
            seconds(got)
        )
    })
}

/// A bar with rate and time left, on terminals only.
struct Progress {
    bar: ProgressBar,
}

impl Progress {
    fn new(clip: &Clip, rate: Rate) -> Self {
        let bar = match clip.duration {
            Some(duration) => ProgressBar::new(rate.count(duration)).with_style(style(
                "{elapsed_precise} [{bar:36}] {pos}/{len} frames, {rate}, {eta} left; {msg}",
            )),
            None => {
                ProgressBar::new_spinner().with_style(style("{elapsed_precise} {pos} frames, {rate}; {msg}"))
            }
        };
        bar.set_message("loading the model");
        Self { bar }
    }

    fn show(&self, watch: &Watch) {
        let frames = watch.output.load(Relaxed);
        self.bar.set_position(frames);
        if frames > 0 {
            self.bar.set_message(format!("{} key frames", watch.generated.load(Relaxed)));
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    style.with_key("rate", |state: &ProgressState, text: &mut dyn fmt::Write| {
        // A terminal that cannot be written to is no reason to stop.
        let _ = write!(text, "{:.1} a second", state.per_sec());
    })
}
