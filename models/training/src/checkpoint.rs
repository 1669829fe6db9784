//! One file that holds a stage at a moment: weights, averages, optimiser, clock.

use anyhow::{Context, Result};
use std::{collections::BTreeMap, path::Path};
use tch::Tensor;

/// Writes tensors as safetensors, whole or not at all.
///
/// # Errors
/// The file cannot be written.
pub fn write(path: &Path, tensors: &[(String, Tensor)]) -> Result<()> {
    let part = path.with_extension("part");
    let flat: Vec<(String, Tensor)> =
        tensors.iter().map(|(name, t)| (name.clone(), t.detach().contiguous())).collect();
    let refs: Vec<(&str, &Tensor)> = flat.iter().map(|(name, t)| (name.as_str(), t)).collect();
    Tensor::write_safetensors(&refs, &part).with_context(|| format!("cannot write {}", part.display()))?;
    std::fs::rename(&part, path).with_context(|| format!("cannot rename to {}", path.display()))
}

/// Reads tensors by key.
///
/// # Errors
/// The file is missing or no safetensors file.
pub fn read(path: &Path) -> Result<BTreeMap<String, Tensor>> {
    let tensors =
        Tensor::read_safetensors(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(tensors.into_iter().collect())
}

/// The tensors below `prefix.`, without it.
pub fn below(tensors: &BTreeMap<String, Tensor>, prefix: &str) -> BTreeMap<String, Tensor> {
    let prefix = format!("{prefix}.");
    let strip =
        |(name, t): (&String, &Tensor)| Some((name.strip_prefix(&prefix)?.to_owned(), t.shallow_clone()));
    tensors.iter().filter_map(strip).collect()
}
