//! The published scheduler configuration.

use crate::error::{ModelError, Result};
use serde::{Deserialize, Serialize};

/// Which sampler a configuration is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum SamplerClass {
    /// Latent consistency sampling.
    #[default]
    #[serde(rename = "LCMScheduler")]
    Lcm,
    /// Deterministic DDIM (eta 0).
    #[serde(rename = "DDIMScheduler")]
    Ddim,
}

/// How the noise variance grows with the timestep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BetaSchedule {
    /// Evenly (MagicAnimate).
    Linear,
    /// Evenly in the square root (Stable Diffusion).
    ScaledLinear,
}

/// What the network predicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PredictionType {
    /// The noise.
    Epsilon,
    /// The velocity √ᾱ·noise − √(1−ᾱ)·sample.
    VPrediction,
    /// The noise-free sample.
    Sample,
}

/// How DDIM spreads its steps over the training timesteps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimestepSpacing {
    /// Multiples of the ratio, from 0 (plus `steps_offset`).
    Leading,
    /// Ends at the last timestep.
    Trailing,
    /// From the first to the last.
    Linspace,
}

/// The published `scheduler_config.json`; unknown names are ignored.
///
/// A missing entry has the default of diffusers' `LCMScheduler`, whatever the class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SchedulerConfig {
    /// The sampler.
    #[serde(rename = "_class_name")]
    pub class: SamplerClass,
    /// Length of the training schedule.
    pub num_train_timesteps: i64,
    /// Variance at the first timestep.
    pub beta_start: f64,
    /// Variance at the last timestep.
    pub beta_end: f64,
    /// What lies between.
    pub beta_schedule: BetaSchedule,
    /// Variances given one by one instead.
    pub trained_betas: Option<Vec<f64>>,
    /// LCM: the DDIM steps the consistency distillation used.
    pub original_inference_steps: i64,
    /// Whether to clamp estimates of the noise-free sample.
    pub clip_sample: bool,
    /// To ± this.
    pub clip_sample_range: f64,
    /// Whether the sample after the last DDIM step counts as noise-free.
    pub set_alpha_to_one: bool,
    /// DDIM, leading spacing: added to every timestep.
    pub steps_offset: i64,
    /// What the network predicts.
    pub prediction_type: PredictionType,
    /// Dynamic thresholding; only `false` exists.
    pub thresholding: bool,
    /// How DDIM spreads its steps.
    pub timestep_spacing: TimestepSpacing,
    /// LCM: factor on the timestep in the boundary conditions.
    pub timestep_scaling: f64,
    /// Whether to rescale the schedule so that the last timestep is pure noise
    /// (Lin et al., "Common Diffusion Noise Schedules and Sample Steps are Flawed").
    pub rescale_betas_zero_snr: bool,
}

impl Default for SchedulerConfig {
    fn default() -> Self {
        Self {
            class: SamplerClass::Lcm,
            num_train_timesteps: 1000,
            beta_start: 0.00085,
            beta_end: 0.012,
            beta_schedule: BetaSchedule::ScaledLinear,
            trained_betas: None,
            original_inference_steps: 50,
            clip_sample: false,
            clip_sample_range: 1.0,
            set_alpha_to_one: true,
            steps_offset: 0,
            prediction_type: PredictionType::Epsilon,
            thresholding: false,
            timestep_spacing: TimestepSpacing::Leading,
            timestep_scaling: 10.0,
            rescale_betas_zero_snr: false,
        }
    }
}

impl SchedulerConfig {
    /// Fails on values no schedule can be made from.
    pub(super) fn check(&self) -> Result<()> {
        let count = self.num_train_timesteps;
        let ordered = 0.0 < self.beta_start && self.beta_start <= self.beta_end && self.beta_end < 1.0;
        let given = self.trained_betas.as_ref();
        if !(2..=100_000).contains(&count) {
            fail(format!("num_train_timesteps {count} must be within 2..100000"))
        } else if given.is_none() && !ordered {
            fail(format!(
                "beta_start {} and beta_end {} must ascend within 0..1",
                self.beta_start, self.beta_end
            ))
        } else if given.is_some_and(|betas| betas.len() != count as usize) {
            fail("trained_betas must have num_train_timesteps entries".into())
        } else if self.thresholding {
            fail("thresholding is not known".into())
        } else if self.rescale_betas_zero_snr && self.prediction_type == PredictionType::Epsilon {
            fail("rescale_betas_zero_snr leaves nothing but noise at the last timestep, where a predicted noise says nothing: use v_prediction or sample".into())
        } else {
            Ok(())
        }
    }
}

pub(super) fn fail<T>(reason: String) -> Result<T> {
    Err(ModelError::Config(format!("scheduler: {reason}")))
}
