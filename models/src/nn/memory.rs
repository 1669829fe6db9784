//! What frames leave behind for later ones: the context ring's content.
//!
//! In the original two things couple the frames of a window: the motion modules'
//! attention over time, and the resnets' norms, which pool their statistics
//! (`magicanimate/models/{motion_module,resnet}.py`). Whoever keeps the keys and values
//! of the first and the statistics of the second can run a new frame alone, as if the
//! earlier ones stood beside it in the window.

use super::KeysValues;
use crate::error::{ModelError, Result};
use std::cell::{Cell, RefCell};
use tch::Tensor;

/// What one coupling layer noted about its frames.
#[derive(Debug)]
enum Note {
    /// Mean and variance of each group, `[b, frames, groups]`, float32.
    Statistics(Tensor, Tensor),
    /// Keys and values before position, `[b·pixels, heads, frames, d]`.
    Attention(KeysValues),
}

impl Note {
    fn frames(&self, first: i64, count: i64) -> Self {
        match self {
            Self::Statistics(mean, var) => {
                Self::Statistics(mean.narrow(1, first, count), var.narrow(1, first, count))
            }
            Self::Attention(from) => Self::Attention(KeysValues {
                keys: from.keys.narrow(2, first, count),
                values: from.values.narrow(2, first, count),
            }),
        }
    }
}

/// What the frames of one pass through a U-Net left, at one denoising step.
#[derive(Debug, Default)]
pub struct FrameStates {
    frames: i64,
    /// In order of execution, which is the same for every pass of one network.
    notes: Vec<Note>,
}

impl FrameStates {
    /// Number of frames.
    pub fn len(&self) -> i64 {
        self.frames
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.frames == 0
    }

    /// `count` frames from `first` on.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn narrow(&self, first: i64, count: i64) -> Self {
        let notes = self.notes.iter().map(|note| note.frames(first, count)).collect();
        Self { frames: count, notes }
    }

    /// Bytes that the tensors hold.
    pub fn bytes(&self) -> usize {
        self.tensors().map(|t| t.numel() * t.kind().elt_size_in_bytes()).sum()
    }

    /// All tensors, in an order that is the same for every pass of one network.
    pub fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        self.notes.iter().flat_map(|note| match note {
            Note::Statistics(a, b) | Note::Attention(KeysValues { keys: a, values: b }) => [a, b],
        })
    }

    /// The same states in tensors of their own.
    pub fn copied(&self) -> Self {
        let note = |note: &Note| match note {
            Note::Statistics(mean, var) => Note::Statistics(mean.copy(), var.copy()),
            Note::Attention(from) => {
                Note::Attention(KeysValues { keys: from.keys.copy(), values: from.values.copy() })
            }
        };
        Self { frames: self.frames, notes: self.notes.iter().map(note).collect() }
    }
}

/// The context that a pass sees, oldest first, and what its own frames leave.
#[derive(Debug)]
pub struct Memory<'a> {
    context: Vec<&'a FrameStates>,
    own: RefCell<Vec<Note>>,
    /// Of the context; another network's context is noticed at the end.
    misfit: Cell<bool>,
}

impl<'a> Memory<'a> {
    /// A pass after these frames.
    pub fn after(context: impl IntoIterator<Item = &'a FrameStates>) -> Self {
        let context = context.into_iter().filter(|states| !states.is_empty()).collect();
        Self { context, own: RefCell::default(), misfit: Cell::new(false) }
    }

    /// Number of frames before the pass's own.
    pub fn frames(&self) -> i64 {
        self.context.iter().map(|states| states.frames).sum()
    }

    /// What this pass's `frames` frames leave.
    ///
    /// # Errors
    /// [`ModelError::Input`] if the context was not this network's: the pass is worth nothing.
    pub fn into_states(self, frames: i64) -> Result<FrameStates> {
        let notes = self.own.into_inner();
        if self.misfit.get() || self.context.iter().any(|states| states.notes.len() != notes.len()) {
            return Err(ModelError::Input("the context frames are of another network".into()));
        }
        Ok(FrameStates { frames, notes })
    }

    /// Statistics of a norm over the context and the own frames, `[b, groups]` each. The own ones are
    /// `mean` and `var`, `[b, frames, groups]`.
    pub(super) fn pooled(&self, mean: &Tensor, var: &Tensor) -> (Tensor, Tensor) {
        let (mut means, mut vars) = (vec![], vec![]);
        for states in &self.context {
            match states.notes.get(self.position()) {
                Some(Note::Statistics(kept_mean, kept_var)) if fits(kept_mean, mean, 1) => {
                    means.push(kept_mean);
                    vars.push(kept_var);
                }
                _ => self.misfit.set(true),
            }
        }
        let (means, vars) = (joined(means, mean, 1), joined(vars, var, 1));
        self.own.borrow_mut().push(Note::Statistics(mean.shallow_clone(), var.shallow_clone()));
        let mean = means.mean_dim(1, false, None);
        // Groups of all frames are equally large, so the whole variance is the frames' mean one and that of
        // their means.
        let spread = (means - mean.unsqueeze(1)).square() + vars;
        (mean, spread.mean_dim(1, false, None))
    }

    /// Keys and values of the context, then the own ones.
    pub(super) fn attended(&self, own: KeysValues) -> KeysValues {
        let (mut keys, mut values) = (vec![], vec![]);
        for states in &self.context {
            match states.notes.get(self.position()) {
                Some(Note::Attention(kept)) if fits(&kept.keys, &own.keys, 2) => {
                    keys.push(&kept.keys);
                    values.push(&kept.values);
                }
                _ => self.misfit.set(true),
            }
        }
        let all = KeysValues { keys: joined(keys, &own.keys, 2), values: joined(values, &own.values, 2) };
        self.own.borrow_mut().push(Note::Attention(own));
        all
    }

    fn position(&self) -> usize {
        self.own.borrow().len()
    }
}

/// The same shape but for dimension `along`.
fn fits(kept: &Tensor, own: &Tensor, along: usize) -> bool {
    let (kept, own) = (kept.size(), own.size());
    kept.len() == own.len() && kept.iter().zip(&own).enumerate().all(|(i, (a, b))| i == along || a == b)
}

fn joined<'a>(mut context: Vec<&'a Tensor>, own: &'a Tensor, along: i64) -> Tensor {
    if context.is_empty() {
        return own.shallow_clone();
    }
    context.push(own);
    Tensor::cat(&context, along)
}
