//! The contact sheet: a few moments of the run in columns; pose, key frame and in-between in rows.

use std::path::Path;

use anyhow::Context as _;
use image::{RgbImage, imageops};
use keyframed_engine::{Frame, Nanos, SECOND};

use crate::font;

/// Most columns of a sheet.
const COLUMNS: usize = 10;
/// Longest side of a picture on the sheet, in pixels.
const CELL: u32 = 192;
/// Space around pictures, in pixels.
const GAP: u32 = 6;
/// Height of the line of times above the columns.
const HEADER: u32 = 2 * LETTER_SCALE * font::HEIGHT + 2 * GAP;
/// Width of the row names at the left.
const MARGIN: u32 = 10 * LETTER_SCALE * font::ADVANCE + 2 * GAP;
/// Pixels on the sheet for one of a letter.
const LETTER_SCALE: u32 = 2;
const PAPER: image::Rgb<u8> = image::Rgb([250, 250, 248]);
const INK: image::Rgb<u8> = image::Rgb([40, 40, 46]);
/// Names of the rows, top to bottom.
const ROWS: [&str; 3] = ["POSE", "KEY FRAME", "BETWEEN"];

/// One key pose and what was made of it.
#[derive(Debug)]
struct Column {
    at: Nanos,
    /// Time of the following key pose, once it is known.
    next: Option<Nanos>,
    pose: RgbImage,
    key: Option<RgbImage>,
    /// The output nearest to the middle of the way to the next key frame, and its distance from there.
    between: Option<(Nanos, RgbImage)>,
}

/// Keeps an even sample of the key poses of a run of any length: every `stride`-th, and when there are twice as
/// many as a sheet takes, half of them go and the stride doubles.
#[derive(Debug)]
pub struct Sampler {
    stride: u64,
    columns: Vec<Column>,
}

impl Sampler {
    /// Without pictures.
    pub fn new() -> Self {
        Self { stride: 1, columns: Vec::new() }
    }

    /// Key pose number `index`, at `at`.
    pub fn key_pose(&mut self, index: u64, at: Nanos, frame: impl FnOnce() -> Option<Frame>) {
        if let Some(last) = self.columns.last_mut() {
            last.next.get_or_insert(at);
        }
        if !index.is_multiple_of(self.stride) {
            return;
        }
        let Some(pose) = frame().and_then(thumbnail) else { return };
        self.columns.push(Column { at, next: None, pose, key: None, between: None });
        if self.columns.len() > 2 * COLUMNS {
            self.stride *= 2;
            let mut index = 0;
            self.columns.retain(|_| {
                index += 1;
                index % 2 == 1
            });
        }
    }

    /// The key frame for the key pose at `at`.
    pub fn key_frame(&mut self, at: Nanos, frame: impl FnOnce() -> Option<Frame>) {
        if let Some(column) = self.columns.iter_mut().rev().find(|column| column.at == at) {
            column.key = frame().and_then(thumbnail);
        }
    }

    /// An output frame at `at`.
    pub fn output(&mut self, at: Nanos, frame: impl FnOnce() -> Option<Frame>) {
        let holds = |column: &&mut Column| column.at < at && column.next.is_some_and(|next| at < next);
        let Some(column) = self.columns.iter_mut().rev().find(holds) else { return };
        let middle = column.next.map_or(at, |next| column.at.midpoint(next));
        let distance = at.abs_diff(middle);
        if column.between.as_ref().is_none_or(|(best, _)| distance < *best) {
            column.between = frame().and_then(thumbnail).map(|picture| (distance, picture));
        }
    }

    /// Draws the sheet and writes it as a PNG.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, path: &Path) -> anyhow::Result<()> {
        let shown = path.display();
        self.draw()
            .save_with_format(path, image::ImageFormat::Png)
            .with_context(|| format!("{shown} cannot be written"))
    }

    /// At most [`COLUMNS`] columns, evenly from those kept; with in-betweens if any have them.
    fn chosen(&self) -> Vec<&Column> {
        let full: Vec<_> = self.columns.iter().filter(|c| c.key.is_some() && c.between.is_some()).collect();
        let all: Vec<_> = if full.is_empty() { self.columns.iter().collect() } else { full };
        let count = all.len().min(COLUMNS);
        (0..count).map(|i| all[i * all.len() / count]).collect()
    }

    fn draw(&self) -> RgbImage {
        let columns = self.chosen();
        let width = MARGIN + columns.len().max(1) as u32 * (CELL + GAP) + GAP;
        let height = HEADER + ROWS.len() as u32 * (CELL + GAP) + GAP;
        let mut sheet = RgbImage::from_pixel(width, height, PAPER);
        for (row, name) in ROWS.iter().enumerate() {
            let y = HEADER + row as u32 * (CELL + GAP) + (CELL - LETTER_SCALE * font::HEIGHT) / 2;
            font::draw(&mut sheet, (GAP, y), LETTER_SCALE, name, INK);
        }
        for (i, column) in columns.iter().enumerate() {
            let x = MARGIN + i as u32 * (CELL + GAP);
            let time = format!("{:.2} S", column.at as f64 / SECOND as f64);
            font::draw(&mut sheet, (x, GAP), LETTER_SCALE, &time, INK);
            let pictures = [Some(&column.pose), column.key.as_ref(), column.between.as_ref().map(|(_, p)| p)];
            for (row, picture) in pictures.into_iter().enumerate() {
                let Some(picture) = picture else { continue };
                let y = HEADER + row as u32 * (CELL + GAP);
                let (left, top) = ((CELL - picture.width()) / 2, (CELL - picture.height()) / 2);
                imageops::replace(&mut sheet, picture, i64::from(x + left), i64::from(y + top));
            }
        }
        sheet
    }
}

/// A copy that fits a cell.
fn thumbnail(frame: Frame) -> Option<RgbImage> {
    let (width, height) = (frame.width(), frame.height());
    let picture = RgbImage::from_raw(width, height, frame.data().to_vec())?;
    let scale = f64::from(CELL) / f64::from(width.max(height));
    let side = |pixels: u32| ((f64::from(pixels) * scale).round() as u32).clamp(1, CELL);
    Some(imageops::resize(&picture, side(width), side(height), imageops::FilterType::Triangle))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(grey: u8) -> Option<Frame> {
        Frame::filled(64, 32, [grey; 3]).ok()
    }

    /// A run with a key pose every four ticks of 10 ns.
    fn run(keys: u64) -> Sampler {
        let mut sampler = Sampler::new();
        for key in 0..keys {
            sampler.key_pose(key, key * 40, || frame(key as u8));
            sampler.key_frame(key * 40, || frame(100));
            for tick in (key.saturating_sub(1) * 4)..key * 4 {
                sampler.output(tick * 10, || frame(200));
            }
        }
        sampler
    }

    #[test]
    fn long_runs_keep_an_even_sample() {
        for keys in [1, 2, 7, 20, 21, 22, 1000] {
            let sampler = run(keys);
            assert!(sampler.columns.len() <= 2 * COLUMNS);
            let times: Vec<_> = sampler.chosen().iter().map(|column| column.at).collect();
            let expected = keys.clamp(1, COLUMNS as u64) as usize;
            assert!(
                times.len() <= COLUMNS && times.len() + 1 >= expected.min(keys as usize),
                "{keys}: {times:?}"
            );
            let gaps: Vec<_> = times.windows(2).map(|w| w[1] - w[0]).collect();
            let (least, most) =
                (gaps.iter().min().copied().unwrap_or(0), gaps.iter().max().copied().unwrap_or(0));
            assert!(most <= 2 * least, "{keys}: {times:?}");
        }
    }

    #[test]
    fn the_between_is_the_one_in_the_middle() {
        let mut sampler = Sampler::new();
        sampler.key_pose(0, 0, || frame(0));
        sampler.key_frame(0, || frame(1));
        sampler.key_pose(1, 40, || frame(0));
        for tick in 0..4 {
            sampler.output(tick * 10, || frame(10 * tick as u8));
        }
        let (_, picture) = sampler.columns[0].between.as_ref().unwrap();
        assert_eq!(picture.get_pixel(0, 0).0, [20; 3]);
    }

    #[test]
    fn an_empty_sheet_can_be_drawn() {
        assert!(Sampler::new().draw().width() > MARGIN);
    }
}
