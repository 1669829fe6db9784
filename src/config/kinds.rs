//! Kinds of sources and outputs: which keys each needs and takes, and how it is made of them.

use std::{net::SocketAddr, time::Duration};

use keyframed_engine::Rate;

use super::{
    file,
    resolve::Context,
    resolved::{Capture, OutputKind, SourceKind},
    table::At,
};

/// A kind of source or output.
pub struct Kind<T, R> {
    /// Value of `kind`.
    pub name: &'static str,
    /// Keys it cannot do without.
    pub needs: &'static [&'static str],
    /// Further keys it takes.
    pub takes: &'static [&'static str],
    /// Makes it of its keys; `None` if a problem was noted.
    pub build: fn(&T, &mut Context<'_>) -> Option<R>,
}

/// Keys that every source takes.
pub const ANY_SOURCE: &[&str] = &["kind", "timeout_ms", "retry_min_ms", "retry_max_ms"];
/// Keys that every output takes.
pub const ANY_OUTPUT: &[&str] =
    &["kind", "enabled", "width", "height", "timecode", "retry_min_ms", "retry_max_ms"];

/// Delay that SRT allows for repeats, unless the file says.
const SRT_LATENCY: Duration = Duration::from_millis(120);
/// Delay that RTSP smooths the network's with, unless the file says.
const RTSP_LATENCY: Duration = Duration::from_millis(200);
/// Length of a piece of a recording, unless the file says.
const FRAGMENT: Duration = Duration::from_millis(1000);

/// Side of the test figure's pictures, unless the file says.
pub const FIGURE_SIDE: u32 = 256;

/// What `kind` in `[sources.NAME]` can be.
pub const SOURCES: &[Kind<file::Source, SourceKind>] = &[
    Kind {
        name: "test-figure",
        needs: &[],
        takes: &["pattern", "seed", "width", "height", "frame_rate_hz"],
        build: |t, _| {
            let asked = capture(t);
            let capture = Capture {
                width: asked.width.or(Some(FIGURE_SIDE)),
                height: asked.height.or(Some(FIGURE_SIDE)),
                rate: asked.rate.or(Rate::new(25, 1).ok()),
            };
            let pattern = get(&t.pattern).unwrap_or("dance").to_owned();
            Some(SourceKind::TestFigure { pattern, seed: get(&t.seed).unwrap_or(0), capture })
        },
    },
    Kind {
        name: "file",
        needs: &["path"],
        takes: &["repeat"],
        build: |t, c| {
            Some(SourceKind::File { path: c.path(&t.path)?, repeat: get(&t.repeat).unwrap_or(true) })
        },
    },
    Kind {
        name: "v4l2",
        needs: &["device"],
        takes: &["width", "height", "frame_rate_hz"],
        build: |t, c| Some(SourceKind::V4l2 { device: c.path(&t.device)?, capture: capture(t) }),
    },
    Kind {
        name: "rtsp",
        needs: &["url"],
        takes: &["latency_ms", "transport"],
        build: |t, c| {
            Some(SourceKind::Rtsp {
                url: c.url(&t.url, "rtsp")?,
                latency: get(&t.latency_ms).unwrap_or(RTSP_LATENCY),
                tcp: get(&t.transport).unwrap_or(true),
            })
        },
    },
    Kind {
        name: "srt-listener",
        needs: &["port"],
        takes: &["address", "latency_ms", "passphrase_file"],
        build: |t, c| {
            let passphrase = c.passphrase(&t.passphrase_file, &t.place);
            Some(SourceKind::SrtListener {
                address: address(&t.address, &t.port)?,
                latency: get(&t.latency_ms).unwrap_or(SRT_LATENCY),
                passphrase,
            })
        },
    },
    Kind {
        name: "srt-caller",
        needs: &["peer"],
        takes: &["latency_ms", "passphrase_file", "stream_id"],
        build: |t, c| {
            let passphrase = c.passphrase(&t.passphrase_file, &t.place);
            Some(SourceKind::SrtCaller {
                peer: get(&t.peer)?,
                latency: get(&t.latency_ms).unwrap_or(SRT_LATENCY),
                passphrase,
                stream_id: get(&t.stream_id),
            })
        },
    },
    Kind {
        name: "rtmp",
        needs: &["url"],
        takes: &[],
        build: |t, c| Some(SourceKind::Rtmp { url: c.url(&t.url, "rtmp")? }),
    },
    Kind {
        name: "udp",
        needs: &["port"],
        takes: &["address"],
        build: |t, _| Some(SourceKind::Udp { address: address(&t.address, &t.port)? }),
    },
    Kind {
        name: "shm",
        needs: &["socket_path", "width", "height", "frame_rate_hz"],
        takes: &[],
        build: |t, c| {
            Some(SourceKind::Shm {
                socket: c.path(&t.socket_path)?,
                width: get(&t.width)?,
                height: get(&t.height)?,
                rate: get(&t.frame_rate_hz)?,
            })
        },
    },
    Kind {
        name: "pipewire",
        needs: &[],
        takes: &["target"],
        build: |t, _| Some(SourceKind::Pipewire { target: get(&t.target) }),
    },
    Kind {
        name: "fragment",
        needs: &["launch"],
        takes: &[],
        build: |t, _| Some(SourceKind::Fragment { launch: get(&t.launch)? }),
    },
];

/// What `kind` in `[outputs.NAME]` can be.
pub const OUTPUTS: &[Kind<file::Output, OutputKind>] = &[
    Kind {
        name: "v4l2",
        needs: &["device"],
        takes: &[],
        build: |t, c| Some(OutputKind::V4l2 { device: c.path(&t.device)? }),
    },
    Kind {
        name: "pipewire",
        needs: &[],
        takes: &["node_name"],
        build: |t, _| {
            let name = get(&t.node_name).unwrap_or_else(|| "keyframed".into());
            Some(OutputKind::Pipewire { name })
        },
    },
    Kind {
        name: "srt-listener",
        needs: &["port"],
        takes: &["address", "latency_ms", "passphrase_file", "bitrate_kbps", "key_interval_ms"],
        build: |t, c| {
            let passphrase = c.passphrase(&t.passphrase_file, &t.place);
            Some(OutputKind::SrtListener {
                address: address(&t.address, &t.port)?,
                latency: get(&t.latency_ms).unwrap_or(SRT_LATENCY),
                passphrase,
            })
        },
    },
    Kind {
        name: "srt-caller",
        needs: &["peer"],
        takes: &["latency_ms", "passphrase_file", "stream_id", "bitrate_kbps", "key_interval_ms"],
        build: |t, c| {
            let passphrase = c.passphrase(&t.passphrase_file, &t.place);
            Some(OutputKind::SrtCaller {
                peer: get(&t.peer)?,
                latency: get(&t.latency_ms).unwrap_or(SRT_LATENCY),
                passphrase,
                stream_id: get(&t.stream_id),
            })
        },
    },
    Kind {
        name: "rtmp",
        needs: &["url"],
        takes: &["bitrate_kbps", "key_interval_ms"],
        build: |t, c| Some(OutputKind::Rtmp { url: c.url(&t.url, "rtmp")? }),
    },
    Kind {
        name: "rtsp",
        needs: &["url"],
        takes: &["bitrate_kbps", "key_interval_ms"],
        build: |t, c| Some(OutputKind::Rtsp { url: c.url(&t.url, "rtsp")? }),
    },
    Kind {
        name: "udp",
        needs: &["port"],
        takes: &["address", "bitrate_kbps", "key_interval_ms"],
        build: |t, _| Some(OutputKind::Udp { address: address(&t.address, &t.port)? }),
    },
    Kind {
        name: "shm",
        needs: &["socket_path"],
        takes: &[],
        build: |t, c| Some(OutputKind::Shm { socket: c.path(&t.socket_path)? }),
    },
    Kind {
        name: "recording",
        needs: &["directory"],
        takes: &["fragment_ms", "rotate_min", "bitrate_kbps", "key_interval_ms"],
        build: |t, c| {
            Some(OutputKind::Recording {
                directory: c.path(&t.directory)?,
                fragment: get(&t.fragment_ms).unwrap_or(FRAGMENT),
                rotate: get(&t.rotate_min),
            })
        },
    },
    Kind { name: "window", needs: &[], takes: &[], build: |_, _| Some(OutputKind::Window) },
    Kind {
        name: "fragment",
        needs: &["launch"],
        takes: &[],
        build: |t, _| Some(OutputKind::Fragment { launch: get(&t.launch)? }),
    },
];

/// The value of a key, if it is set.
pub fn get<T: Clone>(at: &Option<At<T>>) -> Option<T> {
    at.as_ref().map(|at| at.value.clone())
}

fn capture(t: &file::Source) -> Capture {
    Capture { width: get(&t.width), height: get(&t.height), rate: get(&t.frame_rate_hz) }
}

/// Without an address, this machine alone: nothing is open to the network that nobody asked for.
fn address(ip: &Option<At<std::net::IpAddr>>, port: &Option<At<u16>>) -> Option<SocketAddr> {
    let ip = get(ip).unwrap_or(std::net::Ipv4Addr::LOCALHOST.into());
    Some(SocketAddr::new(ip, get(port)?))
}
