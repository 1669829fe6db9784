//! `keyframed-train personal`: a model of one person, from a video of theirs.
//!
//! The decoder first learns what the person looks like; then the denoising networks go on from the model's, on the
//! person alone. The encoder stays as it is, and with it the meaning of latents.

mod footage;

use crate::{
    checkpoint, config,
    data::Pool,
    eval::{Mean, Quality, frame, quality},
    plot,
    stages::{
        denoise::DenoiseStage,
        encode::{self, Latents},
        vae::VaeStage,
    },
    synth::Shot,
    trainer::{Stage as _, Trainer},
};
use anyhow::{Context, Result, ensure};
use keyframed_engine::{
    KeyframeGenerator,
    pose::{Labels, Palette},
};
use keyframed_models::{
    Fusion,
    checkpoint::{FileEntry, Files, Manifest, ModelDir, Role, save},
    device::Placement,
    generator::{LcmGenerator, Settings},
};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    fmt::{Display, Formatter},
    path::{Path, PathBuf},
};
use tch::{Kind, Tensor};

/// Share of the time that the decoder gets.
const DECODER: f64 = 0.3;
/// Pictures of the held-out part that are judged.
const JUDGED: usize = 60;
/// Batches of a step, each on a thread of its own.
const SHARDS: usize = 2;
/// Pictures on the sheet.
const SHOWN: usize = 8;

/// What to adapt, to whom.
pub struct Plan {
    /// Video of the person.
    pub rgb: PathBuf,
    /// The same video as DensePose sees it.
    pub densepose: PathBuf,
    /// Where the new model goes.
    pub out: PathBuf,
    /// The new model's name.
    pub name: String,
    /// Wall time.
    pub minutes: f64,
    /// Seed of batches and noise.
    pub seed: u64,
}

/// Figures on the end of the footage, which no training saw.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Pictures trained on.
    pub trained_on: usize,
    /// Pictures judged.
    pub judged: usize,
    /// Of the model that was adapted.
    pub before: Quality,
    /// Of the new one.
    pub after: Quality,
    /// Where the new model lies.
    pub model: PathBuf,
    /// Rows of pose, truth, before and after.
    pub sheet: PathBuf,
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter) -> std::fmt::Result {
        writeln!(f, "trained on {} pictures, judged on {} later ones", self.trained_on, self.judged)?;
        writeln!(f, "{:<10}{:>8}{:>8}{:>8}{:>8}{:>8}", "", "PSNR", "person", "SSIM", "edges", "sharp")?;
        for (name, q) in [("before", &self.before), ("after", &self.after)] {
            let Quality { psnr, psnr_person, ssim, edge_error, sharpness } = q;
            writeln!(
                f,
                "{name:<10}{psnr:>8.2}{psnr_person:>8.2}{ssim:>8.3}{edge_error:>8.2}{sharpness:>8.2}"
            )?;
        }
        writeln!(f, "model: {}\nsheet: {}", self.model.display(), self.sheet.display())
    }
}

/// Adapts `model`.
///
/// # Errors
/// The videos cannot be used, the model is of another kind, or a file cannot be written.
pub fn run(model: &ModelDir, plan: &Plan) -> Result<Report> {
    let manifest = model.manifest();
    ensure!(
        manifest.family == "mini",
        "only models of the family `mini` can be adapted, not `{}`",
        manifest.family
    );
    ensure!(manifest.image.width == manifest.image.height, "only square models can be adapted");
    ensure!(model.has(Role::TextEmbedding), "only models with a stored text can be adapted");
    let filled = std::fs::read_dir(&plan.out).is_ok_and(|mut entries| entries.next().is_some());
    ensure!(!filled, "{} is not empty; give a folder that does not exist yet", plan.out.display());
    let size = manifest.image.width as usize;
    let album = footage::album(&plan.rgb, &plan.densepose, size)?;
    let pool = Pool { albums: vec![album], gallery: 0, size };
    std::fs::create_dir_all(plan.out.join("avatars"))
        .with_context(|| format!("cannot create {}", plan.out.display()))?;
    // Beside the model, not in it; gone when all is done.
    let work = tempfile::tempdir_in(&plan.out)?;
    let weights = adapt(model, plan, &pool, work.path())?;
    let adapted = write(model, plan, &pool, weights)?;
    let sheet = plan.out.join("sheet.png");
    judge(model, &adapted, &pool, &sheet, plan)
}

/// Weights by role.
type Weights = BTreeMap<Role, BTreeMap<String, Tensor>>;

fn adapt(model: &ModelDir, plan: &Plan, pool: &Pool, work: &Path) -> Result<Weights> {
    let networks = &model.manifest().networks;
    let single = |role: Role| -> Result<BTreeMap<String, Tensor>> {
        Ok(model.tensors(role)?.into_iter().map(|(k, t)| (k, t.to_kind(Kind::Float))).collect())
    };
    let vae = config::Vae::adapting(model.network("vae", &networks.vae)?, pool.size);
    let file = work.join("vae.safetensors");
    let old: Vec<(String, Tensor)> = single(Role::Vae)?.into_iter().collect();
    checkpoint::write(&file, &old)?;
    let decoder = VaeStage::decoder(&vae, pool, &file)?;
    let mut trainer = Trainer::new(&decoder, work, plan.seed, SHARDS)?;
    trainer.run(&decoder, plan.minutes * DECODER)?;
    trainer.settle();
    let decoded: Vec<(String, Tensor)> = decoder.weights().into_iter().collect();
    checkpoint::write(&file, &decoded)?;

    let scaling = vae.network.scaling_factor;
    let autoencoder = encode::load(&file, &vae.network)?;
    let latents = Latents::of(&autoencoder, pool, scaling);
    let recipe = config::Denoise::adapting(
        model.network("unet", &networks.unet)?,
        model.network("controlnet", &networks.controlnet)?,
        model.manifest().scheduler.clone(),
    );
    ensure!(
        model.manifest().fusion_blocks == Fusion::Midup,
        "only models with `midup` fusion can be adapted"
    );
    let stage = DenoiseStage::new(&recipe, pool, &latents, &autoencoder, scaling)?;
    let mut start = BTreeMap::new();
    let parts = [(Role::Unet, "unet"), (Role::Controlnet, "controlnet"), (Role::Appearance, "appearance")];
    for (role, prefix) in parts {
        start.extend(single(role)?.into_iter().map(|(key, t)| (format!("{prefix}.{key}"), t)));
    }
    let text = single(Role::TextEmbedding)?.remove("conditional").context("the model has no stored text")?;
    start.insert("text.embedding".to_owned(), text);
    stage.start_from(&start)?;
    let mut trainer = Trainer::new(&stage, work, plan.seed, SHARDS)?;
    trainer.run(&stage, plan.minutes * (1.0 - DECODER))?;
    trainer.settle();
    let trained = stage.params();
    let mut weights: Weights =
        parts.into_iter().map(|(role, prefix)| (role, checkpoint::below(&trained, prefix))).collect();
    let text = [("conditional".to_owned(), trained["text.embedding"].shallow_clone())];
    weights.insert(Role::TextEmbedding, text.into());
    weights.insert(Role::Vae, decoded.into_iter().collect());
    Ok(weights)
}

/// The new model directory: what was trained, and copies of the rest.
fn write(model: &ModelDir, plan: &Plan, pool: &Pool, weights: Weights) -> Result<ModelDir> {
    let mut files = model.manifest().files.clone();
    // An update for few steps was made for the weights of before.
    files.remove(&Role::Lora);
    for (role, tensors) in weights {
        let path = format!("{role}.safetensors");
        save(&plan.out.join(&path), &tensors, &BTreeMap::new(), Some(Kind::Half))?;
        files.insert(role, Files::One(FileEntry::of(&plan.out, &path)?));
    }
    for entry in files.get(&Role::Film).map(Files::entries).unwrap_or_default() {
        let (from, to) = (model.dir().join(&entry.path), plan.out.join(&entry.path));
        if let Some(folder) = to.parent() {
            std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        }
        std::fs::copy(&from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
    }
    let avatar = plan.out.join("avatars").join(format!("{}.png", plan.name));
    save_picture(&pool.albums[0].references[0].rgb, pool.size, &avatar)?;
    let mut provenance = model.manifest().provenance.clone();
    provenance.insert("adapted_from".to_owned(), model.manifest().name.clone().into());
    provenance.insert("own_pictures".to_owned(), i64::try_from(pool.training_targets(0).len())?.into());
    let manifest = Manifest {
        name: plan.name.clone(),
        description: format!("{} adapted to one person's own footage", model.manifest().name),
        licence: "weights adapted by their owner; the base is MIT OR Apache-2.0".to_owned(),
        files,
        provenance,
        ..model.manifest().clone()
    };
    let file = plan.out.join("model.toml");
    std::fs::write(&file, manifest.to_toml()?).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(ModelDir::load(&plan.out)?)
}

fn save_picture(rgb: &[u8], size: usize, to: &Path) -> Result<()> {
    let side = size as u32;
    let picture = image::RgbImage::from_raw(side, side, rgb.to_vec()).context("a picture of another size")?;
    picture.save(to).with_context(|| format!("cannot write {}", to.display()))
}

/// Both models on the end of the footage.
fn judge(before: &ModelDir, after: &ModelDir, pool: &Pool, sheet: &Path, plan: &Plan) -> Result<Report> {
    let (album, size) = (&pool.albums[0], pool.size);
    let held_out = &album.targets[album.targets.len() - album.held_out..];
    let judged: Vec<_> = held_out.iter().step_by(held_out.len().div_ceil(JUDGED)).collect();
    let reference = frame(&album.references[0].rgb, size)?;
    let shown = |i: usize| i.is_multiple_of(judged.len().div_ceil(SHOWN));
    let mut rows = vec![vec![]; 4];
    let mut means = Vec::new();
    for (n, model) in [before, after].into_iter().enumerate() {
        let mut generator = LcmGenerator::new(model, Settings::of(model), Placement::default())?;
        generator.set_reference(&reference)?;
        let mut mean = Mean::default();
        for (i, target) in judged.iter().enumerate() {
            let side = size as u32;
            let pose = Labels::new(side, side, target.labels.clone())?.colours(Palette::Viridis);
            let made = generator.generate(&pose, 0)?;
            let truth = Shot { size, rgb: target.rgb.clone(), labels: target.labels.clone() };
            mean.add(quality(made.data(), &truth, size));
            if shown(i) {
                rows[2 + n].push(made.data().to_vec());
                if n == 0 {
                    rows[0].push(pose.data().to_vec());
                    rows[1].push(target.rgb.clone());
                }
            }
        }
        means.push(mean.mean());
    }
    plot::grid(sheet, &rows, size)?;
    Ok(Report {
        trained_on: pool.training_targets(0).len(),
        judged: judged.len(),
        before: means[0],
        after: means[1],
        model: plan.out.clone(),
        sheet: sheet.to_owned(),
    })
}
