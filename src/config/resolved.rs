//! The resolved form: what the daemon runs on. Everything is checked, defaults are filled in, names point at
//! something; constructors take these plain structs and validate nothing again.
//!
//! Equality is what reload goes by: a part whose struct did not change is not restarted.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use keyframed_control::types::Params;
use keyframed_engine::Rate;

use super::mask::MASK;

/// A whole configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// File it was read from; `None` for the built-in defaults.
    pub file: Option<PathBuf>,
    /// Picture that all outputs share.
    pub video: Video,
    /// By name; never empty.
    pub sources: BTreeMap<String, Source>,
    /// By name; never empty. Each names an existing source.
    pub pipelines: BTreeMap<String, Pipeline>,
    /// The one that runs at start: a key of `pipelines`.
    pub pipeline: String,
    /// Folders that `reference.set` may take pictures from, and where names are looked up, in order.
    pub gallery: Vec<PathBuf>,
    /// What is shown while there is nothing else to show.
    pub slate: Slate,
    /// By name; those that are switched off are not here.
    pub outputs: BTreeMap<String, Output>,
    /// Control and telemetry sockets.
    pub control: Control,
    /// Address of the Prometheus endpoint; `None`: none.
    pub metrics: Option<SocketAddr>,
    /// What is logged, and where to.
    pub log: Log,
}

/// Size and rate of the picture that all outputs share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Video {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// Frames a second, constant.
    pub rate: Rate,
}

/// Where pose frames come from.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    /// What it is.
    pub kind: SourceKind,
    /// Without a frame for so long it counts as lost and is opened again.
    pub timeout: Duration,
    /// Shortest and longest pause before it is opened again; each failure doubles the pause.
    pub retry: (Duration, Duration),
}

/// Size and rate asked of a source; what is `None` is left to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Capture {
    /// Pixels.
    pub width: Option<u32>,
    /// Pixels.
    pub height: Option<u32>,
    /// Frames a second.
    pub rate: Option<Rate>,
}

/// Kinds of source, with what each needs.
#[derive(Debug, Clone, PartialEq)]
pub enum SourceKind {
    /// A video file, played at its own speed.
    File { path: PathBuf, repeat: bool },
    /// `denseposetestsrc`.
    TestFigure { pattern: String, seed: u32, capture: Capture },
    /// A V4L2 device such as `/dev/video0`.
    V4l2 { device: PathBuf, capture: Capture },
    /// An RTSP server; `tcp` interleaves the stream with the session.
    Rtsp { url: String, latency: Duration, tcp: bool },
    /// Waits for an SRT sender.
    SrtListener { address: SocketAddr, latency: Duration, passphrase: Option<Secret> },
    /// Calls an SRT listener: `host:port`.
    SrtCaller { peer: String, latency: Duration, passphrase: Option<Secret>, stream_id: Option<String> },
    /// An RTMP server.
    Rtmp { url: String },
    /// MPEG-TS over UDP, unicast or multicast.
    Udp { address: SocketAddr },
    /// Raw RGB from GStreamer's `shmsink`.
    Shm { socket: PathBuf, width: u32, height: u32, rate: Rate },
    /// A PipeWire node, by name or serial; `None`: the one the session manager picks.
    Pipewire { target: Option<String> },
    /// Any piece of a `gst-launch-1.0` line that ends in raw or encoded video.
    Fragment { launch: String },
}

/// A source and how it is animated.
#[derive(Debug, Clone, PartialEq)]
pub struct Pipeline {
    /// A key of [`Config::sources`].
    pub source: String,
    /// How it is animated.
    pub animation: Animation,
}

/// The animation: what cannot change while it runs, and what can.
#[derive(Debug, Clone, PartialEq)]
pub struct Animation {
    /// Model directory or the name of an installed model.
    pub model: String,
    /// `auto`, `cpu`, `cuda`, `cuda:N`.
    pub device: String,
    /// `auto`, `f32`, `bf16`, `f16`.
    pub dtype: String,
    /// `cache`, `recompute`.
    pub context_mode: String,
    /// `sequential`, `pipelined`.
    pub schedule: String,
    /// What the text encoder reads; empty for nothing.
    pub prompt: String,
    /// Picture to start with, found in the gallery or among the model's avatars; `None`: the model's first.
    pub reference: Option<PathBuf>,
    /// What can change between two frames; the ranges are those of the elements' properties.
    pub params: Params,
}

impl Animation {
    /// Whether an animation of the one kind can become the other while it runs.
    pub fn has_same_networks(&self, other: &Self) -> bool {
        let fixed = |a: &Self| {
            [&a.model, &a.device, &a.dtype, &a.context_mode, &a.schedule, &a.prompt].map(String::clone)
        };
        fixed(self) == fixed(other)
    }
}

/// What is shown when a source is lost for longer than `after`, and before the first picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Slate {
    /// A picture file; `None`: one drawn by keyframed.
    pub picture: Option<PathBuf>,
    /// How long the last frame is shown first.
    pub after: Duration,
}

/// Where the video goes.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    /// What it is.
    pub kind: OutputKind,
    /// Pixels; `None`: as [`Video`].
    pub size: Option<(u32, u32)>,
    /// H.264 settings, where the output has an encoder.
    pub encoder: Encoder,
    /// Draws the time of the pose shown as a strip of black and white cells, for measuring delay.
    pub timecode: bool,
    /// Shortest and longest pause before it is opened again after a failure.
    pub retry: (Duration, Duration),
}

/// H.264 settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Encoder {
    /// Kilobits a second.
    pub bitrate_kbps: u32,
    /// Longest time between intra frames: what a viewer waits for who joins late.
    pub key_interval: Duration,
}

/// Kinds of output, with what each needs.
#[derive(Debug, Clone, PartialEq)]
pub enum OutputKind {
    /// A v4l2loopback device.
    V4l2 { device: PathBuf },
    /// A PipeWire node of class Video/Source.
    Pipewire { name: String },
    /// Waits for SRT callers, such as OBS.
    SrtListener { address: SocketAddr, latency: Duration, passphrase: Option<Secret> },
    /// Calls an SRT listener: `host:port`.
    SrtCaller { peer: String, latency: Duration, passphrase: Option<Secret>, stream_id: Option<String> },
    /// Publishes to an RTMP server (or to OBS that listens).
    Rtmp { url: String },
    /// Publishes to an RTSP server.
    Rtsp { url: String },
    /// MPEG-TS over UDP.
    Udp { address: SocketAddr },
    /// Raw RGB for GStreamer's `shmsrc`.
    Shm { socket: PathBuf },
    /// Fragmented MP4 into `directory`, a new file at each start and after `rotate`; named by UTC time.
    Recording { directory: PathBuf, fragment: Duration, rotate: Option<Duration> },
    /// A window on the desktop.
    Window,
    /// Any piece of a `gst-launch-1.0` line that takes raw video and ends in sinks.
    Fragment { launch: String },
}

/// Control plane.
#[derive(Debug, Clone, PartialEq)]
pub struct Control {
    /// ZeroMQ endpoint of the ROUTER socket that answers requests, e.g. `ipc:///run/keyframed/control.sock`.
    pub endpoint: String,
    /// ZeroMQ endpoint of the PUB socket for telemetry, e.g. `ipc:///run/keyframed/telemetry.sock`.
    pub telemetry_endpoint: String,
    /// Further TCP addresses for requests and telemetry, if any.
    pub tcp: Option<SocketAddr>,
    /// Further TCP address for telemetry, if any.
    pub telemetry_tcp: Option<SocketAddr>,
    /// Token that TCP clients must show; required beyond loopback.
    pub token: Option<Token>,
    /// Permissions of the sockets' files.
    pub mode: u32,
}

/// A secret read from a file; never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(pub String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(MASK)
    }
}

/// A passphrase read from a file; never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(MASK)
    }
}

impl std::ops::Deref for Secret {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<T: Into<String>> From<T> for Secret {
    fn from(text: T) -> Self {
        Self(text.into())
    }
}

/// Logging.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// Filter as in `RUST_LOG`: `info`, `debug`, `keyframed=debug,warn` …
    pub level: String,
    /// Where lines go.
    pub target: LogTarget,
    /// JSON objects instead of text, on standard error.
    pub json: bool,
}

/// Where lines go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogTarget {
    /// journald if started by systemd, else standard error.
    Auto,
    /// journald.
    Journald,
    /// Standard error.
    Stderr,
}
