//! The four layers that everything else is built of.

use super::Memory;
use crate::{
    error::Result,
    vars::{Init, Vars},
};
use tch::{Kind, Tensor};

/// 2-D convolution, keys `weight` and (if asked for) `bias`.
#[derive(Debug)]
pub struct Conv2d {
    weight: Tensor,
    bias: Option<Tensor>,
    stride: i64,
    padding: i64,
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
        Ok(Self { weight, bias, stride, padding })
    }

    /// As [`Conv2d::new`], starting at zero: the output has no effect until trained.
    ///
    /// # Errors
    /// As [`Vars::get`].
    pub fn zeroed(vars: &Vars, inputs: i64, outputs: i64, kernel: i64) -> Result<Self> {
        let weight = vars.kernel("weight", &[outputs, inputs, kernel, kernel], Init::Const(0.0))?;
        let bias = Some(vars.get("bias", &[outputs], Init::Const(0.0))?);
        Ok(Self { weight, bias, stride: 1, padding: kernel / 2 })
    }

    /// `[b, inputs, h, w]` → `[b, outputs, h', w']`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        x.conv2d(&self.weight, self.bias.as_ref(), [self.stride; 2], [self.padding; 2], [1, 1], 1)
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
