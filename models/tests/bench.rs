//! Operations are counted as arithmetic says, and a model's costs add up.

mod tiny;

use keyframed_models::{
    ModelDir, Placement, Schedule, Settings,
    bench::{Cost, Way, measure},
    torch_ext::operations,
};
use std::time::Duration;
use tch::{Device, Kind, Tensor};
use tiny::Tiny;

/// Of one operation, counted.
fn flop(work: impl FnOnce() -> Tensor) -> f64 {
    let (_, costs) = operations(work);
    assert!(costs.iter().all(|cost| cost.calls > 0 && cost.seconds >= 0.0));
    costs.iter().map(|cost| cost.flop).sum()
}

#[test]
fn products_are_counted_as_arithmetic_says() {
    let random = |shape: &[i64]| Tensor::randn(shape, (Kind::Float, Device::Cpu));
    let (x, w, b) = (random(&[2, 3, 10, 12]), random(&[5, 3, 3, 3]), random(&[5]));
    let convolve =
        |stride: i64, padding: i64| flop(|| x.conv2d(&w, Some(&b), [stride; 2], [padding; 2], [1, 1], 1));
    assert_eq!(convolve(1, 1), 2.0 * (2 * 5 * 10 * 12 * 3 * 9) as f64);
    assert_eq!(convolve(2, 1), 2.0 * (2 * 5 * 5 * 6 * 3 * 9) as f64);
    assert_eq!(convolve(1, 0), 2.0 * (2 * 5 * 8 * 10 * 3 * 9) as f64);
    assert_eq!(flop(|| random(&[7, 4]).linear(&random(&[6, 4]), None::<&Tensor>)), 2.0 * (7 * 4 * 6) as f64);
    assert_eq!(flop(|| random(&[2, 7, 4]).matmul(&random(&[4, 6]))), 2.0 * (2 * 7 * 4 * 6) as f64);
    // Eight queries and five keys, two heads of three: scores, and sums of values.
    let (q, k) = (random(&[1, 2, 8, 3]), random(&[1, 2, 5, 3]));
    let attend =
        || Tensor::scaled_dot_product_attention(&q, &k, &k, None::<&Tensor>, 0.0, false, None, false);
    assert_eq!(flop(attend), 4.0 * (2 * 8 * 5 * 3) as f64);
    assert_eq!(flop(|| &x + &x), 0.0);
}

#[test]
fn a_key_frame_costs_what_its_networks_cost() {
    let dir = tempfile::tempdir().unwrap();
    Tiny::new(dir.path());
    let model = ModelDir::load(dir.path()).unwrap();
    let made = |context_frames, steps, way| {
        let settings = Settings { context_frames, steps, ..Settings::of(&model) };
        let placement = |_| Placement { threads: Some(1), ..Placement::default() };
        measure(&model, &settings, placement, way, Duration::ZERO).unwrap()
    };
    let cost = |context_frames, steps| made(context_frames, steps, Way::default());
    let costs = cost(0, 2);
    let of = |name: &str| costs.networks.iter().find(|cost| cost.name == name).unwrap().gflop;
    let step = of("ControlNet") + of("U-Net");
    let whole = of("pose embedding") + 2.0 * step + of("VAE decoder");
    assert!((costs.key_frame.gflop / whole - 1.0).abs() < 1e-6, "{} {whole}", costs.key_frame.gflop);
    assert_eq!((costs.in_betweens.len(), costs.context_bytes, costs.threads), (2, 0, 1));
    assert!(costs.in_betweens[0].gflop > costs.in_betweens[1].gflop, "motion is computed once a pair");
    let sound = |cost: &Cost| cost.runs >= 5 && cost.median_ms > 0.0 && cost.p95_ms >= cost.median_ms;
    assert!(costs.networks.iter().chain([&costs.key_frame]).all(sound), "{costs:?}");
    // As many operations, whichever schedule: the batch makes one step of each, and looks at the text once.
    let pipelined = made(0, 2, Way { schedule: Schedule::Pipelined, graphs: false });
    let batch = pipelined.networks.last().unwrap();
    assert_eq!(batch.name, "a batch of all steps");
    for (found, sequential) in [(pipelined.key_frame.gflop, whole), (batch.gflop, 2.0 * step)] {
        assert!((0.9..=1.000_001).contains(&(found / sequential)), "{found} {sequential}");
    }
    assert_eq!((costs.dtype, costs.replayed, costs.device_memory), ("f32", false, None));
    // A step more costs a step, and the ring costs next to nothing: a window would cost all its frames.
    assert!((cost(0, 3).key_frame.gflop - costs.key_frame.gflop - step).abs() < 1e-9);
    let cached = cost(2, 2);
    assert!(cached.context_bytes > 0 && cached.key_frame.gflop < 1.2 * whole, "{}", cached.key_frame.gflop);
}
