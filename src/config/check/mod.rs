//! Whether this machine has what a run needs: more than reading the file can tell.

mod devices;
mod elements;
mod network;
mod pictures;
mod summary;

use std::{fmt, path::Path};

use super::{mask::masked, resolved::Config};
pub use summary::{summary, text};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// A run would not do what the configuration says.
    Error,
    /// A run works; something may be other than meant.
    Warning,
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// How bad.
    pub severity: Severity,
    /// Where in the configuration: `[outputs.obs] port`.
    pub part: String,
    /// What is wrong and what to do.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{word}: {}: {}", self.part, self.message)
    }
}

/// Collects findings.
#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn error(&mut self, part: impl Into<String>, message: impl Into<String>) {
        self.add(Severity::Error, part.into(), message.into());
    }

    fn warning(&mut self, part: impl Into<String>, message: impl Into<String>) {
        self.add(Severity::Warning, part.into(), message.into());
    }

    fn add(&mut self, severity: Severity, part: String, message: String) {
        // GStreamer's messages may hold line breaks.
        let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
        self.0.push(Finding { severity, part, message: masked(&message) });
    }
}

/// Looks at everything that a run of `config` needs; errors first.
///
/// With `skip_devices`, what belongs to one machine at one time is left out: devices, ports, sockets, the desktop.
pub fn all(config: &Config, skip_devices: bool) -> Vec<Finding> {
    let mut findings = Findings::default();
    pictures::check(config, &mut findings);
    elements::check(config, &mut findings);
    devices::files(config, &mut findings);
    if !skip_devices {
        devices::check(config, &mut findings);
        network::check(config, &mut findings);
    }
    let mut findings = findings.0;
    findings.sort_by_key(|finding| finding.severity);
    findings.dedup();
    findings
}

/// Whether this process may write to a folder, without writing to it.
fn may_write(folder: &Path) -> Result<(), String> {
    use rustix::fs::Access;
    if !folder.is_dir() {
        return Err(format!("{} is not a folder", folder.display()));
    }
    let access = rustix::fs::access(folder, Access::WRITE_OK | Access::EXEC_OK);
    access.map_err(|error| format!("{} cannot be written to: {error}", folder.display()))
}

/// As [`may_write`], for a folder that is made when it is needed.
fn may_make(folder: &Path) -> Result<(), String> {
    match folder.ancestors().find(|ancestor| ancestor.exists()) {
        Some(there) => may_write(there),
        None => Err(format!("there is no folder {}", folder.display())),
    }
}
