//! Sampling a picture along a flow, and padding pictures to the pyramid's grid.

use tch::Tensor;

const BILINEAR: i64 = 0;
const BORDER: i64 = 1;

/// `image` `[b, c, h, w]` sampled at every pixel's position plus `flow` `[b, 2, h, w]`
/// (x, y in pixels): bilinear, the border repeats outside.
pub fn warp(image: &Tensor, flow: &Tensor) -> Tensor {
    let size = image.size();
    let (h, w) = (size[2], size[3]);
    let options = (flow.kind(), flow.device());
    // Positions in −1..1, where ±1 are the outer edges of the outer pixels. Made as the port makes them: rounded
    // otherwise, a wide picture's positions are off by a hundred-thousandth of a pixel.
    let centres = |n: i64| {
        let outer = 1.0 - 1.0 / n as f64;
        Tensor::linspace(-outer, outer, n, options)
    };
    let x = flow.select(1, 0) / (w as f64 / 2.0) + centres(w).view([1, 1, w]);
    let y = flow.select(1, 1) / (h as f64 / 2.0) + centres(h).view([1, h, 1]);
    image.grid_sampler(&Tensor::stack(&[x, y], 3), BILINEAR, BORDER, false)
}

/// Where a picture lies within a padded one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PadBox {
    /// Rows above.
    pub top: i64,
    /// Columns on the left.
    pub left: i64,
    /// Rows below.
    pub bottom: i64,
    /// Columns on the right.
    pub right: i64,
}

impl PadBox {
    /// The padding that makes both sides multiples of `alignment`, split evenly
    /// with the odd row or column at the bottom or right.
    pub fn new(height: i64, width: i64, alignment: i64) -> Self {
        let missing = |n: i64| (alignment - n % alignment) % alignment;
        let (rows, columns) = (missing(height), missing(width));
        let (top, left) = (rows / 2, columns / 2);
        Self { top, left, bottom: rows - top, right: columns - left }
    }

    /// `[b, c, h, w]` with zeros around it.
    pub fn pad(&self, image: &Tensor) -> Tensor {
        image.constant_pad_nd([self.left, self.right, self.top, self.bottom])
    }

    /// The inverse of [`PadBox::pad`].
    pub fn crop(&self, image: &Tensor) -> Tensor {
        let size = image.size();
        let rows = image.narrow(2, self.top, size[2] - self.top - self.bottom);
        rows.narrow(3, self.left, size[3] - self.left - self.right)
    }
}
