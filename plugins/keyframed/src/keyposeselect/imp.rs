/**
 * SECTION:element-keyposeselect
 * @see_also: denseposetestsrc, lcmanimate, avataranimate
 *
 * Forwards the key poses of a DensePose stream and drops the other frames: FasterVD's rule, online. After key
 * pose P_a the next frame P with MSE(P_a, P) ≥ `lambda` is a key pose. So is the first frame, the last before
 * the end of the stream, and, so that the wait is bounded, the frame `window` frames after the last key pose. If
 * the pose has not changed at all by then (MSE below `still-epsilon`), a GAP event takes its place: the previous
 * key frame stays valid up to the GAP's timestamp and nothing need be generated.
 *
 * MSE is measured on area-averaged 256×256 copies with pixel values in [0, 1], so `lambda` means the same at
 * every size. On real clips at 25 frames a second 0.005 keeps 54–98 % of the frames, 0.01 keeps 30–55 %, 0.02
 * keeps 11–34 %.
 *
 * ## What leaves
 *
 * Key poses leave as they came, timestamps and all, and are marked: `offset` is the number of the key pose,
 * `offset-end` the number of the pose frame, both counted from 0 since the start or the last flush, and the flag
 * DELTA_UNIT is clear. Input, and so output, is in time order: key poses and GAPs.
 *
 * ## Rate control
 *
 * With `target-key-rate` above 0, λ follows the motion to give about so many key poses a second; `lambda` is
 * then where it starts. In live pipelines `lcmanimate` tells upstream how often it can be given a key pose (the
 * custom event `keyframed-load`); if the key poses come more often, λ rises until they do not, and none is selected
 * for its motion before the generator is about to be free. `stats` tells the λ in force.
 *
 * ## Live and offline
 *
 * The same frames are selected either way as long as no load is told: the rule looks at pictures and timestamps only.
 * A frame that is
 * dropped may turn out to be the last, so one is kept until the next comes; the element answers the LATENCY query
 * with that one frame, and posts a LATENCY message when caps change how long a frame lasts. QoS events pass upstream.
 *
 * ## Changes while running
 *
 * Properties take effect between two frames. The serialized custom downstream event `keyframed-params` sets those
 * that its structure has fields for (`lambda`, `window`, `target-key-rate`, `still-epsilon`) all at once, at its
 * place in the stream, and passes on. A field of the wrong type or out of range is named in a warning, and then
 * nothing of the event is used here. A new size or rate does not interrupt the selection. A flush starts it anew:
 * the next frame is a first one.
 *
 * If the key poses are not in DensePose's colours a warning on the bus says so, once, with the share of pixels
 * that are not; the stream runs on.
 *
 * |[
 * gst-launch-1.0 denseposetestsrc pattern=dance num-buffers=50 ! keyposeselect lambda=0.01 window=5 ! identity silent=false ! fakesink -v
 * ]| Lists the key poses of two seconds of dance.
 */
use std::{
    sync::{LazyLock, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use gst::{glib, prelude::*, subclass::prelude::*};
use keyframed_engine::{Decision, SelectConfig, SelectStats, Selector, pose};

use crate::{
    filter::{self, Filter},
    load, params,
    video::{read_frame, rgb_caps},
};

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new("keyposeselect", gst::DebugColorFlags::empty(), Some("Key-pose selection"))
});

/// Key poses whose colours are looked at before the stream is called DensePose or not.
const PALETTE_SAMPLES: u32 = 8;

/// Properties that the event `keyframed-params` sets.
const PARAMS: [&str; 4] = ["lambda", "window", "target-key-rate", "still-epsilon"];

/// Exists from READY to PAUSED to READY.
struct State {
    /// Boxed: its ring buffer is aligned to cache lines, which GObject cannot do.
    selector: Box<Selector>,
    /// What the sink pad carries, if anything yet.
    info: Option<gst_video::VideoInfo>,
    /// In TIME format, or nothing flows.
    segment: Option<gst::FormattedSegment<gst::ClockTime>>,
    /// The last frame, if it was skipped: it may turn out to be the last of the stream.
    pending: Option<gst::Buffer>,
    /// Sum of the off-palette shares of the first key poses, and their number.
    off_palette: (f64, u32),
    /// Time spent selecting.
    busy: Duration,
}

/// What to do about a frame, decided under the state lock and done without it.
enum Action {
    Push(gst::Buffer),
    Hold(gst::Event),
    Nothing,
}

/// Lock order: `state`, then `settings`; neither is held while pushing downstream or posting messages.
pub struct KeyPoseSelect {
    sinkpad: gst::Pad,
    srcpad: gst::Pad,
    settings: Mutex<SelectConfig>,
    state: Mutex<Option<State>>,
}

/// What `gst-inspect-1.0` shows. Specifications of its own for each call: every class needs some.
pub(crate) fn properties() -> Vec<glib::ParamSpec> {
    let default = SelectConfig::default();
    vec![
        glib::ParamSpecDouble::builder("lambda")
            .nick("Lambda")
            .blurb("MSE from the last key pose, pixel values in [0, 1], at which a frame is a key pose")
            .minimum(0.)
            .maximum(1.)
            .default_value(default.lambda)
            .mutable_playing()
            .build(),
        glib::ParamSpecUInt::builder("window")
            .nick("Window")
            .blurb("Frames after a key pose at which the newest frame is one whatever its MSE")
            .minimum(1)
            .default_value(default.window)
            .mutable_playing()
            .build(),
        glib::ParamSpecDouble::builder("target-key-rate")
            .nick("Target key rate")
            .blurb("Key poses a second that lambda should follow the motion to give (0 = fixed lambda)")
            .minimum(0.)
            .maximum(1000.)
            .default_value(default.target_key_rate)
            .mutable_playing()
            .build(),
        glib::ParamSpecDouble::builder("still-epsilon")
            .nick("Still epsilon")
            .blurb("MSE below which a pose has not changed at all and the last key frame is held")
            .minimum(0.)
            .maximum(1.)
            .default_value(default.still_epsilon)
            .mutable_playing()
            .build(),
        glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
            .nick("Statistics")
            .blurb(
                "Counts: in, key (and by reason), held, skipped; lambda in force; key-ratio; busy-time (ns)",
            )
            .read_only()
            .build(),
    ]
}

#[glib::object_subclass]
impl ObjectSubclass for KeyPoseSelect {
    const NAME: &'static str = "GstKeyPoseSelect";
    type Type = super::KeyPoseSelect;
    type ParentType = gst::Element;

    #[expect(clippy::unwrap_used, reason = "the class has both templates: see `pad_templates`")]
    fn with_class(class: &Self::Class) -> Self {
        let flags =
            gst::PadFlags::PROXY_CAPS | gst::PadFlags::PROXY_ALLOCATION | gst::PadFlags::PROXY_SCHEDULING;
        let templates = ["sink", "src"].map(|name| class.pad_template(name).unwrap());
        let [sinkpad, srcpad] = filter::pads::<Self>(templates, flags);
        Self { sinkpad, srcpad, settings: Mutex::default(), state: Mutex::default() }
    }
}

impl ObjectImpl for KeyPoseSelect {
    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(properties);
        &PROPERTIES
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        self.set(&[(pspec.name(), value.clone())]);
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        let settings = self.settings();
        match pspec.name() {
            "lambda" => settings.lambda.to_value(),
            "window" => settings.window.to_value(),
            "target-key-rate" => settings.target_key_rate.to_value(),
            "still-epsilon" => settings.still_epsilon.to_value(),
            "stats" => self.stats().to_value(),
            _ => pspec.default_value().clone(),
        }
    }

    fn constructed(&self) {
        self.parent_constructed();
        filter::add_pads(&*self.obj(), [&self.sinkpad, &self.srcpad]);
    }
}

impl GstObjectImpl for KeyPoseSelect {}

impl ElementImpl for KeyPoseSelect {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "Key-pose selector",
                "Filter/Video",
                "Forwards the key poses of a DensePose stream and drops the frames between them",
                env!("CARGO_PKG_REPOSITORY"),
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> =
            LazyLock::new(|| filter::templates(&rgb_caps(), &rgb_caps()));
        &TEMPLATES
    }

    fn change_state(
        &self,
        transition: gst::StateChange,
    ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        if transition == gst::StateChange::ReadyToPaused {
            let state = State::new(self.settings()).map_err(|err| {
                gst::element_imp_error!(self, gst::LibraryError::Settings, ("{err}"));
                gst::StateChangeError
            })?;
            *self.state() = Some(state);
        }
        let success = self.parent_change_state(transition)?;
        if transition == gst::StateChange::PausedToReady {
            *self.state() = None;
        }
        Ok(success)
    }
}

impl State {
    fn new(config: SelectConfig) -> Result<Self, keyframed_engine::EngineError> {
        let selector = Box::new(Selector::new(config)?);
        Ok(Self {
            selector,
            info: None,
            segment: None,
            pending: None,
            off_palette: (0., 0),
            busy: Duration::ZERO,
        })
    }

    /// Turns a decision about `buffer` into what is done about it.
    fn act(&self, decision: Decision, mut buffer: gst::Buffer) -> Action {
        match decision {
            Decision::Key(_) => {
                let stats = self.selector.stats();
                let marked = buffer.make_mut();
                marked.unset_flags(gst::BufferFlags::DELTA_UNIT);
                marked.set_offset(stats.keys() - 1);
                marked.set_offset_end(stats.input - 1);
                Action::Push(buffer)
            }
            Decision::Hold => match buffer.pts() {
                Some(pts) => Action::Hold(gst::event::Gap::builder(pts).duration(buffer.duration()).build()),
                None => Action::Nothing,
            },
            Decision::Skip => Action::Nothing,
        }
    }
}

impl Filter for KeyPoseSelect {
    fn sink_chain(&self, pad: &gst::Pad, buffer: gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
        gst::trace!(CAT, obj = pad, "Incoming {buffer:?}");
        let action = self.select(buffer)?;
        self.perform(action)
    }

    fn sink_event(&self, pad: &gst::Pad, event: gst::Event) -> bool {
        gst::log!(CAT, obj = pad, "Incoming {event:?}");
        match event.view() {
            gst::EventView::Caps(caps) => {
                let Ok(info) = gst_video::VideoInfo::from_caps(caps.caps()) else {
                    gst::error!(CAT, obj = pad, "Cannot read the caps {:?}", caps.caps());
                    return false;
                };
                self.set_info(info);
            }
            gst::EventView::Segment(segment) => {
                let Some(segment) = segment.segment().downcast_ref::<gst::ClockTime>() else {
                    gst::error!(CAT, obj = pad, "Only TIME segments are understood");
                    return false;
                };
                if let Some(state) = self.state().as_mut() {
                    state.segment = Some(segment.clone());
                    state.pending = None;
                }
            }
            gst::EventView::CustomDownstream(_) => {
                params::take(&*self.obj(), &event, &PARAMS, |values| self.set(values));
            }
            gst::EventView::FlushStop(_) => {
                if let Some(state) = self.state().as_mut() {
                    state.selector.reset();
                    (state.pending, state.segment) = (None, None);
                }
            }
            gst::EventView::Eos(_) => {
                let action = self.finish();
                if let Err(err) = self.perform(action) {
                    gst::debug!(CAT, obj = pad, "The last frame was not taken: {err:?}");
                }
            }
            _ => {}
        }
        gst::Pad::event_default(pad, Some(&*self.obj()), event)
    }

    fn src_event(&self, pad: &gst::Pad, event: gst::Event) -> bool {
        let Some(interval) = load::interval(&event) else {
            return gst::Pad::event_default(pad, Some(&*self.obj()), event);
        };
        gst::debug!(CAT, obj = pad, "Key poses are wanted every {}", gst::ClockTime::from_nseconds(interval));
        if let Some(state) = self.state().as_mut() {
            state.selector.set_sustained(interval);
        }
        true
    }

    fn src_query(&self, pad: &gst::Pad, query: &mut gst::QueryRef) -> bool {
        if !gst::Pad::query_default(pad, Some(&*self.obj()), query) {
            return false;
        }
        if let gst::QueryViewMut::Latency(q) = query.view_mut() {
            let (live, min, max) = q.result();
            let frame = self.state().as_ref().and_then(|s| frame_duration(s.info.as_ref()?));
            let frame = frame.filter(|_| live).unwrap_or(gst::ClockTime::ZERO);
            q.set(live, min + frame, max.map(|max| max + frame));
        }
        true
    }
}

impl KeyPoseSelect {
    fn settings(&self) -> SelectConfig {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sets properties, all at once.
    fn set(&self, values: &[params::Value]) {
        let mut settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, value) in values {
            let set = match *name {
                "lambda" => value.get().map(|v| settings.lambda = v),
                "window" => value.get().map(|v| settings.window = v),
                "target-key-rate" => value.get().map(|v| settings.target_key_rate = v),
                "still-epsilon" => value.get().map(|v| settings.still_epsilon = v),
                _ => Ok(()),
            };
            if let Err(err) = set {
                gst::error!(CAT, imp = self, "Property {name}: {err}");
            }
        }
    }

    /// The stream goes on with other pictures.
    fn set_info(&self, info: gst_video::VideoInfo) {
        let frame = frame_duration(&info);
        let before = {
            let mut guard = self.state();
            let Some(state) = guard.as_mut() else { return };
            // It has the old size: it can no longer be sent.
            state.pending = None;
            state.info.replace(info).and_then(|info| frame_duration(&info))
        };
        let mut query = gst::query::Latency::new();
        if frame != before && self.sinkpad.peer_query(&mut query) && query.result().0 {
            gst::debug!(CAT, imp = self, "A frame lasts {frame:?} now: so does the latency");
            let _ = self.obj().post_message(gst::message::Latency::builder().src(&*self.obj()).build());
        }
    }

    fn state(&self) -> MutexGuard<'_, Option<State>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stats(&self) -> gst::Structure {
        let (stats, busy) = match &*self.state() {
            Some(state) => (state.selector.stats(), state.busy),
            None => (SelectStats { lambda: self.settings().lambda, ..Default::default() }, Duration::ZERO),
        };
        let mut structure = gst::Structure::builder("keyposeselect-stats")
            .field("in", stats.input)
            .field("key", stats.keys())
            .field("held", stats.held)
            .field("skipped", stats.skipped)
            .field("lambda", stats.lambda)
            .field("key-ratio", stats.key_ratio())
            .field("busy-time", u64::try_from(busy.as_nanos()).unwrap_or(u64::MAX));
        for reason in keyframed_engine::KeyReason::ALL {
            structure = structure.field(format!("key-{}", reason.name()), stats.by_reason(reason));
        }
        structure.build()
    }

    /// Decides on a frame.
    fn select(&self, buffer: gst::Buffer) -> Result<Action, gst::FlowError> {
        let mut guard = self.state();
        let state = guard.as_mut().ok_or(gst::FlowError::Flushing)?;
        let info = state.info.clone().ok_or(gst::FlowError::NotNegotiated)?;
        let segment = state.segment.as_ref().ok_or(gst::FlowError::Error)?;
        let Some(pts) = buffer.pts() else {
            drop(guard);
            gst::element_imp_error!(self, gst::StreamError::Format, ("Pose frames need timestamps"));
            return Err(gst::FlowError::Error);
        };
        let Some(time) = segment.to_running_time(pts) else {
            gst::debug!(CAT, imp = self, "{pts} is outside the segment, dropped");
            return Ok(Action::Nothing);
        };
        let started = Instant::now();
        let frame = match read_frame(&buffer, &info) {
            Ok(frame) => frame,
            Err(err) => {
                drop(guard);
                gst::element_imp_error!(self, gst::StreamError::Decode, ("Cannot read a pose frame: {err}"));
                return Err(gst::FlowError::Error);
            }
        };
        let config = self.settings();
        if *state.selector.config() != config
            && let Err(err) = state.selector.configure(config)
        {
            gst::warning!(CAT, imp = self, "Settings not used: {err}");
        }
        let decision = state.selector.push(&frame, time.nseconds());
        state.pending = (decision == Decision::Skip).then(|| buffer.clone());
        let foreign = matches!(decision, Decision::Key(_)) && state.off_palette.1 < PALETTE_SAMPLES;
        let warn = if foreign { state.sample_palette(&frame) } else { None };
        state.busy += started.elapsed();
        let action = state.act(decision, buffer);
        drop(guard);
        gst::trace!(CAT, imp = self, "{decision:?} at {time}");
        self.warn_foreign(warn);
        Ok(action)
    }

    fn perform(&self, action: Action) -> Result<gst::FlowSuccess, gst::FlowError> {
        match action {
            Action::Push(buffer) => self.srcpad.push(buffer),
            Action::Hold(gap) => {
                self.srcpad.push_event(gap);
                Ok(gst::FlowSuccess::Ok)
            }
            Action::Nothing => Ok(gst::FlowSuccess::Ok),
        }
    }

    /// Tells the user, once, that the stream does not look like DensePose.
    fn warn_foreign(&self, share: Option<f64>) {
        if let Some(share) = share {
            let percent = 100. * share;
            gst::element_imp_warning!(
                self,
                gst::StreamError::WrongType,
                ("{percent:.0} % of the key poses' pixels are not in DensePose's colours: is this a DensePose stream?")
            );
        }
    }

    /// The end of the stream: its last frame is a key pose, too.
    fn finish(&self) -> Action {
        let mut guard = self.state();
        let Some(state) = guard.as_mut() else { return Action::Nothing };
        let decision = state.selector.finish();
        let action = match (decision, state.pending.take()) {
            (Some(decision), Some(buffer)) => state.act(decision.item, buffer),
            _ => Action::Nothing,
        };
        let short = (1..PALETTE_SAMPLES).contains(&state.off_palette.1);
        let warn = if short { state.judge_palette() } else { None };
        drop(guard);
        self.warn_foreign(warn);
        action
    }
}

impl State {
    /// Looks at the colours of a key pose; answers the share to warn of when enough were seen.
    fn sample_palette(&mut self, frame: &keyframed_engine::Frame) -> Option<f64> {
        self.off_palette.0 += pose::off_palette_share(frame);
        self.off_palette.1 += 1;
        if self.off_palette.1 == PALETTE_SAMPLES { self.judge_palette() } else { None }
    }

    fn judge_palette(&mut self) -> Option<f64> {
        let share = self.off_palette.0 / f64::from(self.off_palette.1);
        self.off_palette.1 = PALETTE_SAMPLES;
        (share > pose::NOT_DENSEPOSE).then_some(share)
    }
}

/// How long a frame lasts at the rate in the caps, if they name one.
fn frame_duration(info: &gst_video::VideoInfo) -> Option<gst::ClockTime> {
    crate::video::frame_time(1, info.fps())
}
