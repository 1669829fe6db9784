//! Blocks that several networks share.

mod layers;

pub use layers::{Conv2d, GroupNorm, LayerNorm, Linear};
