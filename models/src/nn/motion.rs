//! Attention over time (`magicanimate/models/motion_module.py`).

use super::{Attention, FeedForward, GroupNorm, LayerNorm, Linear, Memory, embeddings::positions};
use crate::{error::Result, unet::MotionConfig, vars::Vars};
use tch::Tensor;

/// Groups of the module's norm in the original, whatever the U-Net's own are.
pub const MOTION_GROUPS: i64 = 32;

/// Temporal transformer: every pixel attends to itself in the other frames.
#[derive(Debug)]
pub struct MotionModule {
    norm: GroupNorm,
    proj_in: Linear,
    blocks: Vec<TemporalBlock>,
    proj_out: Linear,
}

impl MotionModule {
    /// Keys below `temporal_transformer`; a fresh module starts without effect.
    ///
    /// # Errors
    /// As [`Vars::get`].
    pub fn new(vars: &Vars, channels: i64, config: &MotionConfig) -> Result<Self> {
        let vars = vars / "temporal_transformer";
        let inner = channels / config.temporal_attention_dim_div;
        let block = |i| TemporalBlock::new(&(&vars / "transformer_blocks" / i), inner, config);
        Ok(Self {
            norm: GroupNorm::new(&(&vars / "norm"), config.norm_num_groups, channels, 1e-6)?,
            proj_in: Linear::new(&(&vars / "proj_in"), channels, inner)?,
            blocks: (0..config.num_transformer_block).map(block).collect::<Result<_>>()?,
            proj_out: Linear::zeroed(&(&vars / "proj_out"), inner, channels)?,
        })
    }

    /// `[b·frames, channels, h, w]` → same; the frames see each other and those in `memory`.
    pub fn forward(&self, x: &Tensor, frames: i64, memory: Option<&Memory>) -> Tensor {
        let (_, channels, h, w) = x.size4().unwrap_or_default();
        let video = self.norm.forward(x).reshape([-1, frames, channels, h * w]);
        // Pixels become the batch and frames the tokens for the whole module. Of one frame
        // the reshape is a strided view, on which libtorch's linear layers crawl.
        let tokens = video.permute([0, 3, 1, 2]).reshape([-1, frames, channels]).contiguous();
        let mut tokens = self.proj_in.forward(&tokens);
        for block in &self.blocks {
            tokens = block.forward(&tokens, memory);
        }
        let video = self.proj_out.forward(&tokens).view([-1, h * w, frames, channels]);
        x + video.permute([0, 2, 3, 1]).reshape(x.size())
    }
}

/// Temporal self-attentions, then a feed-forward, each behind its own norm.
#[derive(Debug)]
struct TemporalBlock {
    attentions: Vec<TemporalAttention>,
    ff_norm: LayerNorm,
    ff: FeedForward,
}

impl TemporalBlock {
    fn new(vars: &Vars, channels: i64, config: &MotionConfig) -> Result<Self> {
        let attention = |i| TemporalAttention::new(vars, i, channels, config);
        Ok(Self {
            attentions: (0..config.attention_block_types.len()).map(attention).collect::<Result<_>>()?,
            ff_norm: LayerNorm::new(&(vars / "ff_norm"), channels, 1e-5)?,
            ff: FeedForward::new(&(vars / "ff"), channels)?,
        })
    }

    fn forward(&self, x: &Tensor, memory: Option<&Memory>) -> Tensor {
        let mut x = x.shallow_clone();
        for attention in &self.attentions {
            x = &x + attention.forward(&x, memory);
        }
        &x + self.ff.forward(&self.ff_norm.forward(&x))
    }
}

/// Self-attention over frames. The position is added behind the norm, so
/// queries, keys and values see it and the residual does not.
#[derive(Debug)]
struct TemporalAttention {
    norm: LayerNorm,
    attention: Attention,
    /// `[1, max frames, channels]`.
    positions: Option<Tensor>,
}

impl TemporalAttention {
    fn new(vars: &Vars, index: usize, channels: i64, config: &MotionConfig) -> Result<Self> {
        let own = vars / "attention_blocks" / index;
        let length = config.temporal_position_encoding_max_len;
        let table = config.temporal_position_encoding.then(|| {
            let at = &own / "pos_encoder";
            at.buffer("pe", &[1, length, channels], || positions(length, channels))
        });
        let heads = config.num_attention_heads;
        Ok(Self {
            norm: LayerNorm::new(&(vars / "norms" / index), channels, 1e-5)?,
            attention: Attention::new(&own, channels, channels, channels, heads)?,
            positions: table.transpose()?,
        })
    }

    /// `[pixels, frames, channels]` → same, without residual.
    fn forward(&self, x: &Tensor, memory: Option<&Memory>) -> Tensor {
        let x = self.norm.forward(x);
        let frames = x.size()[1];
        let positions = |first: i64, count: i64| self.positions.as_ref().map(|p| p.narrow(1, first, count));
        let placed = |x: &Tensor, first: i64| match positions(first, frames) {
            Some(own) => x + own,
            None => x.shallow_clone(),
        };
        let Some(memory) = memory else {
            let x = placed(&x, 0);
            return self.attention.forward(&x, &x);
        };
        // What is kept has no position yet: a frame's slot changes when older ones leave the ring.
        let all = memory.attended(self.attention.keys_values(&x));
        let seen = all.keys.size()[2];
        let all = match positions(0, seen) {
            Some(table) => all.plus(&self.attention.keys_values(&table)),
            None => all,
        };
        self.attention.read(&placed(&x, seen - frames), &all)
    }
}
