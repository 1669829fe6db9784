//! A person's own footage: a video, and what DensePose saw in it.

use crate::{
    data::{Album, Picture},
    video,
};
use anyhow::{Context, Result, bail, ensure};
use image::{RgbImage, imageops};
use keyframed_engine::{
    Frame, Nanos, SECOND,
    pose::{Labels, NOT_DENSEPOSE, off_palette_share},
};
use std::path::Path;

/// Pictures that are taken of the footage at most.
const MOST: usize = 1200;
/// Fewer teach nothing.
const LEAST: usize = 40;
/// Share of the footage, its end, that is kept for the figures.
const HELD_OUT: f64 = 0.2;
/// Pictures that serve as references in training.
const REFERENCES: usize = 6;
/// Share of a frame that must be labelled, or nobody is in it.
const SOMEBODY: f64 = 0.01;
/// How much the two videos' shapes may differ.
const SAME_SHAPE: f64 = 0.02;
/// A picture and a pose this far apart in time do not belong together.
const TOGETHER: Nanos = SECOND / 10;

/// A square of a video, in shares of its width and height.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Crop {
    left: f64,
    top: f64,
    /// Share of the width.
    width: f64,
    /// Share of the height.
    height: f64,
}

impl Crop {
    /// In pixels of a `width`×`height` frame.
    fn pixels(self, width: u32, height: u32) -> (u32, u32, u32, u32) {
        let at = |share: f64, side: u32| ((share * f64::from(side)).round() as u32).min(side - 1);
        let (x, y) = (at(self.left, width), at(self.top, height));
        let span = |share: f64, side: u32, from: u32| {
            ((share * f64::from(side)).round() as u32).clamp(1, side - from)
        };
        (x, y, span(self.width, width, x), span(self.height, height, y))
    }
}

/// What the first look at the DensePose video says.
#[derive(Debug)]
struct Survey {
    /// Times of the frames that somebody is in.
    times: Vec<Nanos>,
    crop: Crop,
    shape: f64,
}

/// Reads both videos: pictures of `size`×`size` around the person, the best reference first.
///
/// # Errors
/// A video cannot be read, is no DensePose video, or too little of the two belongs together.
pub fn album(rgb: &Path, densepose: &Path, size: usize) -> Result<Album> {
    let survey = survey(densepose)?;
    let times = spread(&survey.times, MOST);
    let labels = labels(densepose, &times, survey.crop, size)?;
    let pictures = pictures(rgb, &times, &survey, size)?;
    let mut targets: Vec<Picture> = labels
        .into_iter()
        .zip(pictures)
        .filter_map(|(labels, rgb)| Some(Picture { labels: labels?, rgb: rgb? }))
        .filter(|picture| shows_somebody(&picture.labels))
        .collect();
    ensure!(
        targets.len() >= LEAST,
        "{} and {} share {} pictures with a person in them; {LEAST} are needed, a minute or two is good",
        rgb.display(),
        densepose.display(),
        targets.len()
    );
    let held_out = (targets.len() as f64 * HELD_OUT).round() as usize;
    let trained = targets.len() - held_out;
    let mut order: Vec<usize> = (0..trained).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(showing(&targets[i].labels)));
    let references = order.into_iter().take(REFERENCES).map(|i| targets[i].clone()).collect();
    targets.shrink_to_fit();
    Ok(Album { references, targets, held_out })
}

/// How much of a person a picture shows: parts first, then pixels.
fn showing(labels: &[u8]) -> (usize, usize) {
    let mut parts = [0usize; 256];
    labels.iter().for_each(|&label| parts[usize::from(label)] += 1);
    let enough = labels.len() / 1000;
    (parts[1..].iter().filter(|&&n| n > enough).count(), labels.len() - parts[0])
}

/// `most` of a list at most, evenly spread.
fn spread(list: &[Nanos], most: usize) -> Vec<Nanos> {
    let count = list.len().min(most);
    (0..count).map(|i| list[i * list.len() / count]).collect()
}

fn survey(densepose: &Path) -> Result<Survey> {
    let (mut times, mut side) = (Vec::new(), (0u32, 0u32));
    // Left, top, right and bottom of the person, frame by frame.
    let mut edges: [Vec<u32>; 4] = Default::default();
    let (mut strange, mut frames) = (0.0, 0.0);
    video::read(densepose, |pts, frame| {
        strange += off_palette_share(&frame);
        frames += 1.0;
        let labels = Labels::from_frame(&frame);
        let (width, height) = (labels.width(), labels.height());
        ensure!(side == (0, 0) || side == (width, height), "the picture's size changes");
        side = (width, height);
        if shows_somebody(labels.data()) {
            times.push(pts);
            for (list, edge) in edges.iter_mut().zip(extent(labels.data(), width)) {
                list.push(edge);
            }
        }
        Ok(())
    })?;
    let name = densepose.display();
    if strange / frames > NOT_DENSEPOSE {
        bail!(
            "{name} does not look like DensePose in the viridis colours of its parts; is it the other video?"
        );
    }
    ensure!(!times.is_empty(), "{name} shows nobody");
    let (width, height) = (f64::from(side.0), f64::from(side.1));
    // A frame or two in which the estimator saw something elsewhere do not count.
    let [left, top, right, bottom] = edges;
    let (low, high) = ([share(left, 0.02), share(top, 0.02)], [share(right, 0.98), share(bottom, 0.98)]);
    Ok(Survey { times, crop: square(low, high, width, height), shape: width / height })
}

fn shows_somebody(labels: &[u8]) -> bool {
    labels.iter().filter(|&&label| label > 0).count() as f64 > SOMEBODY * labels.len() as f64
}

/// Left, top, right and bottom of what is labelled.
fn extent(labels: &[u8], width: u32) -> [u32; 4] {
    let mut edges = [u32::MAX, u32::MAX, 0, 0];
    for (i, _) in labels.iter().enumerate().filter(|(_, label)| **label > 0) {
        let (x, y) = (i as u32 % width, i as u32 / width);
        edges = [edges[0].min(x), edges[1].min(y), edges[2].max(x), edges[3].max(y)];
    }
    edges
}

/// The value that so large a share of a list, which is not empty, does not exceed.
fn share(mut list: Vec<u32>, of: f64) -> u32 {
    list.sort_unstable();
    list[((list.len() - 1) as f64 * of).round() as usize]
}

/// The square around what moves, with a margin, within the frame.
fn square(low: [u32; 2], high: [u32; 2], width: f64, height: f64) -> Crop {
    let extent = |k: usize| f64::from(high[k] - low[k]) + 1.0;
    let side = (extent(0).max(extent(1)) * 1.15).min(width.min(height));
    let from = |k: usize, limit: f64| {
        let middle = f64::from(low[k]) + extent(k) / 2.0;
        (middle - side / 2.0).clamp(0.0, limit - side)
    };
    Crop {
        left: from(0, width) / width,
        top: from(1, height) / height,
        width: side / width,
        height: side / height,
    }
}

/// Labels at `times`, which are times of frames.
fn labels(densepose: &Path, times: &[Nanos], crop: Crop, size: usize) -> Result<Vec<Option<Vec<u8>>>> {
    let (mut found, mut next) = (Vec::new(), times.iter().peekable());
    video::read(densepose, |pts, frame| {
        if next.next_if(|time| **time <= pts).is_some() {
            let whole = Labels::from_frame(&frame);
            let (x, y, w, h) = crop.pixels(whole.width(), whole.height());
            let row = |y: u32| {
                let at = (y * whole.width() + x) as usize;
                &whole.data()[at..at + w as usize]
            };
            let data = (y..y + h).flat_map(|y| row(y).to_vec()).collect();
            found.push(Some(Labels::new(w, h, data)?.resized(size as u32, size as u32)?.data().to_vec()));
        }
        Ok(())
    })?;
    found.resize(times.len(), None);
    Ok(found)
}

/// The pictures nearest to `times`.
fn pictures(rgb: &Path, times: &[Nanos], survey: &Survey, size: usize) -> Result<Vec<Option<Vec<u8>>>> {
    let mut found: Vec<Option<Vec<u8>>> = Vec::new();
    let mut before: Option<(Nanos, Frame)> = None;
    let mut take = |wanted: Nanos, (pts, frame): &(Nanos, Frame)| -> Result<()> {
        let near = pts.abs_diff(wanted) <= TOGETHER;
        found.push(near.then(|| cut(frame, survey.crop, size)).transpose()?);
        Ok(())
    };
    let mut next = times.iter().copied().peekable();
    video::read(rgb, |pts, frame| {
        let shape = f64::from(frame.width()) / f64::from(frame.height());
        ensure!(
            (shape / survey.shape - 1.0).abs() < SAME_SHAPE,
            "{}x{} has another shape than the DensePose video; make both of the same cut",
            frame.width(),
            frame.height()
        );
        if let Some(before) = &before {
            let middle = before.0.midpoint(pts);
            while let Some(time) = next.next_if(|time| *time < middle) {
                take(time, before)?;
            }
        }
        before = Some((pts, frame));
        Ok(())
    })?;
    if let Some(last) = &before {
        next.try_for_each(|time| take(time, last))?;
    }
    found.resize(times.len(), None);
    Ok(found)
}

fn cut(frame: &Frame, crop: Crop, size: usize) -> Result<Vec<u8>> {
    let picture = RgbImage::from_raw(frame.width(), frame.height(), frame.data().to_vec());
    let picture = picture.context("a frame of another size than it says")?;
    let (x, y, w, h) = crop.pixels(frame.width(), frame.height());
    let view = imageops::crop_imm(&picture, x, y, w, h).to_image();
    Ok(imageops::resize(&view, size as u32, size as u32, imageops::FilterType::Triangle).into_raw())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crop_is_a_square_within_the_frame() {
        // A person at the right edge of a wide picture, as high as it.
        let crop = square([1500, 0], [1919, 1079], 1920.0, 1080.0);
        assert_eq!(crop.pixels(1920, 1080), (840, 0, 1080, 1080));
        // The same part of the same picture at half its size.
        assert_eq!(crop.pixels(960, 540), (420, 0, 540, 540));
        let small = square([100, 100], [199, 299], 640.0, 480.0);
        assert_eq!(small.pixels(640, 480), (35, 85, 230, 230));
    }

    #[test]
    fn few_frames_with_something_elsewhere_do_not_widen_the_crop() {
        let mut frame = vec![0u8; 50 * 20];
        frame[3 * 50 + 7] = 2;
        frame[9 * 50 + 4] = 3;
        assert_eq!(extent(&frame, 50), [4, 3, 7, 9]);
        let mut list = vec![30; 98];
        list.extend([0, 49]);
        assert_eq!((share(list.clone(), 0.02), share(list, 0.98)), (30, 30));
        assert_eq!((share(vec![5], 0.02), share(vec![5], 0.98)), (5, 5));
    }

    #[test]
    fn frames_are_spread_and_references_show_much() {
        assert_eq!(spread(&[0, 1, 2, 3, 4, 5], 3), [0, 2, 4]);
        assert_eq!(spread(&[7, 8], 5), [7, 8]);
        let half = [vec![0u8; 500], vec![2; 500]].concat();
        let two = [vec![0u8; 900], vec![2; 50], vec![3; 50]].concat();
        assert!(showing(&two) > showing(&half));
    }
}
