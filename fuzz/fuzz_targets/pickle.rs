//! PyTorch's files. The pickle is what the fuzzer writes, in an archive with three storages; or it writes the archive.
#![no_main]

use std::{
    env, fs,
    io::{Cursor, Write as _},
    process,
};

use keyframed_models::checkpoint::WeightFile;
use libfuzzer_sys::fuzz_target;
use zip::{CompressionMethod, ZipWriter, write::FileOptions};

/// Sizes of the storages `0`, `1` and `2`, bytes.
const STORAGES: [usize; 3] = [96, 24, 0];

fn archive(pickle: &[u8]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let stored = FileOptions::default().compression_method(CompressionMethod::Stored);
    let mut put = |name: &str, bytes: &[u8]| {
        zip.start_file(name, stored).expect("written to memory");
        zip.write_all(bytes).expect("written to memory");
    };
    put("a/data.pkl", pickle);
    for (number, size) in STORAGES.iter().enumerate() {
        put(&format!("a/data/{number}"), &vec![0; *size]);
    }
    zip.finish().expect("written to memory").into_inner()
}

/// As from a file: weights are read where they lie.
fn read(bytes: &[u8]) -> keyframed_models::Result<WeightFile> {
    let file = env::temp_dir().join(format!("keyframed-fuzz-{}", process::id()));
    fs::write(&file, bytes).expect("a temporary file can be written");
    WeightFile::read(&file)
}

fuzz_target!(|input: &[u8]| {
    if input.starts_with(b"PK") {
        let _ = read(input);
        return;
    }
    let bytes = archive(input);
    if let Ok(read) = read(&bytes) {
        let room: usize = read.tensors.values().map(|t| t.numel() * t.kind().elt_size_in_bytes()).sum();
        assert!(room <= 4 * bytes.len(), "{room} bytes of a file of {}", bytes.len());
    }
});
