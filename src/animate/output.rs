//! Where the video goes: a hidden file beside the output that takes its name once it is whole.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};

/// A container, by the output's extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Container {
    /// GStreamer's multiplexer.
    pub muxer: &'static str,
}

impl Container {
    /// The container that the name of `path` asks for.
    ///
    /// # Errors
    /// For an extension that is not known.
    pub fn of(path: &Path) -> anyhow::Result<Self> {
        let extension =
            path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
        let muxer = match extension.as_str() {
            "mp4" | "m4v" => "mp4mux",
            "mov" => "qtmux",
            "mkv" => "matroskamux",
            _ => bail!("{}: the output's name must end in .mp4, .mov or .mkv", path.display()),
        };
        Ok(Self { muxer })
    }
}

/// An output under way. Dropped before [`keep`](Self::keep) it leaves nothing behind.
#[derive(Debug)]
pub struct Partial {
    path: PathBuf,
    target: PathBuf,
    kept: bool,
}

impl Partial {
    /// Opens a file beside `target`.
    ///
    /// # Errors
    /// Where `target` cannot be written.
    pub fn create(target: &Path) -> anyhow::Result<Self> {
        let shown = target.display();
        if target.exists() && !target.is_file() {
            bail!("{shown} is there and is no file");
        }
        let name = target.file_name().with_context(|| format!("{shown} names no file"))?;
        let hidden = format!(".{}.{}.part", name.to_string_lossy(), std::process::id());
        let path = target.with_file_name(hidden);
        fs::File::create(&path).with_context(|| format!("{shown} cannot be written"))?;
        Ok(Self { path, target: target.to_owned(), kept: false })
    }

    /// The file to write to.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the file its name; one of that name is replaced. Returns its size in bytes.
    ///
    /// # Errors
    /// If the file system refuses.
    pub fn keep(mut self) -> anyhow::Result<u64> {
        let shown = self.target.display();
        let bytes = fs::metadata(&self.path).with_context(|| format!("{shown} cannot be written"))?.len();
        fs::rename(&self.path, &self.target).with_context(|| format!("{shown} cannot be written"))?;
        self.kept = true;
        Ok(bytes)
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.kept {
            // Nothing can be done about a failure, and the reason for giving up is told elsewhere.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Refuses an output that would overwrite an input or has no folder to lie in.
///
/// # Errors
/// One sentence that names both.
pub fn check_target(target: &Path, inputs: &[&Path]) -> anyhow::Result<()> {
    let folder = target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.is_dir() {
        bail!("{} cannot be written: there is no folder {}", target.display(), folder.display());
    }
    if let Ok(existing) = target.canonicalize()
        && inputs.iter().any(|input| input.canonicalize().is_ok_and(|input| input == existing))
    {
        bail!("{} is an input: it would be overwritten", target.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partial_file_is_kept_or_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("a.mp4");
        fs::write(&target, "old").unwrap();
        drop(Partial::create(&target).unwrap());
        assert_eq!(fs::read(&target).unwrap(), b"old");
        let partial = Partial::create(&target).unwrap();
        fs::write(partial.path(), "newer").unwrap();
        assert_eq!(partial.keep().unwrap(), 5);
        assert_eq!(fs::read(&target).unwrap(), b"newer");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn inputs_are_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let input = dir.path().join("in.mp4");
        fs::write(&input, "x").unwrap();
        assert!(check_target(&dir.path().join("./in.mp4"), &[&input]).is_err());
        assert!(check_target(&dir.path().join("out.mp4"), &[&input]).is_ok());
        assert!(check_target(&dir.path().join("none/out.mp4"), &[&input]).is_err());
    }
}
