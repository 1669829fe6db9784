//! The recipe file (`mini.toml`).

use anyhow::{Context, Result};
use keyframed_models::{
    controlnet::ControlNetConfig,
    film::FilmConfig,
    scheduler::SchedulerConfig,
    unet::{MotionConfig, UNetConfig},
    vae::AutoencoderKlConfig,
};
use serde::Deserialize;
use std::path::Path;

/// Everything that decides what a training makes.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Seed of people, poses, noise and initial weights.
    pub seed: u64,
    /// Picture side in pixels.
    pub size: usize,
    /// Batches of a step, each on a thread of its own; the weights follow their mean gradient.
    pub shards: usize,
    /// The pool of rendered pictures.
    pub data: Data,
    /// Autoencoder.
    pub vae: Vae,
    /// U-Net, ControlNet and appearance encoder together.
    pub denoise: Denoise,
    /// Attention over time; without it key frames know nothing of each other.
    pub motion: Option<Motion>,
    /// Distillation for few steps.
    pub lcm: Lcm,
    /// Frame interpolation.
    pub film: Film,
}

/// Size of the pool.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// Random people.
    pub people: usize,
    /// Target pictures of each random person.
    pub pictures_per_person: usize,
    /// Target pictures of each gallery avatar.
    pub gallery_pictures: usize,
    /// Reference pictures of each person.
    pub references: usize,
}

/// Stage `vae`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vae {
    /// Wall time of the stage; the step size falls to zero at its end.
    pub minutes: f64,
    /// Wall time of stage `decoder`.
    pub decoder_minutes: f64,
    /// Crops in a batch.
    pub batch: usize,
    /// Side of a crop in pixels.
    pub crop: usize,
    /// Forward passes in bfloat16: faster only where the CPU multiplies it natively.
    #[serde(default)]
    pub bf16: bool,
    /// Step size of Muon.
    pub muon_lr: f64,
    /// Step size of AdamW.
    pub adam_lr: f64,
    /// Standard deviation of the noise added to latents before decoding.
    pub latent_noise: f64,
    /// The autoencoder.
    pub network: AutoencoderKlConfig,
}

/// Stage `denoise`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Denoise {
    /// Wall time of the stage.
    pub minutes: f64,
    /// People in a batch.
    pub references: usize,
    /// Target pictures of each person in a batch.
    pub targets: usize,
    /// Forward passes in bfloat16: faster only where the CPU multiplies it natively.
    #[serde(default)]
    pub bf16: bool,
    /// Step size of Muon.
    pub muon_lr: f64,
    /// Step size of AdamW.
    pub adam_lr: f64,
    /// Share of gallery avatars among the people of a batch.
    pub gallery_share: f64,
    /// Last share of the stage, which trains mostly at the timesteps of the 4-step sampler.
    pub final_timesteps_share: f64,
    /// Denoising U-Net; the appearance encoder takes the same numbers.
    pub unet: UNetConfig,
    /// ControlNet.
    pub controlnet: ControlNetConfig,
    /// Noise schedule.
    pub scheduler: SchedulerConfig,
}

/// Stage `motion`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Motion {
    /// Wall time of the stage.
    pub minutes: f64,
    /// Sequences of key frames that are rendered.
    pub sequences: usize,
    /// Key frames of each, so that a new one sees at most one less.
    pub frames: usize,
    /// Sequences in a batch.
    pub batch: usize,
    /// Step size of Muon.
    pub muon_lr: f64,
    /// Step size of AdamW.
    pub adam_lr: f64,
    /// Downsampling factors of the U-Net's levels that have motion modules.
    pub resolutions: Vec<i64>,
    /// Shape of the motion modules.
    pub network: MotionConfig,
}

/// Stage `lcm`; batches are those of stage `denoise`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lcm {
    /// Wall time of the stage.
    pub minutes: f64,
    /// Rank of the updates.
    pub rank: i64,
    /// Step size of AdamW.
    pub adam_lr: f64,
}

/// Stage `film`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Film {
    /// Wall time of the stage.
    pub minutes: f64,
    /// Triplets in a batch.
    pub batch: usize,
    /// Side of a crop in pixels.
    pub crop: usize,
    /// Forward passes in bfloat16: faster only where the CPU multiplies it natively.
    #[serde(default)]
    pub bf16: bool,
    /// Step size of Muon.
    pub muon_lr: f64,
    /// Step size of AdamW.
    pub adam_lr: f64,
    /// The network.
    pub network: FilmConfig,
}

impl Vae {
    /// Gentle steps for a decoder that has learned already.
    pub fn adapting(network: AutoencoderKlConfig, size: usize) -> Self {
        Self {
            minutes: 0.0,
            decoder_minutes: 0.0,
            batch: 8,
            crop: size.min(128),
            bf16: false,
            muon_lr: 0.006,
            adam_lr: 3e-4,
            latent_noise: 0.08,
            network,
        }
    }
}

impl Denoise {
    /// Gentle steps for networks that have learned already, on one person.
    pub fn adapting(unet: UNetConfig, controlnet: ControlNetConfig, scheduler: SchedulerConfig) -> Self {
        Self {
            minutes: 0.0,
            references: 2,
            targets: 5,
            bf16: false,
            muon_lr: 0.005,
            adam_lr: 3e-4,
            gallery_share: 0.0,
            final_timesteps_share: 0.4,
            unet,
            controlnet,
            scheduler,
        }
    }
}

impl Recipe {
    /// The U-Net that is exported: with motion modules if there is a stage for them.
    pub fn unet(&self) -> UNetConfig {
        let Some(motion) = &self.motion else { return self.denoise.unet.clone() };
        UNetConfig {
            use_motion_module: true,
            motion_module_resolutions: motion.resolutions.clone(),
            motion_module_kwargs: motion.network.clone(),
            ..self.denoise.unet.clone()
        }
    }

    /// Reads a recipe.
    ///
    /// # Errors
    /// An unreadable file, an unknown key or a value of the wrong type, named.
    pub fn load(path: &Path) -> Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("{} is not a training recipe", path.display()))
    }
}
