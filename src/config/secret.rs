//! Secrets come from files that others cannot read, never from the configuration itself.

use std::{
    fs,
    io::{ErrorKind, Read as _},
    os::unix::fs::MetadataExt as _,
    path::Path,
};

/// Longest secret file, bytes.
const LONGEST: u64 = 4096;
/// Files that root makes are root's: the service could not read them.
const FOR_THE_SERVICE: &str = "for the system service: owner root, group keyframed, mode 0640";

/// Reads a secret: the file's text without the line break at its end.
///
/// # Errors
/// One sentence that names the file, never what is in it.
pub fn read(path: &Path) -> Result<String, String> {
    let shown = path.display();
    let cannot = |error: std::io::Error| match error.kind() {
        ErrorKind::PermissionDenied => {
            format!("{shown} cannot be read as user {}: {error}; {FOR_THE_SERVICE}", user())
        }
        _ => format!("{shown} cannot be read: {error}"),
    };
    let metadata = fs::metadata(path).map_err(cannot)?;
    if !metadata.is_file() {
        return Err(format!("{shown} is not a file"));
    }
    let mode = metadata.mode() & 0o777;
    if mode & 0o007 != 0 {
        return Err(format!(
            "{shown} is open to every user (mode {mode:04o}): run chmod o= {shown}; {FOR_THE_SERVICE}"
        ));
    }
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(cannot)?;
    file.take(LONGEST + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > LONGEST {
        return Err(format!("{shown} is too long for a secret (more than {LONGEST} bytes)"));
    }
    let text = String::from_utf8(bytes).map_err(|_| format!("{shown} is not text"))?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    match text {
        "" => Err(format!("{shown} is empty")),
        text if text.contains(char::is_control) => Err(format!("{shown} holds more than one line of text")),
        text => Ok(text.to_owned()),
    }
}

/// Number of the user who reads.
fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn only_private_files_with_one_line_are_secrets() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let with = |bytes: &[u8], mode| {
            fs::write(&path, bytes).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            read(&path)
        };
        assert_eq!(with(b"word\n", 0o600).as_deref(), Ok("word"));
        assert_eq!(with(b"two words\r\n", 0o640).as_deref(), Ok("two words"));
        assert!(with(b"word", 0o644).is_err_and(|e| e.contains("mode 0644") && !e.contains("word")));
        assert!(with(b"\n", 0o600).is_err_and(|e| e.contains("empty")));
        assert!(with(b"a\nb\n", 0o600).is_err_and(|e| e.contains("more than one line")));
        assert!(with(b"\xff\xfe", 0o600).is_err_and(|e| e.contains("not text")));
        assert!(with(&[b'a'; 5000], 0o600).is_err_and(|e| e.contains("too long")));
        assert!(read(dir.path()).is_err_and(|e| e.contains("not a file")));
        assert!(read(&dir.path().join("none")).is_err_and(|e| e.contains("none")));
    }
}
