//! Networks with weights and activations in bfloat16, as they run on CUDA devices, on the processor.

mod common;
mod tiny;

use common::error;
use keyframed_engine::{Frame, KeyframeGenerator};
use keyframed_models::{
    LcmGenerator, ModelDir, Settings, Stack,
    checkpoint::Role,
    device::{Place, Placement},
    nn::Memory,
    scheduler,
};
use std::collections::BTreeMap;
use tch::{Device, Kind, Tensor};
use tempfile::TempDir;
use tiny::Tiny;

const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);

/// Scaled error of one pass: bfloat16 keeps 8 bits of each value, and a pass is some tens of layers. Measured: 2.3e-2
/// for the U-Net, less for the others.
const PASS: f64 = 4e-2;

/// A model with two steps, a ring, guidance and a LoRA.
fn model() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut tiny = Tiny::new(dir.path());
    let matrix = |shape: [i64; 2]| Tensor::full(shape, 0.1, CPU);
    let module = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_v";
    let lora = [("lora_down.weight", matrix([2, 32])), ("lora_up.weight", matrix([32, 2]))];
    tiny.put(Role::Lora, lora.map(|(end, t)| (format!("{module}.{end}"), t)).into());
    tiny.write();
    dir
}

fn full() -> Place {
    Placement::default().resolve(0).unwrap()
}

fn native() -> Place {
    Place::like_cuda(Kind::BFloat16, 2)
}

fn values(seed: i64, shape: &[i64]) -> Tensor {
    let count: i64 = shape.iter().product();
    let phase = Tensor::arange(count, CPU) * (0.37 + 0.01 * seed as f64);
    (phase.sin() * 1.5).view(shape)
}

/// What every network of a stack makes of the same inputs.
fn passes(stack: &Stack) -> BTreeMap<&'static str, Tensor> {
    let (picture, noisy) = (values(1, &[1, 3, 16, 32]).clamp(-1., 1.), values(2, &[1, 4, 1, 8, 16]));
    let (latents, earlier) = (values(3, &[1, 4, 8, 16]), values(4, &[1, 4, 1, 8, 16]));
    let features = stack.features(&latents, 499).unwrap();
    let bank = stack.unet.project(&features).unwrap();
    let pose = (&picture + 1.0) / 2.0;
    let embedded = stack.controlnet.embed_condition(&pose).unwrap();
    let residuals = stack.residuals(&noisy, 499, &embedded, 1.0).unwrap();
    let predict = |latents: &Tensor, guided, memory: Option<&Memory>| {
        stack.predict(latents, 499, &residuals, &bank, guided, memory).unwrap()
    };
    let memory = Memory::after([]);
    let _ = predict(&earlier, false, Some(&memory));
    let left = memory.into_states(1).unwrap();
    let (name, block) = features.blocks().iter().next_back().unwrap();
    assert!(name.starts_with("up_blocks"));
    BTreeMap::from([
        ("encoder", stack.vae.encode(&picture).unwrap()),
        ("decoder", stack.vae.decode(&latents)),
        ("appearance encoder", block.shallow_clone()),
        ("pose embedding", embedded.shallow_clone()),
        ("ControlNet", residuals.mid.shallow_clone()),
        ("U-Net", predict(&noisy, false, None)),
        ("U-Net, guided", predict(&noisy, true, None)),
        ("U-Net behind a context", predict(&noisy, false, Some(&Memory::after([&left])))),
    ])
}

#[test]
fn every_network_stays_near_float32() {
    let dir = model();
    let dir = ModelDir::load(dir.path()).unwrap();
    let run = |place: Place| {
        let _running = place.enter();
        passes(&Stack::load(&dir, 1.0, "", place).unwrap())
    };
    let (wide, narrow) = (run(full()), run(native()));
    let errors: Vec<_> = wide.iter().map(|(name, wide)| (name, error(&narrow[name], wide))).collect();
    for (name, wide) in &wide {
        assert_eq!((wide.kind(), narrow[name].kind()), (Kind::Float, Kind::BFloat16), "{name}: no autocast");
    }
    assert!(
        errors.iter().all(|(_, error)| (1e-6..PASS).contains(error)),
        "above {PASS} or nothing was rounded"
    );
}

fn picture(seed: u32) -> Frame {
    Frame::new(32, 16, (0..32 * 16 * 3).map(|i| ((i * 7 + seed * 31) % 256) as u8).collect::<Vec<u8>>())
        .unwrap()
}

#[test]
fn key_frames_stay_near_those_in_float32() {
    let dir = model();
    let dir = ModelDir::load(dir.path()).unwrap();
    for (guidance_scale, frames) in [(1.0, 4), (2.0, 2)] {
        let settings = Settings { guidance_scale, ..Settings::of(&dir) };
        let run = |place: Place| -> Vec<Frame> {
            let mut generator = LcmGenerator::placed(&dir, settings.clone(), place).unwrap();
            assert_eq!(generator.window(), 3);
            generator.set_reference(&picture(99)).unwrap();
            (0..frames).map(|seed| generator.generate(&picture(seed), 0).unwrap()).collect()
        };
        let (wide, narrow) = (run(full()), run(native()));
        for (a, b) in wide.iter().zip(&narrow) {
            let total: u64 = a.data().iter().zip(b.data()).map(|(&a, &b)| u64::from(a.abs_diff(b))).sum();
            let mean = total as f64 / a.data().len() as f64;
            assert!(mean > 0.0 && mean < 2.0, "guidance {guidance_scale}: mean difference {mean} levels");
        }
    }
}

/// The samplers' numbers must not be rounded to the networks' format.
#[test]
fn sampling_stays_in_float32() {
    let dir = model();
    let dir = ModelDir::load(dir.path()).unwrap();
    let place = native();
    let _running = place.enter();
    let stack = Stack::load(&dir, 1.0, "", place).unwrap();
    let scheduler = scheduler::build(&dir.manifest().scheduler, 2).unwrap();
    let embedded = stack.controlnet.embed_condition(&values(1, &[1, 3, 16, 32])).unwrap();
    let banks: Vec<_> = scheduler
        .timesteps()
        .iter()
        .map(|&t| stack.unet.project(&stack.features(&values(3, &[1, 4, 8, 16]), t).unwrap()).unwrap())
        .collect();
    let sampling = keyframed_models::generator::Sampling {
        stack: &stack,
        scheduler: scheduler.as_ref(),
        banks: &banks,
        begun: None,
        embedded: &embedded,
        windows: &[vec![0]],
        guidance: 7.5,
        controlnet_scale: 1.0,
    };
    let noise = values(5, &[1, 4, 1, 8, 16]);
    let step = sampling.step(&noise, 0, Some(&noise)).unwrap();
    assert_eq!((step.prev.kind(), step.denoised.kind()), (Kind::Float, Kind::Float));
}
