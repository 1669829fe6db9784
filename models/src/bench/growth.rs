//! How a key frame's cost grows with the picture's size, the steps and the context.

use super::{Cost, Timer, picture, resized, with_random_motion};
use crate::{
    checkpoint::{ImageSize, ModelDir},
    device::Placement,
    error::{ModelError, Result},
    generator::{ContextMode, LcmGenerator, Settings},
    unet::UNetConfig,
};
use keyframed_engine::{GenerateError, KeyframeGenerator};
use std::{path::Path, time::Duration};

/// What is varied, one at a time.
#[derive(Debug, Clone)]
pub struct Ranges {
    /// Sides of square pictures.
    pub sides: Vec<u32>,
    /// Denoising steps.
    pub steps: Vec<usize>,
    /// Lengths of the context, in both modes; those beyond what the motion modules take are left out.
    pub context: Vec<usize>,
    /// Least runs of each point.
    pub runs: usize,
    /// Least time for each point.
    pub each: Duration,
}

impl Default for Ranges {
    fn default() -> Self {
        Self {
            sides: vec![128, 192, 256, 384, 512],
            steps: vec![1, 2, 4, 8, 25],
            context: vec![0, 1, 3, 7, 15],
            runs: 7,
            each: Duration::from_secs(1),
        }
    }
}

/// A key frame under one setting.
#[derive(Debug, Clone)]
pub struct Point {
    /// Size of the picture.
    pub image: ImageSize,
    /// Denoising steps.
    pub steps: usize,
    /// Key frames that it sees, if the model's frames see each other.
    pub context_frames: usize,
    /// How it sees them.
    pub context_mode: ContextMode,
    /// A key frame, from pose picture to picture.
    pub cost: Cost,
    /// Bytes of the context ring, full.
    pub context_bytes: usize,
}

/// What [`growth`] found.
#[derive(Debug, Clone)]
pub struct Growth {
    /// Against the picture's size.
    pub sizes: Vec<Point>,
    /// Against the steps.
    pub steps: Vec<Point>,
    /// Against the context's length, cached.
    pub cached: Vec<Point>,
    /// The same, computed again for each key frame.
    pub recomputed: Vec<Point>,
    /// The model has no motion modules: the contexts were measured on random ones.
    pub random_motion: bool,
    /// Threads of one operation.
    pub threads: usize,
    /// Whether products are made in bfloat16.
    pub reduced: bool,
}

/// Times a key frame of `model` over the `ranges`, everything that is not varied as `settings` say. `told` hears what is
/// measured next. The model directory stays as it is: variants are made in a temporary folder, and for the context,
/// where the model has no motion modules, with [random ones](with_random_motion).
///
/// # Errors
/// Whatever is wrong with the model, the settings or the device, or a size that the model cannot make.
pub fn growth(
    model: &ModelDir,
    settings: &Settings,
    placement: Placement,
    ranges: &Ranges,
    mut told: impl FnMut(&str),
) -> Result<Growth> {
    let folder = tempfile::Builder::new().prefix("keyframed-bench-").tempdir();
    let folder = folder.map_err(|source| ModelError::Io { file: std::env::temp_dir(), source })?;
    let config: UNetConfig = model.network("unet", &model.manifest().networks.unet)?;
    let place = placement.resolve(config.block_out_channels.iter().copied().min().unwrap_or(0))?;
    let timer = Timer { each: ranges.each, least: ranges.runs, device: place.device };
    let mut bench = Bench { timer, placement, told: &mut told };
    let sizes = bench.sizes(model, settings, &ranges.sides, folder.path())?;
    let mut plain = bench.generator(model, settings)?;
    let steps = ranges.steps.iter().map(|&steps| {
        (bench.told)(&format!("{steps} steps"));
        bench.point(&mut plain, &Settings { steps, ..settings.clone() })
    });
    let steps = steps.collect::<Result<_>>()?;
    drop(plain);
    let random_motion = !config.use_motion_module;
    let motion = match random_motion {
        true => &with_random_motion(model, 0, &folder.path().join("motion"))?,
        false => model,
    };
    let [cached, recomputed] = bench.contexts(motion, settings, &ranges.context)?;
    let (threads, reduced) = (place.threads(), place.is_reduced());
    Ok(Growth { sizes, steps, cached, recomputed, random_motion, threads, reduced })
}

struct Bench<'a> {
    timer: Timer,
    placement: Placement,
    told: &'a mut dyn FnMut(&str),
}

impl Bench<'_> {
    fn sizes(
        &mut self,
        model: &ModelDir,
        settings: &Settings,
        sides: &[u32],
        folder: &Path,
    ) -> Result<Vec<Point>> {
        let one = |&side: &u32| {
            (self.told)(&format!("{side}x{side} pixels"));
            let image = ImageSize { width: side, height: side };
            let model = resized(model, image, &folder.join(side.to_string()))?;
            let mut generator = self.generator(&model, settings)?;
            self.point(&mut generator, settings)
        };
        sides.iter().map(one).collect()
    }

    /// Cached, then computed again.
    fn contexts(
        &mut self,
        model: &ModelDir,
        settings: &Settings,
        lengths: &[usize],
    ) -> Result<[Vec<Point>; 2]> {
        let config: UNetConfig = model.network("unet", &model.manifest().networks.unet)?;
        let fits = |length: &&usize| config.max_frames().is_none_or(|most| (**length as i64) < most);
        let mut generator = self.generator(model, &Settings { context_frames: 0, ..settings.clone() })?;
        let mut each = |context_mode| {
            let one = |&context_frames: &usize| {
                (self.told)(&format!("{context_frames} context frames, {}", mode_name(context_mode)));
                self.point(&mut generator, &Settings { context_frames, context_mode, ..settings.clone() })
            };
            lengths.iter().filter(fits).map(one).collect::<Result<Vec<_>>>()
        };
        Ok([each(ContextMode::Cache)?, each(ContextMode::Recompute)?])
    }

    fn generator(&self, model: &ModelDir, settings: &Settings) -> Result<LcmGenerator> {
        let mut generator = LcmGenerator::new(model, settings.clone(), self.placement)?;
        let (width, height) = generator.size();
        generator.set_reference(&picture(width, height, 0)?).map_err(failed)?;
        Ok(generator)
    }

    fn point(&self, generator: &mut LcmGenerator, settings: &Settings) -> Result<Point> {
        let (width, height) = generator.size();
        fill(generator, settings)?;
        let pose = picture(width, height, 99)?;
        let cost = self.timer.time("key frame", || generator.generate(&pose, 0).map_err(failed))?;
        Ok(Point {
            image: ImageSize { width, height },
            steps: settings.steps,
            context_frames: settings.context_frames,
            context_mode: settings.context_mode,
            cost,
            context_bytes: generator.context_bytes(),
        })
    }
}

/// Brings the settings into force, with the context full as it is after the first moments of a stream.
fn fill(generator: &mut LcmGenerator, settings: &Settings) -> Result<()> {
    let recomputes = settings.context_mode == ContextMode::Recompute;
    // A recomputed context is kept as latents, which one step makes as well; a window of many frames takes seconds.
    let quick = if recomputes { 1 } else { settings.steps };
    generator.set(Settings { steps: quick, ..settings.clone() })?;
    let (width, height) = generator.size();
    for n in 1..generator.window() as u32 {
        generator.generate(&picture(width, height, n)?, 0).map_err(failed)?;
    }
    generator.set(settings.clone())
}

/// As the command line has it.
fn mode_name(mode: ContextMode) -> &'static str {
    match mode {
        ContextMode::Cache => "cache",
        ContextMode::Recompute => "recompute",
    }
}

fn failed(error: GenerateError) -> ModelError {
    ModelError::Input(error.to_string())
}
