//! A model directory out of the files that people download.
//!
//! What came from which file stands in the new `model.toml`; nothing is left of an import that fails.

use super::{
    FileEntry, Files, Lora, MANIFEST, Manifest, ModelDir, OpenedFile, Role, Weight, fit, network,
    save_weights,
};
use crate::{
    clip::ClipTextConfig,
    error::{ModelError, Result},
    random,
    scheduler::{BetaSchedule, SamplerClass},
    tokenizer::{self, ClipTokenizer},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};
use tch::Kind;

/// Names that a network's weights have in a folder of diffusers or transformers, in the order they are looked for.
const WEIGHTS: [&str; 6] = [
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.fp16.safetensors",
    "model.safetensors",
    "diffusion_pytorch_model.bin",
    "model.fp16.safetensors",
    "pytorch_model.bin",
];

/// Where in MagicAnimate's folder the motion modules are.
const MOTION: &str = "temporal_attention/temporal_attention.ckpt";

/// Tensors that no network reads: position numbers that older programs stored.
const IGNORED: [&str; 1] = ["text_model.embeddings.position_ids"];

/// Where the parts of a model are.
#[derive(Debug, Clone)]
pub struct Parts {
    /// Stable Diffusion 1.5 in diffusers' layout: `unet`, `text_encoder`, `tokenizer`, `vae`.
    pub sd15: PathBuf,
    /// MagicAnimate's published folder: `appearance_encoder`, `densepose_controlnet`, `temporal_attention`.
    pub magicanimate: PathBuf,
    /// An autoencoder instead of Stable Diffusion's, such as sd-vae-ft-mse.
    pub vae: Option<PathBuf>,
    /// TAESD instead of an autoencoder: diffusers' file, or the folder of the original's two.
    pub taesd: Option<PathBuf>,
    /// LCM-LoRA.
    pub lcm_lora: Option<PathBuf>,
    /// FILM, as TorchScript or safetensors.
    pub film: Option<PathBuf>,
    /// Of the weights that are written: half or single precision.
    pub kind: Kind,
}

/// How far an import is.
#[derive(Debug, Clone, Copy)]
pub enum Progress<'a> {
    /// What is done next.
    Said(&'a str),
    /// Bytes written, and to be written in all.
    Written(u64, u64),
}

/// Tensors by key, each with the file it came from.
type Sourced = BTreeMap<String, (Weight, PathBuf)>;

/// Builds a model in `to`, a folder that does not exist or is empty: looks at all files first, then writes, one tensor
/// in memory at a time.
///
/// # Errors
/// What is missing, of another kind or damaged; nothing is left then.
pub fn import(parts: &Parts, to: &Path, mut report: impl FnMut(Progress<'_>)) -> Result<ModelDir> {
    let failed = |file: &Path| {
        let file = file.to_owned();
        |source| ModelError::Io { file, source }
    };
    if fs::read_dir(to).is_ok_and(|mut entries| entries.next().is_some()) {
        let reason = "is not empty; give a folder that does not exist yet".to_owned();
        return Err(ModelError::BadFile { file: to.to_owned(), reason });
    }
    let name = to.file_name().map(|name| name.to_string_lossy().into_owned());
    let name = name.ok_or_else(|| ModelError::Config(format!("{} is no name for a folder", to.display())))?;
    let above = to.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(above).map_err(failed(above))?;
    // In the same folder, so that it can be renamed; dropped with all that is in it if something fails.
    let part = tempfile::Builder::new().prefix(".import-").tempdir_in(above).map_err(failed(above))?;
    let mut importer = Importer {
        parts,
        dir: part.path(),
        manifest: described(parts, &name)?,
        found: Vec::new(),
        report: &mut report,
    };
    importer.look()?;
    importer.write()?;
    let manifest = importer.manifest;
    let file = part.path().join(MANIFEST);
    fs::write(&file, manifest.to_toml()?).map_err(failed(&file))?;
    ModelDir::load(part.path())?;
    fs::set_permissions(part.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .map_err(failed(to))?;
    fs::rename(part.path(), to).map_err(failed(to))?;
    let _gone = part.keep();
    ModelDir::load(to)
}

/// The manifest without files: full-size MagicAnimate, where a folder's own `config.json` does not say otherwise.
fn described(parts: &Parts, name: &str) -> Result<Manifest> {
    let mut manifest = random::full_size()?;
    manifest.name = name.to_owned();
    manifest.description = "Stable Diffusion 1.5 with MagicAnimate, as published".into();
    manifest.licence = "CreativeML OpenRAIL-M (Stable Diffusion 1.5); BSD-3-Clause (MagicAnimate)".into();
    manifest.defaults.lora_scale = 1.0;
    // MagicAnimate was trained with these, unlike Stable Diffusion.
    manifest.scheduler.beta_schedule = BetaSchedule::Linear;
    if parts.lcm_lora.is_none() {
        // As MagicAnimate samples.
        manifest.scheduler.class = SamplerClass::Ddim;
        manifest.scheduler.steps_offset = 1;
        manifest.defaults.steps = 25;
        manifest.defaults.guidance_scale = 7.5;
    }
    let networks = &mut manifest.networks;
    networks.unet.extend(config(&parts.sd15.join("unet"))?);
    networks.controlnet.extend(config(&parts.magicanimate.join("densepose_controlnet"))?);
    let appearance = config(&parts.magicanimate.join("appearance_encoder"))?;
    networks.appearance = (!appearance.is_empty()).then_some(appearance);
    networks.text_encoder = Some(config(&parts.sd15.join("text_encoder"))?);
    networks.vae = match (&parts.taesd, &parts.vae) {
        (Some(taesd), _) => {
            let mut table = config(taesd)?;
            table.insert("_class_name".into(), "AutoencoderTiny".into());
            table
        }
        (None, Some(vae)) => config(vae)?,
        (None, None) => config(&parts.sd15.join("vae"))?,
    };
    if parts.film.is_none() {
        networks.film = None;
    }
    Ok(manifest)
}

/// A folder's `config.json`, without what says nothing about the network; empty if there is none.
fn config(folder: &Path) -> Result<toml::Table> {
    let file = folder.join("config.json");
    let bad = |reason: String| ModelError::BadFile { file: file.clone(), reason };
    let Ok(text) = fs::read_to_string(&file) else { return Ok(toml::Table::new()) };
    let values: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(&text).map_err(|e| bad(e.to_string()))?;
    let kept = values.into_iter().filter(|(key, value)| !key.starts_with('_') && !value.is_null());
    kept.map(|(key, value)| Ok((key, toml::Value::try_from(value).map_err(|e| bad(e.to_string()))?)))
        .collect()
}

/// Tensors that fit their network.
struct Found {
    role: Role,
    weights: BTreeMap<String, Weight>,
    metadata: BTreeMap<String, String>,
}

struct Importer<'a> {
    parts: &'a Parts,
    dir: &'a Path,
    manifest: Manifest,
    found: Vec<Found>,
    report: &'a mut dyn FnMut(Progress<'_>),
}

impl Importer<'_> {
    /// Opens every file and compares names and shapes.
    fn look(&mut self) -> Result<()> {
        let (sd15, magic) = (&self.parts.sd15, &self.parts.magicanimate);
        let unet = self.unet(&sd15.join("unet"), &magic.join(MOTION))?;
        self.lora(unet)?;
        self.network(Role::Controlnet, &magic.join("densepose_controlnet"))?;
        self.network(Role::Appearance, &magic.join("appearance_encoder"))?;
        self.network(Role::TextEncoder, &sd15.join("text_encoder"))?;
        self.tokenizer(&sd15.join("tokenizer"))?;
        match (&self.parts.taesd, &self.parts.vae) {
            (Some(taesd), _) => self.taesd(taesd)?,
            (None, Some(vae)) => self.network(Role::Vae, vae)?,
            (None, None) => self.network(Role::Vae, &sd15.join("vae"))?,
        }
        match &self.parts.film {
            Some(film) => self.network(Role::Film, film),
            None => Ok(()),
        }
    }

    /// Writes what was found.
    fn write(&mut self) -> Result<()> {
        let kind = Some(self.parts.kind);
        let size = |weight: &Weight| weight.bytes_in(kind) as u64;
        let total = self.found.iter().flat_map(|found| found.weights.values()).map(size).sum();
        let mut done = 0;
        for Found { role, weights, metadata } in &self.found {
            let path = format!("{role}.safetensors");
            (self.report)(Progress::Said(&format!("writing {path}")));
            let mut written = |bytes: usize| {
                done += bytes as u64;
                (self.report)(Progress::Written(done, total));
            };
            save_weights(&self.dir.join(&path), weights, metadata, kind, &mut written)?;
            self.manifest.files.insert(*role, Files::One(FileEntry::of(self.dir, &path)?));
        }
        Ok(())
    }

    /// A network out of one file.
    fn network(&mut self, role: Role, from: &Path) -> Result<()> {
        let weights = self.open(&weights_in(from)?)?;
        self.put(role, weights)
    }

    /// Stable Diffusion's weights, and over them whatever MagicAnimate's file has: by its size it is a whole U-Net.
    fn unet(&mut self, spatial: &Path, motion: &Path) -> Result<BTreeMap<String, Weight>> {
        let file = weights_in(spatial)?;
        let mut all = self.open(&file)?;
        check_version(&file, &all)?;
        let asked = fit::asked(&self.dir.join(MANIFEST), &self.manifest, Role::Unet, &all)?;
        let (mut taken, mut left) = (0, 0);
        for (key, value) in self.open(motion)? {
            let stripped = ["module.", "unet."]
                .iter()
                .fold(key.as_str(), |key, prefix| key.strip_prefix(prefix).unwrap_or(key));
            if asked.contains_key(stripped) {
                taken += 1;
                all.insert(stripped.to_owned(), value);
            } else {
                left += 1;
            }
        }
        if taken == 0 {
            let reason =
                "holds nothing of a U-Net; it should be MagicAnimate's temporal_attention.ckpt".into();
            return Err(ModelError::BadFile { file: motion.to_owned(), reason });
        }
        let said = format!("{}: {taken} tensors taken, {left} not of the U-Net", motion.display());
        (self.report)(Progress::Said(&said));
        let weights = all.iter().map(|(key, (weight, _))| (key.clone(), weight.clone())).collect();
        self.put(Role::Unet, all)?;
        Ok(weights)
    }

    /// Copied as it is, once it is clear that it belongs to this U-Net.
    fn lora(&mut self, mut unet: BTreeMap<String, Weight>) -> Result<()> {
        let Some(file) = &self.parts.lcm_lora else { return Ok(()) };
        let opened = OpenedFile::open(file)?;
        Lora::from_weights(opened.read()?)?.update(&mut unet, 1.0)?;
        self.note(Role::Lora, file, vec!["all".to_owned()]);
        self.found.push(Found { role: Role::Lora, weights: opened.weights, metadata: opened.metadata });
        Ok(())
    }

    /// Copied as it is, if there is one, once it is clear that it belongs to this text encoder.
    fn tokenizer(&mut self, from: &Path) -> Result<()> {
        if !from.is_dir() {
            let said = format!("{}: there is none, so this model will take no prompt", from.display());
            (self.report)(Progress::Said(&said));
            return Ok(());
        }
        let mut entries = Vec::new();
        for name in tokenizer::FILES {
            let (file, copy) = (from.join(name), self.dir.join(name));
            (self.report)(Progress::Said(&format!("copying {}", file.display())));
            fs::copy(&file, &copy).map_err(|source| ModelError::Io { file, source })?;
            entries.push(FileEntry::of(self.dir, name)?);
        }
        self.manifest.files.insert(Role::Tokenizer, Files::Many(entries));
        let [vocabulary, merges] = tokenizer::FILES.map(|name| from.join(name));
        let read =
            |file: &Path| fs::read(file).map_err(|source| ModelError::Io { file: file.to_owned(), source });
        let tokenizer = ClipTokenizer::new((&vocabulary, &read(&vocabulary)?), (&merges, &read(&merges)?))?;
        let table = self.manifest.networks.text_encoder.clone().unwrap_or_default();
        let config: ClipTextConfig = network(&self.dir.join(MANIFEST), "text_encoder", &table)?;
        tokenizer.check(&vocabulary, &config)?;
        for name in tokenizer::FILES {
            self.note(Role::Tokenizer, &from.join(name), vec!["all".to_owned()]);
        }
        Ok(())
    }

    /// diffusers' single file, or the original's encoder and decoder.
    fn taesd(&mut self, from: &Path) -> Result<()> {
        let halves = ["taesd_encoder", "taesd_decoder"].map(|half| {
            let named = |ending: &str| from.join(format!("{half}.{ending}"));
            let file = ["safetensors", "pth"].map(named).into_iter().find(|file| file.is_file());
            file.map(|file| (half, file))
        });
        let [Some(encoder), Some(decoder)] = halves else { return self.network(Role::Vae, from) };
        let mut all = Sourced::new();
        for (half, file) in [encoder, decoder] {
            let weights = self.open(&file)?.into_iter().map(|(key, value)| (format!("{half}.{key}"), value));
            all.extend(weights);
        }
        self.put(Role::Vae, all)
    }

    fn open(&mut self, file: &Path) -> Result<Sourced> {
        (self.report)(Progress::Said(&format!("opening {}", file.display())));
        let weights = OpenedFile::open(file)?.weights.into_iter();
        Ok(weights.map(|(key, weight)| (modern(&key), (weight, file.to_owned()))).collect())
    }

    /// Keeps a network's tensors if they are what it asks for.
    fn put(&mut self, role: Role, tensors: Sourced) -> Result<()> {
        let files: BTreeSet<_> = tensors.values().map(|(_, file)| file.display().to_string()).collect();
        let label = PathBuf::from(files.into_iter().collect::<Vec<_>>().join(" + "));
        let mut from: BTreeMap<PathBuf, Vec<String>> = BTreeMap::new();
        let mut weights = BTreeMap::new();
        for (key, (weight, file)) in tensors {
            if !IGNORED.contains(&key.as_str()) {
                from.entry(file).or_default().push(key.clone());
                weights.insert(key, weight);
            }
        }
        let asked = fit::asked(&self.dir.join(MANIFEST), &self.manifest, role, &weights)?;
        fit::check(&label, &asked, &weights)?;
        for (file, keys) in from {
            self.note(role, &file, keys);
        }
        self.found.push(Found { role, weights, metadata: BTreeMap::new() });
        Ok(())
    }

    /// Which tensors came from which file, in the manifest.
    fn note(&mut self, role: Role, file: &Path, keys: Vec<String>) {
        let table = self.manifest.provenance.entry(role.to_string());
        let table = table.or_insert_with(|| toml::Value::Table(toml::Table::new()));
        // The name within its folder: where it lay on this machine is nobody's business.
        let name = file.components().rev().take(2).map(|part| part.as_os_str().to_string_lossy());
        let name = name.collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("/");
        if let Some(table) = table.as_table_mut() {
            table.insert(name, keys.into());
        }
    }
}

fn check_version(file: &Path, tensors: &Sourced) -> Result<()> {
    let key = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight";
    let second = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight";
    let width = [key, second].iter().find_map(|key| tensors.get(*key)?.0.shape().get(1).copied());
    let other = match width {
        Some(1024) => "Stable Diffusion 2",
        Some(2048) => "Stable Diffusion XL",
        _ => return Ok(()),
    };
    let reason = format!("this is {other}; MagicAnimate needs Stable Diffusion 1.5");
    Err(ModelError::BadFile { file: file.to_owned(), reason })
}

/// A weight file, or the one in a folder.
fn weights_in(place: &Path) -> Result<PathBuf> {
    if place.is_file() {
        return Ok(place.to_owned());
    }
    let found = WEIGHTS.iter().map(|name| place.join(name)).find(|file| file.is_file());
    found.ok_or_else(|| {
        let reason = format!("holds no weights; looked for {}", WEIGHTS.join(", "));
        ModelError::BadFile { file: place.to_owned(), reason }
    })
}

/// diffusers' present name of an autoencoder's attention tensor; other names stay.
pub fn modern(key: &str) -> String {
    let Some((place, rest)) =
        key.split_once(".attentions.0.").filter(|(place, _)| place.ends_with("mid_block"))
    else {
        return key.to_owned();
    };
    let renamed = [("query.", "to_q."), ("key.", "to_k."), ("value.", "to_v."), ("proj_attn.", "to_out.0.")];
    let rest = renamed.iter().find_map(|(old, new)| Some(format!("{new}{}", rest.strip_prefix(old)?)));
    rest.map_or_else(|| key.to_owned(), |rest| format!("{place}.attentions.0.{rest}"))
}
