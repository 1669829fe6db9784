//! The noise schedule that samplers and training share.

use super::config::{BetaSchedule, PredictionType, SchedulerConfig};
use crate::error::Result;
use tch::{Device, Kind, Tensor};

const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);

/// Variances per timestep, and what follows from them.
#[derive(Debug)]
pub struct NoiseSchedule {
    betas: Tensor,
    alphas_cumprod: Tensor,
    /// The same as numbers: √ᾱ and √(1−ᾱ) are looked up per step.
    alphas: Vec<f64>,
    prediction: PredictionType,
    clip: Option<f64>,
}

impl NoiseSchedule {
    /// # Errors
    /// [`crate::ModelError::Config`].
    pub fn new(config: &SchedulerConfig) -> Result<Self> {
        config.check()?;
        tch::no_grad(|| Self::build(config))
    }

    // In float32 and in diffusers' order of operations: the products of a
    // thousand factors are part of the published behaviour.
    fn build(config: &SchedulerConfig) -> Result<Self> {
        let count = config.num_train_timesteps;
        let (start, end) = (config.beta_start, config.beta_end);
        let mut betas = match (&config.trained_betas, config.beta_schedule) {
            (Some(given), _) => Tensor::from_slice(given).to_kind(Kind::Float),
            (None, BetaSchedule::Linear) => Tensor::f_linspace(start, end, count, CPU)?,
            (None, BetaSchedule::ScaledLinear) => {
                Tensor::f_linspace(start.sqrt(), end.sqrt(), count, CPU)?.square()
            }
        };
        if config.rescale_betas_zero_snr {
            betas = without_signal_at_the_end(&betas);
        }
        let alphas_cumprod = rest_of(&betas).cumprod(0, Kind::Float);
        let alphas = Vec::<f64>::try_from(alphas_cumprod.to_kind(Kind::Double))?;
        let clip = config.clip_sample.then_some(config.clip_sample_range);
        Ok(Self { betas, alphas_cumprod, alphas, prediction: config.prediction_type, clip })
    }

    /// β, `[num_train_timesteps]`.
    pub fn betas(&self) -> &Tensor {
        &self.betas
    }

    /// ᾱ, `[num_train_timesteps]`: the share of the signal's power at each timestep.
    pub fn alphas_cumprod(&self) -> &Tensor {
        &self.alphas_cumprod
    }

    /// What the network predicts.
    pub fn prediction_type(&self) -> PredictionType {
        self.prediction
    }

    /// ᾱ at `t`; 1 before the first timestep.
    pub fn alpha(&self, t: i64) -> f64 {
        usize::try_from(t).map_or(1.0, |t| self.alphas[t.min(self.alphas.len() - 1)])
    }

    /// `[b, …]` clean samples with `noise` added for `timesteps` `[b]` (int64).
    pub fn add_noise(&self, clean: &Tensor, noise: &Tensor, timesteps: &Tensor) -> Tensor {
        let (signal, rest) = self.shares(clean, timesteps);
        signal * clean + rest * noise
    }

    /// The velocity that belongs to a clean sample and its noise: the training
    /// target of a v-predicting network.
    pub fn velocity(&self, clean: &Tensor, noise: &Tensor, timesteps: &Tensor) -> Tensor {
        let (signal, rest) = self.shares(clean, timesteps);
        signal * noise - rest * clean
    }

    /// Noise-free samples from a network's answers to `noisy` at `timesteps` `[b]`.
    pub fn clean_of(&self, answer: &Tensor, noisy: &Tensor, timesteps: &Tensor) -> Tensor {
        let (signal, rest) = self.shares(noisy, timesteps);
        match self.prediction {
            PredictionType::Epsilon => (noisy - rest * answer) / signal,
            PredictionType::VPrediction => signal * noisy - rest * answer,
            PredictionType::Sample => answer.shallow_clone(),
        }
    }

    /// √ᾱ and √(1−ᾱ) per batch row, shaped to multiply `like`.
    fn shares(&self, like: &Tensor, timesteps: &Tensor) -> (Tensor, Tensor) {
        let table = self.alphas_cumprod.to_device(like.device());
        let alphas = table.index_select(0, &timesteps.to_device(like.device()));
        let mut shape = vec![1; like.dim()];
        shape[0] = alphas.size()[0];
        let alphas = alphas.view(shape.as_slice());
        let kind = like.kind();
        (alphas.sqrt().to_kind(kind), rest_of(&alphas).sqrt().to_kind(kind))
    }

    /// One timestep for all: (noise-free sample, noise) from a network's answer,
    /// the former clamped if the configuration says so.
    pub(super) fn split(&self, answer: &Tensor, sample: &Tensor, t: i64) -> (Tensor, Tensor) {
        let alpha = self.alpha(t);
        let (signal, rest) = (alpha.sqrt(), (1.0 - alpha).sqrt());
        let (clean, noise) = match self.prediction {
            PredictionType::Epsilon => ((sample - answer * rest) / signal, answer.shallow_clone()),
            PredictionType::VPrediction => (sample * signal - answer * rest, answer * signal + sample * rest),
            PredictionType::Sample => (answer.shallow_clone(), (sample - answer * signal) / rest),
        };
        match self.clip {
            Some(range) => (clean.clamp(-range, range), noise),
            None => (clean, noise),
        }
    }
}

fn rest_of(share: &Tensor) -> Tensor {
    1.0 - share
}

/// Shifts and scales √ᾱ so that the first value stays and the last becomes zero.
fn without_signal_at_the_end(betas: &Tensor) -> Tensor {
    let root = rest_of(betas).cumprod(0, Kind::Float).sqrt();
    let count = root.size()[0];
    let (first, last) = (root.get(0), root.get(count - 1));
    let root = (root - &last) * (&first / (&first - &last));
    let product = root.square();
    let ratios = product.narrow(0, 1, count - 1) / product.narrow(0, 0, count - 1);
    1.0 - Tensor::cat(&[product.narrow(0, 0, 1), ratios], 0)
}
