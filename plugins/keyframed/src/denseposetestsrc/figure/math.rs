//! The little linear algebra that the figure needs: right-handed, y up, z towards the viewer, metres.

/// A point or direction.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct V3 {
    pub x: f32,
    pub y: f32,
    pub z: f32,
}

/// Shorthand constructor.
pub const fn v3(x: f32, y: f32, z: f32) -> V3 {
    V3 { x, y, z }
}

impl V3 {
    /// `self + (other - self) * w`.
    pub fn lerp(self, other: V3, w: f32) -> V3 {
        self + (other - self) * w
    }
}

impl std::ops::Add for V3 {
    type Output = V3;
    fn add(self, o: V3) -> V3 {
        v3(self.x + o.x, self.y + o.y, self.z + o.z)
    }
}

impl std::ops::Sub for V3 {
    type Output = V3;
    fn sub(self, o: V3) -> V3 {
        v3(self.x - o.x, self.y - o.y, self.z - o.z)
    }
}

impl std::ops::Mul<f32> for V3 {
    type Output = V3;
    fn mul(self, s: f32) -> V3 {
        v3(self.x * s, self.y * s, self.z * s)
    }
}

/// A rotation, by its three columns (the images of the axes).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rot(V3, V3, V3);

impl Rot {
    /// No rotation.
    pub const ID: Rot = Rot(v3(1., 0., 0.), v3(0., 1., 0.), v3(0., 0., 1.));

    /// About x by `a` radians: y turns towards z.
    pub fn x(a: f32) -> Rot {
        let (s, c) = a.sin_cos();
        Rot(v3(1., 0., 0.), v3(0., c, s), v3(0., -s, c))
    }

    /// About y by `a` radians: z turns towards x.
    pub fn y(a: f32) -> Rot {
        let (s, c) = a.sin_cos();
        Rot(v3(c, 0., -s), v3(0., 1., 0.), v3(s, 0., c))
    }

    /// About z by `a` radians: x turns towards y.
    pub fn z(a: f32) -> Rot {
        let (s, c) = a.sin_cos();
        Rot(v3(c, s, 0.), v3(-s, c, 0.), v3(0., 0., 1.))
    }

    /// The rotated vector.
    pub fn apply(&self, v: V3) -> V3 {
        self.0 * v.x + self.1 * v.y + self.2 * v.z
    }
}

impl std::ops::Mul for Rot {
    type Output = Rot;
    fn mul(self, o: Rot) -> Rot {
        Rot(self.apply(o.0), self.apply(o.1), self.apply(o.2))
    }
}

/// A bone's place: rotation, then translation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Frame {
    pub rot: Rot,
    pub at: V3,
}

impl Frame {
    /// A point of the bone's own space, in the parent's.
    pub fn apply(&self, p: V3) -> V3 {
        self.rot.apply(p) + self.at
    }

    /// A child bone whose joint lies at `joint` in this bone's space, turned by `rot`.
    pub fn child(&self, joint: V3, rot: Rot) -> Frame {
        Frame { rot: self.rot * rot, at: self.apply(joint) }
    }
}

/// Hermite step from 0 at `a` to 1 at `b`.
pub fn smoothstep(a: f32, b: f32, x: f32) -> f32 {
    let t = ((x - a) / (b - a)).clamp(0., 1.);
    t * t * (3. - 2. * t)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::f32::consts::FRAC_PI_2;

    fn close(a: V3, b: V3) -> bool {
        let d = a - b;
        d.x.abs() + d.y.abs() + d.z.abs() < 1e-5
    }

    #[test]
    fn rotations_turn_the_documented_way() {
        assert!(close(Rot::x(FRAC_PI_2).apply(v3(0., 1., 0.)), v3(0., 0., 1.)));
        assert!(close(Rot::y(FRAC_PI_2).apply(v3(0., 0., 1.)), v3(1., 0., 0.)));
        assert!(close(Rot::z(FRAC_PI_2).apply(v3(1., 0., 0.)), v3(0., 1., 0.)));
    }

    #[test]
    fn children_compose() {
        let parent = Frame { rot: Rot::z(FRAC_PI_2), at: v3(0., 1., 0.) };
        let child = parent.child(v3(1., 0., 0.), Rot::z(FRAC_PI_2));
        assert!(close(child.at, v3(0., 2., 0.)));
        assert!(close(child.apply(v3(1., 0., 0.)), v3(-1., 2., 0.)));
    }
}
