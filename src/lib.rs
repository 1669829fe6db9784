//! The daemon as a library, so that its programs and `fuzz/` share it. It is no interface for others: only
//! [`main`] and what `fuzz/` needs can be reached.

// What comes from outside must not end the program: see docs/reliability.md.
#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::unimplemented
    )
)]

mod animate;
mod bench;
mod cli;
mod config;
mod control;
mod daemon;
mod font;
pub mod hostile;
mod manual;
mod media;
mod memory;
mod rate;
mod telemetry;

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use clap::Parser as _;
use tracing_subscriber::EnvFilter;

/// The program `keyframed`.
pub fn main() -> ExitCode {
    keyframed_models::allocator::tune_allocator();
    let cli = cli::Cli::parse();
    if !cli.logs_by_itself() {
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    }
    match cli.run() {
        Ok(code) => code,
        Err(error) => {
            // Nobody may be reading any more.
            let _ = writeln!(io::stderr(), "keyframed: {error:#}");
            ExitCode::FAILURE
        }
    }
}
