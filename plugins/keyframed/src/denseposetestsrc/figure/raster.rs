//! Draws labelled triangles with a depth buffer: hard edges, as DensePose pictures have.
use super::math::{V3, v3};

/// A corner on the picture: place in pixels, nearness (greater is nearer), rest position.
#[derive(Debug, Clone, Copy, Default)]
pub struct Corner {
    pub x: f32,
    pub y: f32,
    pub near: f32,
    pub rest: V3,
}

/// A picture of part labels, 0 where nothing was drawn.
#[derive(Debug, Default)]
pub struct Canvas {
    width: usize,
    height: usize,
    labels: Vec<u8>,
    depth: Vec<f32>,
}

impl Canvas {
    /// Blank, at this size; memory is reused.
    pub fn clear(&mut self, width: usize, height: usize) {
        (self.width, self.height) = (width, height);
        self.labels.clear();
        self.labels.resize(width * height, 0);
        self.depth.clear();
        self.depth.resize(width * height, f32::NEG_INFINITY);
    }

    /// Labels of row `y`.
    pub fn row(&self, y: usize) -> &[u8] {
        &self.labels[y * self.width..][..self.width]
    }

    /// Draws one triangle, unless it faces away; `part` labels a rest position.
    pub fn triangle(&mut self, [a, b, c]: [&Corner; 3], part: impl Fn(V3) -> u8) {
        // y runs down on the picture, so counter-clockwise in the world is a negative area here.
        let area = (b.x - a.x) * (c.y - a.y) - (b.y - a.y) * (c.x - a.x);
        if area >= 0. || !area.is_finite() {
            return;
        }
        let Some((left, right)) = span([a.x, b.x, c.x], self.width) else { return };
        let Some((top, bottom)) = span([a.y, b.y, c.y], self.height) else { return };
        let scale = 1. / area;
        for row in top..bottom {
            let y = row as f32 + 0.5;
            for column in left..right {
                let x = column as f32 + 0.5;
                let wa = ((b.x - x) * (c.y - y) - (b.y - y) * (c.x - x)) * scale;
                let wb = ((c.x - x) * (a.y - y) - (c.y - y) * (a.x - x)) * scale;
                let wc = 1. - wa - wb;
                if wa < 0. || wb < 0. || wc < 0. {
                    continue;
                }
                let near = a.near * wa + b.near * wb + c.near * wc;
                let at = row * self.width + column;
                if near > self.depth[at] {
                    self.depth[at] = near;
                    self.labels[at] = part(mix([a.rest, b.rest, c.rest], [wa, wb, wc]));
                }
            }
        }
    }
}

/// The pixels whose centres may lie between the corners, or none.
fn span(corners: [f32; 3], limit: usize) -> Option<(usize, usize)> {
    let low = corners.iter().copied().fold(f32::INFINITY, f32::min).floor().max(0.);
    let high = corners.iter().copied().fold(f32::NEG_INFINITY, f32::max).ceil().min(limit as f32);
    (low < high).then_some((low as usize, high as usize))
}

fn mix(p: [V3; 3], w: [f32; 3]) -> V3 {
    v3(
        p[0].x * w[0] + p[1].x * w[1] + p[2].x * w[2],
        p[0].y * w[0] + p[1].y * w[1] + p[2].y * w[2],
        p[0].z * w[0] + p[1].z * w[1] + p[2].z * w[2],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn corner(x: f32, y: f32, near: f32) -> Corner {
        Corner { x, y, near, rest: V3::default() }
    }

    #[test]
    fn nearer_wins_in_either_order() {
        let (a, b, c) = ([0., 0.], [0., 8.], [8., 0.]);
        let tri = |near| [a, b, c].map(|[x, y]| corner(x, y, near));
        for order in [[1., 2.], [2., 1.]] {
            let mut canvas = Canvas::default();
            canvas.clear(8, 8);
            for near in order {
                let t = tri(near);
                canvas.triangle([&t[0], &t[1], &t[2]], |_| near as u8);
            }
            assert_eq!(canvas.row(1)[1], 2);
        }
    }

    #[test]
    fn outside_and_backwards_draw_nothing() {
        let mut canvas = Canvas::default();
        canvas.clear(4, 4);
        let t = [corner(-9., -9., 0.), corner(-9., -5., 0.), corner(-5., -9., 0.)];
        canvas.triangle([&t[0], &t[1], &t[2]], |_| 1);
        let t = [corner(0., 0., 0.), corner(4., 0., 0.), corner(0., 4., 0.)];
        canvas.triangle([&t[0], &t[1], &t[2]], |_| 1);
        assert!((0..4).all(|y| canvas.row(y) == [0; 4]));
    }
}
