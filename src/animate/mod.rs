//! The main job: a DensePose clip and a picture in, a video out.
//!
//! [`input`] looks at what was given, [`pipeline`] builds, [`run`] waits for the end while [`watch`] counts,
//! [`report`] and [`sheet`] tell what came of it.

mod input;
mod output;
mod pipeline;
mod report;
mod run;
mod sheet;
mod watch;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use keyframed_engine::{Rate, SECOND};
use keyframed_models::{DeviceChoice, ModelDir, stack::check_prompt};

pub use self::input::avatars;
use self::{
    input::Clip,
    output::{Container, Partial, check_target},
    pipeline::{Plan, Stages},
    report::Report,
    run::End,
    watch::Watch,
};

/// One run, as the user asked for it.
#[derive(Debug)]
pub struct Job {
    /// Picture to animate.
    pub reference: PathBuf,
    /// Clip that drives it.
    pub driving: PathBuf,
    /// Video to write.
    pub output: PathBuf,
    /// Report to write.
    pub report: Option<PathBuf>,
    /// Contact sheet to write.
    pub sheet: Option<PathBuf>,
    /// Everything else.
    pub options: Options,
}

/// What may be left out: the elements or the clip have a default.
#[derive(Debug, Default)]
pub struct Options {
    /// Output frames a second.
    pub fps: Option<Rate>,
    /// Denoising steps.
    pub steps: Option<u32>,
    /// Guidance scale.
    pub guidance_scale: Option<f64>,
    /// What the text encoder reads.
    pub prompt: Option<String>,
    /// λ.
    pub lambda: Option<f64>,
    /// W, in pose frames.
    pub window: Option<u32>,
    /// Model directory or name.
    pub model: Option<String>,
    /// Seed of the noise.
    pub seed: Option<u64>,
    /// Output width and height in pixels.
    pub size: Option<(u32, u32)>,
    /// Where the networks run.
    pub device: Option<DeviceChoice>,
}

/// How a run ended that wrote a video; the text is for the user.
#[derive(Debug)]
pub enum Outcome {
    /// The whole clip was animated.
    Complete(String),
    /// The user stopped it; the video holds what was done until then.
    Interrupted(String),
}

/// Name of the model that is used unless another is chosen.
pub const EMBEDDED_MODEL: &str = "mini";

/// Rate of clips that state none.
const FALLBACK_FPS: u32 = 25;

/// Carries out the job.
///
/// # Errors
/// One sentence for the user. A video is left only if it can be played, which the sentence then says.
pub fn run(job: &Job) -> anyhow::Result<Outcome> {
    let container = check_targets(job)?;
    let model = job.options.model.as_deref().unwrap_or(EMBEDDED_MODEL);
    let model = ModelDir::find(model).map_err(|error| anyhow!("the model cannot be used: {error}"))?;
    check_prompt(&model, job.options.prompt.as_deref().unwrap_or_default())?;
    let reference = input::find_reference(&job.reference, &model)?;
    let clip = Clip::probe(&job.driving)?;
    let rate = output_rate(job.options.fps, &clip)?;
    let partial = Partial::create(&job.output)?;
    let plan = Plan {
        clip: &clip,
        model: &model,
        reference: &reference,
        output: partial.path(),
        container,
        rate,
        options: &job.options,
    };
    let stages = Stages::build(&plan)?;
    let watch = Watch::attach(&stages, job.sheet.is_some());

    let shown = job.output.display();
    let finished =
        run::to_end(&stages, &watch, &clip, rate).with_context(|| format!("{shown} was not made"))?;
    let mut report = Report::new(job, &clip, rate, &stages, &watch, &finished);
    drop(stages);
    if report.output.frames == 0 {
        bail!("{} holds no frame: nothing was written", clip.path.display());
    }
    report.output.bytes = partial.keep()?;
    write_extras(job, &watch, &report)?;

    if let Some(message) = run::truncation(&clip, &watch, &finished) {
        bail!("{message}; {shown} holds what was made of it");
    }
    let summary = report.summary(job);
    Ok(match finished.end {
        End::Finished => Outcome::Complete(summary),
        End::Interrupted => Outcome::Interrupted(summary),
    })
}

/// Refuses what could not be written at the end of the run before it begins.
fn check_targets(job: &Job) -> anyhow::Result<Container> {
    let inputs: [&Path; 2] = [&job.reference, &job.driving];
    for target in [Some(&job.output), job.report.as_ref(), job.sheet.as_ref()].into_iter().flatten() {
        check_target(target, &inputs)?;
    }
    Container::of(&job.output)
}

fn output_rate(asked: Option<Rate>, clip: &Clip) -> anyhow::Result<Rate> {
    match asked.or(clip.rate) {
        Some(rate) => Ok(rate),
        None => {
            tracing::warn!(
                "the clip states no frame rate: writing {FALLBACK_FPS} a second (--fps chooses another)"
            );
            Ok(Rate::new(FALLBACK_FPS, 1)?)
        }
    }
}

fn write_extras(job: &Job, watch: &Watch, report: &Report) -> anyhow::Result<()> {
    if let Some((path, sampler)) = job.sheet.as_ref().zip(watch.take_sampler()) {
        sampler.save(path).context("the contact sheet")?;
    }
    if let Some(path) = &job.report {
        report.save(path).context("the report")?;
    }
    Ok(())
}

/// Nanoseconds as seconds, for people and JSON.
fn seconds(nanos: u64) -> f64 {
    nanos as f64 / SECOND as f64
}
