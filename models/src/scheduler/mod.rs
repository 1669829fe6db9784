//! Noise schedules and samplers, configured by the published `scheduler_config.json`.

mod config;
mod ddim;
mod lcm;
mod noise;

use crate::error::Result;
use tch::Tensor;

pub use config::{BetaSchedule, PredictionType, SamplerClass, SchedulerConfig, TimestepSpacing};
pub use ddim::DdimScheduler;
pub use lcm::LcmScheduler;
pub use noise::NoiseSchedule;

/// One step of a sampler.
#[derive(Debug)]
pub struct Step {
    /// The sample to go on with, at the next timestep.
    pub prev: Tensor,
    /// The sampler's estimate of the noise-free sample.
    pub denoised: Tensor,
}

/// Turns a network's predictions into samples, step by step.
pub trait Scheduler: Send {
    /// The timesteps to run, noisiest first.
    fn timesteps(&self) -> &[i64];

    /// From the sample at `timesteps()[index]` and the network's answer there to the next sample.
    ///
    /// `noise` is used only where [`Scheduler::needs_noise`] says so; without it
    /// such a step fails.
    ///
    /// # Errors
    /// [`crate::ModelError::Config`] for an index past the end or missing noise.
    fn step(
        &self,
        model_output: &Tensor,
        index: usize,
        sample: &Tensor,
        noise: Option<&Tensor>,
    ) -> Result<Step>;

    /// Whether the step at `index` adds fresh noise.
    fn needs_noise(&self, index: usize) -> bool;

    /// The schedule behind it, to noise clean samples and to make training targets.
    fn schedule(&self) -> &NoiseSchedule;

    /// Standard deviation of the first sample.
    fn init_noise_sigma(&self) -> f64 {
        1.0
    }
}

/// Builds the sampler that `config` names, with `steps` steps.
///
/// # Errors
/// [`crate::ModelError::Config`].
pub fn build(config: &SchedulerConfig, steps: usize) -> Result<Box<dyn Scheduler>> {
    Ok(match config.class {
        SamplerClass::Lcm => Box::new(LcmScheduler::new(config, steps)?),
        SamplerClass::Ddim => Box::new(DdimScheduler::new(config, steps)?),
    })
}

/// As [`build`], with the timesteps given instead of spaced, noisiest first.
///
/// # Errors
/// [`crate::ModelError::Config`] also if they are not strictly descending within the schedule.
pub fn build_at(config: &SchedulerConfig, timesteps: Vec<i64>) -> Result<Box<dyn Scheduler>> {
    Ok(match config.class {
        SamplerClass::Lcm => Box::new(LcmScheduler::at(config, timesteps)?),
        SamplerClass::Ddim => Box::new(DdimScheduler::at(config, timesteps)?),
    })
}

fn check_timesteps(config: &SchedulerConfig, timesteps: &[i64]) -> Result<()> {
    let within = timesteps.iter().all(|t| (0..config.num_train_timesteps).contains(t));
    if timesteps.is_empty() || !within || !timesteps.windows(2).all(|pair| pair[0] > pair[1]) {
        let last = config.num_train_timesteps - 1;
        return config::fail(format!("timesteps {timesteps:?} must descend strictly within {last}..0"));
    }
    Ok(())
}

fn timestep_at(timesteps: &[i64], index: usize) -> Result<i64> {
    match timesteps.get(index) {
        Some(&t) => Ok(t),
        None => config::fail(format!("step {index} does not exist, there are {}", timesteps.len())),
    }
}
