//! Sources: from a kind and what it needs to a bin that gives raw video.
//!
//! A kind is a function of `sources/`, and a line in each of the tables here. What a source adds between a frame's
//! arrival at this machine and the animation:
//!
//! | kind | delay |
//! |---|---|
//! | file, test-figure | none: played at its own speed |
//! | v4l2, pipewire, shm, udp, rtmp | none but decoding: a frame goes on when it is decoded |
//! | srt-listener, srt-caller | `latency_ms`, SRT's own buffer for retransmission |
//! | rtsp | `latency_ms`, the jitter buffer |
//! | fragment | what its own elements report |

use gst::prelude::*;

use super::{
    element::{self},
    sources::{local, network},
};
use crate::config::resolved::SourceKind;

/// Builds the bin: its pad `src` gives raw video of any format, size and rate, and both may change.
///
/// # Errors
/// If an element is missing (naming the Debian package that brings it), or refuses a setting.
pub fn build(name: &str, kind: &SourceKind) -> anyhow::Result<gst::Element> {
    element::require(required_elements(kind))?;
    let bin = match kind {
        SourceKind::File { path, .. } => local::file(path),
        SourceKind::TestFigure { pattern, seed, capture } => local::test_figure(pattern, *seed, *capture),
        SourceKind::V4l2 { device, capture } => local::v4l2(device, *capture),
        SourceKind::Shm { socket, width, height, rate } => local::shm(socket, *width, *height, *rate),
        SourceKind::Pipewire { target } => local::pipewire(name, target.as_deref()),
        SourceKind::Fragment { launch } => local::fragment(launch),
        SourceKind::Rtsp { url, latency, tcp } => network::rtsp(url, *latency, *tcp),
        SourceKind::SrtListener { address, latency, passphrase } => {
            network::srt_listener(*address, *latency, passphrase.as_deref())
        }
        SourceKind::SrtCaller { peer, latency, passphrase, stream_id } => {
            network::srt_caller(peer, *latency, passphrase.as_deref(), stream_id.as_deref())
        }
        SourceKind::Rtmp { url } => network::rtmp(url),
        SourceKind::Udp { address } => network::udp(*address),
    };
    bin.map(Cast::upcast)
}

/// Whether a source's surroundings are ready for it: the file, the device, the socket there. [`build`] does not look.
///
/// # Errors
/// One sentence that says what is missing.
pub fn prepare(kind: &SourceKind) -> anyhow::Result<()> {
    match kind {
        SourceKind::File { path, .. } => local::readable(path),
        SourceKind::V4l2 { device, .. } => local::there(device, "there is no device"),
        SourceKind::Shm { socket, .. } => local::there(socket, "nobody has opened"),
        _ => Ok(()),
    }
}

/// The elements that a source of this kind cannot do without; decoders are found when the stream is seen.
pub fn required_elements(kind: &SourceKind) -> &'static [&'static str] {
    match kind {
        SourceKind::File { .. } => &["filesrc", "decodebin"],
        SourceKind::TestFigure { .. } => &["denseposetestsrc"],
        SourceKind::V4l2 { .. } => &["v4l2src", "decodebin"],
        SourceKind::Shm { .. } => &["shmsrc"],
        SourceKind::Pipewire { .. } => &["pipewiresrc"],
        SourceKind::Fragment { .. } => &["decodebin"],
        SourceKind::Rtsp { .. } => &["rtspsrc", "decodebin"],
        SourceKind::SrtListener { .. } | SourceKind::SrtCaller { .. } => &["srtsrc", "decodebin"],
        SourceKind::Rtmp { .. } => &["rtmp2src", "decodebin"],
        SourceKind::Udp { .. } => &["udpsrc", "decodebin"],
    }
}

/// Whether frames shall wait for their time: files and fragments come as fast as they can be read, and RTSP's jitter
/// buffer only sets times. All others come at their own speed, and waiting would add the delay that demultiplexers
/// report for the worst case (0.7 s for MPEG-TS).
pub fn is_paced(kind: &SourceKind) -> bool {
    matches!(
        kind,
        SourceKind::File { .. }
            | SourceKind::TestFigure { .. }
            | SourceKind::Rtsp { .. }
            | SourceKind::Fragment { .. }
    )
}

/// Whether it waits for somebody to send, so that silence before the first frame is no failure.
pub fn waits(kind: &SourceKind) -> bool {
    matches!(kind, SourceKind::SrtListener { .. } | SourceKind::Udp { .. })
}
