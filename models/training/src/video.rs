//! Frames of a video file, decoded by GStreamer.

use anyhow::{Context, Result, bail, ensure};
use gst::prelude::*;
use keyframed_engine::{Frame, Nanos};
use std::path::Path;

/// Frames that one video may have: half an hour at 30 a second.
const MOST: usize = 54_000;
/// How long a decoder may take to give a frame, or to say why there is none.
const PATIENCE: gst::ClockTime = gst::ClockTime::from_seconds(30);
/// How often to look whether it has said so.
const LOOK: gst::ClockTime = gst::ClockTime::from_mseconds(100);

/// Decodes `file`, upright, with square pixels. Each frame comes with its time from the file's beginning.
///
/// # Errors
/// The file is missing, is no video that GStreamer's installed decoders know, or ends in the middle.
pub fn read(file: &Path, mut each: impl FnMut(Nanos, Frame) -> Result<()>) -> Result<()> {
    ensure!(file.is_file(), "{} is no file", file.display());
    gst::init()?;
    let launch = "filesrc name=file ! decodebin ! videoconvert ! videoflip method=automatic ! videoscale ! \
                  video/x-raw,format=RGB,pixel-aspect-ratio=1/1 ! appsink name=out sync=false max-buffers=4";
    let pipeline = gst::parse::launch(launch)
        .context("GStreamer lacks an element; install its base and good plugins")?
        .downcast::<gst::Pipeline>()
        .map_err(|_| anyhow::anyhow!("not a pipeline"))?;
    let source = pipeline.by_name("file").context("no source")?;
    source.set_property("location", file.to_string_lossy().as_ref());
    let out =
        pipeline.by_name("out").and_then(|e| e.downcast::<gst_app::AppSink>().ok()).context("no sink")?;
    let bus = pipeline.bus().context("no bus")?;
    let done = match pipeline.set_state(gst::State::Playing) {
        Ok(_) => pull(&out, &bus, &mut each),
        Err(_) => said(&bus).and(Ok(0)),
    };
    let stopped = pipeline.set_state(gst::State::Null);
    ensure!(done.with_context(|| file.display().to_string())? > 0, "{} has no frames", file.display());
    stopped.map(drop).map_err(Into::into)
}

/// Fails with what an element has said, if one has.
fn said(bus: &gst::Bus) -> Result<()> {
    let message = bus.pop_filtered(&[gst::MessageType::Error]);
    match message.as_ref().map(|message| message.view()) {
        Some(gst::MessageView::Error(error)) => bail!("{}", error.error()),
        _ => Ok(()),
    }
}

fn pull(
    out: &gst_app::AppSink,
    bus: &gst::Bus,
    each: &mut impl FnMut(Nanos, Frame) -> Result<()>,
) -> Result<usize> {
    let (mut count, mut waited) = (0, gst::ClockTime::ZERO);
    loop {
        let Some(sample) = out.try_pull_sample(LOOK) else {
            said(bus)?;
            if out.is_eos() {
                return Ok(count);
            }
            waited += LOOK;
            ensure!(waited < PATIENCE, "its decoder gives no frames");
            continue;
        };
        waited = gst::ClockTime::ZERO;
        ensure!(count < MOST, "it has more than {MOST} frames; cut it shorter");
        let (buffer, caps) = (sample.buffer().context("no buffer")?, sample.caps().context("no caps")?);
        let info = gst_video::VideoInfo::from_caps(caps)?;
        let frame = gst_video::VideoFrameRef::from_buffer_ref_readable(buffer, &info)?;
        let (width, height) = (info.width(), info.height());
        let (stride, line) = (info.stride()[0] as usize, 3 * width as usize);
        let plane = frame.plane_data(0)?;
        let data: Vec<u8> =
            plane.chunks(stride).take(height as usize).flat_map(|row| row[..line].to_vec()).collect();
        // Containers count from anywhere; the segment says where the beginning is.
        let segment =
            sample.segment().and_then(|s| s.downcast_ref::<gst::ClockTime>()).context("no segment")?;
        if let Some(time) = segment.to_running_time(buffer.pts().context("a frame without a time")?) {
            each(time.nseconds(), Frame::new(width, height, data)?)?;
            count += 1;
        }
    }
}
