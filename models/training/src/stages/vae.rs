//! Stages `vae` and `decoder`: the autoencoder, on crops that favour people and heads.
//!
//! `decoder` goes on with the decoder alone. The latents stay what they are, so
//! it can run after, or beside, the stages that learn to make latents.

use crate::{
    checkpoint, config,
    data::{self, Pool},
    optim::Rates,
    plot,
    stages::psnr,
    trainer::{Figure, Stage},
};
use anyhow::{Context, Result};
use keyframed_models::{Source, torch_ext::CpuAutocast, vae::AutoencoderKl};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use std::{collections::BTreeMap, path::Path};
use tch::{Device, Kind, Tensor};

/// Autoencoder in training.
pub struct VaeStage<'a> {
    recipe: &'a config::Vae,
    pool: &'a Pool,
    source: Source,
    network: AutoencoderKl,
    decoder_only: bool,
}

impl<'a> VaeStage<'a> {
    /// A fresh autoencoder.
    ///
    /// # Errors
    /// The configuration describes no network.
    pub fn new(recipe: &'a config::Vae, pool: &'a Pool) -> Result<Self> {
        let source = Source::fresh(Device::Cpu);
        let network = AutoencoderKl::new(&source.root(), &recipe.network)?;
        Ok(Self { recipe, pool, source, network, decoder_only: false })
    }

    /// The decoder of the autoencoder in `file`; its encoder is frozen.
    ///
    /// # Errors
    /// The file is missing or holds another network.
    pub fn decoder(recipe: &'a config::Vae, pool: &'a Pool, file: &Path) -> Result<Self> {
        let stage = Self { decoder_only: true, ..Self::new(recipe, pool)? };
        let trained = checkpoint::read(file)?;
        for (name, tensor) in stage.source.tensors() {
            let value = trained.get(&name).with_context(|| format!("{} has no {name}", file.display()))?;
            tch::no_grad(|| tensor.shallow_clone().copy_(value));
        }
        Ok(stage)
    }

    /// Every tensor of the autoencoder.
    pub fn weights(&self) -> BTreeMap<String, Tensor> {
        self.source.tensors()
    }

    /// Noise added to latents in training: they deviate by 1 only after normalisation.
    fn latent_noise(&self) -> f64 {
        let unit = if self.decoder_only { 1.0 / self.recipe.network.scaling_factor } else { 1.0 };
        self.recipe.latent_noise * unit
    }

    /// The autoencoder.
    pub fn network(&self) -> &AutoencoderKl {
        &self.network
    }

    /// `[b, 3, crop, crop]` pictures and `[b, 1, crop, crop]` weights.
    fn batch(&self, rng: &mut ChaCha8Rng) -> (Tensor, Tensor) {
        let (size, crop) = (self.pool.size, self.recipe.crop);
        let mut pictures = Vec::new();
        let mut weights = Vec::new();
        for _ in 0..self.recipe.batch {
            let picture = self.pool.any(rng);
            let (x, y) = corner(&picture.labels, size, crop, rng);
            let cut = |t: Tensor| t.narrow(2, y as i64, crop as i64).narrow(3, x as i64, crop as i64);
            pictures.push(cut(data::picture_tensor(&picture.rgb, size)));
            weights.push(cut(data::weights(&picture.labels, size, 0.6, 1.4, 4.0)));
        }
        (Tensor::cat(&pictures, 0).contiguous(), Tensor::cat(&weights, 0).contiguous())
    }
}

/// Top-left corner of a crop that holds a pixel of the head (40 %) or of the body.
fn corner(labels: &[u8], size: usize, crop: usize, rng: &mut ChaCha8Rng) -> (usize, usize) {
    let least = if rng.random_bool(0.4) { 23 } else { 1 };
    let inside: Vec<usize> = (0..labels.len()).step_by(7).filter(|&i| labels[i] >= least).collect();
    let at = if inside.is_empty() { rng.random_range(0..labels.len()) } else { *data::pick(&inside, rng) };
    let mut place = |centre: usize| centre.saturating_sub(rng.random_range(0..crop)).min(size - crop);
    (place(at % size), place(at / size))
}

/// Absolute error of values and of their horizontal and vertical differences, weighted, plus squared error and
/// the error of 8×8 averages.
fn reconstruction_loss(made: &Tensor, truth: &Tensor, weight: &Tensor) -> Tensor {
    let error = made - truth;
    let across =
        (error.slice(3, 1, None, 1) - error.slice(3, None, -1, 1)).abs() * weight.slice(3, 1, None, 1);
    let down = (error.slice(2, 1, None, 1) - error.slice(2, None, -1, 1)).abs() * weight.slice(2, 1, None, 1);
    let mean = |t: Tensor| t.mean(Kind::Float);
    mean(error.abs() * weight) + (mean(across) + mean(down)) * 0.5 + mean(error.square() * weight) * 1.5
}

impl Stage for VaeStage<'_> {
    fn name(&self) -> &'static str {
        if self.decoder_only { "decoder" } else { "vae" }
    }

    fn params(&self) -> BTreeMap<String, Tensor> {
        let mut params = self.source.tensors();
        params.retain(|name, _| {
            !self.decoder_only || name.starts_with("decoder.") || name.starts_with("post_quant")
        });
        params
    }

    fn rates(&self) -> Rates {
        Rates { muon: self.recipe.muon_lr, adam: self.recipe.adam_lr, weight_decay: 0.0 }
    }

    fn loss(&self, rng: &mut ChaCha8Rng, _progress: f64) -> Result<(Tensor, Vec<Figure>)> {
        let (truth, weight) = self.batch(rng);
        let (latent, made) = {
            let _bf16 = self.recipe.bf16.then(CpuAutocast::enter);
            let encode = || self.network.encode_moments(&truth).mean;
            let latent = if self.decoder_only { tch::no_grad(encode) } else { encode() };
            let noisy = &latent + data::noise_like(&latent, rng) * self.latent_noise();
            let made = self.network.decode(&noisy);
            (latent.to_kind(Kind::Float), made.to_kind(Kind::Float))
        };
        let loss = reconstruction_loss(&made, &truth, &weight) + latent.square().mean(Kind::Float) * 3e-4;
        let mse = (&made - &truth).square().mean(Kind::Float).double_value(&[]);
        Ok((loss, vec![("psnr", psnr(mse)), ("latent", latent.std(true).double_value(&[]))]))
    }

    fn sheet(&self, path: &Path) -> Result<Vec<Figure>> {
        let size = self.pool.size;
        let (mut truth_row, mut made_row, mut whole, mut person) = (Vec::new(), Vec::new(), 0.0, 0.0);
        let each = if self.pool.albums.len() == 1 { 8 } else { 1 };
        let last = self.pool.albums.iter().flat_map(|album| album.targets.iter().rev().take(each));
        let mut count = 0.0;
        for picture in last.take(8) {
            let truth = data::picture_tensor(&picture.rgb, size);
            let made = self.network.decode(&self.network.encode_moments(&truth).mean).clamp(-1.0, 1.0);
            let error = (&made - &truth).square();
            let body = data::weights(&picture.labels, size, 0.0, 1.0, 1.0);
            whole += psnr(error.mean(Kind::Float).double_value(&[]));
            let inside = (&error * &body).sum(Kind::Float) / (body.sum(Kind::Float) * 3.0 + 1.0);
            person += psnr(inside.double_value(&[]));
            count += 1.0;
            truth_row.push(picture.rgb.clone());
            made_row.push(data::bytes(&made));
        }
        plot::grid(path, &[truth_row, made_row], size)?;
        Ok(vec![("psnr", whole / count), ("person", person / count)])
    }
}
