//! A weight file's header and data, as safetensors. The header is what the fuzzer writes; data is as long as it says.
#![no_main]

use std::{fs::File, io::Write as _, os::fd::AsRawFd as _};

use keyframed_models::checkpoint::WeightFile;
use libfuzzer_sys::fuzz_target;
use rustix::fs::{MemfdFlags, memfd_create};

/// As from a file, since weights are read where they lie; in memory, since a disk would be most of the time.
fn read(bytes: &[u8]) -> keyframed_models::Result<WeightFile> {
    let mut file: File = memfd_create(c"weights", MemfdFlags::CLOEXEC).expect("memory").into();
    file.write_all(bytes).expect("memory");
    WeightFile::read(format!("/proc/self/fd/{}", file.as_raw_fd()).as_ref())
}

fuzz_target!(|input: &[u8]| {
    // As it is.
    let _ = read(input);
    // With the header's length in front, so that no byte is spent on finding it, and 64 bytes of data.
    let mut file = (input.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(input);
    file.extend_from_slice(&[0; 64]);
    if let Ok(read) = read(&file) {
        let elements: usize = read.tensors.values().map(tch::Tensor::numel).sum();
        assert!(elements <= 64, "{elements} elements of 64 bytes");
    }
});
