//! Poses to play: real ones where they are at hand, else a figure that is drawn.

use std::{f64::consts::TAU, path::Path};

use keyframed_engine::{Frame, Thumbnail};

#[path = "../common/mod.rs"]
mod common;

/// Films by name.
pub fn films() -> Vec<(String, Vec<Thumbnail>)> {
    let mut films = vec![("drawn".into(), figure(100))];
    if let Some(folder) = common::shared()
        && common::ffmpeg_exists()
    {
        for name in ["dancing2", "demo4", "running"] {
            films.push((name.into(), clip(&folder.join("driving").join(format!("{name}.mp4")))));
        }
    }
    films
}

fn clip(path: &Path) -> Vec<Thumbnail> {
    common::decode(path).iter().map(Thumbnail::new).collect()
}

/// A body that sways and two arms that swing, at 25 frames a second.
pub fn figure(frames: usize) -> Vec<Thumbnail> {
    (0..frames).map(|i| Thumbnail::new(&draw(i as f64 / 25.0))).collect()
}

fn draw(time: f64) -> Frame {
    let sway = 6.0 * (TAU * time * 0.4).sin();
    let arms = [1.1, 0.7].map(|hertz| 1.2 * (TAU * time * hertz).sin());
    let pixel = |x: f64, y: f64| {
        let (x, y) = (x - 48.0 - sway, y - 40.0);
        let along = |angle: f64, side: f64| {
            let (sin, cos) = angle.sin_cos();
            let (across, down) = (side * x * cos - y * sin, side * x * sin + y * cos);
            (0.0..36.0).contains(&down) && across.abs() < 5.0
        };
        match () {
            () if x.abs() < 12.0 && y.abs() < 30.0 => [220, 210, 40],
            () if along(arms[0], 1.0) => [60, 90, 140],
            () if along(arms[1], -1.0) => [40, 150, 120],
            () => [68, 1, 84],
        }
    };
    let row = |y: u32| (0..96u32).flat_map(move |x| pixel(f64::from(x), f64::from(y)));
    Frame::new(96, 96, (0..96).flat_map(row).collect::<Vec<u8>>()).unwrap()
}
