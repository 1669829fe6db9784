//! The rigged body, read from the file that `synth/export_rig.py` writes.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use safetensors::{Dtype, SafeTensors};

use super::math::{V3, lerp};

/// Values of one vertex of the neutral body that painting uses.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Canon {
    /// Place on the neutral body, metres.
    pub p: V3,
    /// Place along the arm, 0 at the shoulder, 1 at the wrist; means nothing off the arm.
    pub along: f32,
    /// Shares of arm, hand and head (with neck), 0..1.
    pub arm: f32,
    pub hand: f32,
    pub head: f32,
}

/// One body: rest vertices, their normals, joints.
pub(super) struct Shape {
    pub rest: Vec<V3>,
    pub normals: Vec<V3>,
    pub heads: Vec<V3>,
    /// Lowest and highest rest z, metres.
    pub floor: f32,
    pub top: f32,
    /// Trunk and legs at heights of the neutral body from `GIRTH_TOP` down in steps of `GIRTH_STEP`.
    girths: Vec<Girth>,
}

/// Extent of trunk and legs at one height, metres.
#[derive(Clone, Copy, Debug)]
pub(super) struct Girth {
    /// z in this shape.
    pub height: f32,
    /// Half width and half depth.
    pub wide: f32,
    pub deep: f32,
    /// Middle, front to back.
    pub centre: f32,
}

const GIRTH_TOP: f32 = 0.16;
const GIRTH_STEP: f32 = 0.04;

impl Shape {
    /// The girth at a height of the neutral body, between 0.16 m above and 0.6 m below the hips.
    pub fn girth(&self, z: f32) -> Girth {
        let place = ((GIRTH_TOP - z) / GIRTH_STEP).clamp(0.0, (self.girths.len() - 1) as f32 - 1e-3);
        let (a, b, t) = (self.girths[place as usize], self.girths[place as usize + 1], place.fract());
        Girth {
            height: lerp(a.height, b.height, t),
            wide: lerp(a.wide, b.wide, t),
            deep: lerp(a.deep, b.deep, t),
            centre: lerp(a.centre, b.centre, t),
        }
    }
}

fn girths(canon: &[Canon], rest: &[V3]) -> Vec<Girth> {
    let ring = |k: usize| {
        let z = GIRTH_TOP - k as f32 * GIRTH_STEP;
        let (mut wide, mut front, mut back, mut sum, mut count) = (0.0f32, 0.0f32, -0.2f32, 0.0, 1e-6);
        for (c, v) in canon.iter().zip(rest) {
            if (c.p[2] - z).abs() < 0.6 * GIRTH_STEP && c.arm + c.hand < 0.2 {
                wide = wide.max(v[0].abs());
                front = front.min(v[1]);
                back = back.max(v[1]);
                sum += v[2];
                count += 1.0;
            }
        }
        Girth { height: sum / count, wide, deep: 0.5 * (back - front), centre: 0.5 * (back + front) }
    };
    (0..20).map(ring).collect()
}

/// Bones that poses turn. Pairs are left, right.
pub(super) struct Joints {
    pub spine: [usize; 5],
    pub neck: [usize; 3],
    pub clavicle: [usize; 2],
    pub upper_arm: [usize; 2],
    pub lower_arm: [usize; 2],
    pub wrist: [usize; 2],
    pub fingers: [Vec<usize>; 2],
    pub thumb: [Vec<usize>; 2],
    pub upper_leg: [usize; 2],
    pub lower_leg: [usize; 2],
    pub foot: [usize; 2],
}

/// Body mesh, skin weights, part shares and body shapes.
pub struct Rig {
    pub(super) triangles: Vec<[u32; 3]>,
    pub(super) part_index: Vec<[u8; 4]>,
    pub(super) part_weight: Vec<[f32; 4]>,
    /// The part of a triangle that lies wholly in one part, else 0.
    pub(super) pure_part: Vec<u8>,
    pub(super) skin_index: Vec<[u8; 4]>,
    pub(super) skin_weight: Vec<[f32; 4]>,
    pub(super) canon: Vec<Canon>,
    pub(super) parents: Vec<Option<usize>>,
    pub(super) shapes: Vec<Shape>,
    pub(super) joints: Joints,
}

impl Rig {
    /// Reads the rig file.
    ///
    /// # Errors
    /// When the file cannot be read, lacks a tensor, or tensors disagree in size.
    pub fn load(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).with_context(|| format!("reading the rig {}", path.display()))?;
        Self::parse(&bytes).with_context(|| format!("in the rig {}", path.display()))
    }

    /// The rig that the environment variable `KEYFRAMED_RIG` names, if it is set.
    pub fn default_path() -> Option<PathBuf> {
        std::env::var_os("KEYFRAMED_RIG").map(PathBuf::from)
    }

    /// How many body shapes there are.
    pub fn shapes(&self) -> usize {
        self.shapes.len()
    }

    fn parse(bytes: &[u8]) -> Result<Self> {
        let (_, header) = SafeTensors::read_metadata(bytes)?;
        let names = header.metadata().as_ref().and_then(|m| m.get("bones")).context("no bone names")?;
        let names: Vec<String> = serde_json::from_str(names)?;
        let file = SafeTensors::deserialize(bytes)?;
        let triangles: Vec<[u32; 3]> = rows(&ints(&file, "triangles")?);
        let part_index: Vec<[u8; 4]> = rows(file.tensor("part_index")?.data());
        let skin_index: Vec<[u8; 4]> = rows(file.tensor("skin_index")?.data());
        let canon = rows::<f32, 7>(&floats(&file, "canon")?).into_iter().map(canon).collect::<Vec<_>>();
        let parents = ints(&file, "parents")?;
        let rig = Self {
            pure_part: triangles.iter().map(|t| pure_part(t, &part_index)).collect(),
            part_weight: rows(&floats(&file, "part_weight")?),
            skin_weight: rows(&floats(&file, "skin_weight")?),
            shapes: shapes(&file, &canon, names.len())?,
            joints: joints(&names)?,
            parents: parents.iter().map(|&p| usize::try_from(p as i32).ok()).collect(),
            triangles,
            part_index,
            skin_index,
            canon,
        };
        rig.check(names.len())?;
        Ok(rig)
    }

    fn check(&self, bones: usize) -> Result<()> {
        let count = self.canon.len();
        ensure!(self.triangles.iter().flatten().all(|&v| (v as usize) < count), "a triangle leaves the mesh");
        ensure!(self.skin_index.iter().flatten().all(|&b| usize::from(b) < bones), "a weight names no bone");
        ensure!(self.part_index.iter().flatten().all(|&p| p <= 24), "a part beyond 24");
        let lengths =
            [self.part_index.len(), self.part_weight.len(), self.skin_index.len(), self.skin_weight.len()];
        ensure!(lengths.iter().all(|&l| l == count), "vertex tensors of different lengths {lengths:?}");
        ensure!(self.parents.len() == bones, "{} parents for {bones} bones", self.parents.len());
        ensure!(
            self.parents.iter().enumerate().all(|(b, p)| p.is_none_or(|p| p < b)),
            "a bone precedes its parent"
        );
        Ok(())
    }
}

/// Chops a flat tensor into rows of `N`; a remainder is left out (lengths are checked later).
fn rows<T: Copy + Default, const N: usize>(flat: &[T]) -> Vec<[T; N]> {
    flat.chunks_exact(N).map(|c| std::array::from_fn(|i| c[i])).collect()
}

fn words(file: &SafeTensors, name: &str, dtype: Dtype) -> Result<Vec<[u8; 4]>> {
    let tensor = file.tensor(name)?;
    if tensor.dtype() != dtype {
        bail!("{name} is {:?}, not {dtype:?}", tensor.dtype());
    }
    Ok(rows(tensor.data()))
}

fn floats(file: &SafeTensors, name: &str) -> Result<Vec<f32>> {
    Ok(words(file, name, Dtype::F32)?.into_iter().map(f32::from_le_bytes).collect())
}

fn ints(file: &SafeTensors, name: &str) -> Result<Vec<u32>> {
    Ok(words(file, name, Dtype::I32)?.into_iter().map(u32::from_le_bytes).collect())
}

fn canon(row: [f32; 7]) -> Canon {
    Canon { p: [row[0], row[1], row[2]], along: row[3], arm: row[4], hand: row[5], head: row[6] }
}

fn pure_part(triangle: &[u32; 3], parts: &[[u8; 4]]) -> u8 {
    let part = |k: usize| parts.get(triangle[k] as usize).map_or(0, |p| p[0]);
    if part(0) == part(1) && part(1) == part(2) { part(0) } else { 0 }
}

fn shapes(file: &SafeTensors, canon: &[Canon], bones: usize) -> Result<Vec<Shape>> {
    let vertices = canon.len();
    let rest: Vec<V3> = rows(&floats(file, "rest")?);
    let normals: Vec<V3> = rows(&floats(file, "normals")?);
    let heads: Vec<V3> = rows(&floats(file, "heads")?);
    let count = rest.len() / vertices.max(1);
    ensure!(count > 0 && rest.len() == count * vertices, "rest has no whole number of shapes");
    ensure!(normals.len() == rest.len() && heads.len() == count * bones, "shapes of different sizes");
    let shape = |k: usize| {
        let rest = rest[k * vertices..(k + 1) * vertices].to_vec();
        let heights = || rest.iter().map(|v| v[2]);
        Shape {
            floor: heights().fold(f32::INFINITY, f32::min),
            top: heights().fold(f32::NEG_INFINITY, f32::max),
            normals: normals[k * vertices..(k + 1) * vertices].to_vec(),
            heads: heads[k * bones..(k + 1) * bones].to_vec(),
            girths: girths(canon, &rest),
            rest,
        }
    };
    Ok((0..count).map(shape).collect())
}

fn joints(names: &[String]) -> Result<Joints> {
    let place: HashMap<&str, usize> = names.iter().enumerate().map(|(i, n)| (n.as_str(), i)).collect();
    let find = |name: &str| place.get(name).copied().with_context(|| format!("no bone {name}"));
    let pair =
        |name: &str| Ok::<_, anyhow::Error>([find(&format!("{name}.L"))?, find(&format!("{name}.R"))?]);
    let digits = |side: &str, range: std::ops::RangeInclusive<u32>| {
        let names = range.flat_map(|f| (1..=3).map(move |q| format!("finger{f}-{q}.{side}")));
        names.map(|n| find(&n)).collect::<Result<Vec<_>>>()
    };
    Ok(Joints {
        spine: [find("spine05")?, find("spine04")?, find("spine03")?, find("spine02")?, find("spine01")?],
        neck: [find("neck01")?, find("neck02")?, find("head")?],
        clavicle: pair("clavicle")?,
        upper_arm: pair("upperarm01")?,
        lower_arm: pair("lowerarm01")?,
        wrist: pair("wrist")?,
        fingers: [digits("L", 2..=5)?, digits("R", 2..=5)?],
        thumb: [digits("L", 1..=1)?, digits("R", 1..=1)?],
        upper_leg: pair("upperleg01")?,
        lower_leg: pair("lowerleg01")?,
        foot: pair("foot")?,
    })
}
