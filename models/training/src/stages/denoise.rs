//! Stage `denoise`: U-Net, ControlNet and appearance encoder together.

use crate::{
    config,
    data::{self, Pool},
    optim::Rates,
    plot,
    stages::{encode::Latents, psnr},
    trainer::{Figure, Stage},
};
use anyhow::Result;
use keyframed_models::{
    AppearanceEncoder, ControlNet, Fusion, Init, Reference, Source, UNet,
    scheduler::{self, NoiseSchedule},
    torch_ext::CpuAutocast,
    vae::AutoencoderKl,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::{collections::BTreeMap, path::Path};
use tch::{Device, Kind, Tensor};

/// Timesteps of the 4-step sampler, which the end of the stage concentrates on.
const SAMPLER_STEPS: [i64; 4] = [999, 759, 499, 259];

/// The three networks and the one text vector that they share.
pub struct Networks {
    source: Source,
    /// Denoising network.
    pub unet: UNet,
    /// Pose network.
    pub controlnet: ControlNet,
    /// Reference network.
    pub appearance: AppearanceEncoder,
    /// Stands for the text, `[1, 1, d]`.
    pub text: Tensor,
}

impl Networks {
    /// Networks over `source`, whose keys start with the network's name.
    ///
    /// # Errors
    /// The configuration describes no network, or a loaded source lacks a key.
    pub fn new(source: Source, recipe: &config::Denoise) -> Result<Self> {
        let root = source.root();
        let unet = UNet::new(&(&root / "unet"), &recipe.unet)?;
        let controlnet = ControlNet::new(&(&root / "controlnet"), &recipe.controlnet)?;
        let appearance = AppearanceEncoder::new(&(&root / "appearance"), &recipe.unet, Fusion::Midup)?;
        let text =
            (&root / "text").get("embedding", &[1, 1, recipe.unet.cross_attention_dim], Init::Normal(1.0))?;
        Ok(Self { source, unet, controlnet, appearance, text })
    }
}

/// A batch: `b` people with `f` poses each.
struct Batch {
    reference: Tensor,
    latents: Tensor,
    poses: Tensor,
    weight: Tensor,
}

/// Denoising networks in training.
pub struct DenoiseStage<'a> {
    recipe: &'a config::Denoise,
    pool: &'a Pool,
    latents: &'a Latents,
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
        Ok(Self { recipe, pool, latents, vae, vae_scaling, schedule, networks })
    }

    fn batch(&self, rng: &mut ChaCha8Rng) -> Batch {
        let size = self.pool.size;
        let (mut reference, mut latents, mut poses, mut weight) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for _ in 0..self.recipe.references {
            let person = self.pool.pick(self.recipe.gallery_share, rng);
            let (mine, targets) = (&self.latents.targets[person], self.pool.training_targets(person));
            let of = |list: &Tensor, index: usize| list.narrow(0, index as i64, 1);
            // Now and then any picture serves as the reference: users bring all kinds.
            let other = rng.random_bool(0.15);
            let list = if other { mine } else { &self.latents.references[person] };
            let limit = if other { targets.len() } else { list.size()[0] as usize };
            reference.push(of(list, rng.random_range(0..limit)));
            for _ in 0..self.recipe.targets {
                let index = rng.random_range(0..targets.len());
                let labels = &targets[index].labels;
                latents.push(of(mine, index));
                poses.push(data::pose_tensor(&data::estimated(labels, rng), size));
                weight.push(latent_weight(labels, size));
            }
        }
        let frames = |list: Vec<Tensor>| {
            let flat = Tensor::cat(&list, 0);
            let shape = flat.size();
            let split =
                [self.recipe.references as i64, self.recipe.targets as i64, shape[1], shape[2], shape[3]];
            flat.view(split).permute([0, 2, 1, 3, 4])
        };
        Batch {
            reference: Tensor::cat(&reference, 0),
            latents: frames(latents),
            poses: Tensor::cat(&poses, 0),
            weight: frames(weight),
        }
    }

    /// A third of the samples lie near pure noise; the end of the stage knows only the sampler's steps.
    fn timesteps(&self, progress: f64, rng: &mut ChaCha8Rng) -> Vec<i64> {
        let last = progress > 1.0 - self.recipe.final_timesteps_share;
        let one = |rng: &mut ChaCha8Rng| match (last, rng.random_bool(0.33)) {
            (true, _) => *data::pick(&SAMPLER_STEPS, rng),
            (false, true) => rng.random_range(950..1000),
            (false, false) => rng.random_range(0..1000),
        };
        (0..self.recipe.references).map(|_| one(rng)).collect()
    }

    /// Prediction of the three networks for `[b, 4, f, h, w]` noisy latents.
    fn predict(&self, noisy: &Tensor, times: &Tensor, reference: &Tensor, poses: &Tensor) -> Result<Tensor> {
        let (people, frames) = (noisy.size()[0], noisy.size()[2]);
        let net = &self.networks;
        let text = net.text.expand([people, -1, -1], true);
        let bank = net.appearance.forward(reference, times, &text)?;
        let flat = noisy.permute([0, 2, 1, 3, 4]).flatten(0, 1);
        let embedded = net.controlnet.embed_condition(poses)?;
        let residuals = net.controlnet.forward(
            &flat,
            &times.repeat_interleave_self_int(frames, 0, None),
            &text.repeat_interleave_self_int(frames, 0, None),
            &embedded,
            1.0,
        )?;
        let reference = Reference::hidden(&bank);
        Ok(net.unet.forward(noisy, times, &text, Some(&residuals), Some(&reference))?)
    }

    /// 4-step sampling of one pose with fixed noise; `[1, 4, 1, h, w]`.
    fn sample(&self, reference: &Tensor, pose: &Tensor, steps: usize) -> Result<Tensor> {
        tch::manual_seed(1);
        let shape = [1, reference.size()[1], 1, reference.size()[2], reference.size()[3]];
        let noise = || Tensor::randn(shape, (Kind::Float, Device::Cpu));
        let scheduler = scheduler::build(&self.recipe.scheduler, steps)?;
        let mut latents = noise();
        for index in 0..steps {
            let time = Tensor::from_slice(&[scheduler.timesteps()[index]]);
            let out = self.predict(&latents, &time, reference, pose)?;
            latents = scheduler.step(&out, index, &latents, Some(&noise()))?.prev;
        }
        Ok(latents)
    }
}

/// Weight of each latent position `[1, 1, h/8, w/8]`: background low, body and head high.
fn latent_weight(labels: &[u8], size: usize) -> Tensor {
    let body =
        data::weights(labels, size, 0.0, 1.0, 1.0).avg_pool2d([8, 8], [8, 8], [0, 0], false, true, None);
    let head =
        data::weights(labels, size, 0.0, 0.0, 1.0).avg_pool2d([8, 8], [8, 8], [0, 0], false, true, None);
    let wide = |t: &Tensor, k: i64| t.max_pool2d([k, k], [1, 1], [k / 2, k / 2], [1, 1], false);
    wide(&body, 5) * 1.2 + wide(&head, 3) * 1.5 + 0.35
}

impl Stage for DenoiseStage<'_> {
    fn name(&self) -> &'static str {
        "denoise"
    }

    fn params(&self) -> BTreeMap<String, Tensor> {
        self.networks.source.tensors()
    }

    fn rates(&self) -> Rates {
        Rates { muon: self.recipe.muon_lr, adam: self.recipe.adam_lr, weight_decay: 0.02 }
    }

    fn loss(&self, rng: &mut ChaCha8Rng, progress: f64) -> Result<(Tensor, Vec<Figure>)> {
        let batch = self.batch(rng);
        let steps = self.timesteps(progress, rng);
        let times = Tensor::from_slice(&steps);
        let noise = data::noise_like(&batch.latents, rng);
        let noisy = self.schedule.add_noise(&batch.latents, &noise, &times);
        let velocity = self.schedule.velocity(&batch.latents, &noise, &times);
        let made = {
            let _bf16 = self.recipe.bf16.then(CpuAutocast::enter);
            self.predict(&noisy, &times, &batch.reference, &batch.poses)?.to_kind(Kind::Float)
        };
        let error = made - velocity;
        let squared = (error.square() * &batch.weight).mean(Kind::Float);
        let loss = &squared + (error.abs() * &batch.weight).mean(Kind::Float) * 0.5;
        Ok((loss, vec![("velocity", squared.double_value(&[]))]))
    }

    fn sheet(&self, path: &Path) -> Result<Vec<Figure>> {
        let size = self.pool.size;
        let mut rows = Vec::new();
        let (mut four, mut one, mut count) = (0.0, 0.0, 0.0);
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let gallery = (0..data::GALLERY).step_by(2).take(5);
        let unseen = (0..3).map(|_| rng.random_range(data::GALLERY..self.pool.albums.len()));
        for person in gallery.chain(unseen.collect::<Vec<_>>()) {
            let album = &self.pool.albums[person];
            let Some(target) = album.targets.last() else { continue };
            let reference = self.latents.references[person].narrow(0, 0, 1);
            let pose = data::pose_tensor(&target.labels, size);
            let decode = |latent: Tensor| {
                self.vae.decode(&(latent.squeeze_dim(2) / self.vae_scaling)).clamp(-1.0, 1.0)
            };
            let truth = data::picture_tensor(&target.rgb, size);
            let score = |t: &Tensor| psnr((t - &truth).square().mean(Kind::Float).double_value(&[]));
            let made = decode(self.sample(&reference, &pose, 4)?);
            let quick = decode(self.sample(&reference, &pose, 1)?);
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
