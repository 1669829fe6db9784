//! Where pictures are found that are called by a name.

use std::path::{Component, Path, PathBuf};

/// What pictures' files end in.
pub const EXTENSIONS: [&str; 4] = ["png", "jpg", "jpeg", "webp"];

/// The picture called `name` in the gallery's folders, in their order, or among the model's avatars. The name is that
/// of the file, with or without its ending; it cannot lead out of the folders.
pub fn find(name: &str, gallery: &[PathBuf], avatars: &Path) -> Option<PathBuf> {
    let mut parts = Path::new(name).components();
    let (Some(Component::Normal(_)), None) = (parts.next(), parts.next()) else { return None };
    let folders = gallery.iter().map(PathBuf::as_path).chain([avatars]);
    folders.flat_map(|folder| candidates(folder, name)).find(|path| path.is_file())
}

fn candidates(folder: &Path, name: &str) -> impl Iterator<Item = PathBuf> {
    let whole = folder.join(name);
    let is_picture =
        whole.extension().is_some_and(|own| EXTENSIONS.iter().any(|known| own.eq_ignore_ascii_case(known)));
    let folder = folder.to_owned();
    let name = name.to_owned();
    let completed = EXTENSIONS.iter().map(move |extension| folder.join(format!("{name}.{extension}")));
    is_picture.then_some(whole).into_iter().chain(completed)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_gallery_comes_before_the_avatars() {
        let root = tempfile::tempdir().unwrap();
        let place = |name: &str| root.path().join(name);
        for file in
            ["a/x.png", "b/x.jpg", "b/y.webp", "avatars/x.png", "avatars/z.png", "a/w.txt", "a/d.png/q"]
        {
            fs::create_dir_all(place(file).parent().unwrap()).unwrap();
            fs::write(place(file), []).unwrap();
        }
        let find = |name: &str| find(name, &[place("a"), place("b")], &place("avatars"));
        assert_eq!(find("x"), Some(place("a/x.png")));
        assert_eq!(find("x.jpg"), Some(place("b/x.jpg")));
        assert_eq!(find("y"), Some(place("b/y.webp")));
        assert_eq!(find("z"), Some(place("avatars/z.png")));
        for none in ["w", "w.txt", "d", "d.png", "../a/x", "a/x", "/etc/passwd", "", ".", ".."] {
            assert_eq!(find(none), None, "{none}");
        }
    }
}
