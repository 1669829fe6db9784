//! Events. Each is one call, and that call writes the log line, counts it and publishes it: the three cannot drift,
//! and nothing is told twice.

use std::time::Instant;

use keyframed_control::types::{Event, Level};
use tokio::sync::broadcast;

use crate::{config::mask::masked, daemon::handle::Telemetry};

macro_rules! kinds {
    ($($(#[$doc:meta])+ $variant:ident = $name:literal, $level:ident;)+) => {
        /// What can happen. Names and levels stand in one table.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Kind {
            $($(#[$doc])+ $variant,)+
        }

        impl Kind {
            /// All kinds.
            #[cfg(test)]
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The name on the wire.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// How bad it is.
            pub fn level(self) -> Level {
                match self {
                    $(Self::$variant => Level::$level,)+
                }
            }
        }
    };
}

kinds! {
    /// The first frame went to the outputs.
    Started = "started", Info;
    /// The daemon ends.
    Stopping = "stopping", Info;
    /// A source gives frames.
    SourceRunning = "source-running", Info;
    /// A source failed or fell silent; it is tried again.
    SourceLost = "source-lost", Warning;
    /// An output takes frames.
    OutputRunning = "output-running", Info;
    /// An output failed or stalled; it is tried again.
    OutputLost = "output-lost", Warning;
    /// A recording begins a file.
    RecordingFile = "recording-file", Info;
    /// The model is loaded.
    ModelLoaded = "model-loaded", Info;
    /// The animation failed; it is started anew.
    AnimationLost = "animation-lost", Error;
    /// The animation goes on without something.
    AnimationWarning = "animation-warning", Warning;
    /// A key frame could not be made.
    KeyframeFailed = "keyframe-failed", Warning;
    /// The outputs carry something else: the animation, the last frame, the slate.
    ShowingChanged = "showing-changed", Info;
    /// Parameters changed.
    ParamsChanged = "params-changed", Info;
    /// Another reference picture is in force.
    ReferenceChanged = "reference-changed", Info;
    /// A reference picture was refused; the old one stays.
    ReferenceRefused = "reference-refused", Warning;
    /// Another pipeline runs.
    PipelineSwitched = "pipeline-switched", Info;
    /// Generating is paused.
    Paused = "paused", Info;
    /// Generating goes on.
    Resumed = "resumed", Info;
    /// A changed configuration is in force.
    Reloaded = "reloaded", Info;
    /// A configuration was refused; the old one stays.
    ReloadRefused = "reload-refused", Error;
    /// Memory ran out; key frames are made by settings that need less.
    MemoryShort = "memory-short", Warning;
    /// A rung of the quality ladder was taken for lack of time, or left again.
    RungChanged = "rung-changed", Info;
}

/// Tells events to log, metrics and telemetry; cheap to clone.
#[derive(Debug, Clone)]
pub struct Events {
    started: Instant,
    telemetry: broadcast::Sender<Telemetry>,
}

impl Events {
    /// Times are told from `started` on.
    pub fn new(started: Instant, telemetry: broadcast::Sender<Telemetry>) -> Self {
        Self { started, telemetry }
    }

    /// Tells one event. `part` is the part it happened to, such as `output obs`; `message` one sentence.
    pub fn emit(&self, kind: Kind, part: Option<&str>, message: impl Into<String>) {
        // GStreamer's reasons are among them, and in those the URLs of others.
        let message = masked(&message.into());
        let (name, level) = (kind.name(), kind.level());
        match level {
            Level::Info => tracing::info!(event = name, part, "{message}"),
            Level::Warning => tracing::warn!(event = name, part, "{message}"),
            Level::Error => tracing::error!(event = name, part, "{message}"),
        }
        metrics::counter!("keyframed_events_total", "kind" => name, "level" => level_name(level))
            .increment(1);
        let uptime_secs = self.started.elapsed().as_secs_f64();
        let part = part.map(str::to_owned);
        // Nobody listening is no error.
        let _ = self.telemetry.send(Telemetry::Event(Event {
            uptime_secs,
            level,
            kind: name.into(),
            part,
            message,
        }));
    }
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::Info => "info",
        Level::Warning => "warning",
        Level::Error => "error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_and_an_event_reaches_telemetry_once() {
        let mut names: Vec<&str> = Kind::ALL.iter().map(|k| k.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Kind::ALL.len());

        let (sender, mut receiver) = broadcast::channel(8);
        let events = Events::new(Instant::now(), sender);
        events.emit(Kind::OutputLost, Some("output obs"), "nobody answers at rtmp://h/app/secret-key");
        let Ok(Telemetry::Event(event)) = receiver.try_recv() else { panic!("no event") };
        assert_eq!((event.kind.as_str(), event.level), ("output-lost", Level::Warning));
        assert_eq!(event.part.as_deref(), Some("output obs"));
        assert_eq!(event.message, "nobody answers at rtmp://h/…", "no secrets");
        assert!(receiver.try_recv().is_err());
    }
}
