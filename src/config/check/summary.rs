//! What would run, for people and for programs. Secrets and what may hold them are left out.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::Finding;
use crate::config::{
    mask::{host, masked},
    resolved::{Capture, Config, OutputKind, Secret, SourceKind},
};

/// As JSON.
pub fn summary(config: &Config) -> Value {
    let video = config.video;
    let sources = config.sources.iter().map(|(name, source)| {
        (name.clone(), json!({"kind": source.kind.name(), "from": from(&source.kind)}))
    });
    let pipelines = config.pipelines.iter().map(|(name, pipeline)| {
        let animation = &pipeline.animation;
        (
            name.clone(),
            json!({
                "source": pipeline.source,
                "model": animation.model,
                "reference": animation.reference.as_ref().map(|path| path.display().to_string()),
                "starts": *name == config.pipeline,
            }),
        )
    });
    let outputs = config.outputs.iter().map(|(name, output)| {
        let (width, height) = output.size.unwrap_or((video.width, video.height));
        let shown =
            json!({"kind": output.kind.name(), "to": to(&output.kind), "width": width, "height": height});
        (name.clone(), shown)
    });
    json!({
        "video": {"width": video.width, "height": video.height, "frame_rate_hz": video.rate.to_string()},
        "sources": sources.collect::<serde_json::Map<_, _>>(),
        "pipelines": pipelines.collect::<serde_json::Map<_, _>>(),
        "outputs": outputs.collect::<serde_json::Map<_, _>>(),
        "control": {
            "endpoint": config.control.endpoint,
            "telemetry_endpoint": config.control.telemetry_endpoint,
            "tcp": config.control.tcp,
            "telemetry_tcp": config.control.telemetry_tcp,
        },
        "metrics": config.metrics,
    })
}

/// As text: what would run, then what was found.
pub fn text(config: &Config, findings: &[Finding]) -> String {
    let mut text = String::new();
    let mut line = |what: &str, how: String| {
        let _ = writeln!(text, "{what:28} {how}");
    };
    let file =
        config.file.as_ref().map_or_else(|| "built-in defaults".into(), |file| file.display().to_string());
    line("configuration", file);
    let video = config.video;
    line("video", format!("{}x{} at {}", video.width, video.height, video.rate));
    for (name, source) in &config.sources {
        line(&format!("source {name}"), format!("{} {}", source.kind.name(), from(&source.kind)));
    }
    for (name, pipeline) in &config.pipelines {
        let animation = &pipeline.animation;
        let reference = animation
            .reference
            .as_ref()
            .map_or_else(|| "the model's first picture".to_owned(), |path| path.display().to_string());
        let starts = if *name == config.pipeline { " (runs at start)" } else { "" };
        let how = format!("{} by {}, {reference}{starts}", pipeline.source, animation.model);
        line(&format!("pipeline {name}"), how);
    }
    for (name, output) in &config.outputs {
        let size = output.size.map(|(width, height)| format!(", {width}x{height}")).unwrap_or_default();
        line(&format!("output {name}"), format!("{} {}{size}", output.kind.name(), to(&output.kind)));
    }
    if config.outputs.is_empty() {
        line("outputs", "none: the picture goes nowhere but to `keyframedctl snapshot`".into());
    }
    line("control", config.control.endpoint.clone());
    for finding in findings {
        let _ = writeln!(text, "{finding}");
    }
    text
}

impl SourceKind {
    /// Value of `kind` in the file.
    pub fn name(&self) -> &'static str {
        match self {
            Self::File { .. } => "file",
            Self::TestFigure { .. } => "test-figure",
            Self::V4l2 { .. } => "v4l2",
            Self::Rtsp { .. } => "rtsp",
            Self::SrtListener { .. } => "srt-listener",
            Self::SrtCaller { .. } => "srt-caller",
            Self::Rtmp { .. } => "rtmp",
            Self::Udp { .. } => "udp",
            Self::Shm { .. } => "shm",
            Self::Pipewire { .. } => "pipewire",
            Self::Fragment { .. } => "fragment",
        }
    }
}

impl OutputKind {
    /// Value of `kind` in the file.
    pub fn name(&self) -> &'static str {
        match self {
            Self::V4l2 { .. } => "v4l2",
            Self::Pipewire { .. } => "pipewire",
            Self::SrtListener { .. } => "srt-listener",
            Self::SrtCaller { .. } => "srt-caller",
            Self::Rtmp { .. } => "rtmp",
            Self::Rtsp { .. } => "rtsp",
            Self::Udp { .. } => "udp",
            Self::Shm { .. } => "shm",
            Self::Recording { .. } => "recording",
            Self::Window => "window",
            Self::Fragment { .. } => "fragment",
        }
    }
}

fn from(kind: &SourceKind) -> String {
    match kind {
        SourceKind::File { path, repeat } => {
            format!("{}{}", path.display(), if *repeat { ", repeated" } else { "" })
        }
        SourceKind::TestFigure { pattern, capture, .. } => format!("{pattern}{}", size(capture)),
        SourceKind::V4l2 { device, capture } => format!("{}{}", device.display(), size(capture)),
        SourceKind::Rtsp { url, .. } | SourceKind::Rtmp { url } => host(url),
        SourceKind::SrtListener { address, passphrase, .. } => format!("{address}{}", encrypted(passphrase)),
        SourceKind::SrtCaller { peer, passphrase, .. } => format!("{peer}{}", encrypted(passphrase)),
        SourceKind::Udp { address } => address.to_string(),
        SourceKind::Shm { socket, width, height, rate } => {
            format!("{}, {width}x{height} at {rate}", socket.display())
        }
        SourceKind::Pipewire { target } => target.clone().unwrap_or_else(|| "any node".into()),
        SourceKind::Fragment { launch } => masked(launch),
    }
}

fn to(kind: &OutputKind) -> String {
    match kind {
        OutputKind::V4l2 { device } => device.display().to_string(),
        OutputKind::Pipewire { name } => name.clone(),
        OutputKind::SrtListener { address, passphrase, .. } => format!("{address}{}", encrypted(passphrase)),
        OutputKind::SrtCaller { peer, passphrase, .. } => format!("{peer}{}", encrypted(passphrase)),
        OutputKind::Rtmp { url } | OutputKind::Rtsp { url } => host(url),
        OutputKind::Udp { address } => address.to_string(),
        OutputKind::Shm { socket } => socket.display().to_string(),
        OutputKind::Recording { directory, .. } => directory.display().to_string(),
        OutputKind::Window => String::new(),
        OutputKind::Fragment { launch } => masked(launch),
    }
}

fn size(capture: &Capture) -> String {
    let size = capture.width.zip(capture.height).map(|(width, height)| format!(", {width}x{height}"));
    let rate = capture.rate.map(|rate| format!(" at {rate}"));
    size.unwrap_or_default() + &rate.unwrap_or_default()
}

fn encrypted(passphrase: &Option<Secret>) -> &'static str {
    if passphrase.is_some() { ", encrypted" } else { "" }
}
