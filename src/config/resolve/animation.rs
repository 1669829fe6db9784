//! `[animation]`, and `[pipelines.NAME.animation]` laid over it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use keyframed_control::types::{MaxQuality, Params};
use keyframed_engine::SelectConfig;
use keyframed_models::{ModelDir, stack::check_prompt};

use super::Context;
use crate::{
    animate::EMBEDDED_MODEL,
    config::{file, kinds::get, picture, resolved::Animation, table::At},
};

/// How far the output stays behind the poses, unless the file says: the default window at 25 frames a second, and two
/// ticks for making in-betweens.
const LATENCY_MS: u64 = 280;

/// Models by name, opened once: `None` if that failed and was told.
#[derive(Default)]
pub struct Models(BTreeMap<String, Option<ModelDir>>);

/// Fills in defaults; finds the model and the reference.
pub fn resolve(
    keys: &file::Animation,
    models: &mut Models,
    gallery: &[PathBuf],
    context: &mut Context<'_>,
) -> Animation {
    let model = model_name(keys, context);
    let text = |at: &Option<At<String>>, default: &str| get(at).unwrap_or_else(|| default.into());
    let select = SelectConfig::default();
    let opened = models.open(&model, keys, context);
    Animation {
        prompt: prompt(keys, opened, context),
        reference: reference(keys, opened, gallery, context),
        model,
        device: text(&keys.device, "auto"),
        dtype: text(&keys.dtype, "auto"),
        context_mode: get(&keys.context_mode).unwrap_or("cache").into(),
        schedule: get(&keys.schedule).unwrap_or("sequential").into(),
        params: Params {
            lambda: get(&keys.lambda).unwrap_or(select.lambda),
            window_frames: get(&keys.window_frames).unwrap_or(select.window),
            target_key_rate_hz: get(&keys.target_key_rate_hz).unwrap_or(select.target_key_rate),
            steps: get(&keys.steps),
            guidance_scale: get(&keys.guidance_scale),
            lora_scale: get(&keys.lora_scale),
            context_frames: get(&keys.context_frames),
            seed: get(&keys.seed).unwrap_or(0),
            latency_ms: get(&keys.latency_ms).unwrap_or(LATENCY_MS),
            max_quality: get(&keys.max_quality).unwrap_or(MaxQuality::Film),
        },
    }
}

/// A name, or an absolute path.
fn model_name(keys: &file::Animation, context: &mut Context<'_>) -> String {
    let Some(model) = &keys.model else { return EMBEDDED_MODEL.into() };
    let is_path = model.value.contains('/') || model.value.starts_with('~');
    if !is_path {
        return model.value.clone();
    }
    let path = context.path(&Some(At { value: PathBuf::from(&model.value), line: model.line }));
    path.map_or_else(|| model.value.clone(), |path| path.display().to_string())
}

impl Models {
    fn open(&mut self, name: &str, keys: &file::Animation, context: &mut Context<'_>) -> Option<&ModelDir> {
        let opened = self.0.entry(name.to_owned()).or_insert_with(|| match ModelDir::find(name) {
            Ok(model) => Some(model),
            Err(error) => {
                let line = keys.model.as_ref().map(|at| at.line);
                let message = format!("{}: {error}", place_of(keys, "model"));
                context.problems.add(line, message);
                None
            }
        });
        opened.as_ref()
    }
}

/// Begins a message about `key`, which may come from `[animation]` though the table is a pipeline's.
fn place_of(keys: &file::Animation, key: &str) -> String {
    if keys.set.iter().any(|(set, _)| *set == key) {
        keys.place.of(key)
    } else {
        format!("[animation] {key}")
    }
}

/// Empty unless the model takes it.
fn prompt(keys: &file::Animation, model: Option<&ModelDir>, context: &mut Context<'_>) -> String {
    let (Some(prompt), Some(model)) = (&keys.prompt, model) else { return String::new() };
    if let Err(error) = check_prompt(model, &prompt.value) {
        context.problems.add(prompt.line, format!("{}: {error}", place_of(keys, "prompt")));
    }
    prompt.value.clone()
}

fn reference(
    keys: &file::Animation,
    model: Option<&ModelDir>,
    gallery: &[PathBuf],
    context: &mut Context<'_>,
) -> Option<PathBuf> {
    let (named, model) = (keys.reference.as_ref()?, model?);
    let avatars = model.dir().join("avatars");
    if let Some(found) = picture::find(&named.value, gallery, &avatars) {
        return Some(found);
    }
    let path = context.path(&Some(At { value: Path::new(&named.value).to_owned(), line: named.line }))?;
    if path.is_file() {
        return Some(path);
    }
    let names = crate::animate::avatars(model).join(", ");
    let places = if gallery.is_empty() { "" } else { "the gallery, " };
    let message = format!(
        "{}: there is no picture {:?} in {places}among the model's avatars ({names}) or at {}",
        place_of(keys, "reference"),
        named.value,
        path.display()
    );
    context.problems.add(named.line, message);
    None
}
