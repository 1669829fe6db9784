//! The same pictures from the same input, whatever the number of threads.

mod tiny;

use keyframed_engine::{Frame, Interpolator, KeyframeGenerator};
use keyframed_models::{ContextMode, FilmInterpolator, LcmGenerator, ModelDir, Placement, Settings};
use std::path::Path;
use tiny::Tiny;

fn on(threads: usize) -> Placement {
    Placement { threads: Some(threads), device: "cpu".parse().unwrap(), dtype: "f32".parse().unwrap() }
}

/// A disc that moves over stripes: what the networks see differs everywhere.
fn picture(model: &ModelDir, n: u32) -> Frame {
    let size = model.manifest().image;
    let pixel = |i: u32| {
        let (x, y) = (i % size.width, i / size.width);
        let inside = x.abs_diff(size.width / 3 + 5 * n).pow(2) + y.abs_diff(size.height / 2).pow(2) < 900;
        if inside { [200, 90, 40 + n as u8] } else { [(x * 5) as u8, (y * 3) as u8, 84] }
    };
    let bytes: Vec<u8> = (0..size.width * size.height).flat_map(pixel).collect();
    Frame::new(size.width, size.height, bytes).unwrap()
}

/// Key frames of three poses, and in-betweens of the first two.
fn made(model: &ModelDir, settings: &Settings, threads: usize) -> Vec<Frame> {
    let mut generator = LcmGenerator::new(model, settings.clone(), on(threads)).unwrap();
    generator.set_reference(&picture(model, 9)).unwrap();
    let mut frames: Vec<_> =
        (0..3).map(|n| generator.generate(&picture(model, n), u64::from(n) * 40_000_000).unwrap()).collect();
    let mut film = FilmInterpolator::new(model, on(threads)).unwrap();
    let between = [0.5, 0.25].map(|t| film.interpolate(&frames[0], &frames[1], t).unwrap());
    frames.extend(between);
    frames
}

#[track_caller]
fn same_on_one_and_two(model: &ModelDir, settings: &Settings) {
    let (one, again, two) = (made(model, settings, 1), made(model, settings, 1), made(model, settings, 2));
    assert_ne!(one[0], one[1], "the pose changes nothing");
    for (n, frame) in one.iter().enumerate() {
        assert!(*frame == again[n], "picture {n} differs between two runs");
        assert!(*frame == two[n], "picture {n} differs between one thread and two");
    }
}

#[test]
fn the_embedded_model() {
    let model = ModelDir::load(Path::new(env!("CARGO_MANIFEST_DIR")).join("mini")).unwrap();
    same_on_one_and_two(&model, &Settings { seed: 3, ..Settings::of(&model) });
}

#[test]
fn a_model_with_motion_modules_and_guidance() {
    let dir = tempfile::tempdir().unwrap();
    Tiny::new(dir.path());
    let model = ModelDir::load(dir.path()).unwrap();
    for context_mode in [ContextMode::Cache, ContextMode::Recompute] {
        let settings =
            Settings { context_frames: 2, guidance_scale: 3.0, context_mode, ..Settings::of(&model) };
        same_on_one_and_two(&model, &settings);
    }
}
