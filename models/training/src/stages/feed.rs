//! What the stages `denoise` and `lcm` learn from.

use crate::{
    config,
    data::{self, Pool},
    stages::encode::Latents,
};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use tch::Tensor;

/// A batch: `b` people with `f` poses each.
pub struct Batch {
    /// `[b, 4, h, w]`.
    pub reference: Tensor,
    /// Clean, `[b, 4, f, h, w]`.
    pub latents: Tensor,
    /// `[b·f, 3, H, W]` in [0, 1].
    pub poses: Tensor,
    /// What each latent's error counts, `[b, 1, f, h, w]`.
    pub weight: Tensor,
}

/// Draws batches from the encoded pool.
pub struct Feed<'a> {
    /// How many people and poses.
    pub recipe: &'a config::Denoise,
    /// Pictures.
    pub pool: &'a Pool,
    /// Their latents.
    pub latents: &'a Latents,
}

impl Feed<'_> {
    /// A fresh batch.
    pub fn batch(&self, rng: &mut ChaCha8Rng) -> Batch {
        let size = self.pool.size;
        let (mut reference, mut latents, mut poses, mut weight) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for _ in 0..self.recipe.references {
            let person = self.pool.pick(self.recipe.gallery_share, rng);
            let (mine, targets) = (&self.latents.targets[person], self.pool.training_targets(person));
            let of = |list: &Tensor, index: usize| list.narrow(0, index as i64, 1);
            // Now and then any picture serves as the reference: users bring all kinds.
            let other = rng.random_bool(0.15);
            let list = if other { mine } else { &self.latents.references[person] };
            let limit = if other { targets.len() } else { list.size()[0] as usize };
            reference.push(of(list, rng.random_range(0..limit)));
            for _ in 0..self.recipe.targets {
                let index = rng.random_range(0..targets.len());
                let labels = &targets[index].labels;
                latents.push(of(mine, index));
                poses.push(data::pose_tensor(&data::estimated(labels, rng), size));
                weight.push(latent_weight(labels, size));
            }
        }
        let frames = |list: Vec<Tensor>| {
            let flat = Tensor::cat(&list, 0);
            let shape = flat.size();
            let split =
                [self.recipe.references as i64, self.recipe.targets as i64, shape[1], shape[2], shape[3]];
            flat.view(split).permute([0, 2, 1, 3, 4])
        };
        Batch {
            reference: Tensor::cat(&reference, 0),
            latents: frames(latents),
            poses: Tensor::cat(&poses, 0),
            weight: frames(weight),
        }
    }
}

/// Weight of each latent position `[1, 1, h/8, w/8]`: background low, body and head high.
pub(super) fn latent_weight(labels: &[u8], size: usize) -> Tensor {
    let body =
        data::weights(labels, size, 0.0, 1.0, 1.0).avg_pool2d([8, 8], [8, 8], [0, 0], false, true, None);
    let head =
        data::weights(labels, size, 0.0, 0.0, 1.0).avg_pool2d([8, 8], [8, 8], [0, 0], false, true, None);
    let wide = |t: &Tensor, k: i64| t.max_pool2d([k, k], [1, 1], [k / 2, k / 2], [1, 1], false);
    wide(&body, 5) * 1.2 + wide(&head, 3) * 1.5 + 0.35
}
