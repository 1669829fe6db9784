//! Label colours and contact sheets to look at.

use std::path::Path;

use anyhow::{Context, Result};
use image::{Rgb, RgbImage};
use keyframed_engine::pose::{LABELS, Palette};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::camera::{Camera, Framing};
use super::degrade::degrade;
use super::gallery::GALLERY;
use super::person::Person;
use super::pose::Pose;
use super::render::{Shot, render};
use super::rig::Rig;

/// Labels as a DensePose picture, red first.
pub fn colourize(labels: &[u8]) -> Vec<u8> {
    let palette = Palette::Viridis.colours();
    labels.iter().flat_map(|&l| palette[usize::from(l).min(LABELS - 1)]).collect()
}

/// Puts equal squares of RGB bytes side by side, `columns` in a row.
fn tile(cells: &[Vec<u8>], size: usize, columns: usize) -> RgbImage {
    let rows = cells.len().div_ceil(columns);
    let mut out = RgbImage::new((columns * size) as u32, (rows * size) as u32);
    for (index, cell) in cells.iter().enumerate() {
        let (left, top) = ((index % columns) * size, (index / columns) * size);
        for (i, pixel) in cell.chunks_exact(3).enumerate() {
            let place = ((left + i % size) as u32, (top + i / size) as u32);
            out.put_pixel(place.0, place.1, Rgb([pixel[0], pixel[1], pixel[2]]));
        }
    }
    out
}

/// Writes a contact sheet: the gallery, then rows of reference, labels, picture and worsened labels.
///
/// # Errors
/// When the file cannot be written.
pub fn sheet(rig: &Rig, path: &Path, seed: u64) -> Result<()> {
    let (size, columns) = (256, 7);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut cells: Vec<Vec<u8>> =
        (0..GALLERY.len()).map(|i| super::gallery::avatar(rig, i, size).rgb).collect();
    cells.resize(cells.len().next_multiple_of(columns), vec![0; size * size * 3]);
    for row in 0..6 {
        let person = if row < 2 { Person::gallery(row * 5 + 1) } else { Person::random(&mut rng) };
        let framing = if row % 2 == 0 { Framing::Full } else { Framing::Half };
        let camera = Camera::reference(framing, &mut rng);
        let pose = Pose::reference(&mut rng);
        cells.push(render(rig, &person, row * 7, &pose, &camera, size).rgb);
        for shape in 0..3 {
            let (pose, camera) = (Pose::random(&mut rng), Camera::random(&mut rng));
            let Shot { rgb, labels, .. } = render(rig, &person, row * 3 + shape, &pose, &camera, size);
            let shown = if shape == 2 { degrade(&labels, 1.0, &mut rng) } else { labels };
            cells.extend([colourize(&shown), rgb]);
        }
    }
    tile(&cells, size, columns).save(path).with_context(|| format!("writing {}", path.display()))
}
