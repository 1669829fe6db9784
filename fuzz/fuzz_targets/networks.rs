//! `model.toml`'s `[networks]`, up to the shapes of every tensor that they ask for.
#![no_main]

use std::path::Path;

use keyframed_models::checkpoint::{Manifest, Role};
use libfuzzer_sys::fuzz_target;

/// The rest of the file. What follows it is the table `networks`.
const BEFORE: &str = r#"
    family = "magicanimate"
    name = "fuzz"
    licence = "CC0-1.0"
    image = { width = 256, height = 256 }
    defaults = { steps = 4, guidance_scale = 1.0 }
    scheduler = {}
    [files]
    vae = ENTRY
    unet = ENTRY
    controlnet = ENTRY
    appearance = ENTRY
    text_encoder = ENTRY
"#;
const ENTRY: &str = r#"{ path = "a", size = 0, sha256 = "0000000000000000000000000000000000000000000000000000000000000000" }"#;
const NETWORKS: [Role; 6] =
    [Role::Vae, Role::Unet, Role::Controlnet, Role::Appearance, Role::Film, Role::TextEncoder];

/// Tensors are counted in ten thousands where a configuration makes any sense.
const MOST_TENSORS: usize = 1_000_000;

fuzz_target!(|networks: &str| {
    let text = BEFORE.replace("ENTRY", ENTRY) + networks;
    let Ok(manifest) = Manifest::parse(Path::new("model.toml"), &text) else { return };
    for role in NETWORKS {
        let Ok(shapes) = manifest.shapes(role) else { continue };
        assert!(shapes.len() < MOST_TENSORS, "{role}: {} tensors", shapes.len());
        assert!(shapes.values().flatten().all(|&side| side >= 0), "{role}");
    }
});
