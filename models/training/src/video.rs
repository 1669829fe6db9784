//! Frames of a video file, decoded by GStreamer.

use anyhow::{Context, Result, bail, ensure};
use gst::prelude::*;
use keyframed_engine::{Frame, Nanos};
use std::path::Path;

/// Frames that one video may have: half an hour at 30 a second.
const MOST: usize = 54_000;

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
    pipeline.set_state(gst::State::Playing).with_context(|| format!("cannot read {}", file.display()))?;
    let done = pull(&out, &mut each);
    let said = pipeline.bus().and_then(|bus| bus.pop_filtered(&[gst::MessageType::Error]));
    pipeline.set_state(gst::State::Null)?;
    if let Some(gst::MessageView::Error(error)) = said.as_ref().map(|message| message.view()) {
        bail!("{}: {}", file.display(), error.error());
    }
    ensure!(done.with_context(|| format!("in {}", file.display()))? > 0, "{} has no frames", file.display());
    Ok(())
}

fn pull(out: &gst_app::AppSink, each: &mut impl FnMut(Nanos, Frame) -> Result<()>) -> Result<usize> {
    let mut count = 0;
    while let Ok(sample) = out.pull_sample() {
        ensure!(count < MOST, "longer than half an hour");
        let (buffer, caps) = (sample.buffer().context("no buffer")?, sample.caps().context("no caps")?);
        let info = gst_video::VideoInfo::from_caps(caps)?;
        let frame = gst_video::VideoFrameRef::from_buffer_ref_readable(buffer, &info)?;
        let (width, height) = (info.width(), info.height());
        let (stride, line) = (info.stride()[0] as usize, 3 * width as usize);
        let plane = frame.plane_data(0)?;
        let data: Vec<u8> =
            plane.chunks(stride).take(height as usize).flat_map(|row| row[..line].to_vec()).collect();
        let pts = buffer.pts().context("a frame without a time")?.nseconds();
        each(pts, Frame::new(width, height, data)?)?;
        count += 1;
    }
    Ok(count)
}
