//! The four layers that everything else is built of.

use super::Memory;
use crate::{
    error::Result,
    kernels::{self, Activation, Packed},
    torch_ext::channels_last,
    vars::{Init, Vars},
};
use tch::{Kind, Tensor};

/// 2-D convolution, keys `weight` and (if asked for) `bias`.
#[derive(Debug)]
pub struct Conv2d {
    kernel: Kernel,
    bias: Option<Tensor>,
    stride: i64,
    padding: i64,
}

#[derive(Debug)]
enum Kernel {
    Plain(Tensor),
    Packed(Packed),
}

impl Conv2d {
    /// `kernel`×`kernel`, stride 1, padding that keeps the size of odd kernels, with bias.
    ///
    /// # Errors
    /// As [`Vars::get`].
    pub fn new(vars: &Vars, inputs: i64, outputs: i64, kernel: i64) -> Result<Self> {
        Self::with(vars, inputs, outputs, kernel, 1, kernel / 2, true)
    }

    /// Any stride, padding and bias.
    ///
    /// # Errors
    /// As [`Vars::get`].
    pub fn with(
        vars: &Vars,
        inputs: i64,
        outputs: i64,
        kernel: i64,
        stride: i64,
        padding: i64,
        bias: bool,
    ) -> Result<Self> {
        let init = Init::FanIn(inputs * kernel * kernel);
        let weight = vars.kernel("weight", &[outputs, inputs, kernel, kernel], init)?;
        let bias = bias.then(|| vars.get("bias", &[outputs], init)).transpose()?;
        Ok(Self::made(vars, weight, bias, stride, padding))
    }

    /// As [`Conv2d::new`], starting at zero: the output has no effect until trained.
    ///
    /// # Errors
    /// As [`Vars::get`].
    pub fn zeroed(vars: &Vars, inputs: i64, outputs: i64, kernel: i64) -> Result<Self> {
        let weight = vars.kernel("weight", &[outputs, inputs, kernel, kernel], Init::Const(0.0))?;
        let bias = Some(vars.get("bias", &[outputs], Init::Const(0.0))?);
        Ok(Self::made(vars, weight, bias, 1, kernel / 2))
    }

    fn made(vars: &Vars, weight: Tensor, bias: Option<Tensor>, stride: i64, padding: i64) -> Self {
        let packed = vars.packs().and_then(|kind| Packed::new(&weight, stride, padding, kind));
        let kernel = packed.map_or(Kernel::Plain(weight), Kernel::Packed);
        Self { kernel, bias, stride, padding }
    }

    /// `[b, inputs, h, w]` → `[b, outputs, h', w']`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        self.run(x, self.bias.as_ref(), Activation::None)
    }

    /// As [`Conv2d::forward`], through an activation.
    pub fn forward_then(&self, x: &Tensor, activation: Activation) -> Tensor {
        self.run(x, self.bias.as_ref(), activation)
    }

    /// As [`Conv2d::forward`], plus `other` of the answer's shape.
    pub fn forward_plus(&self, x: &Tensor, other: &Tensor) -> Tensor {
        match &self.kernel {
            // Pictures of one pixel have strides that libtorch's fused sum does not understand.
            Kernel::Packed(kernel) if other.size().iter().skip(2).any(|&side| side != 1) => {
                self.packed(kernel, x, self.bias.as_ref(), Some(other), Activation::None)
            }
            _ => other + self.forward(x),
        }
    }

    /// As [`Conv2d::forward`], plus `shift` per channel, `[1 or b, outputs]`.
    pub fn forward_shifted(&self, x: &Tensor, shift: &Tensor) -> Tensor {
        match (&self.kernel, &self.bias) {
            (Kernel::Packed(_), Some(bias)) if shift.size()[0] == 1 => {
                self.run(x, Some(&(bias + shift.squeeze_dim(0))), Activation::None)
            }
            _ => self.forward(x) + shift.unsqueeze(-1).unsqueeze(-1),
        }
    }

    fn run(&self, x: &Tensor, bias: Option<&Tensor>, activation: Activation) -> Tensor {
        match &self.kernel {
            Kernel::Packed(kernel) => self.packed(kernel, x, bias, None, activation),
            Kernel::Plain(weight) => {
                activation.of(x.conv2d(weight, bias, [self.stride; 2], [self.padding; 2], [1, 1], 1))
            }
        }
    }

    /// # Panics
    /// If oneDNN refuses, as libtorch's own operations do on tensors that do not fit together or when memory runs out.
    #[expect(
        clippy::panic,
        reason = "as every operation of `tch`: the elements take it for a key frame that failed"
    )]
    fn packed(
        &self,
        kernel: &Packed,
        x: &Tensor,
        bias: Option<&Tensor>,
        other: Option<&Tensor>,
        activation: Activation,
    ) -> Tensor {
        match kernel.convolve(&channels_last(x), bias, other, activation) {
            Some(made) => made,
            None => panic!("oneDNN refused a convolution of {:?}", x.size()),
        }
    }
}

/// A convolution of a picture that is doubled by its nearest pixels first, computed without doubling it: each of the
/// four pixels that a source pixel becomes sees only 2×2 different ones, so a kernel of that size with four times the
/// outputs, and less than half of the products of a 3×3 kernel, does the same.
#[derive(Debug)]
pub struct DoublingConv {
    plain: Conv2d,
    /// The four pixels' kernel and bias.
    four: Option<Conv2d>,
    pad: DoublingPad,
}

/// Where a [`DoublingConv`] finds zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DoublingPad {
    /// Around the doubled picture; the kernel is 3×3.
    Around,
    /// At its bottom and its right; the kernel is 2×2.
    After,
}

impl DoublingConv {
    /// # Errors
    /// As [`Vars::get`].
    pub fn new(vars: &Vars, inputs: i64, outputs: i64, pad: DoublingPad) -> Result<Self> {
        let (side, padding) = if pad == DoublingPad::Around { (3, 1) } else { (2, 0) };
        let plain = Conv2d::with(vars, inputs, outputs, side, 1, padding, true)?;
        let four = match vars.packs() {
            None => None,
            Some(_) => {
                let init = Init::FanIn(inputs * side * side);
                let weight = vars.get("weight", &[outputs, inputs, side, side], init)?;
                let bias = vars.get("bias", &[outputs], init)?.repeat([4]);
                Some(Conv2d::made(vars, pad.four(&weight), Some(bias), 1, 1))
            }
        };
        Ok(Self { plain, four, pad })
    }

    /// `[b, inputs, h, w]` → `[b, outputs, …size]`; `size` is `[2h, 2w]`, or one less.
    pub fn forward(&self, x: &Tensor, size: [i64; 2]) -> Tensor {
        let own = x.size();
        if let Some(four) = self.four.as_ref().filter(|_| size == [2 * own[2], 2 * own[3]]) {
            let (step, from) = self.pad.reading();
            if let Some(made) = kernels::spread(&four.forward(x), step, from) {
                return made;
            }
        }
        let doubled = x.upsample_nearest2d(size, None, None);
        match self.pad {
            DoublingPad::Around => self.plain.forward(&doubled),
            DoublingPad::After => self.plain.forward(&doubled.constant_pad_nd([0, 1, 0, 1])),
        }
    }
}

impl DoublingPad {
    /// For the even and the odd row (or column) of a source row's two: which of the 2 source rows each row of the
    /// kernel meets.
    fn meets(self) -> [&'static [i64]; 2] {
        match self {
            Self::Around => [&[0, 1, 1], &[0, 0, 1]],
            Self::After => [&[0, 0], &[0, 1]],
        }
    }

    /// Where the four pixels' parts are read, see [`kernels::spread`].
    fn reading(self) -> (i64, i64) {
        match self {
            Self::Around => (1, 0),
            Self::After => (0, 1),
        }
    }

    /// `[o, i, k, k]` → `[4o, i, 2, 2]`.
    fn four(self, weight: &Tensor) -> Tensor {
        let (o, i, _, _) = weight.size4().unwrap_or_default();
        let four = Tensor::zeros([2, 2, o, i, 2, 2], (weight.kind(), weight.device()));
        for (p, rows) in (0..).zip(self.meets()) {
            for (q, columns) in (0..).zip(self.meets()) {
                let part = four.get(p).get(q);
                for (a, &row) in (0..).zip(rows) {
                    for (b, &column) in (0..).zip(columns) {
                        let _ =
                            part.select(3, column).select(2, row).g_add_(&weight.select(3, b).select(2, a));
                    }
                }
            }
        }
        four.view([4 * o, i, 2, 2])
    }
}

/// Linear layer, keys `weight` `[outputs, inputs]` and (if asked for) `bias`.
#[derive(Debug)]
pub struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    /// With bias.
    ///
    /// # Errors
    /// As [`Vars::get`].
    pub fn new(vars: &Vars, inputs: i64, outputs: i64) -> Result<Self> {
        Self::with(vars, inputs, outputs, true)
    }

    /// With or without bias.
    ///
    /// # Errors
    /// As [`Vars::get`].
    pub fn with(vars: &Vars, inputs: i64, outputs: i64, bias: bool) -> Result<Self> {
        let init = Init::FanIn(inputs);
        let weight = vars.get("weight", &[outputs, inputs], init)?;
        let bias = bias.then(|| vars.get("bias", &[outputs], init)).transpose()?;
        Ok(Self { weight, bias })
    }

    /// As [`Linear::new`], starting at zero.
    ///
    /// # Errors
    /// As [`Vars::get`].
    pub fn zeroed(vars: &Vars, inputs: i64, outputs: i64) -> Result<Self> {
        let weight = vars.get("weight", &[outputs, inputs], Init::Const(0.0))?;
        Ok(Self { weight, bias: Some(vars.get("bias", &[outputs], Init::Const(0.0))?) })
    }

    /// `[…, inputs]` → `[…, outputs]`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        x.linear(&self.weight, self.bias.as_ref())
    }
}

/// Group normalisation with affine parameters.
#[derive(Debug)]
pub struct GroupNorm {
    weight: Tensor,
    bias: Tensor,
    groups: i64,
    eps: f64,
}

impl GroupNorm {
    /// # Errors
    /// As [`Vars::get`].
    pub fn new(vars: &Vars, groups: i64, channels: i64, eps: f64) -> Result<Self> {
        let weight = vars.get("weight", &[channels], Init::Const(1.0))?;
        let bias = vars.get("bias", &[channels], Init::Const(0.0))?;
        Ok(Self { weight, bias, groups, eps })
    }

    /// `[b, channels, …]`; statistics run over everything behind the batch within a group.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        self.fused(x, false).unwrap_or_else(|| self.plain(x))
    }

    /// As [`GroupNorm::forward`], then SiLU.
    pub fn forward_silu(&self, x: &Tensor) -> Tensor {
        self.fused(x, true).unwrap_or_else(|| self.plain(x).silu())
    }

    fn fused(&self, x: &Tensor, silu: bool) -> Option<Tensor> {
        kernels::group_norm(x, (&self.weight, &self.bias), self.groups, self.eps, silu)
    }

    fn plain(&self, x: &Tensor) -> Tensor {
        x.group_norm(self.groups, Some(&self.weight), Some(&self.bias), self.eps, false)
    }

    /// `[b·frames, channels, h, w]`, frames of a sample adjacent; statistics run over
    /// all frames of a sample, as a norm of the 5-D video tensor does, and over those in
    /// `memory`, if any.
    pub fn forward_pooled(&self, x: &Tensor, frames: i64, memory: Option<&Memory>) -> Tensor {
        if frames == 1 && memory.is_none() {
            return self.forward(x);
        }
        let (rows, channels, h, w) = x.size4().unwrap_or_default();
        let (b, g) = (rows / frames, self.groups);
        let wide = x.to_kind(Kind::Float);
        let values = wide.reshape([b, frames, g, -1]);
        let (mean, var) = match memory {
            None => {
                let (var, mean) = values.var_mean_correction(&[1i64, 3][..], 0, false);
                (mean, var)
            }
            Some(memory) => {
                let (var, mean) = values.var_mean_correction(&[3i64][..], 0, false);
                memory.pooled(&mean, &var)
            }
        };
        let (mean, var) = (mean.view([b, 1, g, 1]), var.view([b, 1, g, 1]));
        // One multiply-add per value: y = x·a + shift with a, shift per sample and channel.
        let a = (var + self.eps).rsqrt() * self.weight.to_kind(Kind::Float).view([1, 1, g, -1]);
        let shift = self.bias.to_kind(Kind::Float).view([1, 1, g, -1]) - mean * &a;
        let (a, shift) = (a.view([b, 1, channels, 1, 1]), shift.view([b, 1, channels, 1, 1]));
        let y = shift.addcmul(&wide.reshape([b, frames, channels, h, w]), &a);
        y.view([rows, channels, h, w]).to_kind(x.kind())
    }
}

/// Layer normalisation over the last dimension.
#[derive(Debug)]
pub struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f64,
}

impl LayerNorm {
    /// # Errors
    /// As [`Vars::get`].
    pub fn new(vars: &Vars, channels: i64, eps: f64) -> Result<Self> {
        let weight = vars.get("weight", &[channels], Init::Const(1.0))?;
        let bias = vars.get("bias", &[channels], Init::Const(0.0))?;
        Ok(Self { weight, bias, eps })
    }

    /// `[…, channels]`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        x.layer_norm(self.weight.size(), Some(&self.weight), Some(&self.bias), self.eps, false)
    }
}
