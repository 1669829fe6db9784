//! Checksums of files.

use crate::error::{ModelError, Result};
use sha2::{Digest as _, Sha256};
use std::{fs::File, io::Read, path::Path};

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

/// SHA-256 of bytes in memory.
pub(super) fn sha256_of(bytes: &[u8]) -> Digest {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> Digest {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
