//! Rendered sequences: what a generator is given, and what would be right.

use crate::{
    data::GALLERY,
    eval::{SEED, cast, frame},
    synth::{self, Camera, Motion, Rig, Shot, render},
};
use anyhow::{Result, ensure};
use keyframed_engine::{
    Frame, Nanos, SECOND,
    pose::{Labels, Palette},
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::flicker::still;

/// Frames a second.
pub const RATE: u32 = 25;

/// One avatar in one motion.
pub struct Clip {
    /// The avatar's name.
    pub avatar: &'static str,
    /// The picture that is animated.
    pub reference: Frame,
    /// Pose frames.
    pub poses: Vec<Frame>,
    /// The same frames as the renderer makes them.
    pub truth: Vec<Shot>,
    /// For each frame but the first: the pixels that nothing moves in, from the frame before to this one.
    pub still: Vec<Vec<bool>>,
}

impl Clip {
    /// Time of frame `index`.
    pub fn pts(index: usize) -> Nanos {
        index as Nanos * SECOND / Nanos::from(RATE)
    }

    /// The truth's pictures.
    pub fn true_pictures(&self) -> Vec<&[u8]> {
        self.truth.iter().map(|shot| shot.rgb.as_slice()).collect()
    }
}

/// Clips of `count` avatars, spread over the gallery, of `frames` frames each, `size`×`size`.
///
/// # Errors
/// More avatars than there are, or fewer than two frames.
pub fn clips(rig: &Rig, size: usize, count: usize, frames: usize) -> Result<Vec<Clip>> {
    cast_clips(rig, size, count, frames, false)
}

/// As [`clips`], of people that no training saw if they are to be `unseen`.
///
/// # Errors
/// As [`clips`].
pub fn cast_clips(rig: &Rig, size: usize, count: usize, frames: usize, unseen: bool) -> Result<Vec<Clip>> {
    ensure!((1..=GALLERY).contains(&count), "there are 1 to {GALLERY} avatars, not {count}");
    ensure!(frames >= 2, "a clip needs at least two frames, not {frames}");
    (0..count).map(|n| clip(rig, size, n * GALLERY / count, frames, unseen)).collect()
}

fn clip(rig: &Rig, size: usize, avatar: usize, frames: usize, unseen: bool) -> Result<Clip> {
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    rng.set_stream(avatar as u64 + if unseen { 4000 } else { 3000 });
    let (person, reference) = cast(rig, avatar, unseen, size, &mut rng);
    let (motion, camera) = (Motion::random(&mut rng), Camera::random(&mut rng));
    let (start, shape) = (rng.random_range(0.0..10.0f32), rng.random_range(0..rig.shapes()));
    let at = |index: usize| start + index as f32 / RATE as f32;
    let truth: Vec<Shot> = (0..frames)
        .map(|index| render(rig, &person, shape, &motion.pose(at(index)), &camera, size))
        .collect();
    let pose = |shot: &Shot| -> Result<Frame> {
        Ok(Labels::new(size as u32, size as u32, shot.labels.clone())?.colours(Palette::Viridis))
    };
    Ok(Clip {
        avatar: if unseen { "unseen" } else { synth::GALLERY[avatar] },
        reference: frame(&reference.rgb, size)?,
        poses: truth.iter().map(pose).collect::<Result<_>>()?,
        still: truth.windows(2).map(|pair| still(&pair[0], &pair[1])).collect(),
        truth,
    })
}
