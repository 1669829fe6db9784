//! PyTorch's own files: `torch.save`'s archives and TorchScript modules.

use super::{
    pickle::{self, Loaded, Node, Strided, Value},
    weight::{Stretch, Weight},
};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufReader, Read as _},
    rc::Rc,
    sync::Arc,
};
use tch::Kind;
use zip::{CompressionMethod, ZipArchive};

/// Longest pickle: what is large lies beside it.
const LONGEST_PICKLE: u64 = 64 << 20;
/// Entries of dictionaries within dictionaries that are followed.
const DEEPEST: usize = 24;
/// Longest name of a tensor, bytes: published ones have 150.
const LONGEST_NAME: usize = 512;
/// Entries that are looked at in all: several may lead to the same ones.
const MOST_VISITS: usize = 1_000_000;
/// Tensors may be views of the same bytes, but not so often that they take this many times the file's size.
const MOST_COPIES: u64 = 4;

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
///
/// # Errors
/// Why the file is refused, for people.
pub(super) fn weights(file: &Arc<File>, length: u64) -> Result<BTreeMap<String, Weight>, String> {
    let mut archive = Archive::open(file)?;
    let loaded = pickle::load(&archive.read("data.pkl")?)?;
    let mut search = Search { nodes: &loaded.nodes, found: Vec::new(), visits: 0 };
    search.collect(state_of(&loaded), String::new(), 0)?;
    let room = search.found.iter().fold(0, |sum: u64, (_, view)| sum.saturating_add(cost(view)));
    if room > MOST_COPIES * length {
        return Err("its tensors would take many times the room of the file".into());
    }
    let mut weights = BTreeMap::new();
    for (name, strided) in search.found {
        let weight = archive.weight(&strided).map_err(|reason| format!("tensor `{name}` {reason}"))?;
        if weights.insert(name.clone(), weight).is_some() {
            return Err(format!("tensor `{name}` occurs twice"));
        }
    }
    if weights.is_empty() {
        return Err("it holds no tensors".into());
    }
    Ok(weights)
}

/// Bytes that are copied for a view: what it shows, or what of the storage lies between its ends.
fn cost(view: &Strided) -> u64 {
    // Storages are only claimed so far, and may claim to be of any size.
    let shown = view.size.iter().fold(1u64, |all, &n| all.saturating_mul(n as u64));
    shown.max(view.span as u64).saturating_mul(view.storage.kind.elt_size_in_bytes() as u64)
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
    fn collect(&mut self, value: &Value, path: String, depth: usize) -> Result<(), String> {
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

struct Archive {
    file: Arc<File>,
    zip: ZipArchive<BufReader<File>>,
    /// The folder that everything lies in.
    folder: String,
    /// Where the storages begin that were looked at.
    storages: BTreeMap<Rc<str>, u64>,
}

impl Archive {
    fn open(file: &Arc<File>) -> Result<Self, String> {
        let own = file.try_clone().map_err(|e| format!("cannot be read: {e}"))?;
        let zip = ZipArchive::new(BufReader::with_capacity(1 << 20, own))
            .map_err(|e| format!("it is no whole archive: {e}"))?;
        let name = zip.file_names().find_map(|name| name.strip_suffix("/data.pkl"));
        let folder = name.ok_or("it is no PyTorch file: `data.pkl` is missing")?.to_owned();
        let mut archive = Self { file: file.clone(), zip, folder, storages: BTreeMap::new() };
        if archive.read("byteorder").is_ok_and(|order| order != b"little") {
            return Err("its numbers are big-endian".into());
        }
        Ok(archive)
    }

    /// A small entry's bytes.
    fn read(&mut self, name: &str) -> Result<Vec<u8>, String> {
        let path = format!("{}/{name}", self.folder);
        let mut bytes = Vec::new();
        let entry = self.entry(&path)?;
        let read = entry.take(LONGEST_PICKLE + 1).read_to_end(&mut bytes);
        read.map_err(|e| format!("its entry `{path}` is damaged: {e}"))?;
        if bytes.len() as u64 > LONGEST_PICKLE {
            return Err(format!("its entry `{path}` has more than {} MiB", LONGEST_PICKLE >> 20));
        }
        Ok(bytes)
    }

    fn entry(&mut self, path: &str) -> Result<zip::read::ZipFile<'_>, String> {
        let entry = self.zip.by_name(path).map_err(|e| format!("its entry `{path}` cannot be read: {e}"))?;
        if entry.compression() != CompressionMethod::Stored {
            return Err(format!("its entry `{path}` is compressed, which PyTorch never does"));
        }
        Ok(entry)
    }

    fn weight(&mut self, view: &Strided) -> Result<Weight, String> {
        let storage = &view.storage;
        let width = storage.kind.elt_size_in_bytes() as u64;
        let begin = match self.storages.get(&storage.key) {
            Some(begin) => *begin,
            None => self.storage(&storage.key, storage.count, storage.kind)?,
        };
        let start = begin + view.offset as u64 * width;
        let stretch = Stretch { file: self.file.clone(), start, strides: Some(view.stride.clone()) };
        Ok(Weight::in_file(storage.kind, view.size.clone(), stretch))
    }

    /// Where a storage begins; it is as long as it should be, and its checksum is right.
    fn storage(&mut self, key: &Rc<str>, count: usize, kind: Kind) -> Result<u64, String> {
        let path = format!("{}/data/{key}", self.folder);
        let width = kind.elt_size_in_bytes();
        let mut entry = self.entry(&path)?;
        if count.checked_mul(width).map(|bytes| bytes as u64) != Some(entry.size()) {
            return Err(format!("has a storage of {} bytes, not {count} times {width}", entry.size()));
        }
        // Reading to the end compares the checksum; a program that wrote none left 0.
        if entry.crc32() != 0 {
            io::copy(&mut entry, &mut io::sink())
                .map_err(|e| format!("its entry `{path}` is damaged: {e}"))?;
        }
        let begin = entry.data_start();
        drop(entry);
        self.storages.insert(key.clone(), begin);
        Ok(begin)
    }
}
