//! Writing safetensors.

use super::weight::{Weight, all_finite, is_float};
use crate::error::{ModelError, Result};
use safetensors::{
    Dtype,
    tensor::{Metadata, TensorInfo},
};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
};
use tch::{Kind, Tensor};

/// Writes a safetensors file, whole or not at all.
///
/// `kind` converts the floating-point tensors; a file of 16-bit weights is half as large.
///
/// # Errors
/// [`ModelError::Io`] or [`ModelError::BadFile`].
pub fn save(
    file: &Path,
    tensors: &BTreeMap<String, Tensor>,
    metadata: &BTreeMap<String, String>,
    kind: Option<Kind>,
) -> Result<()> {
    let weights = tensors.iter().map(|(name, t)| (name.clone(), t.shallow_clone().into())).collect();
    save_weights(file, &weights, metadata, kind, &mut |_| ())
}

/// As [`save`], with one tensor in memory at a time. `written` hears of the bytes of each.
///
/// # Errors
/// As [`save`], and what is wrong with a tensor that is read.
pub fn save_weights(
    file: &Path,
    weights: &BTreeMap<String, Weight>,
    metadata: &BTreeMap<String, String>,
    kind: Option<Kind>,
    written: &mut dyn FnMut(usize),
) -> Result<()> {
    // In the same folder, so that the rename cannot cross file systems.
    let mut part = file.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let failed = |source| ModelError::Io { file: file.to_owned(), source };
    let wrote = write(&part, weights, metadata, kind, written);
    let wrote = wrote.map_err(|error| match error {
        Failure::Io(source) => failed(source),
        Failure::Tensor(reason) => ModelError::BadFile { file: file.to_owned(), reason },
    });
    wrote.and_then(|()| fs::rename(&part, file).map_err(failed)).inspect_err(|_| {
        let _ = fs::remove_file(&part);
    })
}

enum Failure {
    Io(std::io::Error),
    Tensor(String),
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

fn write(
    file: &Path,
    weights: &BTreeMap<String, Weight>,
    metadata: &BTreeMap<String, String>,
    kind: Option<Kind>,
    written: &mut dyn FnMut(usize),
) -> Result<(), Failure> {
    // The widest elements first, as the format's own writer does: every tensor then lies at a multiple of its width.
    let mut order: Vec<(&String, &Weight, Kind)> =
        weights.iter().map(|(name, weight)| (name, weight, target(weight.kind(), kind))).collect();
    order.sort_by_key(|(_, _, kind)| std::cmp::Reverse(kind.elt_size_in_bytes()));
    let mut writer = BufWriter::new(File::create(file)?);
    let header = header(&order, metadata).map_err(Failure::Tensor)?;
    writer.write_all(&(header.len() as u64).to_le_bytes())?;
    writer.write_all(&header)?;
    for (name, weight, kind) in order {
        let bytes =
            bytes(weight, kind).map_err(|reason| Failure::Tensor(format!("tensor `{name}` {reason}")))?;
        writer.write_all(&bytes)?;
        written(bytes.len());
    }
    Ok(writer.flush()?)
}

fn target(own: Kind, wanted: Option<Kind>) -> Kind {
    wanted.filter(|_| is_float(own)).unwrap_or(own)
}

fn header(
    order: &[(&String, &Weight, Kind)],
    metadata: &BTreeMap<String, String>,
) -> Result<Vec<u8>, String> {
    let mut end = 0;
    let mut infos = Vec::new();
    for (name, weight, kind) in order {
        let start = end;
        end += weight.bytes_in(Some(*kind));
        let shape = weight.shape().iter().map(|&n| n as usize).collect();
        infos.push(((*name).clone(), TensorInfo { dtype: dtype(*kind)?, shape, data_offsets: (start, end) }));
    }
    let metadata = (!metadata.is_empty()).then(|| metadata.clone().into_iter().collect());
    let header = Metadata::new(metadata, infos).map_err(|e| format!("its header is refused: {e}"))?;
    let mut header = serde_json::to_vec(&header).map_err(|e| format!("its header is refused: {e}"))?;
    header.resize(header.len().next_multiple_of(8), b' ');
    Ok(header)
}

fn dtype(kind: Kind) -> Result<Dtype, String> {
    Ok(match kind {
        Kind::Float => Dtype::F32,
        Kind::Half => Dtype::F16,
        Kind::BFloat16 => Dtype::BF16,
        Kind::Double => Dtype::F64,
        Kind::Int64 => Dtype::I64,
        Kind::Int => Dtype::I32,
        Kind::Int16 => Dtype::I16,
        Kind::Int8 => Dtype::I8,
        Kind::Uint8 => Dtype::U8,
        Kind::Bool => Dtype::BOOL,
        other => return Err(format!("tensors of kind {other:?} cannot be stored")),
    })
}

fn bytes(weight: &Weight, kind: Kind) -> Result<Vec<u8>, String> {
    let tensor = weight.load()?.detach().to_device(tch::Device::Cpu).to_kind(kind).contiguous();
    if kind != weight.kind() && !all_finite(&tensor) {
        return Err(format!("does not fit into {kind:?}: choose another number format"));
    }
    let mut bytes = vec![0; weight.bytes_in(Some(kind))];
    tensor.f_copy_data_u8(&mut bytes, tensor.numel()).map_err(|e| format!("cannot be copied: {e}"))?;
    Ok(bytes)
}
