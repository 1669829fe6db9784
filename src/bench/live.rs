//! A live run: the test figure at 25 Hz through the whole animation into a synchronised sink.

use std::{
    fmt,
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow, bail};
use gst::prelude::*;
use keyframed_models::Settings;
use serde_json::{Value, json};

use super::{
    Plan,
    minutes::{Minutes, Sample},
};
use crate::daemon::nice;

/// Pose frames and output frames a second.
const RATE: u64 = 25;
/// How long the model may take to load and the stream to settle.
const SETTLING: Duration = Duration::from_secs(120);
/// Lets the output send its next picture while the sink waits until it is time for the last one.
const QUEUE: &str = "queue max-size-buffers=2 max-size-bytes=0 max-size-time=0";
/// What is not measured after the first picture.
const WARM_UP: Duration = Duration::from_secs(5);

/// What the run gave, from the moment it had settled.
#[derive(Debug)]
pub struct Live {
    seconds: f64,
    output: u64,
    late: u64,
    dropped: u64,
    generated: u64,
    replaced: u64,
    made: [(&'static str, u64); 3],
    /// From pose to output, p50, p95 and p99, milliseconds.
    latency_ms: [f64; 3],
    /// Longest time between two pictures at the sink, milliseconds.
    longest_gap_ms: f64,
    /// Memory and late pictures, minute by minute.
    minutes: Minutes,
}

/// Runs it.
///
/// # Errors
/// If the pipeline cannot be built, fails or gives no picture.
pub fn run(plan: &Plan, settings: &Settings) -> anyhow::Result<Live> {
    let pipeline = pipeline(plan, settings)?;
    // As in the daemon: without that another thing would be measured.
    let give_way = nice::tasks_give_way().context("starting the live pipeline")?;
    let bus = pipeline.bus().context("no bus")?;
    bus.set_sync_handler(move |_, message| {
        give_way(message);
        gst::BusSyncReply::Pass
    });
    let result = watch(&pipeline, plan.live);
    let _ = pipeline.set_state(gst::State::Null);
    result
}

fn pipeline(plan: &Plan, settings: &Settings) -> anyhow::Result<gst::Pipeline> {
    let (steps, context) = (settings.steps, settings.context_frames);
    let description = format!(
        "denseposetestsrc is-live=true pattern=dance ! video/x-raw,width=256,height=256,framerate={RATE}/1 ! \
         avataranimate name=animate steps={steps} context-frames={context} ! \
         video/x-raw,framerate={RATE}/1 ! {QUEUE} ! appsink name=out sync=true max-buffers=4 drop=true"
    );
    let pipeline = gst::parse::launch(&description).context("building the live pipeline")?;
    let pipeline = pipeline.downcast::<gst::Pipeline>().map_err(|_| anyhow!("no pipeline"))?;
    let animate = pipeline.by_name("animate").context("no animation")?;
    animate.set_property("model", &plan.model);
    animate.set_property("device", plan.device.to_string());
    animate.set_property_from_str("dtype", &plan.dtype.to_string());
    if let Some(lambda) = plan.lambda {
        animate.set_property("lambda", lambda);
    }
    if let Some(window) = plan.window {
        animate.set_property("window", window);
    }
    if let Some(latency) = plan.latency {
        animate.set_property("latency", u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
    }
    Ok(pipeline)
}

/// Counts of the animation at one moment.
struct Counts {
    generated: u64,
    replaced: u64,
    late: u64,
    dropped: u64,
    made: [u64; 3],
}

const RUNGS: [&str; 3] = ["film", "warp", "crossfade"];

fn counts(animate: &gst::Element) -> Counts {
    let stats = animate.property::<gst::Structure>("stats");
    let part = |name: &str| stats.get::<gst::Structure>(name).ok();
    let (generate, interpolate) = (part("animate"), part("interpolate"));
    let of = |part: &Option<gst::Structure>, name: &str| {
        part.as_ref().and_then(|part| part.get::<u64>(name).ok()).unwrap_or(0)
    };
    Counts {
        generated: of(&generate, "generated"),
        replaced: of(&generate, "dropped"),
        late: of(&interpolate, "late"),
        dropped: of(&interpolate, "dropped") + of(&interpolate, "skipped"),
        made: RUNGS.map(|rung| of(&interpolate, rung)),
    }
}

fn watch(pipeline: &gst::Pipeline, length: Duration) -> anyhow::Result<Live> {
    let sink = pipeline.by_name("out").and_downcast::<gst_app::AppSink>().context("no sink")?;
    let animate = pipeline.by_name("animate").context("no animation")?;
    pipeline.set_state(gst::State::Playing).context("starting the live pipeline")?;
    next(pipeline, &sink, SETTLING)?;
    let settled = Instant::now();
    while settled.elapsed() < WARM_UP {
        next(pipeline, &sink, SETTLING)?;
    }
    let before = counts(&animate);
    let (started, mut minutes) = (Instant::now(), Minutes::default());
    minutes.push(sample(&animate, &before, 0.0, 0));
    let (mut output, mut last, mut longest) = (0, Instant::now(), Duration::ZERO);
    while started.elapsed() < length {
        next(pipeline, &sink, SETTLING)?;
        output += 1;
        longest = longest.max(last.elapsed());
        last = Instant::now();
        let seconds = started.elapsed().as_secs_f64();
        if minutes.is_due(seconds) {
            minutes.push(sample(&animate, &before, seconds, output));
        }
    }
    // The last full minute ends with the run: no rest of a few milliseconds.
    if started.elapsed().as_secs_f64() - minutes.end().seconds > 1.0 {
        minutes.push(sample(&animate, &before, started.elapsed().as_secs_f64(), output));
    }
    let after = counts(&animate);
    let made = [0, 1, 2].map(|i| (RUNGS[i], after.made[i] - before.made[i]));
    Ok(Live {
        seconds: started.elapsed().as_secs_f64(),
        output,
        late: after.late - before.late,
        dropped: after.dropped - before.dropped,
        generated: after.generated - before.generated,
        replaced: after.replaced - before.replaced,
        made,
        latency_ms: latency(&animate),
        longest_gap_ms: longest.as_secs_f64() * 1e3,
        minutes,
    })
}

/// Where the run stands, counted from `before`.
fn sample(animate: &gst::Element, before: &Counts, seconds: f64, output: u64) -> Sample {
    let now = counts(animate);
    Sample {
        seconds,
        output,
        late: now.late - before.late,
        dropped: now.dropped - before.dropped,
        resident: crate::memory::resident_bytes().unwrap_or(0),
        files: crate::memory::open_files().unwrap_or(0),
        threads: crate::memory::threads().unwrap_or(0),
        p99_ms: latency(animate)[2],
    }
}

/// The next picture at the sink.
fn next(pipeline: &gst::Pipeline, sink: &gst_app::AppSink, patience: Duration) -> anyhow::Result<()> {
    let bus = pipeline.bus().context("no bus")?;
    let patience = gst::ClockTime::try_from(patience).unwrap_or(gst::ClockTime::MAX);
    let sample = sink.try_pull_sample(patience);
    while let Some(message) = bus.pop() {
        match message.view() {
            gst::MessageView::Error(error) => bail!("the live pipeline failed: {}", error.error()),
            gst::MessageView::Latency(_) => {
                let _ = pipeline.recalculate_latency();
            }
            _ => {}
        }
    }
    sample.map(drop).context("no picture comes out of the live pipeline")
}

/// From pose to output over the last 1,024 pictures, milliseconds.
fn latency(animate: &gst::Element) -> [f64; 3] {
    let stats = animate.property::<gst::Structure>("stats");
    let interpolate = stats.get::<gst::Structure>("interpolate").ok();
    ["latency-p50", "latency-p95", "latency-p99"].map(|name| {
        let nanos = interpolate.as_ref().and_then(|part| part.get::<u64>(name).ok()).unwrap_or(0);
        nanos as f64 / 1e6
    })
}

impl Live {
    /// For programs.
    pub fn json(&self) -> Value {
        let made: serde_json::Map<_, _> =
            self.made.iter().map(|(rung, n)| ((*rung).to_owned(), json!(n))).collect();
        let mut report = json!({
            "seconds": self.seconds,
            "output_frames": self.output,
            "output_fps": self.output as f64 / self.seconds,
            "late": self.late,
            "dropped": self.dropped,
            "key_frames": self.generated,
            "key_frames_per_s": self.generated as f64 / self.seconds,
            "key_poses_replaced": self.replaced,
            "in_betweens": made,
            "latency_ms": { "p50": self.latency_ms[0], "p95": self.latency_ms[1], "p99": self.latency_ms[2] },
            "longest_gap_ms": self.longest_gap_ms,
        });
        if let (Value::Object(report), Value::Object(minutes)) = (&mut report, self.minutes.json()) {
            report.extend(minutes);
        }
        report
    }
}

impl fmt::Display for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seconds, output, late, dropped, generated, replaced, .. } = self;
        let (fps, keys) = (*output as f64 / seconds, *generated as f64 / seconds);
        writeln!(f, "\nlive for {seconds:.0} s, a dance of {RATE} pose frames a second")?;
        writeln!(f, "  {fps:.2} pictures a second ({late} late, {dropped} left out)")?;
        writeln!(f, "  {keys:.1} key frames a second ({replaced} key poses replaced by newer ones)")?;
        let made: Vec<String> = self.made.iter().map(|(rung, n)| format!("{n} {rung}")).collect();
        writeln!(f, "  in-betweens: {}", made.join(", "))?;
        let [p50, p95, p99] = self.latency_ms;
        writeln!(f, "  from pose to picture: {p50:.0} ms (p95 {p95:.0}, p99 {p99:.0})")?;
        writeln!(f, "  longest time between two pictures: {:.0} ms", self.longest_gap_ms)?;
        write!(f, "{}", self.minutes)
    }
}
