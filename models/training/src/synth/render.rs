//! A person in a pose: the picture and its DensePose labels.

use std::cell::RefCell;

use super::camera::{Camera, Lens};
use super::cloth;
use super::math::{Rigid, V3, add, dot, mix, normalize, scale, smoothstep};
use super::person::{Colour, Light, Person};
use super::pieces::Pieces;
use super::pose::Pose;
use super::raster::{Hit, NONE, Raster};
use super::rig::{Canon, Rig, Shape};

/// Samples per pixel and axis.
const OVER: usize = 2;

/// A picture and the labels that belong to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shot {
    /// Side in pixels.
    pub size: usize,
    /// `size * size * 3` bytes, red first.
    pub rgb: Vec<u8>,
    /// `size * size` DensePose parts, 0 for none.
    pub labels: Vec<u8>,
}

/// A posed, dressed mesh in pixels of the supersampled picture.
pub(super) struct Mesh {
    pub points: Vec<V3>,
    pub normals: Vec<V3>,
}

thread_local! {
    /// Reused between pictures: a fresh one costs more than drawing into it.
    static RASTER: RefCell<Raster> = RefCell::default();
}

/// Draws a person.
///
/// `shape` picks a body of the rig (taken modulo their number): reference and target of a pair may differ in it.
/// The labels are those of the dressed body; free-hanging hair and skirts cover it in the picture only.
pub fn render(rig: &Rig, person: &Person, shape: usize, pose: &Pose, camera: &Camera, size: usize) -> Shot {
    let shape = &rig.shapes[shape % rig.shapes.len()];
    let bones = pose.bones(rig, shape);
    let lens = lens(rig, shape, &bones, camera, size * OVER);
    let mesh = skin(rig, shape, person, &bones, &lens);
    let pieces = Pieces::dress(rig, shape, person, &bones);
    let hung: Vec<V3> = pieces.points.iter().map(|&p| lens.project(p)).collect();
    RASTER.with_borrow_mut(|raster| {
        raster.clear(size * OVER);
        raster.draw(&mesh.points, &rig.triangles, 0, true);
        let labels = labels(rig, raster, size);
        raster.draw(&hung, &pieces.triangles, rig.triangles.len() as u32, false);
        let scene = Scene { rig, person, mesh: &mesh, pieces: &pieces };
        let rgb = scene.picture(raster, size);
        Shot { size, rgb, labels }
    })
}

fn lens(rig: &Rig, shape: &Shape, bones: &[Rigid], camera: &Camera, size: usize) -> Lens {
    let head = rig.joints.neck[2];
    let joint = shape.heads[head];
    let crown = [joint[0], joint[1], shape.top];
    let posed = bones[head].point(crown);
    camera.lens(size, [0.0, 0.0, shape.top], posed, shape.top - shape.floor)
}

/// Linear blend skinning of the dressed body.
fn skin(rig: &Rig, shape: &Shape, person: &Person, bones: &[Rigid], lens: &Lens) -> Mesh {
    let count = rig.canon.len();
    let mut mesh = Mesh { points: Vec::with_capacity(count), normals: Vec::with_capacity(count) };
    for v in 0..count {
        let blend = blend(bones, rig.skin_index[v], rig.skin_weight[v]);
        let normal = shape.normals[v];
        let out = cloth::volume(person, &rig.canon[v]);
        let rest = add(shape.rest[v], scale(normal, out));
        mesh.points.push(lens.project(blend.point(rest)));
        mesh.normals.push(super::math::apply(&blend.r, normal));
    }
    mesh
}

fn blend(bones: &[Rigid], index: [u8; 4], weight: [f32; 4]) -> Rigid {
    let mut out = Rigid { r: [[0.0; 3]; 3], t: [0.0; 3] };
    for (bone, w) in index.into_iter().zip(weight) {
        if w == 0.0 {
            continue;
        }
        let bone = &bones[usize::from(bone)];
        for k in 0..3 {
            out.t[k] += w * bone.t[k];
            for j in 0..3 {
                out.r[k][j] += w * bone.r[k][j];
            }
        }
    }
    out
}

fn labels(rig: &Rig, raster: &Raster, size: usize) -> Vec<u8> {
    let mut out = vec![0; size * size];
    for (y, row) in out.chunks_exact_mut(size).enumerate() {
        let line = &raster.hits[y * OVER * raster.size..];
        for (x, label) in row.iter_mut().enumerate() {
            *label = part(rig, &line[x * OVER]);
        }
    }
    out
}

/// The part with the greatest interpolated share.
fn part(rig: &Rig, hit: &Hit) -> u8 {
    if hit.triangle == NONE {
        return 0;
    }
    let pure = rig.pure_part[hit.triangle as usize];
    if pure != 0 {
        return pure;
    }
    let mut shares = [0.0f32; 25];
    for (&v, corner) in rig.triangles[hit.triangle as usize].iter().zip(corners(hit)) {
        let v = v as usize;
        for (part, weight) in rig.part_index[v].into_iter().zip(rig.part_weight[v]) {
            shares[usize::from(part)] += weight * corner;
        }
    }
    let best = shares.iter().enumerate().skip(1).max_by(|a, b| a.1.total_cmp(b.1));
    best.map_or(0, |(part, _)| part as u8)
}

fn corners(hit: &Hit) -> [f32; 3] {
    [1.0 - hit.share[0] - hit.share[1], hit.share[0], hit.share[1]]
}

/// Everything that a pixel's colour follows from.
struct Scene<'a> {
    rig: &'a Rig,
    person: &'a Person,
    mesh: &'a Mesh,
    pieces: &'a Pieces,
}

impl Scene<'_> {
    fn picture(&self, raster: &Raster, size: usize) -> Vec<u8> {
        let backdrop = self.person.backdrop.paint(size);
        let mut out = Vec::with_capacity(size * size * 3);
        for y in 0..size {
            for x in 0..size {
                let mut sum = [0.0; 3];
                for sample in 0..OVER * OVER {
                    let (sx, sy) = (x * OVER + sample % OVER, y * OVER + sample / OVER);
                    let hit = &raster.hits[sy * raster.size + sx];
                    sum =
                        add(sum, if hit.triangle == NONE { backdrop[y * size + x] } else { self.shade(hit) });
                }
                let samples = (OVER * OVER) as f32;
                out.extend(sum.map(|c| (c / samples * 255.0 + 0.5) as u8));
            }
        }
        out
    }

    fn shade(&self, hit: &Hit) -> Colour {
        let number = hit.triangle as usize;
        let (colour, normal) = match number.checked_sub(self.rig.triangles.len()) {
            Some(number) => self.piece(number, corners(hit)),
            None => self.body(number, corners(hit)),
        };
        light(&self.person.light, colour, normalize(normal))
    }

    fn body(&self, number: usize, weights: [f32; 3]) -> (Colour, V3) {
        let mut canon = Canon::default();
        let mut normal = [0.0; 3];
        for (&v, w) in self.rig.triangles[number].iter().zip(weights) {
            let (c, v) = (&self.rig.canon[v as usize], v as usize);
            canon.p = add(canon.p, scale(c.p, w));
            canon.along += w * c.along;
            canon.arm += w * c.arm;
            canon.hand += w * c.hand;
            canon.head += w * c.head;
            normal = add(normal, scale(self.mesh.normals[v], w));
        }
        (cloth::paint(self.person, &canon), normal)
    }

    /// Pieces are thin: both sides are lit as if they faced the camera, the inside a little darker.
    fn piece(&self, number: usize, weights: [f32; 3]) -> (Colour, V3) {
        let (mut colour, mut normal) = ([0.0; 3], [0.0; 3]);
        for (&v, w) in self.pieces.triangles[number].iter().zip(weights) {
            colour = add(colour, scale(self.pieces.colours[v as usize], w));
            normal = add(normal, scale(normalize(self.pieces.normals[v as usize]), w));
        }
        if normal[1] > 0.0 { (scale(colour, 0.8), scale(normal, -1.0)) } else { (colour, normal) }
    }
}

/// Soft light with darker edges: no outline, but limbs stand apart.
pub(super) fn light(light: &Light, colour: Colour, normal: V3) -> Colour {
    let lit = smoothstep(-0.25, 0.85, dot(normal, normalize(light.dir)));
    let edge = 0.86 + 0.14 * smoothstep(0.0, 0.5, -normal[1]);
    let tone = scale(mix([1.0; 3], light.tint, lit), (light.shadow + (1.06 - light.shadow) * lit) * edge);
    std::array::from_fn(|k| (colour[k] * tone[k]).clamp(0.0, 1.0))
}
