//! Reference pictures that clients may choose: those in the gallery's folders, and the model's own. Nothing outside
//! these folders can be named, whatever links lie in them.

use std::{
    fs::{self, File},
    io,
    path::{Component, Path, PathBuf},
};

use anyhow::{Context as _, bail};
use gstkeyframed::picture;
use image::RgbImage;
use rustix::{
    fs::{CWD, Mode, OFlags, ResolveFlags},
    io::Errno,
};

use super::handle::Choice;

/// Endings of picture files.
const ENDINGS: [&str; 4] = ["png", "jpg", "jpeg", "webp"];
/// Smallest side of a picture that can show anything, in pixels.
const SMALLEST: u32 = 16;

/// Folders with pictures, in the order in which names are looked up. What is in them is read at each question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gallery {
    configured: Vec<PathBuf>,
    model: String,
}

/// A picture in the gallery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// File name without its ending.
    pub name: String,
    /// The file, with all links followed.
    pub path: PathBuf,
}

impl Gallery {
    /// The configured folders, then the model's own pictures.
    pub fn new(configured: &[PathBuf], model: &str) -> Self {
        Self { configured: configured.to_vec(), model: model.to_owned() }
    }

    /// The folders that are there now.
    fn folders(&self) -> Vec<PathBuf> {
        let avatars = keyframed_models::ModelDir::find(&self.model).map(|model| model.dir().join("avatars"));
        let all = self.configured.iter().cloned().chain(avatars.ok());
        // One that is not there has no pictures; the configuration's check tells about it.
        all.filter_map(|folder| folder.canonicalize().ok()).collect()
    }

    /// The picture that the model shows if nothing else was said.
    pub fn models_own(&self) -> Option<PathBuf> {
        let own = Self::new(&[], &self.model).list();
        own.into_iter().map(|entry| entry.path).find(|path| path.extension().is_some_and(|end| end == "png"))
    }

    /// All pictures by name; of those with the same name the first folder's.
    pub fn list(&self) -> Vec<Entry> {
        let folders = self.folders();
        let mut all: Vec<Entry> = Vec::new();
        for folder in &folders {
            let files = fs::read_dir(folder).into_iter().flatten().flatten().map(|file| file.path());
            let mut here: Vec<_> = files.filter_map(|file| entry(&folders, &file)).collect();
            here.sort_by(|a, b| a.name.cmp(&b.name));
            here.retain(|entry| all.iter().all(|other| other.name != entry.name));
            here.dedup_by(|a, b| a.name == b.name);
            all.append(&mut here);
        }
        all
    }

    /// The file that a client means, and its name with all links followed.
    ///
    /// # Errors
    /// One sentence. It does not tell whether a file outside the gallery exists.
    pub fn open(&self, choice: &Choice) -> anyhow::Result<(File, PathBuf)> {
        let path = match choice {
            Choice::Name(name) => self.by_name(name),
            Choice::Path(path) => self.by_path(path),
        }?;
        let folders = self.folders();
        let folder = folders.iter().find(|folder| path.starts_with(folder));
        let file = folder.context("its folder has gone").and_then(|folder| Ok(open_inside(folder, &path)?));
        let file = file.with_context(|| format!("{} cannot be opened", path.display()))?;
        Ok((file, path))
    }

    fn by_name(&self, name: &str) -> anyhow::Result<PathBuf> {
        let all = self.list();
        let stem = ENDINGS.iter().find_map(|ending| name.strip_suffix(ending)?.strip_suffix('.'));
        let found = all.iter().find(|entry| entry.name == name || Some(entry.name.as_str()) == stem);
        found.map(|entry| entry.path.clone()).with_context(|| {
            format!("there is no picture {name:?} in the gallery; reference.list shows those there are")
        })
    }

    fn by_path(&self, path: &Path) -> anyhow::Result<PathBuf> {
        let refused = || format!("{} is no picture in the gallery's folders", path.display());
        if path.components().any(|part| part == Component::ParentDir) {
            bail!("{}: paths with .. are refused", path.display());
        }
        let folders = self.folders();
        // Relative paths are joined, absolute ones replace the folder.
        let mut candidates = folders.iter().map(|folder| folder.join(path));
        candidates.find_map(|file| inside(&folders, &file)).with_context(refused)
    }
}

fn entry(folders: &[PathBuf], file: &Path) -> Option<Entry> {
    let ending = file.extension()?.to_str()?.to_ascii_lowercase();
    let name = file.file_stem()?.to_str()?;
    // Hidden files are half-written ones of other programs.
    let shown = ENDINGS.contains(&ending.as_str()) && !name.starts_with('.');
    let path = shown.then(|| inside(folders, file))??;
    Some(Entry { name: name.to_owned(), path })
}

/// The regular file behind all links, if it lies in one of the folders.
fn inside(folders: &[PathBuf], file: &Path) -> Option<PathBuf> {
    let real = file.canonicalize().ok()?;
    (real.is_file() && folders.iter().any(|folder| real.starts_with(folder))).then_some(real)
}

/// Opens the file `path` in `folder`. Both are free of links, so a link in between was put there after the path was
/// looked up: it is not followed.
fn open_inside(folder: &Path, path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let dir =
        rustix::fs::openat(CWD, folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let within = path.strip_prefix(folder).unwrap_or(path);
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match rustix::fs::openat2(&dir, within, flags, Mode::empty(), resolve) {
        Ok(file) => picture::regular(file.into()),
        // An old kernel, or a sandbox that does not know the call.
        Err(Errno::NOSYS | Errno::PERM) => {
            let file = rustix::fs::openat(&dir, within, flags | OFlags::NOFOLLOW, Mode::empty())?;
            let file = picture::regular(file.into())?;
            if fs::read_link(link_to(&file))? != path {
                return Err(Errno::LOOP.into());
            }
            Ok(file)
        }
        Err(error) => Err(error.into()),
    }
}

/// Opens a picture that a client has chosen before, by its name without links: one that is there now was put there since,
/// and may lead out of the gallery.
///
/// # Errors
/// One sentence that names the file.
pub fn open_again(path: &Path) -> anyhow::Result<File> {
    open_inside(Path::new("/"), path).with_context(|| format!("{} cannot be opened", path.display()))
}

/// A name of the very file that is open, wherever it lies by now; of this process only.
pub fn link_to(file: &File) -> PathBuf {
    use std::os::fd::AsRawFd as _;
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}

/// Decodes a picture.
///
/// # Errors
/// One sentence that names the file and what is wrong with it.
pub fn read(path: &Path) -> anyhow::Result<RgbImage> {
    decode(picture::open(path).with_context(|| format!("{} cannot be read", path.display()))?, path)
}

/// Decodes the picture in an open file whose name is `path`.
///
/// # Errors
/// One sentence that names the file and what is wrong with it.
pub fn decode(file: File, path: &Path) -> anyhow::Result<RgbImage> {
    let shown = path.display();
    let picture = picture::decode(file).with_context(|| format!("{shown} is no picture that can be read"))?;
    let (width, height) = (picture.width(), picture.height());
    if width.min(height) < SMALLEST {
        bail!("{shown} is too small: {width}x{height} pixels, at least {SMALLEST} a side are needed");
    }
    Ok(picture.into_rgb8())
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::symlink, process::Command};

    use super::*;

    fn picture(path: &Path) -> PathBuf {
        RgbImage::new(20, 20).save(path).unwrap();
        path.to_owned()
    }

    #[test]
    fn only_what_lies_inside_can_be_named() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let folder = |name: &str| {
            let path = root.join(name);
            fs::create_dir(&path).unwrap();
            path
        };
        let (one, two, outside) = (folder("one"), folder("two"), folder("outside"));
        let anna = picture(&one.join("anna.png"));
        picture(&two.join("anna.jpg"));
        let bob = picture(&two.join("bob.webp"));
        picture(&two.join(".hidden.png"));
        fs::write(two.join("notes.txt"), "no picture").unwrap();
        let secret = picture(&outside.join("secret.png"));
        symlink(&secret, one.join("link.png")).unwrap();
        symlink(&outside, one.join("away")).unwrap();
        symlink(&bob, one.join("robert.webp")).unwrap();
        let gallery = Gallery::new(&[one.clone(), two.clone()], "");

        let names: Vec<_> = gallery.list().into_iter().map(|entry| entry.name).collect();
        assert_eq!(names, ["anna", "robert", "bob"]);
        let name = |name: &str| gallery.open(&Choice::Name(name.into())).map(|(_, path)| path);
        assert_eq!(name("anna").unwrap(), anna);
        assert_eq!(name("anna.png").unwrap(), anna);
        assert_eq!(name("robert").unwrap(), bob);
        for bad in ["link", "../outside/secret", "", "secret", "/", "."] {
            assert!(name(bad).unwrap_err().to_string().contains("reference.list"), "{bad}");
        }
        let path = |path: &str| gallery.open(&Choice::Path(path.into())).map(|(_, path)| path);
        assert_eq!(path(anna.to_str().unwrap()).unwrap(), anna);
        assert_eq!(path("bob.webp").unwrap(), bob);
        let away = one.join("away/secret.png");
        let back = one.join("../outside/secret.png");
        for bad in [&secret, &away, &back, &one.join("link.png"), &one, &root.join("none.png")] {
            assert!(path(bad.to_str().unwrap()).is_err(), "{}", bad.display());
        }
        // Put there after the path was looked up.
        fs::create_dir(two.join("deep")).unwrap();
        picture(&two.join("deep/x.png"));
        assert!(
            open_inside(&two, &two.join("deep/x.png")).is_ok() && open_again(&two.join("deep/x.png")).is_ok()
        );
        symlink(&outside, two.join("swapped")).unwrap();
        symlink(&secret, two.join("swapped.png")).unwrap();
        for swapped in ["swapped/secret.png", "swapped.png", "deep"] {
            assert!(open_inside(&two, &two.join(swapped)).is_err(), "{swapped}");
            assert!(open_again(&two.join(swapped)).is_err(), "{swapped}");
        }
        // What was opened stays what it was.
        let (file, _) = gallery.open(&Choice::Name("bob".into())).unwrap();
        fs::remove_file(&bob).unwrap();
        symlink(&secret, &bob).unwrap();
        RgbImage::new(90, 90).save(&secret).unwrap();
        assert_eq!(read(&link_to(&file)).unwrap().width(), 20);
        assert_eq!(decode(file, &bob).unwrap().width(), 20);
    }

    /// The ways into other folders that the kernel offers to every process, and what is no file.
    #[test]
    fn nothing_in_proc_and_no_device_or_pipe_can_be_named() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let (folder, secret) = (root.join("gallery"), root.join("secret.png"));
        fs::create_dir(&folder).unwrap();
        let anna = picture(&folder.join("anna.png"));
        let opened = File::open(picture(&secret)).unwrap();
        let gallery = Gallery::new(std::slice::from_ref(&folder), "");
        let open = |path: &Path| gallery.open(&Choice::Path(path.into()));
        assert!(open(&anna).is_ok());
        let through_root = Path::new("/proc/self/root").join(secret.strip_prefix("/").unwrap());
        assert!(through_root.is_file() && link_to(&opened).is_file());
        for bad in [&through_root, &link_to(&opened), Path::new("/proc/self/environ"), Path::new("/dev/zero")]
        {
            assert!(open(bad).is_err(), "{}", bad.display());
        }
        // The same behind links that lie in the gallery, where only their names are asked for.
        symlink(&through_root, folder.join("root.png")).unwrap();
        symlink(link_to(&opened), folder.join("descriptor.png")).unwrap();
        symlink("/proc/self/fd", folder.join("fd")).unwrap();
        symlink("/dev/zero", folder.join("zero.png")).unwrap();
        symlink("loop.png", folder.join("loop.png")).unwrap();
        assert!(Command::new("mkfifo").arg(folder.join("pipe.png")).status().unwrap().success());
        let names: Vec<_> = gallery.list().into_iter().map(|entry| entry.name).collect();
        assert_eq!(names, ["anna"]);
        let number = link_to(&opened).file_name().unwrap().to_owned();
        let all =
            ["root.png", "descriptor.png", "zero.png", "loop.png", "pipe.png"].map(|name| folder.join(name));
        for bad in all.iter().chain([&folder.join("fd").join(number)]) {
            assert!(open(bad).is_err(), "{}", bad.display());
            assert!(open_inside(&folder, bad).is_err(), "{}", bad.display());
        }
        // Names that are none, and a folder whose name begins as the gallery's.
        fs::create_dir(root.join("gallery-2")).unwrap();
        let beside = picture(&root.join("gallery-2/anna.png"));
        for bad in
            [beside.as_path(), Path::new("anna.png\0.png"), Path::new(&"a".repeat(5000)), Path::new("")]
        {
            assert!(open(bad).is_err(), "{}", bad.display());
        }
    }

    #[test]
    fn bad_pictures_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("bad.png");
        let why = || format!("{:#}", read(&file).unwrap_err());
        assert!(why().contains("bad.png"));
        fs::write(&file, b"text").unwrap();
        assert!(why().contains("bad.png is no picture"));
        RgbImage::new(15, 90).save(&file).unwrap();
        assert!(why().contains("too small"));
        assert!(format!("{:#}", read(dir.path()).unwrap_err()).contains("it is no file"));
    }
}
