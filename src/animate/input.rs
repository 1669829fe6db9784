//! Looks at what the user gave before anything expensive starts.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use gst_pbutils::{Discoverer, DiscovererInfo, DiscovererResult};
use keyframed_engine::{Nanos, Rate};
use keyframed_models::ModelDir;

/// How long a container may take to show what it holds.
const PATIENCE: gst::ClockTime = gst::ClockTime::from_seconds(30);

/// What a driving clip says about itself.
#[derive(Debug, Clone)]
pub struct Clip {
    /// Where it lies, absolute.
    pub path: PathBuf,
    /// Columns of its pixels.
    pub width: u32,
    /// Rows of its pixels.
    pub height: u32,
    /// Frames a second, if the container says.
    pub rate: Option<Rate>,
    /// Length that the container promises.
    pub duration: Option<Nanos>,
}

impl Clip {
    /// Reads the headers of the clip at `path` and decodes its first frame.
    ///
    /// # Errors
    /// One sentence that names the file and what is wrong with it.
    pub fn probe(path: &Path) -> anyhow::Result<Self> {
        let path = regular_file(path).context("the driving clip cannot be read")?;
        let uri = gst::glib::filename_to_uri(&path, None).context("the driving clip's path")?;
        let discoverer = Discoverer::new(PATIENCE).context("GStreamer's discoverer is missing")?;
        let shown = path.display().to_string();
        let info = match discoverer.discover_uri(&uri) {
            Ok(info) => info,
            Err(error) => bail!("{shown} is no video that can be read ({})", one_line(error.message())),
        };
        Self::from_info(path, &info)
    }

    fn from_info(path: PathBuf, info: &DiscovererInfo) -> anyhow::Result<Self> {
        let shown = path.display();
        let streams = info.video_streams();
        let video = streams.iter().find(|stream| !stream.is_image()).or(streams.first());
        match (info.result(), video) {
            (DiscovererResult::MissingPlugins, None) => bail!(
                "{shown} needs a decoder that is not installed ({}); on Debian and Ubuntu, \
                 `apt-get install gstreamer1.0-libav` covers most",
                missing_plugins(info)
            ),
            (DiscovererResult::Timeout, _) => bail!("{shown} did not show a frame within {PATIENCE}"),
            (_, None) => bail!("{shown} holds no video"),
            _ => {}
        }
        let video = video.with_context(|| format!("{shown} holds no video"))?;
        let fps = video.framerate();
        let rate = u32::try_from(fps.numer()).ok().zip(u32::try_from(fps.denom()).ok());
        Ok(Self {
            width: video.width(),
            height: video.height(),
            rate: rate.and_then(|(num, den)| Rate::new(num, den).ok()),
            duration: info.duration().map(gst::ClockTime::nseconds).filter(|&d| d > 0),
            path,
        })
    }
}

/// Names of the missing plugins as GStreamer describes them.
fn missing_plugins(info: &DiscovererInfo) -> String {
    let details = info.missing_elements_installer_details();
    let names = details.iter().filter_map(|detail| detail.split('|').nth(3).map(str::to_owned));
    let names: Vec<_> = names.collect();
    if names.is_empty() { "unknown format".into() } else { names.join(", ") }
}

/// The absolute path of a file with something in it.
fn regular_file(path: &Path) -> anyhow::Result<PathBuf> {
    let shown = path.display();
    let found = path.canonicalize().with_context(|| format!("{shown}"))?;
    let metadata = fs::metadata(&found).with_context(|| format!("{shown}"))?;
    if metadata.is_dir() {
        bail!("{shown} is a folder");
    }
    if metadata.is_file() && metadata.len() == 0 {
        bail!("{shown} is empty (0 bytes)");
    }
    // Opening says more than permission bits do.
    fs::File::open(&found).with_context(|| format!("{shown}"))?;
    Ok(found)
}

/// GStreamer's messages may hold line breaks.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").trim_end_matches('.').to_owned()
}

/// Smallest side of a reference picture that can show anything, in pixels.
const SMALLEST_REFERENCE: u32 = 16;

/// The path of a reference picture: a file, or an avatar of the model by its name. It is decoded once, so that a
/// bad one is told before the model is loaded.
///
/// # Errors
/// One sentence that names the file and what is wrong with it.
pub fn find_reference(reference: &Path, model: &ModelDir) -> anyhow::Result<PathBuf> {
    let avatar = model.dir().join("avatars").join(reference).with_extension("png");
    let named = reference.components().count() == 1 && !reference.exists() && avatar.is_file();
    let path = if named { avatar } else { reference.to_owned() };
    if reference.components().count() == 1 && reference.extension().is_none() && !path.exists() {
        let names = avatars(model).join(", ");
        bail!("there is no picture and no avatar {} (the model has {names})", reference.display());
    }
    let path = regular_file(&path).context("the reference picture cannot be read")?;
    let shown = path.display();
    let picture = image::ImageReader::open(&path)
        .with_context(|| format!("{shown}"))?
        .with_guessed_format()
        .with_context(|| format!("{shown}"))?
        .decode()
        .with_context(|| format!("{shown} is no picture that can be read"))?;
    let (width, height) = (picture.width(), picture.height());
    if width.min(height) < SMALLEST_REFERENCE {
        bail!(
            "{shown} is too small to animate: {width}x{height} pixels, at least {SMALLEST_REFERENCE} a side are needed"
        );
    }
    Ok(path)
}

/// Names of a model's reference pictures, sorted.
pub fn avatars(model: &ModelDir) -> Vec<String> {
    let entries = fs::read_dir(model.dir().join("avatars")).into_iter().flatten().flatten();
    let pictures =
        entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "png"));
    let mut names: Vec<_> =
        pictures.filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned())).collect();
    names.sort();
    names
}
