//! Convolutional halves of the U-Net's levels (`magicanimate/models/resnet.py`).

use super::{Conv2d, DoublingConv, DoublingPad, GroupNorm, Linear, Pass};
use crate::{error::Result, vars::Vars};
use tch::Tensor;

/// Two convolutions with the time embedding between them, and a shortcut.
#[derive(Debug)]
pub struct ResnetBlock {
    norm1: GroupNorm,
    conv1: Conv2d,
    time_emb_proj: Linear,
    norm2: GroupNorm,
    conv2: Conv2d,
    conv_shortcut: Option<Conv2d>,
}

/// Sizes that all resnets of one network share.
#[derive(Debug, Clone, Copy)]
pub struct ResnetSizes {
    /// Width of the time embedding.
    pub time: i64,
    /// Groups of the norms.
    pub groups: i64,
    /// Added to the norms' variance.
    pub eps: f64,
}

impl ResnetBlock {
    /// A 1×1 shortcut is there exactly when the widths differ.
    ///
    /// # Errors
    /// As [`Vars::get`].
    pub fn new(vars: &Vars, inputs: i64, outputs: i64, sizes: ResnetSizes) -> Result<Self> {
        let ResnetSizes { time, groups, eps } = sizes;
        let shortcut =
            (inputs != outputs).then(|| Conv2d::new(&(vars / "conv_shortcut"), inputs, outputs, 1));
        Ok(Self {
            norm1: GroupNorm::new(&(vars / "norm1"), groups, inputs, eps)?,
            conv1: Conv2d::new(&(vars / "conv1"), inputs, outputs, 3)?,
            time_emb_proj: Linear::new(&(vars / "time_emb_proj"), time, outputs)?,
            norm2: GroupNorm::new(&(vars / "norm2"), groups, outputs, eps)?,
            conv2: Conv2d::new(&(vars / "conv2"), outputs, outputs, 3)?,
            conv_shortcut: shortcut.transpose()?,
        })
    }

    /// `[b·f, inputs, h, w]` → `[b·f, outputs, h, w]`.
    pub fn forward(&self, x: &Tensor, pass: &Pass) -> Tensor {
        let h = self.conv1.forward_shifted(&pass.activated(&self.norm1, x), &self.time(pass));
        let h = pass.activated(&self.norm2, &h);
        match &self.conv_shortcut {
            Some(conv) => self.conv2.forward_plus(&h, &conv.forward(x)),
            None => self.conv2.forward_plus(&h, x),
        }
    }

    /// The time embedding as `[1 or b·f, outputs]`.
    fn time(&self, pass: &Pass) -> Tensor {
        let time = self.time_emb_proj.forward(&pass.time);
        let alike = time.size()[0] == 1 || pass.frames == 1;
        if alike { time } else { time.repeat_interleave_self_int(pass.frames, 0, None) }
    }
}

/// Halves the sides: 3×3 with stride 2, padded on all sides.
#[derive(Debug)]
pub struct Downsample(Conv2d);

impl Downsample {
    /// Key `conv` below `vars`.
    ///
    /// # Errors
    /// As [`Vars::get`].
    pub fn new(vars: &Vars, channels: i64) -> Result<Self> {
        Ok(Self(Conv2d::with(&(vars / "conv"), channels, channels, 3, 2, 1, true)?))
    }

    /// `[n, c, h, w]` → `[n, c, ⌈h/2⌉, ⌈w/2⌉]`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        self.0.forward(x)
    }
}

/// Nearest-neighbour resize, then 3×3.
#[derive(Debug)]
pub struct Upsample(DoublingConv);

impl Upsample {
    /// Key `conv` below `vars`.
    ///
    /// # Errors
    /// As [`Vars::get`].
    pub fn new(vars: &Vars, channels: i64) -> Result<Self> {
        Ok(Self(DoublingConv::new(&(vars / "conv"), channels, channels, DoublingPad::Around)?))
    }

    /// `[n, c, h, w]` → `[n, c, size…]`. The size is the next skip's, which is
    /// twice the input's unless a latent side is not a multiple of the network's factor.
    pub fn forward(&self, x: &Tensor, size: [i64; 2]) -> Tensor {
        self.0.forward(x, size)
    }
}
