//! From the file's form to the resolved one: fills in defaults, completes paths, looks up what names point at.

mod animation;
mod control;
mod outputs;
mod sources;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use keyframed_engine::Rate;

use super::{
    file::File,
    kinds::get,
    places::Environment,
    problems::Problems,
    resolved::{Config, Log, LogTarget, Pipeline, Secret, Slate, Video},
    secret,
    table::{At, Place},
};

/// Side of the picture that all outputs share, unless the file says.
const SIDE: u32 = 512;
/// How long the last frame is shown before the slate, unless the file says.
const SLATE_AFTER: Duration = Duration::from_secs(3);

/// What resolving needs to know beside the file, and where it tells what is wrong.
pub struct Context<'a> {
    /// The file's folder: where relative paths begin.
    pub folder: &'a Path,
    /// Home folder and the like.
    pub environment: &'a Environment,
    /// What was found wrong so far.
    pub problems: &'a mut Problems,
}

impl Context<'_> {
    /// A path completed; `None` if it is not set or cannot be.
    pub fn path(&mut self, path: &Option<At<PathBuf>>) -> Option<PathBuf> {
        let path = path.as_ref()?;
        match self.environment.complete(&path.value, self.folder) {
            Ok(path) => Some(path),
            Err(reason) => {
                self.problems.add(path.line, reason);
                None
            }
        }
    }

    /// A URL whose scheme begins with `scheme`.
    pub fn url(&mut self, url: &Option<At<String>>, scheme: &str) -> Option<String> {
        let url = url.as_ref()?;
        if url.value.starts_with(scheme) {
            return Some(url.value.clone());
        }
        self.problems.add(url.line, format!("url: expected {scheme}://… or {scheme}s://… for this kind"));
        None
    }

    /// A secret's text.
    fn secret(&mut self, file: &Option<At<PathBuf>>, place: &Place, key: &str) -> Option<String> {
        let path = self.path(file)?;
        let line = file.as_ref().map(|at| at.line);
        match secret::read(&path) {
            Ok(text) => Some(text),
            Err(reason) => {
                self.problems.add(line, format!("{}: {reason}", place.of(key)));
                None
            }
        }
    }

    /// The passphrase of an SRT stream; SRT itself sets its length.
    pub fn passphrase(&mut self, file: &Option<At<PathBuf>>, place: &Place) -> Option<Secret> {
        let text = self.secret(file, place, "passphrase_file")?;
        if !(10..=79).contains(&text.len()) {
            let line = file.as_ref().map(|at| at.line);
            let found = text.len();
            let message = place.of("passphrase_file");
            self.problems
                .add(line, format!("{message}: SRT passphrases have 10 to 79 bytes, this one has {found}"));
        }
        Some(text.into())
    }

    /// Shortest and longest pause before something is tried again.
    fn retry(
        &mut self,
        place: &Place,
        shortest: &Option<At<Duration>>,
        longest: &Option<At<Duration>>,
    ) -> (Duration, Duration) {
        const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));
        let (low, high) = (get(shortest), get(longest));
        // What is set alone moves the other's default.
        let low = low.unwrap_or_else(|| high.map_or(RETRY.0, |high| RETRY.0.min(high)));
        let high = high.unwrap_or_else(|| RETRY.1.max(low));
        if low > high {
            let line = longest.as_ref().map(|at| at.line);
            let (low, high) = (low.as_millis(), high.as_millis());
            let message = place.of("retry_max_ms");
            self.problems.add(line, format!("{message}: {high} is less than retry_min_ms, {low}"));
        }
        (low, high)
    }

    fn missing(&mut self, place: &Place, key: &str, kind: &str) {
        let message = format!("{} of kind `{kind}` needs `{key}`", place.label);
        self.problems.add(place.line, message);
    }
}

/// Resolves a file. The result counts only if no problem was noted.
pub fn resolve(file: &File, path: Option<&Path>, context: &mut Context<'_>) -> Config {
    let sources = sources::all(&file.sources, context);
    let outputs = outputs::all(&file.outputs, &sources, context);
    let gallery = gallery(file, context);
    let pipelines = pipelines(file, &sources, &gallery, context);
    let pipeline = first(file, &pipelines, context);
    Config {
        file: path.map(Path::to_owned),
        video: Video {
            width: get(&file.video.width).unwrap_or(SIDE),
            height: get(&file.video.height).unwrap_or(SIDE),
            rate: get(&file.video.frame_rate_hz).unwrap_or_else(default_rate),
        },
        pipeline,
        slate: Slate {
            picture: slate_picture(file, context),
            after: get(&file.slate.after_ms).unwrap_or(SLATE_AFTER),
        },
        outputs,
        control: control::control(&file.control, context),
        metrics: control::metrics(&file.metrics, &file.control, context),
        log: log(file, context),
        sources,
        pipelines,
        gallery,
    }
}

#[expect(clippy::unreachable, reason = "25 is in the range of rates")]
fn default_rate() -> Rate {
    crate::rate::parse("25").unwrap_or_else(|_| unreachable!("25 is a rate"))
}

/// Folders of pictures. One that is missing now may be on a disk that comes later: the check tells about it.
fn gallery(file: &File, context: &mut Context<'_>) -> Vec<PathBuf> {
    let Some(directories) = &file.gallery.directories else { return Vec::new() };
    let line = directories.line;
    let mut complete = |path: &PathBuf| context.path(&Some(At { value: path.clone(), line }));
    directories.value.iter().filter_map(&mut complete).collect()
}

fn slate_picture(file: &File, context: &mut Context<'_>) -> Option<PathBuf> {
    let path = context.path(&file.slate.picture)?;
    if !path.is_file() {
        let line = file.slate.picture.as_ref().map(|at| at.line);
        context.problems.add(line, format!("[slate] picture: there is no file {}", path.display()));
    }
    Some(path)
}

/// The pipelines; without any there is one for each source.
fn pipelines(
    file: &File,
    sources: &BTreeMap<String, super::resolved::Source>,
    gallery: &[PathBuf],
    context: &mut Context<'_>,
) -> BTreeMap<String, Pipeline> {
    let mut models = animation::Models::default();
    if file.pipelines.is_empty() {
        let animation = animation::resolve(&file.animation, &mut models, gallery, context);
        let of = |name: &String| Pipeline { source: name.clone(), animation: animation.clone() };
        return sources.keys().map(|name| (name.clone(), of(name))).collect();
    }
    let mut all = BTreeMap::new();
    for (name, pipeline) in &file.pipelines {
        let keys = pipeline.animation.or(&file.animation);
        let animation = animation::resolve(&keys, &mut models, gallery, context);
        let source = source_of(pipeline, file, sources, context).unwrap_or_default();
        all.insert(name.clone(), Pipeline { source, animation });
    }
    all
}

fn source_of(
    pipeline: &super::file::Pipeline,
    file: &File,
    sources: &BTreeMap<String, super::resolved::Source>,
    context: &mut Context<'_>,
) -> Option<String> {
    let Some(source) = &pipeline.source else {
        if !pipeline.has_source {
            context.problems.add(pipeline.place.line, format!("{} needs `source`", pipeline.place.label));
        }
        return None;
    };
    // One that is wrong itself is there all the same.
    if !sources.contains_key(&source.value) && !file.sources.contains_key(&source.value) {
        let message =
            format!("{}: {}", pipeline.place.of("source"), no_such("source", &source.value, sources));
        context.problems.add(source.line, message);
    }
    Some(source.value.clone())
}

/// Says that there is no `what` called `name`, and which there are.
fn no_such<T>(what: &str, name: &str, there: &BTreeMap<String, T>) -> String {
    let names: Vec<_> = there.keys().map(String::as_str).collect();
    let hint = super::suggest::closest(name, &names).map(|name| format!(" (did you mean {name:?}?)"));
    let names = if names.is_empty() { "none".into() } else { names.join(", ") };
    format!("there is no {what} {name:?}; there are {names}{}", hint.unwrap_or_default())
}

/// The pipeline that runs at start.
fn first(file: &File, pipelines: &BTreeMap<String, Pipeline>, context: &mut Context<'_>) -> String {
    match (&file.pipeline, pipelines.keys().next()) {
        (Some(named), _) => {
            let there = pipelines.contains_key(&named.value) || file.sources.contains_key(&named.value);
            if !there {
                let message = format!("pipeline: {}", no_such("pipeline", &named.value, pipelines));
                context.problems.add(named.line, message);
            }
            named.value.clone()
        }
        (None, Some(only)) if pipelines.len() == 1 => only.clone(),
        (None, _) => {
            let names: Vec<_> = pipelines.keys().map(String::as_str).collect();
            if !names.is_empty() {
                let names = names.join(", ");
                context
                    .problems
                    .add(None, format!("pipeline: say which one runs at start, there are {names}"));
            }
            String::new()
        }
    }
}

fn log(file: &File, context: &mut Context<'_>) -> Log {
    let log = &file.log;
    let (target, json) = (get(&log.target).unwrap_or(LogTarget::Auto), get(&log.json).unwrap_or(false));
    if json && target == LogTarget::Journald {
        let line = log.json.as_ref().map(|at| at.line);
        let message =
            "[log] json: journald has fields of its own; JSON goes to standard error (target = \"stderr\")";
        context.problems.add(line, message);
    }
    Log { level: get(&log.level).unwrap_or_else(|| "info".into()), target, json }
}
