//! Stage `denoise`: U-Net, ControlNet and appearance encoder together.

use crate::{
    config,
    data::{self, Pool},
    optim::Rates,
    plot,
    stages::{encode::Latents, feed::Feed, networks::Networks, psnr},
    trainer::{Figure, Stage},
};
use anyhow::{Context, Result};
use keyframed_models::{
    Source,
    scheduler::{self, NoiseSchedule},
    torch_ext::CpuAutocast,
    vae::AutoencoderKl,
};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use std::{collections::BTreeMap, path::Path};
use tch::{Device, Kind, Tensor};

/// Timesteps of the 4-step sampler, which the end of the stage concentrates on.
const SAMPLER_STEPS: [i64; 4] = [999, 759, 499, 259];

/// Denoising networks in training.
pub struct DenoiseStage<'a> {
    feed: Feed<'a>,
    vae: &'a AutoencoderKl,
    vae_scaling: f64,
    schedule: NoiseSchedule,
    /// The networks.
    pub networks: Networks,
}

impl<'a> DenoiseStage<'a> {
    /// Fresh networks over a pool that was encoded by `vae`.
    ///
    /// # Errors
    /// The configuration describes no network or schedule.
    pub fn new(
        recipe: &'a config::Denoise,
        pool: &'a Pool,
        latents: &'a Latents,
        vae: &'a AutoencoderKl,
        vae_scaling: f64,
    ) -> Result<Self> {
        let networks = Networks::new(Source::fresh(Device::Cpu), recipe)?;
        let schedule = NoiseSchedule::new(&recipe.scheduler)?;
        Ok(Self { feed: Feed { recipe, pool, latents }, vae, vae_scaling, schedule, networks })
    }

    /// Begins where other networks ended.
    ///
    /// # Errors
    /// A tensor is missing in `weights`.
    pub fn start_from(&self, weights: &BTreeMap<String, Tensor>) -> Result<()> {
        for (name, tensor) in self.networks.source().tensors() {
            let value = weights.get(&name).with_context(|| format!("no tensor {name}"))?;
            tch::no_grad(|| tensor.shallow_clone().copy_(value));
        }
        Ok(())
    }

    /// A third of the samples lie near pure noise; towards the end most lie on the sampler's steps.
    fn timesteps(&self, progress: f64, rng: &mut ChaCha8Rng) -> Vec<i64> {
        let last = progress > 1.0 - self.feed.recipe.final_timesteps_share;
        let one = |rng: &mut ChaCha8Rng| {
            if last && rng.random_bool(0.6) {
                *data::pick(&SAMPLER_STEPS, rng)
            } else {
                let least = if rng.random_bool(0.33) { 950 } else { 0 };
                rng.random_range(least..1000)
            }
        };
        (0..self.feed.recipe.references).map(|_| one(rng)).collect()
    }
}

impl Stage for DenoiseStage<'_> {
    fn name(&self) -> &'static str {
        "denoise"
    }

    fn params(&self) -> BTreeMap<String, Tensor> {
        self.networks.source().tensors()
    }

    fn rates(&self) -> Rates {
        Rates { muon: self.feed.recipe.muon_lr, adam: self.feed.recipe.adam_lr, weight_decay: 0.02 }
    }

    fn loss(&self, rng: &mut ChaCha8Rng, progress: f64) -> Result<(Tensor, Vec<Figure>)> {
        let batch = self.feed.batch(rng);
        let steps = self.timesteps(progress, rng);
        let times = Tensor::from_slice(&steps);
        let noise = data::noise_like(&batch.latents, rng);
        let noisy = self.schedule.add_noise(&batch.latents, &noise, &times);
        let velocity = self.schedule.velocity(&batch.latents, &noise, &times);
        let made = {
            let _bf16 = self.feed.recipe.bf16.then(CpuAutocast::enter);
            self.networks.predict(&noisy, &times, &batch.reference, &batch.poses)?.to_kind(Kind::Float)
        };
        let error = made - velocity;
        let squared = (error.square() * &batch.weight).mean(Kind::Float);
        let loss = &squared + (error.abs() * &batch.weight).mean(Kind::Float) * 0.5;
        Ok((loss, vec![("velocity", squared.double_value(&[]))]))
    }

    fn sheet(&self, path: &Path) -> Result<Vec<Figure>> {
        let size = self.feed.pool.size;
        let mut rows = Vec::new();
        let (mut four, mut one, mut count) = (0.0, 0.0, 0.0);
        for person in self.feed.pool.watched() {
            let album = &self.feed.pool.albums[person];
            let Some(target) = album.targets.last() else { continue };
            let reference = self.feed.latents.references[person].narrow(0, 0, 1);
            let pose = data::pose_tensor(&target.labels, size);
            let decode = |latent: Tensor| {
                self.vae.decode(&(latent.squeeze_dim(2) / self.vae_scaling)).clamp(-1.0, 1.0)
            };
            let truth = data::picture_tensor(&target.rgb, size);
            let score = |t: &Tensor| psnr((t - &truth).square().mean(Kind::Float).double_value(&[]));
            let sample = |steps: usize| {
                let scheduler = scheduler::build(&self.feed.recipe.scheduler, steps)?;
                self.networks.sample(&self.networks.unet, &*scheduler, &reference, &pose)
            };
            let made = decode(sample(4)?);
            let quick = decode(sample(1)?);
            four += score(&made);
            one += score(&quick);
            count += 1.0;
            rows.push(vec![
                album.references[0].rgb.clone(),
                data::bytes(&(pose * 2.0 - 1.0)),
                target.rgb.clone(),
                data::bytes(&made),
                data::bytes(&quick),
            ]);
        }
        plot::grid(path, &rows, size)?;
        Ok(vec![("psnr of 4 steps", four / count), ("psnr of 1 step", one / count)])
    }
}
