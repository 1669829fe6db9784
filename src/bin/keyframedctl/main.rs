//! keyframedctl: steers a running keyframed. It links neither libtorch nor GStreamer.

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

mod cli;
mod client;
mod endpoint;
#[path = "../../manual.rs"]
mod manual;
mod show;
mod watch;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let cli = cli::Cli::parse_from(cli::undotted(std::env::args_os()));
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(cli.run()),
        Err(error) => {
            eprintln!("keyframedctl: {error}");
            ExitCode::FAILURE
        }
    }
}
