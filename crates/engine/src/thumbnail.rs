//! The fixed-size copy on which poses are compared, so that λ means the same at every input size.

use std::fmt;

use crate::frame::Frame;

/// Side of a thumbnail in pixels.
pub const SIDE: usize = 256;

/// Bytes of one thumbnail row.
const ROW: usize = SIDE * 3;

/// A 256×256 RGB copy of a picture. Each value is the average over the area its pixel covers in the picture,
/// rounded to the nearest of 256 levels; the aspect ratio is not kept.
#[derive(Clone, PartialEq, Eq)]
pub struct Thumbnail {
    /// `ROW * SIDE` bytes.
    data: Box<[u8]>,
}

impl Thumbnail {
    /// Averages `frame` down (or repeats it up) to 256×256.
    pub fn new(frame: &Frame) -> Self {
        let data = match (frame.width() as usize, frame.height() as usize) {
            (SIDE, SIDE) => frame.data().into(),
            (w, h) if w == 2 * SIDE && h == 2 * SIDE => halve(frame.data()),
            _ => average(frame),
        };
        Self { data }
    }

    /// The bytes, as in [`Frame::data`].
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// Mean squared error against another thumbnail, over all pixels and channels, pixel values in [0, 1].
    /// Symmetric; zero exactly when the two are the same.
    pub fn mse(&self, other: &Self) -> f64 {
        // A row's sum stays below 768 · 255² < 2^32, so the inner loop runs on 32-bit lanes.
        let sum: u64 = self
            .data
            .chunks_exact(ROW)
            .zip(other.data.chunks_exact(ROW))
            .map(|(a, b)| u64::from(a.iter().zip(b).map(|(&a, &b)| squared_difference(a, b)).sum::<u32>()))
            .sum();
        sum as f64 / ((ROW * SIDE) as f64 * 255.0 * 255.0)
    }
}

impl fmt::Debug for Thumbnail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Thumbnail")
    }
}

/// In 16 bits first: compilers then multiply and add pairs in one instruction.
fn squared_difference(a: u8, b: u8) -> u32 {
    let d = i32::from(i16::from(a) - i16::from(b));
    (d * d) as u32
}

/// Exact 2:1 in both directions, the commonest case (512×512).
fn halve(data: &[u8]) -> Box<[u8]> {
    let mut out = vec![0; ROW * SIDE];
    let mut sums = [0u16; 2 * ROW];
    for (pair, out) in data.chunks_exact(4 * ROW).zip(out.chunks_exact_mut(ROW)) {
        let (upper, lower) = pair.split_at(2 * ROW);
        for ((s, &a), &b) in sums.iter_mut().zip(upper).zip(lower) {
            *s = u16::from(a) + u16::from(b) + 1;
        }
        // The two `+ 1` above make the shift round to nearest.
        for (out, s) in out.chunks_exact_mut(3).zip(sums.chunks_exact(6)) {
            out[0] = ((s[0] + s[3]) >> 2) as u8;
            out[1] = ((s[1] + s[4]) >> 2) as u8;
            out[2] = ((s[2] + s[5]) >> 2) as u8;
        }
    }
    out.into()
}

/// Any other size. Output pixel i of 256 covers input [i·n/256, (i+1)·n/256): in units of 1/256 of an input
/// pixel all borders are integers, so the weights are exact and sum to n.
fn average(frame: &Frame) -> Box<[u8]> {
    let (width, height) = (frame.width() as usize, frame.height() as usize);
    let mut out = vec![0; ROW * SIDE];
    let mut sums = vec![0u32; width * 3];
    let mut columns = vec![0f32; width * 3];
    let covers: Vec<Vec<(usize, f32)>> =
        (0..SIDE).map(|x| cover(x, width).map(|(p, weight)| (p * 3, f32::from(weight))).collect()).collect();
    let scale = 1.0 / (width as f32 * height as f32);
    for (y, out) in out.chunks_exact_mut(ROW).enumerate() {
        sums.fill(0);
        for (row, weight) in cover(y, height) {
            let line = &frame.data()[row * width * 3..(row + 1) * width * 3];
            for (sum, &v) in sums.iter_mut().zip(line) {
                // At most 255 · 256, then 255 · MAX_SIDE in all, below 2^24.
                *sum += u32::from(u16::from(v) * weight);
            }
        }
        // Exact: they are below 2^24. Rounding in the sums below is far less than a level.
        for (column, &sum) in columns.iter_mut().zip(&sums) {
            *column = sum as f32;
        }
        for (out, cover) in out.chunks_exact_mut(3).zip(&covers) {
            let mut sum = [0f32; 3];
            for &(at, weight) in cover {
                for (sum, &v) in sum.iter_mut().zip(&columns[at..at + 3]) {
                    *sum += v * weight;
                }
            }
            for (out, sum) in out.iter_mut().zip(sum) {
                *out = (sum * scale + 0.5) as u8;
            }
        }
    }
    out.into()
}

/// The input pixels that output pixel `i` of [`SIDE`] covers, of `n`, each with its share in 1/256 pixel.
fn cover(i: usize, n: usize) -> impl Iterator<Item = (usize, u16)> {
    let (from, to) = (i * n, (i + 1) * n);
    (from / SIDE..to.div_ceil(SIDE)).map(move |p| {
        let shared = to.min((p + 1) * SIDE) - from.max(p * SIDE);
        (p, shared as u16)
    })
}
