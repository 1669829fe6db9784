//! Flicker: what changes from frame to frame where nothing moves.

use crate::synth::Shot;
use tch::{Kind, Tensor};

/// Pixels around the body (of a picture of 256) that count as moving: hair and clothes reach beyond the labels.
pub const MARGIN: usize = 12;

/// The pixels that are away from the body both before and after.
pub fn still(before: &Shot, after: &Shot) -> Vec<bool> {
    let margin = (MARGIN * before.size).div_ceil(256);
    let (before, after) = (near_body(before, margin), near_body(after, margin));
    before.iter().zip(&after).map(|(a, b)| !a && !b).collect()
}

/// Whether a part of the body is within `margin` pixels, along and across.
fn near_body(shot: &Shot, margin: usize) -> Vec<bool> {
    let (side, margin) = (shot.size as i64, margin as i64);
    let body: Vec<f32> = shot.labels.iter().map(|&label| f32::from(label.min(1))).collect();
    let body = Tensor::from_slice(&body).view([1, 1, side, side]);
    let near = body.max_pool2d([2 * margin + 1], [1, 1], [margin, margin], [1, 1], false);
    let near = Vec::<f32>::try_from(near.flatten(0, -1).to_kind(Kind::Float)).unwrap_or_default();
    near.into_iter().map(|value| value > 0.0).collect()
}

/// Mean absolute difference of consecutive pictures (RGB) over the pixels that are `still` between them, in levels of
/// 255; `None` if there are none.
pub fn flicker(pictures: &[&[u8]], still: &[Vec<bool>]) -> Option<f64> {
    let (mut sum, mut values) = (0u64, 0u64);
    for (pair, still) in pictures.windows(2).zip(still) {
        let pixels = pair[0].chunks_exact(3).zip(pair[1].chunks_exact(3)).zip(still);
        for ((a, b), _) in pixels.filter(|(_, still)| **still) {
            sum += a.iter().zip(b).map(|(a, b)| u64::from(a.abs_diff(*b))).sum::<u64>();
            values += 3;
        }
    }
    (values > 0).then(|| sum as f64 / values as f64)
}

/// A mean of what there is.
#[derive(Debug, Default)]
pub(crate) struct Average {
    sum: f64,
    count: f64,
}

impl Average {
    pub(crate) fn add(&mut self, value: Option<f64>) {
        if let Some(value) = value {
            self.sum += value;
            self.count += 1.0;
        }
    }

    pub(crate) fn mean(&self) -> Option<f64> {
        (self.count > 0.0).then(|| self.sum / self.count)
    }
}

/// Flicker for people.
pub(super) fn levels(flicker: Option<f64>) -> String {
    flicker.map_or_else(|| "-".to_owned(), |value| format!("{value:.3}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIDE: usize = 64;

    fn shot(body: impl Fn(usize, usize) -> bool) -> Shot {
        let labels = (0..SIDE * SIDE).map(|i| u8::from(body(i % SIDE, i / SIDE)) * 7).collect();
        Shot { size: SIDE, rgb: vec![0; SIDE * SIDE * 3], labels }
    }

    #[test]
    fn what_is_near_the_body_before_or_after_is_not_still() {
        let mask = still(&shot(|x, y| (x, y) == (20, 30)), &shot(|x, y| (x, y) == (21, 30)));
        let margin = MARGIN * SIDE / 256;
        for (i, &still) in mask.iter().enumerate() {
            let (x, y) = (i % SIDE, i / SIDE);
            let near = (20 - margin..=21 + margin).contains(&x) && y.abs_diff(30) <= margin;
            assert_eq!(still, !near, "{x} {y}");
        }
    }

    #[test]
    fn flicker_is_the_mean_change_of_still_pixels() {
        let (black, grey) = (vec![0u8; 12], [[10u8, 20, 30]; 4].concat());
        let all = [vec![true; 4], vec![true; 4]];
        assert_eq!(flicker(&[&black, &grey, &black], &all), Some(20.0));
        assert_eq!(flicker(&[&black, &black, &grey], &all), Some(10.0));
        // Only the last pixel is still, and only that one counts.
        let mut moved = grey.clone();
        moved[9..].copy_from_slice(&[1, 2, 3]);
        let last = [vec![false, false, false, true]];
        assert_eq!(flicker(&[&black, &moved], &last), Some(2.0));
        assert_eq!(flicker(&[&black, &grey], &[vec![false; 4]]), None);
        assert_eq!(flicker(&[&black], &[]), None);
    }
}
