/**
 * SECTION:element-denseposetestsrc
 * @see_also: videotestsrc, avataranimate
 *
 * Makes DensePose pictures of a procedural human figure: 24 body parts in the colours that DensePose's own
 * visualiser gives them (part k of 24 is viridis(k · 255 / 24)) on viridis(0). The figure fills about 85 %
 * of the height. Any size and rate that downstream asks for is drawn as asked; without a wish it is
 * 512×512 at 25 frames a second.
 *
 * The picture is a function of `pattern`, `seed` and the timestamp alone, so a stream looks the same at every
 * rate, and two runs give the same bytes.
 *
 * ## Live (`is-live=true`)
 *
 * Frame n leaves at its running time on the pipeline's clock, and the source joins no preroll. Frames are drawn
 * before their time comes, so the source adds no latency. If drawing or downstream is slower than the rate,
 * frames leave late, none is skipped.
 *
 * ## Offline (`is-live=false`, default)
 *
 * Frames leave as fast as downstream takes them. Seeking works; it ends in the frame at or before the position.
 *
 * ## Changes while running
 *
 * `pattern` takes effect with the next frame. A new size or rate (renegotiation) does so too: timestamps go on
 * from the last frame's end.
 *
 * |[
 * gst-launch-1.0 denseposetestsrc pattern=dance num-buffers=50 ! video/x-raw,width=256,height=256,framerate=25/1 ! videoconvert ! autovideosink
 * ]| Shows two seconds of a dancing figure.
 */
use std::sync::{LazyLock, Mutex, PoisonError};

use gst::{glib, subclass::prelude::*};
use gst_base::{prelude::*, subclass::prelude::*};
use gst_video::prelude::*;
use keyframed_engine::Palette;

use super::{Pattern, figure::Figure};
use crate::video::{frame_time, rgb_caps_with_rate};

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "denseposetestsrc",
        gst::DebugColorFlags::empty(),
        Some("DensePose pictures of a procedural figure"),
    )
});

const DEFAULT_SIZE: i32 = 512;
const DEFAULT_RATE: (i32, i32) = (25, 1);

#[derive(Debug, Clone, Copy, Default)]
struct Settings {
    pattern: Pattern,
    is_live: bool,
    seed: u64,
}

/// Exists from start to stop.
struct State {
    figure: Figure,
    /// What is negotiated, if anything yet.
    info: Option<gst_video::VideoInfo>,
    /// Timestamp of the first frame since the last change of caps.
    base: gst::ClockTime,
    /// Frames since `base`. Timestamps are computed from it, so they do not drift.
    since_base: u64,
    /// Frames since the start, for buffer offsets.
    frame: u64,
}

/// Lock order: `state`, then `settings`; neither is held while calling out.
#[derive(Default)]
pub struct DensePoseTestSrc {
    settings: Mutex<Settings>,
    state: Mutex<Option<State>>,
}

#[glib::object_subclass]
impl ObjectSubclass for DensePoseTestSrc {
    const NAME: &'static str = "GstDensePoseTestSrc";
    type Type = super::DensePoseTestSrc;
    type ParentType = gst_base::BaseSrc;
}

impl ObjectImpl for DensePoseTestSrc {
    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
            vec![
                glib::ParamSpecEnum::builder_with_default("pattern", Pattern::default())
                    .nick("Pattern")
                    .blurb("What the figure does")
                    .mutable_playing()
                    .build(),
                glib::ParamSpecBoolean::builder("is-live")
                    .nick("Is live")
                    .blurb("Whether frames leave at their time on the clock, as a camera's do")
                    .mutable_ready()
                    .build(),
                glib::ParamSpecUInt64::builder("seed")
                    .nick("Seed")
                    .blurb("Chooses the figure's build, tempo and phase; same seed, same pictures")
                    .mutable_ready()
                    .build(),
            ]
        });
        &PROPERTIES
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        let mut settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        let set = match pspec.name() {
            "pattern" => value.get().map(|v| settings.pattern = v),
            "is-live" => value.get().map(|v| settings.is_live = v),
            "seed" => value.get().map(|v| settings.seed = v),
            _ => Ok(()),
        };
        let is_live = settings.is_live;
        drop(settings);
        if let Err(err) = set {
            gst::error!(CAT, imp = self, "Property {}: {err}", pspec.name());
        }
        if pspec.name() == "is-live" {
            self.obj().set_live(is_live);
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        let settings = self.settings();
        match pspec.name() {
            "pattern" => settings.pattern.to_value(),
            "is-live" => settings.is_live.to_value(),
            "seed" => settings.seed.to_value(),
            _ => pspec.default_value().clone(),
        }
    }

    fn constructed(&self) {
        self.parent_constructed();
        let obj = self.obj();
        obj.set_format(gst::Format::Time);
        obj.set_live(self.settings().is_live);
    }
}

impl GstObjectImpl for DensePoseTestSrc {}

impl ElementImpl for DensePoseTestSrc {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "DensePose test source",
                "Source/Video",
                "Makes DensePose pictures of a procedural moving figure, live or as fast as possible",
                env!("CARGO_PKG_REPOSITORY"),
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            let (direction, presence) = (gst::PadDirection::Src, gst::PadPresence::Always);
            gst::PadTemplate::new("src", direction, presence, &rgb_caps_with_rate()).into_iter().collect()
        });
        &TEMPLATES
    }
}

impl BaseSrcImpl for DensePoseTestSrc {
    fn start(&self) -> Result<(), gst::ErrorMessage> {
        let settings = self.settings();
        *self.state() = Some(State {
            figure: Figure::new(settings.pattern.into(), settings.seed),
            info: None,
            base: gst::ClockTime::ZERO,
            since_base: 0,
            frame: 0,
        });
        Ok(())
    }

    fn stop(&self) -> Result<(), gst::ErrorMessage> {
        *self.state() = None;
        Ok(())
    }

    fn is_seekable(&self) -> bool {
        !self.settings().is_live
    }

    fn do_seek(&self, segment: &mut gst::Segment) -> bool {
        let mut guard = self.state();
        let Some(state) = guard.as_mut() else { return false };
        let Some(segment) = segment.downcast_mut::<gst::ClockTime>() else { return false };
        let Some(info) = state.info.as_ref().filter(|_| segment.rate() > 0.) else {
            // Before negotiation only the start itself can be meant.
            return segment.position().is_none_or(|p| p.is_zero());
        };
        let Some(index) = segment.position().and_then(|p| frame_at(p, info.fps())) else { return false };
        let time = frame_time(index, info.fps());
        (state.base, state.since_base, state.frame) = (gst::ClockTime::ZERO, index, index);
        segment.set_position(time);
        segment.set_time(segment.start());
        true
    }

    fn set_caps(&self, caps: &gst::Caps) -> Result<(), gst::LoggableError> {
        let info = gst_video::VideoInfo::from_caps(caps)
            .map_err(|_| gst::loggable_error!(CAT, "Cannot read the caps {caps}"))?;
        let blocksize = u32::try_from(info.size())
            .map_err(|_| gst::loggable_error!(CAT, "Pictures of {caps} are too large"))?;
        gst::debug!(CAT, imp = self, "Configured for {caps}");
        self.obj().set_blocksize(blocksize);
        let mut guard = self.state();
        let Some(state) = guard.as_mut() else { return Err(gst::loggable_error!(CAT, "Not started")) };
        if let Some(next) = state.next_time() {
            (state.base, state.since_base) = (next, 0);
        }
        state.info = Some(info);
        Ok(())
    }

    fn fixate(&self, mut caps: gst::Caps) -> gst::Caps {
        caps.truncate();
        if let Some(s) = caps.make_mut().structure_mut(0) {
            s.fixate_field_nearest_int("width", DEFAULT_SIZE);
            s.fixate_field_nearest_int("height", DEFAULT_SIZE);
            s.fixate_field_nearest_fraction("framerate", gst::Fraction::from(DEFAULT_RATE));
            if s.has_field("pixel-aspect-ratio") {
                s.fixate_field_nearest_fraction("pixel-aspect-ratio", gst::Fraction::new(1, 1));
            }
        }
        self.parent_fixate(caps)
    }

    fn times(&self, buffer: &gst::BufferRef) -> (Option<gst::ClockTime>, Option<gst::ClockTime>) {
        // A start time makes the base class wait for it on the clock: live sources only.
        let start = buffer.pts().filter(|_| self.settings().is_live);
        (start, start.zip(buffer.duration()).map(|(start, duration)| start + duration))
    }

    fn decide_allocation(&self, query: &mut gst::query::Allocation) -> Result<(), gst::LoggableError> {
        if query.allocation_pools().next().is_none() {
            let size = self.state().as_ref().and_then(|s| u32::try_from(s.info.as_ref()?.size()).ok());
            query.add_allocation_pool(gst::BufferPool::NONE, size.unwrap_or(0), 2, 0);
        }
        self.parent_decide_allocation(query)
    }

    fn query(&self, query: &mut gst::QueryRef) -> bool {
        match query.view_mut() {
            gst::QueryViewMut::Latency(q) => {
                // Frames are drawn ahead of their time, and none is lost if downstream takes longer.
                q.set(self.settings().is_live, gst::ClockTime::ZERO, gst::ClockTime::NONE);
                true
            }
            _ => BaseSrcImplExt::parent_query(self, query),
        }
    }

    fn fill(
        &self,
        _offset: u64,
        _length: u32,
        buffer: &mut gst::BufferRef,
    ) -> Result<gst::FlowSuccess, gst::FlowError> {
        let pattern = self.settings().pattern;
        let stop = self.obj().segment().downcast::<gst::ClockTime>().ok().and_then(|s| s.stop());
        let mut guard = self.state();
        let state = guard.as_mut().ok_or(gst::FlowError::Flushing)?;
        let info = state.info.clone().ok_or(gst::FlowError::NotNegotiated)?;
        let pts = state.next_time().ok_or(gst::FlowError::Eos)?;
        if stop.is_some_and(|stop| pts >= stop) {
            return Err(gst::FlowError::Eos);
        }
        state.figure.set_motion(pattern.into());
        draw(&mut state.figure, pts, &info, buffer).map_err(|err| {
            gst::element_imp_error!(self, gst::CoreError::Failed, ("Cannot write the picture: {err}"));
            gst::FlowError::Error
        })?;
        state.since_base += 1;
        state.frame += 1;
        buffer.set_pts(pts);
        buffer.set_duration(state.next_time().map(|next| next - pts));
        buffer.set_offset(state.frame - 1);
        buffer.set_offset_end(state.frame);
        gst::trace!(CAT, imp = self, "Frame {} at {pts}", state.frame - 1);
        Ok(gst::FlowSuccess::Ok)
    }
}

impl State {
    /// Timestamp of the next frame; `None` before negotiation or after the last representable time.
    fn next_time(&self) -> Option<gst::ClockTime> {
        self.base.checked_add(frame_time(self.since_base, self.info.as_ref()?.fps())?)
    }
}

impl DensePoseTestSrc {
    fn settings(&self) -> Settings {
        *self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, Option<State>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Index of the frame at or before `time`.
fn frame_at(time: gst::ClockTime, fps: gst::Fraction) -> Option<u64> {
    let den = u64::try_from(fps.denom()).ok()? * gst::ClockTime::SECOND.nseconds();
    let index = time.nseconds().mul_div_floor(u64::try_from(fps.numer()).ok()?, den)?;
    // Frame times are rounded to nanoseconds, possibly up.
    let next = frame_time(index + 1, fps)?;
    Some(if next <= time { index + 1 } else { index })
}

fn draw(
    figure: &mut Figure,
    time: gst::ClockTime,
    info: &gst_video::VideoInfo,
    buffer: &mut gst::BufferRef,
) -> Result<(), glib::BoolError> {
    let mut frame = gst_video::VideoFrameRef::from_buffer_ref_writable(buffer, info)?;
    let (width, height) = (info.width() as usize, info.height() as usize);
    let stride =
        usize::try_from(frame.plane_stride()[0]).map_err(|_| glib::bool_error!("negative stride"))?;
    let canvas = figure.draw(time.nseconds() as f64 * 1e-9, width, height);
    let colours = Palette::Viridis.colours();
    let rows = frame.plane_data_mut(0)?.chunks_mut(stride).take(height).enumerate();
    for (y, row) in rows {
        for (pixel, label) in row.chunks_exact_mut(3).zip(canvas.row(y)) {
            pixel.copy_from_slice(&colours[usize::from(*label)]);
        }
    }
    Ok(())
}
