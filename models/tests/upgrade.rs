//! Model directories of earlier versions.

use keyframed_engine::{Frame, KeyframeGenerator};
use keyframed_models::{LcmGenerator, ModelDir, Placement, Settings, checkpoint::Manifest, random};
use std::path::Path;
use tch::Kind;

/// `upgrade/first.toml` is the description of the first embedded model, as it was; its weights here are random ones of its
/// shapes.
#[test]
fn the_first_models_description_still_makes_pictures() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/upgrade/first.toml");
    let manifest = Manifest::read(&file).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("model");
    random::write(&folder, &manifest, Kind::Half, 1).unwrap();
    let model = ModelDir::load(&folder).unwrap();
    assert!(model.verify(|_| {}).is_empty());
    let mut generator = LcmGenerator::new(&model, Settings::of(&model), Placement::default()).unwrap();
    let grey = Frame::filled(256, 256, [120, 90, 60]).unwrap();
    generator.set_reference(&grey).unwrap();
    let made = generator.generate(&grey, 0).unwrap();
    assert!(made.data().iter().any(|level| *level != made.data()[0]));
}
