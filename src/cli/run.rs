//! `keyframed run`: the daemon.

use std::{path::PathBuf, process::ExitCode};

use crate::{config, daemon, telemetry::log};

/// Options of `keyframed run`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Configuration [default: ~/.config/keyframed/keyframed.toml, then /etc/keyframed/keyframed.toml, then built in]
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Args {
    /// Runs until SIGTERM, SIGINT or a client's `shutdown`.
    ///
    /// # Errors
    /// What keeps the daemon from starting.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let file = self.config.clone();
        let prepare = move || {
            super::init_gstreamer()?;
            let config = config::load(self.config.as_deref())?;
            let log = log::init(&config.log)?;
            Ok((config, log))
        };
        if !daemon::run(prepare, file)? {
            tracing::debug!("leaving without waiting for what is still at work");
            leave();
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Ends the process at once: a thread inside libtorch would be pulled the ground from under by an orderly exit.
fn leave() -> ! {
    // SAFETY: it does not return, and standard error is not buffered.
    unsafe { libc::_exit(0) }
}
