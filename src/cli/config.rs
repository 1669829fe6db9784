//! `keyframed config`: makes a configuration and checks one.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::Subcommand;
use serde_json::json;

use super::print;
use crate::config::{
    self, ConfigError,
    check::{self, Severity},
};

/// Options of `keyframed config`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write a configuration with every setting, its default and what it means
    Init {
        /// File to write [default: standard output]
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Overwrite the file if it is there
        #[arg(long, requires = "output")]
        force: bool,
    },
    /// Tell whether everything is there that a run needs, and what it would run
    Check(Check),
}

#[derive(Debug, clap::Args)]
struct Check {
    /// File to check [default: the one that `keyframed run` reads]
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Leave out devices, ports and sockets: for another machine, or while the daemon runs
    #[arg(long)]
    skip_devices: bool,
    /// Print what was found as JSON
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Carries out the subcommand; fails if the configuration does not hold.
    ///
    /// # Errors
    /// What went wrong, with context.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Init { output: None, .. } => print(config::DEFAULT).map(|()| ExitCode::SUCCESS),
            Command::Init { output: Some(file), force } => init(&file, force),
            Command::Check(check) => check.run(),
        }
    }
}

fn init(file: &Path, force: bool) -> anyhow::Result<ExitCode> {
    let mut options = fs::OpenOptions::new();
    let options = options.write(true).truncate(force).create(force).create_new(!force);
    let shown = file.display();
    let mut opened = options.open(file).with_context(|| match file.exists() && !force {
        true => format!("{shown} is there already (--force overwrites it)"),
        false => format!("{shown} cannot be written"),
    })?;
    opened.write_all(config::DEFAULT.as_bytes()).with_context(|| format!("{shown} cannot be written"))?;
    print(&format!("{shown} written; `keyframed config check -c {shown}` checks it after a change\n"))?;
    Ok(ExitCode::SUCCESS)
}

impl Check {
    fn run(self) -> anyhow::Result<ExitCode> {
        let config = match config::load(self.config.as_deref()) {
            Ok(config) => config,
            Err(error) if self.json => return refused(&error),
            Err(error) => return Err(error.into()),
        };
        let findings = check::all(&config, self.skip_devices);
        let errors = findings.iter().filter(|finding| finding.severity == Severity::Error).count();
        if self.json {
            let (errors, warnings): (Vec<_>, Vec<_>) =
                findings.iter().partition(|finding| finding.severity == Severity::Error);
            let told = json!({
                "ok": errors.is_empty(),
                "file": config.file,
                "errors": errors,
                "warnings": warnings,
                "would_run": check::summary(&config),
            });
            print(&format!("{told:#}\n"))?;
        } else {
            let verdict = match errors {
                0 => "this can run here\n".to_owned(),
                1 => "1 error\n".to_owned(),
                n => format!("{n} errors\n"),
            };
            print(&(check::text(&config, &findings) + &verdict))?;
        }
        Ok(if errors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// A configuration that does not even resolve, as JSON.
fn refused(error: &ConfigError) -> anyhow::Result<ExitCode> {
    let (file, errors) = match error {
        ConfigError::Unreadable { file, reason } => (Some(file), json!([{ "message": reason }])),
        ConfigError::Invalid { file, problems } => (file.as_ref(), json!(problems)),
    };
    let told = json!({"ok": false, "file": file, "errors": errors, "warnings": []});
    print(&format!("{told:#}\n"))?;
    Ok(ExitCode::FAILURE)
}
