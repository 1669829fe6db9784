//! Checksums of files.

use crate::error::{ModelError, Result};
use sha2::{Digest as _, Sha256};
use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt as _,
    path::Path,
};

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
            0 => return Ok(hex(&hasher.finalize())),
            read => {
                hasher.update(&block[..read]);
                at += read as u64;
            }
        }
    }
}

/// The bytes of a small file, after comparing its SHA-256 with `expected`.
pub(super) fn bytes_checked(file: &Path, expected: &str) -> Result<Vec<u8>> {
    let bytes = fs::read(file).map_err(|source| ModelError::Io { file: file.to_owned(), source })?;
    let found = hex(&Sha256::digest(&bytes));
    if found.eq_ignore_ascii_case(expected) { Ok(bytes) } else { Err(another(file, &found, expected)) }
}

/// What to say of a file with another checksum than its manifest says.
pub(super) fn another(file: &Path, found: &str, expected: &str) -> ModelError {
    let reason = format!(
        "its sha256 is {found}, the model's manifest says {expected}: the file is damaged or another one; install \
         the model again"
    );
    ModelError::BadFile { file: file.to_owned(), reason }
}

fn hex(bytes: &[u8]) -> Digest {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
