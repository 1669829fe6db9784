//! On DensePose clips of real people, where no picture of the truth exists: does the figure fill its pose?

use super::colour;
use crate::{
    data::GALLERY,
    eval::frame,
    synth::{self, Person, Rig},
    video,
};
use anyhow::{Context, Result};
use keyframed_engine::{
    Frame, KeyframeGenerator,
    pose::{Labels, Palette},
};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// One frame in so many is looked at.
const EVERY: usize = 10;
/// Avatars that each clip drives.
const AVATARS: [usize; 3] = [0, 4, 9];
/// ΔE from the empty scene from which on a pixel belongs to the figure.
const FOREIGN: f64 = 14.0;

/// How well one clip was followed.
#[derive(Debug, Serialize)]
pub struct Followed {
    /// The clip's file name.
    pub clip: String,
    /// Intersection over union of the figure with the pose's labels; hair and skirts reach beyond them.
    pub silhouette_iou: f64,
    /// Frames looked at.
    pub frames: usize,
}

/// The clips of a folder, by name.
///
/// # Errors
/// The folder cannot be read.
pub fn clips(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut files: Vec<PathBuf> = entries.filter_map(|e| Some(e.ok()?.path())).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == "mp4"));
    files.sort();
    Ok(files)
}

/// Animates [`AVATARS`] with every [`EVERY`]th pose of `clip`; also returns one row of pictures for each avatar and one
/// of poses.
///
/// # Errors
/// The clip cannot be read, or whatever the generator says.
pub fn follow(
    generator: &mut dyn KeyframeGenerator,
    rig: &Rig,
    clip: &Path,
    size: usize,
) -> Result<(Followed, Vec<Vec<Vec<u8>>>)> {
    let (mut poses, mut count, side) = (Vec::new(), 0usize, size as u32);
    video::read(clip, |_, frame| {
        if count.is_multiple_of(EVERY) {
            poses.push(Labels::from_frame(&frame).resized(side, side)?);
        }
        count += 1;
        Ok(())
    })?;
    let (mut total, mut rows) = (0.0, vec![vec![]; 1 + AVATARS.len()]);
    let shown = |i: usize| i.is_multiple_of((poses.len() / 6).max(1));
    for (row, avatar) in AVATARS.into_iter().enumerate() {
        let avatar = avatar % GALLERY;
        generator.set_reference(&frame(&synth::avatar(rig, avatar, size).rgb, size)?)?;
        let empty = Person::gallery(avatar).backdrop.picture(size);
        for (i, pose) in poses.iter().enumerate() {
            let driving: Frame = pose.colours(Palette::Viridis);
            let made = generator.generate(&driving, 0)?;
            total += overlap(made.data(), &empty, pose.data());
            if shown(i) {
                rows[1 + row].push(made.data().to_vec());
                if row == 0 {
                    rows[0].push(driving.data().to_vec());
                }
            }
        }
    }
    let frames = poses.len() * AVATARS.len();
    let clip = clip.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok((Followed { clip, silhouette_iou: total / frames.max(1) as f64, frames }, rows))
}

/// Intersection over union of what differs from the empty scene and what is labelled.
fn overlap(made: &[u8], empty: &[u8], labels: &[u8]) -> f64 {
    let (mut both, mut either) = (0.0, 0.0f64);
    for ((a, b), &label) in made.chunks_exact(3).zip(empty.chunks_exact(3)).zip(labels) {
        let figure = colour::distance(a, b) > FOREIGN;
        both += f64::from(u8::from(figure && label > 0));
        either += f64::from(u8::from(figure || label > 0));
    }
    both / either.max(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlap_is_that_of_figure_and_labels() {
        let empty = [[40u8, 90, 200]; 8].concat();
        let mut made = empty.clone();
        made[..12].fill(0);
        assert_eq!(overlap(&made, &empty, &[7, 7, 7, 7, 0, 0, 0, 0]), 1.0);
        assert_eq!(overlap(&made, &empty, &[7, 7, 0, 0, 0, 0, 0, 0]), 0.5);
        assert_eq!(overlap(&made, &empty, &[0, 0, 0, 0, 1, 1, 1, 1]), 0.0);
    }
}
