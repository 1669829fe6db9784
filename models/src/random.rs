//! Model directories with random weights: what a network costs does not depend on what its weights say.

use crate::{
    appearance::AppearanceEncoder,
    autoencoder::Autoencoder,
    checkpoint::{FileEntry, Files, MANIFEST, Manifest, Role, network, save},
    clip::{ClipText, ClipTextConfig},
    controlnet::{ControlNet, ControlNetConfig},
    error::{ModelError, Result},
    film::{Film, FilmConfig},
    stack::vae_config,
    unet::{UNet, UNetConfig},
    vars::{Source, Vars},
};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};
use tch::{Device, Kind, Tensor};

/// The published networks at their published sizes, 512×512: Stable Diffusion 1.5 with MagicAnimate's motion
/// modules, ControlNet and appearance encoder, sd-vae-ft-mse and FILM.
const FULL_SIZE: &str = r#"
    family = "magicanimate"
    name = "full size, random"
    description = "Random weights at the published sizes, for measuring"
    licence = "CC0-1.0"
    image = { width = 512, height = 512 }
    defaults = { steps = 4, guidance_scale = 1.0 }
    scheduler = { beta_start = 0.00085, beta_end = 0.012, beta_schedule = "scaled_linear" }
    files = {}
    [networks]
    vae = {}
    unet = { use_motion_module = true }
    controlnet = {}
    film = {}
"#;

/// Tokens of the text embedding, as CLIP gives them.
const TOKENS: i64 = 77;

/// The manifest of full-size MagicAnimate, without files.
///
/// # Errors
/// None that depends on anything outside.
pub fn full_size() -> Result<Manifest> {
    toml::from_str(FULL_SIZE).map_err(|e| ModelError::Config(format!("the full-size manifest: {e}")))
}

/// Writes the networks that `manifest` describes with random weights in `kind`, and `model.toml`. The weights depend
/// on `seed` through libtorch's own generator, which is one for the whole process.
///
/// # Errors
/// [`ModelError::Io`] and what is wrong with the manifest's networks.
pub fn write(dir: &Path, manifest: &Manifest, kind: Kind, seed: i64) -> Result<()> {
    tch::manual_seed(seed);
    fs::create_dir_all(dir).map_err(|source| ModelError::Io { file: dir.to_owned(), source })?;
    let mut manifest = manifest.clone();
    let roles = [Role::Vae, Role::Unet, Role::Controlnet, Role::Appearance, Role::Film, Role::TextEmbedding];
    for role in roles {
        if role != Role::Film || manifest.networks.film.is_some() {
            add(dir, &mut manifest, role, kind)?;
        }
    }
    store(dir, &manifest)
}

/// A second model in `dir`: that of `from` with TAESD as autoencoder. The other files are the same ones, linked.
///
/// # Errors
/// As [`write`].
pub fn with_taesd(dir: &Path, from: &Path, kind: Kind) -> Result<()> {
    let failed = |file: &Path, source| ModelError::Io { file: file.to_owned(), source };
    fs::create_dir_all(dir).map_err(|source| failed(dir, source))?;
    let mut manifest = Manifest::read(&from.join(MANIFEST))?;
    manifest.networks.vae = toml::Table::from_iter([("_class_name".into(), "AutoencoderTiny".into())]);
    manifest.files.remove(&Role::Vae);
    for entry in manifest.files.values().flat_map(Files::entries) {
        let (own, other) = (dir.join(&entry.path), from.join(&entry.path));
        if own.exists() {
            fs::remove_file(&own).map_err(|source| failed(&own, source))?;
        }
        let linked = fs::hard_link(&other, &own).or_else(|_| fs::copy(&other, &own).map(drop));
        linked.map_err(|source| failed(&own, source))?;
    }
    add(dir, &mut manifest, Role::Vae, kind)?;
    store(dir, &manifest)
}

fn store(dir: &Path, manifest: &Manifest) -> Result<()> {
    let file = dir.join(MANIFEST);
    fs::write(&file, manifest.to_toml()?).map_err(|source| ModelError::Io { file, source })
}

/// Makes the file of one role, and its entry.
fn add(dir: &Path, manifest: &mut Manifest, role: Role, kind: Kind) -> Result<()> {
    let name = format!("{role}.safetensors");
    save(&dir.join(&name), &tensors(manifest, role, kind)?, &BTreeMap::new(), None)?;
    manifest.files.insert(role, Files::One(FileEntry::of(dir, &name)?));
    Ok(())
}

/// Builds the network of `role` over `vars` and drops it: what it asks for, `vars` then knows. `file` is the manifest's,
/// for messages.
pub(crate) fn build(vars: &Vars, file: &Path, manifest: &Manifest, role: Role) -> Result<()> {
    let networks = &manifest.networks;
    let unet = || network::<UNetConfig>(file, "unet", &networks.unet);
    match role {
        Role::Vae => drop(Autoencoder::new(vars, &vae_config(file, &networks.vae)?)?),
        Role::Controlnet => {
            let config: ControlNetConfig = network(file, "controlnet", &networks.controlnet)?;
            drop(ControlNet::new(vars, &config)?);
        }
        Role::Appearance => {
            let own = networks.appearance.as_ref().map(|table| network(file, "appearance", table));
            let config = own.transpose()?.map_or_else(unet, Ok)?;
            drop(AppearanceEncoder::new(vars, &config, manifest.fusion_blocks)?);
        }
        Role::Film => {
            let table = networks.film.clone().unwrap_or_default();
            drop(Film::new(vars, &network::<FilmConfig>(file, "film", &table)?)?);
        }
        Role::TextEncoder => {
            let table = networks.text_encoder.clone().unwrap_or_default();
            drop(ClipText::new(vars, &network::<ClipTextConfig>(file, "text_encoder", &table)?)?);
        }
        Role::Unet => drop(UNet::new(vars, &unet()?)?),
        // Tensors that no network asks for.
        Role::TextEmbedding | Role::Lora | Role::Tokenizer => {}
    }
    Ok(())
}

/// Every tensor that the network of `role` asks for, with random values.
///
/// # Errors
/// What is wrong with the manifest's networks.
pub fn tensors(manifest: &Manifest, role: Role, kind: Kind) -> Result<BTreeMap<String, Tensor>> {
    let file = PathBuf::from(MANIFEST);
    if role == Role::TextEmbedding {
        let unet: UNetConfig = network(&file, "unet", &manifest.networks.unet)?;
        let shape = [1, TOKENS, unet.cross_attention_dim];
        let text = Tensor::randn(shape, (Kind::Float, Device::Cpu)).to_kind(kind);
        return Ok(BTreeMap::from([("conditional".to_owned(), text)]));
    }
    let source = Source::recording();
    build(&source.root(), &file, manifest, role)?;
    let asked = source.tensors().into_iter();
    // Position tables are computed where the file has none.
    let asked = asked.filter(|(name, _)| !name.ends_with("pos_encoder.pe"));
    let made = |(name, tensor): (String, Tensor)| {
        let values = random(&name, &tensor.size()).to_kind(kind);
        (name, values)
    };
    Ok(asked.map(made).collect())
}

/// Values that neither vanish nor grow from layer to layer.
fn random(name: &str, shape: &[i64]) -> Tensor {
    let options = (Kind::Float, Device::Cpu);
    if shape.len() == 1 {
        let middle = if name.contains("norm") && name.ends_with("weight") { 1.0 } else { 0.0 };
        return Tensor::empty(shape, options).uniform_(middle - 0.05, middle + 0.05);
    }
    let fan_in = shape.iter().skip(1).product::<i64>().max(1) as f64;
    let bound = 1.5 / fan_in.sqrt();
    Tensor::empty(shape, options).uniform_(-bound, bound)
}
