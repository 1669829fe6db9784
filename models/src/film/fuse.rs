//! The decoder that joins warped pictures and features into one picture.

use super::{ConvLeaky, FilmConfig, joined};
use crate::{
    error::Result,
    nn::{Conv2d, DoublingConv, DoublingPad},
    vars::Vars,
};
use tch::Tensor;

#[derive(Debug)]
struct Step {
    /// 2×2, without activation.
    widen: DoublingConv,
    convs: [ConvLeaky; 2],
}

#[derive(Debug)]
pub(super) struct Fusion {
    /// Coarsest first.
    steps: Vec<Step>,
    output: Conv2d,
}

impl Fusion {
    pub(super) fn new(vars: &Vars, config: &FilmConfig) -> Result<Self> {
        // Two pictures with their features and two flows.
        let inputs = |level: usize| 2 * (3 + config.features(level)) + 4;
        let width = |level: usize| config.filters << level.min(config.specialized_levels);
        let coarsest = config.fusion_pyramid_levels - 1;
        let mut steps = Vec::new();
        let mut from = inputs(coarsest);
        for level in (0..coarsest).rev() {
            let (place, to) = (vars / "convs" / steps.len(), width(level));
            let widen = DoublingConv::new(&(&place / 0 / 0), from, to, DoublingPad::After)?;
            let first = ConvLeaky::new(&(&place / 1), to + inputs(level), to, 3)?;
            let second = ConvLeaky::new(&(&place / 2), to, to, 3)?;
            steps.push(Step { widen, convs: [first, second] });
            from = to;
        }
        Ok(Self { steps, output: Conv2d::new(&(vars / "output_conv"), from, 3, 1)? })
    }

    /// Aligned inputs per scale, finest first → `[b, 3, h, w]`.
    pub(super) fn forward(&self, levels: &[Tensor]) -> Tensor {
        let Some((coarsest, finer)) = levels.split_last() else { return Tensor::new() };
        let mut x = coarsest.shallow_clone();
        for (step, own) in self.steps.iter().zip(finer.iter().rev()) {
            let size = own.size();
            let wide = step.widen.forward(&x, [size[2], size[3]]);
            x = step.convs[1].forward(&step.convs[0].forward(&joined(&[own, &wide])));
        }
        self.output.forward(&x)
    }
}
