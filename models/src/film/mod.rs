//! FILM: a frame between two frames.
//!
//! Structure, keys and conventions follow the PyTorch port
//! `dajes/frame-interpolation-pytorch` of Google's FILM ("Frame Interpolation
//! for Large Motion", ECCV 2022): a shared feature pyramid, bidirectional
//! residual flow from coarse to fine, and a fusion decoder. Pictures are
//! `[b, 3, h, w]` in 0..1; everything is differentiable.

mod extract;
mod flow;
mod fuse;
mod order;
mod warp;

use crate::{
    checkpoint::limits,
    error::{ModelError, Result},
    kernels::{self, Activation},
    nn::Conv2d,
    torch_ext::channels_last,
    vars::Vars,
};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

pub use order::{Insertion, multi_frame_order};
pub use warp::{PadBox, warp};

/// Shape of a FILM network; the defaults are the published one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FilmConfig {
    /// Scales of the picture pyramid.
    pub pyramid_levels: usize,
    /// Finest scales that the fusion decoder sees.
    pub fusion_pyramid_levels: usize,
    /// Finest scales with a flow predictor of their own; coarser ones share one.
    pub specialized_levels: usize,
    /// Finest scales without a flow predictor: they take the next coarser one's flow, enlarged. The published network
    /// has none.
    pub flow_skips: usize,
    /// Depth of the feature extractor that runs on every scale.
    pub sub_levels: usize,
    /// Width of the extractor's first level; each deeper one has twice as many.
    pub filters: i64,
    /// 3×3 convolutions of the flow predictor per scale, the shared one last.
    pub flow_convs: Vec<i64>,
    /// Width of the flow predictor per scale, the shared one last.
    pub flow_filters: Vec<i64>,
}

impl Default for FilmConfig {
    fn default() -> Self {
        Self {
            pyramid_levels: 7,
            fusion_pyramid_levels: 5,
            specialized_levels: 3,
            flow_skips: 0,
            sub_levels: 4,
            filters: 64,
            flow_convs: vec![3, 3, 3, 3],
            flow_filters: vec![32, 64, 128, 256],
        }
    }
}

impl FilmConfig {
    fn check(&self) -> Result<()> {
        let levels = self.pyramid_levels;
        let reason = if levels == 0 || levels > 12 || self.sub_levels == 0 || self.sub_levels > 8 {
            "pyramid_levels must be 1..12 and sub_levels 1..8"
        } else if self.fusion_pyramid_levels == 0 || self.fusion_pyramid_levels > levels {
            "fusion_pyramid_levels must be 1..pyramid_levels"
        } else if self.specialized_levels >= levels {
            "specialized_levels must be below pyramid_levels"
        } else if self.flow_skips > self.specialized_levels {
            "flow_skips must not exceed specialized_levels"
        } else if self.features(self.specialized_levels) != self.features(levels - 1) {
            // One predictor serves all of them, so they must be equally wide.
            "specialized_levels must reach the scales of equal width: sub_levels - 1 or more"
        } else if self.flow_convs.len() != self.specialized_levels + 1
            || self.flow_filters.len() != self.specialized_levels + 1
        {
            "flow_convs and flow_filters need specialized_levels + 1 entries"
        } else if self.filters < 1 || !self.flow_convs.iter().all(|n| (1..=limits::LAYERS).contains(n)) {
            "filters must be positive and flow_convs 1..16"
        } else if self.flow_filters.iter().any(|&n| n < 2) {
            "flow_filters must be 2 or more"
        } else {
            return Ok(());
        };
        Err(ModelError::Config(format!("film: {reason}")))
    }

    /// Sides of the pictures must be multiples of this: each scale halves exactly.
    pub fn alignment(&self) -> i64 {
        1 << (self.pyramid_levels.clamp(1, 30) - 1)
    }

    /// Channels of the feature pyramid at `level`.
    fn features(&self, level: usize) -> i64 {
        (0..self.sub_levels.min(level + 1)).map(|depth| self.filters << depth).sum()
    }
}

/// Joined along the channels, which then lie next to each other in memory: with
/// this network's odd numbers of channels convolutions run twice as fast.
fn joined(parts: &[&Tensor]) -> Tensor {
    kernels::join(parts).unwrap_or_else(|| channels_last(&Tensor::cat(parts, 1)))
}

/// A convolution followed by a leaky ReLU; its keys lie below `0`.
#[derive(Debug)]
struct ConvLeaky(Conv2d);

impl ConvLeaky {
    fn new(vars: &Vars, inputs: i64, outputs: i64, kernel: i64) -> Result<Self> {
        Ok(Self(Conv2d::new(&(vars / 0), inputs, outputs, kernel)?))
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        self.0.forward_then(x, Activation::Leaky)
    }
}

/// One picture at every scale, finest first, with its features.
#[derive(Debug)]
pub struct Pyramid {
    /// `[b, 3, h/2ⁱ, w/2ⁱ]`.
    pub images: Vec<Tensor>,
    /// `[b, c(i), h/2ⁱ, w/2ⁱ]`.
    pub features: Vec<Tensor>,
}

impl Pyramid {
    /// The same tensors under a second name.
    pub fn shallow_clone(&self) -> Self {
        let same = |list: &[Tensor]| list.iter().map(Tensor::shallow_clone).collect();
        Self { images: same(&self.images), features: same(&self.features) }
    }
}

/// Optical flow between two pictures, finest scale first; channels are (x, y) in pixels.
#[derive(Debug)]
pub struct Flow {
    /// What each scale adds to the coarser one, all `pyramid_levels` scales.
    pub residuals: Vec<Tensor>,
    /// The flow itself at the `fusion_pyramid_levels` finest scales.
    pub flows: Vec<Tensor>,
}

impl Flow {
    /// Of the first half of a batch, and of the second.
    fn halves(&self) -> (Self, Self) {
        let split = |list: &[Tensor]| list.iter().map(halves).unzip();
        let ((residuals, others), (flows, other_flows)) = (split(&self.residuals), split(&self.flows));
        (Self { residuals, flows }, Self { residuals: others, flows: other_flows })
    }
}

/// What two pictures have between them, whatever the time asked for.
#[derive(Debug)]
pub struct Motion {
    /// From the first picture to the second.
    pub forward: Flow,
    /// From the second picture to the first.
    pub backward: Flow,
    /// Pictures and features of the fusion's scales, `[2b, 3 + c(i), h/2ⁱ, w/2ⁱ]`: the first picture's, then the
    /// second's. Both halves of all work run as one batch.
    both: Vec<Tensor>,
}

/// What the fusion decoder made, and what it was made of.
#[derive(Debug)]
pub struct Between {
    /// `[b, 3, h, w]`, about 0..1, not clamped.
    pub image: Tensor,
    /// The first picture, warped to the time asked for, finest scale.
    pub warped0: Tensor,
    /// The second picture, warped likewise.
    pub warped1: Tensor,
}

/// The complete network.
#[derive(Debug)]
pub struct Film {
    extract: extract::FeatureExtractor,
    flow: flow::FlowEstimator,
    fuse: fuse::Fusion,
    config: FilmConfig,
}

impl Film {
    /// Keys `extract`, `predict_flow`, `fuse`.
    ///
    /// # Errors
    /// [`ModelError::Config`], or as [`Vars::get`].
    pub fn new(vars: &Vars, config: &FilmConfig) -> Result<Self> {
        config.check()?;
        Ok(Self {
            extract: extract::FeatureExtractor::new(&(vars / "extract"), config)?,
            flow: flow::FlowEstimator::new(&(vars / "predict_flow"), config)?,
            fuse: fuse::Fusion::new(&(vars / "fuse"), config)?,
            config: config.clone(),
        })
    }

    /// The configuration it was built with.
    pub fn config(&self) -> &FilmConfig {
        &self.config
    }

    /// Picture and feature pyramid of `image`; sides must be multiples of [`FilmConfig::alignment`].
    ///
    /// Neighbouring pairs share a picture, so a caller keeps this for the next pair.
    pub fn pyramid(&self, image: &Tensor) -> Pyramid {
        let mut images = vec![channels_last(image)];
        for level in 1..self.config.pyramid_levels {
            images.push(half(&images[level - 1]));
        }
        let features = self.extract.forward(&images);
        Pyramid { images, features }
    }

    /// Flow in both directions between two pictures.
    pub fn motion(&self, x0: &Pyramid, x1: &Pyramid) -> Motion {
        let both =
            |level: usize, of: fn(&Pyramid) -> &[Tensor]| Tensor::cat(&[&of(x0)[level], &of(x1)[level]], 0);
        let features: Vec<Tensor> =
            (0..x0.features.len()).map(|level| both(level, |x| &x.features)).collect();
        let (forward, backward) = self.flow.forward(&features).halves();
        let fused = 0..self.config.fusion_pyramid_levels;
        let both = fused.map(|level| joined(&[&both(level, |x| &x.images), &features[level]])).collect();
        Motion { forward, backward, both }
    }

    /// The picture at `t`, 0 (first) to 1 (second): flow scaled by time, warp, fusion.
    pub fn at(&self, motion: &Motion, t: f64) -> Between {
        let (to_first, to_second) = (&motion.backward.flows, &motion.forward.flows);
        let levels = motion.both.iter().zip(to_first.iter().zip(to_second));
        let levels: Option<Vec<Tensor>> =
            levels.map(|(both, (first, second))| kernels::between(both, first, second, t)).collect();
        if let Some(levels) = levels.filter(|levels| !levels.is_empty()) {
            let channels = (levels[0].size()[1] - 4) / 2;
            let warped = |from| levels[0].narrow(1, from, 3);
            let (warped0, warped1) = (warped(0), warped(channels));
            return Between { image: self.fuse.forward(&levels), warped0, warped1 };
        }
        let options = motion.both.first().map_or((Kind::Float, Device::Cpu), |x| (x.kind(), x.device()));
        self.at_each(motion, &Tensor::full([1, 1, 1, 1], t, options))
    }

    /// As [`Film::at`] with a time per picture of the batch, `[b, 1, 1, 1]`.
    pub fn at_each(&self, motion: &Motion, t: &Tensor) -> Between {
        let rest = 1.0 - t;
        let (mut levels, mut warped) = (Vec::new(), None);
        for (level, both) in motion.both.iter().enumerate() {
            let to_first = &motion.backward.flows[level] * t;
            let to_second = &motion.forward.flows[level] * &rest;
            let (first, second) = halves(&warp(both, &Tensor::cat(&[&to_first, &to_second], 0)));
            warped.get_or_insert_with(|| (first.narrow(1, 0, 3), second.narrow(1, 0, 3)));
            levels.push(joined(&[&first, &second, &to_first, &to_second]));
        }
        let image = self.fuse.forward(&levels);
        let (warped0, warped1) = warped.unwrap_or_else(|| (image.shallow_clone(), image.shallow_clone()));
        Between { image, warped0, warped1 }
    }

    /// One in-between from scratch: two aligned pictures and a time.
    pub fn forward(&self, x0: &Tensor, x1: &Tensor, t: f64) -> Tensor {
        let (first, second) = (self.pyramid(x0), self.pyramid(x1));
        let motion = self.motion(&first, &second);
        self.at(&motion, t).image
    }
}

/// The first half of a batch, and the second.
fn halves(x: &Tensor) -> (Tensor, Tensor) {
    let half = x.size()[0] / 2;
    (x.narrow(0, 0, half), x.narrow(0, half, half))
}

/// 2×2 average.
fn half(x: &Tensor) -> Tensor {
    x.avg_pool2d([2, 2], [2, 2], [0, 0], false, true, None)
}
