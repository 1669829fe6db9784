//! A moving figure in DensePose part labels: no video, no weights, any size and any instant.
//!
//! `motion` gives joint angles for a time, `skeleton` places the bones, `body` holds the surface and
//! the part of each of its points, and `raster` draws it.
mod body;
mod math;
mod motion;
mod raster;
mod skeleton;

use math::V3;
pub use motion::Motion;
use motion::Temper;
use raster::{Canvas, Corner};

/// Share of the picture's height that the standing figure fills.
const FILL: f32 = 0.85;
/// Width that must fit beside the figure in a narrow picture, metres.
const ROOM: f32 = 1.25;
/// Distance of the camera, metres.
const CAMERA: f32 = 5.0;
/// Height of the camera, metres.
const EYE: f32 = 0.95;

/// A figure of one seed, drawn again and again.
#[derive(Debug)]
pub struct Figure {
    motion: Motion,
    temper: Temper,
    parts: Vec<body::Part>,
    canvas: Canvas,
    corners: Vec<Corner>,
}

impl Figure {
    /// The figure of `seed`, moving as `motion` says.
    pub fn new(motion: Motion, seed: u64) -> Self {
        let temper = Temper::new(seed);
        Self {
            motion,
            parts: body::build(temper.breadth),
            temper,
            canvas: Canvas::default(),
            corners: Vec::new(),
        }
    }

    /// Changes the movement, keeping the body.
    pub fn set_motion(&mut self, motion: Motion) {
        self.motion = motion;
    }

    /// Draws the figure at `t` seconds, `width` × `height` pixels; the answer gives rows of part labels
    /// (0 = background, 1 to 24).
    pub fn draw(&mut self, t: f64, width: usize, height: usize) -> &Canvas {
        let pose = motion::pose(self.motion, &self.temper, t);
        let bones = skeleton::frames(&pose, self.temper.breadth);
        let view = View::new(width, height);
        self.canvas.clear(width, height);
        for part in &self.parts {
            self.corners.clear();
            self.corners.extend(part.vertices.iter().map(|v| {
                let [p, q] = [0, 1].map(|i| bones[v.bones[i]].apply(v.local[i]));
                view.project(p.lerp(q, v.weight), v.rest)
            }));
            for triangle in &part.triangles {
                let corners = triangle.map(|i| &self.corners[i as usize]);
                self.canvas.triangle(corners, |rest| part.tube.part(rest, part.left));
            }
        }
        &self.canvas
    }
}

/// The camera: looks straight at the figure from a few metres away.
struct View {
    /// Pixels a metre at the figure's distance.
    scale: f32,
    /// Pixel of the figure's axis.
    centre: f32,
    /// Pixel of the floor.
    floor: f32,
}

impl View {
    fn new(width: usize, height: usize) -> Self {
        let (width, height) = (width as f32, height as f32);
        let scale = (FILL * height / body::STATURE).min(width / ROOM);
        // The rest of the height goes above and below alike, a little more above: arms go up.
        let floor = 0.5 * height + 0.49 * scale * body::STATURE;
        Self { scale, centre: 0.5 * width, floor }
    }

    fn project(&self, p: V3, rest: V3) -> Corner {
        let zoom = CAMERA / (CAMERA - p.z);
        let up = EYE + (p.y - EYE) * zoom;
        Corner { x: self.centre + self.scale * p.x * zoom, y: self.floor - self.scale * up, near: p.z, rest }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(canvas: &Canvas, height: usize) -> Vec<u8> {
        (0..height).flat_map(|y| canvas.row(y).to_vec()).collect()
    }

    #[test]
    fn standing_figure_fills_the_documented_height() {
        let mut figure = Figure::new(Motion::Still, 0);
        let labels = rows(figure.draw(0., 400, 400), 400);
        let used: Vec<usize> = (0..400).filter(|y| labels[y * 400..][..400].iter().any(|l| *l > 0)).collect();
        let height = (used[used.len() - 1] - used[0]) as f32 / 400.;
        assert!((0.83..0.88).contains(&height), "{height}");
    }

    #[test]
    fn facing_decides_front_and_back() {
        let mut figure = Figure::new(Motion::Spin, 0);
        let mut seen = [[false; 2]; 2];
        for step in 0..40 {
            let labels = rows(figure.draw(f64::from(step) * 0.11, 128, 128), 128);
            let count = |part| labels.iter().filter(|l| **l == part).count();
            seen[0][0] |= count(2) > 500 && count(1) == 0;
            seen[0][1] |= count(1) > 500 && count(2) == 0;
            seen[1][0] |= count(1) > 100 && count(2) > 100;
        }
        assert!(seen[0][0] && seen[0][1] && seen[1][0], "{seen:?}");
    }

    #[test]
    fn left_and_right_are_the_figures_own() {
        let mut figure = Figure::new(Motion::Still, 0);
        let labels = rows(figure.draw(0., 256, 256), 256);
        let mean_x = |part| {
            let xs: Vec<usize> =
                labels.iter().enumerate().filter(|(_, l)| **l == part).map(|(i, _)| i % 256).collect();
            xs.iter().sum::<usize>() as f32 / xs.len() as f32
        };
        // (right, left) pairs: the figure faces us, so its right is on the picture's left.
        for (right, left) in
            [(3, 4), (6, 5), (9, 10), (13, 14), (16, 15), (18, 17), (20, 19), (22, 21), (23, 24)]
        {
            assert!(mean_x(right) + 3. < mean_x(left), "{right} {left}");
        }
        // Outer halves of the arms lie outside the inner ones.
        assert!(mean_x(18) < mean_x(16) && mean_x(17) > mean_x(15));
    }

    #[test]
    fn tiny_and_odd_sizes_draw() {
        let mut figure = Figure::new(Motion::Dance, 9);
        for (width, height) in [(1, 1), (1, 64), (64, 1), (7, 1999), (333, 17)] {
            let labels = rows(figure.draw(1.5, width, height), height);
            assert_eq!(labels.len(), width * height);
        }
    }
}
