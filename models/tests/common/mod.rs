//! Finding and comparing the golden tensors that the original implementations made.
//!
//! They are not part of the repository: where they are absent a test prints why and returns.

#![allow(dead_code, reason = "each test program uses its own part of these helpers")]
#![allow(clippy::print_stdout, reason = "a skipped test must say so")]

use keyframed_models::{Source, UNet, UNetConfig};
use serde::de::DeserializeOwned;
use std::{
    collections::BTreeMap,
    env,
    path::{Path, PathBuf},
};
use tch::{Device, Kind, Tensor};

/// The shared folder: `$KEYFRAMED_SHARED`, else `../shared` beside the repository.
pub fn shared() -> PathBuf {
    env::var_os("KEYFRAMED_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared"), PathBuf::from)
}

/// The golden tensors: `$KEYFRAMED_GOLDENS`, else `goldens/dev` in the shared folder.
pub fn goldens() -> Option<PathBuf> {
    let folder = env::var_os("KEYFRAMED_GOLDENS").map_or_else(|| shared().join("goldens/dev"), PathBuf::from);
    existing(folder, "KEYFRAMED_GOLDENS")
}

/// The same, if all of these files are in it; `configs` and names without an ending are tensors.
pub fn goldens_with(names: &[&str]) -> Option<PathBuf> {
    let folder = goldens()?;
    for name in names.iter().chain(&["configs.json"]) {
        let file = if name.contains('.') { (*name).to_owned() } else { format!("{name}.safetensors") };
        if !folder.join(&file).is_file() {
            println!("skipped: {} has no {file}", folder.display());
            return None;
        }
    }
    Some(folder)
}

/// The lists of names and shapes at full size.
pub fn manifests() -> Option<PathBuf> {
    existing(shared().join("goldens/manifests"), "KEYFRAMED_SHARED")
}

fn existing(folder: PathBuf, variable: &str) -> Option<PathBuf> {
    if folder.is_dir() {
        return Some(folder);
    }
    println!("skipped: {} does not exist (set {variable})", folder.display());
    None
}

/// All tensors of a safetensors file.
pub fn tensors(file: &Path) -> BTreeMap<String, Tensor> {
    let list = Tensor::read_safetensors(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    list.into_iter().collect()
}

/// A weight file as a network's source, float32 on the CPU.
pub fn source(file: &Path) -> Source {
    Source::loaded(file, tensors(file), Device::Cpu, Kind::Float).packed(Some(Kind::Float))
}

/// Several weight files as one source; later files win.
pub fn source_of(files: &[PathBuf]) -> Source {
    let all = files.iter().flat_map(|file| tensors(file)).collect();
    Source::loaded(files[0].clone(), all, Device::Cpu, Kind::Float).packed(Some(Kind::Float))
}

/// One entry of the goldens' `configs.json`.
pub fn config(name: &str) -> serde_json::Value {
    let file = goldens().expect("called behind goldens()").join("configs.json");
    json(&file)[name].clone()
}

/// A parsed JSON file.
pub fn json(file: &Path) -> serde_json::Value {
    let text = std::fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
}

/// Metadata of a safetensors file's header; values that are JSON themselves are parsed.
pub fn metadata(file: &Path) -> BTreeMap<String, serde_json::Value> {
    let bytes = std::fs::read(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let entries = header["__metadata__"].as_object().cloned().unwrap_or_default();
    let parsed = |v: serde_json::Value| v.as_str().and_then(|s| serde_json::from_str(s).ok()).unwrap_or(v);
    entries.into_iter().map(|(k, v)| (k, parsed(v))).collect()
}

/// max|a-b| / max(1, max|b|).
pub fn error(a: &Tensor, b: &Tensor) -> f64 {
    let (a, b) = (a.to_kind(Kind::Double), b.to_kind(Kind::Double));
    let scale = b.abs().max().double_value(&[]).max(1.0);
    (a - b).abs().max().double_value(&[]) / scale
}

/// Fails if the shapes differ or the scaled error is above `tolerance` or not a number.
#[track_caller]
pub fn assert_close(a: &Tensor, b: &Tensor, tolerance: f64) {
    assert_eq!(a.size(), b.size(), "shapes differ");
    let error = error(a, b);
    assert!(error <= tolerance, "scaled error {error:.3e} is above {tolerance:.1e}");
}

/// The small network of the goldens that `config` describes, all its weights used.
pub fn unet(folder: &Path, config: &UNetConfig) -> UNet {
    let mut files = vec![folder.join("unet2d_weights.safetensors")];
    if config.use_motion_module {
        files.push(folder.join("motion_weights.safetensors"));
    }
    let source = source_of(&files);
    let unet = UNet::new(&source.root(), config).expect("weights that fit the configuration");
    source.finish().expect("no tensor left over");
    unet
}

/// One entry of `configs.json` as a network's configuration.
pub fn parsed<T: DeserializeOwned>(name: &str) -> T {
    serde_json::from_value(config(name)).unwrap_or_else(|e| panic!("configs.json, {name}: {e}"))
}

/// A timestep as networks take it.
pub fn timestep(value: &serde_json::Value) -> Tensor {
    Tensor::from_slice(&[value.as_i64().expect("a timestep")])
}
