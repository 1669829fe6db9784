//! Where a network's tensors come from.
//!
//! A network asks for each tensor by the key that the published checkpoint
//! uses: `vars / "down_blocks" / 0`, then [`Vars::get`]. The same constructor
//! therefore loads a weight file (strictly: wrong shapes, missing and unused
//! keys are errors that name file and tensor) and makes fresh trainable
//! tensors for `keyframed-train`.

use crate::{
    checkpoint::Weight,
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
    Loaded { weights: BTreeMap<String, Weight>, used: RefCell<BTreeSet<String>> },
    Fresh { made: RefCell<BTreeMap<String, Tensor>>, filled: bool, present: BTreeSet<String> },
}

/// A set of named tensors: loaded from a file, or made as they are asked for.
pub struct Source {
    kept: Kept,
    file: PathBuf,
    device: Device,
    kind: Kind,
    packs: Option<Kind>,
}

impl Source {
    /// Tensors that were read from `file`; [`Source::finish`] checks that all were used.
    pub fn loaded(
        file: impl Into<PathBuf>,
        tensors: BTreeMap<String, Tensor>,
        device: Device,
        kind: Kind,
    ) -> Self {
        let weights = tensors.into_iter().map(|(name, tensor)| (name, tensor.into())).collect();
        Self::opened(file, weights, device, kind)
    }

    /// As [`Source::loaded`], of tensors that are read when a network asks for them.
    pub fn opened(
        file: impl Into<PathBuf>,
        weights: BTreeMap<String, Weight>,
        device: Device,
        kind: Kind,
    ) -> Self {
        let kept = Kept::Loaded { weights, used: RefCell::default() };
        Self { kept, file: file.into(), device, kind, packs: None }
    }

    /// Trainable float32 tensors, made and initialised when first asked for.
    pub fn fresh(device: Device) -> Self {
        Self::making(device, true, BTreeSet::new())
    }

    /// Notes names and shapes that a network asks for without allocating them:
    /// every tensor is a single zero, expanded. [`Source::tensors`] has the list.
    pub fn recording() -> Self {
        Self::recording_over(BTreeSet::new())
    }

    /// As [`Source::recording`], for networks whose names depend on whether a file has the names `present`.
    pub fn recording_over(present: BTreeSet<String>) -> Self {
        Self::making(Device::Cpu, false, present)
    }

    fn making(device: Device, filled: bool, present: BTreeSet<String>) -> Self {
        let kept = Kept::Fresh { made: RefCell::default(), filled, present };
        Self { kept, file: PathBuf::new(), device, kind: Kind::Float, packs: None }
    }

    /// Networks built from here keep their convolutions' kernels in the processor library's own layout and in `kind`,
    /// if any: faster, in float32 networks on the processor and without gradients only. In bfloat16 the
    /// products are made in that; what goes in and comes out stays in float32.
    pub fn packed(self, kind: Option<Kind>) -> Self {
        let possible = self.device == Device::Cpu && self.kind == Kind::Float;
        Self { packs: kind.filter(|_| possible && matches!(self.kept, Kept::Loaded { .. })), ..self }
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
            Kept::Loaded { weights, used } => {
                let used = used.borrow();
                weights.keys().filter(|name| !used.contains(*name)).cloned().collect()
            }
        }
    }

    /// All tensors by key: those made so far, or those of the file that can be read.
    pub fn tensors(&self) -> BTreeMap<String, Tensor> {
        match &self.kept {
            Kept::Loaded { weights, .. } => {
                weights.iter().filter_map(|(k, weight)| Some((k.clone(), weight.load().ok()?))).collect()
            }
            Kept::Fresh { made, .. } => {
                made.borrow().iter().map(|(k, t)| (k.clone(), t.shallow_clone())).collect()
            }
        }
    }

    fn get(&self, name: &str, shape: &[i64], init: Init) -> Result<Tensor> {
        match &self.kept {
            Kept::Loaded { weights, used } => {
                let Some(weight) = weights.get(name) else {
                    let (file, name) = (self.file.clone(), name.to_owned());
                    return Err(ModelError::MissingTensor { file, name, shape: shape.to_vec() });
                };
                if weight.shape() != shape {
                    return Err(ModelError::WrongShape {
                        file: self.file.clone(),
                        name: name.to_owned(),
                        found: weight.shape().to_vec(),
                        expected: shape.to_vec(),
                    });
                }
                used.borrow_mut().insert(name.to_owned());
                let tensor = weight.load().map_err(|reason| {
                    let reason = format!("tensor `{name}` {reason}");
                    ModelError::BadFile { file: self.file.clone(), reason }
                })?;
                Ok(tensor.to_device(self.device).to_kind(self.kind))
            }
            Kept::Fresh { made, filled, .. } => {
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
            Kept::Loaded { weights, .. } if !weights.contains_key(name) => {
                Ok(values().to_device(self.device).to_kind(self.kind))
            }
            Kept::Fresh { made, filled: true, .. } => {
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
        let kernel = self.get(name, shape, init)?;
        // What only notes shapes stays a single zero.
        let noted = matches!(self.source.kept, Kept::Fresh { filled: false, .. });
        Ok(if noted { kernel } else { channels_last(&kernel) })
    }

    /// A constant that checkpoints carry along: read where the file has it,
    /// else computed; never trainable (a fresh source keeps it without gradient).
    ///
    /// # Errors
    /// [`ModelError::WrongShape`].
    pub fn buffer(&self, name: &str, shape: &[i64], values: impl FnOnce() -> Tensor) -> Result<Tensor> {
        self.source.buffer(&self.key(name), shape, values)
    }

    /// Whether the file has `name` below this place (false for fresh tensors).
    pub fn has(&self, name: &str) -> bool {
        match &self.source.kept {
            Kept::Loaded { weights, .. } => weights.contains_key(&self.key(name)),
            Kept::Fresh { present, .. } => present.contains(&self.key(name)),
        }
    }

    /// In which dtype kernels are to be packed, if they are.
    pub(crate) fn packs(&self) -> Option<Kind> {
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
