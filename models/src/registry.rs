//! Model families by name.

use crate::{
    checkpoint::ModelDir,
    device::Place,
    error::{ModelError, Result},
    generator::sampler,
    stack::{Stack, fits},
};

/// A kind of model and how it is built.
#[derive(Debug)]
pub struct Family {
    /// As `model.toml` writes it.
    pub name: &'static str,
    /// One line about it.
    pub about: &'static str,
    /// Loads a model directory, with this share of its LoRA and this prompt, into this place.
    pub build: fn(&ModelDir, f64, &str, Place) -> Result<Stack>,
}

/// All families.
pub const FAMILIES: [Family; 2] = [
    Family { name: "mini", about: "small networks trained by this project", build: Stack::load },
    Family {
        name: "magicanimate",
        about: "Stable Diffusion 1.5 with MagicAnimate's networks and LCM-LoRA, as published",
        build: Stack::load,
    },
];

/// Loads a model with its family's builder.
///
/// # Errors
/// [`ModelError::BadFile`] for an unknown family, or whatever is wrong with the files.
pub fn build(dir: &ModelDir, lora_scale: f64, prompt: &str, place: Place) -> Result<Stack> {
    (family(dir)?.build)(dir, lora_scale, prompt, place)
}

/// Whether the model could be built and sampled, by what its manifest says: no weights are read.
///
/// # Errors
/// As [`build`], and a sampler that cannot be.
pub(crate) fn check(dir: &ModelDir) -> Result<()> {
    family(dir)?;
    sampler(dir, dir.manifest().defaults.steps)?;
    fits(dir)
}

fn family(dir: &ModelDir) -> Result<&'static Family> {
    let name = &dir.manifest().family;
    FAMILIES.iter().find(|family| family.name == name).ok_or_else(|| {
        let known: Vec<_> = FAMILIES.iter().map(|family| family.name).collect();
        let reason = format!("family `{name}` is not known: there are {}", known.join(", "));
        ModelError::BadFile { file: dir.dir().to_owned(), reason }
    })
}
