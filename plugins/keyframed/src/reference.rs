//! Reference pictures: from a file or from those that come with a model.
use std::{
    fs,
    path::{Path, PathBuf},
};

use image::DynamicImage;
use keyframed_engine::Frame;

use crate::picture;

/// The file that `reference` means: a path, or the name of a picture in `avatars`, or, if nothing was said, the
/// first of those by name.
///
/// # Errors
/// One line that names what was looked for and where.
pub fn find(reference: Option<&str>, avatars: &Path) -> Result<PathBuf, String> {
    let Some(name) = reference.filter(|name| !name.is_empty()) else {
        return first(avatars).ok_or_else(|| {
            let avatars = avatars.display();
            format!("No reference picture is set, and the model has none of its own in {avatars}")
        });
    };
    let path = PathBuf::from(name);
    if path.components().count() > 1 || path.exists() {
        return Ok(path);
    }
    let avatar = avatars.join(name).with_extension("png");
    if avatar.is_file() { Ok(avatar) } else { Ok(path) }
}

fn first(avatars: &Path) -> Option<PathBuf> {
    let files = fs::read_dir(avatars).ok()?.flatten().map(|entry| entry.path());
    files.filter(|path| path.extension().is_some_and(|e| e == "png")).min()
}

/// Decodes a picture, upright, on white where it is transparent.
///
/// # Errors
/// One line that names the file.
pub fn load(path: &Path) -> Result<Frame, String> {
    let shown = path.display();
    let decoded = picture::open(path).map_err(Into::into).and_then(picture::decode);
    let image = decoded.map_err(|err| format!("The reference picture {shown} cannot be read: {err}"))?;
    let (width, height) = (image.width(), image.height());
    Frame::new(width, height, on_white(image))
        .map_err(|err| format!("The reference picture {shown} cannot be used: {err}"))
}

fn on_white(image: DynamicImage) -> Vec<u8> {
    if !image.color().has_alpha() {
        return image.into_rgb8().into_raw();
    }
    let blend = |level: u8, alpha: u8| {
        let (level, alpha) = (u16::from(level), u16::from(alpha));
        ((level * alpha + 255 * (255 - alpha) + 127) / 255) as u8
    };
    image.into_rgba8().pixels().flat_map(|p| [0, 1, 2].map(|c| blend(p[c], p[3]))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_paths_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let avatars = dir.path();
        assert!(find(None, avatars).unwrap_err().contains("No reference picture"));
        for name in ["b.png", "a.png", "c.txt"] {
            fs::write(avatars.join(name), []).unwrap();
        }
        assert_eq!(find(None, avatars), Ok(avatars.join("a.png")));
        assert_eq!(find(Some("b"), avatars), Ok(avatars.join("b.png")));
        assert_eq!(find(Some("/x/b"), avatars), Ok("/x/b".into()));
        assert_eq!(find(Some("none"), avatars), Ok("none".into()));
    }

    #[test]
    fn transparency_becomes_white() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.png");
        let pixels = vec![10, 20, 30, 255, 10, 20, 30, 0];
        image::RgbaImage::from_raw(2, 1, pixels).unwrap().save(&path).unwrap();
        assert_eq!(load(&path).unwrap().data(), [10, 20, 30, 255, 255, 255]);
    }

    #[test]
    fn bad_files_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("broken.png");
        assert!(load(&path).unwrap_err().contains("broken.png"));
        fs::write(&path, b"\x89PNG\r\n\x1a\nno more").unwrap();
        assert!(load(&path).unwrap_err().contains("broken.png"));
        fs::write(&path, b"text").unwrap();
        assert!(load(&path).unwrap_err().contains("broken.png"));
        assert!(load(dir.path()).is_err());
    }
}
