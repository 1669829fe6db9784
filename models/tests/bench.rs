//! Operations are counted as arithmetic says, and a model's costs add up.

mod tiny;

use keyframed_engine::{Frame, KeyframeGenerator};
use keyframed_models::{
    ContextMode, LcmGenerator, ModelDir, Placement, Schedule, Settings, UNet, UNetConfig,
    bench::{Cost, Point, Ranges, Way, growth, measure, with_random_motion},
    checkpoint::Role,
    torch_ext::operations,
};
use std::{path::Path, sync::Mutex, time::Duration};
use tch::{Device, Kind, Tensor};
use tiny::Tiny;

/// Operations are counted for the whole process: one test at a time.
static COUNTING: Mutex<()> = Mutex::new(());

/// Of one operation, counted.
fn flop(work: impl FnOnce() -> Tensor) -> f64 {
    let (_, costs) = operations(work);
    assert!(costs.iter().all(|cost| cost.calls > 0 && cost.seconds >= 0.0));
    costs.iter().map(|cost| cost.flop).sum()
}

#[test]
fn products_are_counted_as_arithmetic_says() {
    let _alone = COUNTING.lock();
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
    let _alone = COUNTING.lock();
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
    // Without context, what no pose reaches of the first step was done before.
    let spared = whole - costs.key_frame.gflop;
    assert!(spared > 0.0 && spared < 0.6 * of("U-Net"), "{} {whole}", costs.key_frame.gflop);
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

/// A model whose frames do not see each other, as the embedded one.
fn without_motion(dir: &Path) -> ModelDir {
    let mut tiny = Tiny::new(dir);
    let unet = &mut tiny.manifest.networks.unet;
    unet.insert("use_motion_module".to_owned(), false.into());
    unet.insert("norm_per_frame".to_owned(), true.into());
    let config: UNetConfig = toml::Value::Table(unet.clone()).try_into().unwrap();
    tiny.add(Role::Unet, |source| drop(UNet::new(&source.root(), &config).unwrap()));
    tiny.manifest.defaults.context_frames = 0;
    tiny.write();
    ModelDir::load(dir).unwrap()
}

/// Names and sizes of what lies in a folder.
fn listing(dir: &Path) -> Vec<(String, u64)> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let mut list: Vec<_> =
        entries.map(|e| (e.file_name().into_string().unwrap(), e.metadata().unwrap().len())).collect();
    list.sort();
    list
}

#[test]
fn cost_grows_as_arithmetic_says() {
    let _alone = COUNTING.lock();
    let dir = tempfile::tempdir().unwrap();
    let model = without_motion(dir.path());
    let before = listing(dir.path());
    let ranges = Ranges {
        sides: vec![16, 32],
        steps: vec![1, 2, 3],
        context: vec![0, 2, 30],
        runs: 7,
        each: Duration::ZERO,
    };
    let placement = Placement { threads: Some(1), ..Placement::default() };
    let mut heard = vec![];
    let found = growth(&model, &Settings::of(&model), placement, &ranges, |what| heard.push(what.to_owned()))
        .unwrap();
    assert_eq!(listing(dir.path()), before, "the model directory stays as it is");
    assert!(found.random_motion && found.threads == 1 && !found.reduced);
    assert_eq!((heard.len(), heard[0].as_str()), (9, "16x16 pixels"));
    let gflop = |points: &[Point]| points.iter().map(|point| point.cost.gflop).collect::<Vec<_>>();
    // Four times the pixels: four times the convolutions, more than that of attention.
    let sizes = gflop(&found.sizes);
    assert_eq!(
        found.sizes.iter().map(|p| (p.image.width, p.image.height)).collect::<Vec<_>>(),
        [(16, 16), (32, 32)]
    );
    assert!(sizes[1] > 3.9 * sizes[0], "{sizes:?}");
    let steps = gflop(&found.steps);
    assert!(
        (steps[2] - steps[1] - (steps[1] - steps[0])).abs() < 1e-9,
        "each step costs the same: {steps:?}"
    );
    // A context of 30 is more than the motion modules take.
    let lengths = |points: &[Point]| points.iter().map(|point| point.context_frames).collect::<Vec<_>>();
    assert_eq!((lengths(&found.cached), lengths(&found.recomputed)), (vec![0, 2], vec![0, 2]));
    let (cached, recomputed) = (gflop(&found.cached), gflop(&found.recomputed));
    assert!((cached[0] / recomputed[0] - 1.0).abs() < 1e-9, "without context there is one way");
    // Alone, a frame also finds the first step's way down done: an eighth of the whole here.
    assert!(cached[1] < 1.2 * cached[0] && recomputed[1] > 2.0 * cached[0], "{cached:?} {recomputed:?}");
    assert!(recomputed[1] < 3.4 * cached[0], "{recomputed:?}");
    assert!(found.cached[1].context_bytes > found.recomputed[1].context_bytes);
    assert!(found.recomputed[1].context_bytes > 0 && found.cached[0].context_bytes == 0);
    let all = [&found.sizes, &found.steps, &found.cached, &found.recomputed].into_iter().flatten();
    assert!(all.map(|point| &point.cost).all(|cost| cost.runs >= 7 && cost.median_ms > 0.0));
}

#[test]
fn random_motion_modules_have_an_effect() {
    let _alone = COUNTING.lock();
    let (plain, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let model = without_motion(plain.path());
    let made = with_random_motion(&model, 2, &folder.path().join("made")).unwrap();
    assert_eq!(made.manifest().defaults.context_frames, 2);
    assert!(made.manifest().name.contains("random motion modules"));
    assert!(made.verify(|_| {}).is_empty());
    // Three key frames of three poses: the last one depends on whether it saw the others.
    let last = |context_frames, context_mode| {
        let settings = Settings { context_frames, context_mode, ..Settings::of(&made) };
        let placement = Placement { threads: Some(1), ..Placement::default() };
        let mut generator = LcmGenerator::new(&made, settings, placement).unwrap();
        let colour = |n: u8| Frame::filled(32, 16, [n, 255 - n, n / 2]).unwrap();
        generator.set_reference(&colour(200)).unwrap();
        [10, 90, 170].map(|n| generator.generate(&colour(n), 0).unwrap())[2].clone()
    };
    let alone = last(0, ContextMode::Cache);
    assert!(alone != last(2, ContextMode::Cache) && alone != last(2, ContextMode::Recompute));
    // The same again.
    let again = with_random_motion(&model, 2, &folder.path().join("again")).unwrap();
    assert_eq!(again.manifest().files, made.manifest().files);

    let refused = |model: &ModelDir, to: &str| {
        with_random_motion(model, 2, &folder.path().join(to)).unwrap_err().to_string()
    };
    assert!(refused(&model, "made").contains("not empty"));
    assert!(refused(&made, "third").contains("motion modules already"));
}

/// Not all of its widths are multiples of the 32 groups that the original's modules have.
#[test]
fn the_embedded_model_takes_motion_modules() {
    let _alone = COUNTING.lock();
    let folder = tempfile::tempdir().unwrap();
    let model = ModelDir::load(Path::new(env!("CARGO_MANIFEST_DIR")).join("mini")).unwrap();
    let made = with_random_motion(&model, 2, &folder.path().join("made")).unwrap();
    assert!(made.verify(|_| {}).is_empty());
    LcmGenerator::new(&made, Settings::of(&made), Placement::default()).unwrap();
}
