//! Cached against recomputed context, over whole sequences.

use super::{
    Clip, Made, clips, every, flicker,
    flicker::{Average, levels},
    progress,
};
use crate::{
    eval::{Mean, Quality, quality},
    synth::Rig,
};
use anyhow::{Result, ensure};
use keyframed_engine::{Frame, KeyframeGenerator, SelectConfig, Selector};
use keyframed_models::{
    checkpoint::ModelDir,
    device::Placement,
    generator::{ContextMode, LcmGenerator, Settings},
};
use serde::Serialize;
use std::fmt;

/// One way to take earlier key frames into account.
#[derive(Debug, Serialize)]
pub struct Row {
    /// What it is.
    pub name: &'static str,
    /// In all, references not counted.
    pub seconds: f64,
    /// Per key frame.
    pub ms_per_key_frame: f64,
    /// Bytes of the full context.
    pub context_bytes: usize,
    /// PSNR against the recomputed sequence, dB, of the mean squared error over all frames but each clip's first, which
    /// has no context; `None` where all are equal.
    pub psnr_against_recompute: Option<f64>,
    /// Of the frame that differs most.
    pub worst_psnr_against_recompute: Option<f64>,
    /// Against the truth.
    pub quality: Quality,
    /// Change between consecutive key frames where nothing moves, levels of 255.
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
    /// Key frames in all.
    pub key_frames: usize,
    /// Denoising steps.
    pub steps: usize,
    /// Key frames that a new one sees.
    pub context_frames: usize,
    /// Threads of one operation.
    pub threads: usize,
    /// How many times as fast the cache is.
    pub cache_times_as_fast: f64,
    /// The truth's own change where nothing moves.
    pub truth_flicker: Option<f64>,
    /// None, cached, recomputed.
    pub ways: Vec<Row>,
}

/// What is compared. The recomputed sequence is the measure of the others.
const WAYS: [&str; 3] = ["no context", "cache", "recompute"];
const RECOMPUTE: usize = 2;

/// What is run.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Clips.
    pub avatars: usize,
    /// Frames of each.
    pub frames: usize,
    /// Key frames that a new one sees.
    pub context_frames: usize,
    /// Only the key poses that stage 1 selects, not every frame.
    pub selected: bool,
}

/// Runs every clip without context, cached and recomputed.
///
/// # Errors
/// The model cannot be loaded or run, or its frames do not see each other.
pub fn run(model: &ModelDir, rig: &Rig, plan: Plan) -> Result<Report> {
    let name = &model.manifest().name;
    ensure!(plan.context_frames > 0, "--context-frames must be at least 1: there is nothing to compare");
    let settings = Settings { context_frames: plan.context_frames, ..Settings::of(model) };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let placement = Placement { threads: Some(threads), ..Placement::default() };
    let mut generator = LcmGenerator::new(model, settings.clone(), placement)?;
    ensure!(
        generator.window() > 1,
        "key frames of the model {name} do not see each other: name one with motion modules, or make one with random \
         ones (`cargo run --release -p keyframed-models --example random_motion`)"
    );
    let (width, height) = generator.size();
    ensure!(width == height, "clips are square, the model's pictures are {width}x{height}");
    let size = width as usize;
    let mut clips = clips(rig, size, plan.avatars, plan.frames)?;
    if plan.selected {
        clips = clips.into_iter().map(selected).collect::<Result<_>>()?;
    }
    let (mut totals, mut truth_flicker) = (WAYS.map(|_| Total::default()), Average::default());
    let bar = progress(WAYS.len() * clips.len())?;
    generator.set_reference(&clips[0].reference)?;
    generator.generate(&clips[0].poses[0], 0)?;
    for (n, clip) in clips.iter().enumerate() {
        truth_flicker.add(flicker(&clip.true_pictures(), &clip.still));
        let mut made: [Option<Made>; 3] = [None, None, None];
        for index in order(n) {
            bar.set_message(format!("{}: {}", clip.avatar, WAYS[index]));
            generator.set(setting(&settings, index))?;
            generator.set_reference(&clip.reference)?;
            made[index] = Some(every(&mut generator, &clip.poses)?);
            totals[index].context_bytes = totals[index].context_bytes.max(generator.context_bytes());
            bar.inc(1);
        }
        let made = made.into_iter().flatten().collect::<Vec<_>>();
        for (total, own) in totals.iter_mut().zip(&made) {
            total.add(clip, own, &made[RECOMPUTE], size);
        }
    }
    bar.finish_and_clear();
    let seconds = |index: usize| totals[index].seconds.max(1e-9);
    Ok(Report {
        model: name.clone(),
        size,
        avatars: clips.iter().map(|clip| clip.avatar).collect(),
        key_frames: clips.iter().map(|clip| clip.poses.len()).sum(),
        steps: settings.steps,
        context_frames: plan.context_frames,
        threads,
        cache_times_as_fast: seconds(RECOMPUTE) / seconds(1),
        truth_flicker: truth_flicker.mean(),
        ways: WAYS.iter().zip(&totals).map(|(name, total)| total.row(name)).collect(),
    })
}

/// There and back in turns.
fn order(clip: usize) -> Vec<usize> {
    let forward = 0..WAYS.len();
    if clip.is_multiple_of(2) { forward.collect() } else { forward.rev().collect() }
}

fn setting(settings: &Settings, way: usize) -> Settings {
    let context_mode = if way == RECOMPUTE { ContextMode::Recompute } else { ContextMode::Cache };
    let context_frames = if way == 0 { 0 } else { settings.context_frames };
    Settings { context_mode, context_frames, ..settings.clone() }
}

/// The clip's key poses alone.
fn selected(clip: Clip) -> Result<Clip> {
    let mut selector = Selector::new(SelectConfig { window: 12, ..SelectConfig::default() })?;
    let last = clip.poses.len() - 1;
    let key = |(n, pose): (usize, &Frame)| {
        let decision = selector.push(pose, Clip::pts(n));
        n == last || matches!(decision, keyframed_engine::Decision::Key(_))
    };
    let keep: Vec<bool> = clip.poses.iter().enumerate().map(key).collect();
    let kept = |n: &usize| keep.get(*n).copied().unwrap_or(false);
    let indices: Vec<usize> = (0..clip.poses.len()).filter(kept).collect();
    let pair = |pair: &[usize]| super::still(&clip.truth[pair[0]], &clip.truth[pair[1]]);
    let still = indices.windows(2).map(pair).collect();
    let poses = indices.iter().map(|&n| clip.poses[n].clone()).collect();
    let kept = clip.truth.into_iter().zip(&keep).filter(|(_, keep)| **keep);
    Ok(Clip { poses, still, truth: kept.map(|(shot, _)| shot).collect(), ..clip })
}

/// Sums of one way.
#[derive(Debug, Default)]
struct Total {
    frames: usize,
    seconds: f64,
    context_bytes: usize,
    /// Mean squared errors against the recomputed sequence.
    against: Average,
    worst: f64,
    quality: Mean,
    flicker: Average,
}

impl Total {
    fn add(&mut self, clip: &Clip, made: &Made, recomputed: &Made, size: usize) {
        self.frames += made.frames.len();
        self.seconds += made.seconds;
        for ((frame, _), (other, _)) in made.frames.iter().zip(&recomputed.frames).skip(1) {
            let error = mean_square(frame.data(), other.data());
            self.worst = self.worst.max(error);
            self.against.add(Some(error));
        }
        for ((frame, _), truth) in made.frames.iter().zip(&clip.truth) {
            self.quality.add(quality(frame.data(), truth, size));
        }
        self.flicker.add(flicker(&made.pictures(), &clip.still));
    }

    fn row(&self, name: &'static str) -> Row {
        Row {
            name,
            seconds: self.seconds,
            ms_per_key_frame: 1e3 * self.seconds / self.frames.max(1) as f64,
            context_bytes: self.context_bytes,
            psnr_against_recompute: self.against.mean().and_then(psnr),
            worst_psnr_against_recompute: psnr(self.worst),
            quality: self.quality.mean(),
            flicker: self.flicker.mean(),
        }
    }
}

/// Mean squared difference of two pictures' bytes.
fn mean_square(a: &[u8], b: &[u8]) -> f64 {
    let squares: f64 = a.iter().zip(b).map(|(a, b)| f64::from(a.abs_diff(*b)).powi(2)).sum();
    squares / a.len().max(1) as f64
}

/// Peak signal-to-noise ratio in dB; without an error there is none.
fn psnr(mean_square: f64) -> Option<f64> {
    (mean_square > 0.0).then(|| 10.0 * (255.0f64.powi(2) / mean_square).log10())
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (clips, keys, size) = (self.avatars.len(), self.key_frames, self.size);
        writeln!(f, "{}, {clips} clips, {keys} key frames of {size}x{size}", self.model)?;
        let (steps, context, threads) = (self.steps, self.context_frames, self.threads);
        writeln!(f, "{steps} steps, {context} context frames, {threads} threads\n")?;
        let heads =
            ["seconds", "ms/key", "MiB", "to recompute", "worst", "PSNR", "person", "SSIM", "flicker"];
        let [seconds, each, ring, against, worst, psnr, person, ssim, flicker] = heads;
        writeln!(
            f,
            "{:12} {seconds:>8} {each:>8} {ring:>7} {against:>13} {worst:>9} {psnr:>7} {person:>7} {ssim:>7} \
             {flicker:>8}",
            ""
        )?;
        for row in &self.ways {
            let against = decibels(row.psnr_against_recompute);
            let worst = decibels(row.worst_psnr_against_recompute);
            let (q, ring) = (&row.quality, row.context_bytes as f64 / f64::from(1 << 20));
            writeln!(
                f,
                "{:12} {:8.2} {:8.1} {ring:7.1} {against:>13} {worst:>9} {:7.2} {:7.2} {:7.4} {:>8}",
                row.name,
                row.seconds,
                row.ms_per_key_frame,
                q.psnr,
                q.psnr_person,
                q.ssim,
                levels(row.flicker)
            )?;
        }
        writeln!(f, "{:12} {:73} {:>8}", "truth", "", levels(self.truth_flicker))?;
        writeln!(f, "\nthe cache is {:.2} times as fast", self.cache_times_as_fast)
    }
}

/// A distance for people.
fn decibels(psnr: Option<f64>) -> String {
    psnr.map_or_else(|| "-".to_owned(), |db| format!("{db:.2} dB"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn psnr_is_in_decibels_and_equal_pictures_have_none() {
        let of = |a: &[u8], b: &[u8]| psnr(mean_square(a, b));
        assert_eq!(of(&[1, 2, 3], &[1, 2, 3]), None);
        assert!(of(&[0; 30], &[255; 30]).is_some_and(|db| db.abs() < 1e-9));
        assert!(of(&[10; 30], &[11; 30]).is_some_and(|db| (db - 48.13).abs() < 0.01));
    }

    #[test]
    fn sequences_are_compared_from_the_second_frame_on() -> Result<()> {
        let made = |levels: &[u8]| -> Result<Made> {
            let one = |&level: &u8| Ok((Frame::filled(4, 4, [level; 3])?, super::super::Kind::Generated));
            let frames = levels.iter().map(one).collect::<Result<Vec<_>>>()?;
            Ok(Made { key_frames: frames.len(), frames, seconds: 1.5 })
        };
        let clip = Clip {
            avatar: "nobody",
            reference: Frame::filled(4, 4, [0; 3])?,
            poses: vec![],
            truth: vec![],
            still: vec![vec![true; 16]; 2],
        };
        let (mut same, mut other) = (Total::default(), Total::default());
        let recomputed = made(&[10, 20, 30])?;
        same.add(&clip, &made(&[90, 20, 30])?, &recomputed, 4);
        other.add(&clip, &made(&[90, 21, 33])?, &recomputed, 4);
        assert_eq!(same.row("cache").psnr_against_recompute, None);
        let row = other.row("cache");
        // Mean of 1 and 9, and 9.
        let near = |found: Option<f64>, wanted: f64| found.is_some_and(|db| (db - wanted).abs() < 0.01);
        assert!(near(row.psnr_against_recompute, 48.13 - 6.99), "{row:?}");
        assert!(near(row.worst_psnr_against_recompute, 48.13 - 9.54), "{row:?}");
        assert_eq!((row.ms_per_key_frame, row.flicker), (500.0, Some((69.0 + 12.0) / 2.0)));
        Ok(())
    }

    #[test]
    fn ways_differ_in_context_alone() {
        let settings = Settings {
            steps: 4,
            guidance_scale: 1.0,
            lora_scale: 1.0,
            seed: 3,
            prompt: String::new(),
            context_frames: 5,
            context_mode: ContextMode::Cache,
        };
        let of = |way| setting(&settings, way);
        assert_eq!((of(0).context_frames, of(1).context_frames, of(2).context_frames), (0, 5, 5));
        assert_eq!((of(1).context_mode, of(2).context_mode), (ContextMode::Cache, ContextMode::Recompute));
        assert_eq!(Settings { context_frames: 5, ..of(0) }, of(1));
        assert_eq!((order(0), order(3)), (vec![0, 1, 2], vec![2, 1, 0]));
    }
}
