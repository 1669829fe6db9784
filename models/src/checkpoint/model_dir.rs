//! Model directories: weight files and the `model.toml` that describes them.

use super::{Lora, Manifest, OpenedFile, Role, Weight, WeightFile, digest::bytes_checked, fit, manifest};
use crate::{
    error::{ModelError, Result},
    registry,
    vars::Source,
};
use serde::de::DeserializeOwned;
use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::{Path, PathBuf},
};
use tch::{Device, Kind, Tensor};

/// Name of the describing file.
pub const MANIFEST: &str = "model.toml";
/// Folders to look for models in, separated as in `PATH`; looked at first.
pub const ENVIRONMENT: &str = "KEYFRAMED_MODELS";

/// A model directory whose manifest is sound and whose files are there.
#[derive(Debug, Clone)]
pub struct ModelDir {
    dir: PathBuf,
    manifest: Manifest,
}

impl ModelDir {
    /// Opens the directory `dir` (or the `model.toml` in it). The weight files'
    /// sizes are compared, their contents not yet: see [`ModelDir::verify`].
    ///
    /// # Errors
    /// [`ModelError::Io`] or [`ModelError::BadFile`] naming the file.
    pub fn load(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref();
        let named = dir.file_name().is_some_and(|name| name == MANIFEST);
        let dir = if named { dir.parent().unwrap_or(dir) } else { dir };
        let found = Self { dir: dir.to_owned(), manifest: Manifest::read(&dir.join(MANIFEST))? };
        found.files().try_for_each(|(path, entry)| check_size(&path, entry.size))?;
        Ok(found)
    }

    /// Opens a model by path, or by the name of a folder in the [`search_path`].
    ///
    /// # Errors
    /// As [`ModelDir::load`], or [`ModelError::Config`] saying where it was looked for.
    pub fn find(model: &str) -> Result<Self> {
        let path = Path::new(model);
        if path.components().count() > 1 || path.is_dir() || path.is_file() {
            return Self::load(path);
        }
        Self::find_in(&search_path(), model)
    }

    fn find_in(places: &[PathBuf], name: &str) -> Result<Self> {
        match folders(places).find(|dir| dir.file_name().is_some_and(|own| own == name)) {
            Some(dir) => Self::load(dir),
            None => {
                let places: Vec<_> = places.iter().map(|p| p.display().to_string()).collect();
                let places = places.join(", ");
                Err(ModelError::Config(format!(
                    "no model `{name}` in {places} (set {ENVIRONMENT} to add a folder)"
                )))
            }
        }
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What `model.toml` says.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Whether there is a file for `role`.
    pub fn has(&self, role: Role) -> bool {
        self.manifest.files.contains_key(&role)
    }

    /// Compares every file's checksum, and names, shapes and dtypes of the tensors with what the networks ask for;
    /// reads every value. Returns all that is wrong. No network is built: one tensor is in memory at a time.
    ///
    /// `begun` hears of each file before it is read.
    pub fn verify(&self, mut begun: impl FnMut(&Path)) -> Vec<ModelError> {
        let mut problems = Vec::new();
        for (role, files) in &self.manifest.files {
            for entry in files.entries() {
                let path = self.dir.join(&entry.path);
                begun(&path);
                match role {
                    Role::Tokenizer => problems.extend(bytes_checked(&path, &entry.sha256).err()),
                    _ => match OpenedFile::open_checked(&path, &entry.sha256) {
                        Ok(opened) => problems.extend(opened.unreadable()),
                        Err(error) => problems.push(error),
                    },
                }
            }
        }
        if problems.is_empty() {
            problems.extend(self.mismatches().unwrap_or_else(|error| vec![error]));
        }
        problems
    }

    /// Every tensor that is missing, unasked for or of another shape or dtype.
    fn mismatches(&self) -> Result<Vec<ModelError>> {
        let mut problems = Vec::new();
        for role in self.manifest.files.keys().copied().filter(|role| role.is_network()) {
            let (file, weights) = (self.label(role)?, self.weights(role)?);
            let asked = fit::asked(&self.dir.join(MANIFEST), &self.manifest, role, &weights)?;
            let found = fit::mismatches(&asked, &weights).into_iter();
            problems.extend(found.map(|reason| ModelError::BadFile { file: file.clone(), reason }));
        }
        if problems.is_empty() {
            problems.extend(self.updated_unet(1.0).err());
            problems.extend(registry::check(self).err());
        }
        Ok(problems)
    }

    /// The contents of the files for `role`, which hold no tensors, checksums compared.
    pub(crate) fn bytes(&self, role: Role) -> Result<Vec<(PathBuf, Vec<u8>)>> {
        let read = |entry: &super::FileEntry| {
            let path = self.dir.join(&entry.path);
            let bytes = bytes_checked(&path, &entry.sha256)?;
            Ok((path, bytes))
        };
        self.entries(role)?.iter().map(read).collect()
    }

    /// Every file and its entry.
    fn files(&self) -> impl Iterator<Item = (PathBuf, &super::FileEntry)> {
        let entries = self.manifest.files.values().flat_map(super::Files::entries);
        entries.map(|entry| (self.dir.join(&entry.path), entry))
    }

    /// The tensors for `role`, checksums compared, laid over each other if there are several files; not read yet.
    ///
    /// # Errors
    /// As [`OpenedFile::open_checked`], or [`ModelError::BadFile`] without such a file.
    pub fn weights(&self, role: Role) -> Result<BTreeMap<String, Weight>> {
        let mut all = BTreeMap::new();
        for entry in self.entries(role)? {
            let opened = OpenedFile::open_checked(&self.dir.join(&entry.path), &entry.sha256)?;
            let named = |(name, weight)| match &entry.prefix {
                Some(prefix) => (format!("{prefix}.{name}"), weight),
                None => (name, weight),
            };
            all.extend(opened.weights.into_iter().map(named));
        }
        Ok(all)
    }

    /// The tensors for `role`, in the files' dtypes.
    ///
    /// # Errors
    /// As [`ModelDir::weights`], or a tensor that cannot be read.
    pub fn tensors(&self, role: Role) -> Result<BTreeMap<String, Tensor>> {
        let opened =
            OpenedFile { file: self.label(role)?, weights: self.weights(role)?, metadata: BTreeMap::new() };
        Ok(opened.read()?.tensors)
    }

    /// The tensors for `role` as a network's source.
    ///
    /// # Errors
    /// As [`ModelDir::weights`].
    pub fn source(&self, role: Role, device: Device, kind: Kind) -> Result<Source> {
        Ok(Source::opened(self.label(role)?, self.weights(role)?, device, kind))
    }

    /// The U-Net's tensors with `lora_scale` of the LoRA merged, if there is one.
    ///
    /// # Errors
    /// As [`ModelDir::weights`] and [`Lora::update`].
    pub fn unet(&self, lora_scale: f64, device: Device, kind: Kind) -> Result<Source> {
        let weights = self.updated_unet(lora_scale)?;
        Ok(Source::opened(self.label(Role::Unet)?, weights, device, kind))
    }

    fn updated_unet(&self, lora_scale: f64) -> Result<BTreeMap<String, Weight>> {
        let mut weights = self.weights(Role::Unet)?;
        if self.has(Role::Lora) && lora_scale != 0.0 {
            for entry in self.entries(Role::Lora)? {
                let file = WeightFile::read_checked(&self.dir.join(&entry.path), &entry.sha256)?;
                Lora::from_weights(file)?.update(&mut weights, lora_scale)?;
            }
        }
        Ok(weights)
    }

    /// A network's configuration from its table in the manifest.
    ///
    /// # Errors
    /// [`ModelError::BadFile`] naming the entry.
    pub fn network<T: DeserializeOwned>(&self, name: &str, table: &toml::Table) -> Result<T> {
        manifest::network(&self.dir.join(MANIFEST), name, table)
    }

    fn entries(&self, role: Role) -> Result<&[super::FileEntry]> {
        let missing = || {
            let file = self.dir.join(MANIFEST);
            ModelError::BadFile { file, reason: format!("files: `{role}` is missing") }
        };
        Ok(self.manifest.files.get(&role).ok_or_else(missing)?.entries())
    }

    /// The file's path, or all paths of several, for messages.
    fn label(&self, role: Role) -> Result<PathBuf> {
        let paths: Vec<&str> = self.entries(role)?.iter().map(|entry| entry.path.as_str()).collect();
        Ok(self.dir.join(paths.join(" + ")))
    }
}

/// Cheap to ask, and enough to notice an interrupted download.
fn check_size(file: &Path, expected: u64) -> Result<()> {
    let metadata = fs::metadata(file).map_err(|source| ModelError::Io { file: file.to_owned(), source })?;
    if metadata.is_file() && metadata.len() == expected {
        return Ok(());
    }
    let reason = format!(
        "it has {} bytes, the model's manifest says {expected}: install the model again",
        metadata.len()
    );
    Err(ModelError::BadFile { file: file.to_owned(), reason })
}

/// A folder with a `model.toml`.
#[derive(Debug)]
pub struct Installed {
    /// The folder's name, by which [`ModelDir::find`] finds it.
    pub name: String,
    /// The folder.
    pub dir: PathBuf,
    /// The model, or why it cannot be used.
    pub model: Result<ModelDir>,
}

/// All models in the [`search_path`]; of those with the same name, the one found first.
pub fn list() -> Vec<Installed> {
    list_in(&search_path())
}

fn list_in(places: &[PathBuf]) -> Vec<Installed> {
    let mut seen = BTreeSet::new();
    let named = folders(places).filter_map(|dir| {
        let name = dir.file_name()?.to_string_lossy().into_owned();
        Some((name, dir))
    });
    let first = named.filter(|(name, _)| seen.insert(name.clone()));
    first.map(|(name, dir)| Installed { model: ModelDir::load(&dir), name, dir }).collect()
}

/// Where models are looked for, in this order: `$KEYFRAMED_MODELS`, the user's
/// data folder, beside this program (or plugin), the system's data folders, and
/// the source tree it was built from.
pub fn search_path() -> Vec<PathBuf> {
    let paths = |name: &str| env::var_os(name).map(|value| env::split_paths(&value).collect::<Vec<_>>());
    let within = |data: PathBuf| data.join("keyframed/models");
    let mut places = paths(ENVIRONMENT).unwrap_or_default();
    let home = env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/share"));
    places.extend(env::var_os("XDG_DATA_HOME").map(PathBuf::from).or(home).map(within));
    if let Some(beside) = code_file().as_deref().and_then(Path::parent) {
        places.push(beside.join("models"));
        places.push(beside.join("../share/keyframed/models"));
    }
    let system = || vec!["/usr/local/share".into(), "/usr/share".into()];
    places.extend(paths("XDG_DATA_DIRS").unwrap_or_else(system).into_iter().map(within));
    places.push(env!("CARGO_MANIFEST_DIR").into());
    places.retain(|place| !place.as_os_str().is_empty());
    places
}

/// The model folders in `places`, sorted by name within each; a place may be one itself.
fn folders(places: &[PathBuf]) -> impl Iterator<Item = PathBuf> {
    places.iter().flat_map(|place| {
        let inside = fs::read_dir(place).into_iter().flatten().flatten().map(|entry| entry.path());
        let mut found: Vec<_> = std::iter::once(place.clone()).chain(inside).collect();
        found.retain(|dir| dir.join(MANIFEST).is_file());
        found.sort();
        found
    })
}

/// The program or shared library that this code runs from: a plugin's host lies elsewhere.
fn code_file() -> Option<PathBuf> {
    let here = search_path as *const () as usize;
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let holds = |line: &&str| {
        let range = line.split(' ').next().and_then(|range| range.split_once('-'));
        let bound = |text: &str| usize::from_str_radix(text, 16).ok();
        let range = range.and_then(|(start, end)| Some(bound(start)?..bound(end)?));
        range.is_some_and(|range| range.contains(&here))
    };
    let mapped = maps.lines().find(holds).and_then(|line| Some(PathBuf::from(&line[line.find('/')?..])));
    mapped.or_else(|| env::current_exe().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_found_by_folder_and_listed_once() -> std::io::Result<()> {
        let root = tempfile::tempdir()?;
        let place = |name: &str| root.path().join(name);
        for folder in ["first/b", "first/a", "first/none", "second/a", "alone"] {
            fs::create_dir_all(place(folder))?;
        }
        for folder in ["first/b", "first/a", "second/a", "alone"] {
            fs::write(place(folder).join(MANIFEST), "family = 1")?;
        }
        let places = [place("absent"), place("first"), place("second"), place("alone")];
        let found: Vec<_> = list_in(&places).into_iter().map(|m| (m.name, m.dir, m.model.is_err())).collect();
        let wanted = [("a", "first/a"), ("b", "first/b"), ("alone", "alone")];
        assert_eq!(found, wanted.map(|(name, dir)| (name.to_owned(), place(dir), true)));
        // Found, and then refused for what is in it.
        let refused =
            |name| ModelDir::find_in(&places, name).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(refused("a").contains("first/a/model.toml"));
        assert!(refused("none").contains("no model `none`"));
        Ok(())
    }

    #[test]
    fn the_search_path_begins_beside_this_program_or_before() {
        let program = code_file();
        let own = env::current_exe().ok();
        assert_eq!(program, own, "a test is its own program");
        let places = search_path();
        let beside = own.as_deref().and_then(Path::parent).map(|dir| dir.join("models"));
        assert!(beside.is_some_and(|beside| places.contains(&beside)));
        assert_eq!(places.last().map(PathBuf::as_path), Some(Path::new(env!("CARGO_MANIFEST_DIR"))));
    }
}
