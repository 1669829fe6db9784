//! Models, reference pictures, the slate, the gallery.

use std::collections::BTreeMap;

use keyframed_control::types::MaxQuality;
use keyframed_models::{DeviceChoice, DtypeChoice, ModelDir, Placement, checkpoint::Role};

use super::Findings;
use crate::{
    config::resolved::{Animation, Config},
    daemon::gallery,
};

/// Everything that is read from picture and weight files before the first frame.
pub fn check(config: &Config, findings: &mut Findings) {
    // By what is looked at: pipelines often differ in a parameter only.
    let mut looked_at = BTreeMap::new();
    for (name, pipeline) in &config.pipelines {
        let Animation { model, device, dtype, reference, params, .. } = &pipeline.animation;
        let film = params.max_quality == MaxQuality::Film;
        if looked_at.insert((model, device, dtype, reference, film), name).is_none() {
            animation(name, &pipeline.animation, findings);
        }
    }
    if let Some(picture) = &config.slate.picture
        && let Err(error) = gallery::read(picture)
    {
        findings.error("[slate] picture", format!("{error:#}"));
    }
    for folder in &config.gallery {
        if !folder.is_dir() {
            let message = format!("there is no folder {} now; a reload looks again", folder.display());
            findings.warning("[gallery] directories", message);
            continue;
        }
        let pictures = gallery::Gallery::new(std::slice::from_ref(folder), "").list();
        if pictures.is_empty() {
            let message = format!("{} holds no PNG, JPEG or WebP picture that can be read", folder.display());
            findings.warning("[gallery] directories", message);
        }
    }
}

fn animation(pipeline: &str, animation: &Animation, findings: &mut Findings) {
    let part = |key: &str| format!("animation of pipeline {pipeline}: {key}");
    let model = match ModelDir::find(&animation.model) {
        Ok(model) => model,
        Err(error) => return findings.error(part("model"), error.to_string()),
    };
    if animation.params.max_quality == MaxQuality::Film && !model.has(Role::Film) {
        let message = format!("{} has no FILM weights: the best rung will be warp", animation.model);
        findings.warning(part("max_quality"), message);
    }
    placement(animation, &part, findings);
    let reference = match &animation.reference {
        Some(path) => Some(path.clone()),
        None => crate::animate::avatars(&model)
            .first()
            .map(|name| model.dir().join("avatars").join(name).with_extension("png")),
    };
    match reference.map(|path| gallery::read(&path)) {
        Some(Ok(_)) => {}
        Some(Err(error)) => findings.error(part("reference"), format!("{error:#}")),
        None => findings.error(part("reference"), "not set, and the model has no pictures of its own"),
    }
}

fn placement(animation: &Animation, part: &dyn Fn(&str) -> String, findings: &mut Findings) {
    // Resolving looked at the words; this asks the machine.
    let Ok(wanted) = animation.device.parse::<DeviceChoice>() else { return };
    if let Err(error) = wanted.resolve() {
        return findings.error(part("device"), error.to_string());
    }
    let Ok(dtype) = animation.dtype.parse::<DtypeChoice>() else { return };
    // The width decides about `auto` alone, which is always possible.
    if let Err(error) = (Placement { device: wanted, dtype, threads: None }).resolve(0) {
        findings.error(part("dtype"), error.to_string());
    }
}
