//! Where a network's tensors come from.
//!
//! A network asks for each tensor by the key that the published checkpoint
//! uses: `vars / "down_blocks" / 0`, then [`Vars::get`]. The same constructor
//! therefore loads a weight file (strictly: wrong shapes, missing and unused
//! keys are errors that name file and tensor) and makes fresh trainable
//! tensors for `keyframed-train`.

use crate::{
    error::{ModelError, Result},
    torch_ext::channels_last,
};
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    ops::Div,
    path::{Path, PathBuf},
};
use tch::{Device, Kind, Tensor};

/// How a fresh tensor is filled (PyTorch's own defaults for each layer).
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// Constant.
    Const(f64),
    /// Uniform in ±1/√fan_in: PyTorch's default for convolutions and linear layers.
    FanIn(i64),
    /// Normal with this standard deviation.
    Normal(f64),
}

enum Kept {
    Loaded { tensors: BTreeMap<String, Tensor>, used: RefCell<BTreeSet<String>> },
    Fresh { made: RefCell<BTreeMap<String, Tensor>>, filled: bool },
}

/// A set of named tensors: loaded from a file, or made as they are asked for.
pub struct Source {
    kept: Kept,
    file: PathBuf,
    device: Device,
    kind: Kind,
    packs: bool,
}

impl Source {
    /// Tensors that were read from `file`; [`Source::finish`] checks that all were used.
    pub fn loaded(
        file: impl Into<PathBuf>,
        tensors: BTreeMap<String, Tensor>,
        device: Device,
        kind: Kind,
    ) -> Self {
        let kept = Kept::Loaded { tensors, used: RefCell::default() };
        Self { kept, file: file.into(), device, kind, packs: false }
    }

    /// Trainable float32 tensors, made and initialised when first asked for.
    pub fn fresh(device: Device) -> Self {
        Self::making(device, true)
    }

    /// Notes names and shapes that a network asks for without allocating them:
    /// every tensor is a single zero, expanded. [`Source::tensors`] has the list.
    pub fn recording() -> Self {
        Self::making(Device::Cpu, false)
    }

    fn making(device: Device, filled: bool) -> Self {
        let kept = Kept::Fresh { made: RefCell::default(), filled };
        Self { kept, file: PathBuf::new(), device, kind: Kind::Float, packs: false }
    }

    /// Networks built from here keep their convolutions' kernels in the processor library's own layout if `yes`:
    /// faster, in float32 on the processor and without gradients only.
    pub fn packed(self, yes: bool) -> Self {
        let possible = self.device == Device::Cpu && self.kind == Kind::Float;
        Self { packs: yes && possible && matches!(self.kept, Kept::Loaded { .. }), ..self }
    }

    /// The root path.
    pub fn root(&self) -> Vars<'_> {
        Vars { source: self, path: String::new() }
    }

    /// The file's name, for messages.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Fails if the file holds tensors that no network asked for.
    ///
    /// # Errors
    /// [`ModelError::UnusedTensors`].
    pub fn finish(&self) -> Result<()> {
        let names = self.unused();
        if names.is_empty() {
            return Ok(());
        }
        Err(ModelError::UnusedTensors { file: self.file.clone(), names })
    }

    /// Keys that no network asked for so far, sorted.
    pub fn unused(&self) -> Vec<String> {
        match &self.kept {
            Kept::Fresh { .. } => Vec::new(),
            Kept::Loaded { tensors, used } => {
                let used = used.borrow();
                tensors.keys().filter(|name| !used.contains(*name)).cloned().collect()
            }
        }
    }

    /// All tensors by key: those of the file, or those made so far.
    pub fn tensors(&self) -> BTreeMap<String, Tensor> {
        let copy = |map: &BTreeMap<String, Tensor>| {
            map.iter().map(|(k, t)| (k.clone(), t.shallow_clone())).collect()
        };
        match &self.kept {
            Kept::Loaded { tensors, .. } => copy(tensors),
            Kept::Fresh { made, .. } => copy(&made.borrow()),
        }
    }

    fn get(&self, name: &str, shape: &[i64], init: Init) -> Result<Tensor> {
        match &self.kept {
            Kept::Loaded { tensors, used } => {
                let Some(tensor) = tensors.get(name) else {
                    let (file, name) = (self.file.clone(), name.to_owned());
                    return Err(ModelError::MissingTensor { file, name, shape: shape.to_vec() });
                };
                if tensor.size() != shape {
                    return Err(ModelError::WrongShape {
                        file: self.file.clone(),
                        name: name.to_owned(),
                        found: tensor.size(),
                        expected: shape.to_vec(),
                    });
                }
                used.borrow_mut().insert(name.to_owned());
                Ok(tensor.to_device(self.device).to_kind(self.kind))
            }
            Kept::Fresh { made, filled } => {
                let mut made = made.borrow_mut();
                if let Some(tensor) = made.get(name) {
                    return Ok(tensor.shallow_clone());
                }
                let options = (Kind::Float, self.device);
                if !filled {
                    let tensor = Tensor::zeros([1], options).expand(shape, false);
                    made.insert(name.to_owned(), tensor.shallow_clone());
                    return Ok(tensor);
                }
                let tensor = tch::no_grad(|| match init {
                    Init::Const(value) => Tensor::full(shape, value, options),
                    Init::FanIn(fan_in) => {
                        let bound = 1.0 / (fan_in.max(1) as f64).sqrt();
                        Tensor::empty(shape, options).uniform_(-bound, bound)
                    }
                    Init::Normal(std) => Tensor::randn(shape, options) * std,
                });
                let tensor = channels_last(&tensor).set_requires_grad(true);
                made.insert(name.to_owned(), tensor.shallow_clone());
                Ok(tensor)
            }
        }
    }

    /// See [`Vars::buffer`].
    fn buffer(&self, name: &str, shape: &[i64], values: impl FnOnce() -> Tensor) -> Result<Tensor> {
        match &self.kept {
            Kept::Loaded { tensors, .. } if !tensors.contains_key(name) => {
                Ok(values().to_device(self.device).to_kind(self.kind))
            }
            Kept::Fresh { made, filled: true } => {
                let mut made = made.borrow_mut();
                let tensor = made.entry(name.to_owned()).or_insert_with(|| values().to_device(self.device));
                Ok(tensor.shallow_clone())
            }
            _ => self.get(name, shape, Init::Const(0.0)),
        }
    }
}

/// A place in the tree of keys.
#[derive(Clone)]
pub struct Vars<'a> {
    source: &'a Source,
    path: String,
}

impl Vars<'_> {
    fn key(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// The tensor `name` below this place, on the source's device and in its dtype.
    ///
    /// # Errors
    /// [`ModelError::MissingTensor`] or [`ModelError::WrongShape`], naming file and key.
    pub fn get(&self, name: &str, shape: &[i64], init: Init) -> Result<Tensor> {
        self.source.get(&self.key(name), shape, init)
    }

    /// As [`Vars::get`], for a convolution's kernel. It is laid out channels last, and so is then all
    /// that the convolution makes: on processors it runs a third faster than in planes, and nothing in between
    /// needs to be laid out anew.
    ///
    /// # Errors
    /// As [`Vars::get`].
    pub fn kernel(&self, name: &str, shape: &[i64], init: Init) -> Result<Tensor> {
        Ok(channels_last(&self.get(name, shape, init)?))
    }

    /// A constant that checkpoints carry along: read where the file has it,
    /// else computed; never trainable (a fresh source keeps it without gradient).
    ///
    /// # Errors
    /// [`ModelError::WrongShape`].
    pub fn buffer(&self, name: &str, shape: &[i64], values: impl FnOnce() -> Tensor) -> Result<Tensor> {
        self.source.buffer(&self.key(name), shape, values)
    }

    /// Whether a loaded file has `name` below this place (false for fresh tensors).
    pub fn has(&self, name: &str) -> bool {
        match &self.source.kept {
            Kept::Loaded { tensors, .. } => tensors.contains_key(&self.key(name)),
            Kept::Fresh { .. } => false,
        }
    }

    /// Whether kernels are to be packed.
    pub(crate) fn packs(&self) -> bool {
        self.source.packs
    }

    /// Device of the tensors.
    pub fn device(&self) -> Device {
        self.source.device
    }

    /// Dtype of the tensors.
    pub fn kind(&self) -> Kind {
        self.source.kind
    }
}

impl<'a, T: Display> Div<T> for &Vars<'a> {
    type Output = Vars<'a>;
    fn div(self, name: T) -> Vars<'a> {
        Vars { source: self.source, path: self.key(&name.to_string()) }
    }
}

impl<'a, T: Display> Div<T> for Vars<'a> {
    type Output = Vars<'a>;
    fn div(self, name: T) -> Vars<'a> {
        &self / name
    }
}
