//! AutoencoderKL: pictures to latents and back.
//!
//! Structure and keys follow diffusers' `AutoencoderKL`
//! (`models/autoencoders/autoencoder_kl.py`, `vae.py`), the network of
//! `stabilityai/sd-vae-ft-mse`. Everything is differentiable.

use crate::{
    checkpoint::limits,
    error::{ModelError, Result},
    nn::{Conv2d, DoublingConv, DoublingPad, GroupNorm, Linear},
    vars::Vars,
};
use serde::{Deserialize, Serialize};
use tch::Tensor;

/// Epsilon of every group normalisation in the autoencoder (the U-Net's is 1e-5).
pub const NORM_EPS: f64 = 1e-6;

/// The published `config.json` of an `AutoencoderKL`; unknown names are ignored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AutoencoderKlConfig {
    /// Channels of the picture.
    pub in_channels: i64,
    /// Channels of the decoded picture.
    pub out_channels: i64,
    /// Channels of the latents.
    pub latent_channels: i64,
    /// Activation; only `silu` exists.
    pub act_fn: String,
    /// Width of each level, finest first; one halving between two levels.
    pub block_out_channels: Vec<i64>,
    /// Groups of every group normalisation.
    pub norm_num_groups: i64,
    /// Residual blocks per encoder level; the decoder has one more.
    pub layers_per_block: i64,
    /// Width of each level of the decoder where it differs: the name is that of diffusers' `AsymmetricAutoencoderKL`,
    /// whose own decoder, with a second input, is not known here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub up_block_out_channels: Option<Vec<i64>>,
    /// As `layers_per_block`, for the decoder: 0 leaves one block per level.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layers_per_up_block: Option<i64>,
    /// Side the published network was trained at; no effect.
    pub sample_size: i64,
    /// Factor between this network's latents and the U-Net's.
    pub scaling_factor: f64,
}

impl Default for AutoencoderKlConfig {
    /// sd-vae-ft-mse.
    fn default() -> Self {
        Self {
            in_channels: 3,
            out_channels: 3,
            latent_channels: 4,
            act_fn: "silu".into(),
            block_out_channels: vec![128, 256, 512, 512],
            norm_num_groups: 32,
            layers_per_block: 2,
            up_block_out_channels: None,
            layers_per_up_block: None,
            sample_size: 256,
            scaling_factor: 0.18215,
        }
    }
}

impl AutoencoderKlConfig {
    fn check(&self) -> Result<()> {
        let groups = self.norm_num_groups;
        let fail = |reason: String| Err(ModelError::Config(format!("vae: {reason}")));
        if self.act_fn != "silu" {
            return fail(format!("act_fn `{}` is not known, only `silu`", self.act_fn));
        }
        let levels = self.block_out_channels.len();
        if !(1..=limits::LEVELS).contains(&levels) || groups < 1 {
            return fail(format!(
                "block_out_channels needs 1..{} entries, norm_num_groups a value",
                limits::LEVELS
            ));
        }
        let layers = self.layers_per_block.max(self.up_layers());
        if self.layers_per_block < 1 || layers > limits::LAYERS {
            return fail(format!(
                "layers_per_block must be positive and make at most {} layers",
                limits::LAYERS
            ));
        }
        if self.in_channels < 1 || self.out_channels < 1 || self.latent_channels < 1 {
            return fail("every channel count must be positive".into());
        }
        if self.up_widths().len() != self.block_out_channels.len() || self.up_layers() < 1 {
            return fail("the decoder needs as many levels as the encoder, each with a block or more".into());
        }
        let mut widths = self.block_out_channels.iter().chain(self.up_widths());
        match widths.find(|&&c| c < 1 || c % groups != 0) {
            Some(c) => fail(format!(
                "block_out_channels or up_block_out_channels {c} is no multiple of norm_num_groups {groups}"
            )),
            None if !self.scaling_factor.is_normal() => fail("scaling_factor must be a number, not 0".into()),
            None => Ok(()),
        }
    }

    fn up_widths(&self) -> &[i64] {
        self.up_block_out_channels.as_ref().unwrap_or(&self.block_out_channels)
    }

    /// Residual blocks per decoder level.
    fn up_layers(&self) -> i64 {
        self.layers_per_up_block.unwrap_or(self.layers_per_block).saturating_add(1)
    }

    /// How many times smaller the latents' sides are.
    pub fn downscale(&self) -> i64 {
        1 << (self.block_out_channels.len().max(1) - 1).min(30)
    }
}

/// Two normalised convolutions and a shortcut, without time embedding.
#[derive(Debug)]
pub struct VaeResnet {
    norm1: GroupNorm,
    conv1: Conv2d,
    norm2: GroupNorm,
    conv2: Conv2d,
    shortcut: Option<Conv2d>,
}

impl VaeResnet {
    /// Keys `norm1`, `conv1`, `norm2`, `conv2` and, if the widths differ, `conv_shortcut`.
    ///
    /// # Errors
    /// As [`Vars::get`].
    pub fn new(vars: &Vars, inputs: i64, outputs: i64, groups: i64) -> Result<Self> {
        let shortcut = (inputs != outputs)
            .then(|| Conv2d::new(&(vars / "conv_shortcut"), inputs, outputs, 1))
            .transpose()?;
        Ok(Self {
            norm1: GroupNorm::new(&(vars / "norm1"), groups, inputs, NORM_EPS)?,
            conv1: Conv2d::new(&(vars / "conv1"), inputs, outputs, 3)?,
            norm2: GroupNorm::new(&(vars / "norm2"), groups, outputs, NORM_EPS)?,
            conv2: Conv2d::new(&(vars / "conv2"), outputs, outputs, 3)?,
            shortcut,
        })
    }

    /// `[b, inputs, h, w]` → `[b, outputs, h, w]`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let h = self.conv1.forward(&self.norm1.forward_silu(x));
        let h = self.norm2.forward_silu(&h);
        match &self.shortcut {
            Some(conv) => self.conv2.forward_plus(&h, &conv.forward(x)),
            None => self.conv2.forward_plus(&h, x),
        }
    }
}

/// Single-head self-attention over all pixels, with residual.
#[derive(Debug)]
pub struct VaeAttention {
    norm: GroupNorm,
    query: Linear,
    key: Linear,
    value: Linear,
    out: Linear,
}

impl VaeAttention {
    /// Keys `group_norm` and `to_q`, `to_k`, `to_v`, `to_out.0`, or the older
    /// spelling `query`, `key`, `value`, `proj_attn` where the file has it.
    ///
    /// # Errors
    /// As [`Vars::get`].
    pub fn new(vars: &Vars, channels: i64, groups: i64) -> Result<Self> {
        let old = vars.has("query.weight");
        let linear = |now: &str, before: &str| {
            Linear::new(&(vars / if old { before } else { now }), channels, channels)
        };
        Ok(Self {
            norm: GroupNorm::new(&(vars / "group_norm"), groups, channels, NORM_EPS)?,
            query: linear("to_q", "query")?,
            key: linear("to_k", "key")?,
            value: linear("to_v", "value")?,
            out: linear("to_out.0", "proj_attn")?,
        })
    }

    /// `[b, channels, h, w]` → the same shape.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let tokens = self.norm.forward(x).flatten(2, 3).transpose(1, 2).unsqueeze(1);
        let (q, k, v) = (self.query.forward(&tokens), self.key.forward(&tokens), self.value.forward(&tokens));
        let mixed = Tensor::scaled_dot_product_attention(&q, &k, &v, None::<Tensor>, 0.0, false, None, false);
        let out = self.out.forward(&mixed.squeeze_dim(1)).transpose(1, 2);
        out.reshape(x.size()) + x
    }
}

/// Residual block, attention, residual block.
#[derive(Debug)]
struct MidBlock {
    first: VaeResnet,
    attention: VaeAttention,
    second: VaeResnet,
}

impl MidBlock {
    fn new(vars: &Vars, channels: i64, groups: i64) -> Result<Self> {
        let resnets = vars / "resnets";
        Ok(Self {
            first: VaeResnet::new(&(&resnets / 0), channels, channels, groups)?,
            attention: VaeAttention::new(&(vars / "attentions" / 0), channels, groups)?,
            second: VaeResnet::new(&(&resnets / 1), channels, channels, groups)?,
        })
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        self.second.forward(&self.attention.forward(&self.first.forward(x)))
    }
}

/// Residual blocks of one level and its resampling convolution.
#[derive(Debug)]
struct Level {
    resnets: Vec<VaeResnet>,
    down: Option<Conv2d>,
    up: Option<DoublingConv>,
}

impl Level {
    fn new(vars: &Vars, inputs: i64, outputs: i64, layers: i64, groups: i64) -> Result<Self> {
        let resnets = (0..layers)
            .map(|i| {
                let from = if i == 0 { inputs } else { outputs };
                VaeResnet::new(&(vars / "resnets" / i), from, outputs, groups)
            })
            .collect::<Result<_>>()?;
        Ok(Self { resnets, down: None, up: None })
    }

    fn resnets(&self, x: &Tensor) -> Tensor {
        self.resnets.iter().fold(x.shallow_clone(), |x, resnet| resnet.forward(&x))
    }

    /// Zeros on the right and the bottom only, then stride 2.
    fn down(&self, x: &Tensor) -> Tensor {
        let x = self.resnets(x);
        match &self.down {
            Some(conv) => conv.forward(&x.constant_pad_nd([0, 1, 0, 1])),
            None => x,
        }
    }

    fn up(&self, x: &Tensor) -> Tensor {
        let x = self.resnets(x);
        match &self.up {
            Some(conv) => {
                let size = x.size();
                conv.forward(&x, [2 * size[2], 2 * size[3]])
            }
            None => x,
        }
    }
}

#[derive(Debug)]
struct Encoder {
    conv_in: Conv2d,
    levels: Vec<Level>,
    mid: MidBlock,
    norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl Encoder {
    fn new(vars: &Vars, config: &AutoencoderKlConfig) -> Result<Self> {
        let (widths, groups) = (&config.block_out_channels, config.norm_num_groups);
        let (first, last) = (widths[0], widths[widths.len() - 1]);
        let mut levels = Vec::new();
        for (i, &width) in widths.iter().enumerate() {
            let place = vars / "down_blocks" / i;
            let from = widths[i.saturating_sub(1)];
            let mut level = Level::new(&place, from, width, config.layers_per_block, groups)?;
            if i + 1 < widths.len() {
                let conv = place / "downsamplers.0.conv";
                level.down = Some(Conv2d::with(&conv, width, width, 3, 2, 0, true)?);
            }
            levels.push(level);
        }
        Ok(Self {
            conv_in: Conv2d::new(&(vars / "conv_in"), config.in_channels, first, 3)?,
            levels,
            mid: MidBlock::new(&(vars / "mid_block"), last, groups)?,
            norm_out: GroupNorm::new(&(vars / "conv_norm_out"), groups, last, NORM_EPS)?,
            conv_out: Conv2d::new(&(vars / "conv_out"), last, 2 * config.latent_channels, 3)?,
        })
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let x = self.levels.iter().fold(self.conv_in.forward(x), |x, level| level.down(&x));
        self.conv_out.forward(&self.norm_out.forward_silu(&self.mid.forward(&x)))
    }
}

#[derive(Debug)]
struct Decoder {
    conv_in: Conv2d,
    mid: MidBlock,
    levels: Vec<Level>,
    norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl Decoder {
    fn new(vars: &Vars, config: &AutoencoderKlConfig) -> Result<Self> {
        let groups = config.norm_num_groups;
        let widths: Vec<i64> = config.up_widths().iter().rev().copied().collect();
        let (first, last) = (widths[0], widths[widths.len() - 1]);
        let mut levels = Vec::new();
        for (i, &width) in widths.iter().enumerate() {
            let place = vars / "up_blocks" / i;
            let from = widths[i.saturating_sub(1)];
            let mut level = Level::new(&place, from, width, config.up_layers(), groups)?;
            if i + 1 < widths.len() {
                let conv = place / "upsamplers.0.conv";
                level.up = Some(DoublingConv::new(&conv, width, width, DoublingPad::Around)?);
            }
            levels.push(level);
        }
        Ok(Self {
            conv_in: Conv2d::new(&(vars / "conv_in"), config.latent_channels, first, 3)?,
            mid: MidBlock::new(&(vars / "mid_block"), first, groups)?,
            levels,
            norm_out: GroupNorm::new(&(vars / "conv_norm_out"), groups, last, NORM_EPS)?,
            conv_out: Conv2d::new(&(vars / "conv_out"), last, config.out_channels, 3)?,
        })
    }

    fn forward(&self, z: &Tensor) -> Tensor {
        let x = self.mid.forward(&self.conv_in.forward(z));
        let x = self.levels.iter().fold(x, |x, level| level.up(&x));
        self.conv_out.forward(&self.norm_out.forward_silu(&x))
    }
}

/// A diagonal Gaussian over latents, as the encoder answers.
#[derive(Debug)]
pub struct Moments {
    /// `[b, 2 × latent_channels, h, w]`: the encoder's raw answer.
    pub moments: Tensor,
    /// `[b, latent_channels, h, w]`.
    pub mean: Tensor,
    /// Log-variance, within −30..20.
    pub logvar: Tensor,
}

impl Moments {
    fn split(moments: Tensor) -> Self {
        let mut parts = moments.chunk(2, 1).into_iter();
        let mut part = || parts.next().unwrap_or_else(|| moments.shallow_clone());
        let (mean, logvar) = (part(), part().clamp(-30.0, 20.0));
        Self { moments, mean, logvar }
    }

    /// Standard deviation.
    pub fn std(&self) -> Tensor {
        (&self.logvar * 0.5).exp()
    }

    /// `mean + std × noise`.
    pub fn sample(&self, noise: &Tensor) -> Tensor {
        &self.mean + self.std() * noise
    }

    /// Divergence from the unit Gaussian, summed over a latent, averaged over the batch.
    pub fn kl(&self) -> Tensor {
        let each = self.mean.square() + self.logvar.exp() - 1.0 - &self.logvar;
        each.sum_dim_intlist([1i64, 2, 3].as_slice(), false, None).mean(None) * 0.5
    }
}

/// The complete autoencoder. Pictures are `[b, 3, h, w]` in −1..1.
#[derive(Debug)]
pub struct AutoencoderKl {
    encoder: Encoder,
    quant: Conv2d,
    post_quant: Conv2d,
    decoder: Decoder,
    config: AutoencoderKlConfig,
}

impl AutoencoderKl {
    /// Keys `encoder`, `quant_conv`, `post_quant_conv`, `decoder`.
    ///
    /// # Errors
    /// [`ModelError::Config`], or as [`Vars::get`].
    pub fn new(vars: &Vars, config: &AutoencoderKlConfig) -> Result<Self> {
        config.check()?;
        let latents = config.latent_channels;
        Ok(Self {
            encoder: Encoder::new(&(vars / "encoder"), config)?,
            quant: Conv2d::new(&(vars / "quant_conv"), 2 * latents, 2 * latents, 1)?,
            post_quant: Conv2d::new(&(vars / "post_quant_conv"), latents, latents, 1)?,
            decoder: Decoder::new(&(vars / "decoder"), config)?,
            config: config.clone(),
        })
    }

    /// The configuration it was built with.
    pub fn config(&self) -> &AutoencoderKlConfig {
        &self.config
    }

    /// `[b, 3, h, w]` in −1..1 → the Gaussian of unscaled latents.
    pub fn encode_moments(&self, image: &Tensor) -> Moments {
        Moments::split(self.quant.forward(&self.encoder.forward(image)))
    }

    /// Unscaled latents `[b, latent_channels, h, w]` → picture, about −1..1, not clamped.
    pub fn decode(&self, latents: &Tensor) -> Tensor {
        self.decoder.forward(&self.post_quant.forward(latents))
    }
}
