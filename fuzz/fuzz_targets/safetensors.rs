//! A weight file's header and data, as safetensors. The header is what the fuzzer writes; data is as long as it says.
#![no_main]

use std::{env, fs, process};

use keyframed_models::checkpoint::WeightFile;
use libfuzzer_sys::fuzz_target;

/// As from a file: weights are read where they lie.
fn read(bytes: &[u8]) -> keyframed_models::Result<WeightFile> {
    let file = env::temp_dir().join(format!("keyframed-fuzz-{}", process::id()));
    fs::write(&file, bytes).expect("a temporary file can be written");
    WeightFile::read(&file)
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
