//! How near a picture is to the truth.

use crate::synth::Shot;
use serde::Serialize;
use tch::{Device, Kind, Tensor};

/// Mean quality against rendered truth. Decibels favour blur, hence the edges beside them.
#[derive(Debug, Default, Clone, Copy, PartialEq, Serialize)]
pub struct Quality {
    /// Peak signal-to-noise ratio of the whole frame in dB.
    pub psnr: f64,
    /// The same over the figure's pixels alone; of the whole frame where there is none.
    pub psnr_person: f64,
    /// Structural similarity (Wang et al. 2004, luma, 11×11 Gaussian).
    pub ssim: f64,
    /// Difference of both pictures' luma gradients over the figure, as a share of the truth's: 0 for the same edges, 1
    /// for an even picture, more for edges in wrong places.
    pub edge_error: f64,
    /// Luma gradients over the figure, as a share of the truth's: below 1 is blurred.
    pub sharpness: f64,
}

/// Sums up to a mean.
#[derive(Debug, Default)]
pub(crate) struct Mean {
    sum: Quality,
    count: f64,
}

impl Mean {
    pub(crate) fn add(&mut self, q: Quality) {
        self.sum.psnr += q.psnr;
        self.sum.psnr_person += q.psnr_person;
        self.sum.ssim += q.ssim;
        self.sum.edge_error += q.edge_error;
        self.sum.sharpness += q.sharpness;
        self.count += 1.0;
    }

    /// Whether nothing was added.
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0.0
    }

    pub(crate) fn mean(&self) -> Quality {
        let n = self.count.max(1.0);
        Quality {
            psnr: self.sum.psnr / n,
            psnr_person: self.sum.psnr_person / n,
            ssim: self.sum.ssim / n,
            edge_error: self.sum.edge_error / n,
            sharpness: self.sum.sharpness / n,
        }
    }
}

/// Quality of one picture (RGB, `size`×`size`).
pub fn quality(made: &[u8], truth: &Shot, size: usize) -> Quality {
    let squares = |i: usize| {
        let at = 3 * i..3 * i + 3;
        made[at.clone()]
            .iter()
            .zip(&truth.rgb[at])
            .map(|(a, b)| f64::from(a.abs_diff(*b)).powi(2))
            .sum::<f64>()
    };
    let (mut all, mut person, mut pixels) = (0.0, 0.0, 0.0f64);
    for (i, &label) in truth.labels.iter().enumerate() {
        let error = squares(i);
        all += error;
        if label > 0 {
            person += error;
            pixels += 1.0;
        }
    }
    let psnr =
        |sum: f64, pixels: f64| 10.0 * (255.0f64.powi(2) / (sum / (3.0 * pixels.max(1.0))).max(1e-9)).log10();
    let (edge_error, sharpness) = edges(made, truth, size);
    Quality {
        psnr: psnr(all, truth.labels.len() as f64),
        psnr_person: if pixels > 0.0 { psnr(person, pixels) } else { psnr(all, truth.labels.len() as f64) },
        ssim: ssim(made, &truth.rgb, size),
        edge_error,
        sharpness,
    }
}

fn luma(rgb: &[u8]) -> Vec<f32> {
    rgb.chunks_exact(3)
        .map(|p| 0.299 * f32::from(p[0]) + 0.587 * f32::from(p[1]) + 0.114 * f32::from(p[2]))
        .collect()
}

/// [`Quality::edge_error`] and [`Quality::sharpness`].
fn edges(made: &[u8], truth: &Shot, size: usize) -> (f64, f64) {
    let (made, right) = (luma(made), luma(&truth.rgb));
    let (mut error, mut own, mut wanted) = (0.0, 0.0, 0.0);
    for at in (0..size * (size - 1)).filter(|at| at % size + 1 < size && truth.labels[*at] > 0) {
        let slope = |luma: &[f32]| (luma[at + 1] - luma[at], luma[at + size] - luma[at]);
        let ((ax, ay), (bx, by)) = (slope(&made), slope(&right));
        error += f64::from((ax - bx).hypot(ay - by));
        own += f64::from(ax.hypot(ay));
        wanted += f64::from(bx.hypot(by));
    }
    (error / wanted.max(1e-9), own / wanted.max(1e-9))
}

/// Mean structural similarity of two RGB pictures' luma.
fn ssim(a: &[u8], b: &[u8], size: usize) -> f64 {
    let luma = |rgb: &[u8]| Tensor::from_slice(&luma(rgb)).view([1, 1, size as i64, size as i64]);
    let taps: Vec<f32> = (-5..=5).map(|x| (-(x * x) as f32 / (2.0 * 1.5 * 1.5)).exp()).collect();
    let total: f32 = taps.iter().sum();
    let line = Tensor::from_slice(&taps) / f64::from(total);
    let kernel = line.outer(&line).view([1, 1, 11, 11]).to_device(Device::Cpu);
    let blur = |t: &Tensor| t.conv2d(&kernel, None::<&Tensor>, [1, 1], [0, 0], [1, 1], 1);
    let (x, y) = (luma(a), luma(b));
    let (mx, my) = (blur(&x), blur(&y));
    let (vx, vy) = (blur(&x.square()) - mx.square(), blur(&y.square()) - my.square());
    let cov = blur(&(&x * &y)) - &mx * &my;
    let (c1, c2) = ((0.01f64 * 255.0).powi(2), (0.03f64 * 255.0).powi(2));
    let map =
        ((&mx * &my * 2.0 + c1) * (cov * 2.0 + c2)) / ((mx.square() + my.square() + c1) * (vx + vy + c2));
    map.mean(Kind::Float).double_value(&[])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_is_like_itself_and_unlike_others() {
        let rgb: Vec<u8> = (0..64 * 64 * 3).map(|i| (i * 7 % 251) as u8).collect();
        let turned: Vec<u8> = rgb.iter().rev().copied().collect();
        assert!((ssim(&rgb, &rgb, 64) - 1.0).abs() < 1e-5);
        assert!(ssim(&turned, &rgb, 64) < 0.7);
        let truth = Shot { size: 64, rgb: rgb.clone(), labels: vec![1; 64 * 64] };
        assert!(quality(&rgb, &truth, 64).psnr > 100.0);
        let all_wrong = vec![0u8; rgb.len()];
        assert!(quality(&all_wrong, &truth, 64).psnr < 10.0);
        let (same, even) = (quality(&rgb, &truth, 64), quality(&all_wrong, &truth, 64));
        assert_eq!((same.edge_error, same.sharpness), (0.0, 1.0));
        assert_eq!((even.edge_error, even.sharpness), (1.0, 0.0));
    }
}
