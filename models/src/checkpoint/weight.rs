//! One tensor of a weight file, which stays there until it is asked for.

use super::lora::Update;
use std::{fs::File, os::unix::fs::FileExt as _, rc::Rc, sync::Arc};
use tch::{Kind, Tensor};

/// A tensor in memory, or where it lies in a file. A full-size network is read tensor by tensor, so that it never
/// takes room twice: in the file's dtype and in that which it runs in.
#[derive(Debug)]
pub struct Weight {
    kind: Kind,
    shape: Vec<i64>,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Memory(Tensor),
    File(Stretch),
    /// With a share of a low-rank update, as float32.
    Updated(Box<Weight>, Rc<Update>, f64),
}

/// Elements in a file: from `start` on, with these strides if they do not lie row by row.
#[derive(Debug, Clone)]
pub(super) struct Stretch {
    pub file: Arc<File>,
    /// Of the first element, in bytes.
    pub start: u64,
    /// In elements.
    pub strides: Option<Vec<i64>>,
}

impl From<Tensor> for Weight {
    fn from(tensor: Tensor) -> Self {
        Self { kind: tensor.kind(), shape: tensor.size(), place: Place::Memory(tensor) }
    }
}

/// Shares the tensor or the file.
impl Clone for Weight {
    fn clone(&self) -> Self {
        let place = match &self.place {
            Place::Memory(tensor) => Place::Memory(tensor.shallow_clone()),
            Place::File(stretch) => Place::File(stretch.clone()),
            Place::Updated(base, update, scale) => Place::Updated(base.clone(), update.clone(), *scale),
        };
        Self { kind: self.kind, shape: self.shape.clone(), place }
    }
}

impl Weight {
    pub(super) fn in_file(kind: Kind, shape: Vec<i64>, stretch: Stretch) -> Self {
        Self { kind, shape, place: Place::File(stretch) }
    }

    pub(super) fn updated(self, update: Rc<Update>, scale: f64) -> Self {
        Self {
            kind: Kind::Float,
            shape: self.shape.clone(),
            place: Place::Updated(Box::new(self), update, scale),
        }
    }

    /// Whether a low-rank update belongs to it.
    pub(super) fn is_updated(&self) -> bool {
        matches!(self.place, Place::Updated(..))
    }

    /// Its dtype.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Its shape.
    pub fn shape(&self) -> &[i64] {
        &self.shape
    }

    /// Its bytes in this dtype, or in its own.
    pub fn bytes_in(&self, kind: Option<Kind>) -> usize {
        let count: i64 = self.shape.iter().product();
        count as usize * kind.unwrap_or(self.kind).elt_size_in_bytes()
    }

    /// The tensor: the one in memory, or read anew.
    ///
    /// # Errors
    /// For people, to stand behind the tensor's name: the file cannot be read, or holds what is no number.
    pub fn load(&self) -> Result<Tensor, String> {
        match &self.place {
            Place::Memory(tensor) => Ok(tensor.shallow_clone()),
            Place::File(stretch) => {
                let tensor = self.read(stretch)?;
                if is_float(self.kind) && !all_finite(&tensor) {
                    return Err("holds values that are not numbers: the file is damaged".into());
                }
                Ok(tensor)
            }
            Place::Updated(base, update, scale) => Ok(update.merged(&base.load()?, *scale)),
        }
    }

    fn read(&self, Stretch { file, start, strides }: &Stretch) -> Result<Tensor, String> {
        let count = match strides {
            _ if self.shape.contains(&0) => 0,
            None => self.shape.iter().product(),
            Some(strides) => {
                1 + self.shape.iter().zip(strides).map(|(n, stride)| (n - 1) * stride).sum::<i64>()
            }
        };
        let mut bytes = vec![0; count as usize * self.kind.elt_size_in_bytes()];
        file.read_exact_at(&mut bytes, *start).map_err(|e| format!("cannot be read: {e}"))?;
        let failed = |e: tch::TchError| format!("cannot be read: {e}");
        match strides {
            Some(strides) => {
                let all = Tensor::f_from_data_size(&bytes, &[count], self.kind).map_err(failed)?;
                let view = all.f_as_strided(&self.shape, strides, 0).map_err(failed)?;
                view.f_contiguous().map_err(failed)
            }
            None => Tensor::f_from_data_size(&bytes, &self.shape, self.kind).map_err(failed),
        }
    }
}

pub(super) fn is_float(kind: Kind) -> bool {
    matches!(kind, Kind::Float | Kind::Half | Kind::BFloat16 | Kind::Double)
}

pub(super) fn all_finite(tensor: &Tensor) -> bool {
    tensor.numel() == 0 || tensor.isfinite().all().int64_value(&[]) != 0
}
