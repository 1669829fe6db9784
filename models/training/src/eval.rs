//! Figures of a model directory on people and poses that no training saw.
//!
//! Everything runs through the generator and interpolator that `keyframed`
//! itself uses; truth comes from the renderer.

use crate::{
    data::GALLERY,
    plot,
    synth::{self, Camera, Framing, Motion, Person, Pose, Rig, Shot, render},
};
use anyhow::Result;
use keyframed_engine::{
    Crossfade, Frame, Interpolator, KeyframeGenerator,
    pose::{Labels, Palette},
};
use keyframed_models::{
    checkpoint::ModelDir,
    device::Placement,
    generator::{FilmInterpolator, LcmGenerator, Settings},
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use std::path::Path;
use tch::{Device, Kind, Tensor};

/// Seeds from here on are for evaluation alone.
pub(crate) const SEED: u64 = 0xE7A1;
/// Pictures of each person.
const POSES: usize = 3;

/// Mean quality against rendered truth.
#[derive(Debug, Default, Clone, Copy, Serialize)]
pub struct Quality {
    /// Peak signal-to-noise ratio of the whole frame in dB.
    pub psnr: f64,
    /// The same over the figure's pixels alone.
    pub psnr_person: f64,
    /// Structural similarity (Wang et al. 2004, luma, 11×11 Gaussian).
    pub ssim: f64,
}

/// What `keyframed-train eval` prints.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The model's default number of steps, gallery avatars.
    pub gallery: Quality,
    /// The same for people that training never saw.
    pub unseen: Quality,
    /// One step, gallery avatars.
    pub gallery_one_step: Quality,
    /// In-betweens at the middle of gaps of 80 to 400 ms, made by FILM.
    pub film: Quality,
    /// The same by cross-fade.
    pub cross_fade: Quality,
}

/// Evaluates `model` and draws `sheet`: reference, pose, truth, default steps, one step.
///
/// # Errors
/// The model cannot be loaded or run, or the sheet cannot be written.
pub fn run(model: &ModelDir, rig: &Rig, sheet: &Path) -> Result<Report> {
    let default = Settings::of(model);
    let mut generator = LcmGenerator::new(model, default.clone(), Placement::default())?;
    let size = generator.size().0 as usize;
    let mut rows = Vec::new();
    let mut judge = |generator: &mut LcmGenerator, unseen: bool, draw: bool| -> Result<Quality> {
        let mut total = Mean::default();
        for index in 0..GALLERY {
            let mut rng = ChaCha8Rng::seed_from_u64(SEED);
            rng.set_stream(index as u64 + if unseen { 1000 } else { 0 });
            let (person, reference) = cast(rig, index, unseen, size, &mut rng);
            generator.set_reference(&frame(&reference.rgb, size)?)?;
            let mut row = vec![reference.rgb.clone()];
            for _ in 0..POSES {
                let shape = rng.random_range(0..rig.shapes());
                let truth =
                    render(rig, &person, shape, &Pose::random(&mut rng), &Camera::random(&mut rng), size);
                let pose =
                    Labels::new(size as u32, size as u32, truth.labels.clone())?.colours(Palette::Viridis);
                let made = generator.generate(&pose, 0)?;
                total.add(quality(made.data(), &truth, size));
                row.extend([pose.data().to_vec(), truth.rgb, made.data().to_vec()]);
            }
            if draw && index % 2 == 0 {
                rows.push(row);
            }
        }
        Ok(total.mean())
    };
    let gallery = judge(&mut generator, false, true)?;
    let unseen = judge(&mut generator, true, true)?;
    generator.set(Settings { steps: 1, ..default })?;
    let gallery_one_step = judge(&mut generator, false, false)?;
    plot::grid(sheet, &rows, size)?;
    let mut film = FilmInterpolator::new(model, Placement::default())?;
    let (film, cross_fade) = in_betweens(&mut film, rig, size)?;
    Ok(Report { gallery, unseen, gallery_one_step, film, cross_fade })
}

/// A person and the picture that is animated.
fn cast(rig: &Rig, index: usize, unseen: bool, size: usize, rng: &mut ChaCha8Rng) -> (Person, Shot) {
    if !unseen {
        return (Person::gallery(index), synth::avatar(rig, index, size));
    }
    let person = Person::random(rng);
    let shape = rng.random_range(0..rig.shapes());
    let camera = Camera::reference(Framing::Full, rng);
    let reference = render(rig, &person, shape, &Pose::reference(rng), &camera, size);
    (person, reference)
}

fn in_betweens(film: &mut FilmInterpolator, rig: &Rig, size: usize) -> Result<(Quality, Quality)> {
    let (mut by_film, mut by_fade) = (Mean::default(), Mean::default());
    for index in 0..GALLERY {
        let mut rng = ChaCha8Rng::seed_from_u64(SEED);
        rng.set_stream(index as u64 + 2000);
        let (person, motion, camera) =
            (Person::gallery(index), Motion::random(&mut rng), Camera::random(&mut rng));
        let (start, gap) = (rng.random_range(0.0..10.0f32), rng.random_range(0.08..0.4f32));
        let shape = rng.random_range(0..rig.shapes());
        let at = |t: f32| render(rig, &person, shape, &motion.pose(t), &camera, size);
        let (first, truth, last) = (at(start), at(start + gap / 2.0), at(start + gap));
        let (a, b) = (frame(&first.rgb, size)?, frame(&last.rgb, size)?);
        by_film.add(quality(film.interpolate(&a, &b, 0.5)?.data(), &truth, size));
        by_fade.add(quality(Crossfade.interpolate(&a, &b, 0.5)?.data(), &truth, size));
    }
    Ok((by_film.mean(), by_fade.mean()))
}

/// RGB bytes as a picture of `size`×`size`.
pub(crate) fn frame(rgb: &[u8], size: usize) -> Result<Frame> {
    Ok(Frame::new(size as u32, size as u32, rgb.to_vec())?)
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
        self.count += 1.0;
    }

    /// Whether nothing was added.
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0.0
    }

    pub(crate) fn mean(&self) -> Quality {
        let n = self.count.max(1.0);
        Quality { psnr: self.sum.psnr / n, psnr_person: self.sum.psnr_person / n, ssim: self.sum.ssim / n }
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
    Quality {
        psnr: psnr(all, truth.labels.len() as f64),
        psnr_person: psnr(person, pixels),
        ssim: ssim(made, &truth.rgb, size),
    }
}

/// Mean structural similarity of two RGB pictures' luma.
fn ssim(a: &[u8], b: &[u8], size: usize) -> f64 {
    let luma = |rgb: &[u8]| {
        let y: Vec<f32> = rgb
            .chunks_exact(3)
            .map(|p| 0.299 * f32::from(p[0]) + 0.587 * f32::from(p[1]) + 0.114 * f32::from(p[2]))
            .collect();
        Tensor::from_slice(&y).view([1, 1, size as i64, size as i64])
    };
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
    }
}
