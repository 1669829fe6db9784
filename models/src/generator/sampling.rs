//! Denoising a window or a whole clip, one step at a time.

use crate::{
    error::{ModelError, Result},
    nn::Memory,
    reference::ProjectedBank,
    scheduler::{Scheduler, Step},
    stack::Stack,
    unet::Begun,
};
use tch::{Kind, Tensor};

/// What stays the same over the steps of one clip.
pub struct Sampling<'a> {
    /// The networks.
    pub stack: &'a Stack,
    /// The sampler.
    pub scheduler: &'a dyn Scheduler,
    /// The reference at each of the sampler's timesteps.
    pub banks: &'a [ProjectedBank],
    /// The first step's part that no pose reaches, if the latents are always the same there: see
    /// [`Stack::begin`](crate::stack::Stack::begin).
    pub begun: Option<&'a Begun>,
    /// The poses, embedded: `[f, c, h, w]`.
    pub embedded: &'a Tensor,
    /// Which frames the U-Net sees together.
    pub windows: &'a [Vec<i64>],
    /// Guidance; 1 or less runs the conditional prediction alone.
    pub guidance: f64,
    /// Weight of the poses.
    pub controlnet_scale: f64,
}

impl Sampling<'_> {
    fn guided(&self) -> bool {
        self.guidance > 1.0
    }

    /// The U-Net's raw answers at step `index`, one per window:
    /// `[1 or 2, c, window, h, w]`, the unconditional one first.
    ///
    /// A `memory` goes with one window only.
    ///
    /// # Errors
    /// [`ModelError`] for tensors that do not fit together.
    pub fn predict(&self, latents: &Tensor, index: usize, memory: Option<&Memory>) -> Result<Vec<Tensor>> {
        let (Some(&t), Some(bank)) = (self.scheduler.timesteps().get(index), self.banks.get(index)) else {
            return Err(ModelError::Input(format!("step {index} has no timestep or no reference bank")));
        };
        // The pose network sees each frame alone: windows change nothing for it.
        let whole = self.embedded.size().first().copied().unwrap_or(0);
        let each = |window: &Vec<i64>| {
            let step = |own: &Tensor, poses: &Tensor| {
                let residuals = self.stack.residuals(own, t, poses, self.controlnet_scale)?;
                if let Some(begun) = self.begun.filter(|_| index == 0) {
                    return self.stack.predict_from(begun, t, &residuals, bank);
                }
                self.stack.predict(own, t, &residuals, bank, self.guided(), memory)
            };
            if window.iter().copied().eq(0..whole) {
                return step(latents, self.embedded);
            }
            let frames = Tensor::from_slice(window).to_device(latents.device());
            step(&latents.index_select(2, &frames), &self.embedded.index_select(0, &frames))
        };
        self.windows.iter().map(each).collect()
    }

    /// The prediction for the clip in float32: windows averaged where they overlap, then guided.
    pub fn join(&self, raw: &[Tensor]) -> Tensor {
        let mean = self.mean(raw).to_kind(Kind::Float);
        if !self.guided() {
            return mean;
        }
        let (unconditional, conditional) = (mean.narrow(0, 0, 1), mean.narrow(0, 1, 1));
        &unconditional + (conditional - &unconditional) * self.guidance
    }

    fn mean(&self, raw: &[Tensor]) -> Tensor {
        if let [only] = raw {
            return only.shallow_clone();
        }
        let Some(first) = raw.first() else { return Tensor::new() };
        let mut size = first.size();
        size[2] = self.embedded.size()[0];
        let mut sum = Tensor::zeros(size.as_slice(), (first.kind(), first.device()));
        let mut count = Tensor::zeros([1, 1, size[2], 1, 1], (first.kind(), first.device()));
        for (answer, window) in raw.iter().zip(self.windows) {
            let frames = Tensor::from_slice(window).to_device(first.device());
            sum = sum.index_add(2, &frames, answer);
            let one = Tensor::ones([1, 1, window.len() as i64, 1, 1], (first.kind(), first.device()));
            count = count.index_add(2, &frames, &one);
        }
        sum / count
    }

    /// One denoising step of the whole clip `[1, c, f, h, w]`.
    ///
    /// # Errors
    /// As [`Sampling::predict`] and [`Scheduler::step`].
    pub fn step(&self, latents: &Tensor, index: usize, noise: Option<&Tensor>) -> Result<Step> {
        let guided = self.join(&self.predict(latents, index, None)?);
        self.scheduler.step(&guided, index, latents, noise)
    }
}
