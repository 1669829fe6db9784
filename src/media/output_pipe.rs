//! One output, as the daemon sees it.

use std::{
    sync::{Arc, Mutex, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use gst_video::prelude::*;
use tokio::sync::mpsc;

use super::{
    backoff::Backoff,
    output,
    output_feed::{Entry, Feed},
    output_role::OutputRole,
    pipe::{Handle, PipeEvent, PipeStatus, Shared, lock},
    runner, timecode,
};
use crate::{
    config::resolved::{Output, Video},
    daemon::clock::Base,
};

/// An output that is opened again whenever it fails.
#[derive(Debug)]
pub struct OutputPipe {
    shared: Arc<Shared>,
    feed: Arc<Mutex<Feed>>,
    video: Video,
    /// Whether frames get a time code, and how they lie in memory.
    timecode: bool,
    canvas: gst_video::VideoInfo,
    base: Base,
    handle: Handle,
}

impl OutputPipe {
    /// Starts to run an output; failures to open it are events, and it is tried again.
    ///
    /// # Errors
    /// If the canvas is none that GStreamer knows, or no thread can be made.
    pub fn start(
        name: &str,
        output: &Output,
        video: Video,
        base: Base,
        events: mpsc::Sender<PipeEvent>,
    ) -> anyhow::Result<Self> {
        let canvas = gst_video::VideoInfo::from_caps(&output::canvas_caps(video))?;
        let shared = Shared::new(name, events);
        let feed = Arc::new(Mutex::new(Feed::default()));
        let role = OutputRole::new(shared.clone(), feed.clone(), output, video, base);
        let backoff = Backoff::new(output.retry);
        let handle = runner::start(format!("output {name}"), shared.clone(), role, backoff)?;
        Ok(Self { shared, feed, video, timecode: output.timecode, canvas, base, handle })
    }

    /// Gives it a canvas frame, stamped with the daemon's running time; never waits. A frame that finds the queue full
    /// takes the oldest one's place; while the output is lost, frames go nowhere.
    ///
    /// `shows` is the timestamp of the pose that the frame shows, in the daemon's running time, for the time code.
    pub fn push(&self, frame: &gst::Buffer, shows: Option<gst::ClockTime>) {
        let mut feed = lock(&self.feed);
        let (Some(entry), Some(pts)) = (&mut feed.entry, frame.pts()) else { return };
        // Made before this pipeline was.
        let Some(own) = pts.checked_sub(entry.offset) else { return };
        // The pixels are shared; the timestamps are this output's own.
        let mut frame = match shows {
            Some(shows) if self.timecode => with_time(frame, &self.canvas, self.base.base_time + shows),
            _ => frame.clone(),
        };
        let stamps = frame.make_mut();
        stamps.set_pts(own);
        stamps.set_dts(gst::ClockTime::NONE);
        // Refused only while it is being closed.
        if entry.appsrc.push_buffer(frame).is_ok() {
            entry.pushed += 1;
            entry.newest = pts;
        }
    }

    /// How it is doing.
    pub fn status(&self) -> PipeStatus {
        let (state, last_error) = self.shared.state();
        let feed = lock(&self.feed);
        let queue_frames = feed.entry.as_ref().map_or(0, Entry::queued);
        let queue_age = match &feed.entry {
            Some(entry) if queue_frames > 0 => {
                // Frames lie one period apart: the oldest lies so many periods before the newest.
                let oldest =
                    entry.newest.nseconds().saturating_sub((queue_frames - 1) * self.video.rate.period());
                Duration::from_nanos(self.base.now().saturating_sub(oldest))
            }
            _ => Duration::ZERO,
        };
        PipeStatus {
            state,
            frames: self.shared.frames.load(Relaxed),
            dropped: feed.lost + feed.entry.as_ref().map_or(0, Entry::dropped),
            restarts: self.shared.restarts.load(Relaxed),
            last_error,
            queue_frames,
            queue_age,
        }
    }

    /// As [`stop_by`](Self::stop_by), `limit` from now.
    #[cfg(test)]
    pub fn stop(&self, limit: Duration) -> impl Future<Output = bool> + Send + use<> {
        self.stop_by(Instant::now() + limit)
    }

    /// Begins to stop at once: ends the stream, so that recordings are finalised, and closes. The future is true when
    /// everything was closed by `deadline`; what was not goes on closing by itself. Asked again, the earliest deadline
    /// holds, for all.
    pub fn stop_by(&self, deadline: Instant) -> impl Future<Output = bool> + Send + use<> {
        self.handle.stop_by(deadline)
    }
}

/// A copy of the frame with the time drawn into it.
fn with_time(frame: &gst::Buffer, canvas: &gst_video::VideoInfo, monotonic: gst::ClockTime) -> gst::Buffer {
    let Ok(mut copy) = frame.copy_deep() else { return frame.clone() };
    if let Some(buffer) = copy.get_mut()
        && let Ok(mut picture) = gst_video::VideoFrameRef::from_buffer_ref_writable(buffer, canvas)
        && let Ok(stride) = usize::try_from(picture.plane_stride()[0])
    {
        let shape =
            timecode::Shape { width: canvas.width() as usize, height: canvas.height() as usize, stride };
        if let Ok(rgb) = picture.plane_data_mut(0) {
            timecode::draw(rgb, shape, timecode::millis(monotonic));
        }
    }
    copy
}
