//! The networks that make latents, as the stages `denoise` and `lcm` run them.

use crate::config;
use anyhow::Result;
use keyframed_models::{
    AppearanceEncoder, ControlNet, Fusion, Init, Reference, Source, UNet, scheduler::Scheduler,
};
use tch::{Device, Kind, Tensor};

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

    /// The networks' tensors by key.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// Prediction of the three networks for `[b, 4, f, h, w]` noisy latents.
    ///
    /// # Errors
    /// Shapes that do not fit together.
    pub fn predict(
        &self,
        noisy: &Tensor,
        times: &Tensor,
        reference: &Tensor,
        poses: &Tensor,
    ) -> Result<Tensor> {
        self.predict_by(&self.unet, noisy, times, reference, poses)
    }

    /// The same with another denoising network.
    ///
    /// # Errors
    /// As [`Networks::predict`].
    pub fn predict_by(
        &self,
        unet: &UNet,
        noisy: &Tensor,
        times: &Tensor,
        reference: &Tensor,
        poses: &Tensor,
    ) -> Result<Tensor> {
        let (people, frames) = (noisy.size()[0], noisy.size()[2]);
        let text = self.text.expand([people, -1, -1], true);
        let bank = self.appearance.forward(reference, times, &text)?;
        let flat = noisy.permute([0, 2, 1, 3, 4]).flatten(0, 1);
        let embedded = self.controlnet.embed_condition(poses)?;
        let residuals = self.controlnet.forward(
            &flat,
            &times.repeat_interleave_self_int(frames, 0, None),
            &text.repeat_interleave_self_int(frames, 0, None),
            &embedded,
            1.0,
        )?;
        let reference = Reference::hidden(&bank);
        Ok(unet.forward(noisy, times, &text, Some(&residuals), Some(&reference))?)
    }

    /// Samples one pose with fixed noise: `[1, 4, 1, h, w]`.
    ///
    /// # Errors
    /// As [`Networks::predict`].
    pub fn sample(
        &self,
        unet: &UNet,
        scheduler: &dyn Scheduler,
        reference: &Tensor,
        pose: &Tensor,
    ) -> Result<Tensor> {
        tch::manual_seed(1);
        let shape = [1, reference.size()[1], 1, reference.size()[2], reference.size()[3]];
        let noise = || Tensor::randn(shape, (Kind::Float, Device::Cpu));
        let mut latents = noise();
        for (index, &time) in scheduler.timesteps().iter().enumerate() {
            let out = self.predict_by(unet, &latents, &Tensor::from_slice(&[time]), reference, pose)?;
            latents = scheduler.step(&out, index, &latents, Some(&noise()))?.prev;
        }
        Ok(latents)
    }
}
