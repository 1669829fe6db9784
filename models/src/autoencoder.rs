//! The autoencoders under one roof, in the U-Net's latents.

use crate::{
    device::entering,
    error::{ModelError, Result},
    taesd::{AutoencoderTiny, AutoencoderTinyConfig},
    torch_ext::channels_last,
    vae::{AutoencoderKl, AutoencoderKlConfig},
    vars::Vars,
};
use tch::{Kind, Tensor};

/// Either autoencoder. Latents here are scaled as the U-Net wants them.
#[derive(Debug)]
pub struct Autoencoder {
    network: Network,
    kind: Kind,
}

#[derive(Debug)]
enum Network {
    /// The full one.
    Kl(Box<AutoencoderKl>),
    /// TAESD.
    Tiny(Box<AutoencoderTiny>),
}

/// Configuration of either.
#[derive(Debug, Clone, PartialEq)]
pub enum AutoencoderConfig {
    /// `_class_name` is `AutoencoderKL` or missing.
    Kl(AutoencoderKlConfig),
    /// `_class_name` is `AutoencoderTiny`.
    Tiny(AutoencoderTinyConfig),
}

impl AutoencoderConfig {
    /// How many times smaller the latents' sides are.
    pub fn downscale(&self) -> i64 {
        match self {
            Self::Kl(config) => config.downscale(),
            Self::Tiny(config) => config.downscale(),
        }
    }

    /// Channels of the latents.
    pub fn latent_channels(&self) -> i64 {
        match self {
            Self::Kl(config) => config.latent_channels,
            Self::Tiny(config) => config.latent_channels,
        }
    }
}

impl Autoencoder {
    /// The network that `config` describes.
    ///
    /// # Errors
    /// As the networks' own constructors.
    pub fn new(vars: &Vars, config: &AutoencoderConfig) -> Result<Self> {
        let network = match config {
            AutoencoderConfig::Kl(config) => Network::Kl(Box::new(AutoencoderKl::new(vars, config)?)),
            AutoencoderConfig::Tiny(config) => Network::Tiny(Box::new(AutoencoderTiny::new(vars, config)?)),
        };
        Ok(Self { network, kind: vars.kind() })
    }

    /// Pictures `[b, 3, h, w]` in −1..1 → the most likely latents (the mean, nothing sampled).
    ///
    /// # Errors
    /// [`ModelError::Input`] if the sides do not halve evenly down to the latents.
    pub fn encode(&self, image: &Tensor) -> Result<Tensor> {
        let factor = self.downscale();
        let size = image.size();
        if size.len() != 4 || size[2] % factor != 0 || size[3] % factor != 0 || size.contains(&0) {
            let reason = format!(
                "pictures of shape {size:?}, needed: [b, 3, h, w] with sides in multiples of {factor}"
            );
            return Err(ModelError::Input(reason));
        }
        let image = &channels_last(&entering(image, self.kind));
        Ok(match &self.network {
            Network::Kl(vae) => vae.encode_moments(image).mean * vae.config().scaling_factor,
            Network::Tiny(vae) => vae.encode(image) * vae.config().scaling_factor,
        })
    }

    /// Latents `[b, c, h, w]` → pictures, about −1..1, not clamped.
    pub fn decode(&self, latents: &Tensor) -> Tensor {
        // The layout stays through the network; a tenth faster on the processor.
        let latents = channels_last(latents);
        match &self.network {
            Network::Kl(vae) => vae.decode(&entering(&(latents / vae.config().scaling_factor), self.kind)),
            Network::Tiny(vae) => vae.decode(&entering(&(latents / vae.config().scaling_factor), self.kind)),
        }
    }

    /// How many times smaller the latents' sides are.
    pub fn downscale(&self) -> i64 {
        match &self.network {
            Network::Kl(vae) => vae.config().downscale(),
            Network::Tiny(vae) => vae.config().downscale(),
        }
    }
}
