//! AutoencoderTiny (TAESD): a small convolutional stand-in for the autoencoder.
//!
//! Structure follows diffusers' `AutoencoderTiny`
//! (`models/autoencoders/autoencoder_tiny.py`) and the original two-file
//! layout of `madebyollin/taesd`; both spellings of the keys are read.

use crate::{
    checkpoint::limits,
    error::{ModelError, Result},
    kernels::Activation,
    nn::Conv2d,
    vars::Vars,
};
use serde::{Deserialize, Serialize};
use tch::Tensor;

/// The published `config.json` of an `AutoencoderTiny`; unknown names are ignored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AutoencoderTinyConfig {
    /// Channels of the picture.
    pub in_channels: i64,
    /// Channels of the decoded picture.
    pub out_channels: i64,
    /// Channels of the latents.
    pub latent_channels: i64,
    /// Width of each encoder level, finest first.
    pub encoder_block_out_channels: Vec<i64>,
    /// Width of each decoder level, coarsest first.
    pub decoder_block_out_channels: Vec<i64>,
    /// Activation; only `relu` exists.
    pub act_fn: String,
    /// Blocks of each encoder level.
    pub num_encoder_blocks: Vec<i64>,
    /// Blocks of each decoder level.
    pub num_decoder_blocks: Vec<i64>,
    /// Latents lie within ± this when stored as a picture.
    pub latent_magnitude: f64,
    /// Where zero lies when latents are stored as a picture.
    pub latent_shift: f64,
    /// Factor between this network's latents and the U-Net's.
    pub scaling_factor: f64,
}

impl Default for AutoencoderTinyConfig {
    /// madebyollin/taesd.
    fn default() -> Self {
        Self {
            in_channels: 3,
            out_channels: 3,
            latent_channels: 4,
            encoder_block_out_channels: vec![64; 4],
            decoder_block_out_channels: vec![64; 4],
            act_fn: "relu".into(),
            num_encoder_blocks: vec![1, 3, 3, 3],
            num_decoder_blocks: vec![3, 3, 3, 1],
            latent_magnitude: 3.0,
            latent_shift: 0.5,
            scaling_factor: 1.0,
        }
    }
}

impl AutoencoderTinyConfig {
    fn check(&self) -> Result<()> {
        let pairs = [
            (&self.encoder_block_out_channels, &self.num_encoder_blocks),
            (&self.decoder_block_out_channels, &self.num_decoder_blocks),
        ];
        let fits = |(widths, counts): &(&Vec<i64>, &Vec<i64>)| {
            (1..=limits::LEVELS).contains(&widths.len())
                && widths.len() == counts.len()
                && widths.iter().all(|&n| n > 0)
                && counts.iter().all(|count| (1..=limits::LAYERS).contains(count))
        };
        if self.act_fn != "relu" {
            return Err(ModelError::Config(format!("taesd: act_fn `{}` is not known", self.act_fn)));
        }
        if !pairs.iter().all(fits) || !self.scaling_factor.is_normal() {
            let reason = format!(
                "taesd: there must be 1..{} levels, each with a positive width and 1..{} blocks, and scaling_factor \
                 must have a value",
                limits::LEVELS,
                limits::LAYERS
            );
            return Err(ModelError::Config(reason));
        }
        Ok(())
    }

    /// How many times smaller the latents' sides are.
    pub fn downscale(&self) -> i64 {
        1 << (self.encoder_block_out_channels.len().max(1) - 1).min(30)
    }
}

/// Three convolutions with a residual.
#[derive(Debug)]
struct Block {
    convs: [Conv2d; 3],
}

impl Block {
    fn new(vars: &Vars, width: i64) -> Result<Self> {
        let conv = |i: i64| Conv2d::new(&(vars / "conv" / i), width, width, 3);
        Ok(Self { convs: [conv(0)?, conv(2)?, conv(4)?] })
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let h = self.convs[0].forward_then(x, Activation::Relu);
        let h = self.convs[1].forward_then(&h, Activation::Relu);
        self.convs[2].forward_plus(&h, x).relu()
    }
}

/// The networks are plain lists whose positions number the keys.
#[derive(Debug)]
enum Layer {
    Conv(Conv2d),
    Block(Block),
    Relu,
    Double,
}

fn run(layers: &[Layer], x: Tensor) -> Tensor {
    layers.iter().fold(x, |x, layer| match layer {
        Layer::Conv(conv) => conv.forward(&x),
        Layer::Block(block) => block.forward(&x),
        Layer::Relu => x.relu(),
        Layer::Double => double(&x),
    })
}

/// Nearest-neighbour upsampling by two.
fn double(x: &Tensor) -> Tensor {
    let size = x.size();
    let (h, w) = (size[2], size[3]);
    x.upsample_nearest2d([2 * h, 2 * w], None, None)
}

fn encoder(vars: &Vars, config: &AutoencoderTinyConfig) -> Result<Vec<Layer>> {
    let mut layers = Vec::new();
    let mut from = config.in_channels;
    let levels = config.encoder_block_out_channels.iter().zip(&config.num_encoder_blocks);
    for (level, (&width, &blocks)) in levels.enumerate() {
        let place = vars / layers.len();
        layers.push(Layer::Conv(match level {
            0 => Conv2d::new(&place, from, width, 3)?,
            _ => Conv2d::with(&place, from, width, 3, 2, 1, false)?,
        }));
        for _ in 0..blocks {
            layers.push(Layer::Block(Block::new(&(vars / layers.len()), width)?));
        }
        from = width;
    }
    layers.push(Layer::Conv(Conv2d::new(&(vars / layers.len()), from, config.latent_channels, 3)?));
    Ok(layers)
}

/// `offset`: the original counts its parameterless clamp as layer 0, diffusers does not.
fn decoder(vars: &Vars, offset: usize, config: &AutoencoderTinyConfig) -> Result<Vec<Layer>> {
    let widths = &config.decoder_block_out_channels;
    let first = Conv2d::new(&(vars / offset), config.latent_channels, widths[0], 3)?;
    let mut layers = vec![Layer::Conv(first), Layer::Relu];
    for (level, (&width, &blocks)) in widths.iter().zip(&config.num_decoder_blocks).enumerate() {
        for _ in 0..blocks {
            layers.push(Layer::Block(Block::new(&(vars / (layers.len() + offset)), width)?));
        }
        let next = widths.get(level + 1).copied();
        if next.is_some() {
            layers.push(Layer::Double);
        }
        let (place, to) = (vars / (layers.len() + offset), next.unwrap_or(config.out_channels));
        layers.push(Layer::Conv(Conv2d::with(&place, width, to, 3, 1, 1, next.is_none())?));
    }
    Ok(layers)
}

/// The complete tiny autoencoder. Pictures are `[b, 3, h, w]` in −1..1.
#[derive(Debug)]
pub struct AutoencoderTiny {
    encoder: Vec<Layer>,
    decoder: Vec<Layer>,
    config: AutoencoderTinyConfig,
}

impl AutoencoderTiny {
    /// Keys `encoder.layers.N`, `decoder.layers.N` (diffusers), or, where the
    /// file has them, `taesd_encoder.N` and `taesd_decoder.N`: the original's
    /// two files, each under its own name.
    ///
    /// # Errors
    /// [`ModelError::Config`], or as [`Vars::get`].
    pub fn new(vars: &Vars, config: &AutoencoderTinyConfig) -> Result<Self> {
        config.check()?;
        let original = vars.has("taesd_encoder.0.weight");
        let (first, second, offset) = match original {
            true => (vars / "taesd_encoder", vars / "taesd_decoder", 1),
            false => (vars / "encoder.layers", vars / "decoder.layers", 0),
        };
        Ok(Self {
            encoder: encoder(&first, config)?,
            decoder: decoder(&second, offset, config)?,
            config: config.clone(),
        })
    }

    /// The configuration it was built with.
    pub fn config(&self) -> &AutoencoderTinyConfig {
        &self.config
    }

    /// `[b, 3, h, w]` in −1..1 → latents `[b, latent_channels, h/8, w/8]`.
    pub fn encode(&self, image: &Tensor) -> Tensor {
        run(&self.encoder, (image + 1.0) / 2.0)
    }

    /// Latents → picture, about −1..1, not clamped. Latents are squashed softly into ±3.
    pub fn decode(&self, latents: &Tensor) -> Tensor {
        let squashed = (latents / 3.0).tanh() * 3.0;
        run(&self.decoder, squashed) * 2.0 - 1.0
    }

    /// Latents → 0..1, so that they can be stored as a picture.
    pub fn scale_latents(&self, latents: &Tensor) -> Tensor {
        (latents / (2.0 * self.config.latent_magnitude) + self.config.latent_shift).clamp(0.0, 1.0)
    }

    /// The inverse of [`AutoencoderTiny::scale_latents`].
    pub fn unscale_latents(&self, stored: &Tensor) -> Tensor {
        (stored - self.config.latent_shift) * (2.0 * self.config.latent_magnitude)
    }
}
