//! The DensePose ControlNet (`magicanimate/models/controlnet.py`).

use crate::{
    checkpoint::limits,
    device::entering,
    error::{ModelError, Result},
    kernels::Activation,
    nn::{Conv2d, Pass},
    reference::Features,
    unet::{Entry, UNetConfig, check_conditions},
    vars::Vars,
};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// Configuration: the U-Net's names where they apply, and the condition's own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ControlNetConfig {
    /// Sizes shared with the U-Net that it steers.
    #[serde(flatten)]
    pub unet: UNetConfig,
    /// Widths of the condition's embedding; each but the first halves the sides.
    pub conditioning_embedding_out_channels: Vec<i64>,
    /// `rgb` or `bgr`.
    pub controlnet_conditioning_channel_order: ChannelOrder,
}

impl Default for ControlNetConfig {
    /// The published `densepose_controlnet`.
    fn default() -> Self {
        Self {
            unet: UNetConfig::default(),
            conditioning_embedding_out_channels: vec![16, 32, 96, 256],
            controlnet_conditioning_channel_order: ChannelOrder::Rgb,
        }
    }
}

/// Order of the colours that the network was trained with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChannelOrder {
    /// Red first.
    Rgb,
    /// Blue first: the picture's channels are swapped on entry.
    Bgr,
}

/// What the ControlNet adds to the U-Net's skips and middle.
#[derive(Debug)]
pub struct ControlNetResiduals {
    /// One for each skip, in order of execution, `[n, c, h, w]`. `n` is every frame of
    /// the U-Net's batch, or the frames of one sample, which all samples then share.
    pub down: Vec<Tensor>,
    /// For the middle block's output.
    pub mid: Tensor,
}

impl ControlNetResiduals {
    pub(crate) fn added_to_skips(&self, skips: Vec<Tensor>) -> Result<Vec<Tensor>> {
        if skips.len() != self.down.len() {
            let (found, needed) = (self.down.len(), skips.len());
            return Err(ModelError::Input(format!("{found} ControlNet residuals for {needed} skips")));
        }
        skips.iter().zip(&self.down).map(|(skip, residual)| add(skip, residual)).collect()
    }

    pub(crate) fn added_to_mid(&self, mid: Tensor) -> Result<Tensor> {
        add(&mid, &self.mid)
    }
}

/// `x` `[b·f, c, h, w]` + `residual` `[b·f or f or 1, c, h, w]`.
fn add(x: &Tensor, residual: &Tensor) -> Result<Tensor> {
    let (own, other) = (x.size(), residual.size());
    if other.len() != 4 || own[1..] != other[1..] || other[0] == 0 || own[0] % other[0] != 0 {
        return Err(ModelError::Input(format!("ControlNet residual of shape {other:?} for {own:?}")));
    }
    if own[0] == other[0] {
        return Ok(x + residual);
    }
    let grouped = x.reshape([-1, other[0], own[1], own[2], own[3]]);
    Ok((grouped + residual.unsqueeze(0)).view(own.as_slice()))
}

/// Picture to the latents' grid: convolutions with SiLU between.
#[derive(Debug)]
struct ConditionEmbedding {
    conv_in: Conv2d,
    blocks: Vec<Conv2d>,
    conv_out: Conv2d,
}

impl ConditionEmbedding {
    fn new(vars: &Vars, widths: &[i64], outputs: i64) -> Result<Self> {
        let (first, last) = (widths[0], widths[widths.len() - 1]);
        let mut blocks = Vec::new();
        for pair in widths.windows(2) {
            let at = |offset: usize| vars / "blocks" / (blocks.len() + offset);
            let same = Conv2d::new(&at(0), pair[0], pair[0], 3)?;
            let halving = Conv2d::with(&at(1), pair[0], pair[1], 3, 2, 1, true)?;
            blocks.extend([same, halving]);
        }
        Ok(Self {
            conv_in: Conv2d::new(&(vars / "conv_in"), 3, first, 3)?,
            blocks,
            conv_out: Conv2d::zeroed(&(vars / "conv_out"), last, outputs, 3)?,
        })
    }

    fn forward(&self, image: &Tensor) -> Tensor {
        let mut x = self.conv_in.forward_then(image, Activation::Silu);
        for block in &self.blocks {
            x = block.forward_then(&x, Activation::Silu);
        }
        self.conv_out.forward(&x)
    }
}

/// A copy of the U-Net's way down that looks at the pose.
#[derive(Debug)]
pub struct ControlNet {
    config: ControlNetConfig,
    entry: Entry,
    embedding: ConditionEmbedding,
    down: Vec<Conv2d>,
    mid: Conv2d,
    kind: Kind,
}

impl ControlNet {
    /// Keys as published. A fresh network has no effect: its outer convolutions are zero.
    ///
    /// # Errors
    /// [`ModelError::Config`], or as [`Vars::get`].
    pub fn new(vars: &Vars, config: &ControlNetConfig) -> Result<Self> {
        let unet = config.unet.without_motion();
        unet.check(false)?;
        let widths = &config.conditioning_embedding_out_channels;
        if !(1..=limits::LEVELS).contains(&widths.len()) || widths.contains(&0) {
            let reason = format!(
                "ControlNet configuration: `conditioning_embedding_out_channels` needs 1..{} entries, none of them 0",
                limits::LEVELS
            );
            return Err(ModelError::Config(reason));
        }
        let at = vars / "controlnet_cond_embedding";
        let embedding = ConditionEmbedding::new(&at, widths, unet.block_out_channels[0])?;
        let entry = Entry::new(vars, &unet)?;
        let skips = skip_channels(&unet);
        let down = |(i, &c): (usize, &i64)| Conv2d::zeroed(&(vars / "controlnet_down_blocks" / i), c, c, 1);
        let last = unet.block_out_channels[unet.block_out_channels.len() - 1];
        Ok(Self {
            config: config.clone(),
            entry,
            embedding,
            down: skips.iter().enumerate().map(down).collect::<Result<_>>()?,
            mid: Conv2d::zeroed(&(vars / "controlnet_mid_block"), last, last, 1)?,
            kind: vars.kind(),
        })
    }

    /// What it was built from.
    pub fn config(&self) -> &ControlNetConfig {
        &self.config
    }

    /// Pixels per latent, along each side.
    pub fn factor(&self) -> i64 {
        1 << (self.config.conditioning_embedding_out_channels.len() - 1)
    }

    /// Pose pictures `[n, 3, H, W]`, values in [0, 1] → `[n, c0, h, w]`. Depends on
    /// neither timestep nor latents: once per frame is enough.
    ///
    /// # Errors
    /// [`ModelError::Input`] for another shape.
    pub fn embed_condition(&self, image: &Tensor) -> Result<Tensor> {
        let size = image.size();
        if size.len() != 4 || size[1] != 3 || size.contains(&0) {
            return Err(ModelError::Input(format!("pose pictures of shape {size:?}, needed: [n, 3, H, W]")));
        }
        let image = entering(image, self.kind);
        Ok(match self.config.controlnet_conditioning_channel_order {
            ChannelOrder::Rgb => self.embedding.forward(&image),
            ChannelOrder::Bgr => self.embedding.forward(&image.flip([1])),
        })
    }

    /// Residuals for latents `sample` `[n, in, h, w]` at `timestep` (`[]`, `[1]` or `[n]`) under
    /// `text` `[1 or n, m, d]` and the `embedded` pose `[n, c0, h, w]`, times `scale`.
    ///
    /// # Errors
    /// [`ModelError::Input`] for shapes that do not fit together.
    pub fn forward(
        &self,
        sample: &Tensor,
        timestep: &Tensor,
        text: &Tensor,
        embedded: &Tensor,
        scale: f64,
    ) -> Result<ControlNetResiduals> {
        let unet = &self.config.unet;
        let (size, pose) = (sample.size(), embedded.size());
        if size.len() != 4 || size[1] != unet.in_channels || size.contains(&0) {
            let expected = unet.in_channels;
            return Err(ModelError::Input(format!(
                "latents of shape {size:?}, needed: [n, {expected}, h, w]"
            )));
        }
        if pose != [size[0], unet.block_out_channels[0], size[2], size[3]] {
            return Err(ModelError::Input(format!("embedded pose of shape {pose:?} for latents {size:?}")));
        }
        let timestep = check_conditions(timestep, text, size[0], unet.cross_attention_dim)?;
        let time = self.entry.time_embedding.forward(&timestep).silu();
        let pass = Pass { frames: 1, pooled: false, memory: None, time, text, features: Features::Off };
        Ok(self.run(sample, embedded, scale, &pass))
    }

    fn run(&self, sample: &Tensor, embedded: &Tensor, scale: f64, pass: &Pass) -> ControlNetResiduals {
        let mut x = self.entry.conv_in.forward_plus(&entering(sample, self.kind), embedded);
        let mut skips = vec![x.shallow_clone()];
        for block in &self.entry.down_blocks {
            x = block.forward(x, &mut skips, pass);
        }
        let x = self.entry.mid_block.forward(&x, pass);
        let scaled = |t: Tensor| if scale == 1.0 { t } else { t * scale };
        ControlNetResiduals {
            down: skips.iter().zip(&self.down).map(|(x, conv)| scaled(conv.forward(x))).collect(),
            mid: scaled(self.mid.forward(&x)),
        }
    }
}

/// Widths of the skips in order of execution.
fn skip_channels(config: &UNetConfig) -> Vec<i64> {
    let widths = &config.block_out_channels;
    let mut skips = vec![widths[0]];
    for (level, &width) in widths.iter().enumerate() {
        let downsampled = usize::from(level + 1 < widths.len());
        skips.extend(std::iter::repeat_n(width, config.layers_per_block + downsampled));
    }
    skips
}
