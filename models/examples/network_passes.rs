//! Writes what every network of a model makes of random inputs, for comparison with another implementation of the
//! same networks (`script/parity` does that):
//!
//! `cargo run --release -p keyframed-models --example network_passes -- MODEL FRAMES OUT.safetensors`
//!
//! MODEL is a name or a directory; FRAMES is how many frames the networks see at once.

use keyframed_models::{
    DeviceChoice, DtypeChoice, ModelDir, ModelError, Placement, Result, Stack, checkpoint::save, scheduler,
};
use std::{collections::BTreeMap, env, path::Path, process::ExitCode};
use tch::{Device, Kind, Tensor};

const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [model, frames, out] = arguments.as_slice() else {
        eprintln!("usage: network_passes MODEL FRAMES OUT.safetensors");
        return ExitCode::from(2);
    };
    let Ok(frames @ 1..) = frames.parse::<i64>() else {
        eprintln!("network_passes: FRAMES must be a number from 1 up, not {frames}");
        return ExitCode::from(2);
    };
    match write(model, frames, Path::new(out)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("network_passes: {error}");
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
    let stack = Stack::load(&model, model.manifest().defaults.lora_scale, "", place)?;
    let tensors = passes(&model, &stack, frames)?;
    if let Some((name, _)) = tensors.iter().find(|(_, t)| t.isfinite().all().int64_value(&[]) == 0) {
        return Err(ModelError::Input(format!("{name} has values that are no finite numbers")));
    }
    save(out, &tensors, &BTreeMap::new(), None)
}

fn passes(model: &ModelDir, stack: &Stack, frames: i64) -> Result<BTreeMap<String, Tensor>> {
    let (manifest, factor) = (model.manifest(), stack.vae.downscale());
    let (h, w) = (i64::from(manifest.image.height), i64::from(manifest.image.width));
    let picture = Tensor::rand([1, 3, h, w], CPU) * 2.0 - 1.0;
    let poses = Tensor::rand([frames, 3, h, w], CPU);
    let latents = Tensor::randn([1, stack.unet.config().in_channels, frames, h / factor, w / factor], CPU);
    let reference = stack.vae.encode(&picture)?;
    let embedded = stack.controlnet.embed_condition(&poses)?;
    let steps = scheduler::build(&manifest.scheduler, manifest.defaults.steps)?.timesteps().to_vec();
    let mut tensors: BTreeMap<String, Tensor> = [
        ("decoded", stack.vae.decode(&reference)),
        ("text", Tensor::cat(&[&stack.text.unconditional, &stack.text.conditional], 0)),
        ("timesteps", Tensor::from_slice(&steps).to_kind(Kind::Float)),
    ]
    .map(|(name, tensor)| (name.to_owned(), tensor))
    .into();
    for t in steps {
        let features = stack.features(&reference, t)?;
        let blocks = features.blocks().iter();
        tensors.extend(blocks.map(|(name, block)| (format!("{t}.bank.{name}"), block.shallow_clone())));
        let residuals = stack.residuals(&latents, t, &embedded, 1.0)?;
        let down = residuals.down.iter().enumerate();
        tensors.extend(down.map(|(i, tensor)| (format!("{t}.down.{i}"), tensor.shallow_clone())));
        tensors.insert(format!("{t}.mid"), residuals.mid.shallow_clone());
        let bank = stack.unet.project(&features)?;
        for (name, guided) in [("answer", false), ("guided", true)] {
            let answer = stack.predict(&latents, t, &residuals, &bank, guided, None)?;
            tensors.insert(format!("{t}.{name}"), answer);
        }
    }
    let named = [
        ("picture", picture),
        ("poses", poses),
        ("latents", latents),
        ("reference", reference),
        ("embedded", embedded),
    ];
    tensors.extend(named.map(|(name, tensor)| (name.to_owned(), tensor)));
    Ok(tensors.into_iter().map(|(name, tensor)| (name, tensor.contiguous())).collect())
}
