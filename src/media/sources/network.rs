//! Sources over the network.

use std::{net::SocketAddr, time::Duration};

use gst::prelude::*;

use super::decode::{decoded, decoder};
use crate::media::element::{make_with, millis, set};

type Built = anyhow::Result<gst::Bin>;

/// An RTSP server's first video stream.
pub fn rtsp(url: &str, latency: Duration, tcp: bool) -> Built {
    let source = make_with(
        "rtspsrc",
        &[
            ("location", url),
            ("latency", &millis(latency)),
            ("protocols", if tcp { "tcp" } else { "udp" }),
            // What is older than that is of no use live.
            ("drop-on-latency", "true"),
        ],
    )?;
    let (bin, decoder) = decoder()?;
    bin.add(&source)?;
    // Sound is not even asked for.
    source.connect("select-stream", false, |values| {
        let caps = values.get(2).and_then(|caps| caps.get::<gst::Caps>().ok());
        Some(caps.is_some_and(|caps| is_video(&caps)).to_value())
    });
    let decoder = decoder.downgrade();
    source.connect_pad_added(move |_, pad| {
        let Some(sink) = decoder.upgrade().and_then(|decoder| decoder.static_pad("sink")) else { return };
        if !sink.is_linked()
            && let Err(error) = pad.link(&sink)
        {
            tracing::error!("the RTSP stream does not fit the decoder: {error}");
        }
    });
    Ok(bin)
}

fn is_video(caps: &gst::Caps) -> bool {
    caps.structure(0).and_then(|first| first.get::<&str>("media").ok()) == Some("video")
}

/// Waits for a sender.
pub fn srt_listener(address: SocketAddr, latency: Duration, passphrase: Option<&str>) -> Built {
    decoded(&[srt(&format!("srt://{address}?mode=listener"), latency, passphrase)?])
}

/// Calls a sender that waits.
pub fn srt_caller(peer: &str, latency: Duration, passphrase: Option<&str>, stream_id: Option<&str>) -> Built {
    let source = srt(&format!("srt://{peer}?mode=caller"), latency, passphrase)?;
    if let Some(id) = stream_id {
        set(&source, "streamid", id)?;
    }
    decoded(&[source])
}

fn srt(uri: &str, latency: Duration, passphrase: Option<&str>) -> anyhow::Result<gst::Element> {
    let source = make_with(
        "srtsrc",
        &[
            // With the mode in it: a listener's address is kept apart from a caller's when it is read.
            ("uri", uri),
            ("latency", &millis(latency)),
            // The pipe sees failures and opens it again.
            ("auto-reconnect", "false"),
            // What closing may have to wait for, milliseconds.
            ("poll-timeout", "100"),
        ],
    )?;
    if let Some(passphrase) = passphrase {
        set(&source, "passphrase", passphrase)?;
    }
    Ok(source)
}

/// An RTMP server's stream.
pub fn rtmp(url: &str) -> Built {
    decoded(&[make_with("rtmp2src", &[("location", url)])?])
}

/// MPEG-TS in datagrams, to this host or to a multicast group.
pub fn udp(address: SocketAddr) -> Built {
    let source = make_with(
        "udpsrc",
        &[
            ("address", &address.ip().to_string()),
            ("port", &address.port().to_string()),
            // An intra frame comes at once.
            ("buffer-size", "2097152"),
            ("caps", "video/mpegts, systemstream=(boolean)true, packetsize=(int)188"),
        ],
    )?;
    decoded(&[source])
}
