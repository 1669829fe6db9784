//! Residual flow from the coarsest scale to the finest.

use super::{ConvLeaky, FilmConfig, Flow, halves, joined, warp::warp};
use crate::{error::Result, kernels, nn::Conv2d, vars::Vars};
use tch::Tensor;

/// Predicts a residual flow from two feature maps of one scale.
#[derive(Debug)]
struct Predictor {
    convs: Vec<ConvLeaky>,
    last: Conv2d,
}

impl Predictor {
    fn new(vars: &Vars, inputs: i64, convs: i64, width: i64) -> Result<Self> {
        let place = vars / "_convs";
        let mut layers = Vec::new();
        for i in 0..convs {
            layers.push(ConvLeaky::new(&(&place / i), if i == 0 { inputs } else { width }, width, 3)?);
        }
        layers.push(ConvLeaky::new(&(&place / convs), width, width / 2, 1)?);
        let last = Conv2d::new(&(&place / (convs + 1) / 0), width / 2, 2, 1)?;
        Ok(Self { convs: layers, last })
    }

    /// `both` feature maps, joined.
    fn forward(&self, both: Tensor) -> Tensor {
        self.last.forward(&self.convs.iter().fold(both, |x, conv| conv.forward(&x)))
    }
}

#[derive(Debug)]
pub(super) struct FlowEstimator {
    shared: Predictor,
    /// Of the finest scales from `skips` on, finest first. The keys count the other way.
    own: Vec<Predictor>,
    /// Finest scales without a predictor.
    skips: usize,
    fusion_levels: usize,
}

impl FlowEstimator {
    pub(super) fn new(vars: &Vars, config: &FilmConfig) -> Result<Self> {
        let predictor = |place: Vars, level: usize| {
            let inputs = 2 * config.features(level);
            Predictor::new(&place, inputs, config.flow_convs[level], config.flow_filters[level])
        };
        let count = config.specialized_levels;
        let shared = predictor(vars / "_predictor", count)?;
        let own = (config.flow_skips..count)
            .map(|level| predictor(vars / "_predictors" / (count - 1 - level), level))
            .collect::<Result<_>>()?;
        Ok(Self { shared, own, skips: config.flow_skips, fusion_levels: config.fusion_pyramid_levels })
    }

    /// Flow that moves each half's pixels to where they are found in the other half. `features`: both pictures' as
    /// one batch, `[2b, c(i), h/2ⁱ, w/2ⁱ]`.
    pub(super) fn forward(&self, features: &[Tensor]) -> Flow {
        let (mut residuals, mut flows): (Vec<Tensor>, Vec<Tensor>) = (Vec::new(), Vec::new());
        for level in (0..features.len()).rev() {
            let Some(index) = level.checked_sub(self.skips) else {
                flows.extend(flows.last().map(finer));
                continue;
            };
            let predictor = self.own.get(index).unwrap_or(&self.shared);
            let own = &features[level];
            let (residual, flow) = match flows.last() {
                None => {
                    let flow = predictor.forward(joined(&[own, &swapped(own)]));
                    (flow.shallow_clone(), flow)
                }
                Some(coarse) => {
                    let coarse = finer(coarse);
                    let both = kernels::join_warped(own, &coarse)
                        .unwrap_or_else(|| joined(&[own, &warp(&swapped(own), &coarse)]));
                    let residual = predictor.forward(both);
                    (residual.shallow_clone(), residual + coarse)
                }
            };
            residuals.push(residual);
            flows.push(flow);
        }
        residuals.reverse();
        flows.reverse();
        flows.truncate(self.fusion_levels);
        Flow { residuals, flows }
    }
}

/// The second half of a batch, then the first.
fn swapped(x: &Tensor) -> Tensor {
    let (first, second) = halves(x);
    Tensor::cat(&[second, first], 0)
}

/// Twice the size, hence twice as many pixels far.
fn finer(flow: &Tensor) -> Tensor {
    kernels::finer(flow).unwrap_or_else(|| {
        let size = flow.size();
        flow.upsample_bilinear2d([2 * size[2], 2 * size[3]], false, None, None) * 2.0
    })
}
