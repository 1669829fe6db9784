//! Selection must stay below 1 ms per 512×512 pose frame on one core: a thumbnail, and its MSE from the key pose.

use std::{hint::black_box, time::Duration};

use criterion::{Criterion, criterion_group, criterion_main};
use keyframed_engine::{Crossfade, Frame, Interpolator, Labels, SelectConfig, Selector, Thumbnail, Warp};

/// Something with edges everywhere, moved by `shift` pixels.
fn picture(width: u32, height: u32, shift: u32) -> Frame {
    let pixel = |x: u32, y: u32| match ((x + shift) / 32 + y / 32) % 3 {
        0 => [68u8, 1, 84],
        1 => [44, 113, 142],
        _ => [226, 228, 24],
    };
    let data: Vec<u8> = (0..height).flat_map(|y| (0..width).flat_map(move |x| pixel(x, y))).collect();
    Frame::new(width, height, data).expect("a picture")
}

fn selection(c: &mut Criterion) {
    let mut group = c.benchmark_group("selection");
    for (width, height) in [(256, 256), (512, 512), (640, 480), (1920, 1080)] {
        let frames = [picture(width, height, 0), picture(width, height, 3)];
        let mut selector = Selector::new(SelectConfig::default()).expect("good settings");
        let mut n = 0;
        group.bench_function(format!("push {width}x{height}"), |b| {
            b.iter(|| {
                n += 1;
                selector.push(black_box(&frames[n % 2]), n as u64)
            });
        });
    }
    let (a, b) = (Thumbnail::new(&picture(512, 512, 0)), Thumbnail::new(&picture(512, 512, 3)));
    group.bench_function("mse", |bench| bench.iter(|| black_box(&a).mse(black_box(&b))));
    group.finish();
}

fn pictures(c: &mut Criterion) {
    let (a, b) = (picture(512, 512, 0), picture(512, 512, 6));
    let mut group = c.benchmark_group("512x512");
    group.bench_function("labels", |bench| bench.iter(|| Labels::from_frame(black_box(&a))));
    group.bench_function("cross-fade", |bench| bench.iter(|| Crossfade.interpolate(black_box(&a), &b, 0.4)));
    group.bench_function("warp", |bench| bench.iter(|| Warp.interpolate(black_box(&a), &b, 0.4)));
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_millis(500));
    targets = selection, pictures
}
criterion_main!(benches);
