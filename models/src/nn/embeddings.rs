//! Sinusoidal tables: the timestep's and the motion modules' frame positions.

use super::Linear;
use crate::{error::Result, vars::Vars};
use tch::{Device, Kind, Tensor};

/// Sinusoidal embedding of timesteps (`get_timestep_embedding` of diffusers).
#[derive(Debug, Clone, Copy)]
pub struct Timesteps {
    /// Width of the embedding.
    pub channels: i64,
    /// Cosine half first.
    pub flip_sin_to_cos: bool,
    /// Subtracted from the number of frequencies in the exponent's divisor.
    pub freq_shift: f64,
}

impl Timesteps {
    /// `[b]` of any dtype → `[b, channels]`, float32.
    pub fn forward(&self, t: &Tensor) -> Tensor {
        let half = self.channels / 2;
        let step = -(10000f64.ln()) / (half as f64 - self.freq_shift);
        let frequencies = (Tensor::arange(half, (Kind::Float, t.device())) * step).exp();
        let angles = t.to_kind(Kind::Float).unsqueeze(-1) * frequencies.unsqueeze(0);
        let (sin, cos) = (angles.sin(), angles.cos());
        let halves = if self.flip_sin_to_cos { [cos, sin] } else { [sin, cos] };
        let table = Tensor::cat(&halves, -1);
        if self.channels % 2 == 0 { table } else { table.constant_pad_nd([0, 1]) }
    }
}

/// `time_embedding`: sinusoid, linear, SiLU, linear.
#[derive(Debug)]
pub struct TimeEmbedding {
    steps: Timesteps,
    linear_1: Linear,
    linear_2: Linear,
    kind: Kind,
}

impl TimeEmbedding {
    /// Keys `linear_1` and `linear_2` below `vars`; `outputs` is 4× the first level's width.
    ///
    /// # Errors
    /// As [`Vars::get`].
    pub fn new(vars: &Vars, steps: Timesteps, outputs: i64) -> Result<Self> {
        Ok(Self {
            steps,
            linear_1: Linear::new(&(vars / "linear_1"), steps.channels, outputs)?,
            linear_2: Linear::new(&(vars / "linear_2"), outputs, outputs)?,
            kind: vars.kind(),
        })
    }

    /// `[b]` → `[b, outputs]`.
    pub fn forward(&self, t: &Tensor) -> Tensor {
        let x = self.steps.forward(t).to_kind(self.kind);
        self.linear_2.forward(&self.linear_1.forward(&x).silu())
    }
}

/// Position table `[1, length, channels]`: sine on even channels, cosine on odd
/// (`PositionalEncoding` of `magicanimate/models/motion_module.py`).
pub fn positions(length: i64, channels: i64) -> Tensor {
    let options = (Kind::Float, Device::Cpu);
    let step = -(10000f64.ln()) / channels as f64;
    let frequencies = (Tensor::arange_start_step(0, channels, 2, options) * step).exp();
    let angles = Tensor::arange(length, options).unsqueeze(1) * frequencies.unsqueeze(0);
    let pairs = Tensor::stack(&[angles.sin(), angles.cos()], -1);
    pairs.view([1, length, -1]).narrow(-1, 0, channels)
}
