//! At full size the networks ask for exactly the tensors of the published checkpoints.

mod common;

use common::{json, manifests};
use keyframed_models::{
    AppearanceEncoder, ControlNet, Fusion, Result, Source, UNet, UNetConfig, checkpoint::modern,
};
use serde_json::Value;
use std::collections::BTreeMap;

type Shapes = BTreeMap<String, Vec<i64>>;

fn listed(manifest: &Value) -> Shapes {
    serde_json::from_value(manifest["tensors"].clone()).expect("a map of names to shapes")
}

/// What `build` asks for. Nothing is allocated.
fn asked(build: impl FnOnce(&Source) -> Result<()>) -> Shapes {
    let source = Source::recording();
    build(&source).expect("a configuration that can be built");
    source.tensors().into_iter().map(|(name, tensor)| (name, tensor.size())).collect()
}

#[track_caller]
fn assert_same(found: &Shapes, expected: &Shapes) {
    let missing: Vec<_> = expected.iter().filter(|(name, _)| !found.contains_key(*name)).collect();
    let extra: Vec<_> = found.iter().filter(|(name, _)| !expected.contains_key(*name)).collect();
    assert!(missing.is_empty() && extra.is_empty(), "not asked for: {missing:?}\nnot listed: {extra:?}");
    for (name, shape) in expected {
        assert_eq!(&found[name], shape, "{name}");
    }
}

fn manifest(name: &str) -> Option<Value> {
    Some(json(&manifests()?.join(format!("{name}.json"))))
}

#[test]
fn unet3d() {
    let Some(manifest) = manifest("magicanimate_unet3d") else { return };
    let config: UNetConfig = serde_json::from_value(manifest["config"].clone()).unwrap();
    assert!(config.use_motion_module);
    assert_same(&asked(|s| UNet::new(&s.root(), &config).map(drop)), &listed(&manifest));
}

#[test]
fn unet2d() {
    let Some(manifest) = manifest("sd15_unet2d") else { return };
    let found = asked(|s| UNet::new(&s.root(), &UNetConfig::default()).map(drop));
    assert_same(&found, &listed(&manifest));
}

/// What the whole U-Net has and Stable Diffusion's has not, and nothing else.
#[test]
fn motion_modules() {
    let (Some(whole), Some(motion)) = (manifest("magicanimate_unet3d"), manifest("motion_modules_only"))
    else {
        return;
    };
    let config: UNetConfig = serde_json::from_value(whole["config"].clone()).unwrap();
    let mut found = asked(|s| UNet::new(&s.root(), &config).map(drop));
    for name in asked(|s| UNet::new(&s.root(), &config.without_motion()).map(drop)).keys() {
        assert!(found.remove(name).is_some(), "{name}");
    }
    assert_same(&found, &listed(&motion));
}

/// The importer gives old files the names that new ones have.
#[test]
fn old_autoencoders() {
    let (Some(old), Some(new)) = (manifest("sd_vae_old_names"), manifest("sd_vae_new_names")) else { return };
    let renamed = listed(&old).into_iter().map(|(name, shape)| (modern(&name), shape)).collect();
    assert_same(&renamed, &listed(&new));
    assert!(listed(&old) != listed(&new));
}

#[test]
fn controlnet() {
    let Some(manifest) = manifest("densepose_controlnet") else { return };
    let config = serde_json::from_value(manifest["config"].clone()).unwrap();
    assert_same(&asked(|s| ControlNet::new(&s.root(), &config).map(drop)), &listed(&manifest));
}

#[test]
fn appearance_encoder() {
    let Some(manifest) = manifest("appearance_encoder") else { return };
    let config = serde_json::from_value(manifest["config"].clone()).unwrap();
    let found = asked(|s| AppearanceEncoder::new(&s.root(), &config, Fusion::Midup).map(drop));
    assert_same(&found, &listed(&manifest));
}
