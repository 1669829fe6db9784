//! Writes what one key frame is made of, tensor by tensor, for comparison with
//! another implementation of the same networks (`script/bench-pytorch` does that):
//!
//! `cargo run --release -p keyframed-models --example one_key_frame -- MODEL FRAMES OUT.safetensors`
//!
//! MODEL is a name or a directory; FRAMES is the length of the window that the
//! networks see at once. Inputs are random, guidance is off.

use keyframed_models::{
    DeviceChoice, DtypeChoice, ModelDir, ModelError, Placement, Result, Stack, checkpoint::save,
    generator::Sampling, scheduler,
};
use std::{collections::BTreeMap, env, path::Path, process::ExitCode};
use tch::{Device, Kind, Tensor};

const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [model, frames, out] = arguments.as_slice() else {
        eprintln!("usage: one_key_frame MODEL FRAMES OUT.safetensors");
        return ExitCode::from(2);
    };
    let Ok(frames @ 1..) = frames.parse::<i64>() else {
        eprintln!("one_key_frame: FRAMES must be a number from 1 up, not {frames}");
        return ExitCode::from(2);
    };
    match write(model, frames, Path::new(out)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("one_key_frame: {error}");
            ExitCode::FAILURE
        }
    }
}

fn write(model: &str, frames: i64, out: &Path) -> Result<()> {
    let model = ModelDir::find(model)?;
    let placement = Placement { device: DeviceChoice::Cpu, dtype: DtypeChoice::F32, threads: None };
    let place = placement.resolve(0)?;
    let _running = place.enter();
    tch::manual_seed(1);
    let stack = Stack::load(&model, 1.0, "", place)?;
    save(out, &key_frame(&model, &stack, frames)?, &BTreeMap::new(), None)
}

fn key_frame(model: &ModelDir, stack: &Stack, frames: i64) -> Result<BTreeMap<String, Tensor>> {
    let (manifest, factor) = (model.manifest(), stack.vae.downscale());
    let (steps, timesteps) = (manifest.defaults.steps, manifest.defaults.timesteps.clone());
    let scheduler = match timesteps {
        Some(timesteps) => scheduler::build_at(&manifest.scheduler, timesteps)?,
        None => scheduler::build(&manifest.scheduler, steps)?,
    };
    let (h, w) = (i64::from(manifest.image.height), i64::from(manifest.image.width));
    let picture = Tensor::rand([1, 3, h, w], CPU) * 2.0 - 1.0;
    let poses = Tensor::rand([frames, 3, h, w], CPU);
    let shape = [1, stack.unet.config().in_channels, frames, h / factor, w / factor];
    let noise: Vec<Tensor> = scheduler.timesteps().iter().map(|_| Tensor::randn(shape, CPU)).collect();

    let reference = stack.vae.encode(&picture)?;
    let bank = |&t: &i64| stack.unet.project(&stack.features(&reference, t)?);
    let banks = scheduler.timesteps().iter().map(bank).collect::<Result<Vec<_>>>()?;
    let embedded = stack.controlnet.embed_condition(&poses)?;
    let windows = [(0..frames).collect()];
    let sampling = Sampling {
        stack,
        scheduler: scheduler.as_ref(),
        banks: &banks,
        begun: None,
        embedded: &embedded,
        windows: &windows,
        guidance: 1.0,
        controlnet_scale: 1.0,
    };
    let mut tensors = BTreeMap::new();
    let mut latents = &noise[0] * scheduler.init_noise_sigma();
    for index in 0..noise.len() {
        let answer = sampling.join(&sampling.predict(&latents, index, None)?);
        latents = scheduler.step(&answer, index, &latents, noise.get(index + 1))?.prev;
        tensors.insert(format!("answer.{index}"), answer);
    }
    let made = stack.vae.decode(&latents.narrow(2, frames - 1, 1).squeeze_dim(2));
    if made.isfinite().all().int64_value(&[]) == 0 {
        return Err(ModelError::Input("the key frame is not finite".into()));
    }
    let named = [
        ("picture", picture),
        ("poses", poses),
        ("noise", Tensor::cat(&noise, 0)),
        ("timesteps", Tensor::from_slice(scheduler.timesteps()).to_kind(Kind::Float)),
        ("reference", reference),
        ("made", made),
    ];
    tensors.extend(named.map(|(name, tensor)| (name.to_owned(), tensor.contiguous())));
    Ok(tensors)
}
