//! Triangles into a depth buffer.

use super::math::V3;

/// No triangle.
pub(super) const NONE: u32 = u32::MAX;

/// What covers a pixel: a triangle and the shares of its second and third corner.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hit {
    pub triangle: u32,
    pub depth: f32,
    pub share: [f32; 2],
}

/// A square depth buffer.
#[derive(Default)]
pub(super) struct Raster {
    pub size: usize,
    pub hits: Vec<Hit>,
}

impl Raster {
    /// Empties the buffer at a size.
    pub fn clear(&mut self, size: usize) {
        self.size = size;
        self.hits.clear();
        self.hits.resize(size * size, Hit { triangle: NONE, depth: f32::INFINITY, share: [0.0; 2] });
    }

    /// Draws triangles of projected points (pixel x, pixel y, depth), numbered from `first`.
    ///
    /// With `closed` the faces that look away are skipped: nobody sees the inside of a closed body.
    pub fn draw(&mut self, points: &[V3], triangles: &[[u32; 3]], first: u32, closed: bool) {
        for (number, triangle) in triangles.iter().enumerate() {
            let [a, b, c] = triangle.map(|v| points[v as usize]);
            let area = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]);
            // Pixel y grows downwards, so faces towards the camera have a negative area.
            if area.abs() > 1e-6 && !(closed && area > 0.0) {
                self.fill([a, b, c], 1.0 / area, first + number as u32);
            }
        }
    }

    fn fill(&mut self, [a, b, c]: [V3; 3], inverse: f32, triangle: u32) {
        let limit = self.size as f32;
        let span = |k: usize| {
            let low = a[k].min(b[k]).min(c[k]) - 0.5;
            let high = a[k].max(b[k]).max(c[k]) - 0.5;
            (low.ceil().clamp(0.0, limit) as usize, (high.floor() + 1.0).clamp(0.0, limit) as usize)
        };
        let ((x0, x1), (y0, y1)) = (span(0), span(1));
        let step1 = (c[1] - a[1]) * inverse;
        let step2 = (a[1] - b[1]) * inverse;
        for y in y0..y1 {
            let dy = y as f32 + 0.5 - a[1];
            let base1 = -dy * (c[0] - a[0]) * inverse;
            let base2 = dy * (b[0] - a[0]) * inverse;
            let row = y * self.size;
            for x in x0..x1 {
                let dx = x as f32 + 0.5 - a[0];
                let s1 = base1 + dx * step1;
                let s2 = base2 + dx * step2;
                if s1 < 0.0 || s2 < 0.0 || s1 + s2 > 1.0 {
                    continue;
                }
                let depth = a[2] + s1 * (b[2] - a[2]) + s2 * (c[2] - a[2]);
                let hit = &mut self.hits[row + x];
                if depth < hit.depth {
                    *hit = Hit { triangle, depth, share: [s1, s2] };
                }
            }
        }
    }
}
