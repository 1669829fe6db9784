//! `model.toml`: read, checked, and written again as it was; its networks' tables.
#![no_main]

use std::path::Path;

use keyframed_models::checkpoint::Manifest;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(manifest) = Manifest::parse(Path::new("model.toml"), text) else { return };
    // Values that are no numbers do not equal themselves, and TOML has no numbers beyond 63 bits.
    let Ok(again) = manifest.to_toml() else { return };
    let read = Manifest::parse(Path::new("model.toml"), &again).expect("what we write can be read");
    assert!(read == manifest || again.contains("nan"), "{again}");

});
