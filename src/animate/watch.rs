//! Counts and looks at what passes between the stages, without touching it.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use gst::prelude::*;
use gst_video::prelude::*;
use keyframed_engine::{Frame, Nanos, pose};

use super::{pipeline::Stages, sheet::Sampler};

/// Every how many pose frames one is compared with the DensePose palette: the share changes slowly.
const PALETTE_EVERY: u64 = 8;

/// What is done about a buffer on one of the pads.
type Seer = fn(&Watch, &Tap);

/// What was seen so far. Written by streaming threads, read by the one that waits for the end.
#[derive(Debug, Default)]
pub struct Watch {
    /// Pose frames into stage 1.
    pub input: AtomicU64,
    /// Key poses out of stage 1.
    pub key: AtomicU64,
    /// Key frames out of stage 2.
    pub generated: AtomicU64,
    /// Frames out of stage 4.
    pub output: AtomicU64,
    /// When the first of those came.
    first_output: OnceLock<Instant>,
    /// What needs more than a number; held for one picture at a time.
    seen: Mutex<Seen>,
}

/// The part of [`Watch`] behind its lock.
#[derive(Debug, Default)]
struct Seen {
    /// First and last instant of the pose frames, as running times.
    span: Option<(Nanos, Nanos)>,
    /// Sum and number of the measured off-palette shares.
    off_palette: (f64, u32),
    /// Columns of the contact sheet, if one is wanted.
    sampler: Option<Sampler>,
    /// Size of the output of stage 4.
    size: Option<(u32, u32)>,
}

impl Watch {
    /// Attaches to the pads around the stages. With `sheet`, keeps pictures for a contact sheet.
    pub fn attach(stages: &Stages, sheet: bool) -> Arc<Self> {
        let watch = Arc::new(Self::default());
        watch.seen().sampler = sheet.then(Sampler::new);
        let taps: [(&gst::Element, &str, Seer); 4] = [
            (&stages.select, "sink", Self::on_pose),
            (&stages.select, "src", Self::on_key_pose),
            (&stages.animate, "src", Self::on_key_frame),
            (&stages.interpolate, "src", Self::on_output),
        ];
        for (element, pad, seen) in taps {
            let Some(pad) = element.static_pad(pad) else { continue };
            let watch = watch.clone();
            pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
                if let Some(tap) = info.buffer().and_then(|buffer| Tap::new(pad, buffer)) {
                    seen(&watch, &tap);
                }
                gst::PadProbeReturn::Ok
            });
        }
        watch
    }

    fn on_pose(&self, tap: &Tap) {
        let index = self.input.fetch_add(1, Relaxed);
        let share = index.is_multiple_of(PALETTE_EVERY).then(|| tap.frame()).flatten();
        let share = share.map(|frame| pose::off_palette_share(&frame));
        let mut seen = self.seen();
        let first = seen.span.map_or(tap.start, |(first, _)| first);
        seen.span = Some((first, tap.end));
        if let Some(share) = share {
            if index == 0 {
                warn_if_not_densepose(share);
            }
            seen.off_palette.0 += share;
            seen.off_palette.1 += 1;
        }
    }

    fn on_key_pose(&self, tap: &Tap) {
        let index = self.key.fetch_add(1, Relaxed);
        if let Some(sampler) = &mut self.seen().sampler {
            sampler.key_pose(index, tap.start, || tap.frame());
        }
    }

    fn on_key_frame(&self, tap: &Tap) {
        self.generated.fetch_add(1, Relaxed);
        if let Some(sampler) = &mut self.seen().sampler {
            sampler.key_frame(tap.start, || tap.frame());
        }
    }

    fn on_output(&self, tap: &Tap) {
        self.output.fetch_add(1, Relaxed);
        self.first_output.get_or_init(Instant::now);
        let mut seen = self.seen();
        seen.size.get_or_insert((tap.info.width(), tap.info.height()));
        if let Some(sampler) = &mut seen.sampler {
            sampler.output(tap.start, || tap.frame());
        }
    }

    /// When the first frame left stage 4, if one did.
    pub fn first_output(&self) -> Option<Instant> {
        self.first_output.get().copied()
    }

    /// Length of the pose frames seen, from the start of the first to the end of the last.
    pub fn input_duration(&self) -> Nanos {
        self.seen().span.map_or(0, |(first, end)| end.saturating_sub(first))
    }

    /// Mean share of pixels that are no DensePose colour, over the frames looked at.
    pub fn off_palette_share(&self) -> f64 {
        let (sum, count) = self.seen().off_palette;
        sum / f64::from(count.max(1))
    }

    /// Size of the output of stage 4, once there was one.
    pub fn size(&self) -> Option<(u32, u32)> {
        self.seen().size
    }

    /// The contact sheet's columns, which are taken away.
    pub fn take_sampler(&self) -> Option<Sampler> {
        self.seen().sampler.take()
    }

    // Nothing that runs under the lock leaves it half changed.
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn warn_if_not_densepose(share: f64) {
    if share > pose::NOT_DENSEPOSE {
        tracing::warn!(
            "the driving clip does not look like DensePose: {:.0} % of its first frame's pixels are none of the \
             part colours (up to {:.0} % are usual)",
            share * 100.0,
            pose::NOT_DENSEPOSE * 100.0
        );
    }
}

/// One buffer on a pad.
struct Tap<'a> {
    buffer: &'a gst::Buffer,
    info: gst_video::VideoInfo,
    /// Running time of its start.
    start: Nanos,
    /// Running time of its end.
    end: Nanos,
}

impl<'a> Tap<'a> {
    /// `None` for a buffer without time or format, which is none of ours.
    fn new(pad: &gst::Pad, buffer: &'a gst::Buffer) -> Option<Self> {
        let info = gst_video::VideoInfo::from_caps(pad.current_caps()?.as_ref()).ok()?;
        let segment = pad.sticky_event::<gst::event::Segment>(0)?;
        let segment = segment.segment().downcast_ref::<gst::ClockTime>()?.clone();
        let pts = buffer.pts()?;
        let start = segment.to_running_time(pts)?.nseconds();
        let duration = buffer.duration().map_or(0, gst::ClockTime::nseconds);
        Some(Self { buffer, info, start, end: start + duration })
    }

    /// Its picture. `None` if it cannot be read.
    fn frame(&self) -> Option<Frame> {
        let frame = gst_video::VideoFrameRef::from_buffer_ref_readable(self.buffer, &self.info).ok()?;
        let stride = usize::try_from(frame.plane_stride()[0]).ok()?;
        Frame::from_strided(frame.width(), frame.height(), stride, frame.plane_data(0).ok()?).ok()
    }
}
