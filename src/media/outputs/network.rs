//! Outputs over the network, H.264 all of them.

use std::{net::SocketAddr, time::Duration};

use anyhow::Context as _;
use gst::prelude::*;

use super::encoder;
use crate::{
    config::resolved::{Output, OutputKind, Video},
    media::element::{make_with, millis, set},
};

type Elements = anyhow::Result<Vec<gst::Element>>;

/// Encoded, and packed into MPEG-TS by the size of a datagram.
fn mpeg_ts(output: &Output, video: Video) -> Elements {
    let mut parts = encoder::h264(output.encoder, video)?;
    parts.push(make_with("mpegtsmux", &[("alignment", "7")])?);
    Ok(parts)
}

/// Waits for callers, any number of them; without one, frames go nowhere.
pub fn srt_listener(
    output: &Output,
    video: Video,
    address: SocketAddr,
    latency: Duration,
    passphrase: Option<&str>,
) -> Elements {
    let sink = srt(&format!("srt://{address}?mode=listener"), latency, passphrase)?;
    let mut parts = mpeg_ts(output, video)?;
    parts.push(sink);
    Ok(parts)
}

/// Calls a listener.
pub fn srt_caller(
    output: &Output,
    video: Video,
    peer: &str,
    latency: Duration,
    passphrase: Option<&str>,
    stream_id: Option<&str>,
) -> Elements {
    let sink = srt(&format!("srt://{peer}?mode=caller"), latency, passphrase)?;
    if let Some(id) = stream_id {
        set(&sink, "streamid", id)?;
    }
    let mut parts = mpeg_ts(output, video)?;
    parts.push(sink);
    Ok(parts)
}

/// Whether the other end that an output calls has answered, where that can be asked. Frames go into the encoder before
/// that.
pub fn is_answered(kind: &OutputKind, pipeline: &gst::Pipeline) -> bool {
    let stats = || Some(pipeline.by_name(SINK)?.property::<gst::Structure>("stats"));
    match kind {
        OutputKind::SrtCaller { .. } => {
            stats().and_then(|stats| stats.get::<i64>("packets-sent").ok()).is_some_and(|sent| sent > 0)
        }
        OutputKind::Rtmp { .. } => {
            stats().and_then(|stats| stats.get::<u64>("in-bytes-total").ok()).is_some_and(|came| came > 0)
        }
        _ => true,
    }
}

/// The sink's name in its pipeline.
const SINK: &str = "connection";

fn srt(uri: &str, latency: Duration, passphrase: Option<&str>) -> anyhow::Result<gst::Element> {
    let sink = make_with(
        "srtsink",
        &[
            ("name", SINK),
            // With the mode in it: a listener's address is kept apart from a caller's when it is read.
            ("uri", uri),
            ("latency", &millis(latency)),
            ("wait-for-connection", "false"),
            // The pipe sees failures and opens it again.
            ("auto-reconnect", "false"),
            // What closing may have to wait for, milliseconds.
            ("poll-timeout", "100"),
            ("sync", "false"),
        ],
    )?;
    if let Some(passphrase) = passphrase {
        set(&sink, "passphrase", passphrase)?;
    }
    Ok(sink)
}

/// Publishes to a server.
pub fn rtmp(output: &Output, video: Video, url: &str) -> Elements {
    let mut parts = encoder::h264(output.encoder, video)?;
    parts.push(make_with("flvmux", &[("streamable", "true")])?);
    parts.push(make_with("rtmp2sink", &[("name", SINK), ("location", url), ("sync", "false")])?);
    Ok(parts)
}

/// Publishes to a server, over the session's own TCP connection.
pub fn rtsp(output: &Output, video: Video, url: &str) -> Elements {
    let mut parts = encoder::h264(output.encoder, video)?;
    parts.push(make_with("rtspclientsink", &[("location", url), ("protocols", "tcp"), ("latency", "0")])?);
    Ok(parts)
}

/// To one host or a multicast group.
pub fn udp(output: &Output, video: Video, address: SocketAddr) -> Elements {
    let mut parts = mpeg_ts(output, video)?;
    let host = address.ip().to_string();
    let port = address.port().to_string();
    let sink = [("host", host.as_str()), ("port", &port), ("sync", "false")];
    parts.push(make_with("udpsink", &sink).context("UDP")?);
    Ok(parts)
}
