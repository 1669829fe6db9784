//! The figure renderer, on the rig that `KEYFRAMED_RIG` names.

use std::time::Instant;

use keyframed_train::synth::{
    Action, Backdrop, Camera, Framing, GALLERY, Motion, Person, Pose, Rig, Shot, avatar, degrade, render,
};
use rand::{Rng as _, SeedableRng};
use rand_chacha::ChaCha8Rng;

const SIZE: usize = 256;

/// The rig, or nothing with a reason printed.
fn rig() -> Option<Rig> {
    let Some(path) = Rig::default_path().filter(|p| p.exists()) else {
        eprintln!("skipped: KEYFRAMED_RIG names no file; models/training/synth/export_rig.py makes one");
        return None;
    };
    match Rig::load(&path) {
        Ok(rig) => Some(rig),
        Err(error) => panic!("{error:#}"),
    }
}

fn any(rig: &Rig, person: &Person, rng: &mut ChaCha8Rng) -> Shot {
    let shape = rng.random_range(0..rig.shapes());
    let (pose, camera) = (Pose::random(rng), Camera::random(rng));
    render(rig, person, shape, &pose, &camera, SIZE)
}

/// Intersection over union of two masks.
fn iou(a: impl Iterator<Item = bool>, b: impl Iterator<Item = bool>) -> f64 {
    let (mut both, mut either) = (0.0, 0.0);
    for (a, b) in a.zip(b) {
        both += f64::from(u8::from(a && b));
        either += f64::from(u8::from(a || b));
    }
    both / f64::max(either, 1.0)
}

#[test]
fn a_seed_repeats_itself() {
    let Some(rig) = rig() else { return };
    let draw = |seed| {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let person = Person::random(&mut rng);
        let shot = any(&rig, &person, &mut rng);
        let worse = degrade(&shot.labels, 1.0, &mut rng);
        (person, shot, worse)
    };
    assert_eq!(draw(11), draw(11));
    assert_ne!(draw(11).1, draw(12).1);
}

#[test]
fn labels_name_all_parts() {
    let Some(rig) = rig() else { return };
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut pixels = [0usize; 25];
    for _ in 0..60 {
        let person = Person::random(&mut rng);
        for label in any(&rig, &person, &mut rng).labels {
            pixels[usize::from(label)] += 1;
        }
    }
    assert!(pixels.iter().all(|&n| n > 500), "pixels of each label: {pixels:?}");
}

/// A figure facing the camera has its left (even arm parts' partner, part 24 of the head) on the picture's right.
#[test]
fn labels_know_left_and_front() {
    let Some(rig) = rig() else { return };
    let camera = Camera::reference(Framing::Full, &mut ChaCha8Rng::seed_from_u64(2));
    let shot = |yaw| {
        let pose = Pose { yaw, ..Pose::default() };
        render(&rig, &Person::gallery(1), 0, &pose, &camera, SIZE).labels
    };
    let mean_x = |labels: &[u8], part: u8| {
        let xs: Vec<usize> = (0..labels.len()).filter(|&i| labels[i] == part).map(|i| i % SIZE).collect();
        assert!(!xs.is_empty(), "part {part} is not to be seen");
        xs.iter().sum::<usize>() as f64 / xs.len() as f64
    };
    let front = shot(0.0);
    // Right hand, foot, thigh, shin and half of the head; then their left partners.
    for (right, left) in [(3, 4), (6, 5), (9, 10), (13, 14), (18, 17), (23, 24)] {
        assert!(mean_x(&front, right) < mean_x(&front, left), "parts {right} and {left}");
    }
    let count = |labels: &[u8], part: u8| labels.iter().filter(|&&l| l == part).count();
    assert!(count(&front, 2) > 20 * count(&front, 1), "the chest shows");
    let back = shot(std::f32::consts::PI);
    assert!(count(&back, 1) > 20 * count(&back, 2), "the back shows");
    assert!(mean_x(&back, 23) > mean_x(&back, 24), "the head is turned too");
}

/// Without skirts and long hair, which labels leave out, picture and labels have one silhouette.
#[test]
fn pictures_and_labels_agree() {
    let Some(rig) = rig() else { return };
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let (mut worst, mut total) = (1.0, 0.0);
    let count = 40;
    for index in 0..count {
        let mut person = Person::gallery([1, 3, 5, 6, 9, 10][index % 6]);
        let (shape, pose, camera) =
            (rng.random_range(0..rig.shapes()), Pose::random(&mut rng), Camera::random(&mut rng));
        let mut on = |colour| {
            person.backdrop = Backdrop::plain(colour);
            render(&rig, &person, shape, &pose, &camera, SIZE)
        };
        let (dark, light) = (on([0.0; 3]), on([1.0; 3]));
        // The figure is where less than half of the background shines through.
        let figure = dark.rgb.chunks_exact(3).zip(light.rgb.chunks_exact(3)).map(|(d, l)| l[1] - d[1] < 128);
        let score = iou(figure, dark.labels.iter().map(|&l| l != 0));
        worst = f64::min(worst, score);
        total += score / count as f64;
    }
    eprintln!("silhouette IoU of picture and labels: mean {total:.4}, worst {worst:.4}");
    assert!(worst > 0.95, "{worst}");
}

#[test]
fn motions_are_continuous() {
    let Some(rig) = rig() else { return };
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    let camera = Camera { follow: 0.3, ..Camera::reference(Framing::Full, &mut rng) };
    for action in Action::ALL {
        let motion = Motion::new(action, 9);
        let at = |t: f32| render(&rig, &Person::gallery(1), 2, &motion.pose(t), &camera, SIZE).labels;
        let worst = (0..40)
            .map(|k| {
                let t = k as f32 * 0.173;
                let (before, after) = (at(t), at(t + 0.004));
                iou(before.into_iter().map(|l| l != 0), after.into_iter().map(|l| l != 0))
            })
            .fold(1.0, f64::min);
        assert!(worst > 0.93, "{action:?} jumps: silhouettes 4 ms apart overlap by {worst}");
    }
}

#[test]
fn worse_labels_keep_the_figure() {
    let Some(rig) = rig() else { return };
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    for index in 0..20 {
        let shot = any(&rig, &Person::gallery(index), &mut rng);
        assert_eq!(degrade(&shot.labels, 0.0, &mut rng), shot.labels, "strength 0 changes nothing");
        let worse = degrade(&shot.labels, 1.0, &mut rng);
        assert_ne!(worse, shot.labels);
        assert!(worse.iter().all(|&l| l <= 24));
        let overlap = iou(worse.iter().map(|&l| l != 0), shot.labels.iter().map(|&l| l != 0));
        assert!(overlap > 0.7, "figure {index}: {overlap}");
    }
}

#[test]
fn characters_differ() {
    let Some(rig) = rig() else { return };
    let pictures: Vec<Shot> = (0..GALLERY.len()).map(|i| avatar(&rig, i, 64)).collect();
    for (i, a) in pictures.iter().enumerate() {
        for (j, b) in pictures.iter().enumerate().skip(i + 1) {
            let difference = a.rgb.iter().zip(&b.rgb).map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>();
            let mean = difference / a.rgb.len() as f64;
            assert!(mean > 8.0, "{} and {} differ by {mean}", GALLERY[i], GALLERY[j]);
        }
    }
}

#[test]
fn any_size_is_drawn() {
    let Some(rig) = rig() else { return };
    for size in [1, 33, 512] {
        let shot = avatar(&rig, 0, size);
        assert_eq!((shot.rgb.len(), shot.labels.len()), (size * size * 3, size * size));
    }
}

#[test]
fn damaged_rigs_are_refused() {
    let Some(path) = Rig::default_path().filter(|p| p.exists()) else { return eprintln!("skipped: no rig") };
    let Ok(bytes) = std::fs::read(path) else { return eprintln!("skipped: the rig cannot be read") };
    let Ok(dir) = tempfile::tempdir() else { panic!("no folder for temporary files") };
    for keep in [0, 7, 100, bytes.len() / 2, bytes.len() - 1] {
        let damaged = dir.path().join("rig.safetensors");
        std::fs::write(&damaged, &bytes[..keep]).unwrap_or_else(|e| panic!("{e}"));
        assert!(Rig::load(&damaged).is_err(), "a rig of {keep} bytes loads");
    }
}

/// Printed, not asserted: machines differ.
#[test]
fn speed() {
    let Some(rig) = rig() else { return };
    let mut rng = ChaCha8Rng::seed_from_u64(6);
    let people: Vec<Person> = (0..10).map(|_| Person::random(&mut rng)).collect();
    let start = Instant::now();
    for person in people.iter().cycle().take(60) {
        std::hint::black_box(any(&rig, person, &mut rng));
    }
    eprintln!("{:.0} pictures with labels a second at {SIZE}x{SIZE}", 60.0 / start.elapsed().as_secs_f64());
}
