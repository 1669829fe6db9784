//! `keyframed doctor` and `keyframed models` on a sound machine and on a crippled one.

mod common;

use std::fs;

use common::{Bench, keyframed, succeed};

/// GStreamer with nothing but its core: every plugin is missing.
#[test]
fn a_machine_without_plugins_is_told_what_to_install() {
    let bench = Bench::new();
    let mut command = keyframed();
    command
        .arg("doctor")
        .env("GST_PLUGIN_SYSTEM_PATH", bench.path("none"))
        .env("GST_PLUGIN_PATH", bench.path("none"));
    let output = command.env("GST_REGISTRY", bench.path("registry")).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    for package in ["base", "good", "bad", "ugly"] {
        assert!(
            said.contains(&format!("-> apt-get install gstreamer1.0-plugins-{package}")),
            "{package}:\n{said}"
        );
    }
    assert!(said.contains("MISSING encoding video: no x264enc"), "{said}");
}

#[test]
fn a_machine_without_the_model_is_told() {
    let bench = Bench::new();
    fs::create_dir(bench.path("mini")).unwrap();
    fs::write(bench.path("mini/model.toml"), "family = 7").unwrap();
    let output = keyframed().arg("doctor").env("KEYFRAMED_MODELS", bench.path("")).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("MISSING embedded model") && said.contains("model.toml"), "{said}");
}

/// What the tests run on is what `script/bootstrap` makes: the doctor finds nothing missing.
#[test]
fn this_machine_is_sound() {
    let said = succeed(keyframed().args(["doctor", "--thorough"]));
    assert!(said.contains("keyframed can run here") && !said.contains("MISSING"), "{said}");
    assert!(said.contains("encoding video: x264enc"), "{said}");
}

#[test]
fn models_are_listed_with_their_avatars() {
    let said = succeed(keyframed().args(["models", "list"]));
    assert!(said.starts_with("mini ") || said.contains("\nmini "), "{said}");
    assert!(said.contains("avatars: "), "{said}");
}

#[test]
fn damaged_models_are_found() {
    let bench = Bench::new();
    let model = bench.model().to_str().unwrap();
    assert!(succeed(keyframed().args(["models", "verify", model])).contains("sound"));
    let weights = bench.model().join("film.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&weights, bytes).unwrap();
    let output = keyframed().args(["models", "verify", model]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("film.safetensors"), "{said}");
    // The files are sound, but not what the manifest says the networks are.
    let bench = Bench::new();
    let manifest = bench.model().join("model.toml");
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, text.replacen("cross_attention_dim = 12", "cross_attention_dim = 20", 1)).unwrap();
    let output = keyframed().args(["models", "verify", bench.model().to_str().unwrap()]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("has shape"), "{said}");
}
