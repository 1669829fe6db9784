//! Stage `motion`: attention over time, in a network that is finished otherwise.
//!
//! As AnimateDiff and MagicAnimate train theirs, the spatial weights stay what they are. Sequences are of key frames
//! as stage 1 selects them, so that what lies between two is what lies between two live. A new key frame sees a
//! context that grows from nothing, so windows are of every length.

use crate::{
    checkpoint,
    config::{self, Recipe},
    data::{self, GALLERY},
    eval::cast,
    optim::Rates,
    plot,
    stages::{encode, feed::latent_weight, networks::Networks, psnr},
    synth::{Camera, Motion, Rig, Shot, render},
    trainer::{Figure, Stage},
};
use anyhow::{Context, Result, ensure};
use keyframed_models::{
    Source,
    scheduler::{self, NoiseSchedule, Scheduler},
    unet::motion_modules,
    vae::AutoencoderKl,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use std::{collections::BTreeMap, path::Path};
use tch::{Device, Kind, Tensor};

/// Sequences that are never trained on: for the sheet.
const HELD_OUT: usize = 4;
/// What the error of the change from one key frame to the next counts.
const STEADINESS: f64 = 0.5;

/// One person's key frames in one motion.
struct Sequence {
    /// `[1, 4, h, w]`.
    reference: Tensor,
    /// `[frames, 4, h, w]`.
    latents: Tensor,
    /// As rendered.
    frames: Vec<data::Picture>,
}

/// The motion modules in training.
pub struct MotionStage<'a> {
    recipe: &'a config::Motion,
    size: usize,
    sequences: Vec<Sequence>,
    vae: &'a AutoencoderKl,
    scaling: f64,
    scheduler: Box<dyn Scheduler>,
    schedule: NoiseSchedule,
    /// Without motion modules.
    plain: Networks,
    /// With them; the rest of its tensors are those of `plain`.
    moving: Networks,
    modules: Source,
}

impl<'a> MotionStage<'a> {
    /// Fresh modules over what stage `denoise` left in `folder`.
    ///
    /// # Errors
    /// That stage did not run, or the configuration describes no network or schedule.
    pub fn new(
        recipe: &'a Recipe,
        motion: &'a config::Motion,
        rig: &Rig,
        folder: &Path,
        vae: &'a AutoencoderKl,
    ) -> Result<Self> {
        ensure!(motion.frames >= 2, "[motion] frames must be at least 2");
        let all = checkpoint::read(&folder.join("denoise.ckpt")).context("stage `denoise` comes first")?;
        let average = checkpoint::below(&all, "average");
        let with = config::Denoise { unet: recipe.unet(), ..recipe.denoise.clone() };
        let modules = Source::fresh(Device::Cpu);
        motion_modules(&modules, &with.unet)?;
        let loaded = |tensors| Source::loaded("denoise.ckpt", tensors, Device::Cpu, Kind::Float);
        let mut merged: BTreeMap<String, Tensor> =
            average.iter().map(|(key, tensor)| (key.clone(), tensor.shallow_clone())).collect();
        merged.extend(modules.tensors().into_iter().map(|(key, tensor)| (format!("unet.{key}"), tensor)));
        let scaling = recipe.vae.network.scaling_factor;
        Ok(Self {
            recipe: motion,
            size: recipe.size,
            sequences: sequences(recipe, motion, rig, vae)?,
            vae,
            scaling,
            scheduler: scheduler::build(&recipe.denoise.scheduler, 4)?,
            schedule: NoiseSchedule::new(&recipe.denoise.scheduler)?,
            plain: Networks::new(loaded(average), &recipe.denoise)?,
            moving: Networks::new(loaded(merged), &with)?,
            modules,
        })
    }

    /// Poses `[n, 3, H, W]` as an estimator gives them.
    fn poses(&self, frames: &[data::Picture], rng: Option<&mut ChaCha8Rng>) -> Tensor {
        let mut rng = rng;
        let one = |frame: &data::Picture| match rng.as_deref_mut() {
            Some(rng) => data::pose_tensor(&data::estimated(&frame.labels, rng), self.size),
            None => data::pose_tensor(&frame.labels, self.size),
        };
        Tensor::cat(&frames.iter().map(one).collect::<Vec<_>>(), 0)
    }

    /// Key frames of a whole sequence, all from the same noise: RGB in [-1, 1], `[frames, 3, H, W]`.
    fn sample(&self, networks: &Networks, sequence: &Sequence) -> Result<Tensor> {
        tch::manual_seed(1);
        let [frames, channels, h, w] = sequence.latents.size4().map(|(f, c, h, w)| [f, c, h, w])?;
        let one = || Tensor::randn([1, channels, 1, h, w], (Kind::Float, Device::Cpu));
        let noise = || one().expand([1, channels, frames, h, w], false).contiguous();
        let poses = self.poses(&sequence.frames, None);
        let mut latents = noise();
        for (index, &time) in self.scheduler.timesteps().iter().enumerate() {
            let times = Tensor::from_slice(&[time]);
            let answer = networks.predict(&latents, &times, &sequence.reference, &poses)?;
            latents = self.scheduler.step(&answer, index, &latents, Some(&noise()))?.prev;
        }
        let flat = latents.squeeze_dim(0).transpose(0, 1);
        Ok(self.vae.decode(&(flat / self.scaling)).clamp(-1.0, 1.0))
    }
}

/// Renders and encodes what is learned from.
fn sequences(
    recipe: &Recipe,
    motion: &config::Motion,
    rig: &Rig,
    vae: &AutoencoderKl,
) -> Result<Vec<Sequence>> {
    let bar = indicatif::ProgressBar::new((motion.sequences + HELD_OUT) as u64).with_prefix("sequences");
    let picture = |shot: Shot| data::Picture { rgb: shot.rgb, labels: shot.labels };
    let rendered: Vec<(Shot, Vec<data::Picture>)> = (0..motion.sequences + HELD_OUT)
        .into_par_iter()
        .map(|index| {
            bar.inc(1);
            let mut rng = ChaCha8Rng::seed_from_u64(recipe.seed);
            rng.set_stream((1 << 32) + index as u64);
            let random = !index.is_multiple_of(2);
            let (person, reference) = cast(rig, index / 2 % GALLERY, random, recipe.size, &mut rng);
            let (action, camera) = (Motion::random(&mut rng), Camera::random(&mut rng));
            let (start, shape) = (rng.random_range(0.0..10.0f32), rng.random_range(0..rig.shapes()));
            let at = |n: usize| {
                let pose = action.pose(start + n as f32 / data::RATE as f32);
                render(rig, &person, shape, &pose, &camera, recipe.size)
            };
            let selected = data::selected(motion.frames, recipe.size, at)?;
            let frames = selected.into_iter().map(|(_, shot)| picture(shot)).collect();
            anyhow::Ok((reference, frames))
        })
        .collect::<Result<_>>()?;
    let encode = |pictures: &[&data::Picture]| {
        encode::encode(vae, pictures, recipe.size) * recipe.vae.network.scaling_factor
    };
    let encoded = rendered.into_iter().map(|(reference, frames)| Sequence {
        reference: encode(&[&picture(reference)]),
        latents: encode(&frames.iter().collect::<Vec<_>>()),
        frames,
    });
    Ok(encoded.collect())
}

impl Stage for MotionStage<'_> {
    fn name(&self) -> &'static str {
        "motion"
    }

    /// Not the table of positions, which is a constant.
    fn params(&self) -> BTreeMap<String, Tensor> {
        self.modules.tensors().into_iter().filter(|(_, tensor)| tensor.requires_grad()).collect()
    }

    fn rates(&self) -> Rates {
        Rates { muon: self.recipe.muon_lr, adam: self.recipe.adam_lr, weight_decay: 0.02 }
    }

    fn loss(&self, rng: &mut ChaCha8Rng, _progress: f64) -> Result<(Tensor, Vec<Figure>)> {
        let length = rng.random_range(2..=self.recipe.frames);
        let (mut reference, mut latents, mut poses, mut weight) = (vec![], vec![], vec![], vec![]);
        for _ in 0..self.recipe.batch {
            let sequence = &self.sequences[HELD_OUT + rng.random_range(0..self.recipe.sequences)];
            let start = rng.random_range(0..=self.recipe.frames - length);
            let frames = &sequence.frames[start..start + length];
            reference.push(sequence.reference.shallow_clone());
            latents
                .push(sequence.latents.narrow(0, start as i64, length as i64).transpose(0, 1).unsqueeze(0));
            poses.push(self.poses(frames, Some(rng)));
            let weights: Vec<_> = frames.iter().map(|f| latent_weight(&f.labels, self.size)).collect();
            weight.push(Tensor::cat(&weights, 0).transpose(0, 1).unsqueeze(0));
        }
        let cat = |list: Vec<Tensor>| Tensor::cat(&list, 0);
        let (latents, weight) = (cat(latents), cat(weight));
        let steps: Vec<i64> = (0..self.recipe.batch).map(|_| rng.random_range(0..1000)).collect();
        let times = Tensor::from_slice(&steps);
        // Live, every key frame begins with the same noise.
        let noise = if rng.random_bool(0.5) {
            data::noise_like(&latents.narrow(2, 0, 1), rng).expand_as(&latents)
        } else {
            data::noise_like(&latents, rng)
        };
        let noisy = self.schedule.add_noise(&latents, &noise, &times);
        let velocity = self.schedule.velocity(&latents, &noise, &times);
        let made = self.moving.predict(&noisy, &times, &cat(reference), &cat(poses))?;
        let error = made.to_kind(Kind::Float) - velocity;
        let squared = (error.square() * &weight).mean(Kind::Float);
        let change = error.slice(2, 1, None, 1) - error.slice(2, None, -1, 1);
        let unsteady = (change.square() * weight.slice(2, 1, None, 1)).mean(Kind::Float);
        let figures =
            vec![("velocity", squared.double_value(&[])), ("unsteadiness", unsteady.double_value(&[]))];
        Ok((squared + unsteady * STEADINESS, figures))
    }

    /// For each held-out sequence four rows: pose, truth, without and with motion modules. Of both, decibels of the
    /// pictures and of the changes from one key frame to the next.
    fn sheet(&self, path: &Path) -> Result<Vec<Figure>> {
        let mut rows = Vec::new();
        let names = [["psnr without", "of changes without"], ["psnr with", "of changes with"]];
        let mut figures: Vec<Figure> = names.as_flattened().iter().map(|&name| (name, 0.0)).collect();
        for sequence in &self.sequences[..HELD_OUT] {
            let truth: Vec<_> =
                sequence.frames.iter().map(|f| data::picture_tensor(&f.rgb, self.size)).collect();
            let truth = Tensor::cat(&truth, 0);
            let pictures = |t: &Tensor| (0..t.size()[0]).map(|n| data::bytes(&t.narrow(0, n, 1))).collect();
            rows.push(pictures(&(self.poses(&sequence.frames, None) * 2.0 - 1.0)));
            rows.push(pictures(&truth));
            for (way, networks) in [&self.plain, &self.moving].into_iter().enumerate() {
                let made = self.sample(networks, sequence)?;
                let error = &made - &truth;
                let change = error.slice(0, 1, None, 1) - error.slice(0, None, -1, 1);
                for (n, error) in [error, change].iter().enumerate() {
                    let mse = error.square().mean(Kind::Float).double_value(&[]);
                    figures[2 * way + n].1 += psnr(mse) / HELD_OUT as f64;
                }
                rows.push(pictures(&made));
            }
        }
        plot::grid(path, &rows, self.size)?;
        Ok(figures)
    }
}

/// The trained modules with the constants that go with them, under the U-Net's keys.
///
/// # Errors
/// The configuration describes no network.
pub fn whole(recipe: &Recipe, trained: BTreeMap<String, Tensor>) -> Result<BTreeMap<String, Tensor>> {
    let source = Source::fresh(Device::Cpu);
    motion_modules(&source, &recipe.unet())?;
    let mut all = source.tensors();
    all.extend(trained);
    Ok(all)
}
