//! Levels of the U-Net (`magicanimate/models/unet_3d_blocks.py`), which the
//! ControlNet and the appearance encoder share.

use super::{
    Downsample, GroupNorm, Memory, MotionModule, ResnetBlock, ResnetSizes, SpatialTransformer,
    TransformerSizes, TruncatedTransformer, Upsample,
};
use crate::{error::Result, kernels, reference::Features, unet::UNetConfig, vars::Vars};
use tch::Tensor;

/// What every layer of one forward pass sees besides its input.
#[derive(Debug)]
pub struct Pass<'a> {
    /// Frames per sample; activations are `[b·frames, c, h, w]`, frames of a sample adjacent.
    pub frames: i64,
    /// Whether the resnets' norms pool the statistics of all frames that are seen together.
    pub pooled: bool,
    /// Frames before these, and what these leave.
    pub memory: Option<&'a Memory<'a>>,
    /// SiLU of the time embedding, `[1 or b, 4·c0]`.
    pub time: Tensor,
    /// Text embedding, `[1 or b, n, d]`.
    pub text: &'a Tensor,
    /// Reference attention.
    pub features: Features<'a>,
}

impl Pass<'_> {
    /// A resnet's norm of `[b·frames, c, h, w]`, then SiLU.
    pub(crate) fn activated(&self, norm: &GroupNorm, x: &Tensor) -> Tensor {
        match self.pooled && (self.frames > 1 || self.memory.is_some()) {
            true => norm.forward_pooled(x, self.frames, self.memory).silu(),
            false => norm.forward_silu(x),
        }
    }
}

/// Sizes shared by all levels.
struct Sizes {
    resnet: ResnetSizes,
    transformer: TransformerSizes,
}

fn sizes(config: &UNetConfig) -> Sizes {
    let groups = config.norm_num_groups;
    Sizes {
        resnet: ResnetSizes { time: config.time_channels(), groups, eps: config.norm_eps },
        transformer: TransformerSizes { groups, text: config.cross_attention_dim },
    }
}

/// Resnet, then attention over pixels and over time where the level has them.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) resnet: ResnetBlock,
    pub(crate) attention: Option<SpatialTransformer>,
    pub(crate) motion: Option<MotionModule>,
}

/// What a level's layers are made of.
struct LevelSpec<'a> {
    config: &'a UNetConfig,
    name: String,
    channels: i64,
    heads: i64,
    attention: bool,
    motion: bool,
}

impl LevelSpec<'_> {
    fn layer(&self, vars: &Vars, index: usize, inputs: i64) -> Result<Layer> {
        Ok(Layer {
            resnet: self.resnet(vars, index, inputs)?,
            attention: self.attention.then(|| self.transformer(vars, index)).transpose()?,
            motion: self.motion.then(|| self.motion_module(vars, index)).transpose()?,
        })
    }

    fn resnet(&self, vars: &Vars, index: usize, inputs: i64) -> Result<ResnetBlock> {
        ResnetBlock::new(&(vars / "resnets" / index), inputs, self.channels, sizes(self.config).resnet)
    }

    fn attention_name(&self, index: usize) -> String {
        format!("{}.attentions.{index}", self.name)
    }

    fn transformer(&self, vars: &Vars, index: usize) -> Result<SpatialTransformer> {
        let (at, name) = (vars / "attentions" / index, self.attention_name(index));
        SpatialTransformer::new(&at, &name, self.channels, self.heads, sizes(self.config).transformer)
    }

    fn motion_module(&self, vars: &Vars, index: usize) -> Result<MotionModule> {
        let at = vars / "motion_modules" / index;
        MotionModule::new(&at, self.channels, &self.config.motion_module_kwargs)
    }
}

impl Layer {
    fn forward(&self, x: &Tensor, pass: &Pass) -> Tensor {
        let mut x = self.resnet.forward(x, pass);
        if let Some(attention) = &self.attention {
            x = attention.forward(&x, pass);
        }
        match &self.motion {
            Some(motion) => motion.forward(&x, pass.frames, pass.memory),
            None => x,
        }
    }
}

/// One level of the way down.
#[derive(Debug)]
pub struct DownBlock {
    layers: Vec<Layer>,
    downsample: Option<Downsample>,
}

impl DownBlock {
    /// Level `level` of `config`; keys below `vars`.
    ///
    /// # Errors
    /// As [`Vars::get`].
    pub fn new(vars: &Vars, config: &UNetConfig, level: usize) -> Result<Self> {
        let widths = &config.block_out_channels;
        let spec = LevelSpec {
            config,
            name: format!("down_blocks.{level}"),
            channels: widths[level],
            heads: config.attention_head_dim.at(level),
            attention: config.down_block_types[level].has_attention(),
            motion: config.motion_down(level),
        };
        let inputs = |i| if i == 0 { widths[level.saturating_sub(1)] } else { widths[level] };
        let layer = |i| spec.layer(vars, i, inputs(i));
        let last = level + 1 == widths.len();
        let downsample = (!last).then(|| Downsample::new(&(vars / "downsamplers" / 0), widths[level]));
        Ok(Self {
            layers: (0..config.layers_per_block).map(layer).collect::<Result<_>>()?,
            downsample: downsample.transpose()?,
        })
    }

    /// `[n, c, h, w]` → the next level's input; appends what the way up will need to `skips`.
    pub fn forward(&self, x: Tensor, skips: &mut Vec<Tensor>, pass: &Pass) -> Tensor {
        let mut x = x;
        for layer in &self.layers {
            x = layer.forward(&x, pass);
            skips.push(x.shallow_clone());
        }
        if let Some(downsample) = &self.downsample {
            x = downsample.forward(&x);
            skips.push(x.shallow_clone());
        }
        x
    }

    pub(crate) fn layers(&self) -> &[Layer] {
        &self.layers
    }
}

/// The narrowest level: resnet, attention, (motion,) resnet.
#[derive(Debug)]
pub struct MidBlock {
    layer: Layer,
    resnet: ResnetBlock,
}

impl MidBlock {
    /// Keys below `vars`.
    ///
    /// # Errors
    /// As [`Vars::get`].
    pub fn new(vars: &Vars, config: &UNetConfig) -> Result<Self> {
        let last = config.block_out_channels.len() - 1;
        let spec = LevelSpec {
            config,
            name: "mid_block".to_owned(),
            channels: config.block_out_channels[last],
            heads: config.attention_head_dim.at(last),
            attention: true,
            motion: config.motion_mid(),
        };
        Ok(Self { layer: spec.layer(vars, 0, spec.channels)?, resnet: spec.resnet(vars, 1, spec.channels)? })
    }

    /// `[n, c, h, w]` → same.
    pub fn forward(&self, x: &Tensor, pass: &Pass) -> Tensor {
        self.resnet.forward(&self.layer.forward(x, pass), pass)
    }

    pub(crate) fn layer(&self) -> &Layer {
        &self.layer
    }
}

/// One level of the way up.
#[derive(Debug)]
pub struct UpBlock {
    layers: Vec<Layer>,
    /// Behind the layers, in the appearance encoder's last level only.
    end: Option<(ResnetBlock, TruncatedTransformer)>,
    upsample: Option<Upsample>,
}

impl UpBlock {
    /// Level `index` of the way up, 0 the narrowest; keys below `vars`.
    ///
    /// # Errors
    /// As [`Vars::get`].
    pub fn new(vars: &Vars, config: &UNetConfig, index: usize) -> Result<Self> {
        Self::build(vars, config, index, false)
    }

    /// As [`UpBlock::new`], ending inside the last attention.
    ///
    /// # Errors
    /// As [`Vars::get`].
    pub fn truncated(vars: &Vars, config: &UNetConfig, index: usize) -> Result<Self> {
        Self::build(vars, config, index, true)
    }

    fn build(vars: &Vars, config: &UNetConfig, index: usize, truncated: bool) -> Result<Self> {
        let widths = &config.block_out_channels;
        let level = widths.len() - 1 - index;
        let spec = LevelSpec {
            config,
            name: format!("up_blocks.{index}"),
            channels: widths[level],
            heads: config.attention_head_dim.at(level),
            attention: config.up_block_types[index].has_attention(),
            motion: config.motion_up(index),
        };
        let last = config.layers_per_block;
        // The running sample and the skip it is joined with.
        let inputs = |i| {
            let own = if i == 0 { widths[(level + 1).min(widths.len() - 1)] } else { widths[level] };
            own + if i == last { widths[level.saturating_sub(1)] } else { widths[level] }
        };
        let layers = if truncated { last } else { last + 1 };
        let layers = (0..layers).map(|i| spec.layer(vars, i, inputs(i))).collect::<Result<_>>()?;
        let upsample =
            (level > 0 && !truncated).then(|| Upsample::new(&(vars / "upsamplers" / 0), widths[level]));
        let end: Option<Result<_>> = truncated.then(|| {
            let (at, name) = (vars / "attentions" / last, spec.attention_name(last));
            let resnet = spec.resnet(vars, last, inputs(last))?;
            let end = TruncatedTransformer::new(&at, &name, spec.channels, config.norm_num_groups)?;
            Ok((resnet, end))
        });
        Ok(Self { layers, end: end.transpose()?, upsample: upsample.transpose()? })
    }

    /// `[n, c, h, w]` → the next level's input; takes its skips from the end of `skips`.
    pub fn forward(&self, x: Tensor, skips: &mut Vec<Tensor>, pass: &Pass) -> Tensor {
        let mut x = x;
        for layer in &self.layers {
            x = layer.forward(&join(x, skips.pop()), pass);
        }
        if let Some((resnet, end)) = &self.end {
            end.note(&resnet.forward(&join(x.shallow_clone(), skips.pop()), pass), pass);
        }
        match (&self.upsample, skips.last()) {
            (Some(upsample), Some(next)) => {
                let size = next.size();
                upsample.forward(&x, [size[2], size[3]])
            }
            _ => x,
        }
    }

    pub(crate) fn layers(&self) -> &[Layer] {
        &self.layers
    }
}

/// The running sample and its skip along the channels.
fn join(x: Tensor, skip: Option<Tensor>) -> Tensor {
    match skip {
        Some(skip) => kernels::join(&[&x, &skip]).unwrap_or_else(|| Tensor::cat(&[x, skip], 1)),
        None => x,
    }
}
