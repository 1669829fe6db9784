//! Writes a model directory like another one, but with random motion modules of the published shape and with norms
//! pooled over a window's frames, as in the original. Its pictures are worth nothing; what a context costs, and how
//! two ways to compute it differ, can be measured on it:
//!
//! `cargo run --release -p keyframed-models --example random_motion -- MODEL CONTEXT FOLDER`
//!
//! MODEL is a name or a directory without motion modules; CONTEXT is the number of context frames by default.

use keyframed_models::{ModelDir, Result, bench::with_random_motion};
use std::{env, path::Path, process::ExitCode};

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [model, context, folder] = arguments.as_slice() else {
        eprintln!("usage: random_motion MODEL CONTEXT FOLDER");
        return ExitCode::from(2);
    };
    let Ok(context @ 0..=23) = context.parse() else {
        eprintln!("random_motion: CONTEXT must be a number from 0 to 23, not {context}");
        return ExitCode::from(2);
    };
    let write =
        || -> Result<ModelDir> { with_random_motion(&ModelDir::find(model)?, context, Path::new(folder)) };
    match write() {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("random_motion: {error}");
            ExitCode::FAILURE
        }
    }
}
