//! GStreamer: the elements that each kind needs, and the user's own pieces of launch lines. The daemon's own builders
//! are asked, so that this cannot say anything else than they do.

use anyhow::Context as _;

use super::Findings;
use crate::{
    config::resolved::{Config, Output, OutputKind, Source, SourceKind, Video},
    media::{element, output, source},
};

/// Elements that every run needs.
const ALWAYS: &[&str] = &["appsrc", "appsink", "avataranimate", "videoconvert", "videoscale", "capsfilter"];

/// Builds what can be built without touching a device.
pub fn check(config: &Config, findings: &mut Findings) {
    let ready = crate::cli::init_gstreamer().and_then(|()| element::require(ALWAYS));
    if let Err(error) = ready {
        return findings.error("GStreamer", format!("{error:#}"));
    }
    for (name, source) in &config.sources {
        if let Err(error) = of_source(name, source) {
            findings
                .error(format!("[sources.{name}] {}", key(is_fragment(&source.kind))), format!("{error:#}"));
        }
    }
    for (name, output) in &config.outputs {
        if let Err(error) = of_output(name, output, config.video) {
            let fragment = matches!(output.kind, OutputKind::Fragment { .. });
            findings.error(format!("[outputs.{name}] {}", key(fragment)), format!("{error:#}"));
        }
    }
}

fn is_fragment(kind: &SourceKind) -> bool {
    matches!(kind, SourceKind::Fragment { .. })
}

/// The key to blame.
fn key(fragment: bool) -> &'static str {
    if fragment { "launch" } else { "kind" }
}

fn of_source(name: &str, source: &Source) -> anyhow::Result<()> {
    match &source.kind {
        // Building it looks at the device, file or socket, which is done elsewhere.
        kind @ (SourceKind::V4l2 { .. } | SourceKind::File { .. } | SourceKind::Shm { .. }) => {
            element::require(source::required_elements(kind))
        }
        kind => source::build(name, kind).map(drop),
    }
}

fn of_output(name: &str, output: &Output, video: Video) -> anyhow::Result<()> {
    match &output.kind {
        // Likewise; and a running daemon has its socket itself.
        kind @ (OutputKind::V4l2 { .. } | OutputKind::Shm { .. }) => {
            element::require(&output::required_elements(kind))
        }
        // Building it makes the folder.
        OutputKind::Recording { directory, .. } if !directory.is_dir() => {
            element::require(&output::required_elements(&output.kind))
        }
        _ => output::build(name, output, video).map(drop).context("it cannot be built"),
    }
}
