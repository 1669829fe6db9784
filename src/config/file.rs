//! The file's form: which tables there are, which keys they have and which values those take. Nothing is filled in
//! and nothing is looked up yet.

use std::{collections::BTreeMap, net::IpAddr, net::SocketAddr, path::PathBuf, time::Duration};

use keyframed_control::types::MaxQuality;
use keyframed_engine::Rate;
use keyframed_models::{DeviceChoice, DtypeChoice};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    problems::Problems,
    resolved::LogTarget,
    table::{At, Place, Reader, table},
    take::{self, shown, text},
};
use crate::telemetry::log::check_level;

table! {
    /// `[video]`
    Video {
        width: u32 = take::side(),
        height: u32 = take::side(),
        frame_rate_hz: Rate = take::rate(),
    }
}

table! {
    /// `[sources.NAME]`: the keys of all kinds; `kinds` says which takes which.
    Source {
        kind: String = take::text("a kind of source"),
        path: PathBuf = take::path(),
        repeat: bool = take::flag(),
        pattern: &'static str = take::choice(&PATTERNS),
        seed: u32 = take::whole(0, u32::MAX, ""),
        width: u32 = take::whole(16, 8192, "pixels"),
        height: u32 = take::whole(16, 8192, "pixels"),
        frame_rate_hz: Rate = take::rate(),
        device: PathBuf = take::path(),
        url: String = take::url(&["rtsp", "rtsps", "rtmp", "rtmps"]),
        address: IpAddr = take::ip(),
        port: u16 = take::port(),
        peer: String = take::peer(),
        latency_ms: Duration = take::millis(0, 60_000),
        transport: bool = take::choice(&[("tcp", true), ("udp", false)]),
        passphrase_file: PathBuf = take::path(),
        stream_id: String = take::text("an SRT stream id"),
        socket_path: PathBuf = take::path(),
        target: String = take::text("name or serial of a PipeWire node"),
        launch: String = take::launch(),
        timeout_ms: Duration = take::millis(100, 3_600_000),
        retry_min_ms: Duration = take::millis(10, 3_600_000),
        retry_max_ms: Duration = take::millis(10, 3_600_000),
    }
}

/// What the test figure can do.
const PATTERNS: [(&str, &str); 5] =
    [("walk", "walk"), ("dance", "dance"), ("wave", "wave"), ("spin", "spin"), ("still", "still")];

table! {
    /// `[animation]` and `[pipelines.NAME.animation]`. The ranges are those of the elements' properties.
    Animation {
        model: String = take::text("name or directory of a model"),
        device: String = take::checked("a device: auto, cpu, cuda or cuda:N", is_device),
        dtype: String = take::checked("a number format: auto, f32, bf16 or f16", is_dtype),
        context_mode: &'static str = take::choice(&[("cache", "cache"), ("recompute", "recompute")]),
        schedule: &'static str = take::choice(&[("sequential", "sequential"), ("pipelined", "pipelined")]),
        prompt: String = take::line("what the text encoder reads"),
        reference: String = take::text("a picture's name or path"),
        lambda: f64 = take::number(0.0, 1.0),
        window_frames: u32 = take::whole(1, u32::MAX, "frames"),
        target_key_rate_hz: f64 = take::number(0.0, 1000.0),
        steps: u32 = take::whole(1, 50, ""),
        guidance_scale: f64 = take::number(0.0, 30.0),
        lora_scale: f64 = take::number(0.0, 30.0),
        context_frames: u32 = take::whole(0, 23, "frames"),
        seed: u64 = take::whole(0, u64::MAX, ""),
        latency_ms: u64 = take::whole(0, 60_000, "milliseconds"),
        max_quality: MaxQuality = take::choice(&QUALITIES),
    }
}

/// Rungs of the quality ladder, best first.
const QUALITIES: [(&str, MaxQuality); 4] = [
    ("film", MaxQuality::Film),
    ("warp", MaxQuality::Warp),
    ("crossfade", MaxQuality::Crossfade),
    ("repeat", MaxQuality::Repeat),
];

fn is_device(name: &str) -> Result<(), String> {
    name.parse::<DeviceChoice>().map(drop).map_err(|error| error.to_string())
}

fn is_dtype(name: &str) -> Result<(), String> {
    name.parse::<DtypeChoice>().map(drop).map_err(|error| error.to_string())
}

table! {
    /// `[gallery]`
    Gallery {
        directories: Vec<PathBuf> = take::paths(),
    }
}

table! {
    /// `[slate]`
    Slate {
        picture: PathBuf = take::path(),
        after_ms: Duration = take::millis(0, 3_600_000),
    }
}

table! {
    /// `[outputs.NAME]`: the keys of all kinds; `kinds` says which takes which.
    Output {
        kind: String = take::text("a kind of output"),
        enabled: bool = take::flag(),
        width: u32 = take::side(),
        height: u32 = take::side(),
        bitrate_kbps: u32 = take::whole(100, 100_000, "kilobits a second"),
        key_interval_ms: Duration = take::millis(100, 60_000),
        timecode: bool = take::flag(),
        device: PathBuf = take::path(),
        node_name: String = take::text("a name for the PipeWire node"),
        address: IpAddr = take::ip(),
        port: u16 = take::port(),
        latency_ms: Duration = take::millis(0, 60_000),
        passphrase_file: PathBuf = take::path(),
        peer: String = take::peer(),
        stream_id: String = take::text("an SRT stream id"),
        url: String = take::url(&["rtmp", "rtmps", "rtsp", "rtsps"]),
        socket_path: PathBuf = take::path(),
        directory: PathBuf = take::path(),
        fragment_ms: Duration = take::millis(100, 60_000),
        rotate_min: Duration = take::minutes(1, 10_080),
        launch: String = take::launch(),
        retry_min_ms: Duration = take::millis(10, 3_600_000),
        retry_max_ms: Duration = take::millis(10, 3_600_000),
    }
}

table! {
    /// `[control]`
    Control {
        endpoint: String = take::text("an endpoint such as \"ipc:///run/keyframed/control.sock\""),
        telemetry_endpoint: String = take::text("an endpoint such as \"ipc:///run/keyframed/telemetry.sock\""),
        tcp: SocketAddr = take::socket(),
        telemetry_tcp: SocketAddr = take::socket(),
        token_file: PathBuf = take::path(),
        mode: u32 = take::mode(),
    }
}

table! {
    /// `[metrics]`
    Metrics {
        listen: SocketAddr = take::socket(),
        allow_remote: bool = take::flag(),
    }
}

table! {
    /// `[log]`
    Log {
        level: String = take::checked("a filter such as \"info\"", check_level),
        target: LogTarget = take::choice(&TARGETS),
        json: bool = take::flag(),
    }
}

/// Where lines go.
const TARGETS: [(&str, LogTarget); 3] =
    [("auto", LogTarget::Auto), ("journald", LogTarget::Journald), ("stderr", LogTarget::Stderr)];

/// `[pipelines.NAME]`
#[derive(Debug, Clone, Default)]
pub struct Pipeline {
    /// Where it was found.
    pub place: Place,
    /// Its source.
    pub source: Option<At<String>>,
    /// Whether there is one, rightly or wrongly.
    pub has_source: bool,
    /// What differs from `[animation]`.
    pub animation: Animation,
}

impl Pipeline {
    const KEYS: &'static [&'static str] = &["source", "animation"];

    fn read(place: Place, table: &DeTable<'_>, problems: &mut Problems) -> Self {
        let label = format!("{}.animation]", place.label.trim_end_matches(']'));
        let animation = sub(table, "animation", &label, problems, Animation::read);
        let mut reader = Reader::new(table, &place, problems);
        let source = reader.take("source", text("name of a source"));
        let has_source = !reader.finish(Self::KEYS).is_empty();
        Self { animation, source, has_source, place }
    }
}

/// The whole file.
#[derive(Debug, Clone, Default)]
pub struct File {
    /// Name of the pipeline that runs at start.
    pub pipeline: Option<At<String>>,
    pub video: Video,
    pub sources: BTreeMap<String, Source>,
    pub animation: Animation,
    pub gallery: Gallery,
    pub slate: Slate,
    pub pipelines: BTreeMap<String, Pipeline>,
    pub outputs: BTreeMap<String, Output>,
    pub control: Control,
    pub metrics: Metrics,
    pub log: Log,
}

/// Tables of the file and their keys.
pub const SECTIONS: &[(&str, &[&str])] = &[
    ("", TOP),
    ("[video]", Video::KEYS),
    ("[sources.NAME]", Source::KEYS),
    ("[animation]", Animation::KEYS),
    ("[gallery]", Gallery::KEYS),
    ("[slate]", Slate::KEYS),
    ("[pipelines.NAME]", Pipeline::KEYS),
    ("[outputs.NAME]", Output::KEYS),
    ("[control]", Control::KEYS),
    ("[metrics]", Metrics::KEYS),
    ("[log]", Log::KEYS),
];

/// What stands at the top.
const TOP: &[&str] = &[
    "pipeline",
    "video",
    "sources",
    "animation",
    "gallery",
    "slate",
    "pipelines",
    "outputs",
    "control",
    "metrics",
    "log",
];

/// Longest name of a source, pipeline or output.
const LONGEST_NAME: usize = 64;

impl File {
    /// Reads the file's text; what is wrong goes to `problems`, and what is right is returned all the same.
    pub fn read(text: &str, problems: &mut Problems) -> Self {
        let (table, errors) = DeTable::parse_recoverable(text);
        // The first alone: what comes after is often its consequence.
        if let Some(error) = errors.first() {
            let line = error.span().map(|span| problems.line(&span));
            problems.add(line, format!("this is not TOML: {}", error.message()));
        }
        // After a syntax error the rest may mean anything: errors about it would mislead.
        if errors.is_empty() { Self::from_table(table.get_ref(), problems) } else { Self::default() }
    }

    fn from_table(table: &DeTable<'_>, problems: &mut Problems) -> Self {
        let top = Place::default();
        let mut reader = Reader::new(table, &top, problems);
        let pipeline = reader.take("pipeline", text("name of a pipeline"));
        reader.finish(TOP);
        Self {
            pipeline,
            video: sub(table, "video", "[video]", problems, Video::read),
            sources: named(table, "sources", problems, Source::read),
            animation: sub(table, "animation", "[animation]", problems, Animation::read),
            gallery: sub(table, "gallery", "[gallery]", problems, Gallery::read),
            slate: sub(table, "slate", "[slate]", problems, Slate::read),
            pipelines: named(table, "pipelines", problems, Pipeline::read),
            outputs: named(table, "outputs", problems, Output::read),
            control: sub(table, "control", "[control]", problems, Control::read),
            metrics: sub(table, "metrics", "[metrics]", problems, Metrics::read),
            log: sub(table, "log", "[log]", problems, Log::read),
        }
    }
}

type Read<T> = fn(Place, &DeTable<'_>, &mut Problems) -> T;

/// The table `key`, or an empty one.
fn sub<T: Default>(table: &DeTable<'_>, key: &str, label: &str, problems: &mut Problems, read: Read<T>) -> T {
    let Some((key, value)) = table.get_key_value(key) else { return T::default() };
    let place = Place { label: label.into(), line: Some(problems.line(&key.span())) };
    of_table(value, place, problems, read).unwrap_or_default()
}

fn of_table<T>(
    value: &Spanned<DeValue<'_>>,
    place: Place,
    problems: &mut Problems,
    read: Read<T>,
) -> Option<T> {
    match value.get_ref().as_table() {
        Some(table) => Some(read(place, table, problems)),
        None => {
            let found = shown(value.get_ref());
            problems.add(place.line, format!("{} must be a table, not {found}", place.label));
            None
        }
    }
}

/// The tables `[key.NAME]`.
fn named<T>(table: &DeTable<'_>, key: &str, problems: &mut Problems, read: Read<T>) -> BTreeMap<String, T> {
    let Some((own, value)) = table.get_key_value(key) else { return BTreeMap::new() };
    let Some(tables) = value.get_ref().as_table() else {
        let line = problems.line(&own.span());
        problems.add(line, format!("{key} are written as tables with a name: [{key}.NAME]"));
        return BTreeMap::new();
    };
    let mut all = BTreeMap::new();
    for (name, value) in tables {
        let line = problems.line(&name.span());
        let name = name.get_ref().to_string();
        let label: String = name.chars().take(LONGEST_NAME).collect();
        let place = Place { label: format!("[{key}.{}]", label.escape_debug()), line: Some(line) };
        if !is_name(&name) {
            let rule = format!("names have 1 to {LONGEST_NAME} letters, digits, - and _");
            problems.add(line, format!("{} cannot be called so: {rule}", place.label));
        }
        all.extend(of_table(value, place, problems, read).map(|value| (name, value)));
    }
    all
}

/// Names go into file names, metrics and GStreamer's element names.
fn is_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    (1..=LONGEST_NAME).contains(&name.len()) && name.chars().all(fits)
}
