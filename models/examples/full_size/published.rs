//! The folders that people download, with random weights.

use super::{Failure, archive};
use keyframed_models::{
    checkpoint::{Parts, Role, save},
    random,
};
use std::{collections::BTreeMap, fs, path::Path};
use tch::{Device, Kind, Tensor};

type Tensors = BTreeMap<String, Tensor>;

/// Ends of the paths that LCM-LoRA updates.
const UPDATED: [&str; 13] = [
    "to_q",
    "to_k",
    "to_v",
    "to_out.0",
    "proj_in",
    "proj_out",
    "ff.net.0.proj",
    "ff.net.2",
    "conv1",
    "conv2",
    "conv_shortcut",
    "time_emb_proj",
    "samplers.0.conv",
];
/// Of LCM-LoRA.
const RANK: i64 = 64;

/// Where the importer finds what [`write`] wrote.
pub fn parts(dir: &Path, kind: Kind) -> Parts {
    Parts {
        sd15: dir.join("stable-diffusion-v1-5"),
        magicanimate: dir.join("MagicAnimate"),
        vae: Some(dir.join("sd-vae-ft-mse")),
        taesd: None,
        lcm_lora: Some(dir.join("pytorch_lora_weights.safetensors")),
        film: Some(dir.join("film_net.safetensors")),
        kind,
    }
}

/// Stable Diffusion 1.5, MagicAnimate with its `temporal_attention.ckpt` as PyTorch writes it, sd-vae-ft-mse, LCM-LoRA
/// and FILM.
pub fn write(dir: &Path, kind: Kind) -> Result<(), Failure> {
    tch::manual_seed(1);
    let parts = parts(dir, kind);
    let mut manifest = random::full_size()?;
    manifest.networks.text_encoder = Some(toml::Table::new());
    let of = |role| random::tensors(&manifest, role, kind);
    let unet = of(Role::Unet)?;
    let spatial: Tensors =
        unet.iter().filter(|(key, _)| !key.contains("motion_modules")).map(shared).collect();
    put(&parts.sd15.join("unet/diffusion_pytorch_model.safetensors"), &spatial)?;
    put(&dir.join("pytorch_lora_weights.safetensors"), &lora(&spatial, kind))?;
    drop(spatial);
    let temporal = parts.magicanimate.join("temporal_attention/temporal_attention.ckpt");
    fs::create_dir_all(temporal.parent().unwrap_or(dir))?;
    archive::write(&temporal, unet.iter().map(|(key, t)| (format!("module.{key}"), t)))?;
    drop(unet);
    let magic = |name: &str| parts.magicanimate.join(name).join("diffusion_pytorch_model.safetensors");
    put(&magic("densepose_controlnet"), &of(Role::Controlnet)?)?;
    put(&magic("appearance_encoder"), &of(Role::Appearance)?)?;
    put(&parts.sd15.join("text_encoder/model.safetensors"), &of(Role::TextEncoder)?)?;
    put(&dir.join("sd-vae-ft-mse/diffusion_pytorch_model.safetensors"), &of(Role::Vae)?)?;
    put(&dir.join("film_net.safetensors"), &of(Role::Film)?)
}

fn put(file: &Path, tensors: &Tensors) -> Result<(), Failure> {
    fs::create_dir_all(file.parent().unwrap_or(file))?;
    Ok(save(file, tensors, &BTreeMap::new(), None)?)
}

fn shared((key, tensor): (&String, &Tensor)) -> (String, Tensor) {
    (key.clone(), tensor.shallow_clone())
}

/// Updates of every module that LCM-LoRA has one for, under kohya's names.
fn lora(unet: &Tensors, kind: Kind) -> Tensors {
    let mut all = Tensors::new();
    let options = (Kind::Float, Device::Cpu);
    for (key, weight) in unet {
        let Some(path) =
            key.strip_suffix(".weight").filter(|path| UPDATED.iter().any(|end| path.ends_with(end)))
        else {
            continue;
        };
        let (module, size) = (format!("lora_unet_{}", path.replace('.', "_")), weight.size());
        let (mut down, mut up) = (size.clone(), vec![1; size.len()]);
        down[0] = RANK;
        up[..2].copy_from_slice(&[size[0], RANK]);
        let random = |shape: &[i64]| (Tensor::randn(shape, options) * 1e-3).to_kind(kind);
        all.insert(format!("{module}.lora_down.weight"), random(&down));
        all.insert(format!("{module}.lora_up.weight"), random(&up));
        all.insert(format!("{module}.alpha"), Tensor::from(RANK as f32).to_kind(kind));
    }
    all
}
