//! Blocks that several networks share.

mod attention;
mod blocks;
pub mod embeddings;
mod layers;
mod memory;
mod motion;
mod resnet;

pub use attention::{
    Attention, FeedForward, KeysValues, SpatialTransformer, TransformerSizes, TruncatedTransformer,
};
pub use blocks::{DownBlock, MidBlock, Pass, UpBlock};
pub use embeddings::{TimeEmbedding, Timesteps};
pub use layers::{Conv2d, DoublingConv, DoublingPad, GroupNorm, LayerNorm, Linear};
pub use memory::{FrameStates, Memory};
pub use motion::{MOTION_GROUPS, MotionModule};
pub use resnet::{Downsample, ResnetBlock, ResnetSizes, Upsample};
