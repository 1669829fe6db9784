//! The streaming generator and the FILM interpolator on small random networks.

mod tiny;

use keyframed_engine::{Frame, GenerateError, InterpolateError, Interpolator, KeyframeGenerator, Palette};
use keyframed_models::{
    ContextMode, DtypeChoice, FilmInterpolator, LcmGenerator, ModelDir, ModelError, Placement, Settings,
    UNet, UNetConfig,
    checkpoint::Role,
    device::{DeviceChoice, Placement as Place},
    torch_ext::operations,
};
use std::{collections::BTreeMap, error::Error, fs};
use tch::{Device, Kind, Tensor};
use tempfile::TempDir;
use tiny::Tiny;

fn model() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    Tiny::new(dir.path());
    dir
}

fn settings(dir: &TempDir) -> Settings {
    Settings::of(&ModelDir::load(dir.path()).unwrap())
}

fn load(dir: &TempDir, settings: Settings) -> LcmGenerator {
    LcmGenerator::new(&ModelDir::load(dir.path()).unwrap(), settings, Placement::default()).unwrap()
}

fn picture(width: u32, height: u32) -> Frame {
    let data: Vec<u8> = (0..width * height * 3).map(|i| (i * 7 % 256) as u8).collect();
    Frame::new(width, height, data).unwrap()
}

/// Two parts on background, the second `shift` columns further right.
fn pose(shift: u32) -> Frame {
    let colours = Palette::Viridis.colours();
    let label = |x: u32, y: u32| match (x, y) {
        (4..12, 3..10) => 2,
        (x, 8..14) if (14 + shift..22 + shift).contains(&x) => 23,
        _ => 0,
    };
    let pixels = (0..16).flat_map(|y| (0..32).map(move |x| label(x, y)));
    Frame::new(32, 16, pixels.flat_map(|l| colours[l]).collect::<Vec<u8>>()).unwrap()
}

fn run(generator: &mut LcmGenerator, shifts: &[u32]) -> Vec<Frame> {
    generator.set_reference(&picture(32, 16)).unwrap();
    shifts.iter().map(|&shift| generator.generate(&pose(shift), 0).unwrap()).collect()
}

#[test]
fn key_frames_depend_on_seed_pose_and_reference_and_nothing_else() {
    let dir = model();
    let alone = Settings { context_frames: 0, ..settings(&dir) };
    let mut first = load(&dir, alone.clone());
    assert_eq!(first.size(), (32, 16));
    let made = run(&mut first, &[0, 4, 0]);
    assert_eq!((made[0].width(), made[0].height()), (32, 16));
    assert_eq!(made[0], made[2], "the same noise for every frame");
    assert_ne!(made[0], made[1], "the pose matters");
    assert_eq!(run(&mut load(&dir, alone.clone()), &[0, 4, 0]), made, "two runs, the same bytes");
    let other = Settings { seed: 1, ..alone.clone() };
    assert_ne!(run(&mut load(&dir, other.clone()), &[0]), made[..1], "the seed matters");
    first.set(other).unwrap();
    assert_ne!(run(&mut first, &[0]), made[..1]);
    first.set(alone).unwrap();
    assert_eq!(run(&mut first, &[0]), made[..1]);
    first.set_reference(&Frame::filled(9, 9, [200, 20, 20]).unwrap()).unwrap();
    assert_ne!(first.generate(&pose(0), 0).unwrap(), made[0], "the reference matters");
}

#[test]
fn context_frames_are_seen_until_forgotten() {
    let dir = model();
    let mut generator = load(&dir, settings(&dir));
    assert_eq!(generator.window(), 3);
    let made = run(&mut generator, &[0, 4, 0, 0, 0]);
    assert_ne!(made[0], made[2], "the same pose after another one");
    assert_ne!(made[2], made[3], "the context has moved on");
    generator.reset();
    assert_eq!(generator.generate(&pose(0), 0).unwrap(), made[0], "as at the beginning");
    assert_eq!(generator.generate(&pose(4), 0).unwrap(), made[1]);
    // A new reference must not see key frames of the old one.
    generator.set_reference(&picture(32, 16)).unwrap();
    assert_eq!(generator.generate(&pose(0), 0).unwrap(), made[0]);
    generator.set(Settings { context_frames: 0, ..settings(&dir) }).unwrap();
    assert_eq!(generator.generate(&pose(0), 0).unwrap(), made[0]);
    let many = Settings { context_frames: 24, ..settings(&dir) };
    assert!(matches!(generator.set(many), Err(ModelError::Config(_))));
}

#[test]
fn networks_that_do_not_couple_frames_need_no_window() {
    let dir = tempfile::tempdir().unwrap();
    let mut tiny = Tiny::new(dir.path());
    tiny.manifest.networks.unet.insert("use_motion_module".into(), false.into());
    tiny.manifest.networks.unet.insert("norm_per_frame".into(), true.into());
    let spatial = ModelDir::load(dir.path()).unwrap().tensors(Role::Unet).unwrap();
    tiny.put(Role::Unet, spatial.into_iter().filter(|(name, _)| !name.contains("motion_modules")).collect());
    tiny.write();
    let mut generator = load(&dir, settings(&dir));
    assert_eq!(generator.window(), 1);
    let made = run(&mut generator, &[0, 4, 0]);
    assert_eq!(made[0], made[2]);
}

#[test]
fn steps_and_guidance_can_change_while_running() {
    let dir = model();
    let start = Settings { context_frames: 0, ..settings(&dir) };
    let mut generator = load(&dir, start.clone());
    let before = run(&mut generator, &[0]);
    let cases = [
        Settings { steps: 3, ..start.clone() },
        Settings { guidance_scale: 2.0, ..start.clone() },
        Settings { steps: 1, guidance_scale: 1.5, ..start.clone() },
    ];
    for changed in cases {
        generator.set(changed.clone()).unwrap();
        let made = generator.generate(&pose(0), 0).unwrap();
        assert_ne!(made, before[0], "{changed:?}");
        assert_eq!(run(&mut load(&dir, changed), &[0]), [made], "as if started that way");
    }
    for bad in [
        Settings { steps: 0, ..start.clone() },
        Settings { steps: 51, ..start.clone() },
        Settings { guidance_scale: f64::NAN, ..start.clone() },
    ] {
        assert!(generator.set(bad).is_err());
    }
    generator.set(start.clone()).unwrap();
    // Guidance of 1 or less is the conditional prediction alone.
    generator.set(Settings { guidance_scale: 0.0, ..start }).unwrap();
    assert_eq!(generator.generate(&pose(0), 0).unwrap(), before[0]);
}

#[test]
fn the_loras_share_can_change_while_running() {
    let dir = tempfile::tempdir().unwrap();
    let mut tiny = Tiny::new(dir.path());
    let plain = run(&mut load(&dir, settings(&dir)), &[0]);
    let matrix = |shape: [i64; 2]| Tensor::full(shape, 0.3, (Kind::Float, Device::Cpu));
    let module = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_v";
    let lora = [("lora_down.weight", matrix([2, 32])), ("lora_up.weight", matrix([32, 2]))];
    tiny.put(Role::Lora, lora.map(|(end, t)| (format!("{module}.{end}"), t)).into());
    tiny.write();
    let mut generator = load(&dir, settings(&dir));
    let full = run(&mut generator, &[0]);
    assert_ne!(full, plain);
    generator.set(Settings { lora_scale: 0.0, ..settings(&dir) }).unwrap();
    generator.reset();
    assert_eq!(generator.generate(&pose(0), 0).unwrap(), plain[0]);
    generator.set(settings(&dir)).unwrap();
    generator.reset();
    assert_eq!(generator.generate(&pose(0), 0).unwrap(), full[0]);
}

#[test]
fn a_picture_that_is_no_picture_fails_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut tiny = Tiny::new(dir.path());
    let mut vae = ModelDir::load(dir.path()).unwrap().tensors(Role::Vae).unwrap();
    // The weights are numbers, what comes out is not.
    let _ = vae.get_mut("decoder.conv_out.weight").unwrap().fill_(3e38);
    tiny.put(Role::Vae, vae);
    tiny.write();
    let mut generator = load(&dir, settings(&dir));
    generator.set_reference(&picture(32, 16)).unwrap();
    let halves = [0, 4].map(|shift| generator.begin(&pose(shift), 0).unwrap());
    for half in halves {
        let error = half.finish().unwrap_err();
        let cause = error.source().map(ToString::to_string).unwrap_or_default();
        assert!(cause.contains("no finite numbers"), "{error}: {cause}");
    }
}

#[test]
fn latents_that_are_no_numbers_do_not_stay_in_the_context() {
    let dir = tempfile::tempdir().unwrap();
    let mut tiny = Tiny::new(dir.path());
    let matrix = |shape: [i64; 2]| Tensor::full(shape, 0.3, (Kind::Float, Device::Cpu));
    let module = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_v";
    let lora = [("lora_down.weight", matrix([2, 32])), ("lora_up.weight", matrix([32, 2]))];
    tiny.put(Role::Lora, lora.map(|(end, t)| (format!("{module}.{end}"), t)).into());
    tiny.write();
    let usual = Settings { context_mode: ContextMode::Recompute, ..settings(&dir) };
    let mut generator = load(&dir, usual.clone());
    generator.set_reference(&picture(32, 16)).unwrap();
    generator.generate(&pose(0), 0).unwrap();
    assert!(generator.context_bytes() > 0);
    // The weights are numbers, what comes out is not.
    generator.set(Settings { lora_scale: 1e38, ..usual }).unwrap();
    assert!(generator.context_bytes() > 0);
    let error = generator.begin(&pose(4), 0).err().unwrap();
    let cause = error.source().map(ToString::to_string).unwrap_or_default();
    assert!(cause.contains("latents") && cause.contains("no finite numbers"), "{error}: {cause}");
    assert_eq!(generator.context_bytes(), 0);
}

/// The way down of the first step is the same for every key frame: it runs once per reference.
#[test]
fn what_no_pose_reaches_is_computed_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut tiny = Tiny::new(dir.path());
    tiny.manifest.defaults.context_frames = 0;
    tiny.write();
    let unet: UNetConfig =
        ModelDir::load(dir.path()).unwrap().network("unet", &tiny.manifest.networks.unet).unwrap();
    let source = ModelDir::load(dir.path()).unwrap().source(Role::Unet, Device::Cpu, Kind::Float).unwrap();
    let network = UNet::new(&source.root(), &unet).unwrap();
    let sample = Tensor::randn([1, 4, 1, 8, 16], (Kind::Float, Device::Cpu));
    let (time, text) = (Tensor::from_slice(&[499i64]), Tensor::randn([1, 3, 12], (Kind::Float, Device::Cpu)));
    tch::no_grad(|| {
        let begun = network.begin(&sample, &time, &text, None).unwrap();
        let whole = network.forward(&sample, &time, &text, None, None).unwrap();
        assert!(network.forward_from(&begun, &time, &text, None, None).unwrap() == whole);
    });
    let flop = |generator: &mut LcmGenerator| {
        let (made, costs) = operations(|| generator.generate(&pose(0), 0).unwrap());
        (made, costs.iter().map(|cost| cost.flop).sum::<f64>())
    };
    let mut generator = load(&dir, Settings { context_frames: 0, ..settings(&dir) });
    generator.set_reference(&picture(32, 16)).unwrap();
    let ((first, all), (second, less)) = (flop(&mut generator), flop(&mut generator));
    assert!(first == second && less < 0.9 * all, "{less} of {all}");
    // Another reference, and other settings, are not mistaken for these.
    generator.set_reference(&picture(16, 32)).unwrap();
    assert_eq!(flop(&mut generator).1, all);
    generator.set(Settings { seed: 5, context_frames: 0, ..settings(&dir) }).unwrap();
    let seeded = flop(&mut generator).0;
    let mut fresh = load(&dir, Settings { seed: 5, context_frames: 0, ..settings(&dir) });
    fresh.set_reference(&picture(16, 32)).unwrap();
    assert!(seeded == fresh.generate(&pose(0), 0).unwrap());
}

#[test]
fn timesteps_of_the_model_replace_the_even_ones() {
    let dir = tempfile::tempdir().unwrap();
    let mut tiny = Tiny::new(dir.path());
    let even = run(&mut load(&dir, settings(&dir)), &[0]);
    tiny.manifest.defaults.timesteps = Some(vec![999, 200]);
    tiny.write();
    assert_ne!(run(&mut load(&dir, settings(&dir)), &[0]), even);
    tiny.manifest.defaults.timesteps = Some(vec![200, 999]);
    tiny.write();
    let model = ModelDir::load(dir.path()).unwrap();
    assert!(LcmGenerator::new(&model, Settings::of(&model), Placement::default()).is_err());
}

#[test]
fn references_and_poses_of_any_size_are_taken() {
    let dir = model();
    let mut generator = load(&dir, settings(&dir));
    assert!(matches!(generator.generate(&pose(0), 0), Err(GenerateError::NoReference)));
    for (width, height) in [(1, 1), (3, 500), (500, 3), (123, 77)] {
        generator.set_reference(&picture(width, height)).unwrap();
        let made = generator.generate(&picture(height, width), 0).unwrap();
        assert_eq!((made.width(), made.height()), (32, 16));
    }
}

#[test]
fn other_autoencoders_and_texts_are_built() {
    let dir = tempfile::tempdir().unwrap();
    let mut tiny = Tiny::new(dir.path());
    tiny.use_taesd();
    tiny.use_text_encoder();
    let made = run(&mut load(&dir, settings(&dir)), &[0, 4]);
    assert_ne!(made[0], made[1]);
}

#[test]
fn reduced_precision_stays_near_full_precision() {
    let dir = model();
    let full = run(&mut load(&dir, settings(&dir)), &[0, 4]);
    let placement = Place { device: DeviceChoice::Cpu, dtype: DtypeChoice::Bf16, threads: None };
    let model = ModelDir::load(dir.path()).unwrap();
    let mut reduced = LcmGenerator::new(&model, settings(&dir), placement).unwrap();
    let made = run(&mut reduced, &[0, 4]);
    for (a, b) in full.iter().zip(&made) {
        let total: u64 = a.data().iter().zip(b.data()).map(|(&a, &b)| u64::from(a.abs_diff(b))).sum();
        let mean = total as f64 / a.data().len() as f64;
        assert!(mean > 0.0 && mean < 4.0, "mean difference {mean} levels");
    }
}

#[track_caller]
fn refused(dir: &TempDir, words: &[&str]) {
    let built = ModelDir::load(dir.path())
        .and_then(|model| LcmGenerator::new(&model, Settings::of(&model), Placement::default()));
    let error = built.err().expect("a broken model").to_string();
    assert!(words.iter().all(|word| error.contains(word)), "{words:?} not in: {error}");
}

#[test]
fn models_that_do_not_fit_together_are_refused() {
    let dir = model();
    let mut tiny = Tiny::new(dir.path());
    let unet = ModelDir::load(dir.path()).unwrap().tensors(Role::Unet).unwrap();
    let without = |name: &str| -> BTreeMap<String, Tensor> {
        unet.iter().filter(|(key, _)| *key != name).map(|(k, t)| (k.clone(), t.shallow_clone())).collect()
    };
    tiny.put(Role::Unet, without("conv_in.weight"));
    tiny.write();
    refused(&dir, &["unet.safetensors", "conv_in.weight", "missing"]);
    let mut wrong = without("");
    wrong.insert("conv_in.weight".into(), Tensor::zeros([1], (Kind::Float, Device::Cpu)));
    tiny.put(Role::Unet, wrong);
    tiny.write();
    refused(&dir, &["unet.safetensors", "conv_in.weight", "shape"]);
    let mut more = without("");
    more.insert("stray".into(), Tensor::from(1f32));
    tiny.put(Role::Unet, more);
    tiny.write();
    refused(&dir, &["unet.safetensors", "stray"]);
    tiny.put(Role::Unet, without(""));
    tiny.manifest.family = "giant".into();
    tiny.write();
    refused(&dir, &["giant", "mini", "magicanimate"]);
    tiny.manifest.family = "mini".into();
    tiny.manifest.image.width = 33;
    tiny.write();
    refused(&dir, &["33x16"]);
    tiny.manifest.image.width = 32;
    let wide = Tensor::zeros([1, 2, 5], (Kind::Float, Device::Cpu));
    tiny.put(Role::TextEmbedding, BTreeMap::from([("conditional".to_owned(), wide)]));
    tiny.write();
    refused(&dir, &["conditional"]);
    let file = dir.path().join("vae.safetensors");
    let mut bytes = fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&file, bytes).unwrap();
    refused(&dir, &["vae.safetensors", "sha256"]);
}

#[test]
fn film_makes_frames_at_any_time_and_size() {
    let dir = model();
    let load = || FilmInterpolator::new(&ModelDir::load(dir.path()).unwrap(), Placement::default()).unwrap();
    let mut film = load();
    let (a, b, c) = (picture(37, 21), Frame::filled(37, 21, [9, 90, 200]).unwrap(), picture(37, 21));
    let order = [(&a, &b, 0.25), (&a, &b, 0.75), (&b, &c, 0.5), (&a, &b, 0.25)];
    let made: Vec<Frame> = order.iter().map(|(x, y, t)| film.interpolate(x, y, *t).unwrap()).collect();
    assert_eq!((made[0].width(), made[0].height()), (37, 21));
    assert_ne!(made[0], made[1], "time matters");
    assert_eq!(made[0], made[3]);
    for ((x, y, t), made) in order.iter().zip(&made) {
        assert_eq!(load().interpolate(x, y, *t).unwrap(), *made, "kept features change nothing");
    }
    let odd = film.interpolate(&a, &picture(5, 5), 0.5);
    assert!(matches!(odd, Err(InterpolateError::SizeMismatch(..))));
    assert!(matches!(film.interpolate(&a, &b, 1.0), Err(InterpolateError::BadTime(_))));
}

#[test]
fn a_model_without_film_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let mut tiny = Tiny::new(dir.path());
    tiny.manifest.files.remove(&Role::Film);
    tiny.write();
    let error = FilmInterpolator::new(&ModelDir::load(dir.path()).unwrap(), Placement::default()).err();
    assert!(error.is_some_and(|e| e.to_string().contains("`film` is missing")));
}

#[test]
fn generators_move_between_threads_and_errors_keep_their_cause() {
    fn movable<T: Send>() {}
    movable::<LcmGenerator>();
    movable::<FilmInterpolator>();
    let error = GenerateError::Failed(Box::new(ModelError::Config("cause".into())));
    assert_eq!(error.source().map(ToString::to_string).as_deref(), Some("cause"));
}

#[test]
fn networks_beside_each_other_compute_the_same() {
    let dir = model();
    let model = ModelDir::load(dir.path()).unwrap();
    let made = |threads| {
        let placement = Place { threads: Some(threads), ..Place::default() };
        let mut generator = LcmGenerator::new(&model, settings(&dir), placement).unwrap();
        run(&mut generator, &[0, 4, 0, 2])
    };
    // One thread leaves a core free wherever there are two; all threads leave none.
    let cores = std::thread::available_parallelism().unwrap().get();
    let (beside, alone) = (made(1), made(cores));
    for (a, b) in beside.iter().zip(&alone) {
        let most = a.data().iter().zip(b.data()).map(|(&a, &b)| a.abs_diff(b)).max();
        assert!(most <= Some(1), "{most:?} levels");
    }
    assert_eq!(made(1), beside, "and every time");
}
