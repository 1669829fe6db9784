//! The few things of libtorch that tch does not wrap (see `torch_ext.cc`).

use std::{
    ffi::{CStr, c_char, c_void},
    marker::PhantomData,
};
use tch::Tensor;

// SAFETY: as `torch_ext.cc` defines them.
unsafe extern "C" {
    fn kf_inference_enter() -> *mut c_void;
    fn kf_inference_leave(guard: *mut c_void);
    fn kf_autocast_enter();
    fn kf_autocast_leave();
    fn kf_use_threads(threads: i32);
    fn kf_count_begin() -> u64;
    fn kf_count_end(handle: u64, to: *mut c_void, take: TakeCost);
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

/// Lets operations that this thread calls use so many threads; other threads' stay as they are.
pub fn use_threads(threads: usize) {
    let threads = i32::try_from(threads.max(1)).unwrap_or(i32::MAX);
    // SAFETY: sets a number of the calling thread's OpenMP runtime.
    unsafe { kf_use_threads(threads) }
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

/// What libtorch's operations of one name have cost.
#[derive(Debug, Clone, PartialEq)]
pub struct OpCost {
    /// Name, such as `aten::conv2d`.
    pub name: String,
    /// Calls.
    pub calls: u64,
    /// Time in them, seconds; counting itself adds a microsecond or so a call.
    pub seconds: f64,
    /// Additions and multiplications of convolutions, linear layers, attention and matrix products.
    pub flop: f64,
}

type TakeCost = extern "C" fn(*mut c_void, *const c_char, u64, f64, f64);

extern "C" fn take_cost(to: *mut c_void, name: *const c_char, calls: u64, seconds: f64, flop: f64) {
    // SAFETY: `kf_count_end` passes on the list that `operations` gave it, and a terminated string.
    let (list, name) = unsafe { (&mut *to.cast::<Vec<OpCost>>(), CStr::from_ptr(name)) };
    list.push(OpCost { name: name.to_string_lossy().into_owned(), calls, seconds, flop });
}

/// Runs `work` and counts libtorch's operations of the whole process meanwhile. Not for two threads at once.
pub fn operations<T>(work: impl FnOnce() -> T) -> (T, Vec<OpCost>) {
    let mut list: Vec<OpCost> = Vec::new();
    // SAFETY: takes no argument.
    let handle = unsafe { kf_count_begin() };
    let done = work();
    // SAFETY: the handle is of the call before, and the list outlives the call that fills it.
    unsafe { kf_count_end(handle, (&raw mut list).cast(), take_cost) };
    (done, list)
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
