//! Several key poses at once, each at another denoising step: the stream batch of StreamDiffusion
//! (`cumulo-autumn/StreamDiffusion`, `src/streamdiffusion/pipeline.py`).
//!
//! Each call takes a new key pose as the row for the first step, runs one batch through the networks, every row at
//! its own timestep with its own reference bank, and finishes the row that has made all steps. A key frame comes
//! out `steps - 1` calls after its pose went in; on a device that is not busy with one frame, more come out.

use super::{LcmGenerator, Settings, failed, picture, picture_of};
use crate::{
    checkpoint::ModelDir,
    error::{ModelError, Result},
    reference::ProjectedBank,
    stack,
    unet::UNetConfig,
};
use keyframed_engine::{Frame, Nanos, Unfinished};
use std::{collections::VecDeque, fmt, str::FromStr};
use tch::Tensor;

/// In which order denoising steps are made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Schedule {
    /// All steps of a key frame, then the next key frame: the least delay.
    #[default]
    Sequential,
    /// The steps of successive key frames as one batch: the most key frames a second.
    Pipelined,
}

impl FromStr for Schedule {
    type Err = ModelError;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "sequential" => Ok(Self::Sequential),
            "pipelined" => Ok(Self::Pipelined),
            other => Err(ModelError::Config(format!(
                "schedule `{other}` is not known: there are sequential and pipelined"
            ))),
        }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sequential => "sequential",
            Self::Pipelined => "pipelined",
        })
    }
}

/// A key frame that has made all its steps.
#[derive(Debug, Clone, PartialEq)]
pub struct Made {
    /// The picture.
    pub frame: Frame,
    /// Of its pose.
    pub pts: Nanos,
}

/// A key pose on its way.
struct Row {
    /// `[1, c, 1, h, w]`, float32.
    latents: Tensor,
    /// `[1, c, h, w]`.
    embedded: Tensor,
    /// Steps made.
    step: usize,
    pts: Nanos,
}

/// An [`LcmGenerator`] that makes the steps of several key frames as one batch.
///
/// The rows are samples of a batch, so frames must not see each other: see [`PipelinedGenerator::new`].
pub struct PipelinedGenerator {
    generator: LcmGenerator,
    /// Oldest first.
    rows: VecDeque<Row>,
    /// The timesteps `[steps]`, where the networks are.
    timesteps: Tensor,
    /// The reference for rows at these steps, joined; kept because they are the same for every full batch.
    bank: Option<(Vec<usize>, ProjectedBank)>,
}

impl PipelinedGenerator {
    /// Takes over a generator, which forgets its context.
    ///
    /// # Errors
    /// [`ModelError::Config`] if key frames see earlier ones: those are not finished when the next begins.
    pub fn new(mut generator: LcmGenerator) -> Result<Self> {
        fits(generator.stack.couples_frames(), generator.settings())?;
        generator.context.clear();
        let timesteps = timesteps(&generator);
        Ok(Self { generator, rows: VecDeque::new(), timesteps, bank: None })
    }

    /// Whether a model takes part with these settings, as [`PipelinedGenerator::new`] says once it is loaded.
    ///
    /// # Errors
    /// [`ModelError::Config`] if key frames see earlier ones, or what is wrong with the model's description.
    pub fn check(model: &ModelDir, settings: &Settings) -> Result<()> {
        let config: UNetConfig = model.network("unet", &model.manifest().networks.unet)?;
        fits(stack::couples_frames(&config), settings)
    }

    /// The generator, for its settings and sizes.
    pub fn generator(&self) -> &LcmGenerator {
        &self.generator
    }

    /// Key poses on their way.
    pub fn pending(&self) -> usize {
        self.rows.len()
    }

    /// Sets the picture to animate.
    ///
    /// # Errors
    /// [`ModelError::Config`] while key frames are on their way, or what is wrong with the picture.
    pub fn set_reference(&mut self, reference: &Frame) -> Result<()> {
        self.must_be_empty("the reference")?;
        self.bank = None;
        self.generator.refer(reference)
    }

    /// Changes settings.
    ///
    /// # Errors
    /// [`ModelError::Config`] while key frames are on their way, or what is wrong with the settings; the old ones
    /// then stay in force.
    pub fn set(&mut self, settings: Settings) -> Result<()> {
        fits(self.generator.stack.couples_frames(), &settings)?;
        self.must_be_empty("settings")?;
        self.generator.set(settings)?;
        self.bank = None;
        self.timesteps = timesteps(&self.generator);
        Ok(())
    }

    fn must_be_empty(&self, what: &str) -> Result<()> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let count = self.rows.len();
        Err(ModelError::Config(format!("{what} cannot change while {count} key frames are on their way")))
    }

    /// Takes a key pose, and makes one step of all that are on their way.
    ///
    /// # Errors
    /// [`ModelError`]; all key frames that were on their way are lost then.
    pub fn push(&mut self, pose: &Frame, pts: Nanos) -> Result<Option<Made>> {
        self.take(pose, pts)?.map(|row| self.made(&row)).transpose()
    }

    /// As [`PipelinedGenerator::push`]; the picture is left to be made, by whichever thread.
    ///
    /// # Errors
    /// As [`PipelinedGenerator::push`].
    pub fn begin(&mut self, pose: &Frame, pts: Nanos) -> Result<Option<Unfinished>> {
        Ok(self.take(pose, pts)?.map(|row| self.unfinished(row)))
    }

    /// The next key frame of those on their way, without a new pose; none if there is none.
    ///
    /// # Errors
    /// As [`PipelinedGenerator::push`].
    pub fn finish(&mut self) -> Result<Option<Made>> {
        self.next()?.map(|row| self.made(&row)).transpose()
    }

    /// As [`PipelinedGenerator::finish`]; the picture is left to be made, by whichever thread.
    ///
    /// # Errors
    /// As [`PipelinedGenerator::push`].
    pub fn begin_rest(&mut self) -> Result<Option<Unfinished>> {
        Ok(self.next()?.map(|row| self.unfinished(row)))
    }

    /// Forgets what is on its way.
    pub fn reset(&mut self) {
        self.rows.clear();
    }

    /// A new row, one step of all, and the one that is through.
    fn take(&mut self, pose: &Frame, pts: Nanos) -> Result<Option<Row>> {
        let _running = self.generator.place.enter();
        // Put back only if nothing fails: rows that have made different parts of a step are of no use.
        let mut rows = std::mem::take(&mut self.rows);
        rows.push_back(self.row(pose, pts)?);
        let done = self.advance(&mut rows)?;
        self.rows = rows;
        Ok(done)
    }

    /// As many steps of all as the oldest still lacks.
    fn next(&mut self) -> Result<Option<Row>> {
        let _running = self.generator.place.enter();
        let mut rows = std::mem::take(&mut self.rows);
        while !rows.is_empty() {
            if let Some(done) = self.advance(&mut rows)? {
                self.rows = rows;
                return Ok(Some(done));
            }
        }
        Ok(None)
    }

    fn made(&self, row: &Row) -> Result<Made> {
        let own = &self.generator;
        Ok(Made { frame: picture_of(&own.stack.vae, own.place, &row.latents)?, pts: row.pts })
    }

    fn unfinished(&self, row: Row) -> Unfinished {
        let (vae, place) = (self.generator.stack.vae.clone(), self.generator.place.beside());
        Unfinished::new(move || picture_of(&vae, place, &row.latents).map_err(failed))
    }

    fn row(&self, pose: &Frame, pts: Nanos) -> Result<Row> {
        let own = &self.generator;
        let manifest = own.model.manifest();
        let pose = picture::pose(pose, manifest.pose, manifest.image, own.place.device)?;
        let embedded = own.stack.controlnet.embed_condition(&pose)?;
        let latents = &own.noise[0] * own.scheduler.init_noise_sigma();
        Ok(Row { latents, embedded, step: 0, pts })
    }

    /// One step of every row, and the one that is through.
    fn advance(&mut self, rows: &mut VecDeque<Row>) -> Result<Option<Row>> {
        let answers = self.answers(rows)?;
        let own = &self.generator;
        for (i, row) in rows.iter_mut().enumerate() {
            let (answer, noise) = (answers.narrow(0, i as i64, 1), own.noise.get(row.step + 1));
            row.latents = own.scheduler.step(&answer, row.step, &row.latents, noise)?.prev;
            row.step += 1;
        }
        let steps = own.scheduler.timesteps().len();
        Ok(rows.pop_front_if(|row| row.step == steps))
    }

    /// The U-Net's guided answers for all rows, `[rows, c, 1, h, w]` in float32.
    fn answers(&mut self, rows: &VecDeque<Row>) -> Result<Tensor> {
        let steps: Vec<usize> = rows.iter().map(|row| row.step).collect();
        if self.bank.as_ref().is_none_or(|(of, _)| *of != steps) {
            self.bank = Some((steps.clone(), self.joined_bank(&steps)?));
        }
        let Some((_, bank)) = &self.bank else {
            return Err(ModelError::Input("no reference bank".into()));
        };
        let own = &self.generator;
        let latents: Vec<&Tensor> = rows.iter().map(|row| &row.latents).collect();
        let embedded: Vec<&Tensor> = rows.iter().map(|row| &row.embedded).collect();
        let t: Vec<Tensor> = steps.iter().map(|&step| self.timesteps.narrow(0, step as i64, 1)).collect();
        let (latents, embedded, t) =
            (Tensor::cat(&latents, 0), Tensor::cat(&embedded, 0), Tensor::cat(&t, 0));
        own.stack.rows(&latents, &t, &embedded, bank, own.settings.guidance_scale)
    }

    fn joined_bank(&self, steps: &[usize]) -> Result<ProjectedBank> {
        let missing = || ModelError::Input("no reference was set".into());
        let reference = self.generator.reference.as_ref().ok_or_else(missing)?;
        let banks: Vec<_> = steps.iter().filter_map(|&step| reference.banks.get(step)).collect();
        ProjectedBank::joined(&banks)
    }
}

fn timesteps(generator: &LcmGenerator) -> Tensor {
    Tensor::from_slice(generator.scheduler.timesteps()).to_device(generator.place.device)
}

fn fits(couples_frames: bool, settings: &Settings) -> Result<()> {
    if !couples_frames || settings.context_frames == 0 {
        return Ok(());
    }
    let context = settings.context_frames;
    Err(ModelError::Config(format!(
        "schedule pipelined runs key frames side by side, and this model's see {context} earlier ones: set \
         context_frames to 0 or schedule to sequential"
    )))
}
