//! Kernels of our own for the processor: what libtorch does in several passes over memory, in one.
//!
//! They run on float32 tensors whose pixels' channels lie next to each other, and compute no gradients. Whoever calls
//! them has libtorch's operations for everything else, and for the cases in which they answer `None`.

use std::ffi::c_void;
use tch::Tensor;

#[rustfmt::skip]
unsafe extern "C" {
    fn kf_conv_pack(weight: *const c_void, stride: i64, padding: i64) -> *mut c_void;
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

/// A convolution's kernel in oneDNN's own layout, from which no other operation reads.
#[derive(Debug)]
pub struct Packed(Tensor);

impl Packed {
    /// Of `[outputs, inputs, k, k]`, float32.
    pub fn new(weight: &Tensor, stride: i64, padding: i64) -> Option<Self> {
        // SAFETY: a valid tensor for the length of the call; the answer is ours.
        unsafe { owned(kf_conv_pack(raw(weight), stride, padding)) }.map(Self)
    }

    /// The convolution of `[b, inputs, h, w]`, plus `add` or through `activation` (not both).
    pub fn convolve(
        &self,
        x: &Tensor,
        bias: Option<&Tensor>,
        add: Option<&Tensor>,
        sides: (i64, i64),
        activation: Activation,
    ) -> Option<Tensor> {
        let optional = |t: Option<&Tensor>| t.map_or(std::ptr::null(), raw);
        let (stride, padding) = sides;
        // SAFETY: valid tensors, or null where that is allowed, for the length of the call; the answer is ours.
        unsafe {
            let (bias, add) = (optional(bias), optional(add));
            owned(kf_conv(raw(x), raw(&self.0), bias, add, stride, padding, activation as i32))
        }
    }
}

/// Group normalisation of `[b, channels, h, w]`, then SiLU if asked for.
pub fn group_norm(
    x: &Tensor,
    (weight, bias): (&Tensor, &Tensor),
    groups: i64,
    eps: f64,
    silu: bool,
) -> Option<Tensor> {
    // SAFETY: valid tensors for the length of the call; the answer is ours. Weight and bias have the channels of
    // `x`, which the callers' constructors see to.
    unsafe { owned(kf_group_norm(raw(x), raw(weight), raw(bias), groups, eps, silu)) }
}

/// `[b, 4c, h + 1, w + 1]` → `[b, c, 2h, 2w]`: each source pixel's four. Part (p, q) of the channels is read `from +
/// step · (p, q)` further on.
pub fn spread(x: &Tensor, step: i64, from: i64) -> Option<Tensor> {
    // SAFETY: a valid tensor for the length of the call; the answer is ours. `step + from` is 1 with both callers.
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
    // SAFETY: valid tensors for the length of the call, of one size as FILM's scales are; the answer is ours.
    unsafe { owned(kf_join_warped(raw(x), raw(flow))) }
}

/// What FILM's decoder reads of one scale at time `t`; see `picture.cc`.
pub fn between(both: &Tensor, backward: &Tensor, forward: &Tensor, t: f64) -> Option<Tensor> {
    // SAFETY: valid tensors for the length of the call, of one size as FILM's scales are; the answer is ours.
    unsafe { owned(kf_between(raw(both), raw(backward), raw(forward), t)) }
}

/// `[b, 2, h, w]` → `[b, 2, 2h, 2w]`, vectors twice as long.
pub fn finer(flow: &Tensor) -> Option<Tensor> {
    // SAFETY: a valid tensor for the length of the call; the answer is ours.
    unsafe { owned(kf_finer(raw(flow))) }
}
