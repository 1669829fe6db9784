//! GStreamer's and GLib's own lines, as log lines of ours.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use gst::{DebugLevel, glib};

use crate::config::mask::masked;

/// A line from one place in the source that repeats is written again after this time, and each time after twice as
/// long as before: an element that complains about every buffer, or at every attempt to open it, must not fill the disk.
const QUIET: Duration = Duration::from_secs(10);
/// Longest time between two such lines.
const LONGEST_QUIET: Duration = Duration::from_secs(600);
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
        let Some(text) = message.get().map(|text| masked(&text)) else { return };
        let object = object.map(|object| object.to_string()).filter(|name| !name.is_empty());
        let object = object.map(|name| format!("{name}: ")).unwrap_or_default();
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
        write(level, domain.unwrap_or("glib"), &masked(message));
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
    /// Written or withheld.
    seen: Instant,
    /// From the last line to the next.
    quiet: Duration,
    /// Not written since.
    withheld: u64,
}

impl Seen {
    /// Whether a line is to be written now, and how often it was withheld since it was written last.
    fn admit(&mut self, (category, line): (&str, u32), object: &str, now: Instant) -> Option<u64> {
        let key = (category.to_owned(), line, without_numbers(object));
        if let Some(said) = self.0.get_mut(&key) {
            let since = |then: Instant| now.saturating_duration_since(then);
            let is_over = since(said.seen) > 2 * said.quiet;
            said.seen = now;
            if since(said.written) < said.quiet {
                said.withheld += 1;
                return None;
            }
            said.quiet = if is_over { QUIET } else { (2 * said.quiet).min(LONGEST_QUIET) };
            said.written = now;
            return Some(std::mem::take(&mut said.withheld));
        }
        if self.0.len() >= REMEMBERED {
            self.0.clear();
        }
        self.0.insert(key, Said { written: now, seen: now, quiet: QUIET, withheld: 0 });
        Some(0)
    }
}

/// An object's name as its successor has it, too: a source that is opened again is made of new elements, whose names
/// differ in their numbers.
fn without_numbers(object: &str) -> String {
    let parts = object.split_inclusive(|c: char| !c.is_ascii_alphanumeric());
    parts
        .map(|part| {
            let end = part.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(part.len());
            part[..end].trim_end_matches(|c: char| c.is_ascii_digit()).to_owned() + &part[end..]
        })
        .collect()
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
        // The longer it goes on, the more rarely.
        assert_eq!(admit(1, "a", 2 * QUIET), None);
        assert_eq!(admit(1, "a", 3 * QUIET), Some(1));
        assert_eq!(admit(1, "a", 6 * QUIET), None);
        assert_eq!(admit(1, "a", 7 * QUIET), Some(1));
        // Until it has ended.
        assert_eq!(admit(1, "a", 100 * QUIET), Some(0));
        assert_eq!(admit(1, "a", 101 * QUIET), Some(0));
    }

    #[test]
    fn a_source_that_is_tried_for_hours_says_so_a_few_times() {
        let (mut seen, begin) = (Seen::default(), Instant::now());
        let lines = (0..3600).filter(|second| {
            let object = format!("rtspsrc{second}: ");
            seen.admit(("rtspsrc", 1), &object, begin + Duration::from_secs(*second)).is_some()
        });
        // After 0, 10, 30, 70, 150, 310, 630 seconds, and then every ten minutes.
        assert_eq!(lines.count(), 11);
        assert_eq!(without_numbers("videoconvert11:sink_2 "), "videoconvert:sink_ ");
    }

    #[test]
    fn memory_of_complaints_is_bounded() {
        let (mut seen, now) = (Seen::default(), Instant::now());
        for n in 0..10 * REMEMBERED as u32 {
            assert_eq!(seen.admit(("x", n), "a", now), Some(0));
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
