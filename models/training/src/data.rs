//! The pool of rendered pictures that the stages draw batches from.

use crate::{
    config::Recipe,
    synth::{self, Camera, Framing, Person, Pose, Rig, degrade, render},
};
use anyhow::Result;
use keyframed_engine::{
    Decision, Nanos, SECOND, SelectConfig, Selector,
    pose::{LABELS, Labels, Palette},
};
use rand::{Rng, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use tch::{Kind, Tensor};

/// Avatars that ship with the model.
pub const GALLERY: usize = synth::GALLERY.len();
/// The last pictures of each gallery avatar are never trained on.
pub const HELD_OUT: usize = 8;

/// A picture with its truth.
#[derive(Clone)]
pub struct Picture {
    /// RGB, `size`×`size`.
    pub rgb: Vec<u8>,
    /// DensePose part of each pixel.
    pub labels: Vec<u8>,
}

/// One person's pictures.
pub struct Album {
    /// Calm frontal pictures.
    pub references: Vec<Picture>,
    /// Pictures in any pose.
    pub targets: Vec<Picture>,
    /// How many of the targets, the last ones, are never trained on.
    pub held_out: usize,
}

/// All people, gallery avatars first.
pub struct Pool {
    /// One album a person; at least one.
    pub albums: Vec<Album>,
    /// How many of them, the first ones, are avatars of the gallery.
    pub gallery: usize,
    /// Picture side.
    pub size: usize,
}

impl Pool {
    /// Renders the pool that the recipe describes.
    pub fn render(rig: &Rig, recipe: &Recipe) -> Self {
        let data = &recipe.data;
        let bar = indicatif::ProgressBar::new((GALLERY + data.people) as u64).with_prefix("figures");
        let albums = (0..GALLERY + data.people)
            .into_par_iter()
            .map(|index| {
                bar.inc(1);
                let mut rng = ChaCha8Rng::seed_from_u64(recipe.seed);
                rng.set_stream(index as u64);
                let gallery = index < GALLERY;
                let person = if gallery { Person::gallery(index) } else { Person::random(&mut rng) };
                let targets =
                    if gallery { data.gallery_pictures + HELD_OUT } else { data.pictures_per_person };
                let references = if gallery { data.references.max(6) } else { data.references };
                album(rig, &person, gallery.then_some(index), references, targets, recipe.size, &mut rng)
            })
            .collect();
        Self { albums, gallery: GALLERY, size: recipe.size }
    }

    /// A gallery avatar or another person.
    pub fn pick(&self, gallery_share: f64, rng: &mut ChaCha8Rng) -> usize {
        let others = self.albums.len() - self.gallery;
        if others == 0 || self.gallery > 0 && rng.random_bool(gallery_share) {
            rng.random_range(0..self.gallery)
        } else {
            self.gallery + rng.random_range(0..others)
        }
    }

    /// Targets of person `index` that may be trained on.
    pub fn training_targets(&self, index: usize) -> &[Picture] {
        let album = &self.albums[index];
        &album.targets[..album.targets.len() - album.held_out]
    }

    /// A few people to watch in training, half of them from the gallery.
    pub fn watched(&self) -> Vec<usize> {
        let spread = |from: usize, to: usize| (from..to).step_by(((to - from) / 5).max(1)).take(5);
        spread(0, self.gallery).chain(spread(self.gallery, self.albums.len())).collect()
    }

    /// Any picture that may be trained on.
    pub fn any(&self, rng: &mut ChaCha8Rng) -> &Picture {
        let index = self.pick(0.3, rng);
        let album = &self.albums[index];
        if rng.random_bool(0.3) {
            pick(&album.references, rng)
        } else {
            pick(self.training_targets(index), rng)
        }
    }
}

/// One of a list that is never empty.
pub fn pick<'a, T>(list: &'a [T], rng: &mut ChaCha8Rng) -> &'a T {
    list.choose(rng).unwrap_or(&list[0])
}

fn album(
    rig: &Rig,
    person: &Person,
    gallery: Option<usize>,
    references: usize,
    targets: usize,
    size: usize,
    rng: &mut ChaCha8Rng,
) -> Album {
    let keep = |shot: synth::Shot| Picture { rgb: shot.rgb, labels: shot.labels };
    let held_out = if gallery.is_some() { HELD_OUT } else { 0 };
    let mut album = Album { references: Vec::new(), targets: Vec::new(), held_out };
    for index in 0..references {
        if let (Some(avatar), 0) = (gallery, index) {
            album.references.push(keep(synth::avatar(rig, avatar, size)));
            continue;
        }
        let framing = if rng.random_bool(0.6) { Framing::Full } else { Framing::Half };
        let (pose, camera) = (Pose::reference(rng), Camera::reference(framing, rng));
        let shape = rng.random_range(0..rig.shapes());
        album.references.push(keep(render(rig, person, shape, &pose, &camera, size)));
    }
    for _ in 0..targets {
        // Another body shape than the reference's: shape must come from the pose.
        let shape = rng.random_range(0..rig.shapes());
        let (pose, camera) = (Pose::random(rng), Camera::random(rng));
        album.targets.push(keep(render(rig, person, shape, &pose, &camera, size)));
    }
    album
}

/// Pose frames a second that [`selected`] selects from.
pub const RATE: Nanos = 25;

/// The first `count` frames of a motion that stage 1 makes key poses, live and as it selects unless told otherwise,
/// and which frames they are. Key frames that it holds count: where nothing moves, that is what comes next.
///
/// # Errors
/// Frames that are not `size`×`size`.
pub fn selected(
    count: usize,
    size: usize,
    at: impl Fn(usize) -> synth::Shot,
) -> Result<Vec<(usize, synth::Shot)>> {
    let (mut selector, side) = (Selector::new(SelectConfig::default())?, size as u32);
    let mut frames = Vec::new();
    for n in 0.. {
        if frames.len() == count {
            break;
        }
        let shot = at(n);
        let pose = Labels::new(side, side, shot.labels.clone())?.colours(Palette::Viridis);
        if selector.push(&pose, n as Nanos * SECOND / RATE) != Decision::Skip {
            frames.push((n, shot));
        }
    }
    Ok(frames)
}

/// Gaussian noise of the shape of `x`; libtorch's own generator is shared by all threads.
pub fn noise_like(x: &Tensor, rng: &mut ChaCha8Rng) -> Tensor {
    let values: Vec<f32> = rng.sample_iter(rand_distr::StandardNormal).take(x.numel()).collect();
    Tensor::from_slice(&values).view(x.size().as_slice())
}

/// RGB bytes as `[1, 3, size, size]` in [-1, 1].
pub fn picture_tensor(rgb: &[u8], size: usize) -> Tensor {
    let side = size as i64;
    let bytes = Tensor::from_slice(rgb).view([1, side, side, 3]).permute([0, 3, 1, 2]);
    bytes.to_kind(Kind::Float) / 127.5 - 1.0
}

/// Part labels as the ControlNet's picture `[1, 3, size, size]` in [0, 1].
pub fn pose_tensor(labels: &[u8], size: usize) -> Tensor {
    let side = size as i64;
    let palette = Palette::Spread.colours();
    let rgb: Vec<u8> = labels.iter().flat_map(|&label| palette[usize::from(label).min(LABELS - 1)]).collect();
    let bytes = Tensor::from_slice(&rgb).view([1, side, side, 3]).permute([0, 3, 1, 2]);
    bytes.to_kind(Kind::Float) / 255.0
}

/// A target's labels as an estimator would give them.
pub fn estimated(labels: &[u8], rng: &mut ChaCha8Rng) -> Vec<u8> {
    let strength = if rng.random_bool(0.3) { 0.0 } else { rng.random_range(0.2..1.0) };
    degrade(labels, strength, rng)
}

/// Weight of each pixel: background low, body high, head highest; `[1, 1, size, size]`.
pub fn weights(labels: &[u8], size: usize, background: f32, body: f32, head: f32) -> Tensor {
    let side = size as i64;
    let weight = |&label: &u8| match label {
        0 => background,
        23 | 24 => head,
        _ => body,
    };
    Tensor::from_slice(&labels.iter().map(weight).collect::<Vec<f32>>()).view([1, 1, side, side])
}

/// `[1, 3, h, w]` in [-1, 1] back to RGB bytes.
pub fn bytes(picture: &Tensor) -> Vec<u8> {
    let scaled = ((picture.to_kind(Kind::Float) + 1.0) * 127.5).round().clamp(0.0, 255.0);
    let flat = scaled.squeeze_dim(0).permute([1, 2, 0]).contiguous().to_kind(Kind::Uint8).flatten(0, -1);
    Vec::<u8>::try_from(flat).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A bar of a bright part that moves faster and faster.
    #[test]
    fn key_poses_lie_closer_the_faster_it_moves() {
        let size = 64;
        let shot = |n: usize| {
            let at = (n * n / 8) % (size - 16);
            let inside = |i: usize| (at..at + 16).contains(&(i % size));
            let labels = (0..size * size).map(|i| if inside(i) { 20 } else { 0 }).collect();
            synth::Shot { size, rgb: vec![0; size * size * 3], labels }
        };
        let frames: Vec<usize> = selected(6, size, shot).unwrap().into_iter().map(|(n, _)| n).collect();
        let gaps: Vec<usize> = frames.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!((frames.len(), frames[0]), (6, 0));
        let window = SelectConfig::default().window as usize;
        assert!(gaps.iter().all(|gap| (1..=window).contains(gap)), "{gaps:?}");
        assert!(gaps.first() > gaps.last(), "{gaps:?}");
    }
}
