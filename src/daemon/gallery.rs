//! Reference pictures that clients may choose: those in the gallery's folders, and the model's own. Nothing outside
//! these folders can be named, whatever links lie in them.

use std::{
    fs,
    path::{Component, Path, PathBuf},
};

use anyhow::{Context as _, bail};
use image::{DynamicImage, ImageDecoder as _, ImageReader, Limits, RgbImage};

use super::handle::Choice;

/// Endings of picture files.
const ENDINGS: [&str; 4] = ["png", "jpg", "jpeg", "webp"];
/// Smallest side of a picture that can show anything, in pixels.
const SMALLEST: u32 = 16;
/// Most memory that decoding a picture may take: 16384 × 16384 RGB.
const MOST_BYTES: u64 = 16384 * 16384 * 3;

/// Folders with pictures, in the order in which names are looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gallery {
    folders: Vec<PathBuf>,
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
        let avatars = keyframed_models::ModelDir::find(model).map(|model| model.dir().join("avatars"));
        let folders = configured.iter().cloned().chain(avatars.ok());
        // A folder that is not there now has no pictures; the configuration's check tells about it.
        Self { folders: folders.filter_map(|folder| folder.canonicalize().ok()).collect() }
    }

    /// All pictures by name; of those with the same name the first folder's.
    pub fn list(&self) -> Vec<Entry> {
        let mut all: Vec<Entry> = Vec::new();
        for folder in &self.folders {
            let files = fs::read_dir(folder).into_iter().flatten().flatten().map(|file| file.path());
            let mut here: Vec<_> = files.filter_map(|file| self.entry(&file)).collect();
            here.sort_by(|a, b| a.name.cmp(&b.name));
            here.retain(|entry| all.iter().all(|other| other.name != entry.name));
            here.dedup_by(|a, b| a.name == b.name);
            all.append(&mut here);
        }
        all
    }

    /// The file that a client means.
    ///
    /// # Errors
    /// One sentence. It does not tell whether a file outside the gallery exists.
    pub fn find(&self, choice: &Choice) -> anyhow::Result<PathBuf> {
        match choice {
            Choice::Name(name) => self.by_name(name),
            Choice::Path(path) => self.by_path(path),
        }
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
        // Relative paths are joined, absolute ones replace the folder.
        let mut candidates = self.folders.iter().map(|folder| folder.join(path));
        candidates.find_map(|file| self.inside(&file)).with_context(refused)
    }

    fn entry(&self, file: &Path) -> Option<Entry> {
        let ending = file.extension()?.to_str()?.to_ascii_lowercase();
        let name = file.file_stem()?.to_str()?;
        // Hidden files are half-written ones of other programs.
        let shown = ENDINGS.contains(&ending.as_str()) && !name.starts_with('.');
        let path = shown.then(|| self.inside(file))??;
        Some(Entry { name: name.to_owned(), path })
    }

    /// The regular file behind all links, if it lies in one of the folders.
    fn inside(&self, file: &Path) -> Option<PathBuf> {
        let real = file.canonicalize().ok()?;
        (real.is_file() && self.folders.iter().any(|folder| real.starts_with(folder))).then_some(real)
    }
}

/// Decodes a picture.
///
/// # Errors
/// One sentence that names the file and what is wrong with it.
pub fn read(path: &Path) -> anyhow::Result<RgbImage> {
    let shown = path.display();
    // Not a pipe or a device, which might block for ever.
    if !path.metadata().with_context(|| format!("{shown} cannot be read"))?.is_file() {
        bail!("{shown} is no file");
    }
    let picture = decode(path).with_context(|| format!("{shown} is no picture that can be read"))?;
    let (width, height) = (picture.width(), picture.height());
    if width.min(height) < SMALLEST {
        bail!("{shown} is too small: {width}x{height} pixels, at least {SMALLEST} a side are needed");
    }
    Ok(picture.into_rgb8())
}

fn decode(path: &Path) -> Result<DynamicImage, image::ImageError> {
    let mut reader = ImageReader::open(path)?.with_guessed_format()?;
    let mut limits = Limits::default();
    limits.max_alloc = Some(MOST_BYTES);
    reader.limits(limits);
    let mut decoder = reader.into_decoder()?;
    let orientation = decoder.orientation()?;
    let mut picture = DynamicImage::from_decoder(decoder)?;
    picture.apply_orientation(orientation);
    Ok(picture)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

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
        let gallery = Gallery { folders: vec![one.clone(), two] };

        let names: Vec<_> = gallery.list().into_iter().map(|entry| entry.name).collect();
        assert_eq!(names, ["anna", "robert", "bob"]);
        let name = |name: &str| gallery.find(&Choice::Name(name.into()));
        assert_eq!(name("anna").unwrap(), anna);
        assert_eq!(name("anna.png").unwrap(), anna);
        assert_eq!(name("robert").unwrap(), bob);
        for bad in ["link", "../outside/secret", "", "secret", "/", "."] {
            assert!(name(bad).unwrap_err().to_string().contains("reference.list"), "{bad}");
        }
        let path = |path: &str| gallery.find(&Choice::Path(path.into()));
        assert_eq!(path(anna.to_str().unwrap()).unwrap(), anna);
        assert_eq!(path("bob.webp").unwrap(), bob);
        let away = one.join("away/secret.png");
        let back = one.join("../outside/secret.png");
        for bad in [&secret, &away, &back, &one.join("link.png"), &one, &root.join("none.png")] {
            assert!(path(bad.to_str().unwrap()).is_err(), "{}", bad.display());
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
        assert!(format!("{:#}", read(dir.path()).unwrap_err()).contains("is no file"));
    }
}
