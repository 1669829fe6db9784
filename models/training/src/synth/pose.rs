//! Poses as a few angles, random and calm ones, and the bone transforms they mean.

use std::f32::consts::{PI, TAU};

use rand::Rng;

use super::math::{Rigid, V3, add, apply, between, cross, euler, lerp, mix, mul, normalize, rotation, sub};
use super::rig::{Rig, Shape};

/// Left of the figure (x > 0) is index 0, right is 1.
const SIDES: [f32; 2] = [1.0, -1.0];

/// One arm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Arm {
    /// Where the upper arm points: x away from the body, y to the back, z up; any length but zero.
    pub dir: V3,
    /// Turn about its own axis, radians.
    pub twist: f32,
    /// Bend of the elbow, 0 straight, radians.
    pub elbow: f32,
    /// Bends of the wrist, radians.
    pub wrist: [f32; 2],
    /// Fingers: 0 flat, 1 fist.
    pub curl: f32,
}

/// One leg; radians.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Leg {
    /// Forward at the hip.
    pub lift: f32,
    /// Outward at the hip.
    pub spread: f32,
    /// Bend of the knee.
    pub knee: f32,
}

/// A whole body's pose. Poses can be blended with [`Pose::mix`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pose {
    /// Left, right.
    pub arms: [Arm; 2],
    /// Left, right.
    pub legs: [Leg; 2],
    /// Bend forward, to the side, twist; radians over the whole spine.
    pub spine: V3,
    /// Nod, tilt, turn; radians.
    pub head: V3,
    /// Turn of the whole figure about the vertical; 0 faces the camera, radians.
    pub yaw: f32,
    /// Lean of the whole figure forward and to the side, radians.
    pub lean: [f32; 2],
    /// Steps sideways and a hop, in body heights.
    pub shift: [f32; 2],
}

impl Default for Arm {
    fn default() -> Self {
        Self { dir: [0.25, -0.03, -1.0], twist: 0.0, elbow: 0.35, wrist: [0.0; 2], curl: 0.3 }
    }
}

impl Default for Leg {
    fn default() -> Self {
        Self { lift: 0.0, spread: 0.0, knee: 0.03 }
    }
}

impl Default for Pose {
    /// Standing upright, arms a little away from the body, facing the camera.
    fn default() -> Self {
        Self {
            arms: [Arm::default(); 2],
            legs: [Leg::default(); 2],
            spine: [0.0; 3],
            head: [0.0; 3],
            yaw: 0.0,
            lean: [0.0; 2],
            shift: [0.0; 2],
        }
    }
}

impl Arm {
    fn mix(a: &Self, b: &Self, t: f32) -> Self {
        Self {
            dir: mix(normalize(a.dir), normalize(b.dir), t),
            twist: lerp(a.twist, b.twist, t),
            elbow: lerp(a.elbow, b.elbow, t),
            wrist: [lerp(a.wrist[0], b.wrist[0], t), lerp(a.wrist[1], b.wrist[1], t)],
            curl: lerp(a.curl, b.curl, t),
        }
    }

    fn random(rng: &mut impl Rng) -> Self {
        let dir = match rng.random::<f32>() {
            u if u < 0.36 => vector(rng, [(0.05, 0.5), (-0.4, 0.3), (-1.0, -1.0)]),
            u if u < 0.52 => vector(rng, [(0.3, 1.0), (-0.6, 0.3), (-1.0, 0.2)]),
            u if u < 0.76 => vector(rng, [(0.1, 0.9), (-1.0, 0.0), (-0.8, 0.5)]),
            u if u < 0.93 => vector(rng, [(0.1, 1.0), (-0.6, 0.3), (0.2, 1.0)]),
            _ => vector(rng, [(0.05, 1.0), (-1.0, 0.6), (-1.0, 1.0)]),
        };
        let bent = rng.random::<f32>() < 0.62;
        Self {
            dir,
            twist: rng.random_range(-0.8..0.8),
            elbow: if bent { rng.random_range(0.5..2.4) } else { rng.random_range(0.1..0.8) },
            wrist: [rng.random_range(-0.5..0.5), rng.random_range(-0.4..0.4)],
            curl: rng.random(),
        }
    }

    fn calm(rng: &mut impl Rng) -> Self {
        Self {
            dir: vector(rng, [(0.22, 0.55), (-0.2, 0.1), (-1.0, -1.0)]),
            twist: rng.random_range(-0.3..0.3),
            elbow: rng.random_range(0.15..0.7),
            wrist: [rng.random_range(-0.15..0.15), 0.0],
            curl: rng.random_range(0.1..0.6),
        }
    }
}

impl Leg {
    fn mix(a: &Self, b: &Self, t: f32) -> Self {
        Self {
            lift: lerp(a.lift, b.lift, t),
            spread: lerp(a.spread, b.spread, t),
            knee: lerp(a.knee, b.knee, t),
        }
    }

    fn random_pair(rng: &mut impl Rng) -> [Self; 2] {
        match rng.random::<f32>() {
            u if u < 0.4 => [(); 2].map(|()| Self {
                lift: rng.random_range(-0.12..0.2),
                spread: rng.random_range(-0.05..0.25),
                knee: rng.random_range(0.0..0.2),
            }),
            u if u < 0.78 => {
                stride(rng.random_range(0.0..TAU), rng.random_range(0.2..0.75), rng.random_range(0.0..0.1))
            }
            _ => {
                let squat = rng.random_range(0.2..1.3);
                [(); 2].map(|()| Self {
                    lift: squat + rng.random_range(-0.25..0.25),
                    spread: rng.random_range(0.0..0.45),
                    knee: squat * rng.random_range(1.1..1.7),
                })
            }
        }
    }
}

/// Both legs at a phase of a walk of the given reach (radians at the hip).
pub(super) fn stride(phase: f32, reach: f32, spread: f32) -> [Leg; 2] {
    [0.0, PI].map(|offset| {
        let phase = phase + offset;
        Leg { lift: reach * phase.sin(), spread, knee: reach * 1.15 * (phase + 1.5).sin().max(0.0) + 0.06 }
    })
}

fn vector(rng: &mut impl Rng, ranges: [(f32, f32); 3]) -> V3 {
    ranges.map(|(low, high)| rng.random_range(low..=high))
}

/// A value around zero, rarely beyond twice `spread`.
fn around(rng: &mut impl Rng, spread: f32) -> f32 {
    (rng.random::<f32>() + rng.random::<f32>() + rng.random::<f32>() - 1.5) * 2.0 * spread
}

impl Pose {
    /// Any pose: standing, striding or squatting, arms anywhere, mostly facing the camera half-way.
    pub fn random(rng: &mut impl Rng) -> Self {
        let yaw = match rng.random::<f32>() {
            u if u < 0.72 => around(rng, 0.6),
            _ => rng.random_range(-PI..PI),
        };
        Self {
            arms: [Arm::random(rng), Arm::random(rng)],
            legs: Leg::random_pair(rng),
            spine: [around(rng, 0.15), around(rng, 0.12), around(rng, 0.22)],
            head: [around(rng, 0.13), around(rng, 0.11), around(rng, 0.32)],
            yaw,
            lean: [around(rng, 0.07), around(rng, 0.06)],
            shift: [around(rng, 0.04), 0.0],
        }
    }

    /// A calm one as people take for a portrait: frontal, arms away from the body.
    pub fn reference(rng: &mut impl Rng) -> Self {
        let legs = [(); 2].map(|()| Leg {
            lift: rng.random_range(-0.05..0.08),
            spread: rng.random_range(0.0..0.12),
            knee: rng.random_range(0.02..0.1),
        });
        Self {
            arms: [Arm::calm(rng), Arm::calm(rng)],
            legs,
            spine: [around(rng, 0.03), around(rng, 0.03), around(rng, 0.06)],
            head: [around(rng, 0.03), around(rng, 0.04), around(rng, 0.1)],
            yaw: around(rng, 0.12),
            lean: [around(rng, 0.02), around(rng, 0.02)],
            shift: [0.0; 2],
        }
    }

    /// From `a` at 0 to `b` at 1.
    pub fn mix(a: &Self, b: &Self, t: f32) -> Self {
        Self {
            arms: [0, 1].map(|k| Arm::mix(&a.arms[k], &b.arms[k], t)),
            legs: [0, 1].map(|k| Leg::mix(&a.legs[k], &b.legs[k], t)),
            spine: mix(a.spine, b.spine, t),
            head: mix(a.head, b.head, t),
            yaw: lerp(a.yaw, b.yaw, t),
            lean: [lerp(a.lean[0], b.lean[0], t), lerp(a.lean[1], b.lean[1], t)],
            shift: [lerp(a.shift[0], b.shift[0], t), lerp(a.shift[1], b.shift[1], t)],
        }
    }

    /// Where every bone takes the rest body, standing on the floor of the shape.
    pub(super) fn bones(&self, rig: &Rig, shape: &Shape) -> Vec<Rigid> {
        let turns = self.turns(rig, shape);
        let root = euler(-self.lean[0], self.lean[1], 0.0);
        let root = mul(&rotation([0.0, 0.0, 1.0], self.yaw), &root);
        let mut out: Vec<Rigid> = Vec::with_capacity(rig.parents.len());
        for (bone, parent) in rig.parents.iter().enumerate() {
            let above = match parent {
                Some(p) => out[*p],
                None => Rigid::about(root, shape.heads[bone]),
            };
            out.push(match &turns[bone] {
                Some(r) => above.then(&Rigid::about(*r, shape.heads[bone])),
                None => above,
            });
        }
        self.stand(rig, shape, &mut out);
        out
    }

    /// Moves the figure so that its lower foot touches the floor, then steps and hops.
    fn stand(&self, rig: &Rig, shape: &Shape, bones: &mut [Rigid]) {
        let lowest = |foot: usize| {
            let ankle = shape.heads[foot];
            let toe = add(ankle, [0.0, -0.14, shape.floor - ankle[2]]);
            let heel = add(ankle, [0.0, 0.05, shape.floor - ankle[2]]);
            bones[foot].point(toe)[2].min(bones[foot].point(heel)[2])
        };
        let low = lowest(rig.joints.foot[0]).min(lowest(rig.joints.foot[1]));
        let height = shape.top - shape.floor;
        let shift = [self.shift[0] * height, 0.0, shape.floor - low + self.shift[1] * height];
        for bone in bones {
            bone.t = add(bone.t, shift);
        }
    }

    /// The turn of each bone about its own joint, in the axes of the rest body.
    fn turns(&self, rig: &Rig, shape: &Shape) -> Vec<Option<[[f32; 3]; 3]>> {
        let joints = &rig.joints;
        let mut turns = vec![None; rig.parents.len()];
        for bone in joints.spine {
            turns[bone] = Some(euler(self.spine[0] / 5.0, self.spine[1] / 5.0, self.spine[2] / 5.0));
        }
        for (bone, part) in joints.neck.into_iter().zip([0.25, 0.25, 0.5]) {
            turns[bone] = Some(euler(self.head[0] * part, self.head[1] * part, self.head[2] * part));
        }
        for (k, side) in SIDES.into_iter().enumerate() {
            self.turn_arm(k, side, rig, shape, &mut turns);
            let leg = &self.legs[k];
            let hip =
                mul(&rotation([0.0, 1.0, 0.0], -side * leg.spread), &rotation([1.0, 0.0, 0.0], -leg.lift));
            turns[joints.upper_leg[k]] = Some(hip);
            turns[joints.lower_leg[k]] = Some(rotation([1.0, 0.0, 0.0], leg.knee));
            let level = (leg.lift - leg.knee).clamp(-0.5, 0.6) * 0.8;
            turns[joints.foot[k]] = Some(rotation([1.0, 0.0, 0.0], level));
        }
        turns
    }

    fn turn_arm(&self, k: usize, side: f32, rig: &Rig, shape: &Shape, turns: &mut [Option<[[f32; 3]; 3]>]) {
        let (joints, arm) = (&rig.joints, &self.arms[k]);
        let at = |bone: usize| shape.heads[bone];
        let upper = normalize(sub(at(joints.lower_arm[k]), at(joints.upper_arm[k])));
        let lower = normalize(sub(at(joints.wrist[k]), at(joints.lower_arm[k])));
        let aim = normalize([side * arm.dir[0], arm.dir[1], arm.dir[2]]);
        // A raised arm takes the shoulder blade along.
        let raise = (aim[2] + 0.2).max(0.0) * 0.35;
        let shrug = rotation([0.0, 1.0, 0.0], -side * raise);
        turns[joints.clavicle[k]] = Some(shrug);
        let unshrug = rotation([0.0, 1.0, 0.0], side * raise);
        let local = apply(&unshrug, aim);
        turns[joints.upper_arm[k]] = Some(mul(&rotation(local, side * arm.twist), &between(upper, local)));
        let rest = super::math::dot(upper, lower).clamp(-1.0, 1.0).acos();
        turns[joints.lower_arm[k]] = Some(rotation(cross(upper, lower), arm.elbow - rest));
        turns[joints.wrist[k]] = Some(euler(arm.wrist[1], 0.0, arm.wrist[0]));
        let palm = cross(lower, [-side * 0.7, -0.2, -0.7]);
        for &digit in &joints.fingers[k] {
            turns[digit] = Some(rotation(palm, arm.curl * 0.75));
        }
        for &digit in &joints.thumb[k] {
            turns[digit] = Some(rotation(palm, arm.curl * 0.2));
        }
    }
}
