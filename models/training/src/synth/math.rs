//! The little linear algebra that figures need: vectors, rotations and rigid transforms.

/// A point or direction: x to the figure's left, y to its back, z up (metres).
pub type V3 = [f32; 3];
/// Rows of a 3×3 matrix.
pub type M3 = [[f32; 3]; 3];

pub(super) fn add(a: V3, b: V3) -> V3 {
    [a[0] + b[0], a[1] + b[1], a[2] + b[2]]
}

pub(super) fn sub(a: V3, b: V3) -> V3 {
    [a[0] - b[0], a[1] - b[1], a[2] - b[2]]
}

pub(super) fn scale(a: V3, s: f32) -> V3 {
    [a[0] * s, a[1] * s, a[2] * s]
}

pub(super) fn dot(a: V3, b: V3) -> f32 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

pub(super) fn cross(a: V3, b: V3) -> V3 {
    [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
}

pub(super) fn normalize(a: V3) -> V3 {
    scale(a, 1.0 / dot(a, a).sqrt().max(1e-9))
}

/// From `a` at 0 to `b` at 1.
pub(super) fn mix(a: V3, b: V3, t: f32) -> V3 {
    [lerp(a[0], b[0], t), lerp(a[1], b[1], t), lerp(a[2], b[2], t)]
}

pub(super) fn lerp(a: f32, b: f32, t: f32) -> f32 {
    a + (b - a) * t
}

/// 0 below `a`, 1 above `b`, smooth between.
pub(super) fn smoothstep(a: f32, b: f32, x: f32) -> f32 {
    let t = ((x - a) / (b - a)).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

pub(super) fn apply(m: &M3, v: V3) -> V3 {
    [dot(m[0], v), dot(m[1], v), dot(m[2], v)]
}

pub(super) fn mul(a: &M3, b: &M3) -> M3 {
    let mut out = [[0.0; 3]; 3];
    for (row, a) in out.iter_mut().zip(a) {
        for (k, cell) in row.iter_mut().enumerate() {
            *cell = a[0] * b[0][k] + a[1] * b[1][k] + a[2] * b[2][k];
        }
    }
    out
}

/// Rotation about an axis by an angle in radians (Rodrigues).
pub(super) fn rotation(axis: V3, angle: f32) -> M3 {
    let [x, y, z] = normalize(axis);
    let (s, c) = angle.sin_cos();
    let k = 1.0 - c;
    [
        [c + x * x * k, x * y * k - z * s, x * z * k + y * s],
        [y * x * k + z * s, c + y * y * k, y * z * k - x * s],
        [z * x * k - y * s, z * y * k + x * s, c + z * z * k],
    ]
}

/// Turns about x, then y, then z.
pub(super) fn euler(x: f32, y: f32, z: f32) -> M3 {
    let turn_x = rotation([1.0, 0.0, 0.0], x);
    let turn_y = rotation([0.0, 1.0, 0.0], y);
    let turn_z = rotation([0.0, 0.0, 1.0], z);
    mul(&turn_z, &mul(&turn_y, &turn_x))
}

/// The shortest rotation that takes direction `a` to direction `b`.
pub(super) fn between(a: V3, b: V3) -> M3 {
    let (a, b) = (normalize(a), normalize(b));
    let axis = cross(a, b);
    let sine = dot(axis, axis).sqrt();
    let cosine = dot(a, b);
    if sine < 1e-6 {
        let angle = if cosine > 0.0 { 0.0 } else { std::f32::consts::PI };
        return rotation([0.0, 1.0, 0.0], angle);
    }
    rotation(axis, sine.atan2(cosine))
}

/// A rotation followed by a shift.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rigid {
    pub r: M3,
    pub t: V3,
}

impl Rigid {
    /// Rotation about a pivot.
    pub fn about(r: M3, pivot: V3) -> Self {
        Self { t: sub(pivot, apply(&r, pivot)), r }
    }

    pub fn point(&self, p: V3) -> V3 {
        add(apply(&self.r, p), self.t)
    }

    /// `other` first, then `self`.
    pub fn then(&self, other: &Self) -> Self {
        Self { r: mul(&self.r, &other.r), t: self.point(other.t) }
    }
}
