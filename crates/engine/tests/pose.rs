//! Labels, palettes and thumbnails.

use keyframed_engine::{
    EngineError, Frame, Labels, Palette, Thumbnail,
    pose::{LABELS, NOT_DENSEPOSE, off_palette_share},
    thumbnail::SIDE,
};
use proptest::{collection::vec, prelude::*};

fn labels(max_side: u32) -> impl Strategy<Value = Labels> {
    (1..=max_side, 1..=max_side).prop_flat_map(|(w, h)| {
        let data = vec(0..LABELS as u8, (w * h) as usize);
        data.prop_map(move |data| Labels::new(w, h, data).unwrap())
    })
}

fn frames(max_side: u32) -> impl Strategy<Value = Frame> {
    (1..=max_side, 1..=max_side).prop_flat_map(|(w, h)| {
        vec(any::<u8>(), (w * h * 3) as usize).prop_map(move |data| Frame::new(w, h, data).unwrap())
    })
}

/// Rectangles of parts on background, none thinner than `least` pixels and all 6 pixels apart.
fn figure(parts: &[u8], least: usize) -> Labels {
    let (pitch, rows) = (least + 6, parts.len());
    let (width, height) = (3 * pitch, rows * pitch);
    let mut data = vec![0; width * height];
    for y in 0..height {
        for x in pitch..pitch + least {
            if y % pitch < least {
                data[y * width + x] = parts[y / pitch];
            }
        }
    }
    Labels::new(width as u32, height as u32, data).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn clean_pictures_come_back_exactly(labels in labels(40)) {
        prop_assert_eq!(Labels::from_frame(&labels.colours(Palette::Viridis)), labels);
    }

    #[test]
    fn noise_of_six_levels_only_frays_the_borders(
        parts in vec(1..LABELS as u8, 1..5), least in 12..30usize, seed in any::<u64>(),
    ) {
        let labels = figure(&parts, least);
        let noisy = add_noise(&labels.colours(Palette::Viridis), 6, seed);
        let back = Labels::from_frame(&noisy);
        let (mut wrong, mut wrong_inside, mut inside) = (0, 0, 0);
        let (width, height) = (labels.width() as usize, labels.height() as usize);
        for (at, (got, want)) in back.data().iter().zip(labels.data()).enumerate() {
            let (x, y) = (at % width, at / width);
            let around = [(2, 2), (2, -2), (-2, 2), (-2, -2)].map(|(dx, dy)| {
                let (x, y) = (x as i32 + dx, y as i32 + dy);
                labels.data()[y.clamp(0, height as i32 - 1) as usize * width + x.clamp(0, width as i32 - 1) as usize]
            });
            let is_inside = around.iter().all(|l| l == want);
            inside += usize::from(is_inside && *want > 0);
            wrong += usize::from(got != want);
            wrong_inside += usize::from(is_inside && got != want);
        }
        // Neighbouring colours lie as little as 9 levels apart: only the borders may suffer.
        let figure = labels.data().iter().filter(|&&l| l > 0).count();
        prop_assert!(wrong * 4 <= figure, "{wrong} of {figure} pixels of the figure are wrong");
        prop_assert!(wrong_inside * 20 <= inside, "{wrong_inside} of {inside} pixels inside are wrong");
    }

    #[test]
    fn a_blended_border_makes_no_third_part(a in 0..LABELS as u8, b in 0..LABELS as u8, share in 1..256u32) {
        let palette = Palette::Viridis.colours();
        let blend: Vec<u8> = (0..3).map(|c| {
            let (a, b) = (u32::from(palette[a as usize][c]), u32::from(palette[b as usize][c]));
            ((a * (256 - share) + b * share) / 256) as u8
        }).collect();
        // A pixel in exactly a part's colour is that part: halfway between 8 and 11 lies the colour of 10.
        prop_assume!(palette.iter().zip(0..).all(|(colour, part)| part == a || part == b || colour[..] != blend[..]));
        // The codec's shift: no pixel has a palette colour exactly.
        let shift = |c: &[u8]| c.iter().map(|&v| v.saturating_sub(2)).collect::<Vec<u8>>();
        let (left, right) = (shift(&palette[a as usize]), shift(&palette[b as usize]));
        let row: Vec<u8> = (0..24).flat_map(|x| match x { 0..11 => left.clone(), 11..13 => blend.clone(), _ => right.clone() }).collect();
        let frame = Frame::new(24, 16, row.repeat(16)).unwrap();
        for label in Labels::from_frame(&frame).data() {
            prop_assert!(*label == a || *label == b, "{label} between {a} and {b}");
        }
    }

    #[test]
    fn thumbnails_compare_symmetrically_and_zero_means_same(a in frames(40), b in frames(40)) {
        let (a, b) = (Thumbnail::new(&a), Thumbnail::new(&b));
        prop_assert_eq!(a.mse(&b), b.mse(&a));
        prop_assert_eq!(a.mse(&b) == 0.0, a == b);
        prop_assert_eq!(a.mse(&a.clone()), 0.0);
        prop_assert!((0.0..=1.0).contains(&a.mse(&b)));
    }

    #[test]
    fn thumbnails_are_area_averages(w in prop_oneof![1..600u32, Just(256), Just(512)], h in 1..600u32, seed in any::<u64>()) {
        let frame = add_noise(&Frame::filled(w, h, [128, 60, 200]).unwrap(), 55, seed);
        let thumbnail = Thumbnail::new(&frame);
        for (x, y) in [(0, 0), (255, 255), (seed as usize % 256, (seed >> 8) as usize % 256), (128, 3)] {
            for c in 0..3 {
                let want = area_average(&frame, x, y, c);
                let got = f64::from(thumbnail.data()[(y * SIDE + x) * 3 + c]);
                prop_assert!((want - got).abs() <= 0.501, "{want} at {x},{y}: {got}");
            }
        }
    }

    #[test]
    fn resizing_keeps_labels(labels in labels(30), w in 1..60u32, h in 1..60u32) {
        let out = labels.resized(w, h).unwrap();
        prop_assert_eq!((out.width(), out.height()), (w, h));
        prop_assert!(out.data().iter().all(|l| labels.data().contains(l)));
        prop_assert_eq!(labels.resized(labels.width(), labels.height()).unwrap(), labels.clone());
        let double = labels.resized(labels.width() * 2, labels.height() * 2).unwrap();
        prop_assert_eq!(double.resized(labels.width(), labels.height()).unwrap(), labels);
    }
}

/// Adds up to `most` levels either way to every channel, from a small xorshift generator.
fn add_noise(frame: &Frame, most: i32, seed: u64) -> Frame {
    let mut state = seed | 1;
    let noisy = |&v: &u8| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (i32::from(v) + (state >> 33) as i32 % (2 * most + 1) - most).clamp(0, 255) as u8
    };
    Frame::new(frame.width(), frame.height(), frame.data().iter().map(noisy).collect::<Vec<u8>>()).unwrap()
}

/// The average of channel `c` over what thumbnail pixel (x, y) covers, in floating point.
fn area_average(frame: &Frame, x: usize, y: usize, c: usize) -> f64 {
    let cover = |i: usize, n: u32| {
        let (from, to) = (i as f64 * f64::from(n) / 256.0, (i + 1) as f64 * f64::from(n) / 256.0);
        let last = (to.ceil() as u32).min(n);
        (from as u32..last).map(move |p| (p, to.min(f64::from(p) + 1.0) - from.max(f64::from(p))))
    };
    let (mut sum, mut area) = (0.0, 0.0);
    for (py, wy) in cover(y, frame.height()) {
        for (px, wx) in cover(x, frame.width()) {
            sum += wx * wy * f64::from(frame.pixel(px, py).unwrap()[c]);
            area += wx * wy;
        }
    }
    sum / area
}

#[test]
fn spread_colours_are_far_apart_and_pairs_farther() {
    let colours = Palette::Spread.colours();
    let distance = |a: usize, b: usize| -> f64 {
        (0..3).map(|c| (f64::from(colours[a][c].abs_diff(colours[b][c])) / 255.0).powi(2)).sum::<f64>().sqrt()
    };
    for a in 0..LABELS {
        for b in 0..a {
            assert!(distance(a, b) >= 0.4, "labels {a} and {b}");
        }
    }
    for part in (1..LABELS).step_by(2) {
        assert!(distance(part, part + 1) >= 0.99, "parts {part} and {}", part + 1);
    }
    assert_eq!(colours[0], [0, 0, 0]);
}

#[test]
fn extreme_sizes_have_thumbnails() {
    let one = Thumbnail::new(&Frame::filled(1, 1, [9, 8, 7]).unwrap());
    assert_eq!(one, Thumbnail::new(&Frame::filled(512, 512, [9, 8, 7]).unwrap()));
    assert_eq!(one, Thumbnail::new(&Frame::filled(7680, 4320, [9, 8, 7]).unwrap()));
    assert_eq!(one, Thumbnail::new(&Frame::filled(3, 5000, [9, 8, 7]).unwrap()));
    let (black, white) = (Frame::filled(7, 5, [0; 3]).unwrap(), Frame::filled(900, 2, [255; 3]).unwrap());
    assert_eq!(Thumbnail::new(&black).mse(&Thumbnail::new(&white)), 1.0);
}

#[test]
fn what_is_not_densepose_is_told_by_its_colours() {
    let pose = figure(&[1, 9, 17, 24], 40).colours(Palette::Viridis);
    assert_eq!(off_palette_share(&pose), 0.0);
    assert_eq!(off_palette_share(&add_noise(&pose, 6, 1)), 0.0);
    let grey: Vec<u8> = (0..64 * 64).flat_map(|i| [(i / 16) as u8; 3]).collect();
    assert!(off_palette_share(&Frame::new(64, 64, grey).unwrap()) > NOT_DENSEPOSE);
}

#[test]
fn bad_maps_are_refused() {
    assert_eq!(Labels::new(2, 1, vec![0, 25]), Err(EngineError::BadLabel(25)));
    assert_eq!(Labels::new(2, 2, vec![0; 3]), Err(EngineError::BadLength { needed: 4, got: 3 }));
    assert_eq!(Labels::new(0, 2, vec![]), Err(EngineError::BadSize { width: 0, height: 2 }));
    let labels = Labels::new(1, 1, vec![3]).unwrap();
    assert_eq!(labels.resized(1, 0), Err(EngineError::BadSize { width: 1, height: 0 }));
    assert_eq!(labels.resized(3, 2).unwrap().data(), [3; 6]);
}

#[test]
fn shrinking_takes_the_majority() {
    #[rustfmt::skip]
    let labels = Labels::new(4, 2, vec![
        5, 5, 0, 7,
        5, 1, 7, 7,
    ]).unwrap();
    assert_eq!(labels.resized(2, 1).unwrap().data(), [5, 7]);
}
