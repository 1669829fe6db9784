//! Writes full-size MagicAnimate with random weights, about 5 GB, for measuring:
//!
//! `cargo run --release -p keyframed-models --example random_model -- OUT`
//!
//! makes the model directories OUT/kl (with the full autoencoder) and OUT/taesd (the same files, but TAESD). A
//! directory that is there already is left as it is.

use keyframed_models::{ModelDir, Result, random};
use std::{env, fs, path::Path, process::ExitCode};
use tch::Kind;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [out] = arguments.as_slice() else {
        eprintln!("usage: random_model OUT");
        return ExitCode::from(2);
    };
    match write(Path::new(out)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("random_model: {error}");
            ExitCode::FAILURE
        }
    }
}

fn write(out: &Path) -> Result<()> {
    let (kl, taesd) = (out.join("kl"), out.join("taesd"));
    whole(&kl, |dir| random::write(dir, &random::full_size()?, Kind::BFloat16, 1))?;
    whole(&taesd, |dir| random::with_taesd(dir, &kl, Kind::BFloat16))
}

/// Whole or not at all: a directory that can be opened stays, what an interrupted run left is made again.
fn whole(dir: &Path, make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    if ModelDir::load(dir).is_ok() {
        return Ok(());
    }
    let _ = fs::remove_dir_all(dir);
    make(dir)?;
    ModelDir::load(dir).map(drop)
}
