//! Backgrounds: plain, gradient and simple scenes.

use rand::Rng;

use super::math::{mix, smoothstep};
use super::person::{Colour, hsv};

/// A flat shape in the background; places in 0..1 of the picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Block {
    /// Left, top, right, bottom.
    pub area: [f32; 4],
    /// Colour.
    pub colour: Colour,
    /// An ellipse instead of a rectangle.
    pub round: bool,
}

/// A background. It stays where it is when the figure or the camera's framing changes.
#[derive(Clone, Debug, PartialEq)]
pub struct Backdrop {
    /// Colours at both ends of the wall's gradient.
    pub wall: [Colour; 2],
    /// Direction of the gradient, radians; π/2 is downwards.
    pub angle: f32,
    /// Height of the horizon (0 top, 1 bottom) and colours of the floor, far and near.
    pub floor: Option<(f32, [Colour; 2])>,
    /// Windows, pictures, sun, hills; later ones in front.
    pub blocks: Vec<Block>,
}

impl Backdrop {
    /// One colour.
    pub fn plain(colour: Colour) -> Self {
        Self { wall: [colour; 2], angle: 0.0, floor: None, blocks: Vec::new() }
    }

    /// Lighter above.
    pub fn gradient(top: Colour, bottom: Colour) -> Self {
        Self { wall: [top, bottom], angle: std::f32::consts::FRAC_PI_2, floor: None, blocks: Vec::new() }
    }

    /// With a floor from the horizon down.
    pub fn with_floor(mut self, horizon: f32, far: Colour, near: Colour) -> Self {
        self.floor = Some((horizon, [far, near]));
        self
    }

    /// With a shape in front of what is there.
    pub fn with(mut self, area: [f32; 4], colour: Colour, round: bool) -> Self {
        self.blocks.push(Block { area, colour, round });
        self
    }

    /// A window of four panes.
    pub fn with_window(self, [x0, y0, x1, y1]: [f32; 4], frame: Colour, glass: Colour) -> Self {
        let (w, h, b) = (x1 - x0, y1 - y0, 0.022);
        let mut out = self.with([x0, y0, x1, y1], frame, false);
        for (px, py) in [(0.0, 0.0), (0.5, 0.0), (0.0, 0.5), (0.5, 0.5)] {
            let (left, top) = (x0 + b + px * (w - b), y0 + b + py * (h - b));
            let pane = [left, top, left + w / 2.0 - 1.5 * b, top + h / 2.0 - 1.5 * b];
            out = out.with(pane, glass, false);
        }
        out
    }

    /// Any.
    pub fn random(rng: &mut impl Rng) -> Self {
        let base = hsv(rng.random(), rng.random_range(0.0..0.55), rng.random_range(0.4..0.97));
        match rng.random_range(0..10) {
            0..3 => Self::plain(base),
            3..5 => {
                let other = hsv(rng.random(), rng.random_range(0.0..0.5), rng.random_range(0.4..0.97));
                let mut out = Self::gradient(base, mix(base, other, 0.6));
                out.angle = rng.random_range(0.0..6.3);
                out
            }
            5..8 => Self::room(rng, base),
            _ => Self::outdoors(rng),
        }
    }

    fn room(rng: &mut impl Rng, wall: Colour) -> Self {
        let floor =
            hsv(rng.random_range(0.02..0.14), rng.random_range(0.1..0.5), rng.random_range(0.35..0.75));
        let mut out = Self::gradient(wall, wall.map(|c| c * 0.9)).with_floor(
            rng.random_range(0.68..0.9),
            floor.map(|c| c * 0.85),
            floor,
        );
        if rng.random() {
            let (x, y) = (rng.random_range(-0.1..0.8), rng.random_range(0.05..0.3));
            let area = [x, y, x + rng.random_range(0.22..0.35), y + rng.random_range(0.22..0.4)];
            out = out.with_window(area, [0.93; 3], hsv(0.56, rng.random_range(0.15..0.45), 0.95));
        }
        for _ in 0..rng.random_range(0..3) {
            let (x, y) = (rng.random_range(-0.1..0.9), rng.random_range(0.05..0.6));
            let area = [x, y, x + rng.random_range(0.1..0.3), y + rng.random_range(0.1..0.35)];
            let colour = hsv(rng.random(), rng.random_range(0.1..0.7), rng.random_range(0.3..0.9));
            out = out.with(area, colour, rng.random::<f32>() < 0.3);
        }
        out
    }

    fn outdoors(rng: &mut impl Rng) -> Self {
        let hue = rng.random_range(0.5..0.64);
        let horizon = rng.random_range(0.6..0.85);
        let ground =
            hsv(rng.random_range(0.08..0.38), rng.random_range(0.25..0.6), rng.random_range(0.45..0.75));
        let mut out = Self::gradient(hsv(hue, 0.5, 0.92), hsv(hue, 0.15, 0.98));
        if rng.random() {
            let (x, y) = (rng.random_range(0.05..0.9), rng.random_range(0.05..0.25));
            out = out.with([x, y, x + 0.13, y + 0.13], [1.0, 0.9, 0.55], true);
        }
        for _ in 0..rng.random_range(1..4) {
            let (x, w) = (rng.random_range(-0.3..0.9), rng.random_range(0.4..0.9));
            let h = rng.random_range(0.1..0.35);
            let hill = mix(ground, hsv(hue, 0.3, 0.8), rng.random_range(0.3..0.6));
            out = out.with([x, horizon - h, x + w, horizon + h], hill, true);
        }
        out.with_floor(horizon, mix(ground, [0.9; 3], 0.15), ground)
    }

    /// The scene without anybody: `size * size * 3` bytes.
    pub fn picture(&self, size: usize) -> Vec<u8> {
        self.paint(size).iter().flat_map(|colour| colour.map(|c| (c * 255.0 + 0.5) as u8)).collect()
    }

    /// The picture, `size` × `size`.
    pub(super) fn paint(&self, size: usize) -> Vec<Colour> {
        let mut out = Vec::with_capacity(size * size);
        let (sin, cos) = self.angle.sin_cos();
        for y in 0..size {
            let v = (y as f32 + 0.5) / size as f32;
            for x in 0..size {
                let u = (x as f32 + 0.5) / size as f32;
                let t = 0.5 + (u - 0.5) * cos + (v - 0.5) * sin;
                out.push(mix(self.wall[0], self.wall[1], t.clamp(0.0, 1.0)));
            }
        }
        for block in &self.blocks {
            block.paint(size, &mut out);
        }
        if let Some((horizon, colours)) = self.floor {
            let edge = horizon * size as f32;
            for (y, row) in out.chunks_exact_mut(size).enumerate().skip(edge as usize) {
                let cover = (y as f32 + 1.0 - edge).clamp(0.0, 1.0);
                let depth = (y as f32 - edge) / (size as f32 - edge).max(1.0);
                let colour = mix(colours[0], colours[1], depth.clamp(0.0, 1.0));
                row.iter_mut().for_each(|c| *c = mix(*c, colour, cover));
            }
        }
        out
    }
}

impl Block {
    fn paint(&self, size: usize, out: &mut [Colour]) {
        let scale = size as f32;
        let [x0, y0, x1, y1] = self.area.map(|v| v * scale);
        let clip = |low: f32, high: f32| {
            ((low - 1.0).clamp(0.0, scale) as usize, (high + 1.0).clamp(0.0, scale).ceil() as usize)
        };
        let ((left, right), (top, bottom)) = (clip(x0, x1), clip(y0, y1));
        for y in top..bottom.min(size) {
            for x in left..right.min(size) {
                let (px, py) = (x as f32 + 0.5, y as f32 + 0.5);
                let inside = if self.round {
                    let (rx, ry) = ((x1 - x0) / 2.0, (y1 - y0) / 2.0);
                    let distance = ((px - x0 - rx) / rx).hypot((py - y0 - ry) / ry);
                    (1.0 - distance) * rx.min(ry)
                } else {
                    (px - x0).min(x1 - px).min(py - y0).min(y1 - py)
                };
                let cell = &mut out[y * size + x];
                *cell = mix(*cell, self.colour, smoothstep(-0.5, 0.5, inside));
            }
        }
    }
}
