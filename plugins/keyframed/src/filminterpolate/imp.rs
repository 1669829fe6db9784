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
 * poses (`window` of keyposeselect), what FILM takes, and what upstream does not declare. The default, 280 ms, is a
 * window of 5 frames at 25 frames a second and two ticks. Without the next key frame the last picture is repeated:
 * there is an output picture for every tick, whatever comes in. As many key frames wait as there are ticks within the
 * latency, and two; if more come, the newest takes the place of the one before it.
 *
 * Pictures are sent one tick before that, by a thread which then waits for whatever is downstream. A sink that
 * synchronises to the clock keeps it until the picture is due and 20 ms longer (`processing-deadline`, which it adds to
 * the latency): that is late for the next tick, and from 50 pictures a second on every other tick would be left out. So
 * put `queue max-size-buffers=2 max-size-bytes=0 max-size-time=0` in front of such a sink.
 *
 * FILM takes longer than a tick for the first picture between two key frames and less for the others. As the output
 * stays behind the input, both key frames are known before, and a thread of its own makes FILM's pictures ahead of
 * time. No tick waits for it: if the picture is not there the flow warp makes one, and the rest up to the next key
 * frame, so that sharpness does not flicker. From what FILM took before the thread knows whether all in-betweens of
 * two key frames will be there in time, and begins none if not. Pictures are kept for as many ticks as key frames may
 * wait, at most.
 *
 * If FILM twice in two seconds has not made what lies between two key frames, if a light rung takes too long, or an
 * output is late, the rung becomes cheaper, and better again after two calm seconds, later if it failed again. After a
 * stall the ticks missed are dropped and output goes on with the newest; pictures never come in a burst. Until FILM
 * is loaded the flow warp is the best rung.
 *
 * Each change of the rung is an element message, structure `keyframed-quality`, with the fields (strings) `from` and
 * `to`, film, warp, crossfade or repeat, and `reason`:
 *
 *  - missed: FILM's pictures were not there in time
 *  - slow: a light rung took too long
 *  - late: an output was late
 *  - calm: no trouble for a while
 *  - limit: `max-quality` has changed, or FILM is loaded
 *  - start: a new stream or a new rate
 *
 * ## Changes while running
 *
 * `latency` and `max-quality` take effect at once; if FILM is wanted for the first time it is loaded then, and
 * until it is there the flow warp is used (live) or the stream waits (offline). The serialized custom downstream
 * event `keyframed-params` sets those of the two that its structure has fields for, both at once when it comes, and
 * leaves before the next picture; those that wait for it leave as one, newer values winning. A field of the wrong
 * type or out of range is named in a warning, and then nothing of the event is used here.
 *
 * A new rate takes effect with the next key frame and starts a new grid: live at the next tick, with the key frames
 * that wait; offline at the last key frame. A new size takes effect with its first key frame, and pictures of
 * different sizes are not mixed.
 *
 * Live, timestamps of the input may jump without a new segment, as when a camera starts anew: back, or into the
 * future, by more than the latency and a second. The key frame is then shown from the next tick on, those that wait
 * are dropped, and what follows plays at its own pace. Output timestamps go on without a gap, so from there on they
 * are the input's plus an offset. Key frames that are out of order by less are not used.
 *
 * QoS events are passed upstream and change nothing here: the rung goes by what pictures cost and when they leave,
 * and the latency is what `latency` says.
 *
 * |[
 * gst-launch-1.0 denseposetestsrc pattern=dance num-buffers=50 ! keyposeselect ! filminterpolate max-quality=warp ! video/x-raw,framerate=50/1 ! videoconvert ! autovideosink
 * ]| Interpolates between key poses themselves (no character is animated) at 50 frames a second.
 */
use std::sync::{Condvar, LazyLock, Mutex, MutexGuard, PoisonError};

use gst::{glib, prelude::*, subclass::prelude::*};
use keyframed_engine::{Costs, Percentiles, Rung, ahead::AheadCounts};

use super::{
    film::Film,
    rungs::Light,
    state::{Mode, Settings, State},
    worker::Worker,
};
use crate::{
    filter, models, params,
    video::{rgb_caps, rgb_caps_with_rate},
};

pub(super) static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "filminterpolate",
        gst::DebugColorFlags::empty(),
        Some("Constant-rate video from key frames"),
    )
});

/// `state` is shared with FILM's thread, which gives way to all others and may be put aside while it holds the lock: the
/// source task takes it as rarely as it can, and wakes that thread only when it goes to sleep itself.
///
/// Lock order: `state`, then `settings`. Pictures are made under `film` or `light` alone; of the others only `settings`
/// is taken meanwhile. `worker` is held while the thread is started. Nothing is held while pushing, posting, joining,
/// or waiting on the clock.
pub struct FilmInterpolate {
    pub(super) sinkpad: gst::Pad,
    pub(super) srcpad: gst::Pad,
    settings: Mutex<Settings>,
    state: Mutex<Option<State>>,
    /// Signalled when the source task should look again though no tick is due, or FILM's thread what there is to do.
    pub(super) changed: Condvar,
    film: Mutex<Film>,
    light: Mutex<Light>,
    pub(super) worker: Mutex<Option<Worker>>,
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
                "Counts: in (key frames), out, interpolated (by rung: film, warp, crossfade), repeated, late \
                 (pictures in front of which ticks were dropped by a stall), dropped (those ticks, and key frames \
                 that were not used), skipped (ticks left out because the latency became shorter), failed; \
                 busy-time (ns). Live: rung in force; latency-p50, -p95, -p99 (ns) of the last 1024 pictures; in-betweens \
                 prepared by FILM, missed (too late) and declined (no time to begin); film-first and film-further, \
                 what it is expected to take for the first of a pair and each other (ns); waiting key frames and \
                 waiting-age, of the oldest of them (ns)",
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

    #[expect(clippy::unwrap_used, reason = "the class has both templates: see `pad_templates`")]
    fn with_class(class: &Self::Class) -> Self {
        let templates = ["sink", "src"].map(|name| class.pad_template(name).unwrap());
        let [sinkpad, srcpad] = filter::pads::<Self>(templates, gst::PadFlags::empty());
        Self {
            sinkpad,
            srcpad,
            settings: Mutex::default(),
            state: Mutex::default(),
            changed: Condvar::new(),
            film: Mutex::default(),
            light: Mutex::new(Light::new()),
            worker: Mutex::default(),
        }
    }
}

impl ObjectImpl for FilmInterpolate {
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
        filter::add_pads(&*self.obj(), [&self.sinkpad, &self.srcpad]);
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
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> =
            LazyLock::new(|| filter::templates(&rgb_caps(), &rgb_caps_with_rate()));
        &TEMPLATES
    }

    fn change_state(
        &self,
        transition: gst::StateChange,
    ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        match transition {
            gst::StateChange::ReadyToPaused => {
                let mut film = self.film();
                *film = Film::default();
                self.want_film(&mut film);
                drop(film);
                *self.state() = Some(State::new(false));
            }
            gst::StateChange::PausedToPlaying => self.set_playing(true),
            _ => {}
        }
        let success = self.parent_change_state(transition)?;
        match transition {
            gst::StateChange::PlayingToPaused => self.set_playing(false),
            gst::StateChange::PausedToReady => {
                // A last buffer may have started it again while the pads were stopped.
                self.stop_worker();
                *self.state() = None;
                *self.film() = Film::default();
                *self.light() = Light::new();
            }
            _ => {}
        }
        Ok(success)
    }
}

impl FilmInterpolate {
    fn settings(&self) -> Settings {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The latency and the best rung that are asked for.
    pub(super) fn asked(&self) -> (gst::ClockTime, Rung) {
        let settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        (settings.latency, settings.max_quality.into())
    }

    pub(super) fn state(&self) -> MutexGuard<'_, Option<State>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn film(&self) -> MutexGuard<'_, Film> {
        self.film.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn light(&self) -> MutexGuard<'_, Light> {
        self.light.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `changed` is signalled.
    pub(super) fn wait<'a>(&self, guard: MutexGuard<'a, Option<State>>) -> MutexGuard<'a, Option<State>> {
        self.changed.wait(guard).unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets properties all at once and acts on them.
    pub(super) fn set(&self, values: &[params::Value]) {
        {
            let mut settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
            for (name, value) in values {
                if let Err(err) = settings.set(name, value) {
                    gst::error!(CAT, imp = self, "Property {name}: {err}");
                }
            }
        }
        let has = |wanted| values.iter().any(|(name, _)| *name == wanted);
        let mut change = None;
        if let Some(state) = self.state().as_mut() {
            if has("latency") {
                state.wake();
            }
            let (_, best) = self.asked();
            state.set_best(best);
            change = state.rung_change();
        }
        self.changed.notify_all();
        self.tell_rung(change);
        if has("latency") {
            let _ = self.obj().post_message(gst::message::Latency::builder().src(&*self.obj()).build());
        }
    }

    fn set_playing(&self, playing: bool) {
        if let Some(state) = self.state().as_mut() {
            state.playing = playing;
            state.wake();
        }
        self.changed.notify_all();
    }

    /// Starts loading FILM on a worker if it may be used, and has not been started yet.
    pub(super) fn want_film(&self, film: &mut Film) {
        let settings = self.settings();
        if Rung::from(settings.max_quality) == Rung::Film {
            film.want(move || models::film(&settings.model, &settings.device));
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
        let guard = self.state();
        let now = guard.as_ref().and_then(|state| self.running_time(state));
        let rungs = guard.as_ref().map(|state| state.rungs).unwrap_or_default();
        let mut structure = gst::Structure::builder("filminterpolate-stats")
            .field("film", rungs.made[Rung::Film as usize])
            .field("warp", rungs.made[Rung::Warp as usize])
            .field("crossfade", rungs.made[Rung::Crossfade as usize])
            .field("failed", rungs.failed)
            .field("busy-time", u64::try_from(rungs.busy.as_nanos()).unwrap_or(u64::MAX));
        let mut counters = keyframed_engine::Counters::default();
        let mut buffers = (0, 0);
        let (mut ahead, mut costs) = (AheadCounts::default(), Costs::default());
        let mut latencies = Vec::new();
        if let Some(state) = &*guard {
            (counters, buffers) = (state.counters(), state.buffers);
            (ahead, costs) = (state.ahead_counts(), state.costs());
            if let Mode::Live(live) = &state.mode {
                let (waiting, oldest) = live.pacer.waiting();
                let age = now.zip(oldest).map_or(0, |(now, oldest)| now.saturating_sub(oldest));
                structure = structure
                    .field("rung", live.pacer.rung().name())
                    .field("waiting", waiting as u64)
                    .field("waiting-age", age);
                latencies = live.pacer.latencies().recent();
            }
        }
        // The next tick does not wait until they are sorted.
        drop(guard);
        if let Some(p) = Percentiles::of(latencies) {
            structure =
                structure.field("latency-p50", p.p50).field("latency-p95", p.p95).field("latency-p99", p.p99);
        }
        structure
            .field("in", buffers.0)
            .field("out", buffers.1)
            .field("interpolated", counters.interpolated)
            .field("repeated", counters.repeated)
            .field("late", counters.late)
            .field("dropped", counters.dropped)
            .field("skipped", counters.skipped)
            .field("prepared", ahead.prepared)
            .field("missed", ahead.missed)
            .field("declined", ahead.declined)
            .field("film-first", costs.first)
            .field("film-further", costs.further)
            .build()
    }
}
