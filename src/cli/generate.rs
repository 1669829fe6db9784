//! `keyframed generate`: what packages install beside the program.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::CommandFactory as _;

/// Arguments of `keyframed generate`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder to write to
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
}

impl Args {
    /// Writes man pages and completions.
    ///
    /// # Errors
    /// The folder cannot be written to.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        crate::manual::write(super::Cli::command(), &self.output)
            .with_context(|| format!("writing man pages and completions to {}", self.output.display()))?;
        Ok(ExitCode::SUCCESS)
    }
}
