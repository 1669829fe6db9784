//! Reading weight files (safetensors, and PyTorch's own without running anything in them) and writing safetensors.

use super::{digest::sha256_of, torch_file};
use crate::error::{ModelError, Result};
use memmap2::Mmap;
use safetensors::{
    Dtype,
    tensor::{Metadata, TensorInfo},
};
use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    path::{Path, PathBuf},
};
use tch::{Kind, Tensor};

/// Longest header accepted; the largest published file's is below 200 kB.
const LONGEST_HEADER: u64 = 16 << 20;

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

impl WeightFile {
    /// Reads `file` completely. Nothing in it is trusted.
    ///
    /// # Errors
    /// [`ModelError::Io`], or [`ModelError::BadFile`] for a file that is neither safetensors nor a PyTorch archive, was
    /// cut short, holds a tensor that cannot be used (the message names the tensor), or asks for anything but tensors.
    pub fn read(file: &Path) -> Result<Self> {
        Self::from_bytes(file, &map(file)?)
    }

    /// As [`WeightFile::read`], after comparing the file's SHA-256 with `expected`.
    ///
    /// # Errors
    /// Also [`ModelError::BadFile`] if the file is another one.
    pub fn read_checked(file: &Path, expected: &str) -> Result<Self> {
        let bytes = map(file)?;
        let found = sha256_of(&bytes);
        if !found.eq_ignore_ascii_case(expected) {
            let reason = format!(
                "its sha256 is {found}, the model's manifest says {expected}: the file is damaged or another one; install the model again"
            );
            return Err(ModelError::BadFile { file: file.to_owned(), reason });
        }
        Self::from_bytes(file, &bytes)
    }

    /// The same from a file's contents; `file` is what errors name.
    ///
    /// # Errors
    /// As [`WeightFile::read`].
    pub fn from_bytes(file: &Path, bytes: &[u8]) -> Result<Self> {
        let bad = |reason: String| ModelError::BadFile { file: file.to_owned(), reason };
        if torch_file::is_archive(bytes) {
            let tensors = torch_file::tensors(file, bytes)?;
            if let Some((name, _)) = tensors.iter().find(|(_, t)| is_float(t.kind()) && !all_finite(t)) {
                return Err(bad(format!("tensor `{name}` {NOT_NUMBERS}")));
            }
            return Ok(Self { file: file.to_owned(), tensors, metadata: BTreeMap::new() });
        }
        if torch_file::is_legacy(bytes) {
            return Err(bad("PyTorch before 1.6 wrote it; load and save it again with a newer one".into()));
        }
        let (header, data) = split(bytes).map_err(bad)?;
        let mut tensors = BTreeMap::new();
        for (name, info) in header.tensors() {
            let tensor = tensor(info, data).map_err(|reason| bad(format!("tensor `{name}` {reason}")))?;
            tensors.insert(name, tensor);
        }
        let metadata = header.metadata().clone().unwrap_or_default().into_iter().collect();
        Ok(Self { file: file.to_owned(), tensors, metadata })
    }
}

/// The file's bytes, or none for an empty file, which cannot be mapped.
fn map(file: &Path) -> Result<Mapped> {
    let failed = |source| ModelError::Io { file: file.to_owned(), source };
    let opened = File::open(file).map_err(failed)?;
    let metadata = opened.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(ModelError::BadFile { file: file.to_owned(), reason: "this is not a file".into() });
    }
    if metadata.len() == 0 {
        return Ok(Mapped(None));
    }
    // SAFETY: the mapping is read-only and private, and every byte is checked or
    // copied before use. A file that another process rewrites meanwhile gives
    // wrong weights, as it would with plain reads.
    let map = unsafe { Mmap::map(&opened) }.map_err(failed)?;
    Ok(Mapped(Some(map)))
}

struct Mapped(Option<Mmap>);

impl std::ops::Deref for Mapped {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        self.0.as_deref().unwrap_or_default()
    }
}

/// Header and data part.
fn split(bytes: &[u8]) -> Result<(Metadata, &[u8]), String> {
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else {
        return Err(format!("not a safetensors file: it has only {} bytes", bytes.len()));
    };
    let length = u64::from_le_bytes(*length);
    if length > LONGEST_HEADER {
        return Err(format!("not a safetensors file: its header would have {length} bytes"));
    }
    let Some((header, data)) = rest.split_at_checked(length as usize) else {
        return Err(format!("cut short: its header has {length} bytes, only {} are there", rest.len()));
    };
    let header: Metadata =
        serde_json::from_slice(header).map_err(|e| format!("not a safetensors file: {e} (header)"))?;
    // The last tensor's end: a longer file is as wrong as a shorter one.
    let (needed, found) = (header.data_len(), data.len());
    if needed > found {
        let cut = first_cut(&header, found);
        return Err(format!("cut short: {} bytes are missing, from tensor `{cut}` on", needed - found));
    }
    if needed < found {
        return Err(format!("{} bytes follow after the last tensor", found - needed));
    }
    Ok((header, data))
}

fn first_cut(header: &Metadata, found: usize) -> String {
    let cut = |name: &String| header.info(name).is_some_and(|info| info.data_offsets.1 > found);
    header.offset_keys().into_iter().find(cut).unwrap_or_default()
}

fn tensor(info: &TensorInfo, data: &[u8]) -> Result<Tensor, String> {
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
    let bytes = data.get(info.data_offsets.0..info.data_offsets.1).ok_or("lies outside of the file")?;
    let tensor = Tensor::f_from_data_size(bytes, &shape, kind).map_err(|e| format!("cannot be read: {e}"))?;
    if is_float(kind) && !all_finite(&tensor) {
        return Err(NOT_NUMBERS.into());
    }
    Ok(tensor)
}

const NOT_NUMBERS: &str = "holds values that are not numbers: the file is damaged";

fn is_float(kind: Kind) -> bool {
    matches!(kind, Kind::Float | Kind::Half | Kind::BFloat16 | Kind::Double)
}

fn all_finite(tensor: &Tensor) -> bool {
    tensor.numel() == 0 || tensor.isfinite().all().int64_value(&[]) != 0
}

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
    let views = tensors
        .iter()
        .map(|(name, tensor)| Ok((name.clone(), Bytes::of(tensor, kind)?)))
        .collect::<Result<Vec<_>>>()?;
    let metadata: HashMap<String, String> = metadata.clone().into_iter().collect();
    let metadata = (!metadata.is_empty()).then_some(metadata);
    let bad = |e| ModelError::BadFile { file: file.to_owned(), reason: format!("cannot be written: {e}") };
    let bytes = safetensors::serialize(views, metadata).map_err(bad)?;
    // In the same folder, so that the rename cannot cross file systems.
    let mut part = file.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let failed = |source| ModelError::Io { file: file.to_owned(), source };
    fs::write(&part, bytes).and_then(|()| fs::rename(&part, file)).map_err(|e| {
        let _ = fs::remove_file(&part);
        failed(e)
    })
}

/// A tensor's bytes as safetensors wants them.
struct Bytes {
    dtype: Dtype,
    shape: Vec<usize>,
    data: Vec<u8>,
}

impl Bytes {
    fn of(tensor: &Tensor, kind: Option<Kind>) -> Result<Self> {
        let own = tensor.kind();
        let kind = kind.filter(|_| is_float(own));
        let kind = kind.unwrap_or(own);
        let (dtype, width) = match kind {
            Kind::Float => (Dtype::F32, 4),
            Kind::Half => (Dtype::F16, 2),
            Kind::BFloat16 => (Dtype::BF16, 2),
            Kind::Double => (Dtype::F64, 8),
            Kind::Int64 => (Dtype::I64, 8),
            Kind::Int => (Dtype::I32, 4),
            Kind::Uint8 => (Dtype::U8, 1),
            other => return Err(ModelError::Config(format!("tensors of kind {other:?} cannot be stored"))),
        };
        let tensor = tensor.detach().to_device(tch::Device::Cpu).to_kind(kind).contiguous();
        let count = tensor.numel();
        let mut data = vec![0; count * width];
        tensor.f_copy_data_u8(&mut data, count)?;
        Ok(Self { dtype, shape: tensor.size().iter().map(|&n| n as usize).collect(), data })
    }
}

impl safetensors::View for Bytes {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> std::borrow::Cow<'_, [u8]> {
        self.data.as_slice().into()
    }

    fn data_len(&self) -> usize {
        self.data.len()
    }
}
