//! Where the figure stands in the picture.

use rand::Rng;

use super::math::V3;

/// How much of the body a picture shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Head to feet.
    Full,
    /// Head to hips or knees, as most driving clips are framed.
    Half,
    /// Head and shoulders.
    Close,
}

/// A camera on the figure's front side, looking along +y. Its background does not move.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Camera {
    /// Standing height as a fraction of the picture's.
    pub cover: f32,
    /// Place of the anchor (top of the standing head, middle of the body) in the picture, 0..1.
    pub x: f32,
    /// As `x`, from the top.
    pub y: f32,
    /// Distance in metres: perspective.
    pub distance: f32,
    /// 0: stays where a standing head would be; 1: keeps the head's top at `x`, `y`.
    pub follow: f32,
}

impl Camera {
    /// A framing drawn as driving clips are: half of them head to thighs.
    pub fn random(rng: &mut impl Rng) -> Self {
        let framing = match rng.random::<f32>() {
            u if u < 0.32 => Framing::Full,
            u if u < 0.82 => Framing::Half,
            _ => Framing::Close,
        };
        let cover = match framing {
            Framing::Full => rng.random_range(0.72..1.0),
            Framing::Half => rng.random_range(1.05..1.85),
            Framing::Close => rng.random_range(1.9..2.8),
        };
        let y = match framing {
            Framing::Full => rng.random_range(0.03..0.12),
            Framing::Half => rng.random_range(-0.05..0.24),
            Framing::Close => rng.random_range(0.02..0.3),
        };
        let x = 0.5 + (rng.random::<f32>() + rng.random::<f32>() - 1.0) * 0.16;
        let follow = if rng.random::<f32>() < 0.3 { 1.0 } else { rng.random_range(0.2..0.8) };
        Self { cover, x, y, distance: rng.random_range(2.5..6.0), follow }
    }

    /// A portrait of the given framing.
    pub fn reference(framing: Framing, rng: &mut impl Rng) -> Self {
        let (cover, y) = match framing {
            Framing::Full => (rng.random_range(0.84..0.92), rng.random_range(0.04..0.07)),
            Framing::Half => (rng.random_range(1.3..1.6), rng.random_range(0.06..0.12)),
            Framing::Close => (rng.random_range(2.1..2.6), rng.random_range(0.1..0.16)),
        };
        let x = 0.5 + rng.random_range(-0.03..0.03);
        Self { cover, x, y, distance: rng.random_range(3.5..6.0), follow: 0.7 }
    }

    /// The projection of world points to pixels of a `size`-pixel picture of a body.
    ///
    /// `standing` is the anchor of the standing body, `head` where the top of the head is in this pose,
    /// `height` the standing height in metres.
    pub(super) fn lens(&self, size: usize, standing: V3, head: V3, height: f32) -> Lens {
        let size = size as f32;
        let anchor: V3 = std::array::from_fn(|k| standing[k] + (head[k] - standing[k]) * self.follow);
        Lens {
            focal: self.cover * size / height,
            center: [self.x * size, self.y * size],
            anchor,
            distance: self.distance,
        }
    }
}

/// A pinhole camera in pixels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lens {
    focal: f32,
    center: [f32; 2],
    anchor: V3,
    distance: f32,
}

impl Lens {
    /// Pixel x, pixel y, depth in metres.
    pub fn project(&self, p: V3) -> V3 {
        let w = self.focal * self.distance / (self.distance + p[1]).max(0.3);
        [self.center[0] + (p[0] - self.anchor[0]) * w, self.center[1] - (p[2] - self.anchor[2]) * w, p[1]]
    }
}
