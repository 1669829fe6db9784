//! The denoising U-Net, 2-D and 3-D in one (`magicanimate/models/unet_controlnet.py`).
//!
//! Without motion modules and with one frame it is Stable Diffusion's own U-Net.

mod config;

pub use config::{BlockType, Heads, MotionConfig, UNetConfig};

use crate::{
    controlnet::ControlNetResiduals,
    device::entering,
    error::{ModelError, Result},
    nn::{
        Conv2d, DownBlock, GroupNorm, Memory, MidBlock, MotionModule, Pass, SpatialTransformer,
        TimeEmbedding, Timesteps, UpBlock,
    },
    reference::{Bank, Features, ProjectedBank, Reference},
    vars::{Source, Vars},
};
use std::collections::BTreeMap;
use tch::{Kind, Tensor};

/// Predicts the noise in latents, frame windows included.
#[derive(Debug)]
pub struct UNet {
    config: UNetConfig,
    conv_in: Conv2d,
    time_embedding: TimeEmbedding,
    down_blocks: Vec<DownBlock>,
    mid_block: MidBlock,
    up_blocks: Vec<UpBlock>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
    kind: Kind,
}

/// Makes the motion modules of the U-Net that `config` describes in `source`, and nothing else of it.
///
/// # Errors
/// [`ModelError::Config`], or whatever `source` refuses.
pub fn motion_modules(source: &Source, config: &UNetConfig) -> Result<()> {
    // Only names and shapes: a full-size U-Net would take gigabytes.
    let wanted = Source::recording();
    UNet::new(&wanted.root(), config)?;
    for (name, norm) in wanted.tensors() {
        if let Some(module) = name.strip_suffix(".temporal_transformer.norm.weight") {
            let channels = norm.size().first().copied().unwrap_or_default();
            MotionModule::new(&(source.root() / module), channels, &config.motion_module_kwargs)?;
        }
    }
    Ok(())
}

/// A network's state between its way down and its way up.
#[derive(Debug)]
struct Half {
    x: Tensor,
    skips: Vec<Tensor>,
}

/// What [`UNet::begin`] made.
#[derive(Debug)]
pub struct Begun {
    half: Half,
    size: Vec<i64>,
}

/// The parts that the U-Net, the ControlNet and the appearance encoder begin with.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) conv_in: Conv2d,
    pub(crate) time_embedding: TimeEmbedding,
    pub(crate) down_blocks: Vec<DownBlock>,
    pub(crate) mid_block: MidBlock,
}

impl Entry {
    pub(crate) fn new(vars: &Vars, config: &UNetConfig) -> Result<Self> {
        let first = config.block_out_channels[0];
        let (flip_sin_to_cos, freq_shift) = (config.flip_sin_to_cos, config.freq_shift);
        let steps = Timesteps { channels: first, flip_sin_to_cos, freq_shift };
        let down = |level| DownBlock::new(&(vars / "down_blocks" / level), config, level);
        Ok(Self {
            conv_in: Conv2d::new(&(vars / "conv_in"), config.in_channels, first, 3)?,
            time_embedding: TimeEmbedding::new(&(vars / "time_embedding"), steps, config.time_channels())?,
            down_blocks: (0..config.block_out_channels.len()).map(down).collect::<Result<_>>()?,
            mid_block: MidBlock::new(&(vars / "mid_block"), config)?,
        })
    }
}

impl UNet {
    /// Keys as published: those of the 2-D U-Net, and `…motion_modules…` where the
    /// configuration has them.
    ///
    /// # Errors
    /// [`ModelError::Config`], or as [`Vars::get`].
    pub fn new(vars: &Vars, config: &UNetConfig) -> Result<Self> {
        config.check(true)?;
        let Entry { conv_in, time_embedding, down_blocks, mid_block } = Entry::new(vars, config)?;
        let first = config.block_out_channels[0];
        let up = |index| UpBlock::new(&(vars / "up_blocks" / index), config, index);
        let (groups, eps) = (config.norm_num_groups, config.norm_eps);
        Ok(Self {
            config: config.clone(),
            conv_in,
            time_embedding,
            down_blocks,
            mid_block,
            up_blocks: (0..config.up_block_types.len()).map(up).collect::<Result<_>>()?,
            conv_norm_out: GroupNorm::new(&(vars / "conv_norm_out"), groups, first, eps)?,
            conv_out: Conv2d::zeroed(&(vars / "conv_out"), first, config.out_channels, 3)?,
            kind: vars.kind(),
        })
    }

    /// What it was built from.
    pub fn config(&self) -> &UNetConfig {
        &self.config
    }

    /// Predicts from `sample` `[b, in, f, h, w]` at `timestep` (`[]`, `[1]` or `[b]`, any dtype)
    /// under `text` `[1 or b, n, d]` → `[b, out, f, h, w]`.
    ///
    /// Everything is differentiable; use [`crate::torch_ext::InferenceMode`] when that is not needed.
    ///
    /// # Errors
    /// [`ModelError::Input`] for shapes that do not fit together, a bank of another
    /// network, or more frames than the position table has.
    pub fn forward(
        &self,
        sample: &Tensor,
        timestep: &Tensor,
        text: &Tensor,
        controlnet: Option<&ControlNetResiduals>,
        reference: Option<&Reference>,
    ) -> Result<Tensor> {
        self.forward_after(sample, timestep, text, controlnet, reference, None)
    }

    /// As [`UNet::forward`], for frames that stand behind those in `memory` in one window. Memory and `sample`
    /// must be of the same size, timestep and samples.
    ///
    /// # Errors
    /// As [`UNet::forward`]. Whether the memory was this network's tells [`Memory::into_states`].
    pub fn forward_after(
        &self,
        sample: &Tensor,
        timestep: &Tensor,
        text: &Tensor,
        controlnet: Option<&ControlNetResiduals>,
        reference: Option<&Reference>,
        memory: Option<&Memory>,
    ) -> Result<Tensor> {
        let frames = frames_of(sample)? + memory.map_or(0, Memory::frames);
        self.check_input(sample, frames)?;
        let pass = self.pass(sample.size(), timestep, text, reference, memory)?;
        self.finish(self.start(sample, &pass), sample.size(), controlnet, &pass)
    }

    /// What [`UNet::forward`] does before anything depends on a pose: for the same sample, timestep, text and
    /// reference once is enough.
    ///
    /// # Errors
    /// As [`UNet::forward`].
    pub fn begin(
        &self,
        sample: &Tensor,
        timestep: &Tensor,
        text: &Tensor,
        reference: Option<&Reference>,
    ) -> Result<Begun> {
        self.check_input(sample, frames_of(sample)?)?;
        let pass = self.pass(sample.size(), timestep, text, reference, None)?;
        Ok(Begun { half: self.start(sample, &pass), size: sample.size() })
    }

    /// The rest of [`UNet::forward`], with the same timestep, text and reference.
    ///
    /// # Errors
    /// As [`UNet::forward`].
    pub fn forward_from(
        &self,
        begun: &Begun,
        timestep: &Tensor,
        text: &Tensor,
        controlnet: Option<&ControlNetResiduals>,
        reference: Option<&Reference>,
    ) -> Result<Tensor> {
        let pass = self.pass(begun.size.clone(), timestep, text, reference, None)?;
        let half = Half {
            x: begun.half.x.shallow_clone(),
            skips: begun.half.skips.iter().map(Tensor::shallow_clone).collect(),
        };
        self.finish(half, begun.size.clone(), controlnet, &pass)
    }

    /// What all blocks are told about a sample of `size`.
    fn pass<'a>(
        &self,
        size: Vec<i64>,
        timestep: &Tensor,
        text: &'a Tensor,
        reference: Option<&'a Reference>,
        memory: Option<&'a Memory>,
    ) -> Result<Pass<'a>> {
        let (b, f) = (size[0], size[2]);
        let timestep = check_conditions(timestep, text, b, self.config.cross_attention_dim)?;
        let reading = match reference {
            Some(reference) => reference.reading(b, |name| self.attention_width(name))?,
            None => None,
        };
        Ok(Pass {
            frames: f,
            pooled: !self.config.norm_per_frame,
            memory,
            time: self.time_embedding.forward(&timestep).silu(),
            text,
            features: reading.map_or(Features::Off, Features::Read),
        })
    }

    /// The way down, which no pose reaches. `sample`: `[b, in, f, h, w]`.
    fn start(&self, sample: &Tensor, pass: &Pass) -> Half {
        let size = sample.size();
        let frames = [size[0] * size[2], size[1], size[3], size[4]];
        let frames = entering(sample, self.kind).transpose(1, 2).reshape(frames);
        let mut x = self.conv_in.forward(&frames);
        let mut skips = vec![x.shallow_clone()];
        for block in &self.down_blocks {
            x = block.forward(x, &mut skips, pass);
        }
        Half { x, skips }
    }

    /// The rest, → `[b, out, f, h, w]`.
    fn finish(
        &self,
        half: Half,
        size: Vec<i64>,
        controlnet: Option<&ControlNetResiduals>,
        pass: &Pass,
    ) -> Result<Tensor> {
        let Half { mut x, mut skips } = half;
        if let Some(residuals) = controlnet {
            skips = residuals.added_to_skips(skips)?;
        }
        x = self.mid_block.forward(&x, pass);
        if let Some(residuals) = controlnet {
            x = residuals.added_to_mid(x)?;
        }
        for block in &self.up_blocks {
            x = block.forward(x, &mut skips, pass);
        }
        let out = self.conv_out.forward(&pass.activated(&self.conv_norm_out, &x));
        Ok(out.view([size[0], size[2], self.config.out_channels, size[3], size[4]]).transpose(1, 2))
    }

    /// Multiplies a bank with this network's key and value weights, once per
    /// reference and timestep, so that each frame finds it ready.
    ///
    /// # Errors
    /// [`ModelError::Input`] if the bank belongs to another network.
    pub fn project(&self, bank: &Bank) -> Result<ProjectedBank> {
        let mut projected = BTreeMap::new();
        for (name, features) in bank.blocks() {
            let fits = |attention: &&SpatialTransformer| {
                features.dim() == 3 && Some(features.size()[2]) == self.attention_width(attention.name())
            };
            let Some(attention) = self.attentions().find(|a| a.name() == name).filter(fits) else {
                return Err(ModelError::Input(format!(
                    "the reference bank's block `{name}` does not fit this U-Net"
                )));
            };
            projected.insert(name.clone(), attention.self_attention().keys_values(features));
        }
        Ok(ProjectedBank::new(projected))
    }

    /// Names of all blocks that can read a reference, in order of execution.
    pub fn attention_names(&self) -> Vec<&str> {
        self.attentions().map(SpatialTransformer::name).collect()
    }

    fn attentions(&self) -> impl Iterator<Item = &SpatialTransformer> {
        let down = self.down_blocks.iter().flat_map(DownBlock::layers);
        let up = self.up_blocks.iter().flat_map(UpBlock::layers);
        down.chain(std::iter::once(self.mid_block.layer()))
            .chain(up)
            .filter_map(|layer| layer.attention.as_ref())
    }

    fn attention_width(&self, name: &str) -> Option<i64> {
        self.attentions().find(|attention| attention.name() == name).map(SpatialTransformer::channels)
    }

    /// `frames`: those of `sample`, and those that it stands behind.
    fn check_input(&self, sample: &Tensor, frames: i64) -> Result<()> {
        let (channels, expected) = (sample.size()[1], self.config.in_channels);
        if channels != expected {
            return Err(ModelError::Input(format!("{channels} latent channels, the U-Net takes {expected}")));
        }
        match self.config.max_frames() {
            Some(max) if frames > max => Err(ModelError::Input(format!(
                "{frames} frames in one window, the motion modules' position table has {max}"
            ))),
            _ => Ok(()),
        }
    }
}

/// Frames of a sample, once its shape is right.
fn frames_of(sample: &Tensor) -> Result<i64> {
    let size = sample.size();
    match size.as_slice() {
        [_, _, frames, _, _] if size.iter().all(|&n| n > 0) => Ok(*frames),
        _ => Err(ModelError::Input(format!("latents of shape {size:?}, needed: [b, c, f, h, w]"))),
    }
}

/// Checks timestep and text against `samples`; returns the timestep as `[1 or samples]`.
pub(crate) fn check_conditions(timestep: &Tensor, text: &Tensor, samples: i64, width: i64) -> Result<Tensor> {
    let timestep = if timestep.dim() == 0 { timestep.unsqueeze(0) } else { timestep.shallow_clone() };
    let fits = |rows: i64| rows == 1 || rows == samples;
    if timestep.dim() != 1 || !fits(timestep.size()[0]) {
        let size = timestep.size();
        return Err(ModelError::Input(format!("timesteps of shape {size:?} for {samples} samples")));
    }
    let size = text.size();
    if size.len() != 3 || !fits(size[0]) || size[1] == 0 || size[2] != width {
        return Err(ModelError::Input(format!(
            "text embedding of shape {size:?} for {samples} samples, needed: [{samples}, tokens, {width}]"
        )));
    }
    Ok(timestep)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Source;

    #[test]
    fn names_follow_execution() -> Result<()> {
        let source = Source::recording();
        let unet = UNet::new(&source.root(), &UNetConfig::default())?;
        let names = unet.attention_names();
        assert_eq!(names.len(), 16);
        assert_eq!(names[0], "down_blocks.0.attentions.0.transformer_blocks.0");
        assert_eq!(names[6], "mid_block.attentions.0.transformer_blocks.0");
        assert_eq!(names[15], "up_blocks.3.attentions.2.transformer_blocks.0");
        Ok(())
    }
}
