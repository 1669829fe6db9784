//! The figure's surface: closed tubes around its bones, and the DensePose part of every point.
//!
//! A tube is a stack of elliptical rings along a bone's -y axis (feet: +z). Measures are metres of a
//! 1.75 m person, read off ordinary anatomical drawings; the borders between parts follow what the
//! DensePose annotation shows on people (see `Tube::part`).
use super::math::{V3, smoothstep, v3};

/// Bones, in the order of `Skeleton::frames`. Right before left, as in `Pose`.
pub const PELVIS: usize = 0;
pub const CHEST: usize = 1;
pub const HEAD: usize = 2;
pub const UPPER_ARM: usize = 3;
pub const FOREARM: usize = 5;
pub const HAND: usize = 7;
pub const THIGH: usize = 9;
pub const SHIN: usize = 11;
pub const FOOT: usize = 13;
pub const BONES: usize = 15;

/// Heights and widths of the joints in the rest pose.
pub const HIP: V3 = v3(0.086, 0.92, 0.0);
pub const SPINE_Y: f32 = 1.06;
pub const NECK_Y: f32 = 1.47;
pub const SHOULDER: V3 = v3(0.168, 1.402, -0.005);
pub const UPPER_ARM_LEN: f32 = 0.285;
pub const FOREARM_LEN: f32 = 0.255;
pub const THIGH_LEN: f32 = 0.43;
pub const SHIN_LEN: f32 = 0.41;
/// Ankle above the sole.
pub const ANKLE_Y: f32 = 0.08;
/// Top of the head.
pub const STATURE: f32 = 1.75;

/// Corners of a ring: the silhouette of a thigh is then less than a third of a pixel off at 512 lines.
const AROUND: usize = 20;
/// Rings per pair of stations.
const STEPS: usize = 3;

/// Which surface a vertex belongs to; decides its part together with its rest position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tube {
    Torso,
    Head,
    UpperArm,
    Forearm,
    Hand,
    Thigh,
    Shin,
    Foot,
}

impl Tube {
    /// DensePose part (1 to 24) of the point `p` of this tube, in its bone's rest space (the torso's is
    /// the body's), on the figure's left if `left`.
    pub fn part(self, p: V3, left: bool) -> u8 {
        let front = p.z > 0.;
        // Parts are numbered right before left except on feet and arms.
        let right_first = |right: u8| right + u8::from(left);
        let left_first = |left_part: u8| left_part + u8::from(!left);
        match self {
            Tube::Torso if p.y > collar(p) => 23 + u8::from(p.x > 0.),
            Tube::Torso if p.y < groin(p) => right_first_at(if front { 9 } else { 7 }, p.x > 0.),
            Tube::Torso => 1 + u8::from(front),
            Tube::Thigh => {
                let side = if left { 1. } else { -1. };
                let body = v3(p.x + side * HIP.x, p.y + HIP.y, p.z + HIP.z);
                if body.y > groin(body) {
                    1 + u8::from(front)
                } else {
                    right_first(if front { 9 } else { 7 })
                }
            }
            Tube::Head => 23 + u8::from(p.x > 0.),
            Tube::UpperArm => left_first(if inner(p, left, 0.3) { 15 } else { 17 }),
            Tube::Forearm => left_first(if inner(p, left, 0.1) { 19 } else { 21 }),
            Tube::Hand => right_first(3),
            Tube::Shin => right_first(if front { 13 } else { 11 }),
            Tube::Foot => left_first(5),
        }
    }
}

fn right_first_at(right: u8, left: bool) -> u8 {
    right + u8::from(left)
}

/// Height of the border between neck and torso: a shallow V at the throat.
fn collar(p: V3) -> f32 {
    1.462 + 0.5 * p.x.abs() - 0.25 * p.z
}

/// Height of the border between torso and thighs, from the crotch up to the hips.
fn groin(p: V3) -> f32 {
    0.80 + 0.75 * p.x.abs().min(0.14) + 0.1 * p.z.min(0.)
}

/// Whether an arm's point lies on the side of the body; `ahead` turns the border towards the front.
fn inner(p: V3, left: bool, ahead: f32) -> bool {
    let medial = if left { -p.x } else { p.x };
    medial + ahead * p.z > 0.
}

/// A point of the surface.
#[derive(Debug, Clone, Copy)]
pub struct Vertex {
    /// Place in the rest space that `Tube::part` reads.
    pub rest: V3,
    /// Place in each of the two bones' spaces.
    pub local: [V3; 2],
    /// The two bones that carry it.
    pub bones: [usize; 2],
    /// Share of the second bone.
    pub weight: f32,
}

/// A closed surface and its triangles (indices into `vertices`, outside counter-clockwise).
#[derive(Debug)]
pub struct Part {
    pub tube: Tube,
    pub left: bool,
    pub vertices: Vec<Vertex>,
    pub triangles: Vec<[u32; 3]>,
}

/// Distance along the axis, half width (x), half depth (across), centre's offset across.
type Station = [f32; 4];

const TORSO: &[Station] = &[
    [0.785, 0.02, 0.02, 0.0],
    [0.80, 0.075, 0.06, 0.0],
    [0.84, 0.140, 0.095, -0.012],
    [0.89, 0.168, 0.112, -0.018],
    [0.94, 0.170, 0.112, -0.012],
    [1.00, 0.158, 0.100, 0.0],
    [1.07, 0.138, 0.088, 0.006],
    [1.13, 0.137, 0.088, 0.006],
    [1.21, 0.150, 0.100, 0.004],
    [1.29, 0.166, 0.112, 0.002],
    [1.36, 0.174, 0.105, -0.004],
    [1.405, 0.172, 0.090, -0.008],
    [1.435, 0.145, 0.074, -0.010],
    [1.455, 0.105, 0.064, -0.008],
    [1.475, 0.068, 0.056, -0.004],
    [1.50, 0.050, 0.050, 0.0],
    [1.51, 0.01, 0.01, 0.0],
];

/// Along +y from the neck's foot.
const SKULL: &[Station] = &[
    [-0.01, 0.02, 0.02, 0.0],
    [0.0, 0.054, 0.054, 0.0],
    [0.04, 0.052, 0.056, 0.004],
    [0.07, 0.054, 0.068, 0.016],
    [0.09, 0.060, 0.080, 0.022],
    [0.13, 0.071, 0.093, 0.020],
    [0.17, 0.077, 0.100, 0.012],
    [0.21, 0.076, 0.099, 0.006],
    [0.245, 0.063, 0.082, 0.004],
    [0.268, 0.040, 0.052, 0.002],
    [0.28, 0.006, 0.008, 0.0],
];

const UPPER_ARM_RINGS: &[Station] = &[
    [-0.052, 0.008, 0.008, 0.0],
    [-0.042, 0.030, 0.032, 0.0],
    [-0.015, 0.050, 0.052, 0.0],
    [0.03, 0.056, 0.058, 0.0],
    [0.09, 0.050, 0.055, 0.0],
    [0.16, 0.046, 0.051, 0.002],
    [0.23, 0.041, 0.043, 0.0],
    [0.285, 0.038, 0.039, 0.0],
    [0.31, 0.028, 0.028, 0.0],
    [0.32, 0.006, 0.006, 0.0],
];

const FOREARM_RINGS: &[Station] = &[
    [-0.041, 0.006, 0.006, 0.0],
    [-0.028, 0.031, 0.031, 0.0],
    [0.0, 0.041, 0.042, 0.0],
    [0.05, 0.043, 0.044, 0.0],
    [0.12, 0.039, 0.039, 0.0],
    [0.20, 0.030, 0.028, 0.0],
    [0.255, 0.027, 0.024, 0.0],
    [0.268, 0.010, 0.010, 0.0],
];

const HAND_RINGS: &[Station] = &[
    [-0.012, 0.010, 0.010, 0.0],
    [0.0, 0.024, 0.028, 0.0],
    [0.035, 0.023, 0.040, 0.004],
    [0.075, 0.022, 0.045, 0.004],
    [0.105, 0.019, 0.042, 0.002],
    [0.145, 0.015, 0.034, 0.0],
    [0.172, 0.011, 0.022, -0.002],
    [0.182, 0.003, 0.005, -0.002],
];

/// Along the thumb.
const THUMB_RINGS: &[Station] = &[
    [-0.02, 0.006, 0.006, 0.0],
    [-0.012, 0.016, 0.016, 0.0],
    [0.03, 0.016, 0.016, 0.0],
    [0.06, 0.013, 0.013, 0.0],
    [0.07, 0.004, 0.004, 0.0],
];

const THIGH_RINGS: &[Station] = &[
    [-0.075, 0.012, 0.015, 0.0],
    [-0.05, 0.055, 0.065, -0.008],
    [0.0, 0.085, 0.100, -0.012],
    [0.06, 0.089, 0.098, -0.006],
    [0.14, 0.083, 0.090, 0.004],
    [0.25, 0.071, 0.076, 0.006],
    [0.36, 0.057, 0.060, 0.002],
    [0.43, 0.052, 0.054, 0.0],
    [0.47, 0.036, 0.038, 0.0],
    [0.48, 0.006, 0.006, 0.0],
];

const SHIN_RINGS: &[Station] = &[
    [-0.052, 0.006, 0.006, 0.0],
    [-0.036, 0.040, 0.042, 0.002],
    [0.0, 0.053, 0.056, 0.004],
    [0.06, 0.051, 0.055, -0.006],
    [0.13, 0.055, 0.060, -0.014],
    [0.22, 0.047, 0.050, -0.014],
    [0.31, 0.036, 0.038, -0.008],
    [0.38, 0.032, 0.036, -0.004],
    [0.42, 0.034, 0.038, -0.004],
    [0.45, 0.008, 0.008, -0.004],
];

/// Along +z; across is y, down from the ankle.
const FOOT_RINGS: &[Station] = &[
    [-0.070, 0.008, 0.010, -0.045],
    [-0.060, 0.026, 0.032, -0.046],
    [-0.02, 0.036, 0.055, -0.025],
    [0.03, 0.037, 0.052, -0.028],
    [0.08, 0.043, 0.034, -0.046],
    [0.13, 0.047, 0.024, -0.056],
    [0.17, 0.040, 0.016, -0.064],
    [0.19, 0.010, 0.006, -0.068],
];

/// How a tube's stations lie in its bone's space.
#[derive(Clone, Copy)]
enum Axis {
    /// Towards -y; the offset is along z.
    Down,
    /// Towards +y; the offset is along z.
    Up,
    /// Towards +z; the offset is along y.
    Forward,
    /// The thumb: from the palm's edge forwards and down.
    Thumb,
}

impl Axis {
    fn place(self, [along, a, b, offset]: Station, cos: f32, sin: f32) -> V3 {
        match self {
            Axis::Down => v3(a * cos, -along, offset + b * sin),
            Axis::Up => v3(a * cos, along, offset + b * sin),
            Axis::Forward => v3(a * cos, offset + b * sin, along),
            Axis::Thumb => {
                v3(a * cos, -0.03 - 0.75 * along + 0.66 * b * sin, 0.035 + 0.66 * along + 0.75 * b * sin)
            }
        }
    }

    /// Whether the ring order makes triangles face inwards as built.
    fn mirrored(self) -> bool {
        !matches!(self, Axis::Up)
    }
}

/// All surfaces of the figure; `breadth` scales it across.
pub fn build(breadth: f32) -> Vec<Part> {
    let mut parts = vec![torso(breadth), single(Tube::Head, false, HEAD, SKULL, Axis::Up, 1.)];
    for left in [false, true] {
        let side = usize::from(left);
        let mut add = |tube, bone: usize, rings, axis| {
            parts.push(single(tube, left, bone + side, rings, axis, breadth));
        };
        add(Tube::UpperArm, UPPER_ARM, UPPER_ARM_RINGS, Axis::Down);
        add(Tube::Forearm, FOREARM, FOREARM_RINGS, Axis::Down);
        add(Tube::Hand, HAND, HAND_RINGS, Axis::Down);
        add(Tube::Hand, HAND, THUMB_RINGS, Axis::Thumb);
        add(Tube::Thigh, THIGH, THIGH_RINGS, Axis::Down);
        add(Tube::Shin, SHIN, SHIN_RINGS, Axis::Down);
        add(Tube::Foot, FOOT, FOOT_RINGS, Axis::Forward);
    }
    parts
}

/// The torso bends between pelvis and chest; its rest space is the body's, the bones' spaces hang from
/// their joints.
fn torso(breadth: f32) -> Part {
    let carry = |rest: V3| Vertex {
        rest,
        local: [rest - v3(0., HIP.y, 0.), rest - v3(0., SPINE_Y, 0.)],
        bones: [PELVIS, CHEST],
        weight: smoothstep(0.98, 1.18, rest.y),
    };
    tube(Tube::Torso, false, TORSO, Axis::Up, breadth, carry)
}

fn single(tube_: Tube, left: bool, bone: usize, rings: &[Station], axis: Axis, breadth: f32) -> Part {
    let carry = |rest| Vertex { rest, local: [rest; 2], bones: [bone; 2], weight: 0. };
    tube(tube_, left, rings, axis, breadth, carry)
}

fn tube(
    tube: Tube,
    left: bool,
    stations: &[Station],
    axis: Axis,
    breadth: f32,
    carry: impl Fn(V3) -> Vertex,
) -> Part {
    let rings = refine(stations);
    let mut vertices = Vec::with_capacity(rings.len() * AROUND);
    for [along, a, b, offset] in &rings {
        for k in 0..AROUND {
            let (sin, cos) = (std::f32::consts::TAU * k as f32 / AROUND as f32).sin_cos();
            vertices.push(carry(axis.place([*along, a * breadth, b * breadth, *offset], cos, sin)));
        }
    }
    Part { tube, left, vertices, triangles: weave(rings.len(), axis.mirrored()) }
}

/// Catmull-Rom through the stations, `STEPS` rings a pair.
fn refine(stations: &[Station]) -> Vec<Station> {
    let at = |i: isize| stations[i.clamp(0, stations.len() as isize - 1) as usize];
    let mut rings = Vec::with_capacity(stations.len() * STEPS);
    for i in 0..stations.len() as isize - 1 {
        let (p0, p1, p2, p3) = (at(i - 1), at(i), at(i + 1), at(i + 2));
        for step in 0..STEPS {
            let t = step as f32 / STEPS as f32;
            rings.push(std::array::from_fn(|c| spline(p0[c], p1[c], p2[c], p3[c], t)));
        }
    }
    rings.extend(stations.last());
    for ring in &mut rings {
        // The spline may overshoot at the tips.
        ring[1] = ring[1].max(0.001);
        ring[2] = ring[2].max(0.001);
    }
    rings
}

fn spline(p0: f32, p1: f32, p2: f32, p3: f32, t: f32) -> f32 {
    let (a, b) = (2. * p1, p2 - p0);
    let c = 2. * p0 - 5. * p1 + 4. * p2 - p3;
    let d = 3. * p1 - p0 - 3. * p2 + p3;
    0.5 * (a + t * (b + t * (c + t * d)))
}

fn weave(rings: usize, mirrored: bool) -> Vec<[u32; 3]> {
    let index = |ring: usize, k: usize| (ring * AROUND + k % AROUND) as u32;
    let mut triangles = Vec::with_capacity(rings * AROUND * 2);
    for ring in 0..rings - 1 {
        for k in 0..AROUND {
            let (a, b) = (index(ring, k), index(ring, k + 1));
            let (c, d) = (index(ring + 1, k), index(ring + 1, k + 1));
            for [x, y, z] in [[a, c, b], [b, c, d]] {
                triangles.push(if mirrored { [x, z, y] } else { [x, y, z] });
            }
        }
    }
    triangles
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_occurs() {
        let mut seen = [false; 25];
        for part in build(1.) {
            for vertex in &part.vertices {
                seen[part.tube.part(vertex.rest, part.left) as usize] = true;
            }
        }
        assert!(!seen[0]);
        assert!(seen[1..].iter().all(|s| *s), "missing: {seen:?}");
    }

    #[test]
    fn surfaces_are_closed_around() {
        for part in build(1.) {
            let rings = part.vertices.len() / AROUND;
            assert_eq!(part.triangles.len(), (rings - 1) * AROUND * 2);
            assert!(part.triangles.iter().flatten().all(|i| (*i as usize) < part.vertices.len()));
        }
    }
}
