//! GStreamer's and GLib's own lines, as log lines of ours.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use gst::{DebugLevel, glib};

/// An object's line from one place in the source is written once in this time: an element that complains about every
/// buffer must not fill the disk.
const QUIET: Duration = Duration::from_secs(10);
/// Bounds the memory of what was said; when it is full, all is forgotten.
const REMEMBERED: usize = 256;

/// Sends what GStreamer logs to `tracing` instead of standard error. Warnings and errors, unless `GST_DEBUG` asks for
/// more or for less.
pub fn route() {
    gst::log::remove_default_log_function();
    if std::env::var_os("GST_DEBUG").is_none() {
        gst::log::set_default_threshold(DebugLevel::Warning);
    }
    let seen = Mutex::new(Seen::default());
    gst::log::add_log_function(move |category, level, _file, _function, line, object, message| {
        let Some(text) = message.get() else { return };
        let object = object.map(|object| format!("{object}: ")).unwrap_or_default();
        // What `GST_DEBUG` asks for beyond warnings is wanted whole.
        let before = match level {
            DebugLevel::Error | DebugLevel::Warning => seen
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .admit((category.name(), line), &object, Instant::now()),
            _ => Some(0),
        };
        if let Some(before) = before {
            let more =
                if before == 0 { String::new() } else { format!(" (and {before} more in the time before)") };
            write(severity(level, category.name(), &text), category.name(), &format!("{object}{text}{more}"));
        }
    });
    glib::log_set_default_handler(|domain, level, message| {
        let level = match level {
            glib::LogLevel::Error | glib::LogLevel::Critical => tracing::Level::ERROR,
            glib::LogLevel::Warning => tracing::Level::WARN,
            glib::LogLevel::Message | glib::LogLevel::Info => tracing::Level::INFO,
            glib::LogLevel::Debug => tracing::Level::DEBUG,
        };
        write(level, domain.unwrap_or("glib"), message);
    });
}

/// How grave a line is. The macros that post an error or a warning on a bus log the same text as a warning that begins
/// so; whoever reads the bus tells of it, once. And a live stream that drops a frame which nobody fetched in time does
/// what it is told to; statistics count it.
fn severity(level: DebugLevel, category: &str, text: &str) -> tracing::Level {
    let told_elsewhere = text.starts_with("error: ") || text.starts_with("warning: ");
    let leak = matches!(category, "appsrc" | "appsink" | "queue_dataflow") && text.starts_with("Dropping");
    match level {
        DebugLevel::Error => tracing::Level::ERROR,
        DebugLevel::Warning if told_elsewhere || leak => tracing::Level::DEBUG,
        DebugLevel::Warning => tracing::Level::WARN,
        DebugLevel::Info => tracing::Level::INFO,
        DebugLevel::Fixme | DebugLevel::Debug => tracing::Level::DEBUG,
        _ => tracing::Level::TRACE,
    }
}

/// The level of a `tracing` event is part of its place in the source: hence five of them.
fn write(level: tracing::Level, category: &str, text: &str) {
    const TARGET: &str = "gstreamer";
    match level {
        tracing::Level::ERROR => tracing::error!(target: TARGET, category, "{category}: {text}"),
        tracing::Level::WARN => tracing::warn!(target: TARGET, category, "{category}: {text}"),
        tracing::Level::INFO => tracing::info!(target: TARGET, category, "{category}: {text}"),
        tracing::Level::DEBUG => tracing::debug!(target: TARGET, category, "{category}: {text}"),
        _ => tracing::trace!(target: TARGET, category, "{category}: {text}"),
    }
}

/// What was said lately, by category, line of the source and object.
#[derive(Debug, Default)]
struct Seen(HashMap<(String, u32, String), Said>);

#[derive(Debug)]
struct Said {
    written: Instant,
    /// Not written since.
    withheld: u64,
}

impl Seen {
    /// Whether a line is to be written now, and how often it was withheld since it was written last.
    fn admit(&mut self, (category, line): (&str, u32), object: &str, now: Instant) -> Option<u64> {
        let key = (category.to_owned(), line, object.to_owned());
        if let Some(said) = self.0.get_mut(&key) {
            if now.saturating_duration_since(said.written) < QUIET {
                said.withheld += 1;
                return None;
            }
            let withheld = std::mem::take(&mut said.withheld);
            said.written = now;
            return Some(withheld);
        }
        if self.0.len() >= REMEMBERED {
            self.0.clear();
        }
        self.0.insert(key, Said { written: now, withheld: 0 });
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complaint_is_written_once_in_a_while() {
        let (mut seen, begin) = (Seen::default(), Instant::now());
        let mut admit =
            |line, object: &str, after: Duration| seen.admit(("basesink", line), object, begin + after);
        assert_eq!(admit(1, "a", Duration::ZERO), Some(0));
        assert_eq!(admit(1, "a", QUIET / 2), None);
        assert_eq!(admit(1, "a", QUIET / 2), None);
        assert_eq!(admit(2, "a", QUIET / 2), Some(0), "another place");
        assert_eq!(admit(1, "b", QUIET / 2), Some(0), "another object");
        assert_eq!(admit(1, "a", QUIET), Some(2));
        assert_eq!(admit(1, "a", QUIET * 2), Some(0));
    }

    #[test]
    fn memory_of_complaints_is_bounded() {
        let (mut seen, now) = (Seen::default(), Instant::now());
        for n in 0..10 * REMEMBERED {
            assert_eq!(seen.admit(("x", 1), &n.to_string(), now), Some(0));
        }
        assert!(seen.0.len() <= REMEMBERED);
    }

    #[test]
    fn what_is_on_the_bus_is_not_said_again() {
        use tracing::Level;
        assert_eq!(
            severity(DebugLevel::Warning, "basesrc", "error: Internal data stream error."),
            Level::DEBUG
        );
        assert_eq!(severity(DebugLevel::Warning, "basesink", "no clock"), Level::WARN);
        assert_eq!(severity(DebugLevel::Warning, "appsrc", "Dropping old item buffer"), Level::DEBUG);
        assert_eq!(severity(DebugLevel::Error, "v4l2", "cannot open"), Level::ERROR);
    }
}
