//! PyTorch's own files: `torch.save`'s archives and TorchScript modules.

use super::pickle::{self, Loaded, Node, Strided, Value};
use crate::error::{ModelError, Result};
use std::{
    collections::BTreeMap,
    io::{self, Cursor},
    path::Path,
    rc::Rc,
};
use tch::Tensor;
use zip::{CompressionMethod, ZipArchive};

/// Entries of dictionaries within dictionaries that are followed.
const DEEPEST: usize = 24;
/// Longest name of a tensor, bytes: published ones have 150.
const LONGEST_NAME: usize = 512;
/// Entries that are looked at in all: several may lead to the same ones.
const MOST_VISITS: usize = 1_000_000;
/// Tensors may be views of the same bytes, but not so often that they take this many times the file's size.
const MOST_COPIES: usize = 4;

/// Whether a file begins as PyTorch's archives do.
pub(super) fn is_archive(bytes: &[u8]) -> bool {
    bytes.starts_with(b"PK\x03\x04")
}

/// Whether it begins as what PyTorch before 1.6 wrote.
pub(super) fn is_legacy(bytes: &[u8]) -> bool {
    // A pickle, and in it the magic number.
    bytes.starts_with(b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19")
}

/// The tensors of an archive by key: of its `state_dict` if it has one, else of all there is; of a TorchScript module by
/// attribute. Nothing in the file is run or trusted.
pub(super) fn tensors(file: &Path, bytes: &[u8]) -> Result<BTreeMap<String, Tensor>> {
    let bad = |reason: String| ModelError::BadFile { file: file.to_owned(), reason };
    let mut archive = Archive::open(bytes).map_err(bad)?;
    let loaded = pickle::load(archive.entry("data.pkl").map_err(bad)?).map_err(bad)?;
    let mut search = Search { nodes: &loaded.nodes, found: Vec::new(), visits: 0 };
    search.collect(state_of(&loaded), String::new(), 0).map_err(bad)?;
    if search.found.iter().fold(0, |sum: usize, (_, view)| sum.saturating_add(cost(view)))
        > MOST_COPIES * bytes.len()
    {
        return Err(bad("its tensors would take many times the room of the file".into()));
    }
    let mut tensors = BTreeMap::new();
    for (name, strided) in search.found {
        let tensor = archive.tensor(&strided).map_err(|reason| bad(format!("tensor `{name}` {reason}")))?;
        if tensors.insert(name.clone(), tensor).is_some() {
            return Err(bad(format!("tensor `{name}` occurs twice")));
        }
    }
    if tensors.is_empty() {
        return Err(bad("it holds no tensors".into()));
    }
    Ok(tensors)
}

/// Bytes that are copied for a view: what it shows, or what of the storage lies between its ends.
fn cost(view: &Strided) -> usize {
    // Storages are only claimed so far, and may claim to be of any size.
    let shown = view.size.iter().fold(1usize, |all, &n| all.saturating_mul(n as usize));
    shown.max(view.span).saturating_mul(view.storage.kind.elt_size_in_bytes())
}

/// Training programs put the weights beside other things.
fn state_of(loaded: &Loaded) -> &Value {
    let Value::Node(number) = loaded.root else { return &loaded.root };
    let Some(Node::Dict(entries)) = loaded.nodes.get(number) else { return &loaded.root };
    let named = |key: &Value| matches!(key, Value::Text(text) if &**text == "state_dict");
    entries.iter().find(|(key, _)| named(key)).map_or(&loaded.root, |(_, value)| value)
}

/// The way through containers to tensors.
struct Search<'a> {
    nodes: &'a [Node],
    found: Vec<(String, Rc<Strided>)>,
    visits: usize,
}

impl Search<'_> {
    fn collect(&mut self, value: &Value, path: String, depth: usize) -> std::result::Result<(), String> {
        self.visits += 1;
        if depth > DEEPEST || self.visits > MOST_VISITS {
            return Err("its dictionaries lie too deep in each other".into());
        }
        let number = match value {
            Value::Tensor(tensor) => {
                self.found.push((path, tensor.clone()));
                return Ok(());
            }
            Value::Node(number) => *number,
            _ => return Ok(()),
        };
        let nodes = self.nodes;
        match &nodes[number] {
            Node::Dict(entries) => {
                for (key, value) in entries {
                    let name = match key {
                        Value::Text(text) => text.to_string(),
                        Value::Int(number) => number.to_string(),
                        _ => continue,
                    };
                    let below = if path.is_empty() { name } else { format!("{path}.{name}") };
                    if below.len() > LONGEST_NAME {
                        return Err(format!(
                            "it has a name of {} bytes; at most {LONGEST_NAME}",
                            below.len()
                        ));
                    }
                    self.collect(value, below, depth + 1)?;
                }
                Ok(())
            }
            Node::Object(Some(attributes)) => self.collect(attributes, path, depth + 1),
            _ => Ok(()),
        }
    }
}

struct Archive<'a> {
    bytes: &'a [u8],
    zip: ZipArchive<Cursor<&'a [u8]>>,
    /// The folder that everything lies in.
    folder: String,
    /// Storages whose checksums were compared: many tensors may be views of the same.
    compared: BTreeMap<Rc<str>, &'a [u8]>,
}

impl<'a> Archive<'a> {
    fn open(bytes: &'a [u8]) -> std::result::Result<Self, String> {
        let zip = ZipArchive::new(Cursor::new(bytes)).map_err(|e| format!("it is no whole archive: {e}"))?;
        let name = zip.file_names().find_map(|name| name.strip_suffix("/data.pkl"));
        let folder = name.ok_or("it is no PyTorch file: `data.pkl` is missing")?.to_owned();
        let mut archive = Self { bytes, zip, folder, compared: BTreeMap::new() };
        if archive.entry("byteorder").is_ok_and(|order| order != b"little") {
            return Err("its numbers are big-endian".into());
        }
        Ok(archive)
    }

    /// An entry's bytes, where they lie in the file.
    fn entry(&mut self, name: &str) -> std::result::Result<&'a [u8], String> {
        let path = format!("{}/{name}", self.folder);
        let mut entry =
            self.zip.by_name(&path).map_err(|e| format!("its entry `{path}` cannot be read: {e}"))?;
        if entry.compression() != CompressionMethod::Stored {
            return Err(format!("its entry `{path}` is compressed, which PyTorch never does"));
        }
        // Reading to the end compares the checksum; a program that wrote none left 0.
        if entry.crc32() != 0 {
            io::copy(&mut entry, &mut io::sink())
                .map_err(|e| format!("its entry `{path}` is damaged: {e}"))?;
        }
        let (start, size) = (entry.data_start() as usize, entry.size() as usize);
        let end = start.checked_add(size).filter(|&end| end <= self.bytes.len());
        end.map(|end| &self.bytes[start..end]).ok_or_else(|| format!("its entry `{path}` is cut short"))
    }

    fn storage(&mut self, key: &Rc<str>) -> std::result::Result<&'a [u8], String> {
        if let Some(bytes) = self.compared.get(key) {
            return Ok(bytes);
        }
        let bytes = self.entry(&format!("data/{key}"))?;
        self.compared.insert(key.clone(), bytes);
        Ok(bytes)
    }

    fn tensor(&mut self, view: &Strided) -> std::result::Result<Tensor, String> {
        let storage = &view.storage;
        let bytes = self.storage(&storage.key)?;
        let width = storage.kind.elt_size_in_bytes();
        if storage.count.checked_mul(width) != Some(bytes.len()) {
            return Err(format!(
                "has a storage of {} bytes, not {} times {width}",
                bytes.len(),
                storage.count
            ));
        }
        let failed = |e: tch::TchError| format!("cannot be read: {e}");
        let part = bytes.get(view.offset * width..(view.offset + view.span) * width);
        let part = part.ok_or("reaches beyond its storage")?;
        let all = Tensor::f_from_data_size(part, &[view.span as i64], storage.kind).map_err(failed)?;
        let own = all.f_as_strided(&view.size, &view.stride, Some(0)).map_err(failed)?;
        // A copy of its own: views of one storage must not be one tensor.
        own.f_contiguous().map(|t| t.copy()).map_err(failed)
    }
}
