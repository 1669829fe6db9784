//! Model directories like another one, but for the pictures' size or for random motion modules.
//!
//! What a network costs does not depend on what its weights are, so these are fit for timing, and for comparing two
//! ways to compute the same thing. Their pictures are worth nothing.

use crate::{
    checkpoint::{FileEntry, Files, ImageSize, MANIFEST, Manifest, ModelDir, Role, save},
    error::{ModelError, Result},
    scheduler::{SamplerClass, TimestepSpacing},
    unet::{UNetConfig, motion_modules},
    vars::Source,
};
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};
use tch::{Device, Kind, Tensor};

/// Name of the file with the random weights.
const MOTION: &str = "random_motion.safetensors";
/// Spread of the weights at the end of a motion module, which a fresh one has at zero: it would have no effect.
const SPREAD: f64 = 0.02;

/// `model` for pictures of another size, written to the empty or missing folder `to`. Weight files are linked.
///
/// # Errors
/// [`ModelError::Io`], or whatever makes the size impossible.
pub fn resized(model: &ModelDir, image: ImageSize, to: &Path) -> Result<ModelDir> {
    let manifest = Manifest { image, ..model.manifest().clone() };
    create(to)?;
    linked(model, &manifest, to)
}

/// `model` with the sampler that the original denoises with in its 25 steps, DDIM, written to the empty or missing
/// folder `to`. Weight files are linked.
///
/// # Errors
/// [`ModelError::Io`].
pub fn with_ddim(model: &ModelDir, to: &Path) -> Result<ModelDir> {
    let mut manifest = model.manifest().clone();
    manifest.scheduler.class = SamplerClass::Ddim;
    // From the last timestep on, where training with a rescaled schedule has pure noise.
    manifest.scheduler.timestep_spacing = TimestepSpacing::Trailing;
    manifest.defaults.timesteps = None;
    create(to)?;
    linked(model, &manifest, to)
}

/// `model` with motion modules of the published shape and random weights, its norms pooled over the frames of a window
/// as in the original, and `context_frames` by default; written to the empty or missing folder `to`. Weight files are
/// linked.
///
/// # Errors
/// [`ModelError::Config`] if the model has motion modules or its U-Net cannot have them, or [`ModelError::Io`].
pub fn with_random_motion(model: &ModelDir, context_frames: usize, to: &Path) -> Result<ModelDir> {
    let mut manifest = model.manifest().clone();
    let unet = &mut manifest.networks.unet;
    if unet.get("use_motion_module").and_then(toml::Value::as_bool) == Some(true) {
        return Err(ModelError::Config(format!("the model {} has motion modules already", manifest.name)));
    }
    unet.insert("use_motion_module".to_owned(), true.into());
    unet.insert("norm_per_frame".to_owned(), false.into());
    let mut config: UNetConfig = model.network("unet", unet)?;
    if config.check(true).is_err() {
        // Of widths that the original's groups do not divide: as many as the network's other norms have.
        config.motion_module_kwargs.norm_num_groups = config.norm_num_groups;
        let kwargs = toml::Table::try_from(&config.motion_module_kwargs)
            .map_err(|error| ModelError::Config(format!("motion modules: {error}")))?;
        unet.insert("motion_module_kwargs".to_owned(), kwargs.into());
    }
    config.check(true)?;
    create(to)?;
    save(&to.join(MOTION), &random_motion(&config)?, &BTreeMap::new(), None)?;
    let kept = manifest.files.get(&Role::Unet).map(Files::entries).unwrap_or_default();
    let files = kept.iter().cloned().chain([FileEntry::of(to, MOTION)?]).collect();
    manifest.files.insert(Role::Unet, Files::Many(files));
    manifest.name = format!("{} with random motion modules", manifest.name);
    manifest.defaults.context_frames = context_frames;
    linked(model, &manifest, to)
}

/// The tensors of all motion modules of a U-Net, the same on every call.
fn random_motion(config: &UNetConfig) -> Result<BTreeMap<String, Tensor>> {
    tch::manual_seed(1);
    let source = Source::fresh(Device::Cpu);
    motion_modules(&source, config)?;
    let effective = |(name, tensor): (String, Tensor)| {
        let end = name.ends_with("temporal_transformer.proj_out.weight");
        let tensor = tensor.detach();
        let random = || Tensor::randn(tensor.size(), (Kind::Float, Device::Cpu)) * SPREAD;
        (name, if end { random() } else { tensor })
    };
    Ok(source.tensors().into_iter().map(effective).collect())
}

fn create(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).map_err(failed(folder))?;
    let mut inside = fs::read_dir(folder).map_err(failed(folder))?;
    match inside.next() {
        None => Ok(()),
        Some(_) => Err(ModelError::Config(format!("{} is not empty: name another folder", folder.display()))),
    }
}

/// Writes `manifest` to `to` and links the files that are not there.
fn linked(model: &ModelDir, manifest: &Manifest, to: &Path) -> Result<ModelDir> {
    let from = fs::canonicalize(model.dir()).map_err(failed(model.dir()))?;
    for entry in manifest.files.values().flat_map(Files::entries) {
        let (file, link) = (from.join(&entry.path), to.join(&entry.path));
        if link.exists() {
            continue;
        }
        if let Some(folder) = link.parent() {
            fs::create_dir_all(folder).map_err(failed(folder))?;
        }
        std::os::unix::fs::symlink(file, &link).map_err(failed(&link))?;
    }
    let file = to.join(MANIFEST);
    fs::write(&file, manifest.to_toml()?).map_err(failed(&file))?;
    ModelDir::load(to)
}

fn failed(file: &Path) -> impl FnOnce(io::Error) -> ModelError {
    let file: PathBuf = file.to_owned();
    |source| ModelError::Io { file, source }
}
