//! Networks with weights and activations in 16 bits, as on CUDA devices, against the originals' numbers in float32.
//! The text encoder and FILM are not among them: they are always run in float32.

mod common;

use common::{error, goldens_with, metadata, parsed, tensors, timestep};
use keyframed_models::{
    AppearanceEncoder, ControlNet, Fusion, Result, Source, UNet, UNetConfig, Vars, taesd::AutoencoderTiny,
    vae::AutoencoderKl,
};
use std::path::Path;
use tch::{Device, Kind, Tensor};

/// What a pass may be off. Values in bfloat16 keep 8 bits, so each is wrong by up to 2^-9 = 2e-3 of itself, and the
/// roundings of some tens of layers add up like a random walk: about ten times that. float16 keeps 11 bits: an
/// eighth of it. What is rounded too often, as a sum in 16 bits or a norm's statistics, is far above both.
const FORMATS: [(Kind, f64); 2] = [(Kind::BFloat16, 4e-2), (Kind::Half, 5e-3)];

/// A network over weights in `kind`, all of them used.
fn network<T>(folder: &Path, files: &[&str], kind: Kind, build: impl FnOnce(&Vars) -> Result<T>) -> T {
    let files = files.iter().map(|name| folder.join(format!("{name}.safetensors")));
    let all = files.flat_map(|file| tensors(&file)).collect();
    let source = Source::loaded(folder, all, Device::Cpu, kind);
    let network = build(&source.root()).unwrap();
    source.finish().unwrap();
    network
}

/// Runs `pass` in every format; it gives pairs of what was computed and what float32 gives.
fn compare(pass: impl Fn(Kind) -> Vec<(Tensor, Tensor)>) {
    for (kind, tolerance) in FORMATS {
        let pairs = tch::no_grad(|| pass(kind));
        assert!(pairs.iter().all(|(found, _)| found.kind() == kind), "computed in {kind:?}");
        let worst = pairs.iter().map(|(found, wanted)| error(found, wanted)).fold(0.0, f64::max);
        // More than float32's own error: something was rounded.
        assert!((1e-5..tolerance).contains(&worst), "{kind:?}: scaled error {worst:.1e}");
    }
}

#[test]
fn autoencoders() {
    let Some(folder) = goldens_with(&["vae_weights", "vae_io", "taesd_weights", "taesd_io"]) else { return };
    let io = tensors(&folder.join("vae_io.safetensors"));
    compare(|kind| {
        let vae = network(&folder, &["vae_weights"], kind, |vars| AutoencoderKl::new(vars, &parsed("vae")));
        let input = |name: &str| io[name].to_kind(kind);
        vec![
            (vae.encode_moments(&input("image")).mean, io["mean"].shallow_clone()),
            (vae.decode(&input("latents_in")), io["decoded"].shallow_clone()),
        ]
    });
    let io = tensors(&folder.join("taesd_io.safetensors"));
    compare(|kind| {
        let vae =
            network(&folder, &["taesd_weights"], kind, |vars| AutoencoderTiny::new(vars, &parsed("taesd")));
        let input = |name: &str| io[name].to_kind(kind);
        vec![
            (vae.encode(&input("image")), io["encoded"].shallow_clone()),
            (vae.decode(&input("latents_in")), io["decoded"].shallow_clone()),
        ]
    });
}

#[test]
fn controlnet() {
    let Some(folder) = goldens_with(&["controlnet_weights", "controlnet_io"]) else { return };
    let file = folder.join("controlnet_io.safetensors");
    let (io, meta) = (tensors(&file), metadata(&file));
    let (case, facts) = meta["cases"].as_object().unwrap().iter().next().unwrap();
    compare(|kind| {
        let net = network(&folder, &["controlnet_weights"], kind, |vars| {
            ControlNet::new(vars, &parsed("controlnet"))
        });
        let pose = io["controlnet_cond_u8"].to_kind(Kind::Float) / 255.0;
        let embedded = net.embed_condition(&pose.to_kind(kind)).unwrap();
        let input = |name: &str| io[name].to_kind(kind);
        let (t, scale) = (timestep(&facts["timestep"]), facts["conditioning_scale"].as_f64().unwrap());
        let (sample, text) = (input("sample"), input("encoder_hidden_states"));
        let residuals = net.forward(&sample, &t, &text, &embedded, scale).unwrap();
        let down = residuals.down.into_iter().enumerate();
        let down = down.map(|(i, found)| (found, io[&format!("{case}.down.{i:02}")].shallow_clone()));
        down.chain([(residuals.mid, io[&format!("{case}.mid")].shallow_clone())]).collect()
    });
}

#[test]
fn appearance_encoder() {
    let Some(folder) = goldens_with(&["appearance_weights", "appearance_io"]) else { return };
    let file = folder.join("appearance_io.safetensors");
    let (io, meta) = (tensors(&file), metadata(&file));
    let (case, t) = meta["timesteps"].as_object().unwrap().iter().next().unwrap();
    compare(|kind| {
        let net = network(&folder, &["appearance_weights"], kind, |vars| {
            AppearanceEncoder::new(vars, &parsed("appearance_encoder"), Fusion::Full)
        });
        let (sample, text) = (io["sample"].to_kind(kind), io["encoder_hidden_states"].to_kind(kind));
        let bank = net.forward(&sample, &timestep(t), &text).unwrap();
        let stored = |name: &str| io[&format!("{case}.bank.{name}")].shallow_clone();
        bank.blocks().iter().map(|(name, found)| (found.shallow_clone(), stored(name))).collect()
    });
}

#[test]
fn unet() {
    let weights = ["unet2d_weights", "motion_weights"];
    let Some(folder) = goldens_with(&["unet2d_weights", "motion_weights", "unet3d_io"]) else { return };
    let file = folder.join("unet3d_io.safetensors");
    let (io, meta) = (tensors(&file), metadata(&file));
    let config: UNetConfig = parsed("unet3d");
    compare(|kind| {
        let net = network(&folder, &weights, kind, |vars| UNet::new(vars, &config));
        let (sample, text) = (io["plain.sample"].to_kind(kind), io["encoder_hidden_states"].to_kind(kind));
        let pass = |t: &serde_json::Value| {
            let found = net.forward(&sample, &timestep(t), &text, None, None).unwrap();
            (found, io[&format!("plain.t{t}.out")].shallow_clone())
        };
        meta["cases"]["plain"]["timesteps"].as_array().unwrap().iter().map(pass).collect()
    });
}
