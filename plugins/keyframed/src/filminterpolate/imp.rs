/**
 * SECTION:element-filminterpolate
 * @see_also: lcmanimate, keyposeselect, avataranimate
 *
 * Turns key frames, which come whenever the pose has changed enough, into video at the constant rate of its
 * output caps. Ticks lie on a grid that starts at the first key frame. A tick at a key frame's own time shows
 * it; one between two key frames shows an in-between; and where a GAP event said that a key frame is still
 * valid, it is repeated.
 *
 * In-betweens are made by FILM, or by a cheaper rung: flow warp at half size, cross-fade, repeat. `max-quality` is
 * the best rung to use. If FILM is not to be had (a build without networks, a model without it), a warning says
 * so and the flow warp is used.
 *
 * Output timestamps are running times of the input: the output segment starts at 0.
 *
 * ## Offline
 *
 * Nothing is dropped and nothing is late: all ticks up to a key frame are made when it comes, the rest at end of
 * stream. Their number is duration × rate, the duration being that from the first key frame's timestamp to the
 * last input's end. FILM is waited for if it is still loading, the rung never changes, and two runs give the same
 * bytes.
 *
 * ## Live (upstream answers the LATENCY query with live)
 *
 * The tick for time T leaves `latency` after T, in time for the sinks: the LATENCY query adds `latency` to what
 * upstream answers. An in-between needs the next key frame, so `latency` should cover the longest time between key
 * poses (`window` of keyposeselect) and what upstream does not declare. Without the next key frame the last
 * picture is repeated: there is an output picture for every tick, whatever comes in.
 *
 * If making pictures takes too long the rung becomes cheaper, and better again after two calm seconds. After a
 * stall the ticks missed are dropped and output goes on with the newest; pictures never come in a burst. Until FILM
 * is loaded the flow warp is used.
 *
 * ## Changes while running
 *
 * `latency` takes effect at once. A cheaper `max-quality` does, too; a better one than that of the start does at
 * the next start or flush. A new rate starts a new grid at the last key frame; a new size takes effect with its
 * first key frame, and pictures of different sizes are not mixed.
 *
 * |[
 * gst-launch-1.0 denseposetestsrc pattern=dance num-buffers=50 ! keyposeselect ! filminterpolate max-quality=warp ! video/x-raw,framerate=50/1 ! videoconvert ! autovideosink
 * ]| Interpolates between key poses themselves (no character is animated) at 50 frames a second.
 */
use std::sync::{Condvar, LazyLock, Mutex, MutexGuard, PoisonError};

use gst::{glib, prelude::*, subclass::prelude::*};
use keyframed_engine::Rung;

use super::{
    rungs::Rungs,
    state::{Mode, Settings, State},
};
use crate::{
    loading::Loading,
    models,
    video::{rgb_caps, rgb_caps_with_rate},
};

pub(super) static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "filminterpolate",
        gst::DebugColorFlags::empty(),
        Some("Constant-rate video from key frames"),
    )
});

/// Lock order: `state`, then `settings`. Pictures are made under `rungs` alone, which is never held together with
/// another. Nothing is held while pushing, posting, or waiting on the clock.
pub struct FilmInterpolate {
    pub(super) sinkpad: gst::Pad,
    pub(super) srcpad: gst::Pad,
    settings: Mutex<Settings>,
    state: Mutex<Option<State>>,
    /// Signalled when the source task should look again though no tick is due.
    pub(super) changed: Condvar,
    rungs: Mutex<Rungs>,
}

/// What `gst-inspect-1.0` shows. Specifications of its own for each call: every class needs some.
pub(crate) fn properties() -> Vec<glib::ParamSpec> {
    let default = Settings::default();
    vec![
        glib::ParamSpecString::builder("model")
            .nick("Model")
            .blurb("Name or directory of the model with FILM's weights")
            .default_value(Some(default.model.as_str()))
            .mutable_ready()
            .build(),
        glib::ParamSpecString::builder("device")
            .nick("Device")
            .blurb("Where FILM runs: auto, cpu, cuda, cuda:N")
            .default_value(Some(default.device.as_str()))
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt64::builder("latency")
            .nick("Latency")
            .blurb("Time (ns) that output stays behind input in live pipelines")
            .maximum(60 * gst::ClockTime::SECOND.nseconds())
            .default_value(default.latency.nseconds())
            .mutable_playing()
            .build(),
        glib::ParamSpecEnum::builder_with_default("max-quality", default.max_quality)
            .nick("Maximum quality")
            .blurb("Best way of making in-betweens; overload in live pipelines picks cheaper ones")
            .mutable_playing()
            .build(),
        glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
            .nick("Statistics")
            .blurb(
                "Counts: in (key frames), out, interpolated (by rung: film, warp, crossfade), repeated, late, \
                 dropped, failed; rung in force; busy-time (ns); latency-p50, -p95, -p99 (ns, live)",
            )
            .read_only()
            .build(),
    ]
}

#[glib::object_subclass]
impl ObjectSubclass for FilmInterpolate {
    const NAME: &'static str = "GstFilmInterpolate";
    type Type = super::FilmInterpolate;
    type ParentType = gst::Element;

    fn with_class(class: &Self::Class) -> Self {
        let pad = |name| gst::Pad::builder_from_template(&class.pad_template(name).unwrap());
        let sinkpad = pad("sink")
            .chain_function(|pad, parent, buffer| {
                Self::catch_panic_pad_function(
                    parent,
                    || Err(gst::FlowError::Error),
                    |this| this.sink_chain(pad, buffer),
                )
            })
            .event_function(|pad, parent, event| {
                Self::catch_panic_pad_function(parent, || false, |this| this.sink_event(pad, event))
            })
            .query_function(|pad, parent, query| {
                Self::catch_panic_pad_function(parent, || false, |this| this.sink_query(pad, query))
            })
            .build();
        let srcpad = pad("src")
            .query_function(|pad, parent, query| {
                Self::catch_panic_pad_function(parent, || false, |this| this.src_query(pad, query))
            })
            .activatemode_function(|pad, parent, mode, active| {
                Self::catch_panic_pad_function(
                    parent,
                    || Err(gst::loggable_error!(CAT, "Panic in activation")),
                    |this| this.src_activate(pad, mode, active),
                )
            })
            .build();
        Self {
            sinkpad,
            srcpad,
            settings: Mutex::default(),
            state: Mutex::default(),
            changed: Condvar::new(),
            rungs: Mutex::new(Rungs::new(None)),
        }
    }
}

impl ObjectImpl for FilmInterpolate {
    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(properties);
        &PROPERTIES
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        let mut settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        let set = match pspec.name() {
            "model" => value
                .get::<Option<String>>()
                .map(|v| settings.model = v.unwrap_or_else(|| models::EMBEDDED.into())),
            "device" => {
                value.get::<Option<String>>().map(|v| settings.device = v.unwrap_or_else(|| "auto".into()))
            }
            "latency" => value.get().map(|v| settings.latency = gst::ClockTime::from_nseconds(v)),
            "max-quality" => value.get().map(|v| settings.max_quality = v),
            _ => Ok(()),
        };
        drop(settings);
        if let Err(err) = set {
            gst::error!(CAT, imp = self, "Property {}: {err}", pspec.name());
        }
        if pspec.name() == "latency" {
            if let Some(state) = self.state().as_mut() {
                state.wake();
            }
            let _ = self.obj().post_message(gst::message::Latency::builder().src(&*self.obj()).build());
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        let settings = self.settings();
        match pspec.name() {
            "model" => settings.model.to_value(),
            "device" => settings.device.to_value(),
            "latency" => settings.latency.nseconds().to_value(),
            "max-quality" => settings.max_quality.to_value(),
            "stats" => self.stats().to_value(),
            _ => pspec.default_value().clone(),
        }
    }

    fn constructed(&self) {
        self.parent_constructed();
        for pad in [&self.sinkpad, &self.srcpad] {
            // Cannot fail: the names differ and the pads have no parent yet.
            let _ = self.obj().add_pad(pad);
        }
    }
}

impl GstObjectImpl for FilmInterpolate {}

impl ElementImpl for FilmInterpolate {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "FILM interpolator",
                "Filter/Effect/Video",
                "Makes constant-rate video from key frames by FILM and cheaper interpolation, live or offline",
                env!("CARGO_PKG_REPOSITORY"),
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            let template = |name, direction, caps: gst::Caps| {
                gst::PadTemplate::new(name, direction, gst::PadPresence::Always, &caps).ok()
            };
            let sink = template("sink", gst::PadDirection::Sink, rgb_caps());
            let src = template("src", gst::PadDirection::Src, rgb_caps_with_rate());
            [sink, src].into_iter().flatten().collect()
        });
        &TEMPLATES
    }

    fn change_state(
        &self,
        transition: gst::StateChange,
    ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        match transition {
            gst::StateChange::ReadyToPaused => {
                *self.rungs() = Rungs::new(self.load_film());
                *self.state() = Some(State::new(false));
            }
            gst::StateChange::PausedToPlaying => self.set_playing(true),
            _ => {}
        }
        let success = self.parent_change_state(transition)?;
        match transition {
            gst::StateChange::PlayingToPaused => self.set_playing(false),
            gst::StateChange::PausedToReady => {
                *self.state() = None;
                *self.rungs() = Rungs::new(None);
            }
            _ => {}
        }
        Ok(success)
    }
}

impl FilmInterpolate {
    pub(super) fn settings(&self) -> Settings {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn state(&self) -> MutexGuard<'_, Option<State>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn rungs(&self) -> MutexGuard<'_, Rungs> {
        self.rungs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `changed` is signalled.
    pub(super) fn wait<'a>(&self, guard: MutexGuard<'a, Option<State>>) -> MutexGuard<'a, Option<State>> {
        self.changed.wait(guard).unwrap_or_else(PoisonError::into_inner)
    }

    fn set_playing(&self, playing: bool) {
        if let Some(state) = self.state().as_mut() {
            state.playing = playing;
            state.wake();
        }
        self.changed.notify_all();
    }

    /// Starts loading FILM on a worker if it may be used.
    fn load_film(&self) -> Option<Loading<Box<dyn keyframed_engine::Interpolator>>> {
        let settings = self.settings();
        if Rung::from(settings.max_quality) != Rung::Film {
            return None;
        }
        let load = move || models::film(&settings.model, &settings.device);
        match Loading::start("film-load", load) {
            Ok(loading) => Some(loading),
            Err(err) => {
                gst::error!(CAT, imp = self, "Cannot start the loader: {err}");
                None
            }
        }
    }

    /// Tells the user why FILM is not used.
    pub(super) fn report_no_film(&self, trouble: Option<String>) {
        if let Some(trouble) = trouble {
            gst::element_imp_warning!(
                self,
                gst::LibraryError::Init,
                ("FILM is not available, in-betweens are made by flow warp: {trouble}")
            );
        }
    }

    fn stats(&self) -> gst::Structure {
        let latency = self.settings().latency;
        let guard = self.state();
        let rungs = guard.as_ref().map(|state| state.rungs).unwrap_or_default();
        let mut structure = gst::Structure::builder("filminterpolate-stats")
            .field("film", rungs.made[Rung::Film as usize])
            .field("warp", rungs.made[Rung::Warp as usize])
            .field("crossfade", rungs.made[Rung::Crossfade as usize])
            .field("failed", rungs.failed)
            .field("busy-time", u64::try_from(rungs.busy.as_nanos()).unwrap_or(u64::MAX));
        let mut counters = keyframed_engine::Counters::default();
        let mut buffers = (0, 0);
        if let Some(state) = &*guard {
            (counters, buffers) = (state.counters(), state.buffers);
            if let Mode::Live(live) = &state.mode {
                structure = structure.field("rung", live.pacer.rung().name());
                if let Some(p) = live.pacer.latencies().percentiles() {
                    let delay = state.delay(latency);
                    structure = structure
                        .field("latency-p50", p.p50 + delay)
                        .field("latency-p95", p.p95 + delay)
                        .field("latency-p99", p.p99 + delay);
                }
            }
        }
        structure
            .field("in", buffers.0)
            .field("out", buffers.1)
            .field("interpolated", counters.interpolated)
            .field("repeated", counters.repeated)
            .field("late", counters.late)
            .field("dropped", counters.dropped)
            .build()
    }
}
