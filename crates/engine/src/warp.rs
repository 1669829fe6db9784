//! The best rung without a network: motion estimated at half size, both key frames warped to the middle.
//!
//! Bilateral block matching: for every 8×8 block of the *wanted* frame, the motion v whose ends in the two key
//! frames look most alike, a(x − t·v) ≈ b(x + (1−t)·v). Estimating in the wanted frame leaves no holes. A pyramid
//! makes large motions cheap; a vector median and bilinear blending between block centres keep the field smooth.

use crate::{
    error::InterpolateError,
    frame::Frame,
    interpolate::{Interpolator, check, mix, share},
};

/// Side of a block, on every level.
const BLOCK: usize = 8;
/// Search range around the coarser level's motion, in pixels of the level.
const SEARCH: i32 = 2;
/// A level is not halved below this side.
const SMALLEST: usize = 16;
/// Cost per pixel of difference from the predicted motion, in summed grey levels: enough to settle flat areas.
const STIFFNESS: u32 = 24;

/// Warps by block motion; see the [module](self). Two 256×256 frames take a few milliseconds.
#[derive(Debug, Clone, Copy, Default)]
pub struct Warp;

impl Warp {
    /// An interpolator; it keeps nothing between calls.
    pub fn new() -> Self {
        Self
    }
}

impl Interpolator for Warp {
    fn interpolate(&mut self, a: &Frame, b: &Frame, t: f32) -> Result<Frame, InterpolateError> {
        check(a, b, t)?;
        if a.data() == b.data() {
            return Ok(a.clone());
        }
        let field = estimate(&pyramid(a), &pyramid(b), t);
        Ok(warp(a, b, t, &field))
    }
}

/// A grey picture.
struct Grey {
    width: usize,
    height: usize,
    data: Vec<u8>,
}

impl Grey {
    /// The picture at half size, as grey; sides round up.
    fn half(frame: &Frame) -> Self {
        let grey = frame.data().chunks_exact(3).map(luma).collect();
        Self { width: frame.width() as usize, height: frame.height() as usize, data: grey }.halved()
    }

    fn halved(&self) -> Self {
        let (width, height) = (self.width.div_ceil(2), self.height.div_ceil(2));
        let mut data = Vec::with_capacity(width * height);
        for y in 0..height {
            let upper = self.row(2 * y);
            let lower = self.row((2 * y + 1).min(self.height - 1));
            for x in 0..width {
                let (l, r) = (2 * x, (2 * x + 1).min(self.width - 1));
                let sum =
                    u16::from(upper[l]) + u16::from(upper[r]) + u16::from(lower[l]) + u16::from(lower[r]);
                data.push(((sum + 2) >> 2) as u8);
            }
        }
        Self { width, height, data }
    }

    fn row(&self, y: usize) -> &[u8] {
        &self.data[y * self.width..(y + 1) * self.width]
    }

    /// The pixel at these coordinates, or the nearest border pixel.
    fn at(&self, x: i32, y: i32) -> u8 {
        let x = x.clamp(0, self.width as i32 - 1) as usize;
        let y = y.clamp(0, self.height as i32 - 1) as usize;
        self.data[y * self.width + x]
    }
}

/// Rec. 601 weights in 1/256.
fn luma(p: &[u8]) -> u8 {
    ((77 * u32::from(p[0]) + 150 * u32::from(p[1]) + 29 * u32::from(p[2]) + 128) >> 8) as u8
}

/// Half size first, each level half of the one before.
fn pyramid(frame: &Frame) -> Vec<Grey> {
    let mut levels = vec![Grey::half(frame)];
    while let Some(last) = levels.last()
        && last.width.min(last.height) >= 2 * SMALLEST
    {
        let next = last.halved();
        levels.push(next);
    }
    levels
}

/// Motion from the first key frame to the second, in pixels of the level it was estimated on.
type Motion = (i32, i32);

/// One motion per block.
struct Field {
    columns: usize,
    rows: usize,
    motion: Vec<Motion>,
}

impl Field {
    fn still(columns: usize, rows: usize) -> Self {
        Self { columns, rows, motion: vec![(0, 0); columns * rows] }
    }

    /// The motion of the block nearest to these coordinates.
    fn at(&self, column: i32, row: i32) -> Motion {
        let column = column.clamp(0, self.columns as i32 - 1) as usize;
        let row = row.clamp(0, self.rows as i32 - 1) as usize;
        self.motion[row * self.columns + column]
    }

    /// Replaces each motion by the one of its 3×3 neighbours that is nearest to all of them: outliers go, edges stay.
    fn median(&self) -> Self {
        let mut motion = Vec::with_capacity(self.motion.len());
        for row in 0..self.rows as i32 {
            for column in 0..self.columns as i32 {
                let near: [Motion; 9] =
                    std::array::from_fn(|i| self.at(column - 1 + i as i32 % 3, row - 1 + i as i32 / 3));
                let spread =
                    |v: &&Motion| near.iter().map(|w| v.0.abs_diff(w.0) + v.1.abs_diff(w.1)).sum::<u32>();
                // Middle first, so that it wins ties.
                let order = [4, 1, 3, 5, 7, 0, 2, 6, 8].map(|i| near[i]);
                motion.push(order.iter().min_by_key(spread).copied().unwrap_or((0, 0)));
            }
        }
        Self { columns: self.columns, rows: self.rows, motion }
    }
}

/// Coarse to fine over two pyramids of the same shape.
fn estimate(a: &[Grey], b: &[Grey], t: f32) -> Field {
    let coarsest = Field::still(1, 1);
    a.iter().zip(b).rev().fold(coarsest, |field, (a, b)| refine(a, b, t, &field).median())
}

/// Motion on this level, searched around the coarser level's.
fn refine(a: &Grey, b: &Grey, t: f32, coarse: &Field) -> Field {
    let (columns, rows) = (a.width.div_ceil(BLOCK), a.height.div_ceil(BLOCK));
    let mut motion = Vec::with_capacity(columns * rows);
    for row in 0..rows {
        for column in 0..columns {
            let (x, y) = coarse.at(column as i32 / 2, row as i32 / 2);
            motion.push(search(a, b, t, (column * BLOCK, row * BLOCK), (2 * x, 2 * y)));
        }
    }
    Field { columns, rows, motion }
}

/// The best motion of the block at `corner`, near `predicted` or none at all.
fn search(a: &Grey, b: &Grey, t: f32, corner: (usize, usize), predicted: Motion) -> Motion {
    let cost = |v: Motion| {
        let bend = predicted.0.abs_diff(v.0) + predicted.1.abs_diff(v.1);
        difference(a, b, t, corner, v) + STIFFNESS * bend
    };
    let mut best = (cost(predicted), predicted);
    // Nothing beats no difference: most of a picture stands still.
    if best.0 == 0 {
        return predicted;
    }
    let around =
        (-SEARCH..=SEARCH).flat_map(|y| (-SEARCH..=SEARCH).map(move |x| (predicted.0 + x, predicted.1 + y)));
    for v in around.chain([(0, 0)]) {
        best = best.min((cost(v), v));
    }
    best.1
}

/// Sum of absolute differences between the two ends of motion `v` through the block at `corner`.
fn difference(a: &Grey, b: &Grey, t: f32, corner: (usize, usize), v: Motion) -> u32 {
    let back = |v: i32| (t * v as f32).round() as i32;
    let (ax, ay) = (corner.0 as i32 - back(v.0), corner.1 as i32 - back(v.1));
    let (bx, by) = (ax + v.0, ay + v.1);
    let inside =
        |x: i32, y: i32| x >= 0 && y >= 0 && x as usize + BLOCK <= a.width && y as usize + BLOCK <= a.height;
    let mut sum = 0;
    if inside(ax, ay) && inside(bx, by) {
        for i in 0..BLOCK {
            let from = &a.row(ay as usize + i)[ax as usize..ax as usize + BLOCK];
            let to = &b.row(by as usize + i)[bx as usize..bx as usize + BLOCK];
            sum += from.iter().zip(to).map(|(&a, &b)| u32::from(a.abs_diff(b))).sum::<u32>();
        }
    } else {
        for i in 0..(BLOCK * BLOCK) as i32 {
            let (x, y) = (i % BLOCK as i32, i / BLOCK as i32);
            sum += u32::from(a.at(ax + x, ay + y).abs_diff(b.at(bx + x, by + y)));
        }
    }
    sum
}

/// Fetches both key frames along the motion and mixes them in proportion to time.
fn warp(a: &Frame, b: &Frame, t: f32, field: &Field) -> Frame {
    let (width, height) = (a.width() as usize, a.height() as usize);
    let share = share(t);
    let columns: Vec<(i32, f32)> = (0..width).map(block_position).collect();
    let mut data = Vec::with_capacity(width * height * 3);
    for y in 0..height {
        let (row, down) = block_position(y);
        for (x, &(column, right)) in columns.iter().enumerate() {
            let (vx, vy) = blend(field, (column, right), (row, down));
            if (vx, vy) == (0.0, 0.0) {
                let at = (y * width + x) * 3;
                data.extend((at..at + 3).map(|i| mix(a.data()[i], b.data()[i], share)));
                continue;
            }
            let (x, y) = (x as f32, y as f32);
            let from = sample(a, x - t * vx, y - t * vy);
            let to = sample(b, x + (1.0 - t) * vx, y + (1.0 - t) * vy);
            data.extend((0..3).map(|c| mix(from[c], to[c], share)));
        }
    }
    Frame::from_parts(a.width(), a.height(), data)
}

/// The block whose centre lies at or before a coordinate of the full picture, and how far the way to the next is gone.
fn block_position(x: usize) -> (i32, f32) {
    let position = (x as f32 + 0.5) / (2 * BLOCK) as f32 - 0.5;
    (position.floor() as i32, position - position.floor())
}

/// Motion between four block centres, in pixels of the full picture.
fn blend(field: &Field, (column, right): (i32, f32), (row, down): (i32, f32)) -> (f32, f32) {
    let mut sum = (0.0, 0.0);
    for (row, weight) in [(row, 1.0 - down), (row + 1, down)] {
        for (column, weight) in [(column, weight * (1.0 - right)), (column + 1, weight * right)] {
            let v = field.at(column, row);
            // Estimated at half size.
            sum.0 += 2.0 * weight * v.0 as f32;
            sum.1 += 2.0 * weight * v.1 as f32;
        }
    }
    sum
}

/// The colour at a fractional position, bilinear, the border repeated outside.
fn sample(frame: &Frame, x: f32, y: f32) -> [u8; 3] {
    let (right, bottom) = (frame.width() as usize - 1, frame.height() as usize - 1);
    let (x, y) = (x.clamp(0.0, right as f32), y.clamp(0.0, bottom as f32));
    let (left, top) = (x as usize, y as usize);
    let (fx, fy) = (share(x - left as f32), share(y - top as f32));
    let stride = (right + 1) * 3;
    let (upper, lower) = (top * stride, (top + 1).min(bottom) * stride);
    let (left, right) = (left * 3, (left + 1).min(right) * 3);
    let data = frame.data();
    std::array::from_fn(|c| {
        let above = mix(data[upper + left + c], data[upper + right + c], fx);
        let below = mix(data[lower + left + c], data[lower + right + c], fx);
        mix(above, below, fy)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interpolate::Crossfade;

    /// A textured figure on a plain ground, its left edge at `x`.
    fn scene(x: f32) -> Frame {
        let mut data = Vec::new();
        for row in 0..128 {
            for column in 0..128 {
                let (u, v) = (column as f32 - x, row as f32 - 40.0);
                let inside = (0.0..40.0).contains(&u) && (0.0..48.0).contains(&v);
                let shade = 130.0 + 60.0 * (u / 5.0).sin() + 50.0 * (v / 6.0).cos();
                data.extend(if inside { [shade as u8, 200, 90] } else { [20, 30, 40] });
            }
        }
        Frame::new(128, 128, data).unwrap()
    }

    fn mse(a: &Frame, b: &Frame) -> f64 {
        let sum: f64 = a.data().iter().zip(b.data()).map(|(&a, &b)| f64::from(a.abs_diff(b)).powi(2)).sum();
        sum / a.data().len() as f64
    }

    #[test]
    fn follows_motion_where_a_crossfade_blurs() {
        for (shift, t) in [(8.0, 0.5), (16.0, 0.25), (24.0, 0.5), (24.0, 0.75)] {
            let (a, b, truth) = (scene(30.0), scene(30.0 + shift), scene(30.0 + shift * t));
            let warped = mse(&Warp.interpolate(&a, &b, t).unwrap(), &truth);
            let faded = mse(&Crossfade.interpolate(&a, &b, t).unwrap(), &truth);
            assert!(warped < faded / 4.0, "shift {shift}, t {t}: warp {warped:.1}, cross-fade {faded:.1}");
        }
    }

    #[test]
    fn any_size_works_and_stillness_is_exact() {
        for (w, h) in [(1, 1), (1, 200), (7, 3), (33, 64), (130, 17)] {
            let a = Frame::filled(w, h, [10, 20, 30]).unwrap();
            let b = Frame::filled(w, h, [30, 40, 50]).unwrap();
            assert_eq!(Warp.interpolate(&a, &a.clone(), 0.4).unwrap(), a);
            assert_eq!(Warp.interpolate(&a, &b, 0.5).unwrap(), Frame::filled(w, h, [20, 30, 40]).unwrap());
        }
    }
}
