//! Low-rank updates (LoRA), merged into a network's weights when it is loaded.
//!
//! W′ = W + scale · alpha / rank · up · down, convolution kernels flattened,
//! rank and alpha being each module's own.

use super::{WeightFile, weight::Weight};
use crate::error::{ModelError, Result};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    rc::Rc,
};
use tch::{Kind, Tensor};

/// The updates of one file by flat module name: the path with underscores for dots.
///
/// Files spell a module in different ways (`lora_unet_mid_block_…`,
/// `unet.mid_block.….lora_A`). Underscores within names make the flat one
/// ambiguous, so it is never parsed: merging looks it up among the flat names
/// of the network's own weights.
#[derive(Debug)]
pub struct Lora {
    file: PathBuf,
    modules: BTreeMap<String, Module>,
}

#[derive(Debug, Default)]
struct Module {
    down: Option<Tensor>,
    up: Option<Tensor>,
    alpha: Option<f64>,
}

#[derive(Debug, Clone, Copy)]
enum Part {
    Down,
    Up,
    Alpha,
}

/// How a key's end says what it is: kohya, peft, diffusers, diffusers before 0.20.
const ENDINGS: [(&str, Part); 11] = [
    (".lora_down.weight", Part::Down),
    (".lora_up.weight", Part::Up),
    (".alpha", Part::Alpha),
    (".lora_A.weight", Part::Down),
    (".lora_B.weight", Part::Up),
    (".lora_A.default.weight", Part::Down),
    (".lora_B.default.weight", Part::Up),
    (".lora.down.weight", Part::Down),
    (".lora.up.weight", Part::Up),
    ("_lora.down.weight", Part::Down),
    ("_lora.up.weight", Part::Up),
];

/// What may stand before a U-Net module's path.
const PREFIXES: [&str; 4] = ["lora_unet_", "unet.", "base_model.model.unet.", "base_model.model."];

/// Updates of the text encoder, which is replaced by stored embeddings here.
const TEXT: [&str; 3] = ["lora_te", "text_encoder", "base_model.model.text_encoder"];

impl Lora {
    /// Reads a LoRA file in kohya, peft or diffusers naming.
    ///
    /// # Errors
    /// As [`WeightFile::read`], or [`ModelError::BadFile`] naming the key that is not understood.
    pub fn read(file: &Path) -> Result<Self> {
        Self::from_weights(WeightFile::read(file)?)
    }

    /// The same from a file that was read already.
    ///
    /// # Errors
    /// [`ModelError::BadFile`].
    pub fn from_weights(weights: WeightFile) -> Result<Self> {
        let bad = |reason: String| ModelError::BadFile { file: weights.file.clone(), reason };
        let default_alpha = stored_alpha(&weights.metadata).map_err(bad)?;
        let mut modules: BTreeMap<String, Module> = BTreeMap::new();
        let mut skipped = 0;
        for (key, tensor) in &weights.tensors {
            if TEXT.iter().any(|prefix| key.starts_with(prefix)) {
                skipped += 1;
                continue;
            }
            let Some((path, part)) = understand(key) else {
                return Err(bad(format!("tensor `{key}` is no part of a LoRA that is known here")));
            };
            let module = modules.entry(path).or_default();
            match part {
                Part::Down => module.down = Some(tensor.shallow_clone()),
                Part::Up => module.up = Some(tensor.shallow_clone()),
                Part::Alpha if tensor.numel() == 1 => module.alpha = Some(tensor.double_value(&[])),
                Part::Alpha => return Err(bad(format!("tensor `{key}` must be one number"))),
            }
        }
        if skipped > 0 {
            tracing::warn!(file = %weights.file.display(), skipped, "LoRA updates of the text encoder are ignored");
        }
        for module in modules.values_mut() {
            module.alpha = module.alpha.or(default_alpha);
        }
        Ok(Self { file: weights.file, modules })
    }

    /// Number of modules with an update.
    pub fn len(&self) -> usize {
        self.modules.len()
    }

    /// Whether there is nothing to merge.
    pub fn is_empty(&self) -> bool {
        self.modules.is_empty()
    }

    /// The tensor in `weights`, a network's by key, that each module changes; nothing is computed.
    ///
    /// # Errors
    /// As [`Lora::merge_into`].
    pub fn targets(&self, weights: &BTreeMap<String, Weight>) -> Result<BTreeMap<String, String>> {
        let names = FlatNames::of(weights.keys());
        let target = |(path, module): (&String, &Module)| {
            let key = names.find(path).map_err(|reason| self.bad(path, &reason))?;
            module.update(weights[key].shape()).map_err(|reason| self.bad(path, &reason))?;
            Ok((path.clone(), key.to_owned()))
        };
        self.modules.iter().map(target).collect()
    }

    fn bad(&self, path: &str, reason: &str) -> ModelError {
        ModelError::BadFile { file: self.file.clone(), reason: format!("module `{path}` {reason}") }
    }

    /// Adds `scale` times the updates to `weights`, a network's tensors by key.
    ///
    /// Changed tensors are replaced (as float32 if they were 16-bit); tensors
    /// shared with `weights` elsewhere stay as they are.
    ///
    /// # Errors
    /// As [`Lora::update`]. `weights` is then unchanged.
    pub fn merge_into(&self, weights: &mut BTreeMap<String, Tensor>, scale: f64) -> Result<()> {
        let mut all = weights.iter().map(|(key, t)| (key.clone(), t.shallow_clone().into())).collect();
        self.update(&mut all, scale)?;
        let changed = all.into_iter().filter(|(_, weight)| weight.is_updated());
        let load = |(key, weight): (String, Weight)| match weight.load() {
            Ok(tensor) => Ok((key, tensor)),
            Err(reason) => {
                let reason = format!("tensor `{key}` {reason}");
                Err(ModelError::BadFile { file: self.file.clone(), reason })
            }
        };
        let merged = changed.map(load).collect::<Result<Vec<_>>>()?;
        weights.extend(merged);
        Ok(())
    }

    /// As [`Lora::merge_into`], of tensors that are read later.
    ///
    /// # Errors
    /// [`ModelError::BadFile`] if a module is incomplete, unknown to the
    /// network, ambiguous, or of another shape. `weights` is then unchanged.
    pub fn update(&self, weights: &mut BTreeMap<String, Weight>, scale: f64) -> Result<()> {
        if !scale.is_finite() {
            return Err(ModelError::Config(format!("lora_scale {scale} is not a number")));
        }
        let updated = self.targets(weights)?.into_iter().map(|(path, key)| {
            let weight = weights[&key].clone();
            let update =
                self.modules[&path].update(weight.shape()).map_err(|reason| self.bad(&path, &reason))?;
            Ok((key, weight.updated(Rc::new(update), scale)))
        });
        let updated = updated.collect::<Result<Vec<_>>>()?;
        weights.extend(updated);
        Ok(())
    }
}

impl Module {
    /// What changes a weight of shape `size`.
    fn update(&self, size: &[i64]) -> Result<Update, String> {
        let (Some(down), Some(up)) = (&self.down, &self.up) else {
            return Err("has only one of its two matrices".into());
        };
        let (down_size, up_size) = (down.size(), up.size());
        let misfit = || format!("has shapes {down_size:?} and {up_size:?}, the weight has {size:?}");
        if down.dim() < 2 || up.dim() < 2 || size.is_empty() {
            return Err(misfit());
        }
        let inputs: i64 = size.iter().skip(1).product();
        let rank = down_size[0];
        let fits = down_size[1..].iter().product::<i64>() == inputs
            && up_size[1..].iter().product::<i64>() == rank
            && up_size[0] == size[0];
        if rank == 0 || !fits {
            return Err(misfit());
        }
        let factor = self.alpha.unwrap_or(rank as f64) / rank as f64;
        Ok(Update { down: down.shallow_clone(), up: up.shallow_clone(), factor })
    }
}

/// What one module adds to its weight.
#[derive(Debug)]
pub(super) struct Update {
    down: Tensor,
    up: Tensor,
    /// alpha / rank.
    factor: f64,
}

impl Update {
    /// `weight` and `scale` times this, as float32.
    pub(super) fn merged(&self, weight: &Tensor, scale: f64) -> Tensor {
        tch::no_grad(|| {
            let flat = |t: &Tensor| t.to_kind(Kind::Float).flatten(1, -1);
            let update =
                flat(&self.up).matmul(&flat(&self.down)).reshape(weight.size()) * (scale * self.factor);
            weight.to_kind(Kind::Float) + update
        })
    }
}

/// Flat module name and part of a key.
fn understand(key: &str) -> Option<(String, Part)> {
    let (path, part) = ENDINGS.iter().find_map(|(ending, part)| Some((key.strip_suffix(ending)?, *part)))?;
    let path = PREFIXES.iter().find_map(|prefix| path.strip_prefix(prefix)).unwrap_or(path);
    // Old diffusers files name the attention processor, which owned the update.
    let path = path.replace(".processor.", ".");
    (!path.is_empty()).then(|| (path.replace('.', "_"), part))
}

/// The alpha that diffusers' files state in their header instead of per module.
fn stored_alpha(metadata: &BTreeMap<String, String>) -> Result<Option<f64>, String> {
    let Some(text) = metadata.get("lora_adapter_metadata") else { return Ok(None) };
    let entries: serde_json::Value = serde_json::from_str(text)
        .map_err(|e| format!("its entry `lora_adapter_metadata` is damaged: {e}"))?;
    let entry = |name: &str| entries.get(format!("unet.{name}")).or_else(|| entries.get(name));
    let given = |name: &str| entry(name).and_then(|v| v.as_object()).is_some_and(|map| !map.is_empty());
    if given("alpha_pattern") || entry("use_rslora").and_then(|v| v.as_bool()) == Some(true) {
        return Err("its `alpha_pattern` or `use_rslora` is not supported".into());
    }
    Ok(entry("lora_alpha").and_then(|v| v.as_f64()))
}

/// From flat module names to a network's weight keys.
struct FlatNames<'a> {
    keys: BTreeMap<String, &'a str>,
    ambiguous: BTreeSet<String>,
}

impl<'a> FlatNames<'a> {
    fn of(keys: impl Iterator<Item = &'a String>) -> Self {
        let mut found = Self { keys: BTreeMap::new(), ambiguous: BTreeSet::new() };
        for key in keys {
            let Some(path) = key.strip_suffix(".weight") else { continue };
            let flat = path.replace('.', "_");
            if found.keys.insert(flat.clone(), key).is_some() {
                found.ambiguous.insert(flat);
            }
        }
        found
    }

    fn find(&self, path: &str) -> Result<&'a str, String> {
        // Old diffusers files say `to_out` for `to_out.0`.
        let key = self.keys.get(path).or_else(|| self.keys.get(&format!("{path}_0")));
        match key {
            None => Err("does not exist in the network".into()),
            Some(_) if self.ambiguous.contains(path) => Err("could be several of the network's".into()),
            Some(key) => Ok(key),
        }
    }
}
