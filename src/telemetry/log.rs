//! Logging of the daemon: journald, or text or JSON on standard error. Every line goes to one place only.

use std::{env, io, mem, panic};

use anyhow::Context as _;
use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::{EnvFilter, Layer, Registry, filter::LevelFilter, fmt, prelude::*, reload};

use super::{gst_log, lines::Lines, stderr::Stderr};
use crate::config::resolved::{Log, LogTarget};

/// Overrules the configured level, as it does for the other commands.
const ENVIRONMENT: &str = EnvFilter::DEFAULT_ENV;

type Sink = Box<dyn Layer<Registry> + Send + Sync>;
/// What the filter is laid on: the registry with one sink.
type Base = tracing_subscriber::layer::Layered<Sink, Registry>;

/// Where lines go, once decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Journald,
    Text,
    Json,
}

/// Changes the level while the daemon runs.
#[derive(Clone)]
pub struct LogHandle {
    filter: reload::Handle<EnvFilter, Base>,
    /// What runs: the target and the form of lines stay as they are until the next start.
    place: Place,
}

impl std::fmt::Debug for LogHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogHandle").field("place", &self.place).finish_non_exhaustive()
    }
}

/// Starts logging for the whole process, GStreamer's and GLib's own lines and panics included.
///
/// # Errors
/// If the level cannot be read, journald was asked for and cannot be reached, or logging has been started before.
pub fn init(log: &Log) -> anyhow::Result<LogHandle> {
    let filter = filter(&log.level, env::var(ENVIRONMENT).ok().as_deref())?;
    let (sink, place) = open(log)?;
    let (filter, handle) = reload::Layer::new(filter);
    let started = tracing_subscriber::registry().with(sink).with(filter).try_init();
    started.context("logging has been started before")?;
    panic::set_hook(Box::new(|info| tracing::error!(target: "panic", "{info}")));
    gst_log::route();
    Ok(LogHandle { filter: handle, place })
}

/// Whether `log.level` can be this; if not, what is wrong with it.
///
/// # Errors
/// One line.
pub fn check_level(text: &str) -> Result<(), String> {
    parse(text).map(drop)
}

impl LogHandle {
    /// Takes over a new level at once; another target or form is only told of, for they need a restart.
    ///
    /// # Errors
    /// If the level cannot be read: the old one stays.
    pub fn apply(&self, log: &Log) -> anyhow::Result<()> {
        let overruling = env::var(ENVIRONMENT).ok();
        self.filter.reload(filter(&log.level, overruling.as_deref())?).context("logging has ended")?;
        if overruling.is_some_and(|text| !text.is_empty()) {
            tracing::info!("{ENVIRONMENT} is set: it overrules log.level");
        }
        if place(log, stderr_is_journal()) != self.place {
            tracing::warn!("log.target and log.json take effect when the daemon is started again");
        }
        Ok(())
    }
}

/// The filter of the environment if there is one, else the configured one.
fn filter(level: &str, environment: Option<&str>) -> anyhow::Result<EnvFilter> {
    let (name, text) = match environment {
        Some(text) if !text.is_empty() => (ENVIRONMENT, text),
        _ => ("log.level", level),
    };
    parse(text).map_err(|why| anyhow::anyhow!("{name}: {why}"))
}

fn parse(text: &str) -> Result<EnvFilter, String> {
    let expected = || {
        format!(
            "expected error, warn, info, debug, trace or off, or a filter such as \"keyframed=debug,warn\", \
             not {text:?}"
        )
    };
    // A single word is a level: without this `inof` would be taken for a module's name and nothing be logged.
    if !text.contains(['=', ',']) && (text.is_empty() || text.parse::<LevelFilter>().is_err()) {
        return Err(expected());
    }
    EnvFilter::builder().parse(text).map_err(|error| format!("{} ({error})", expected()))
}

/// Decides where lines go; `journal` tells whether standard error ends in the journal.
fn place(log: &Log, journal: bool) -> Place {
    match log.target {
        // Under systemd standard error reaches the journal too.
        _ if log.json => Place::Json,
        LogTarget::Journald => Place::Journald,
        LogTarget::Auto if journal => Place::Journald,
        LogTarget::Auto | LogTarget::Stderr => Place::Text,
    }
}

fn open(log: &Log) -> anyhow::Result<(Sink, Place)> {
    let place = place(log, stderr_is_journal());
    if place != Place::Journald {
        return Ok((on_stderr(place), place));
    }
    match journald() {
        Ok(layer) => Ok((layer.boxed(), place)),
        // In a sandbox that hides journald's socket, standard error still reaches the journal.
        Err(_) if log.target == LogTarget::Auto => Ok((on_stderr(Place::Text), Place::Text)),
        Err(error) => Err(error).context("log.target is \"journald\", but journald cannot be reached"),
    }
}

fn on_stderr(place: Place) -> Sink {
    let layer = fmt::layer().with_writer(Stderr);
    match place {
        Place::Json => layer.json().with_current_span(false).with_span_list(false).boxed(),
        _ => layer.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).event_format(Lines).boxed(),
    }
}

fn journald() -> io::Result<tracing_journald::Layer> {
    let priorities =
        PriorityMappings { info: Priority::Informational, debug: Priority::Debug, ..PriorityMappings::new() };
    let layer = tracing_journald::layer()?.with_syslog_identifier("keyframed".into());
    Ok(layer.with_priority_mappings(priorities).with_field_prefix(Some("KEYFRAMED".into())))
}

/// Whether systemd connected our standard error with the journal: it names the socket's device and inode, so that a
/// variable inherited by a program whose output goes elsewhere does not count.
fn stderr_is_journal() -> bool {
    let Ok(named) = env::var("JOURNAL_STREAM") else { return false };
    identity(libc::STDERR_FILENO).is_some_and(|own| matches(&named, own))
}

fn matches(named: &str, (device, inode): (u64, u64)) -> bool {
    named == format!("{device}:{inode}")
}

/// Device and inode of an open file.
fn identity(file: libc::c_int) -> Option<(u64, u64)> {
    // SAFETY: all-zero bytes are a valid `stat`.
    let mut stat: libc::stat = unsafe { mem::zeroed() };
    // SAFETY: `stat` outlives the call; a descriptor that is not open is answered with an error.
    (unsafe { libc::fstat(file, &mut stat) } == 0).then_some((stat.st_dev, stat.st_ino))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(target: LogTarget, json: bool) -> Log {
        Log { level: "info".into(), target, json }
    }

    #[test]
    fn lines_go_to_the_journal_only_if_standard_error_does() {
        let place = |target, json, journal| place(&log(target, json), journal);
        assert_eq!(place(LogTarget::Auto, false, true), Place::Journald);
        assert_eq!(place(LogTarget::Auto, false, false), Place::Text);
        assert_eq!(place(LogTarget::Stderr, false, true), Place::Text);
        assert_eq!(place(LogTarget::Auto, true, true), Place::Json);
        assert_eq!(place(LogTarget::Journald, true, true), Place::Json);
        assert_eq!(place(LogTarget::Journald, false, false), Place::Journald);
    }

    #[test]
    fn only_our_own_stream_counts_as_the_journal() {
        let file = tempfile::tempfile().unwrap();
        let own = identity(std::os::fd::AsRawFd::as_raw_fd(&file)).unwrap();
        assert!(matches(&format!("{}:{}", own.0, own.1), own));
        assert!(!matches("0:0", own) && !matches("", own));
        assert_eq!(identity(-1), None);
    }

    #[test]
    fn a_misspelt_level_is_refused() {
        for good in ["info", "WARN", "off", "keyframed=debug,warn", "info,gstreamer=error"] {
            assert_eq!(filter(good, None).map(drop).map_err(|e| e.to_string()), Ok(()), "{good}");
        }
        for bad in ["inof", "", "keyframed=loud", "info,keyframed=3x"] {
            let message = filter(bad, None).map(drop).unwrap_err().to_string();
            assert!(message.starts_with("log.level: expected"), "{message}");
        }
    }

    #[test]
    fn the_environment_overrules_the_configured_level() {
        assert_eq!(filter("info", Some("debug")).unwrap().to_string(), "debug");
        assert_eq!(filter("info", Some("")).unwrap().to_string(), "info");
        let message = filter("info", Some("lots")).map(drop).unwrap_err().to_string();
        assert!(message.starts_with("RUST_LOG: expected"), "{message}");
    }
}
