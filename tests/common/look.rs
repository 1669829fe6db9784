//! Looking at pictures as a viewer would: alike or not, moving or not.

use std::path::Path;

use image::{DynamicImage, RgbImage, imageops};

/// Wants moving pictures, and of what was shown meanwhile. Few of them may have passed unseen.
#[track_caller]
pub fn judge(name: &str, pictures: &[RgbImage], shown: &[RgbImage]) {
    let row = |pictures: &[RgbImage]| {
        let step = pictures.len().div_ceil(10).max(1);
        pictures.iter().step_by(step).cloned().collect()
    };
    save_sheet(name, &[row(shown), row(pictures)]);
    let moved = pictures.windows(2).filter(|pair| difference(&pair[0], &pair[1]) > 0.5).count();
    assert!(moved * 20 > pictures.len(), "{name}: only {moved} of {} pictures moved", pictures.len());
    let album = Album::new(shown);
    let mut likeness: Vec<_> = pictures.iter().map(|picture| album.likeness(picture)).collect();
    likeness.sort_unstable_by(f64::total_cmp);
    let (worst, most) = (likeness[0], likeness[likeness.len() / 10]);
    assert!(most > 0.7, "{name}: only {most:.2} like anything that was shown, the worst {worst:.2}");
    // None of them would be taken for another avatar.
    let other = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/mini/avatars/mara.png");
    let strange = album.likeness(&image::open(other).unwrap().to_rgb8());
    assert!(strange < 0.5, "{name}: another avatar is {strange:.2} like what was shown");
    eprintln!(
        "{name}: {} pictures, {moved} moved; {most:.2} like what was shown, the worst {worst:.2}, another avatar \
         {strange:.2}",
        pictures.len()
    );
}

/// Side of the copies that are compared: what a codec changes is gone at that size, what is in the picture is not.
const SIDE: u32 = 32;

/// Pictures that were shown, to tell others by. What they all have in common, such as the background, does not count.
struct Album {
    mean: Vec<f64>,
    pictures: Vec<Vec<f64>>,
}

impl Album {
    fn new(shown: &[RgbImage]) -> Self {
        let small: Vec<_> = shown.iter().map(small).collect();
        let mean = (0..small[0].len())
            .map(|n| small.iter().map(|picture| picture[n]).sum::<f64>() / small.len() as f64)
            .collect();
        let mut album = Self { mean, pictures: Vec::new() };
        album.pictures = small.into_iter().map(|picture| album.apart(picture)).collect();
        album
    }

    /// How like one of them a picture is, whatever its size: 1 the same, 0 nothing in common.
    fn likeness(&self, picture: &RgbImage) -> f64 {
        let picture = self.apart(small(picture));
        self.pictures.iter().map(|shown| dot(&picture, shown)).fold(-1., f64::max)
    }

    /// What sets a picture apart, of length 1.
    fn apart(&self, picture: Vec<f64>) -> Vec<f64> {
        let apart: Vec<_> = picture.iter().zip(&self.mean).map(|(value, mean)| value - mean).collect();
        let length = dot(&apart, &apart).sqrt().max(1.);
        apart.into_iter().map(|value| value / length).collect()
    }
}

fn small(picture: &RgbImage) -> Vec<f64> {
    // By the type whose methods are compiled with the image crate, which is optimised.
    let small = DynamicImage::ImageRgb8(picture.clone()).thumbnail_exact(SIDE, SIDE);
    small.into_rgb8().into_raw().into_iter().map(f64::from).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

/// Mean difference of two pictures of the same size, in levels of 255.
fn difference(a: &RgbImage, b: &RgbImage) -> f64 {
    let pairs = a.as_raw().iter().zip(b.as_raw());
    pairs.map(|(x, y)| f64::from(x.abs_diff(*y))).sum::<f64>() / a.as_raw().len() as f64
}

/// A picture without its lowest 3/32, where the time code is.
pub fn without_time(picture: &RgbImage) -> RgbImage {
    imageops::crop_imm(picture, 0, 0, picture.width(), picture.height() * 29 / 32).to_image()
}

/// Rows of pictures on one sheet, to be looked at.
fn sheet(path: &Path, rows: &[Vec<RgbImage>]) {
    const CELL: u32 = 160;
    let width = rows.iter().map(Vec::len).max().unwrap_or(0) as u32;
    let mut sheet = RgbImage::new((width * CELL).max(1), (rows.len() as u32 * CELL).max(1));
    for (row, pictures) in rows.iter().enumerate() {
        for (column, picture) in pictures.iter().enumerate() {
            let cell = imageops::resize(picture, CELL - 4, CELL - 4, imageops::FilterType::Triangle);
            imageops::replace(&mut sheet, &cell, (column as u32 * CELL).into(), (row as u32 * CELL).into());
        }
    }
    sheet.save(path).unwrap();
}

/// Leaves a sheet in the folder that `KEYFRAMED_SHEETS` names, if it names one.
fn save_sheet(name: &str, rows: &[Vec<RgbImage>]) {
    if let Some(folder) = std::env::var_os("KEYFRAMED_SHEETS") {
        sheet(&Path::new(&folder).join(format!("{name}.png")), rows);
    }
}
