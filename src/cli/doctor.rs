//! `keyframed doctor`: what is missing on this machine and how to mend it.

mod camera;
mod checks;
mod service;

use std::{fmt::Write as _, process::ExitCode};

/// Options of `keyframed doctor`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Also read the whole model and compare its checksums
    #[arg(long)]
    thorough: bool,
}

impl Args {
    /// Prints one line a check; fails if something is missing that the main job needs.
    ///
    /// # Errors
    /// If standard output cannot be written.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let findings = checks::all(self.thorough);
        let mut text = String::new();
        for finding in &findings {
            let _ = writeln!(text, "{:7} {}: {}", finding.verdict.word(), finding.what, finding.found);
            if let Some(remedy) = &finding.remedy {
                let _ = writeln!(text, "        -> {remedy}");
            }
        }
        let missing = findings.iter().filter(|f| f.verdict == Verdict::Missing).count();
        let _ = match missing {
            0 => writeln!(text, "keyframed can run here"),
            n => writeln!(text, "{n} thing(s) missing that keyframed needs"),
        };
        super::print(&text)?;
        Ok(if missing == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// There and usable.
    Ok,
    /// Not there; only some uses need it.
    Without,
    /// Not there; nothing works without it.
    Missing,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Without => "without",
            Self::Missing => "MISSING",
        }
    }
}

/// One line of the doctor's report.
#[derive(Debug)]
struct Finding {
    verdict: Verdict,
    /// What was looked at.
    what: &'static str,
    /// What is there.
    found: String,
    /// What to do about it.
    remedy: Option<String>,
}

impl Finding {
    fn ok(what: &'static str, found: impl Into<String>) -> Self {
        Self { verdict: Verdict::Ok, what, found: found.into(), remedy: None }
    }

    fn without(what: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { verdict: Verdict::Without, what, found: found.into(), remedy: Some(remedy.into()) }
    }

    fn missing(what: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { verdict: Verdict::Missing, what, found: found.into(), remedy: Some(remedy.into()) }
    }
}
