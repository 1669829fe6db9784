//! Opening weight files: safetensors, and PyTorch's own without running anything in them.

use super::{
    digest::{another, sha256_of},
    torch_file,
    weight::{Stretch, Weight},
};
use crate::error::{ModelError, Result};
use safetensors::{
    Dtype,
    tensor::{Metadata, TensorInfo},
};
use std::{
    collections::BTreeMap,
    fs::File,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};
use tch::{Kind, Tensor};

/// Longest header accepted; the largest published file's is below 200 kB.
const LONGEST_HEADER: u64 = 16 << 20;

/// A weight file whose tensors were not read yet.
#[derive(Debug)]
pub struct OpenedFile {
    /// Where it is.
    pub file: PathBuf,
    /// All tensors by key.
    pub weights: BTreeMap<String, Weight>,
    /// The header's free entries.
    pub metadata: BTreeMap<String, String>,
}

/// The tensors of one file, copied into memory in the file's dtypes.
#[derive(Debug)]
pub struct WeightFile {
    /// Where it was read from.
    pub file: PathBuf,
    /// All tensors by key.
    pub tensors: BTreeMap<String, Tensor>,
    /// The header's free entries.
    pub metadata: BTreeMap<String, String>,
}

impl OpenedFile {
    /// Opens `file`: reads the names, shapes and places of its tensors. Nothing in it is trusted.
    ///
    /// # Errors
    /// [`ModelError::Io`], or [`ModelError::BadFile`] for a file that is neither safetensors nor a PyTorch archive, was
    /// cut short, holds a tensor that cannot be used (the message names the tensor), or asks for anything but tensors.
    pub fn open(file: &Path) -> Result<Self> {
        Self::of(file, &Arc::new(opened(file)?))
    }

    /// As [`OpenedFile::open`], after comparing the file's SHA-256 with `expected`.
    ///
    /// # Errors
    /// Also [`ModelError::BadFile`] if the file is another one.
    pub fn open_checked(file: &Path, expected: &str) -> Result<Self> {
        let handle = Arc::new(opened(file)?);
        let found = sha256_of(&handle).map_err(|source| ModelError::Io { file: file.to_owned(), source })?;
        if !found.eq_ignore_ascii_case(expected) {
            return Err(another(file, &found, expected));
        }
        Self::of(file, &handle)
    }

    fn of(file: &Path, handle: &Arc<File>) -> Result<Self> {
        let bad = |reason: String| ModelError::BadFile { file: file.to_owned(), reason };
        let failed = |source| ModelError::Io { file: file.to_owned(), source };
        let length = handle.metadata().map_err(failed)?.len();
        let mut start = vec![0; length.min(64) as usize];
        handle.read_exact_at(&mut start, 0).map_err(failed)?;
        if torch_file::is_archive(&start) {
            let weights = torch_file::weights(handle, length).map_err(bad)?;
            return Ok(Self { file: file.to_owned(), weights, metadata: BTreeMap::new() });
        }
        if torch_file::is_legacy(&start) {
            return Err(bad("PyTorch before 1.6 wrote it; load and save it again with a newer one".into()));
        }
        let (header, data) = header(handle, length).map_err(bad)?;
        let tensors = header.tensors().into_iter();
        let weights = tensors.map(|(name, info)| match weight(info, handle, data) {
            Ok(weight) => Ok((name, weight)),
            Err(reason) => Err(bad(format!("tensor `{name}` {reason}"))),
        });
        let weights = weights.collect::<Result<_>>()?;
        let metadata = header.metadata().clone().unwrap_or_default().into_iter().collect();
        Ok(Self { file: file.to_owned(), weights, metadata })
    }

    /// Reads every tensor.
    ///
    /// # Errors
    /// [`ModelError::BadFile`] naming the tensor that cannot be read or holds what is no number.
    pub fn read(&self) -> Result<WeightFile> {
        let tensors = self.weights.iter().map(|(name, weight)| Ok((name.clone(), self.load(name, weight)?)));
        let tensors = tensors.collect::<Result<_>>()?;
        Ok(WeightFile { file: self.file.clone(), tensors, metadata: self.metadata.clone() })
    }

    /// What is wrong with the tensors' values, read one after the other.
    pub(super) fn unreadable(&self) -> Vec<ModelError> {
        self.weights.iter().filter_map(|(name, weight)| self.load(name, weight).err()).collect()
    }

    fn load(&self, name: &str, weight: &Weight) -> Result<Tensor> {
        weight.load().map_err(|reason| {
            let reason = format!("tensor `{name}` {reason}");
            ModelError::BadFile { file: self.file.clone(), reason }
        })
    }
}

impl WeightFile {
    /// Reads `file` completely.
    ///
    /// # Errors
    /// As [`OpenedFile::open`] and [`OpenedFile::read`].
    pub fn read(file: &Path) -> Result<Self> {
        OpenedFile::open(file)?.read()
    }

    /// As [`WeightFile::read`], after comparing the file's SHA-256 with `expected`.
    ///
    /// # Errors
    /// Also [`ModelError::BadFile`] if the file is another one.
    pub fn read_checked(file: &Path, expected: &str) -> Result<Self> {
        OpenedFile::open_checked(file, expected)?.read()
    }
}

fn opened(file: &Path) -> Result<File> {
    let failed = |source| ModelError::Io { file: file.to_owned(), source };
    let opened = File::open(file).map_err(failed)?;
    if !opened.metadata().map_err(failed)?.is_file() {
        return Err(ModelError::BadFile { file: file.to_owned(), reason: "this is not a file".into() });
    }
    Ok(opened)
}

/// A safetensors file's header, and where the data begins.
fn header(file: &File, size: u64) -> Result<(Metadata, u64), String> {
    let Some(rest) = size.checked_sub(8) else {
        return Err(format!("not a safetensors file: it has only {size} bytes"));
    };
    let failed = |e: std::io::Error| format!("cannot be read: {e}");
    let mut length = [0; 8];
    file.read_exact_at(&mut length, 0).map_err(failed)?;
    let length = u64::from_le_bytes(length);
    if length > LONGEST_HEADER {
        return Err(format!("not a safetensors file: its header would have {length} bytes"));
    }
    let Some(found) = rest.checked_sub(length) else {
        return Err(format!("cut short: its header has {length} bytes, only {rest} are there"));
    };
    let mut header = vec![0; length as usize];
    file.read_exact_at(&mut header, 8).map_err(failed)?;
    let header: Metadata =
        serde_json::from_slice(&header).map_err(|e| format!("not a safetensors file: {e} (header)"))?;
    // The last tensor's end: a longer file is as wrong as a shorter one.
    let needed = header.data_len() as u64;
    if needed > found {
        let cut = first_cut(&header, found);
        return Err(format!("cut short: {} bytes are missing, from tensor `{cut}` on", needed - found));
    }
    if needed < found {
        return Err(format!("{} bytes follow after the last tensor", found - needed));
    }
    Ok((header, 8 + length))
}

fn first_cut(header: &Metadata, found: u64) -> String {
    let cut = |name: &String| header.info(name).is_some_and(|info| info.data_offsets.1 as u64 > found);
    header.offset_keys().into_iter().find(cut).unwrap_or_default()
}

fn weight(info: &TensorInfo, file: &Arc<File>, data: u64) -> Result<Weight, String> {
    let kind = match info.dtype {
        Dtype::F32 => Kind::Float,
        Dtype::F16 => Kind::Half,
        Dtype::BF16 => Kind::BFloat16,
        Dtype::F64 => Kind::Double,
        Dtype::I64 => Kind::Int64,
        Dtype::I32 => Kind::Int,
        Dtype::I16 => Kind::Int16,
        Dtype::I8 => Kind::Int8,
        Dtype::U8 => Kind::Uint8,
        Dtype::BOOL => Kind::Bool,
        other => return Err(format!("has the dtype {other:?}, which is not supported")),
    };
    let shape: Vec<i64> =
        info.shape.iter().map(|&n| i64::try_from(n)).collect::<Result<_, _>>().map_err(|e| e.to_string())?;
    // The header's own check has compared sizes and offsets; this one guards the reading.
    let count = shape.iter().try_fold(kind.elt_size_in_bytes() as i64, |all, &n| all.checked_mul(n));
    let (start, end) = info.data_offsets;
    if count.and_then(|n| usize::try_from(n).ok()) != end.checked_sub(start) {
        return Err(format!("has {} bytes, which is not its size", end.saturating_sub(start)));
    }
    let stretch = Stretch { file: file.clone(), start: data + start as u64, strides: None };
    Ok(Weight::in_file(kind, shape, stretch))
}
