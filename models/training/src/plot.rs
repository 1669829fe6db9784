//! Loss curves and picture grids as PNG files.

use anyhow::{Context, Result};
use image::{Rgb, RgbImage};
use std::{collections::BTreeMap, path::Path};

/// Figures against minutes.
#[derive(Debug, Default)]
pub struct Curve {
    series: BTreeMap<&'static str, Vec<(f64, f64)>>,
}

const COLOURS: [[u8; 3]; 6] =
    [[31, 119, 180], [214, 39, 40], [44, 160, 44], [255, 127, 14], [148, 103, 189], [90, 90, 90]];

impl Curve {
    /// Adds one step's figures.
    pub fn push(&mut self, minute: f64, figures: &[(&'static str, f64)]) {
        for (name, value) in figures {
            self.series.entry(name).or_default().push((minute, *value));
        }
    }

    /// Mean of the last `n` values of each figure, as text.
    pub fn latest(&self, n: usize) -> String {
        let mean = |points: &[(f64, f64)]| {
            let tail: Vec<f64> = points.iter().rev().take(n).map(|p| p.1).filter(|v| v.is_finite()).collect();
            tail.iter().sum::<f64>() / tail.len().max(1) as f64
        };
        self.series
            .iter()
            .map(|(name, points)| format!("{name} {:.4}", mean(points)))
            .collect::<Vec<_>>()
            .join("  ")
    }

    /// Draws every figure (smoothed, log scale, each over its own range).
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn draw(&self, path: &Path) -> Result<()> {
        let (width, height) = (900, 420);
        let mut canvas = RgbImage::from_pixel(width, height, Rgb([255; 3]));
        for (points, colour) in self.series.values().zip(COLOURS) {
            draw_series(&mut canvas, points, colour);
        }
        canvas.save(path).with_context(|| format!("cannot write {}", path.display()))
    }
}

fn draw_series(canvas: &mut RgbImage, points: &[(f64, f64)], colour: [u8; 3]) {
    let (width, height) = (canvas.width(), canvas.height());
    let group = (points.len() / 300).max(1);
    let smooth: Vec<(f64, f64)> = points
        .chunks(group)
        .map(|c| {
            let mean = |f: fn(&(f64, f64)) -> f64| c.iter().map(f).sum::<f64>() / c.len() as f64;
            (mean(|p| p.0), mean(|p| p.1).max(1e-9).log10())
        })
        .filter(|p| p.1.is_finite())
        .collect();
    let last = smooth.last().map_or(1.0, |p| p.0).max(1e-6);
    let (low, high) = smooth.iter().fold((f64::MAX, f64::MIN), |(l, h), p| (l.min(p.1), h.max(p.1)));
    for pair in smooth.windows(2) {
        for i in 0..=20 {
            let f = f64::from(i) / 20.0;
            let minute = pair[0].0 + (pair[1].0 - pair[0].0) * f;
            let value = pair[0].1 + (pair[1].1 - pair[0].1) * f;
            let x = (minute / last * f64::from(width - 1)) as u32;
            let y = ((1.0 - (value - low) / (high - low).max(1e-9)) * f64::from(height - 1)) as u32;
            canvas.put_pixel(x.min(width - 1), y.min(height - 1), Rgb(colour));
        }
    }
}

/// Pictures (RGB, `size`×`size`) in rows, written as one PNG.
///
/// # Errors
/// The file cannot be written.
pub fn grid(path: &Path, rows: &[Vec<Vec<u8>>], size: usize) -> Result<()> {
    let gap = 4;
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let side = |n: usize| u32::try_from(n * (size + gap) + gap).unwrap_or(u32::MAX);
    let mut canvas = RgbImage::from_pixel(side(columns), side(rows.len()), Rgb([24; 3]));
    for (r, row) in rows.iter().enumerate() {
        for (c, picture) in row.iter().enumerate() {
            for (i, pixel) in picture.chunks_exact(3).enumerate() {
                let (x, y) = (c * (size + gap) + gap + i % size, r * (size + gap) + gap + i / size);
                canvas.put_pixel(x as u32, y as u32, Rgb([pixel[0], pixel[1], pixel[2]]));
            }
        }
    }
    canvas.save(path).with_context(|| format!("cannot write {}", path.display()))
}
