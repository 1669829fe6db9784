//! Kernels of our own for the processor: what libtorch does in several passes over memory, in one.
//!
//! They run on float32 tensors whose pixels' channels lie next to each other, and compute no gradients but for
//! [`group_norm`]'s. Whoever calls
//! them has libtorch's operations for everything else, and for the cases in which they answer `None`.

use crate::torch_ext::channels_last;
use std::{
    ffi::c_void,
    sync::{Mutex, OnceLock, PoisonError},
};
use tch::{Device, Kind, Tensor};

// SAFETY: as `conv.cc`, `norm.cc` and `picture.cc` define them.
#[rustfmt::skip]
unsafe extern "C" {
    fn kf_conv_pack(weight: *const c_void, x: *const c_void, stride: i64, padding: i64) -> *mut c_void;
    fn kf_conv(
        x: *const c_void, packed: *const c_void, bias: *const c_void, add: *const c_void,
        stride: i64, padding: i64, activation: i32,
    ) -> *mut c_void;
    fn kf_group_norm(
        x: *const c_void, weight: *const c_void, bias: *const c_void, groups: i64, eps: f64, silu: bool,
    ) -> *mut c_void;
    fn kf_spread(x: *const c_void, step: i64, from: i64) -> *mut c_void;
    fn kf_join(parts: *const *const c_void, count: i64) -> *mut c_void;
    fn kf_join_warped(x: *const c_void, flow: *const c_void) -> *mut c_void;
    fn kf_between(
        both: *const c_void, backward: *const c_void, forward: *const c_void, t: f64,
    ) -> *mut c_void;
    fn kf_finer(flow: *const c_void) -> *mut c_void;
}

fn raw(tensor: &Tensor) -> *const c_void {
    tensor.as_ptr() as *const c_void
}

/// # Safety
/// `made` is null or an `at::Tensor*` that nobody else owns.
unsafe fn owned(made: *mut c_void) -> Option<Tensor> {
    // SAFETY: passed on to the caller.
    (!made.is_null()).then(|| unsafe { Tensor::from_ptr(made.cast()) })
}

/// What follows a convolution in the same pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    None = 0,
    /// x · sigmoid(x).
    Silu = 1,
    /// Leaky ReLU with a slope of 0.2, FILM's.
    Leaky = 2,
    /// max(x, 0).
    Relu = 3,
}

impl Activation {
    /// As an operation of its own.
    pub fn of(self, x: Tensor) -> Tensor {
        match self {
            Self::None => x,
            Self::Silu => x.silu(),
            // One pass over memory; the same values as `max(x, 0.2 · x)`.
            Self::Leaky => x.prelu(&Tensor::full([1], 0.2, (x.kind(), x.device()))),
            Self::Relu => x.relu(),
        }
    }
}

/// A convolution's kernel in oneDNN's own layout, from which no other operation reads: one for each size of picture
/// that has come, for in a layout made for another size some convolutions take sixty times as long.
#[derive(Debug)]
pub struct Packed {
    stride: i64,
    padding: i64,
    /// Made when they are first asked for. The plain kernel gives way to the first of them.
    /// Least recently used first.
    layouts: Mutex<Vec<(Vec<i64>, Tensor)>>,
}

/// Most layouts of one kernel; FILM's extractor runs on every scale of a picture.
const MOST_LAYOUTS: usize = 16;

/// Fewest inputs and outputs of a convolution that is made in bfloat16.
const NARROW: i64 = 16;

impl Packed {
    /// Of `[outputs, inputs, k, k]`, float32, for products in `kind`: float32, or bfloat16 where that is worth it. `None`
    /// where libtorch has no oneDNN.
    pub fn new(weight: &Tensor, stride: i64, padding: i64, kind: Kind) -> Option<Self> {
        static POSSIBLE: OnceLock<bool> = OnceLock::new();
        let tried = || {
            let zeros = |shape: [i64; 4]| Tensor::zeros(shape, (Kind::Float, Device::Cpu));
            let trial = Self::of(&zeros([8, 8, 3, 3]), 1, 1);
            trial.convolve(&channels_last(&zeros([1, 8, 4, 4])), None, None, Activation::None).is_some()
        };
        // Few channels gain nothing, and at a network's ends a picture's or a flow's digits would be lost.
        let narrow = weight.size().iter().take(2).any(|&channels| channels < NARROW);
        let kind = if narrow { Kind::Float } else { kind };
        POSSIBLE.get_or_init(tried).then(|| Self::of(&weight.to_kind(kind), stride, padding))
    }

    fn of(weight: &Tensor, stride: i64, padding: i64) -> Self {
        Self { stride, padding, layouts: Mutex::new(vec![(Vec::new(), weight.shallow_clone())]) }
    }

    /// The layout for pictures of the size of `x`.
    fn layout(&self, x: &Tensor) -> Option<Tensor> {
        let size = x.size();
        let mut layouts = self.layouts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = layouts.iter().position(|(of, _)| *of == size) {
            let found = layouts.remove(at);
            let made = found.1.shallow_clone();
            layouts.push(found);
            return Some(made);
        }
        let made = laid_out(&layouts.first()?.1, x, (self.stride, self.padding))?;
        layouts.retain(|(of, _)| !of.is_empty());
        if layouts.len() == MOST_LAYOUTS {
            drop(layouts.remove(0));
        }
        layouts.push((size, made.shallow_clone()));
        Some(made)
    }

    /// The convolution of `[b, inputs, h, w]`, float32 and so is the answer, plus `add` or through `activation` (not both).
    pub fn convolve(
        &self,
        x: &Tensor,
        bias: Option<&Tensor>,
        add: Option<&Tensor>,
        activation: Activation,
    ) -> Option<Tensor> {
        let optional = |t: Option<&Tensor>| t.map_or(std::ptr::null(), raw);
        let (layout, stride, padding) = (self.layout(x)?, self.stride, self.padding);
        // SAFETY: valid tensors, or null where that is allowed, for the length of the call; the answer is ours.
        unsafe {
            let (bias, add) = (optional(bias), optional(add));
            owned(kf_conv(raw(x), raw(&layout), bias, add, stride, padding, activation as i32))
        }
    }
}

/// `weight`, plain or packed, for convolving pictures of the size of `x`; `sides`: stride and padding.
fn laid_out(weight: &Tensor, x: &Tensor, sides: (i64, i64)) -> Option<Tensor> {
    // SAFETY: valid tensors for the length of the call; the answer is ours.
    unsafe { owned(kf_conv_pack(raw(weight), raw(x), sides.0, sides.1)) }
}

/// Group normalisation of `[b, channels, h, w]`, then SiLU if asked for.
pub fn group_norm(
    x: &Tensor,
    (weight, bias): (&Tensor, &Tensor),
    groups: i64,
    eps: f64,
    silu: bool,
) -> Option<Tensor> {
    // SAFETY: valid tensors for the length of the call, whose shapes it checks; the answer is ours.
    unsafe { owned(kf_group_norm(raw(x), raw(weight), raw(bias), groups, eps, silu)) }
}

/// `[b, 4c, h + 1, w + 1]` → `[b, c, 2h, 2w]`: each source pixel's four. Part (p, q) of the channels is read `from +
/// step · (p, q)` further on.
pub fn spread(x: &Tensor, step: i64, from: i64) -> Option<Tensor> {
    // SAFETY: a valid tensor for the length of the call, which checks its shape; the answer is ours.
    unsafe { owned(kf_spread(raw(x), step, from)) }
}

/// Tensors that differ in their channels only, joined along these.
pub fn join(parts: &[&Tensor]) -> Option<Tensor> {
    let size = parts.first()?.size();
    let alike = |t: &&Tensor| t.dim() == 4 && t.size()[0] == size[0] && t.size()[2..] == size[2..];
    if !parts.iter().all(alike) {
        return None;
    }
    let parts: Vec<_> = parts.iter().map(|part| raw(part)).collect();
    // SAFETY: as many valid tensors of one size as announced; the answer is ours.
    unsafe { owned(kf_join(parts.as_ptr(), parts.len() as i64)) }
}

/// `x` `[2b, c, h, w]`, each half with the other one, warped along its `flow` `[2b, 2, h, w]`, behind it.
pub fn join_warped(x: &Tensor, flow: &Tensor) -> Option<Tensor> {
    // SAFETY: valid tensors for the length of the call, whose shapes it checks; the answer is ours.
    unsafe { owned(kf_join_warped(raw(x), raw(flow))) }
}

/// What FILM's decoder reads of one scale at time `t`; see `picture.cc`.
pub fn between(both: &Tensor, backward: &Tensor, forward: &Tensor, t: f64) -> Option<Tensor> {
    // SAFETY: valid tensors for the length of the call, whose shapes it checks; the answer is ours.
    unsafe { owned(kf_between(raw(both), raw(backward), raw(forward), t)) }
}

/// `[b, 2, h, w]` → `[b, 2, 2h, 2w]`, vectors twice as long.
pub fn finer(flow: &Tensor) -> Option<Tensor> {
    // SAFETY: a valid tensor for the length of the call; the answer is ours.
    unsafe { owned(kf_finer(raw(flow))) }
}
