//! Deterministic DDIM (diffusers' `schedulers/scheduling_ddim.py`, eta 0).

use super::{
    NoiseSchedule, Scheduler, SchedulerConfig, Step, TimestepSpacing, check_timesteps, config::fail,
    timestep_at,
};
use crate::error::Result;
use tch::Tensor;

/// Each step moves along the predicted noise to the next timestep.
#[derive(Debug)]
pub struct DdimScheduler {
    schedule: NoiseSchedule,
    timesteps: Vec<i64>,
    /// Where each step arrives; below zero after the last.
    arrivals: Vec<i64>,
    /// ᾱ after the last step.
    final_alpha: f64,
}

impl DdimScheduler {
    /// `steps` timesteps spread as the configuration says.
    ///
    /// # Errors
    /// [`crate::ModelError::Config`].
    pub fn new(config: &SchedulerConfig, steps: usize) -> Result<Self> {
        let (count, wanted) = (config.num_train_timesteps, steps as i64);
        if !(1..=count).contains(&wanted) {
            return fail(format!("steps must be 1..{count}, not {steps}"));
        }
        let timesteps = spaced(config, wanted);
        let ratio = count / wanted;
        let arrivals = timesteps.iter().map(|t| t - ratio).collect();
        Self::with(config, timesteps, arrivals)
    }

    /// The timesteps given one by one; each step arrives at the next one.
    ///
    /// # Errors
    /// [`crate::ModelError::Config`].
    pub fn at(config: &SchedulerConfig, timesteps: Vec<i64>) -> Result<Self> {
        let arrivals = timesteps.iter().skip(1).copied().chain([-1]).collect();
        Self::with(config, timesteps, arrivals)
    }

    fn with(config: &SchedulerConfig, timesteps: Vec<i64>, arrivals: Vec<i64>) -> Result<Self> {
        let schedule = NoiseSchedule::new(config)?;
        check_timesteps(config, &timesteps)?;
        let final_alpha = if config.set_alpha_to_one { 1.0 } else { schedule.alpha(0) };
        Ok(Self { schedule, timesteps, arrivals, final_alpha })
    }
}

fn spaced(config: &SchedulerConfig, steps: i64) -> Vec<i64> {
    let count = config.num_train_timesteps;
    let each = |f: &dyn Fn(i64) -> i64| (0..steps).map(f).collect();
    match config.timestep_spacing {
        TimestepSpacing::Leading => each(&|i| (steps - 1 - i) * (count / steps) + config.steps_offset),
        TimestepSpacing::Trailing => {
            let ratio = count as f64 / steps as f64;
            each(&|i| (count as f64 - i as f64 * ratio).round_ties_even() as i64 - 1)
        }
        TimestepSpacing::Linspace => {
            let ratio = (count - 1) as f64 / (steps - 1).max(1) as f64;
            each(&|i| ((steps - 1 - i) as f64 * ratio).round_ties_even() as i64)
        }
    }
}

impl Scheduler for DdimScheduler {
    fn timesteps(&self) -> &[i64] {
        &self.timesteps
    }

    fn step(&self, answer: &Tensor, index: usize, sample: &Tensor, _noise: Option<&Tensor>) -> Result<Step> {
        let t = timestep_at(&self.timesteps, index)?;
        let arrival = timestep_at(&self.arrivals, index)?;
        let (denoised, noise) = self.schedule.split(answer, sample, t);
        let alpha = if arrival < 0 { self.final_alpha } else { self.schedule.alpha(arrival) };
        let prev = &denoised * alpha.sqrt() + noise * (1.0 - alpha).sqrt();
        Ok(Step { prev, denoised })
    }

    fn needs_noise(&self, _index: usize) -> bool {
        false
    }

    fn schedule(&self) -> &NoiseSchedule {
        &self.schedule
    }
}
