//! Models with random weights: complete, loadable, and at full size the published ones.

mod common;
mod tiny;

use common::{json, manifests};
use keyframed_engine::{Frame, KeyframeGenerator};
use keyframed_models::{
    LcmGenerator, ModelDir, Placement, Settings, Source, UNet, UNetConfig,
    checkpoint::{Files, Role},
    random,
};
use std::os::unix::fs::MetadataExt;
use tch::Kind;
use tiny::Tiny;

fn key_frame(dir: &std::path::Path) -> Frame {
    let model = ModelDir::load(dir).unwrap();
    assert!(model.verify(|_| {}).is_empty());
    let mut generator = LcmGenerator::new(&model, Settings::of(&model), Placement::default()).unwrap();
    let picture = Frame::filled(32, 16, [40, 90, 160]).unwrap();
    generator.set_reference(&picture).unwrap();
    generator.generate(&picture, 0).unwrap()
}

#[test]
fn what_is_written_runs_with_either_autoencoder() {
    let dir = tempfile::tempdir().unwrap();
    let mut like = Tiny::new(dir.path()).manifest.clone();
    let (kl, taesd) = (dir.path().join("kl"), dir.path().join("taesd"));
    // TAESD shrinks eight times, so everything must.
    like.networks.vae = toml::from_str("block_out_channels = [8, 8, 8, 8]\nnorm_num_groups = 4").unwrap();
    let widths = toml::Value::try_from([8, 8, 8, 8]).unwrap();
    like.networks.controlnet.insert("conditioning_embedding_out_channels".into(), widths);
    random::write(&kl, &like, Kind::BFloat16, 1).unwrap();
    random::with_taesd(&taesd, &kl, Kind::BFloat16).unwrap();
    let made = key_frame(&kl);
    assert!(made.data().iter().any(|&level| level != made.data()[0]), "not one colour");
    assert_ne!(made, key_frame(&taesd));
    // Only the autoencoder takes room of its own.
    let inode = |dir: &std::path::Path, role| {
        let model = ModelDir::load(dir).unwrap();
        let Files::One(entry) = &model.manifest().files[&role] else { panic!("one file") };
        std::fs::metadata(dir.join(&entry.path)).unwrap().ino()
    };
    assert_eq!(inode(&kl, Role::Unet), inode(&taesd, Role::Unet));
    assert_ne!(inode(&kl, Role::Vae), inode(&taesd, Role::Vae));
}

#[test]
fn full_size_is_the_published_one() {
    let manifest = random::full_size().unwrap();
    assert_eq!((manifest.image.width, manifest.image.height, manifest.defaults.steps), (512, 512, 4));
    let Some(folder) = manifests() else { return };
    let published = json(&folder.join("magicanimate_unet3d.json"));
    let config: UNetConfig = toml::Value::Table(manifest.networks.unet).try_into().unwrap();
    let source = Source::recording();
    UNet::new(&source.root(), &config).unwrap();
    let asked = source.tensors();
    let listed = published["tensors"].as_object().unwrap();
    assert_eq!(asked.len(), listed.len());
    for (name, tensor) in asked {
        assert_eq!(serde_json::json!(tensor.size()), listed[&name], "{name}");
    }
}
