/**
 * SECTION:element-lcmanimate
 * @see_also: keyposeselect, filminterpolate, avataranimate
 *
 * Makes a key frame of the reference picture for every key pose (DensePose picture) that comes in, with the same
 * timestamps: MagicAnimate's networks, sampled in a few steps by a latent consistency model. Any size of key pose
 * is taken, the output has the size of the model. GAP events, which hold a key frame, pass in their place.
 *
 * `model` names a model directory: a path, or a name looked up where models are installed. `reference` is a picture
 * file (PNG, JPEG, WebP), or the name of one of the pictures that come with the model; if it is not set, the first
 * of those. Missing or broken files are errors when the element starts.
 *
 * `prompt` is what the text encoder reads, in at most 75 of its tokens: what is longer is cut, with a line in the log.
 * Models with a stored text, as the embedded one, take none and refuse to start with one.
 *
 * With `context-frames`, a key frame sees the ones before it. `context-mode=cache` keeps what each of them left in
 * the networks, so that a new one costs one frame; `recompute` runs them all again each time, as MagicAnimate does.
 *
 * A key frame is made in two halves, on two threads: while one is decoded and sent, the next is denoised already.
 * The second thread takes no key pose while a key frame waits for the first, so no more than two are under way.
 *
 * `schedule=pipelined` makes the steps of successive key frames as one batch, which fills a GPU that one key frame
 * leaves idle: a key frame comes out with the key pose that comes `steps` - 1 later, with its own timestamps. Those
 * on their way are finished first, in order, before any serialized event (so at the end of the stream, and at a GAP)
 * and when `reference` or a setting changes; a flush drops them. Key frames then cannot see earlier ones: for models
 * where they do, `context-frames` must be 0, or the element does not start.
 *
 * The weights are read on a thread of their own; progress messages (code `load-model`) tell how far it is. Until
 * then key poses wait.
 *
 * ## Offline (`leaky=false`, or `auto` and upstream not live)
 *
 * Nothing is lost: one key pose waits while others are worked on, and then upstream is blocked. Two runs with the same
 * properties give the same bytes.
 *
 * ## Live (`leaky=true`, or `auto` and upstream live)
 *
 * One key pose waits while others are worked on; a newer one takes its place (counted as dropped). So lag never
 * builds up. The time from a key pose's arrival to its key frame is measured (but for those that wait for the model,
 * the first key frame or a new reference) and answered to the LATENCY query;
 * when two in forty seconds take longer than that, or for forty seconds all took much less, by a tick of 40 ms at least
 * (what comes in the first five seconds, while other networks load, does not count), the pipeline is told to
 * redistribute latency. At most 2 seconds are declared. Upstream is told how often key poses may come, in the custom
 * event `keyframed-load` (field `key-interval`, nanoseconds), whenever that changes by 5 %: the longer half of a key
 * frame decides. With `schedule=pipelined` the time of a key frame is from arrival, too, and so includes the key poses
 * that it waits for. A key frame that fails is left out with a warning; eight in a row are an error. If one fails
 * for want of memory, `context-frames` is halved, and with none left guidance switched off, each told by an element
 * message: structure `keyframed-memory`, with `context-frames` (unsigned integer), `guidance-scale` (double) and
 * `reason` (string).
 *
 * ## Changes while running
 *
 * `steps`, `guidance-scale`, `lora-scale`, `prompt`, `context-frames` and `seed` take effect with the next key frame.
 * `reference` does, too: the new picture is read and checked first, and if it cannot be used a warning says so and
 * the old one stays. A flush makes the networks forget earlier key frames.
 *
 * The serialized custom downstream event `keyframed-params` sets those of the six properties that its structure
 * has fields for, all at once, and passes on. It keeps its place among the key poses: the key frame of one that came
 * before it is made with the old values, of one after it with the new. A field of the wrong type or out of range is
 * named in a warning, and then nothing of the event is used here. Events that wait for the same key pose become one,
 * newer values winning. A flush drops events that wait, for this element or, used already, behind a key frame that
 * is not finished.
 *
 * |[
 * gst-launch-1.0 denseposetestsrc num-buffers=10 ! keyposeselect ! lcmanimate ! videoconvert ! autovideosink
 * ]| Shows key frames of the embedded model's first avatar.
 */
use std::{
    sync::{Condvar, LazyLock, Mutex, MutexGuard, PoisonError},
    thread,
};

use gst::{glib, prelude::*, subclass::prelude::*};

use super::{
    maker::Maker,
    settings::{self, Settings},
    state::State,
};
use crate::{filter, video::rgb_caps};

pub(super) static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new("lcmanimate", gst::DebugColorFlags::empty(), Some("Key frames from key poses"))
});

/// Lock order: `state`, then `settings`. Neither is held while pushing, posting, running a network or waiting for a
/// thread; `maker` is held for nothing else than putting it in and taking it out.
pub struct LcmAnimate {
    pub(super) sinkpad: gst::Pad,
    pub(super) srcpad: gst::Pad,
    settings: Mutex<Settings>,
    state: Mutex<Option<State>>,
    /// Signalled when a push is over.
    pushed: Condvar,
    maker: Mutex<Option<Maker>>,
}

#[glib::object_subclass]
impl ObjectSubclass for LcmAnimate {
    const NAME: &'static str = "GstLcmAnimate";
    type Type = super::LcmAnimate;
    type ParentType = gst::Element;

    #[expect(clippy::unwrap_used, reason = "the class has both templates: see `pad_templates`")]
    fn with_class(class: &Self::Class) -> Self {
        let templates = ["sink", "src"].map(|name| class.pad_template(name).unwrap());
        let [sinkpad, srcpad] = filter::pads::<Self>(templates, gst::PadFlags::empty());
        let (settings, state, maker) = (Mutex::default(), Mutex::default(), Mutex::default());
        Self { sinkpad, srcpad, settings, state, pushed: Condvar::new(), maker }
    }
}

impl ObjectImpl for LcmAnimate {
    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(settings::properties);
        &PROPERTIES
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        let result = match pspec.name() {
            "reference" => value.get().map(|name| self.set_reference(name)).map_err(|err| err.to_string()),
            name => {
                let mut result = Ok(());
                self.change_settings(|settings| result = settings.set(name, value));
                result.map_err(|err| err.to_string())
            }
        };
        if let Err(err) = result {
            gst::error!(CAT, imp = self, "Property {}: {err}", pspec.name());
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        if pspec.name() == "stats" {
            return self.stats().to_value();
        }
        let defaults = self.state().as_ref().map(|state| state.model.defaults());
        let value = self.settings().get(pspec.name(), defaults.as_ref());
        value.unwrap_or_else(|| pspec.default_value().clone())
    }

    fn constructed(&self) {
        self.parent_constructed();
        filter::add_pads(&*self.obj(), [&self.sinkpad, &self.srcpad]);
    }
}

impl GstObjectImpl for LcmAnimate {}

impl ElementImpl for LcmAnimate {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "LCM animator",
                "Filter/Effect/Video",
                "Makes key frames of a reference picture from DensePose key poses, by a few-step MagicAnimate",
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
        if transition == gst::StateChange::ReadyToPaused
            && let Err(err) = self.prepare()
        {
            self.post_error_message(err);
            return Err(gst::StateChangeError);
        }
        let result = self.parent_change_state(transition);
        let stopped = transition == gst::StateChange::PausedToReady;
        if stopped || (transition == gst::StateChange::ReadyToPaused && result.is_err()) {
            self.stop();
        }
        result
    }
}

impl LcmAnimate {
    pub(super) fn settings(&self) -> Settings {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn change_settings(&self, change: impl FnOnce(&mut Settings)) {
        change(&mut self.settings.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(super) fn state(&self) -> MutexGuard<'_, Option<State>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_maker(&self, maker: Option<Maker>) -> Option<Maker> {
        std::mem::replace(&mut *self.maker.lock().unwrap_or_else(PoisonError::into_inner), maker)
    }

    /// Pushes, unless `stops` says under the same lock that it is of no use any more.
    pub(super) fn pushing<T>(
        &self,
        stops: impl FnOnce(&State) -> bool,
        push: impl FnOnce() -> T,
    ) -> Option<T> {
        match self.state().as_mut() {
            Some(state) if !stops(state) => state.pushing = Some(thread::current().id()),
            _ => return None,
        }
        let result = push();
        self.push_over();
        Some(result)
    }

    pub(super) fn push_over(&self) {
        if let Some(state) = self.state().as_mut() {
            state.pushing = None;
        }
        self.pushed.notify_all();
    }

    /// Waits until what was being pushed before a flush is gone: after its end it would come without a segment.
    /// A flush that comes out of the push itself does not wait for itself.
    pub(super) fn await_push(&self) {
        let others = |state: &State| state.pushing.is_some_and(|by| by != thread::current().id());
        let mut guard = self.state();
        while guard.as_ref().is_some_and(others) {
            guard = self.pushed.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits for the maker and forgets the stream.
    fn stop(&self) {
        if let Some(state) = self.state().as_mut() {
            state.end();
        }
        drop(self.set_maker(None));
        // Not under the lock: whatever is let go may ask this element.
        let state = self.state().take();
        drop(state);
    }

    fn stats(&self) -> gst::Structure {
        let guard = self.state();
        let counts = guard.as_ref().map(|state| state.counts).unwrap_or_default();
        let nanos = |time: std::time::Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let reference = guard.as_ref().and_then(|state| state.reference.as_ref());
        gst::Structure::builder("lcmanimate-stats")
            .field("in", counts.input)
            .field("generated", counts.generated)
            .field("dropped", counts.dropped)
            .field("failed", counts.failed)
            .field("busy-time", nanos(counts.busy))
            .field("last-time", nanos(counts.last))
            .field("latency", guard.as_ref().map_or(0, |state| state.latency.declared))
            .field("waiting-age", guard.as_ref().map_or(0, |state| nanos(state.waiting_age())))
            .field("loaded", guard.as_ref().is_some_and(|state| state.loaded))
            .field("reference", reference.map(|path| path.display().to_string()))
            .build()
    }
}
