//! What came of FasterVD's comparison: sums, table and JSON.

use super::{
    super::{
        Clip, Kind, Made, flicker,
        flicker::{Average, levels},
    },
    Way,
};
use crate::eval::{Mean, Quality, quality};
use serde::Serialize;
use std::fmt;

/// How one way did over all clips.
#[derive(Debug, Serialize)]
pub struct Row {
    /// a to e.
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
    /// Threads of one operation in (a) and (b); in (c) to (e) generator and FILM share them.
    pub threads: usize,
    /// Threads of the generator in (c) to (e).
    pub generator_threads: usize,
    /// Threads of FILM in (c) to (e).
    pub film_threads: usize,
    /// The truth's own change where nothing moves.
    pub truth_flicker: Option<f64>,
    /// (a) to (e).
    pub ways: Vec<Row>,
}

/// Sums of one way.
#[derive(Debug, Default)]
pub(super) struct Total {
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
    pub(super) fn add(&mut self, clip: &Clip, made: &Made, reference_seconds: f64, size: usize) {
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

    pub(super) fn row(&self, way: Way, first: &Self) -> Row {
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
            "(a) and (b) on {} threads; (c) to (e): generator {}, FILM {}\n",
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
}
