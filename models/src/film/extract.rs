//! The feature pyramid: one small extractor run on every scale of the picture.

use super::{ConvLeaky, FilmConfig, half, joined};
use crate::{error::Result, vars::Vars};
use tch::Tensor;

#[derive(Debug)]
pub(super) struct FeatureExtractor {
    depths: Vec<[ConvLeaky; 2]>,
}

impl FeatureExtractor {
    pub(super) fn new(vars: &Vars, config: &FilmConfig) -> Result<Self> {
        let convs = vars / "extract_sublevels.convs";
        let mut from = 3;
        let mut depths = Vec::new();
        for depth in 0..config.sub_levels {
            let (place, width) = (&convs / depth, config.filters << depth);
            let first = ConvLeaky::new(&(&place / 0), from, width, 3)?;
            depths.push([first, ConvLeaky::new(&(&place / 1), width, width, 3)?]);
            from = width;
        }
        Ok(Self { depths })
    }

    /// Features of one picture at depths 0, 1, …; depth d is 2ᵈ times smaller.
    fn tree(&self, image: &Tensor, depth: usize) -> Vec<Tensor> {
        let mut found: Vec<Tensor> = Vec::with_capacity(depth);
        for [first, second] in self.depths.iter().take(depth) {
            let input = found.last().map_or_else(|| image.shallow_clone(), half);
            found.push(second.forward(&first.forward(&input)));
        }
        found
    }

    /// Scale i joins depth d of the picture at scale i − d, own scale first: all
    /// have the same size, and scale `sub_levels − 1` and coarser the same width.
    pub(super) fn forward(&self, images: &[Tensor]) -> Vec<Tensor> {
        let deepest = self.depths.len();
        let trees: Vec<Vec<Tensor>> = images
            .iter()
            .enumerate()
            .map(|(level, image)| self.tree(image, deepest.min(images.len() - level)))
            .collect();
        (0..images.len())
            .map(|level| {
                let depths = 0..deepest.min(level + 1);
                let parts: Vec<&Tensor> = depths.map(|depth| &trees[level - depth][depth]).collect();
                joined(&parts)
            })
            .collect()
    }
}
