//! The command line.

mod animate;
mod bench;
mod config;
mod doctor;
mod generate;
mod models;
mod run;

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{Parser, Subcommand};

/// Animates a still picture with DensePose video.
#[derive(Debug, Parser)]
#[command(name = "keyframed", version, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Animate a picture with a DensePose clip, file to file
    Animate(Box<animate::Args>),
    /// Measure what a model costs on this machine, and how it does live
    Bench(bench::Args),
    /// Write a commented configuration, or check one
    Config(config::Args),
    /// Tell what is missing on this machine and how to mend it
    Doctor(doctor::Args),
    /// Write man pages and shell completions
    #[command(hide = true)]
    Generate(generate::Args),
    /// List and check models
    Models(models::Args),
    /// Run the daemon
    Run(run::Args),
}

impl Cli {
    /// Whether the command starts logging, as its configuration says.
    pub fn logs_by_itself(&self) -> bool {
        matches!(self.command, Command::Run(_))
    }

    /// Carries out the command.
    ///
    /// # Errors
    /// What went wrong, with context: to be printed once.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Animate(args) => args.run(),
            Command::Bench(args) => args.run(),
            Command::Config(args) => args.run(),
            Command::Doctor(args) => args.run(),
            Command::Generate(args) => args.run(),
            Command::Models(args) => args.run(),
            Command::Run(args) => args.run(),
        }
    }
}

/// Makes GStreamer and the plugin's elements ready.
pub fn init_gstreamer() -> anyhow::Result<()> {
    gst::init().context("GStreamer does not start")?;
    gstkeyframed::plugin_register_static().context("keyframed's own GStreamer elements cannot be registered")
}

/// Writes `text` to standard output; a reader that has gone away (`| head`) is no error.
fn print(text: &str) -> anyhow::Result<()> {
    let result = io::stdout().write_all(text.as_bytes());
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("writing to standard output"),
    }
}
