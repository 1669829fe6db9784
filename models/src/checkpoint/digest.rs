//! Checksums of files.

use crate::error::{ModelError, Result};
use sha2::{Digest as _, Sha256};
use std::{
    fs::{self, File},
    io::Read,
    path::Path,
};

/// SHA-256 as 64 lower-case hexadecimal digits.
pub type Digest = String;

/// SHA-256 of a file, read in blocks.
///
/// # Errors
/// [`ModelError::Io`].
pub fn sha256(file: &Path) -> Result<Digest> {
    let failed = |source| ModelError::Io { file: file.to_owned(), source };
    let mut reader = File::open(file).map_err(failed)?;
    let mut hasher = Sha256::new();
    let mut block = vec![0; 1 << 20];
    loop {
        match reader.read(&mut block).map_err(failed)? {
            0 => return Ok(hex(&hasher.finalize())),
            read => hasher.update(&block[..read]),
        }
    }
}

/// The bytes of a small file, after comparing its SHA-256 with `expected`.
pub(super) fn bytes_checked(file: &Path, expected: &str) -> Result<Vec<u8>> {
    let bytes = fs::read(file).map_err(|source| ModelError::Io { file: file.to_owned(), source })?;
    let found = sha256_of(&bytes);
    if found.eq_ignore_ascii_case(expected) {
        return Ok(bytes);
    }
    let reason = format!(
        "its sha256 is {found}, the model's manifest says {expected}: the file is damaged or another one; install \
         the model again"
    );
    Err(ModelError::BadFile { file: file.to_owned(), reason })
}

/// SHA-256 of bytes in memory.
pub(super) fn sha256_of(bytes: &[u8]) -> Digest {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> Digest {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
