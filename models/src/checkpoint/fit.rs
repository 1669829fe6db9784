//! Whether weight files have what the networks ask for, found out without building them.

use super::{Manifest, Role, Weight, weight::is_float};
use crate::{
    error::{ModelError, Result},
    random,
    vars::Source,
};
use std::{collections::BTreeMap, path::Path};

/// Mismatches that a message names; the rest it counts.
const NAMED: usize = 3;

/// Shapes by key.
pub(super) type Shapes = BTreeMap<String, Vec<i64>>;

/// What the network of `role` asks for over a file with the keys of `weights`. `file` is the manifest's, for messages.
///
/// # Errors
/// A configuration that no network can be built from.
pub(super) fn asked<T>(
    file: &Path,
    manifest: &Manifest,
    role: Role,
    weights: &BTreeMap<String, T>,
) -> Result<Shapes> {
    let source = Source::recording_over(weights.keys().cloned().collect());
    random::build(&source.root(), file, manifest, role)?;
    Ok(source.tensors().into_iter().map(|(key, tensor)| (key, tensor.size())).collect())
}

/// Every difference between what is asked for and what there is, a sentence's end each.
pub(super) fn mismatches(asked: &Shapes, weights: &BTreeMap<String, Weight>) -> Vec<String> {
    let mut found = Vec::new();
    for (key, shape) in asked {
        match weights.get(key) {
            // Position tables are computed where a file has none.
            None if key.ends_with("pos_encoder.pe") => {}
            None => found.push(format!("tensor `{key}` is missing (the network needs shape {shape:?})")),
            Some(weight) if weight.shape() != shape => found.push(format!(
                "tensor `{key}` has shape {:?}, the network's configuration needs {shape:?}",
                weight.shape()
            )),
            Some(weight) if !is_float(weight.kind()) && !key.ends_with("position_ids") => {
                found.push(format!("tensor `{key}` has the dtype {:?}, which no weight has", weight.kind()));
            }
            Some(_) => {}
        }
    }
    let unasked = weights.keys().filter(|key| !asked.contains_key(*key));
    found.extend(unasked.map(|key| format!("tensor `{key}` belongs to no part of the network")));
    found
}

/// Fails with the first mismatches.
///
/// # Errors
/// [`ModelError::BadFile`].
pub(super) fn check(file: &Path, asked: &Shapes, weights: &BTreeMap<String, Weight>) -> Result<()> {
    let found = mismatches(asked, weights);
    if found.is_empty() {
        return Ok(());
    }
    let mut reason = found.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join("; ");
    if found.len() > NAMED {
        reason += &format!("; and {} more", found.len() - NAMED);
    }
    Err(ModelError::BadFile { file: file.to_owned(), reason })
}
