//! Free-hanging pieces: long hair, tails and knots, a cap's brim, skirts.
//!
//! They are built on the neutral body, fitted to the body at hand, and hang on two bones or three; labels do not
//! show them.

use std::f32::consts::{PI, TAU};

use super::cloth::WAIST;
use super::hair::CAP_EDGE;
use super::math::{Rigid, V3, add, cross, lerp, mix, normalize, scale, smoothstep, sub};
use super::person::{Colour, HairStyle, Person};
use super::rig::{Rig, Shape};

/// Extra triangles with a colour each corner.
#[derive(Default)]
pub(super) struct Pieces {
    pub points: Vec<V3>,
    pub normals: Vec<V3>,
    pub colours: Vec<Colour>,
    pub triangles: Vec<[u32; 3]>,
}

/// Corners around tubes and skirts.
const AROUND: usize = 12;

impl Pieces {
    /// What this person wears beyond the painted body, posed, in metres.
    pub fn dress(rig: &Rig, shape: &Shape, person: &Person, bones: &[Rigid]) -> Self {
        let mut out = Self::default();
        let tailor = Tailor::new(rig, shape, bones);
        out.hair(person, &tailor);
        if let Some(cap) = person.face.cap {
            out.brim(cap, &tailor);
        }
        if person.bottom.skirt {
            out.skirt(person, rig, shape, bones);
        }
        out.find_normals();
        out
    }

    fn hair(&mut self, person: &Person, tailor: &Tailor) {
        let colour = person.face.hair;
        match person.face.style {
            HairStyle::Long => {
                self.curtain(colour, 0.4, 0.016, tailor);
                for side in [1.0, -1.0] {
                    let path = [
                        ([0.056, -0.05, 0.772], 0.012),
                        ([0.074, -0.058, 0.74], 0.022),
                        ([0.086, -0.06, 0.68], 0.028),
                        ([0.092, -0.066, 0.61], 0.031),
                        ([0.094, -0.088, 0.54], 0.031),
                        ([0.096, -0.118, 0.47], 0.027),
                        ([0.094, -0.138, 0.41], 0.01),
                    ];
                    self.tube(&path.map(|(p, r)| ([side * p[0], p[1], p[2]], r)), colour, tailor);
                }
            }
            HairStyle::Bob => self.curtain(colour, 0.585, 0.02, tailor),
            HairStyle::Ponytail => {
                let path = [
                    ([0.0, 0.02, 0.79], 0.02),
                    ([0.012, 0.075, 0.815], 0.034),
                    ([0.03, 0.125, 0.77], 0.042),
                    ([0.05, 0.145, 0.68], 0.042),
                    ([0.062, 0.145, 0.59], 0.034),
                    ([0.066, 0.14, 0.52], 0.008),
                ];
                self.tube(&path, colour, tailor);
            }
            HairStyle::Bun => {
                let path = [
                    ([0.0, 0.0, 0.79], 0.03),
                    ([0.0, 0.006, 0.81], 0.042),
                    ([0.0, 0.012, 0.832], 0.045),
                    ([0.0, 0.018, 0.853], 0.034),
                    ([0.0, 0.02, 0.866], 0.006),
                ];
                self.tube(&path, colour, tailor);
            }
            _ => {}
        }
    }

    /// Hair that falls from the crown behind ears and neck down to `end`.
    fn curtain(&mut self, colour: Colour, end: f32, thick: f32, tailor: &Tailor) {
        let (rows, columns) = (9, 17);
        let first = self.points.len();
        for row in 0..rows {
            let t = row as f32 / (rows - 1) as f32;
            let z = lerp(0.765, end, t);
            // From the skull inwards to the neck, then out over the back.
            let tuck = smoothstep(0.66, 0.57, z);
            // A bob turns in at its end, long hair lies over the shoulders' width.
            let spread = if end > 0.5 { -0.012 } else { 0.012 };
            let (wide, deep) = (0.077 + thick + spread * tuck, 0.1 + thick + 0.022 * tuck);
            let reach = lerp(1.75, 1.35, smoothstep(0.66, 0.55, z));
            for column in 0..columns {
                let angle = lerp(-reach, reach, column as f32 / (columns - 1) as f32);
                let wave = 1.0 + 0.02 * (column as f32 * 2.1).sin() * t;
                let p = [wide * angle.sin() * wave, -0.046 + deep * angle.cos() * wave, z];
                self.points.push(tailor.head(p));
                let lock = 0.9 + 0.1 * (column as f32 * 1.7).sin();
                self.colours.push(scale(colour, lock * lerp(1.0, 0.84, t)));
            }
        }
        self.grid(first, rows, columns, false);
    }

    /// A round strand along a path of centres and radii.
    fn tube(&mut self, path: &[(V3, f32)], colour: Colour, tailor: &Tailor) {
        let first = self.points.len();
        for (i, &(centre, radius)) in path.iter().enumerate() {
            let (before, after) = (path[i.saturating_sub(1)].0, path[(i + 1).min(path.len() - 1)].0);
            let along = normalize(sub(after, before));
            let u = normalize(cross(along, [0.3, 1.0, 0.1]));
            let v = cross(along, u);
            for k in 0..AROUND {
                let (s, c) = (k as f32 / AROUND as f32 * TAU).sin_cos();
                self.points.push(tailor.head(add(centre, add(scale(u, c * radius), scale(v, s * radius)))));
                self.colours.push(scale(colour, lerp(1.0, 0.86, i as f32 / path.len() as f32)));
            }
        }
        self.grid(first, path.len(), AROUND, true);
    }

    fn brim(&mut self, colour: Colour, tailor: &Tailor) {
        let first = self.points.len();
        for row in 0..4 {
            let out = row as f32 / 3.0;
            for column in 0..9 {
                let angle = lerp(-1.15, 1.15, column as f32 / 8.0);
                let length = 0.065 * out * angle.cos().max(0.0).powf(0.6);
                let p = [
                    0.086 * angle.sin(),
                    -0.05 - 0.112 * angle.cos() - length,
                    CAP_EDGE + 0.006 - 0.022 * out,
                ];
                self.points.push(tailor.head(p));
                self.colours.push(scale(colour, 0.82));
            }
        }
        self.grid(first, 4, 9, false);
    }

    /// A tube round hips and thighs that both legs carry.
    fn skirt(&mut self, person: &Person, rig: &Rig, shape: &Shape, bones: &[Rigid]) {
        let (rows, around) = (9, 2 * AROUND);
        let first = self.points.len();
        let length = WAIST + 0.015 - person.bottom.hem;
        let flare = 0.02 + person.bottom.volume * 6.0;
        let (mut wide, mut deep) = (0.0f32, 0.0f32);
        let [left, right] = rig.joints.upper_leg;
        for row in 0..rows {
            let t = row as f32 / (rows - 1) as f32;
            let girth = shape.girth(WAIST + 0.015 - t * length);
            let off = 0.012 + person.top.volume.min(0.01) + flare * t;
            wide = wide.max(girth.wide + off);
            deep = deep.max(girth.deep + off);
            let follow = 0.9 * smoothstep(0.25, 0.75, t * length / 0.3);
            for k in 0..around {
                let (s, c) = (k as f32 / around as f32 * TAU).sin_cos();
                let pleat = 1.0 + 0.03 * t * (k as f32 * PI).cos();
                let p = [wide * s * pleat, girth.centre - deep * c * pleat, girth.height];
                let share = smoothstep(-0.11, 0.11, p[0]);
                let legs = mix(bones[right].point(p), bones[left].point(p), share);
                self.points.push(mix(bones[0].point(p), legs, follow));
                self.colours.push(person.bottom.colour);
            }
        }
        self.grid(first, rows, around, true);
    }

    fn grid(&mut self, first: usize, rows: usize, columns: usize, closed: bool) {
        let steps = if closed { columns } else { columns - 1 };
        for row in 0..rows - 1 {
            for k in 0..steps {
                let place = |r: usize, c: usize| (first + (row + r) * columns + (k + c) % columns) as u32;
                self.triangles.push([place(0, 0), place(1, 0), place(0, 1)]);
                self.triangles.push([place(0, 1), place(1, 0), place(1, 1)]);
            }
        }
    }

    fn find_normals(&mut self) {
        self.normals = vec![[0.0; 3]; self.points.len()];
        for triangle in &self.triangles {
            let [a, b, c] = triangle.map(|v| self.points[v as usize]);
            let face = cross(sub(b, a), sub(c, a));
            for &v in triangle {
                self.normals[v as usize] = add(self.normals[v as usize], face);
            }
        }
    }
}

/// Takes places about the neutral head to the posed head of a shape.
struct Tailor<'a> {
    bones: &'a [Rigid],
    /// Head and chest bones.
    head: usize,
    chest: usize,
    neutral: V3,
    joint: V3,
    scale: f32,
}

impl<'a> Tailor<'a> {
    fn new(rig: &Rig, shape: &Shape, bones: &'a [Rigid]) -> Self {
        let (head, neutral) = (rig.joints.neck[2], &rig.shapes[0]);
        let rise = |s: &Shape| s.top - s.heads[head][2];
        Self {
            bones,
            head,
            chest: rig.joints.spine[4],
            neutral: neutral.heads[head],
            joint: shape.heads[head],
            scale: rise(shape) / rise(neutral),
        }
    }

    fn head(&self, p: V3) -> V3 {
        let fitted = add(self.joint, scale(sub(p, self.neutral), self.scale));
        let high = smoothstep(0.48, 0.64, p[2]);
        mix(self.bones[self.chest].point(fitted), self.bones[self.head].point(fitted), high)
    }
}
