//! Outputs: from a kind and what it needs to a bin that takes canvas frames.
//!
//! A kind is a file of `outputs/` or a function there, and a line in each of the two tables here.

use anyhow::Context as _;

use super::{
    element::{self, filter, fraction, make},
    outputs::{local, network, pipewire, recording, v4l2},
};
use crate::config::resolved::{Output, OutputKind, Video};

/// Builds the bin: its pad `sink` takes frames of [`canvas_caps`].
///
/// # Errors
/// If an element is missing (naming the Debian package that brings it), or refuses a setting.
pub fn build(name: &str, output: &Output, video: Video) -> anyhow::Result<gst::Element> {
    element::require(&required_elements(&output.kind))?;
    let mut parts = vec![make("videoconvert")?];
    if let Some((width, height)) = output.size {
        let scale = make("videoscale")?;
        element::set(&scale, "add-borders", "true")?;
        parts.extend([scale, filter(&size_caps(width, height)?)?]);
    }
    let video = output.size.map_or(video, |(width, height)| Video { width, height, ..video });
    let tail = match &output.kind {
        OutputKind::V4l2 { device } => local::v4l2(device),
        OutputKind::Pipewire { name } => pipewire::camera(name),
        OutputKind::Shm { socket } => local::shm(socket, video),
        OutputKind::Window => local::window(),
        OutputKind::Fragment { launch } => local::fragment(launch),
        OutputKind::SrtListener { address, latency, passphrase } => {
            network::srt_listener(output, video, *address, *latency, passphrase.as_deref())
        }
        OutputKind::SrtCaller { peer, latency, passphrase, stream_id } => {
            network::srt_caller(output, video, peer, *latency, passphrase.as_deref(), stream_id.as_deref())
        }
        OutputKind::Rtmp { url } => network::rtmp(output, video, url),
        OutputKind::Rtsp { url } => network::rtsp(output, video, url),
        OutputKind::Udp { address } => network::udp(output, video, *address),
        OutputKind::Recording { directory, fragment, rotate } => {
            recording::build(name, output, video, directory, *fragment, *rotate)
        }
    };
    parts.extend(tail?);
    element::sink_bin(&parts).context("the output's elements do not go together")
}

/// Whether an output's surroundings are ready for it: the device there, the socket free, room on the disk. Removes a
/// socket that a crash left behind, and makes the folder for recordings. [`build`] looks at none of this, so that a
/// configuration can be checked while another daemon runs on it.
///
/// # Errors
/// One sentence that says what is in the way.
pub fn prepare(kind: &OutputKind) -> anyhow::Result<()> {
    match kind {
        OutputKind::V4l2 { device } => v4l2::output(device).map(drop),
        OutputKind::Shm { socket } => local::free_socket(socket),
        OutputKind::Window => local::desktop(),
        OutputKind::Recording { directory, .. } => recording::prepare(directory),
        _ => Ok(()),
    }
}

/// The elements that an output of this kind cannot do without.
pub fn required_elements(kind: &OutputKind) -> Vec<&'static str> {
    let own: &[&str] = match kind {
        OutputKind::V4l2 { .. } => &["v4l2sink"],
        OutputKind::Pipewire { .. } => &["pipewiresink"],
        OutputKind::Shm { .. } => &["shmsink"],
        OutputKind::Window => &["autovideosink"],
        OutputKind::Fragment { .. } => &[],
        OutputKind::SrtListener { .. } | OutputKind::SrtCaller { .. } => {
            &["h264parse", "mpegtsmux", "srtsink"]
        }
        OutputKind::Rtmp { .. } => &["h264parse", "flvmux", "rtmp2sink"],
        OutputKind::Rtsp { .. } => &["h264parse", "rtspclientsink"],
        OutputKind::Udp { .. } => &["h264parse", "mpegtsmux", "udpsink"],
        OutputKind::Recording { .. } => &["h264parse", "mp4mux", "splitmuxsink", "filesink"],
    };
    ["videoconvert", "videoscale", "capsfilter"].into_iter().chain(own.iter().copied()).collect()
}

/// What all outputs take: RGB, square pixels, a constant rate.
pub fn canvas_caps(video: Video) -> gst::Caps {
    gst_video::VideoCapsBuilder::new()
        .format(gst_video::VideoFormat::Rgb)
        .width(side(video.width))
        .height(side(video.height))
        .pixel_aspect_ratio((1, 1).into())
        .framerate(fraction(video.rate))
        .build()
}

fn size_caps(width: u32, height: u32) -> anyhow::Result<gst::Caps> {
    let caps = gst_video::VideoCapsBuilder::new()
        .width(width.try_into()?)
        .height(height.try_into()?)
        .pixel_aspect_ratio((1, 1).into());
    Ok(caps.build())
}

fn side(side: u32) -> i32 {
    i32::try_from(side).unwrap_or(i32::MAX)
}
