//! The few things of libtorch that tch does not wrap (see `torch_ext.cc`).

use std::{ffi::c_void, marker::PhantomData};
use tch::Tensor;

unsafe extern "C" {
    fn kf_inference_enter() -> *mut c_void;
    fn kf_inference_leave(guard: *mut c_void);
    fn kf_autocast_enter();
    fn kf_autocast_leave();
    fn kf_channels_last(tensor: *mut c_void) -> *mut c_void;
}

/// While it lives, tensors made on this thread record no autograd state at all.
///
/// Not `Send`: libtorch keeps the mode per thread.
pub struct InferenceMode(*mut c_void);

impl InferenceMode {
    /// Enters inference mode on the calling thread.
    pub fn enter() -> Self {
        // SAFETY: takes no argument; the guard is owned by `Self` alone.
        Self(unsafe { kf_inference_enter() })
    }
}

impl Drop for InferenceMode {
    fn drop(&mut self) {
        // SAFETY: the pointer came from `kf_inference_enter` on this same
        // thread (the type is neither `Send` nor `Sync`) and is freed once.
        unsafe { kf_inference_leave(self.0) }
    }
}

/// While it lives, convolutions and matrix products on the CPU run in bfloat16
/// on this thread and everything that needs range stays in float32.
pub struct CpuAutocast(PhantomData<*const ()>);

impl CpuAutocast {
    /// Enters bfloat16 autocast on the calling thread.
    pub fn enter() -> Self {
        // SAFETY: changes thread-local state that `drop` restores.
        unsafe { kf_autocast_enter() };
        Self(PhantomData)
    }
}

impl Drop for CpuAutocast {
    fn drop(&mut self) {
        // SAFETY: paired with the `enter` of this value, on the same thread.
        unsafe { kf_autocast_leave() }
    }
}

/// The same values with channels-last strides (`[b, c, h, w]` kept as shape).
pub fn channels_last(tensor: &Tensor) -> Tensor {
    if tensor.dim() != 4 {
        return tensor.shallow_clone();
    }
    // SAFETY: `as_ptr` is a valid `at::Tensor*` for the length of the call; the
    // result is a fresh `at::Tensor*` whose ownership passes to `from_ptr`.
    unsafe {
        let out = kf_channels_last(tensor.as_ptr() as *mut c_void);
        if out.is_null() { tensor.shallow_clone() } else { Tensor::from_ptr(out as *mut _) }
    }
}
