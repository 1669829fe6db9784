//! Latent consistency sampling (diffusers' `schedulers/scheduling_lcm.py`).

use super::{NoiseSchedule, Scheduler, SchedulerConfig, Step, check_timesteps, config::fail, timestep_at};
use crate::error::Result;
use tch::Tensor;

/// Standard deviation of the data in the boundary conditions.
const SIGMA_DATA: f64 = 0.5;

/// Each step jumps to the noise-free sample and, except the last, noises it anew.
#[derive(Debug)]
pub struct LcmScheduler {
    schedule: NoiseSchedule,
    timesteps: Vec<i64>,
    scaling: f64,
}

impl LcmScheduler {
    /// `steps` timesteps picked evenly from the distillation's.
    ///
    /// # Errors
    /// [`crate::ModelError::Config`].
    pub fn new(config: &SchedulerConfig, steps: usize) -> Result<Self> {
        Self::with_strength(config, steps, 1.0)
    }

    /// As [`LcmScheduler::new`], starting at `strength` (0..1) of the schedule.
    ///
    /// # Errors
    /// [`crate::ModelError::Config`].
    pub fn with_strength(config: &SchedulerConfig, steps: usize, strength: f64) -> Result<Self> {
        let timesteps = spaced(config, steps, strength)?;
        Self::at(config, timesteps)
    }

    /// The timesteps given one by one.
    ///
    /// # Errors
    /// [`crate::ModelError::Config`].
    pub fn at(config: &SchedulerConfig, timesteps: Vec<i64>) -> Result<Self> {
        let schedule = NoiseSchedule::new(config)?;
        check_timesteps(config, &timesteps)?;
        Ok(Self { schedule, timesteps, scaling: config.timestep_scaling })
    }

    /// (c_skip, c_out): at timestep 0 the sample itself, elsewhere almost only the estimate.
    pub fn boundary(&self, t: i64) -> (f64, f64) {
        let scaled = t as f64 * self.scaling;
        let sum = scaled * scaled + SIGMA_DATA * SIGMA_DATA;
        (SIGMA_DATA * SIGMA_DATA / sum, scaled / sum.sqrt())
    }
}

fn spaced(config: &SchedulerConfig, steps: usize, strength: f64) -> Result<Vec<i64>> {
    let (count, original) = (config.num_train_timesteps, config.original_inference_steps);
    if !(1..=count).contains(&original) || !(0.0..=1.0).contains(&strength) {
        return fail(format!("original_inference_steps {original} or strength {strength} is out of range"));
    }
    let ratio = count / original;
    let available = (original as f64 * strength) as usize;
    if steps == 0 || steps > available {
        return fail(format!("steps must be 1..{available}, not {steps}"));
    }
    let spacing = available as f64 / steps as f64;
    let pick = |i: usize| available - (i as f64 * spacing).floor() as usize;
    Ok((0..steps).map(|i| pick(i) as i64 * ratio - 1).collect())
}

impl Scheduler for LcmScheduler {
    fn timesteps(&self) -> &[i64] {
        &self.timesteps
    }

    fn step(&self, answer: &Tensor, index: usize, sample: &Tensor, noise: Option<&Tensor>) -> Result<Step> {
        let t = timestep_at(&self.timesteps, index)?;
        let (clean, _) = self.schedule.split(answer, sample, t);
        let (c_skip, c_out) = self.boundary(t);
        let denoised = clean * c_out + sample * c_skip;
        let Some(&next) = self.timesteps.get(index + 1) else {
            return Ok(Step { prev: denoised.shallow_clone(), denoised });
        };
        let Some(noise) = noise else {
            return fail(format!("step {index} of LCM needs noise"));
        };
        let alpha = self.schedule.alpha(next);
        let prev = &denoised * alpha.sqrt() + noise * (1.0 - alpha).sqrt();
        Ok(Step { prev, denoised })
    }

    fn needs_noise(&self, index: usize) -> bool {
        index + 1 < self.timesteps.len()
    }

    fn schedule(&self) -> &NoiseSchedule {
        &self.schedule
    }
}
