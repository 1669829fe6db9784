//! A weight file's header and data, as safetensors. The header is what the fuzzer writes; data is as long as it says.
#![no_main]

use std::path::Path;

use keyframed_models::checkpoint::WeightFile;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    // As it is.
    let _ = WeightFile::from_bytes(Path::new("fuzz.safetensors"), input);
    // With the header's length in front, so that no byte is spent on finding it, and 64 bytes of data.
    let mut file = (input.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(input);
    file.extend_from_slice(&[0; 64]);
    if let Ok(read) = WeightFile::from_bytes(Path::new("fuzz.safetensors"), &file) {
        let elements: usize = read.tensors.values().map(tch::Tensor::numel).sum();
        assert!(elements <= 64, "{elements} elements of 64 bytes");
    }
});
