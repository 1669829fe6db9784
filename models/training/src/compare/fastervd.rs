//! FasterVD's own comparison: 25 steps on every frame, 4 steps on every frame, 4 steps and interpolation.

use super::{Clip, Keys, Kind, Made, clips, every, flicker, interpolated, progress};
use crate::{
    eval::{Mean, Quality, quality},
    plot,
    synth::Rig,
};
use anyhow::{Result, ensure};
use keyframed_engine::{Interpolator, KeyframeGenerator, SelectConfig, Selector};
use keyframed_models::{
    checkpoint::{ModelDir, Role},
    device::{Placement, Work, share},
    generator::{FilmInterpolator, LcmGenerator, Settings},
};
use serde::Serialize;
use std::{fmt, path::Path, time::Instant};

/// Steps of the slow way.
const MANY: usize = 25;
/// Steps of the others.
const FEW: usize = 4;
/// Pictures of each clip on the sheet.
const SHOWN: usize = 4;

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Many,
    Few,
    Half,
    Selected,
}

const WAYS: [Way; 4] = [Way::Many, Way::Few, Way::Half, Way::Selected];

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Many => "a",
            Self::Few => "b",
            Self::Half => "c",
            Self::Selected => "d",
        }
    }

    fn about(self) -> &'static str {
        match self {
            Self::Many => "25 steps, every frame",
            Self::Few => "4 steps, every frame",
            Self::Half => "4 steps, every second frame, FILM between",
            Self::Selected => "4 steps, selected key poses, FILM between",
        }
    }

    fn steps(self) -> usize {
        if self == Self::Many { MANY } else { FEW }
    }
}

/// How one way did over all clips.
#[derive(Debug, Serialize)]
pub struct Row {
    /// a to d.
    pub name: &'static str,
    /// In words.
    pub about: &'static str,
    /// Denoising steps.
    pub steps: usize,
    /// Frames made.
    pub frames: usize,
    /// Of these, key frames.
    pub key_frames: usize,
    /// In all, references not counted.
    pub seconds: f64,
    /// Per frame.
    pub ms_per_frame: f64,
    /// How many times as fast as (a).
    pub times_as_fast: f64,
    /// Preparing the clips' references, in all.
    pub reference_seconds: f64,
    /// Against the truth, all frames.
    pub quality: Quality,
    /// PSNR of the whole frame less that of (a), dB.
    pub psnr_against_a: f64,
    /// Of the person alone, likewise.
    pub psnr_person_against_a: f64,
    /// Generated frames alone, where there are others.
    pub generated: Option<Quality>,
    /// Interpolated frames alone, where there are any.
    pub interpolated: Option<Quality>,
    /// Change between consecutive frames where nothing moves, levels of 255.
    pub flicker: Option<f64>,
}

/// The whole comparison.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The model's name.
    pub model: String,
    /// Picture side.
    pub size: usize,
    /// The clips' avatars.
    pub avatars: Vec<&'static str>,
    /// Frames of each clip.
    pub frames_per_clip: usize,
    /// Threads of one operation in (a) and (b); in (c) and (d) generator and FILM share them.
    pub threads: usize,
    /// Threads of the generator in (c) and (d).
    pub generator_threads: usize,
    /// Threads of FILM in (c) and (d).
    pub film_threads: usize,
    /// The truth's own change where nothing moves.
    pub truth_flicker: Option<f64>,
    /// (a) to (d).
    pub ways: Vec<Row>,
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
    /// On all threads.
    alone: LcmGenerator,
    /// On the threads that interpolation leaves.
    beside: LcmGenerator,
    film: FilmInterpolator,
    settings: Settings,
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
        let (width, height) = alone.size();
        ensure!(width == height, "clips are square, the model's pictures are {width}x{height}");
        let film = FilmInterpolator::new(model, on(share(Work::InBetweens)))?;
        Ok(Self { alone, beside, film, settings, threads })
    }

    /// First runs prepare what later ones reuse.
    fn warm_up(&mut self, clip: &Clip) -> Result<()> {
        for generator in [&mut self.alone, &mut self.beside] {
            generator.set_reference(&clip.reference)?;
            generator.generate(&clip.poses[0], 0)?;
        }
        self.film.interpolate(&clip.reference, &clip.poses[0], 0.5)?;
        Ok(())
    }

    /// A clip's frames, and the seconds that its reference took.
    fn make(&mut self, way: Way, clip: &Clip) -> Result<(Made, f64)> {
        let shared = matches!(way, Way::Half | Way::Selected);
        let generator = if shared { &mut self.beside } else { &mut self.alone };
        generator.set(Settings { steps: way.steps(), ..self.settings.clone() })?;
        let started = Instant::now();
        generator.set_reference(&clip.reference)?;
        let reference_seconds = started.elapsed().as_secs_f64();
        let made = match way {
            Way::Many | Way::Few => every(generator, &clip.poses)?,
            Way::Half => interpolated(generator, &mut self.film, &clip.poses, &mut Keys::Second)?,
            Way::Selected => {
                let mut keys = Keys::Selected(Box::new(Selector::new(SelectConfig::default())?));
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

/// A mean of what there is.
#[derive(Debug, Default)]
pub(super) struct Average {
    sum: f64,
    count: f64,
}

impl Average {
    pub(super) fn add(&mut self, value: Option<f64>) {
        if let Some(value) = value {
            self.sum += value;
            self.count += 1.0;
        }
    }

    pub(super) fn mean(&self) -> Option<f64> {
        (self.count > 0.0).then(|| self.sum / self.count)
    }
}

/// Sums of one way.
#[derive(Debug, Default)]
struct Total {
    frames: usize,
    key_frames: usize,
    seconds: f64,
    reference_seconds: f64,
    all: Mean,
    generated: Mean,
    interpolated: Mean,
    flicker: Average,
}

impl Total {
    fn add(&mut self, clip: &Clip, made: &Made, reference_seconds: f64, size: usize) {
        self.frames += made.frames.len();
        self.key_frames += made.key_frames;
        self.seconds += made.seconds;
        self.reference_seconds += reference_seconds;
        for ((frame, kind), truth) in made.frames.iter().zip(&clip.truth) {
            let found = quality(frame.data(), truth, size);
            self.all.add(found);
            match kind {
                Kind::Generated => self.generated.add(found),
                Kind::Interpolated => self.interpolated.add(found),
                Kind::Repeated => {}
            }
        }
        self.flicker.add(flicker(&made.pictures(), &clip.still));
    }

    fn row(&self, way: Way, first: &Self) -> Row {
        let (quality, base) = (self.all.mean(), first.all.mean());
        let split = !self.interpolated.is_empty();
        Row {
            name: way.name(),
            about: way.about(),
            steps: way.steps(),
            frames: self.frames,
            key_frames: self.key_frames,
            seconds: self.seconds,
            ms_per_frame: 1e3 * self.seconds / self.frames.max(1) as f64,
            times_as_fast: first.seconds / self.seconds.max(1e-9),
            reference_seconds: self.reference_seconds,
            quality,
            psnr_against_a: quality.psnr - base.psnr,
            psnr_person_against_a: quality.psnr_person - base.psnr_person,
            generated: split.then(|| self.generated.mean()),
            interpolated: split.then(|| self.interpolated.mean()),
            flicker: self.flicker.mean(),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, frames) = (self.avatars.len(), self.frames_per_clip);
        writeln!(f, "{}, {count} clips of {frames} frames, {size}x{size}", self.model, size = self.size)?;
        for row in &self.ways {
            writeln!(f, "  ({}) {}", row.name, row.about)?;
        }
        writeln!(
            f,
            "(a) and (b) on {} threads; (c) and (d): generator {}, FILM {}\n",
            self.threads, self.generator_threads, self.film_threads
        )?;
        let heads = ["seconds", "ms/frame", "x as fast", "key frames", "PSNR", "person", "SSIM", "flicker"];
        let [seconds, each, ratio, keys, psnr, person, ssim, flicker] = heads;
        writeln!(
            f,
            "{:16} {seconds:>8} {each:>9} {ratio:>10} {keys:>11} {psnr:>7} {person:>7} {ssim:>7} {flicker:>8}",
            ""
        )?;
        for row in &self.ways {
            let q = &row.quality;
            writeln!(
                f,
                "{:16} {:8.2} {:9.1} {:10.2} {:11} {:7.2} {:7.2} {:7.4} {:>8}",
                format!("({})", row.name),
                row.seconds,
                row.ms_per_frame,
                row.times_as_fast,
                format!("{}/{}", row.key_frames, row.frames),
                q.psnr,
                q.psnr_person,
                q.ssim,
                levels(row.flicker)
            )?;
            for (name, part) in [("generated", row.generated), ("interpolated", row.interpolated)] {
                if let Some(q) = part {
                    let (psnr, person) = (q.psnr, q.psnr_person);
                    writeln!(f, "  {name:14} {:41} {psnr:7.2} {person:7.2} {:7.4}", "", q.ssim)?;
                }
            }
        }
        writeln!(f, "{:16} {:65} {:>8}", "truth", "", levels(self.truth_flicker))?;
        let slow: Vec<String> =
            self.ways.iter().map(|row| format!("({}) {:.2} s", row.name, row.reference_seconds)).collect();
        writeln!(f, "\nreferences, not counted above: {}", slow.join(", "))
    }
}

/// Flicker for people.
pub(super) fn levels(flicker: Option<f64>) -> String {
    flicker.map_or_else(|| "-".to_owned(), |value| format!("{value:.3}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synth::Shot;
    use keyframed_engine::Frame;

    fn clip(levels: &[u8]) -> Clip {
        let side = 16;
        let shot = |&level: &u8| Shot {
            size: side,
            rgb: vec![level; side * side * 3],
            labels: vec![0; side * side],
        };
        let frame = |&level: &u8| Frame::filled(16, 16, [level; 3]).ok();
        Clip {
            avatar: "nobody",
            reference: Frame::filled(16, 16, [0; 3]).expect("a small picture"),
            poses: levels.iter().filter_map(frame).collect(),
            truth: levels.iter().map(shot).collect(),
            still: vec![vec![true; side * side]; levels.len() - 1],
        }
    }

    fn made(levels: &[u8], seconds: f64) -> Made {
        let kinds = [Kind::Generated, Kind::Interpolated];
        let one = |(n, &level): (usize, &u8)| Some((Frame::filled(16, 16, [level; 3]).ok()?, kinds[n % 2]));
        Made { frames: levels.iter().enumerate().filter_map(one).collect(), key_frames: 2, seconds }
    }

    #[test]
    fn rows_are_ratios_and_means_of_the_sums() {
        let clip = clip(&[100, 100, 100]);
        let (mut slow, mut fast) = (Total::default(), Total::default());
        // Off by 1 everywhere: 48.13 dB. Off by 10: 20 dB less.
        slow.add(&clip, &made(&[101, 101, 101], 6.0), 0.5, 16);
        fast.add(&clip, &made(&[101, 110, 101], 0.25), 0.1, 16);
        fast.add(&clip, &made(&[101, 110, 101], 0.25), 0.1, 16);
        let (a, c) = (slow.row(Way::Many, &slow), fast.row(Way::Half, &slow));
        assert_eq!(
            (a.times_as_fast, a.psnr_against_a, a.ms_per_frame, a.flicker),
            (1.0, 0.0, 2000.0, Some(0.0))
        );
        assert_eq!((c.times_as_fast, c.frames, c.key_frames, c.flicker), (12.0, 6, 4, Some(9.0)));
        let of = |q: Option<Quality>| q.map(|q| q.psnr).unwrap_or_default();
        assert!((of(c.generated) - 48.13).abs() < 0.01 && (of(c.interpolated) - 28.13).abs() < 0.01);
        assert!((c.psnr_against_a + 20.0 / 3.0).abs() < 0.01, "{}", c.psnr_against_a);
        assert!((c.reference_seconds - 0.2).abs() < 1e-9);
    }

    #[test]
    fn ways_take_turns_and_the_sheet_shows_frames_of_both_kinds() {
        assert_eq!((order(0), order(1)), (vec![0, 1, 2, 3], vec![3, 2, 1, 0]));
        let shown: Vec<usize> = picks(48).collect();
        assert!(shown.iter().any(|i| i % 2 == 0) && shown.iter().any(|i| i % 2 == 1), "{shown:?}");
        assert!(picks(2).all(|i| i < 2) && shown.iter().all(|&i| i < 48));
    }
}
