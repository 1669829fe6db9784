//! FasterVD's own comparison: 25 steps on every frame, 4 steps on every frame, 4 steps and interpolation.

mod report;

use super::{Clip, Keys, Made, clips, every, flicker, flicker::Average, interpolated, progress};
use crate::{plot, synth::Rig};
use anyhow::{Result, ensure};
use keyframed_engine::{Interpolator, KeyframeGenerator, SelectConfig, Selector};
use keyframed_models::{
    bench::with_ddim,
    checkpoint::{ModelDir, Role},
    device::{Placement, Work, share},
    generator::{FilmInterpolator, LcmGenerator, Settings},
};
use report::Total;
use std::{path::Path, time::Instant};

pub use report::{Report, Row};

/// Steps of the slow way.
const MANY: usize = 25;
/// Steps of the others.
const FEW: usize = 4;
/// λ of the way with the fewest key frames: twice the default.
const SPARSE_LAMBDA: f64 = 0.02;
/// Pictures of each clip on the sheet.
const SHOWN: usize = 4;

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Many,
    Few,
    Half,
    Selected,
    Sparse,
}

const WAYS: [Way; 5] = [Way::Many, Way::Few, Way::Half, Way::Selected, Way::Sparse];

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Many => "a",
            Self::Few => "b",
            Self::Half => "c",
            Self::Selected => "d",
            Self::Sparse => "e",
        }
    }

    fn about(self) -> &'static str {
        match self {
            Self::Many => "25 DDIM steps, every frame",
            Self::Few => "4 steps, every frame",
            Self::Half => "4 steps, every second frame, FILM between",
            Self::Selected => "4 steps, selected key poses, FILM between",
            Self::Sparse => "4 steps, key poses selected at λ = 0.02, FILM between",
        }
    }

    fn steps(self) -> usize {
        if self == Self::Many { MANY } else { FEW }
    }
}

/// Runs all ways on `avatars` clips of `frames` frames, and draws `sheet` if there is one: pose, truth and each way.
///
/// # Errors
/// The model cannot be loaded or run, or the sheet cannot be written.
pub fn run(
    model: &ModelDir,
    rig: &Rig,
    avatars: usize,
    frames: usize,
    sheet: Option<&Path>,
) -> Result<Report> {
    let mut makers = Makers::new(model)?;
    let size = makers.alone.size().0 as usize;
    let clips = clips(rig, size, avatars, frames)?;
    let mut totals = WAYS.map(|_| Total::default());
    let (mut columns, mut truth_flicker) = (Vec::new(), Average::default());
    let bar = progress(WAYS.len() * clips.len())?;
    makers.warm_up(&clips[0])?;
    for (n, clip) in clips.iter().enumerate() {
        truth_flicker.add(flicker(&clip.true_pictures(), &clip.still));
        let mut shown: Vec<Vec<Vec<u8>>> = vec![vec![]; WAYS.len()];
        for index in order(n) {
            bar.set_message(format!("{}: {}", clip.avatar, WAYS[index].about()));
            let (made, reference_seconds) = makers.make(WAYS[index], clip)?;
            totals[index].add(clip, &made, reference_seconds, size);
            shown[index] = picks(frames).map(|i| made.frames[i].0.data().to_vec()).collect();
            bar.inc(1);
        }
        columns.push((n, shown));
    }
    bar.finish_and_clear();
    if let Some(sheet) = sheet {
        plot::grid(sheet, &rows(&clips, &columns, frames), size)?;
    }
    let ways = WAYS.iter().zip(&totals).map(|(way, total)| total.row(*way, &totals[0])).collect();
    Ok(Report {
        model: model.manifest().name.clone(),
        size,
        avatars: clips.iter().map(|clip| clip.avatar).collect(),
        frames_per_clip: frames,
        threads: makers.threads,
        generator_threads: share(Work::KeyFrames),
        film_threads: share(Work::InBetweens),
        truth_flicker: truth_flicker.mean(),
        ways,
    })
}

/// There and back in turns: whatever slows the machine down meanwhile hits all ways alike.
fn order(clip: usize) -> Vec<usize> {
    let forward = 0..WAYS.len();
    if clip.is_multiple_of(2) { forward.collect() } else { forward.rev().collect() }
}

/// Frames of a clip for the sheet: spread, odd and even ones alike.
fn picks(frames: usize) -> impl Iterator<Item = usize> {
    (0..SHOWN).map(move |i| ((2 * i + 1) * frames / (2 * SHOWN) + i % 2).min(frames - 1))
}

type Column = (usize, Vec<Vec<Vec<u8>>>);

/// Pose, truth, then the ways; the clips side by side.
fn rows(clips: &[Clip], columns: &[Column], frames: usize) -> Vec<Vec<Vec<u8>>> {
    let mut rows = vec![vec![]; 2 + WAYS.len()];
    for (n, shown) in columns {
        for i in picks(frames) {
            rows[0].push(clips[*n].poses[i].data().to_vec());
            rows[1].push(clips[*n].truth[i].rgb.clone());
        }
        for (row, pictures) in rows[2..].iter_mut().zip(shown) {
            row.extend(pictures.iter().cloned());
        }
    }
    rows
}

/// The networks, placed as each way needs them.
struct Makers {
    /// On all threads, with the sampler of the slow way.
    many: LcmGenerator,
    /// On all threads.
    alone: LcmGenerator,
    /// On the threads that interpolation leaves.
    beside: LcmGenerator,
    film: FilmInterpolator,
    threads: usize,
}

impl Makers {
    fn new(model: &ModelDir) -> Result<Self> {
        ensure!(model.has(Role::Film), "the model {} has no FILM", model.manifest().name);
        let settings = Settings { steps: FEW, ..Settings::of(model) };
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let on = |threads| Placement { threads: Some(threads), ..Placement::default() };
        let beside = LcmGenerator::new(model, settings.clone(), on(share(Work::KeyFrames)))?;
        let alone = LcmGenerator::new(model, settings.clone(), on(threads))?;
        let folder = tempfile::tempdir()?;
        let slow = with_ddim(model, folder.path())?;
        let many = LcmGenerator::new(&slow, Settings { steps: MANY, ..settings.clone() }, on(threads))?;
        let (width, height) = alone.size();
        ensure!(width == height, "clips are square, the model's pictures are {width}x{height}");
        let film = FilmInterpolator::new(model, on(share(Work::InBetweens)))?;
        Ok(Self { many, alone, beside, film, threads })
    }

    /// First runs prepare what later ones reuse.
    fn warm_up(&mut self, clip: &Clip) -> Result<()> {
        for generator in [&mut self.many, &mut self.alone, &mut self.beside] {
            generator.set_reference(&clip.reference)?;
            generator.generate(&clip.poses[0], 0)?;
        }
        self.film.interpolate(&clip.reference, &clip.poses[0], 0.5)?;
        Ok(())
    }

    /// A clip's frames, and the seconds that its reference took.
    fn make(&mut self, way: Way, clip: &Clip) -> Result<(Made, f64)> {
        let generator = match way {
            Way::Many => &mut self.many,
            Way::Few => &mut self.alone,
            Way::Half | Way::Selected | Way::Sparse => &mut self.beside,
        };
        let started = Instant::now();
        generator.set_reference(&clip.reference)?;
        let reference_seconds = started.elapsed().as_secs_f64();
        let made = match way {
            Way::Many | Way::Few => every(generator, &clip.poses)?,
            Way::Half => interpolated(generator, &mut self.film, &clip.poses, &mut Keys::Second)?,
            Way::Selected | Way::Sparse => {
                // As `keyframed animate` does.
                let mut config = SelectConfig { window: 12, ..SelectConfig::default() };
                if way == Way::Sparse {
                    config.lambda = SPARSE_LAMBDA;
                }
                let mut keys = Keys::Selected(Box::new(Selector::new(config)?));
                interpolated(generator, &mut self.film, &clip.poses, &mut keys)?
            }
        };
        ensure!(
            made.frames.len() == clip.poses.len(),
            "{} poses gave {} frames",
            clip.poses.len(),
            made.frames.len()
        );
        Ok((made, reference_seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_take_turns_and_the_sheet_shows_frames_of_both_kinds() {
        assert_eq!((order(0), order(1)), (vec![0, 1, 2, 3, 4], vec![4, 3, 2, 1, 0]));
        let shown: Vec<usize> = picks(48).collect();
        assert!(shown.iter().any(|i| i % 2 == 0) && shown.iter().any(|i| i % 2 == 1), "{shown:?}");
        assert!(picks(2).all(|i| i < 2) && shown.iter().all(|&i| i < 48));
    }
}
