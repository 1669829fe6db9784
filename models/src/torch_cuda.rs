//! CUDA beyond what tch wraps (see `torch_cuda.cc`): nothing here links against CUDA.

use crate::error::{ModelError, Result};
use std::{
    any::Any,
    ffi::{CStr, c_char, c_int, c_void},
    panic::{AssertUnwindSafe, catch_unwind},
    ptr::NonNull,
};
use tch::{Device, Kind, Tensor};

// SAFETY: as `torch_cuda.cc` defines them.
unsafe extern "C" {
    fn kf_cuda_has_bfloat16(device: c_int) -> c_int;
    fn kf_cuda_exact();
    fn kf_cuda_wait(device: c_int, error: *mut c_char, length: usize) -> c_int;
    fn kf_cuda_upload(
        bytes: *const u8,
        length: i64,
        device: c_int,
        error: *mut c_char,
        space: usize,
    ) -> *mut c_void;
    fn kf_cuda_memory(device: c_int, tensors: *mut i64, taken: *mut i64) -> c_int;
    fn kf_graph_available() -> c_int;
    fn kf_graph_new(device: c_int, error: *mut c_char, length: usize) -> *mut c_void;
    fn kf_graph_delete(graph: *mut c_void);
    fn kf_graph_enter(graph: *mut c_void, error: *mut c_char, length: usize) -> c_int;
    fn kf_graph_leave(graph: *mut c_void, error: *mut c_char, length: usize) -> c_int;
    fn kf_graph_begin(graph: *mut c_void, error: *mut c_char, length: usize) -> c_int;
    fn kf_graph_end(graph: *mut c_void, error: *mut c_char, length: usize) -> c_int;
    fn kf_graph_replay(graph: *mut c_void, error: *mut c_char, length: usize) -> c_int;
}

fn number(device: usize) -> c_int {
    c_int::try_from(device).unwrap_or(-1)
}

/// Whether a CUDA device computes in bfloat16: compute capability 8 or more. False without such a device.
pub fn has_bfloat16(device: usize) -> bool {
    // SAFETY: takes a number; whatever libtorch throws is caught there.
    unsafe { kf_cuda_has_bfloat16(number(device)) == 1 }
}

/// Lets convolutions in float32 on CUDA devices compute in float32, which cuDNN by default does not; for the whole
/// process.
pub fn exact() {
    // SAFETY: sets a flag of libtorch's.
    unsafe { kf_cuda_exact() }
}

/// Waits for what this thread has asked of a CUDA device.
///
/// # Errors
/// [`ModelError::Input`] with what the device says, which may be about earlier work.
pub fn wait(device: usize) -> Result<()> {
    // SAFETY: `call` hands over a buffer and its length.
    call(|error, length| unsafe { kf_cuda_wait(number(device), error, length) })
}

/// Bytes as a tensor on a CUDA device, through pinned memory and without waiting for the device.
///
/// # Errors
/// [`ModelError::Input`] with what the device says.
pub fn upload(bytes: &[u8], device: usize) -> Result<Tensor> {
    let mut error: [c_char; 512] = [0; 512];
    let length = i64::try_from(bytes.len()).unwrap_or(0);
    // SAFETY: `length` bytes are there; the result is a fresh `at::Tensor*` that `from_ptr` owns from here on.
    unsafe {
        let made = kf_cuda_upload(bytes.as_ptr(), length, number(device), error.as_mut_ptr(), error.len());
        if made.is_null() {
            return Err(ModelError::Input(format!("CUDA: {}", message(&error))));
        }
        Ok(Tensor::from_ptr(made.cast()))
    }
}

/// Bytes from a CUDA device, once they are there: libtorch pins the memory that such a copy goes to.
///
/// # Errors
/// [`ModelError::Input`] with what the device says, which may be about earlier work.
pub fn download(bytes: &Tensor, device: usize) -> Result<Tensor> {
    let copy = bytes.f_to_device_(Device::Cpu, Kind::Uint8, true, true)?;
    wait(device)?;
    Ok(copy)
}

/// Most bytes on a CUDA device so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Of tensors.
    pub tensors: u64,
    /// That the allocator took from the device for them.
    pub taken: u64,
}

/// Most memory in use on a CUDA device so far; `None` without such a device.
pub fn memory(device: usize) -> Option<Memory> {
    let (mut tensors, mut taken) = (0, 0);
    // SAFETY: both numbers outlive the call.
    let failed = unsafe { kf_cuda_memory(number(device), &raw mut tensors, &raw mut taken) } != 0;
    let bytes = |n: i64| u64::try_from(n).unwrap_or(0);
    (!failed).then(|| Memory { tensors: bytes(tensors), taken: bytes(taken) })
}

/// Whether the libtorch that was loaded offers CUDA graphs in the way known here.
pub fn has_graphs() -> bool {
    // SAFETY: looks names up, no more.
    unsafe { kf_graph_available() == 1 }
}

/// Runs one of the shim's calls and turns its message into an error.
fn call(run: impl FnOnce(*mut c_char, usize) -> c_int) -> Result<()> {
    let mut error: [c_char; 512] = [0; 512];
    if run(error.as_mut_ptr(), error.len()) == 0 {
        return Ok(());
    }
    Err(ModelError::Input(format!("CUDA: {}", message(&error))))
}

/// The first line of what a panic said.
fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no reason given");
    text.lines().next().unwrap_or_default().to_owned()
}

fn message(text: &[c_char]) -> String {
    // SAFETY: the buffer was zeroed and the shim writes at most its length, with the final zero.
    let text = unsafe { CStr::from_ptr(text.as_ptr()) }.to_string_lossy().into_owned();
    text.lines().next().unwrap_or("no reason given").to_owned()
}

/// Work on a CUDA device that was noted once and can be done again with one call. The memory that the work read
/// and wrote is what it reads and writes each time.
pub struct Graph {
    handle: NonNull<c_void>,
}

// SAFETY: a graph belongs to a device, not to a thread; `&mut self` keeps replays apart.
unsafe impl Send for Graph {}

impl Graph {
    /// Does `work` once, so that libtorch prepares what it needs, then notes it. What the second call returns holds
    /// the results of each [`Graph::replay`].
    ///
    /// # Errors
    /// Those of `work`, or [`ModelError::Input`] for work that cannot be noted, such as one that waits for the
    /// device or copies from ordinary memory to it.
    pub fn capture<T>(device: usize, mut work: impl FnMut() -> Result<T>) -> Result<(Self, T)> {
        // Most of tch's calls panic with what libtorch throws; the stream must be left in any case.
        let mut work = || match catch_unwind(AssertUnwindSafe(&mut work)) {
            Ok(done) => done,
            Err(panic) => {
                Err(ModelError::Input(format!("not possible in a CUDA graph: {}", said(panic.as_ref()))))
            }
        };
        let mut error: [c_char; 512] = [0; 512];
        // SAFETY: the buffer outlives the call.
        let handle = unsafe { kf_graph_new(number(device), error.as_mut_ptr(), error.len()) };
        let Some(handle) = NonNull::new(handle) else {
            return Err(ModelError::Input(format!("CUDA: {}", message(&error))));
        };
        let graph = Self { handle };
        let raw = graph.handle.as_ptr();
        // SAFETY: the handle is alive, and `call` hands over a buffer and its length.
        call(|error, length| unsafe { kf_graph_enter(raw, error, length) })?;
        let made = work().and_then(|_| {
            // SAFETY: as above.
            call(|error, length| unsafe { kf_graph_begin(raw, error, length) })?;
            let made = work();
            // Also after a failure: the stream must not stay in capture.
            // SAFETY: as above.
            let ended = call(|error, length| unsafe { kf_graph_end(raw, error, length) });
            made.and_then(|made| ended.map(|()| made))
        });
        // SAFETY: as above.
        let left = call(|error, length| unsafe { kf_graph_leave(raw, error, length) });
        let made = made?;
        left?;
        Ok((graph, made))
    }

    /// Does the noted work again.
    ///
    /// # Errors
    /// [`ModelError::Input`] with what the device says.
    pub fn replay(&mut self) -> Result<()> {
        // SAFETY: the handle is alive, the buffer and its length are `call`'s.
        call(|error, length| unsafe { kf_graph_replay(self.handle.as_ptr(), error, length) })
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: the handle came from `kf_graph_new` and is freed once.
        unsafe { kf_graph_delete(self.handle.as_ptr()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::cuda_devices;

    #[test]
    fn without_a_device_everything_says_so() {
        let none = cuda_devices();
        assert!(!has_bfloat16(none) && memory(none).is_none());
        assert!(wait(none).is_err() && upload(&[1, 2, 3], none).is_err());
        let mut runs = 0;
        let captured = Graph::capture(none, || {
            runs += 1;
            Ok(())
        });
        assert!(matches!(captured, Err(ModelError::Input(reason)) if reason.starts_with("CUDA: ")));
        assert_eq!(runs, 0);
    }

    /// With the CUDA build's folder in `LD_LIBRARY_PATH`, a device or not.
    #[test]
    fn graphs_are_known_where_the_cuda_part_is_loaded() {
        cuda_devices();
        let loaded = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
        assert_eq!(has_graphs(), loaded.contains("/libtorch_cuda.so"));
    }
}
