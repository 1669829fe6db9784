//! `model.toml`: what a model directory says about itself.

use super::{fit, limits};
use crate::{
    error::{ModelError, Result},
    reference::Fusion,
    scheduler::SchedulerConfig,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    collections::BTreeMap,
    fmt,
    fs::File,
    io::Read as _,
    path::{Component, Path},
};

/// Largest side of pictures, in pixels.
const LARGEST_SIDE: u32 = 4096;
/// Longest file, bytes: the embedded model's has four thousand.
const LONGEST: u64 = 1 << 20;
/// The position table of a motion module has 24 places; one is the new frame's.
const MOST_CONTEXT: usize = 23;

/// The whole file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Which builder makes it: see [`crate::registry`].
    pub family: String,
    /// What users call it.
    pub name: String,
    /// One line about it.
    #[serde(default)]
    pub description: String,
    /// Licence of the weights, an SPDX expression where there is one.
    pub licence: String,
    /// Width and height of its pictures.
    pub image: ImageSize,
    /// How it wants to see poses.
    #[serde(default)]
    pub pose: PoseInput,
    /// Which attention blocks read the reference.
    #[serde(default)]
    pub fusion_blocks: Fusion,
    /// How it is run unless the user says otherwise.
    pub defaults: Defaults,
    /// The noise schedule and sampler.
    pub scheduler: SchedulerConfig,
    /// The networks' published configurations.
    pub networks: Networks,
    /// The weight files.
    pub files: BTreeMap<Role, Files>,
    /// Where the weights come from.
    #[serde(default)]
    pub provenance: toml::Table,
}

/// Size of a model's pictures in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageSize {
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

/// How the ControlNet was trained to see poses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PoseInput {
    /// The colours of the parts.
    pub palette: PaletteName,
    /// Whether to turn the picture into part labels and back first, which
    /// removes what video codecs do to its colours.
    pub relabel: bool,
}

/// Part colours of pose pictures.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PaletteName {
    /// DensePose's own.
    #[default]
    Viridis,
    /// Well separated colours.
    Spread,
}

/// Settings a run starts with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Defaults {
    /// Denoising steps.
    pub steps: usize,
    /// Guidance; 1 or less runs the conditional prediction alone.
    pub guidance_scale: f64,
    /// Share of the LoRA, if there is one.
    #[serde(default = "one")]
    pub lora_scale: f64,
    /// Key frames that a new one sees; 0 for a network without motion modules.
    #[serde(default)]
    pub context_frames: usize,
    /// Timesteps that replace the even spacing when as many steps are run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timesteps: Option<Vec<i64>>,
}

fn one() -> f64 {
    1.0
}

/// The networks' configurations, as published (JSON written as TOML).
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Networks {
    /// `AutoencoderKL` or, where `_class_name` says so, `AutoencoderTiny`.
    pub vae: toml::Table,
    /// The U-Net, motion modules included.
    pub unet: toml::Table,
    /// The pose network.
    pub controlnet: toml::Table,
    /// The reference network; the U-Net's configuration where it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub appearance: Option<toml::Table>,
    /// The text encoder, if the directory has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text_encoder: Option<toml::Table>,
    /// Frame interpolation, if the directory has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub film: Option<toml::Table>,
}

/// What a weight file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The autoencoder.
    Vae,
    /// The U-Net; several files (spatial, motion) are laid over each other.
    Unet,
    /// The pose network.
    Controlnet,
    /// The reference network.
    Appearance,
    /// A low-rank update of the U-Net.
    Lora,
    /// Frame interpolation.
    Film,
    /// CLIP.
    TextEncoder,
    /// CLIP's vocabulary: `vocab.json` and `merges.txt`, in this order.
    Tokenizer,
    /// Tensors `conditional` and optionally `unconditional`, `[1, n, d]`,
    /// instead of a text encoder.
    TextEmbedding,
}

impl Role {
    /// Whether its tensors are a network's own.
    pub(super) fn is_network(self) -> bool {
        !matches!(self, Self::Lora | Self::TextEmbedding | Self::Tokenizer)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vae => "vae",
            Self::Unet => "unet",
            Self::Controlnet => "controlnet",
            Self::Appearance => "appearance",
            Self::Lora => "lora",
            Self::Film => "film",
            Self::TextEncoder => "text_encoder",
            Self::Tokenizer => "tokenizer",
            Self::TextEmbedding => "text_embedding",
        })
    }
}

/// One file or several; of tensors that several have, the last file's counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Files {
    /// One.
    One(FileEntry),
    /// Several.
    Many(Vec<FileEntry>),
}

impl Files {
    /// All of them.
    pub fn entries(&self) -> &[FileEntry] {
        match self {
            Self::One(entry) => std::slice::from_ref(entry),
            Self::Many(entries) => entries,
        }
    }
}

/// A weight file of the directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Where, relative to the directory and within it.
    pub path: String,
    /// SHA-256, hexadecimal.
    pub sha256: String,
    /// Bytes.
    pub size: u64,
    /// Put before the file's keys, with a dot: `taesd_encoder` for one half of TAESD.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
}

/// A file's text. A device or a pipe in its place would be read for ever.
fn text(file: &Path) -> Result<String> {
    let failed = |source| ModelError::Io { file: file.to_owned(), source };
    let bad = |reason: String| Err(ModelError::BadFile { file: file.to_owned(), reason });
    // Asked before it is opened: opening a pipe waits for its writer.
    if !std::fs::metadata(file).map_err(failed)?.is_file() {
        return bad("this is not a file".into());
    }
    let mut text = String::new();
    let opened = File::open(file).map_err(failed)?;
    opened.take(LONGEST + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > LONGEST {
        return bad(format!("it is longer than {} KiB", LONGEST >> 10));
    }
    Ok(text)
}

impl Manifest {
    /// Reads and checks a `model.toml`; the files it names are not looked at.
    ///
    /// # Errors
    /// [`ModelError::Io`], or [`ModelError::BadFile`] naming the entry and the line.
    pub fn read(file: &Path) -> Result<Self> {
        Self::parse(file, &text(file)?)
    }

    /// The same from the file's text; `file` is what errors name.
    ///
    /// # Errors
    /// [`ModelError::BadFile`] naming the entry and the line.
    pub fn parse(file: &Path, text: &str) -> Result<Self> {
        let bad = |reason: String| ModelError::BadFile { file: file.to_owned(), reason };
        let manifest: Self = toml::from_str(text).map_err(|e| bad(e.to_string()))?;
        manifest.check().map_err(bad)?;
        Ok(manifest)
    }

    /// The file's text.
    ///
    /// # Errors
    /// [`ModelError::Config`] for values that TOML cannot say.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self).map_err(|e| ModelError::Config(format!("model.toml: {e}")))
    }

    /// Key and shape of every tensor that the network of `role` asks for; none where the role has no network. Nothing
    /// is read or allocated.
    ///
    /// # Errors
    /// A configuration that no network can be built from.
    pub fn shapes(&self, role: Role) -> Result<BTreeMap<String, Vec<i64>>> {
        fit::asked(Path::new(super::MANIFEST), self, role, &BTreeMap::<String, ()>::new())
    }

    fn check(&self) -> Result<(), String> {
        let ImageSize { width, height } = self.image;
        let side = |n: u32| (8..=LARGEST_SIDE).contains(&n);
        if !side(width) || !side(height) {
            return Err(format!("image: {width}x{height} pixels, sides must be 8..{LARGEST_SIDE}"));
        }
        for role in [Role::Vae, Role::Unet, Role::Controlnet, Role::Appearance] {
            if !self.files.contains_key(&role) {
                return Err(format!("files: `{role}` is missing"));
            }
        }
        if !self.files.contains_key(&Role::TextEmbedding) && !self.files.contains_key(&Role::TextEncoder) {
            return Err("files: `text_embedding` or `text_encoder` is missing".into());
        }
        for (role, files) in &self.files {
            if files.entries().is_empty() {
                return Err(format!("files: `{role}` names no file"));
            }
            files.entries().iter().try_for_each(FileEntry::check)?;
        }
        self.defaults.check()
    }
}

impl Defaults {
    fn check(&self) -> Result<(), String> {
        if self.steps == 0 || !self.guidance_scale.is_finite() || !self.lora_scale.is_finite() {
            return Err("defaults: steps must be positive, guidance_scale and lora_scale numbers".into());
        }
        if self.context_frames > MOST_CONTEXT {
            return Err(format!("defaults: context_frames must be {MOST_CONTEXT} or less"));
        }
        Ok(())
    }
}

impl FileEntry {
    /// The entry for a file that lies in `dir`, its checksum computed.
    ///
    /// # Errors
    /// [`ModelError::Io`].
    pub fn of(dir: &Path, path: &str) -> Result<Self> {
        let file = dir.join(path);
        let metadata =
            std::fs::metadata(&file).map_err(|source| ModelError::Io { file: file.clone(), source })?;
        let sha256 = super::sha256(&file)?;
        Ok(Self { path: path.to_owned(), sha256, size: metadata.len(), prefix: None })
    }

    fn check(&self) -> Result<(), String> {
        let path = Path::new(&self.path);
        let inside = path.components().all(|part| matches!(part, Component::Normal(_)));
        if self.path.is_empty() || !inside {
            return Err(format!("files: `{}` must be a path within the model directory", self.path));
        }
        if self.sha256.len() != 64 || !self.sha256.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(format!("files: the sha256 of `{}` must be 64 hexadecimal digits", self.path));
        }
        Ok(())
    }
}

/// A network's configuration from its table.
///
/// # Errors
/// [`ModelError::BadFile`] naming the entry.
pub(crate) fn network<T: DeserializeOwned>(file: &Path, name: &str, table: &toml::Table) -> Result<T> {
    let bad =
        |reason| ModelError::BadFile { file: file.to_owned(), reason: format!("networks.{name}: {reason}") };
    limits::check(table).map_err(bad)?;
    toml::Value::Table(table.clone()).try_into().map_err(|e: toml::de::Error| bad(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_of_a_sensible_size_are_read() -> std::io::Result<()> {
        let dir = tempfile::tempdir()?;
        let file = dir.path().join("model.toml");
        let refused = |file: &Path| Manifest::read(file).err().map(|e| e.to_string()).unwrap_or_default();
        std::fs::write(&file, "#".repeat(LONGEST as usize))?;
        assert!(refused(&file).contains("missing field"), "{}", refused(&file));
        std::fs::write(&file, "#".repeat(LONGEST as usize + 1))?;
        assert!(refused(&file).contains("longer than 1024 KiB"), "{}", refused(&file));
        for no_file in [dir.path(), Path::new("/dev/zero")] {
            assert!(refused(no_file).contains("not a file"), "{}", refused(no_file));
        }
        Ok(())
    }
}
