//! How near synthetic labels come to real clips: framing, part areas, border roughness, specks, flicker.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use keyframed_engine::frame::Frame;
use keyframed_engine::pose::{LABELS, Labels};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::camera::Camera;
use super::degrade::degrade;
use super::motion::Motion;
use super::person::Person;
use super::render::render;
use super::rig::Rig;

const SIZE: usize = 256;

/// Averages over the frames of one or more clips.
#[derive(Clone, Debug, PartialEq)]
pub struct Figures {
    /// Share of the body's pixels that each label has; entry 0 is the body's share of the picture.
    pub area: [f64; LABELS],
    /// Height of the head in pixels of 256.
    pub head: f64,
    /// Height of its top in pixels of 256.
    pub top: f64,
    /// Length of label borders over what is left of it after a 5×5 majority filter: 1 is smooth.
    pub roughness: f64,
    /// Pieces of under 12 pixels a frame.
    pub specks: f64,
    /// Share of the body's pixels that change their label for one frame only.
    pub flicker: f64,
}

impl Figures {
    /// Measures clips of label maps of 256×256.
    pub fn measure(clips: &[Vec<Vec<u8>>]) -> Self {
        let mut sum =
            Self { area: [0.0; LABELS], head: 0.0, top: 0.0, roughness: 0.0, specks: 0.0, flicker: 0.0 };
        let (mut frames, mut heads, mut triples) = (0.0, 0.0, 0.0);
        for map in clips.iter().flatten() {
            let body = map.iter().filter(|&&l| l != 0).count().max(1) as f64;
            for &label in map {
                sum.area[usize::from(label)] += if label == 0 { 0.0 } else { 1.0 / body };
            }
            sum.area[0] += body / map.len() as f64;
            if let Some((top, height)) = head(map) {
                sum.head += height;
                sum.top += top;
                heads += 1.0;
            }
            sum.roughness += border(map) / border(&majority(map)).max(1.0);
            sum.specks += specks(map);
            frames += 1.0;
        }
        for triple in clips.iter().flat_map(|clip| clip.windows(3)) {
            sum.flicker += flicker(triple);
            triples += 1.0;
        }
        let n = f64::max(frames, 1.0);
        Self {
            area: sum.area.map(|a| a / n),
            head: sum.head / f64::max(heads, 1.0),
            top: sum.top / f64::max(heads, 1.0),
            roughness: sum.roughness / n,
            specks: sum.specks / n,
            flicker: sum.flicker / f64::max(triples, 1.0),
        }
    }
}

fn head(map: &[u8]) -> Option<(f64, f64)> {
    let is_head = |&i: &usize| map[i] >= 23;
    let first = (0..map.len()).find(is_head)? / SIZE;
    let last = (0..map.len()).rev().find(is_head)? / SIZE;
    Some((first as f64, (last - first + 1) as f64))
}

/// Neighbouring pixels of different labels.
fn border(map: &[u8]) -> f64 {
    let across = map.chunks_exact(SIZE).flat_map(|row| row.windows(2)).filter(|w| w[0] != w[1]).count();
    let down = map.iter().zip(&map[SIZE..]).filter(|(a, b)| a != b).count();
    (across + down) as f64
}

fn majority(map: &[u8]) -> Vec<u8> {
    let mut out = map.to_vec();
    for y in 2..SIZE - 2 {
        for x in 2..SIZE - 2 {
            let mut votes = [0u8; LABELS];
            for row in y - 2..=y + 2 {
                for &label in &map[row * SIZE + x - 2..=row * SIZE + x + 2] {
                    votes[usize::from(label)] += 1;
                }
            }
            let own = map[y * SIZE + x];
            let best = (0..LABELS).max_by_key(|&l| (votes[l], l == usize::from(own))).unwrap_or(0);
            out[y * SIZE + x] = best as u8;
        }
    }
    out
}

/// Connected pieces of one label (background included) smaller than 12 pixels.
fn specks(map: &[u8]) -> f64 {
    let mut seen = vec![false; map.len()];
    let mut count = 0;
    let mut stack = Vec::new();
    for start in 0..map.len() {
        if seen[start] {
            continue;
        }
        seen[start] = true;
        stack.push(start);
        let mut area = 0;
        while let Some(i) = stack.pop() {
            area += 1;
            let (x, y) = (i % SIZE, i / SIZE);
            let around = [
                (x > 0).then(|| i - 1),
                (x + 1 < SIZE).then(|| i + 1),
                (y > 0).then(|| i - SIZE),
                (y + 1 < SIZE).then(|| i + SIZE),
            ];
            for next in around.into_iter().flatten() {
                if !seen[next] && map[next] == map[i] {
                    seen[next] = true;
                    stack.push(next);
                }
            }
        }
        count += usize::from(area < 12);
    }
    count as f64
}

fn flicker(frames: &[Vec<u8>]) -> f64 {
    let [before, now, after] = frames else { return 0.0 };
    let body = now.iter().filter(|&&l| l != 0).count().max(1) as f64;
    let fleeting = before.iter().zip(now).zip(after).filter(|((a, b), c)| a == c && a != b).count();
    fleeting as f64 / body
}

/// The label maps of a DensePose clip at 256×256, decoded by the program `ffmpeg`.
fn read_clip(path: &Path) -> Result<Vec<Vec<u8>>> {
    let out = Command::new("ffmpeg")
        .args(["-v", "error", "-i"])
        .arg(path)
        .args(["-f", "rawvideo", "-pix_fmt", "rgb24", "-vf", "scale=512:512:flags=neighbor", "-"])
        .stderr(Stdio::inherit())
        .output()
        .context("starting ffmpeg")?;
    ensure!(out.status.success(), "ffmpeg cannot read {}", path.display());
    let frames = out.stdout.chunks_exact(512 * 512 * 3);
    frames
        .map(|rgb| {
            let labels = Labels::from_frame(&Frame::new(512, 512, rgb.to_vec())?);
            Ok(labels.resized(SIZE as u32, SIZE as u32)?.data().to_vec())
        })
        .collect()
}

fn synthetic(rig: &Rig, clips: usize, strength: f32, seed: u64) -> Vec<Vec<Vec<u8>>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut clip = || {
        let person = Person::random(&mut rng);
        let (motion, camera) = (Motion::random(&mut rng), Camera::random(&mut rng));
        let shape = person.suitable_shape(rig, &mut rng);
        let frame = |k: i32| {
            let shot = render(rig, &person, shape, &motion.pose(k as f32 / 25.0), &camera, SIZE);
            degrade(&shot.labels, strength, &mut rng)
        };
        (0..12).map(frame).collect()
    };
    (0..clips).map(|_| clip()).collect()
}

/// Compares synthetic labels, clean and worsened, with real clips; a table to print.
///
/// # Errors
/// When a clip cannot be decoded.
pub fn report(rig: &Rig, real: &[PathBuf], seed: u64) -> Result<String> {
    let clips = real.iter().map(|p| read_clip(p)).collect::<Result<Vec<_>>>()?;
    let columns = [
        ("real", Figures::measure(&clips)),
        ("clean", Figures::measure(&synthetic(rig, 40, 0.0, seed))),
        ("strength 0.5", Figures::measure(&synthetic(rig, 40, 0.5, seed))),
        ("strength 1", Figures::measure(&synthetic(rig, 40, 1.0, seed))),
    ];
    let mut out = String::new();
    let mut row = |name: &str, value: &dyn Fn(&Figures) -> f64| {
        let cells = columns.iter().map(|(_, f)| format!("{:>14.3}", value(f))).collect::<String>();
        writeln!(out, "{name:<26}{cells}")
    };
    row("body's share of picture", &|f| f.area[0])?;
    row("head height, px", &|f| f.head)?;
    row("head top, px", &|f| f.top)?;
    row("border roughness", &|f| f.roughness)?;
    row("specks a frame", &|f| f.specks)?;
    row("one-frame flicker, share", &|f| f.flicker)?;
    for (name, parts) in GROUPS {
        row(name, &|f| parts.iter().map(|&p| f.area[p]).sum())?;
    }
    let header = columns.iter().map(|(name, _)| format!("{name:>14}")).collect::<String>();
    Ok(format!("{:<26}{header}\n{out}", ""))
}

/// Areas that are compared; left and right together, as motions have no preferred side.
const GROUPS: [(&str, &[usize]); 9] = [
    ("area: torso back", &[1]),
    ("area: torso front", &[2]),
    ("area: hands", &[3, 4]),
    ("area: feet", &[5, 6]),
    ("area: upper legs", &[7, 8, 9, 10]),
    ("area: lower legs", &[11, 12, 13, 14]),
    ("area: upper arms", &[15, 16, 17, 18]),
    ("area: lower arms", &[19, 20, 21, 22]),
    ("area: head", &[23, 24]),
];
