//! How a line looks on standard error.

use std::fmt;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::Writer,
        time::{FormatTime, SystemTime},
    },
    registry::LookupSpan,
};

/// Time, level, whose line it is if not the daemon's own, message, fields.
pub struct Lines;

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let (level, is_terminal) = (*event.metadata().level(), writer.has_ansi_escapes());
        SystemTime.format_time(&mut writer)?;
        if is_terminal {
            write!(writer, " \u{1b}[{}m{level:>5}\u{1b}[0m ", colour(level))?;
        } else {
            write!(writer, " {level:>5} ")?;
        }
        if let Some(target) = target(event.metadata().target(), level) {
            write!(writer, "{target}: ")?;
        }
        context.format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

/// The daemon's own lines speak for themselves; of others' the crate is enough. Who debugs needs the module, to filter
/// by it.
fn target(target: &str, level: Level) -> Option<&str> {
    if level > Level::INFO {
        return Some(target);
    }
    let name = target.split("::").next().unwrap_or(target);
    (!name.starts_with("keyframed") && name != "gstkeyframed").then_some(name)
}

fn colour(level: Level) -> u8 {
    match level {
        Level::ERROR => 31,
        Level::WARN => 33,
        Level::INFO => 32,
        _ => 34,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_others_lines_say_whose_they_are() {
        assert_eq!(target("keyframed::telemetry::events", Level::WARN), None);
        assert_eq!(target("keyframed_models::device", Level::INFO), None);
        assert_eq!(target("gstreamer", Level::ERROR), Some("gstreamer"));
        assert_eq!(target("zeromq::codec::framed", Level::WARN), Some("zeromq"));
        assert_eq!(target("keyframed::control", Level::DEBUG), Some("keyframed::control"));
    }
}
