//! Stage `lcm`: consistency distillation of the denoising network into an LCM-LoRA.
//!
//! Follows "LCM-LoRA" (Luo et al. 2023) as diffusers' `train_lcm_distill_lora_sd_wds.py` has it: the student at a
//! timestep shall answer what it answers one step of the teacher's DDIM solver later. There is no guidance to distil,
//! because MagicAnimate's small models run without.

use crate::{
    checkpoint, config,
    data::{self, Pool},
    optim::Rates,
    plot,
    stages::{encode::Latents, feed::Feed, networks::Networks, psnr},
    trainer::{Figure, Stage},
};
use anyhow::{Context, Result};
use keyframed_models::{
    Init, Source, UNet,
    scheduler::{self, LcmScheduler, NoiseSchedule, SamplerClass},
    vae::AutoencoderKl,
};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use std::{collections::BTreeMap, path::Path};
use tch::{Device, Kind, Tensor};

/// Where the pseudo-Huber loss turns from a square into a line.
const HUBER: f64 = 1e-3;

/// Modules that get an update: ends of their paths.
const MODULES: [&str; 14] = [
    "to_q",
    "to_k",
    "to_v",
    "to_out.0",
    "proj_in",
    "proj_out",
    "ff.net.0.proj",
    "ff.net.2",
    "conv1",
    "conv2",
    "conv_shortcut",
    "downsamplers.0.conv",
    "upsamplers.0.conv",
    "time_emb_proj",
];

/// A network's updates in training, with kohya's names.
pub struct Updates {
    source: Source,
    /// Frozen weights by key.
    base: BTreeMap<String, Tensor>,
    modules: Vec<Module>,
}

/// The update of one weight: up · down.
struct Module {
    /// Of the weight.
    key: String,
    down: Tensor,
    up: Tensor,
}

impl Updates {
    /// Updates that begin as nothing, of the modules that LCM-LoRA updates.
    ///
    /// # Errors
    /// None of them exists in `base`.
    pub fn new(base: BTreeMap<String, Tensor>, rank: i64) -> Result<Self> {
        let source = Source::fresh(Device::Cpu);
        let mut modules = Vec::new();
        for (key, weight) in &base {
            let Some(path) = key.strip_suffix(".weight") else { continue };
            if !MODULES.iter().any(|end| path.ends_with(&format!(".{end}"))) {
                continue;
            }
            let size = weight.size();
            let inputs: i64 = size[1..].iter().product();
            let (mut down, mut up) = (size.clone(), vec![1; size.len()]);
            (down[0], up[0], up[1]) = (rank, size[0], rank);
            let place = source.root() / format!("lora_unet_{}", path.replace('.', "_"));
            let down = (&place / "lora_down").get("weight", &down, Init::FanIn(inputs))?;
            let up = (&place / "lora_up").get("weight", &up, Init::Const(0.0))?;
            modules.push(Module { key: key.clone(), down, up });
        }
        anyhow::ensure!(!modules.is_empty(), "the network has no module that LCM-LoRA updates");
        Ok(Self { source, base, modules })
    }

    /// All weights with the updates added; gradients flow to the updates.
    pub fn merged(&self) -> BTreeMap<String, Tensor> {
        let mut weights: BTreeMap<String, Tensor> =
            self.base.iter().map(|(key, tensor)| (key.clone(), tensor.shallow_clone())).collect();
        for Module { key, down, up } in &self.modules {
            let weight = &self.base[key];
            let update = up.flatten(1, -1).matmul(&down.flatten(1, -1)).reshape(weight.size());
            weights.insert(key.clone(), weight + update);
        }
        weights
    }

    /// The student.
    fn student(&self, recipe: &config::Denoise) -> Result<UNet> {
        let source = Source::loaded("student", self.merged(), Device::Cpu, Kind::Float);
        Ok(UNet::new(&source.root(), &recipe.unet)?)
    }
}

/// Steps of a batch whose samples have times of their own.
struct Consistency {
    schedule: NoiseSchedule,
    /// For its boundary conditions.
    lcm: LcmScheduler,
}

impl Consistency {
    fn new(config: &scheduler::SchedulerConfig) -> Result<Self> {
        Ok(Self { schedule: NoiseSchedule::new(config)?, lcm: LcmScheduler::new(config, 1)? })
    }

    /// What a network's answer at `times` says the clean latents are, with the boundary condition at time 0.
    fn clean(&self, answer: &Tensor, noisy: &Tensor, times: &[i64]) -> Tensor {
        let clean = self.schedule.clean_of(answer, noisy, &Tensor::from_slice(times));
        let (skip, out): (Vec<f64>, Vec<f64>) = times.iter().map(|&t| self.lcm.boundary(t)).unzip();
        let wide = |list: Vec<f64>| Tensor::from_slice(&list).to_kind(Kind::Float).view([-1, 1, 1, 1, 1]);
        noisy * wide(skip) + clean * wide(out)
    }

    /// One step of DDIM from `from` to `to` along the teacher's answer.
    fn solve(&self, answer: &Tensor, noisy: &Tensor, from: &[i64], to: &[i64]) -> Tensor {
        let clean = self.schedule.clean_of(answer, noisy, &Tensor::from_slice(from));
        let wide = |times: &[i64], f: fn(f64) -> f64| {
            let list: Vec<f32> = times.iter().map(|&t| f(self.schedule.alpha(t)) as f32).collect();
            Tensor::from_slice(&list).view([-1, 1, 1, 1, 1])
        };
        let noise = |alpha: f64| (1.0 - alpha).sqrt();
        let estimate = (noisy - &clean * wide(from, f64::sqrt)) / wide(from, noise);
        clean * wide(to, f64::sqrt) + estimate * wide(to, noise)
    }
}

/// The LoRA in training.
pub struct LcmStage<'a> {
    recipe: &'a config::Lcm,
    denoise: &'a config::Denoise,
    feed: Feed<'a>,
    vae: &'a AutoencoderKl,
    vae_scaling: f64,
    steps: Consistency,
    teacher: Networks,
    updates: Updates,
}

impl<'a> LcmStage<'a> {
    /// Over what stage `denoise` left in `folder`.
    ///
    /// # Errors
    /// That stage did not run, or the configuration describes no network or schedule.
    pub fn new(
        recipe: &'a config::Recipe,
        folder: &Path,
        pool: &'a Pool,
        latents: &'a Latents,
        vae: &'a AutoencoderKl,
    ) -> Result<Self> {
        let denoise = &recipe.denoise;
        let all = checkpoint::read(&folder.join("denoise.ckpt")).context("stage `denoise` comes first")?;
        let average = checkpoint::below(&all, "average");
        let updates = Updates::new(checkpoint::below(&average, "unet"), recipe.lcm.rank)?;
        let source =
            Source::loaded("denoise.ckpt", average, Device::Cpu, Kind::Float).packed(Some(Kind::Float));
        Ok(Self {
            recipe: &recipe.lcm,
            denoise,
            feed: Feed { recipe: denoise, pool, latents },
            vae,
            vae_scaling: recipe.vae.network.scaling_factor,
            steps: Consistency::new(&denoise.scheduler)?,
            teacher: Networks::new(source, denoise)?,
            updates,
        })
    }
}

impl Stage for LcmStage<'_> {
    fn name(&self) -> &'static str {
        "lcm"
    }

    fn params(&self) -> BTreeMap<String, Tensor> {
        self.updates.source.tensors()
    }

    fn rates(&self) -> Rates {
        Rates { muon: 0.0, adam: self.recipe.adam_lr, weight_decay: 0.0 }
    }

    fn loss(&self, rng: &mut ChaCha8Rng, _progress: f64) -> Result<(Tensor, Vec<Figure>)> {
        let batch = self.feed.batch(rng);
        let (count, original) =
            (self.denoise.scheduler.num_train_timesteps, self.denoise.scheduler.original_inference_steps);
        let stride = count / original;
        let times: Vec<i64> =
            (0..self.denoise.references).map(|_| rng.random_range(1..=original) * stride - 1).collect();
        let earlier: Vec<i64> = times.iter().map(|t| (t - stride).max(0)).collect();
        let tensor = |list: &[i64]| Tensor::from_slice(list);
        let noise = data::noise_like(&batch.latents, rng);
        let noisy = self.steps.schedule.add_noise(&batch.latents, &noise, &tensor(&times));
        let student = self.updates.student(self.denoise)?;
        let target = {
            let _frozen = tch::no_grad_guard();
            let ask = |unet: &UNet, x: &Tensor, t: &[i64]| {
                self.teacher.predict_by(unet, x, &tensor(t), &batch.reference, &batch.poses)
            };
            let answer = ask(&self.teacher.unet, &noisy, &times)?;
            let nearer = self.steps.solve(&answer, &noisy, &times, &earlier);
            let answer = ask(&student, &nearer, &earlier)?;
            self.steps.clean(&answer, &nearer, &earlier)
        };
        let answer =
            self.teacher.predict_by(&student, &noisy, &tensor(&times), &batch.reference, &batch.poses)?;
        let error = (self.steps.clean(&answer, &noisy, &times) - target).square();
        let huber = ((&error + HUBER * HUBER).sqrt() - HUBER) * &batch.weight;
        let squared = error.mean(Kind::Float).double_value(&[]);
        Ok((huber.mean(Kind::Float), vec![("inconsistency", squared)]))
    }

    /// Rows of reference, pose, truth, 25 DDIM steps, 4 LCM steps without and with the LoRA.
    fn sheet(&self, path: &Path) -> Result<Vec<Figure>> {
        let size = self.feed.pool.size;
        let student = self.updates.student(self.denoise)?;
        let ddim = scheduler::SchedulerConfig {
            class: SamplerClass::Ddim,
            timestep_spacing: scheduler::TimestepSpacing::Trailing,
            ..self.denoise.scheduler.clone()
        };
        let ways = [
            ("psnr of 25 steps", &self.teacher.unet, scheduler::build(&ddim, 25)?),
            ("psnr of 4 steps", &self.teacher.unet, scheduler::build(&self.denoise.scheduler, 4)?),
            ("psnr of 4 steps with LoRA", &student, scheduler::build(&self.denoise.scheduler, 4)?),
        ];
        let mut figures: Vec<Figure> = ways.iter().map(|way| (way.0, 0.0)).collect();
        let mut rows = Vec::new();
        let people = self.feed.pool.watched();
        for &person in &people {
            let album = &self.feed.pool.albums[person];
            let Some(target) = album.targets.last() else { continue };
            let reference = self.feed.latents.references[person].narrow(0, 0, 1);
            let pose = data::pose_tensor(&target.labels, size);
            let truth = data::picture_tensor(&target.rgb, size);
            let mut row =
                vec![album.references[0].rgb.clone(), data::bytes(&(&pose * 2.0 - 1.0)), target.rgb.clone()];
            for (way, figure) in ways.iter().zip(&mut figures) {
                let latents = self.teacher.sample(way.1, &*way.2, &reference, &pose)?;
                let made = self.vae.decode(&(latents.squeeze_dim(2) / self.vae_scaling)).clamp(-1.0, 1.0);
                let mse = (&made - &truth).square().mean(Kind::Float).double_value(&[]);
                figure.1 += psnr(mse) / people.len() as f64;
                row.push(data::bytes(&made));
            }
            rows.push(row);
        }
        plot::grid(path, &rows, size)?;
        Ok(figures)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keyframed_models::{
        checkpoint::{Lora, WeightFile},
        scheduler::Scheduler,
    };

    fn base() -> BTreeMap<String, Tensor> {
        let options = (Kind::Float, Device::Cpu);
        [
            ("down_blocks.0.resnets.0.conv1.weight", vec![6i64, 4, 3, 3]),
            ("mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0.weight", vec![5, 7]),
            ("conv_in.weight", vec![4, 4, 3, 3]),
        ]
        .map(|(key, size)| (key.to_owned(), Tensor::randn(size, options)))
        .into()
    }

    /// What is trained is what the loader of ordinary LoRA files merges.
    #[test]
    fn the_loader_merges_what_was_trained() {
        tch::manual_seed(1);
        let base = base();
        let updates = Updates::new(copied(&base), 3).unwrap();
        let trained = updates.source.tensors();
        assert_eq!(trained.len(), 4, "conv_in is none of LCM-LoRA's modules");
        for (key, tensor) in &updates.merged() {
            assert_eq!(tensor, &base[key], "an update begins as nothing");
        }
        tch::no_grad(|| trained.values().for_each(|t| _ = t.shallow_clone().normal_(0.0, 1.0)));
        let (wanted, mut loaded) = (updates.merged(), copied(&base));
        let tensors = trained.iter().map(|(k, t)| (k.clone(), t.detach())).collect();
        let file = WeightFile { file: "lora".into(), tensors, metadata: BTreeMap::new() };
        Lora::from_weights(file).unwrap().merge_into(&mut loaded, 1.0).unwrap();
        for (key, tensor) in &wanted {
            assert!((tensor - &loaded[key]).abs().max().double_value(&[]) < 1e-5, "{key}");
        }
        wanted.values().map(|t| t.square().sum(Kind::Float)).fold(Tensor::from(0.0), |a, b| a + b).backward();
        assert!(trained.values().all(|t| t.grad().defined()), "gradients reach every update");
    }

    fn copied(tensors: &BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
        tensors.iter().map(|(k, t)| (k.clone(), t.copy())).collect()
    }

    /// Each sample at its own time, against the samplers, which take one for all.
    #[test]
    fn steps_are_those_of_the_samplers() {
        tch::manual_seed(2);
        let config = scheduler::SchedulerConfig {
            prediction_type: scheduler::PredictionType::VPrediction,
            rescale_betas_zero_snr: true,
            ..Default::default()
        };
        let steps = Consistency::new(&config).unwrap();
        let (from, to) = ([999, 499, 19], [979, 479, 0]);
        let random = || Tensor::randn([3, 4, 2, 5, 5], (Kind::Float, Device::Cpu));
        let (answer, noisy) = (random(), random());
        let (solved, clean) = (steps.solve(&answer, &noisy, &from, &to), steps.clean(&answer, &noisy, &from));
        for i in 0..3 {
            let one = |t: &Tensor| t.narrow(0, i as i64, 1);
            let ddim = scheduler::DdimScheduler::at(&config, vec![from[i], to[i]]).unwrap();
            let wanted = ddim.step(&one(&answer), 0, &one(&noisy), None).unwrap().prev;
            assert!((one(&solved) - wanted).abs().max().double_value(&[]) < 1e-4, "{i}");
            let lcm = LcmScheduler::at(&config, vec![from[i]]).unwrap();
            let wanted = lcm.step(&one(&answer), 0, &one(&noisy), None).unwrap().denoised;
            assert!((one(&clean) - wanted).abs().max().double_value(&[]) < 1e-4, "{i}");
        }
    }
}
