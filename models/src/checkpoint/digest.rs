//! Checksums of files.

use crate::error::{ModelError, Result};
use sha2::{Digest as _, Sha256};
use std::{fs::File, io, os::unix::fs::FileExt as _, path::Path};

/// SHA-256 as 64 lower-case hexadecimal digits.
pub type Digest = String;

/// SHA-256 of a file, read in blocks.
///
/// # Errors
/// [`ModelError::Io`].
pub fn sha256(file: &Path) -> Result<Digest> {
    File::open(file)
        .and_then(|opened| sha256_of(&opened))
        .map_err(|source| ModelError::Io { file: file.to_owned(), source })
}

/// SHA-256 of an open file.
pub(super) fn sha256_of(file: &File) -> io::Result<Digest> {
    let mut hasher = Sha256::new();
    let mut block = vec![0; 1 << 20];
    let mut at = 0;
    loop {
        match file.read_at(&mut block, at)? {
            0 => return Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
            read => {
                hasher.update(&block[..read]);
                at += read as u64;
            }
        }
    }
}
