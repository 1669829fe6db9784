//! Figures of a model directory on people, poses and motions that no training saw.
//!
//! Everything runs through the generator and interpolator that `keyframed` itself uses; truth comes from the renderer,
//! and poses of real people from clips.

mod colour;
mod faces;
mod quality;
mod real;
mod report;
mod trade_off;

use crate::{
    compare::{self, flicker::Average},
    data::{GALLERY, RATE, selected},
    plot,
    synth::{self, Camera, Framing, Motion, Person, Pose, Rig, Shot, render},
};
use anyhow::Result;
use keyframed_engine::{
    Crossfade, Frame, Interpolator, KeyframeGenerator,
    pose::{Labels, Palette},
};
use keyframed_models::{
    bench::with_ddim,
    checkpoint::{ModelDir, Role},
    device::Placement,
    generator::{FilmInterpolator, LcmGenerator, Settings},
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::path::Path;

use faces::Faces;
pub(crate) use quality::Mean;
pub use quality::{Quality, quality};
pub use real::clips;
pub use report::{Gap, Report, Way};

/// Seeds from here on are for evaluation alone.
pub(crate) const SEED: u64 = 0xE7A1;
/// Pictures of each person.
const POSES: usize = 3;
/// Seconds from one key frame to the next on the sheet's last row.
const GAP: f32 = 0.2;

/// Where sheets go, and what they may be made of.
pub struct Plan<'a> {
    /// PNG to write: reference, pose, truth, each way of sampling, in-betweens; half gallery, half unseen people.
    pub sheet: &'a Path,
    /// Folder of DensePose clips.
    pub driving: Option<&'a Path>,
    /// PNG to write of those clips.
    pub driving_sheet: &'a Path,
    /// PNG to write: heads of truth and of the model's default way.
    pub faces: &'a Path,
    /// SVG to write: λ against quality and time.
    pub trade_off: &'a Path,
}

/// A person, the picture that is animated, and pictures that would be right.
struct Case {
    reference: Shot,
    truth: Vec<Shot>,
    /// Before and after the first of them.
    around: [Shot; 2],
}

/// Evaluates `model`.
///
/// # Errors
/// The model cannot be loaded or run, a clip cannot be read, or a sheet cannot be written.
pub fn run(model: &ModelDir, rig: &Rig, plan: &Plan) -> Result<Report> {
    let default = Settings::of(model);
    let folder = tempfile::tempdir()?;
    let ddim = with_ddim(model, folder.path())?;
    let load = |model: &ModelDir, steps: usize, lora_scale: f64| {
        LcmGenerator::new(model, Settings { steps, lora_scale, ..default.clone() }, Placement::default())
    };
    let size = load(model, 1, 0.0)?.size().0 as usize;
    let cases =
        [false, true].map(|unseen| (0..GALLERY).map(|i| case(rig, i, unseen, size)).collect::<Vec<_>>());

    let sampler = if model.has(Role::Lora) { "LCM-LoRA" } else { "LCM, no LoRA in this model" };
    let plans: [(String, &ModelDir, usize, f64); 5] = [
        ("25 steps, DDIM".to_owned(), &ddim, 25, 0.0),
        ("4 steps, DDIM".to_owned(), &ddim, 4, 0.0),
        (format!("{} steps, {sampler}", default.steps), model, default.steps, default.lora_scale),
        (format!("2 steps, {sampler}"), model, 2, default.lora_scale),
        (format!("1 step, {sampler}"), model, 1, default.lora_scale),
    ];
    let (mut rows, mut shown) = (first_rows(&cases)?, 0);
    let whole = model;
    let mut ways = Vec::new();
    for (name, model, steps, lora_scale) in plans {
        let mut generator = load(model, steps, lora_scale)?;
        let mut faces = Faces::default();
        let (way, row) = judge(&mut generator, name, &cases, &mut faces)?;
        if steps == default.steps && std::ptr::eq(model, whole) {
            plot::grid(plan.faces, &faces.rows(), faces::SIDE)?;
            shown = faces.len();
        }
        ways.push(way);
        rows.push(row);
    }
    let mut generator = load(model, default.steps, default.lora_scale)?;
    let mut film = FilmInterpolator::new(model, Placement::default())?;
    rows.push(in_between_row(&mut generator, &mut film, &cases, size)?);
    plot::grid(plan.sheet, &rows, size)?;

    let mut clips = Vec::new();
    if let Some(driving) = plan.driving {
        let mut rows = Vec::new();
        for clip in real::clips(driving)? {
            let (followed, more) = real::follow(&mut generator, rig, &clip, size)?;
            clips.push(followed);
            rows.extend(more);
        }
        plot::grid(plan.driving_sheet, &rows, size)?;
    }
    let flicker = [false, true].map(|unseen| restless(&mut generator, rig, unseen, size));
    let [gallery_flicker, unseen_flicker] = flicker;
    let curve = trade_off::measure(&mut generator, &mut film, rig, size)?;
    trade_off::draw(&curve, plan.trade_off)?;
    Ok(Report {
        model: model.manifest().name.clone(),
        size,
        people: GALLERY,
        poses: POSES,
        faces: shown,
        ways,
        flicker_gallery: gallery_flicker?,
        flicker_unseen: unseen_flicker?,
        film: in_betweens(&mut film, rig, size, true)?,
        film_any: in_betweens(&mut film, rig, size, false)?,
        clips,
        trade_off: curve,
    })
}

/// A person in a motion that no training saw, `unseen` a person as well.
fn case(rig: &Rig, index: usize, unseen: bool, size: usize) -> Case {
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    rng.set_stream(index as u64 + if unseen { 1000 } else { 0 });
    let (person, reference) = cast(rig, index, unseen, size, &mut rng);
    let mut around = None;
    let truth = (0..POSES)
        .map(|_| {
            let (shape, motion) = (rng.random_range(0..rig.shapes()), Motion::random(&mut rng));
            let (camera, time) = (Camera::random(&mut rng), rng.random_range(1.0..10.0f32));
            let at = |t: f32| render(rig, &person, shape, &motion.pose(t), &camera, size);
            around.get_or_insert_with(|| [at(time - GAP / 2.0), at(time + GAP / 2.0)]);
            at(time)
        })
        .collect();
    let around = around.unwrap_or_else(|| [reference.clone(), reference.clone()]);
    Case { reference, truth, around }
}

/// A person and the picture that is animated.
pub(crate) fn cast(
    rig: &Rig,
    index: usize,
    unseen: bool,
    size: usize,
    rng: &mut ChaCha8Rng,
) -> (Person, Shot) {
    if !unseen {
        return (Person::gallery(index), synth::avatar(rig, index, size));
    }
    let person = Person::random(rng);
    let shape = rng.random_range(0..rig.shapes());
    let camera = Camera::reference(Framing::Full, rng);
    let reference = render(rig, &person, shape, &Pose::reference(rng), &camera, size);
    (person, reference)
}

/// Every second person is drawn.
fn drawn(cases: &[Vec<Case>; 2]) -> impl Iterator<Item = &Case> {
    cases.iter().flat_map(|list| list.iter().step_by(2))
}

fn first_rows(cases: &[Vec<Case>; 2]) -> Result<Vec<Vec<Vec<u8>>>> {
    let poses = drawn(cases).map(|case| Ok(pose(&case.truth[0])?.data().to_vec())).collect::<Result<_>>()?;
    let of = |get: fn(&Case) -> &Shot| drawn(cases).map(|case| get(case).rgb.clone()).collect();
    Ok(vec![of(|case| &case.reference), poses, of(|case| &case.truth[0])])
}

/// The labels of a rendered picture, as a stream shows them.
fn pose(shot: &Shot) -> Result<Frame> {
    let side = shot.size as u32;
    Ok(Labels::new(side, side, shot.labels.clone())?.colours(Palette::Viridis))
}

/// One way's figures, and its row of the sheet.
fn judge(
    generator: &mut LcmGenerator,
    name: String,
    cases: &[Vec<Case>; 2],
    faces: &mut Faces,
) -> Result<(Way, Vec<Vec<u8>>)> {
    let (mut row, mut means) = (Vec::new(), Vec::new());
    for list in cases {
        let (mut mean, mut colours) = (Mean::default(), Average::default());
        for (index, case) in list.iter().enumerate() {
            let size = case.reference.size;
            generator.set_reference(&frame(&case.reference.rgb, size)?)?;
            for (n, truth) in case.truth.iter().enumerate() {
                let made = generator.generate(&pose(truth)?, 0)?;
                faces.add(truth, made.data());
                mean.add(quality(made.data(), truth, size));
                colours.add(colour::difference(made.data(), &truth.labels, &case.reference));
                if n == 0 && index % 2 == 0 {
                    row.push(made.data().to_vec());
                }
            }
        }
        means.push((mean.mean(), colours.mean().unwrap_or(f64::NAN)));
    }
    let (gallery, unseen) = (means[0], means[1]);
    let way = Way {
        name,
        gallery: gallery.0,
        unseen: unseen.0,
        colour_gallery: gallery.1,
        colour_unseen: unseen.1,
    };
    Ok((way, row))
}

/// Pictures between two key frames, at the time of the truth above them.
fn in_between_row(
    generator: &mut LcmGenerator,
    film: &mut FilmInterpolator,
    cases: &[Vec<Case>; 2],
    size: usize,
) -> Result<Vec<Vec<u8>>> {
    let mut row = Vec::new();
    for case in drawn(cases) {
        generator.set_reference(&frame(&case.reference.rgb, size)?)?;
        let [a, b] = &case.around;
        let (a, b) = (generator.generate(&pose(a)?, 0)?, generator.generate(&pose(b)?, 0)?);
        row.push(film.interpolate(&a, &b, 0.5)?.data().to_vec());
    }
    Ok(row)
}

/// How much more generated clips change from frame to frame than the truth, over the whole frame.
fn restless(generator: &mut LcmGenerator, rig: &Rig, unseen: bool, size: usize) -> Result<f64> {
    let (mut made_change, mut true_change) = (Average::default(), Average::default());
    for clip in compare::cast_clips(rig, size, 4, 30, unseen)? {
        generator.set_reference(&clip.reference)?;
        let made = compare::every(generator, &clip.poses)?;
        let everywhere: Vec<Vec<bool>> = clip.still.iter().map(|still| vec![true; still.len()]).collect();
        made_change.add(compare::flicker(&made.pictures(), &everywhere));
        true_change.add(compare::flicker(&clip.true_pictures(), &everywhere));
    }
    Ok(made_change.mean().unwrap_or(f64::NAN) / true_change.mean().unwrap_or(f64::NAN))
}

/// The middle of rendered key frames' gaps: of those that stage 1 leaves, and of any of 80 to 400 ms.
fn in_betweens(film: &mut FilmInterpolator, rig: &Rig, size: usize, selects: bool) -> Result<Gap> {
    let (mut by_film, mut by_fade) = (Mean::default(), Mean::default());
    for index in 0..4 * GALLERY {
        let mut rng = ChaCha8Rng::seed_from_u64(SEED);
        rng.set_stream(index as u64 + 2000);
        let (person, motion, camera) =
            (Person::gallery(index % GALLERY), Motion::random(&mut rng), Camera::random(&mut rng));
        let (start, any) = (rng.random_range(0.0..10.0f32), rng.random_range(0.08..0.4f32));
        let shape = rng.random_range(0..rig.shapes());
        let at = |t: f32| render(rig, &person, shape, &motion.pose(t), &camera, size);
        let frame_at = |n: usize| start + n as f32 / RATE as f32;
        let (from, to) = if selects {
            let keys = selected(4, size, |n| at(frame_at(n)))?;
            // The last of the first few: by then stage 1 follows the motion. With nothing between, another one.
            let gap = keys.windows(2).rev().map(|pair| (pair[0].0, pair[1].0)).find(|(a, b)| b - a > 1);
            let Some((a, b)) = gap else { continue };
            (frame_at(a), frame_at(b))
        } else {
            (start, start + any)
        };
        let (first, truth, last) = (at(from), at(f32::midpoint(from, to)), at(to));
        let (a, b) = (frame(&first.rgb, size)?, frame(&last.rgb, size)?);
        by_film.add(quality(film.interpolate(&a, &b, 0.5)?.data(), &truth, size));
        by_fade.add(quality(Crossfade.interpolate(&a, &b, 0.5)?.data(), &truth, size));
    }
    Ok(Gap { film: by_film.mean(), cross_fade: by_fade.mean() })
}

/// RGB bytes as a picture of `size`×`size`.
pub(crate) fn frame(rgb: &[u8], size: usize) -> Result<Frame> {
    Ok(Frame::new(size as u32, size as u32, rgb.to_vec())?)
}
