//! Whether the figure's parts have the reference's colours.

use crate::synth::Shot;
use keyframed_engine::pose::LABELS;

/// Pixels of a part below which its mean says little.
const ENOUGH: usize = 40;

/// Mean CIE 1976 ΔE over the parts that both pictures show, of each part's mean colour; `None` if they share none.
/// Up to 2 is hardly seen, 10 is another shade.
pub fn difference(made: &[u8], labels: &[u8], reference: &Shot) -> Option<f64> {
    let (made, wanted) = (means(made, labels), means(&reference.rgb, &reference.labels));
    let each: Vec<f64> = made
        .iter()
        .zip(&wanted)
        .filter_map(|(a, b)| {
            let (a, b) = (lab((*a)?), lab((*b)?));
            Some(a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt())
        })
        .collect();
    (!each.is_empty()).then(|| each.iter().sum::<f64>() / each.len() as f64)
}

/// ΔE of two pixels.
pub(super) fn distance(a: &[u8], b: &[u8]) -> f64 {
    let [a, b] = [a, b].map(|pixel| lab([0, 1, 2].map(|k| f64::from(pixel[k]) / 255.0)));
    a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt()
}

/// Mean sRGB of each body part, 0 to 1.
fn means(rgb: &[u8], labels: &[u8]) -> [Option<[f64; 3]>; LABELS] {
    let mut sums = [([0.0; 3], 0usize); LABELS];
    for (pixel, &label) in rgb.chunks_exact(3).zip(labels) {
        let (sum, count) = &mut sums[usize::from(label).min(LABELS - 1)];
        for (sum, &value) in sum.iter_mut().zip(pixel) {
            *sum += f64::from(value) / 255.0;
        }
        *count += 1;
    }
    let mut means = sums.map(|(sum, count)| (count >= ENOUGH).then(|| sum.map(|s: f64| s / count as f64)));
    means[0] = None;
    means
}

/// CIELAB (D65) of an sRGB colour.
fn lab(rgb: [f64; 3]) -> [f64; 3] {
    let [r, g, b] = rgb.map(|c| if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) });
    let f = |t: f64| if t > 216.0 / 24389.0 { t.cbrt() } else { (24389.0 / 27.0 * t + 16.0) / 116.0 };
    let x = f((0.412_456 * r + 0.357_576 * g + 0.180_437 * b) / 0.950_47);
    let y = f(0.212_673 * r + 0.715_152 * g + 0.072_175 * b);
    let z = f((0.019_334 * r + 0.119_192 * g + 0.950_304 * b) / 1.088_83);
    [116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of the CIE's own colour charts.
    #[test]
    fn primaries_lie_where_they_should() {
        for (rgb, wanted) in [
            ([1.0, 1.0, 1.0], [100.0, 0.0, 0.0]),
            ([1.0, 0.0, 0.0], [53.24, 80.09, 67.20]),
            ([0.0, 0.0, 1.0], [32.30, 79.19, -107.86]),
        ] {
            for (made, wanted) in lab(rgb).iter().zip(wanted) {
                assert!((made - wanted).abs() < 0.05, "{rgb:?}: {made} {wanted}");
            }
        }
    }

    #[test]
    fn only_parts_in_both_pictures_count() {
        let (side, red, white) = (10, [255u8, 0, 0], [255u8; 3]);
        let shot = |part: u8, colour: [u8; 3]| Shot {
            size: side,
            rgb: colour.repeat(side * side),
            labels: vec![part; side * side],
        };
        let wanted = shot(3, red);
        assert_eq!(difference(&wanted.rgb, &wanted.labels, &wanted), Some(0.0));
        assert_eq!(difference(&wanted.rgb, &shot(4, red).labels, &wanted), None);
        assert!(difference(&white.repeat(side * side), &wanted.labels, &wanted).is_some_and(|d| d > 100.0));
        assert_eq!(difference(&wanted.rgb, &shot(0, red).labels, &shot(0, red)), None, "no background");
    }
}
