//! Between the stages: normalises the autoencoder's latents and encodes the pool once.

use crate::{
    checkpoint,
    data::{self, Pool},
};
use anyhow::{Context, Result};
use keyframed_models::{
    Source,
    vae::{AutoencoderKl, AutoencoderKlConfig},
};
use std::{collections::BTreeMap, path::Path};
use tch::{Device, Kind, Tensor};

/// Folds each latent channel's mean and deviation into `quant_conv` and
/// `post_quant_conv`, so that `scaling_factor · latent` has mean 0 and deviation 1.
pub fn normalise(
    weights: &mut BTreeMap<String, Tensor>,
    mean: &[f64],
    deviation: &[f64],
    scaling: f64,
) -> Result<()> {
    let channels = mean.len() as i64;
    tch::no_grad(|| {
        let get =
            |name: &str| weights.get(name).map(Tensor::copy).with_context(|| format!("no tensor {name}"));
        let (quant, quant_bias) = (get("quant_conv.weight")?, get("quant_conv.bias")?);
        let (post, post_bias) = (get("post_quant_conv.weight")?, get("post_quant_conv.bias")?);
        let shift = Tensor::from_slice(mean).to_kind(Kind::Float);
        let scale = Tensor::from_slice(deviation).to_kind(Kind::Float) * scaling;
        let column = scale.view([-1, 1, 1, 1]);
        // The variance half is never sampled: zero it rather than keep noise.
        let quant = Tensor::cat(
            &[quant.narrow(0, 0, channels) / &column, quant.narrow(0, channels, channels).zeros_like()],
            0,
        );
        let quant_bias = Tensor::cat(
            &[
                (quant_bias.narrow(0, 0, channels) - &shift) / &scale,
                quant_bias.narrow(0, channels, channels).zeros_like(),
            ],
            0,
        );
        let post_bias = post_bias + post.squeeze_dim(3).squeeze_dim(2).matmul(&shift);
        let post = post * scale.view([1, -1, 1, 1]);
        for (name, tensor) in [
            ("quant_conv.weight", quant),
            ("quant_conv.bias", quant_bias),
            ("post_quant_conv.weight", post),
            ("post_quant_conv.bias", post_bias),
        ] {
            weights.insert(name.to_owned(), tensor);
        }
        Ok(())
    })
}

/// Mean and deviation of each latent channel over the pool.
///
/// # Errors
/// The pool is empty.
pub fn statistics(vae: &AutoencoderKl, pool: &Pool) -> Result<(Vec<f64>, Vec<f64>)> {
    let pictures: Vec<&data::Picture> =
        pool.albums.iter().filter_map(|album| album.targets.first()).take(256).collect();
    let latents = encode(vae, &pictures, pool.size);
    let side = latents.transpose(0, 1).flatten(1, -1).to_kind(Kind::Double);
    let list = |t: Tensor| Vec::<f64>::try_from(t).context("no pictures to measure latents on");
    Ok((list(side.mean_dim(1, false, Kind::Double))?, list(side.std_dim(1, true, false))?))
}

/// Mean latents `[n, 4, h/8, w/8]` of pictures, in batches.
pub fn encode(vae: &AutoencoderKl, pictures: &[&data::Picture], size: usize) -> Tensor {
    let parts: Vec<Tensor> = pictures
        .chunks(8)
        .map(|chunk| {
            let batch: Vec<Tensor> = chunk.iter().map(|p| data::picture_tensor(&p.rgb, size)).collect();
            tch::no_grad(|| vae.encode_moments(&Tensor::cat(&batch, 0)).mean.to_kind(Kind::Float))
        })
        .collect();
    Tensor::cat(&parts, 0)
}

/// Loads the autoencoder that stage `vae` exported.
///
/// # Errors
/// The file is missing or does not fit the configuration.
pub fn load(file: &Path, config: &AutoencoderKlConfig) -> Result<AutoencoderKl> {
    let source =
        Source::loaded(file, checkpoint::read(file)?, Device::Cpu, Kind::Float).packed(Some(Kind::Float));
    Ok(AutoencoderKl::new(&source.root(), config)?)
}

/// Latents of every picture of the pool, scaled to deviation 1.
pub struct Latents {
    /// Per person `[references, 4, h, w]`.
    pub references: Vec<Tensor>,
    /// Per person `[targets, 4, h, w]`.
    pub targets: Vec<Tensor>,
}

impl Latents {
    /// Encodes the pool with `vae`.
    pub fn of(vae: &AutoencoderKl, pool: &Pool, scaling: f64) -> Self {
        let bar = indicatif::ProgressBar::new(pool.albums.len() as u64).with_prefix("latents");
        let mut latents = Self { references: Vec::new(), targets: Vec::new() };
        for album in &pool.albums {
            bar.inc(1);
            let list = |pictures: &[data::Picture]| {
                encode(vae, &pictures.iter().collect::<Vec<_>>(), pool.size) * scaling
            };
            latents.references.push(list(&album.references));
            latents.targets.push(list(&album.targets));
        }
        latents
    }
}
