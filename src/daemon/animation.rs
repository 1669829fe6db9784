//! The animation pipeline: poses in, canvas frames for the relay out.

use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use anyhow::{Context as _, anyhow};
use gst::{glib, prelude::*};
use keyframed_control::types::{Keyframe, Params};
use tokio::sync::broadcast;

use super::{
    bus,
    clock::Base,
    figures::{Figures, to_millis},
    gallery,
    handle::Telemetry,
    nice, params,
    relay::Relay,
};
use crate::{
    config::resolved::{Animation as Config, Video},
    media::element::{filter, fraction, make},
};

/// Poses that wait in front of the animation; a newer one takes the oldest's place.
const MOST_POSES: u64 = 2;

/// What an animation is built from.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The configured part.
    pub config: Config,
    /// Parameters in force.
    pub params: Params,
    /// Reference in force; `None`: the model's own.
    pub reference: Option<PathBuf>,
    /// Whether a client chose that, from the gallery.
    pub chosen: bool,
    /// The canvas.
    pub video: Video,
}

impl Plan {
    /// Of a pipeline as configured.
    pub fn of(config: &Config, params: Params, video: Video) -> Self {
        Self { config: config.clone(), params, reference: config.reference.clone(), chosen: false, video }
    }

    /// Whether an animation can become the other while it runs.
    pub fn is_same_but_for_parameters(&self, other: &Self) -> bool {
        self.video == other.video && self.config.has_same_networks(&other.config)
    }
}

/// What an animation leads to and tells.
#[derive(Clone)]
pub struct Surroundings {
    /// Running time.
    pub base: Base,
    /// Takes the frames.
    pub relay: Relay,
    /// Takes a word for each key frame.
    pub telemetry: broadcast::Sender<Telemetry>,
    /// Key frames so far, of this animation and those before it.
    pub key_frames: Arc<AtomicU64>,
}

/// Sets the reference of an animation, or the model's own; it takes as long as reading a picture. The answer is
/// whether it was taken: it is used from the next key frame on.
pub type SetReference = Box<dyn Fn(Option<&Path>) -> bool + Send>;

/// It is stopped when dropped, if it has not been before.
pub struct Animation {
    pipeline: gst::Pipeline,
    poses: gst_app::AppSrc,
    stages: gst::Element,
    plan: Plan,
}

impl Animation {
    /// Builds and starts it; `tell` is told what its bus says. Takes as long as opening the model's description and the reference; the weights load
    /// on a thread of the element.
    ///
    /// # Errors
    /// One sentence that says what is missing or wrong.
    pub fn start(
        plan: Plan,
        around: Surroundings,
        tell: impl Fn(bus::Said) + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        let chosen =
            plan.reference.as_deref().filter(|_| plan.chosen).map(gallery::open_again).transpose()?;
        let animation = Self::build(plan, chosen.as_ref(), &around)?;
        bus::listen(&animation.pipeline, tell, nice::tasks_give_way()?);
        if animation.pipeline.set_state(gst::State::Playing).is_err() {
            let why = animation.failure();
            return Err(why.unwrap_or_else(|| anyhow!("the animation does not start")));
        }
        // By now it has been read.
        drop(chosen);
        Ok(animation)
    }

    fn build(plan: Plan, chosen: Option<&File>, around: &Surroundings) -> anyhow::Result<Self> {
        let poses = gst_app::AppSrc::builder()
            .name("poses")
            .is_live(true)
            .format(gst::Format::Time)
            .max_buffers(MOST_POSES)
            // By number alone: a single pose may be larger than any number of bytes.
            .max_bytes(0)
            .max_time(gst::ClockTime::ZERO)
            .leaky_type(gst_app::AppLeakyType::Downstream)
            .build();
        let stages = stages(&plan, chosen)?;
        let rate = fraction(plan.video.rate);
        let rgb = || gst_video::VideoCapsBuilder::new().format(gst_video::VideoFormat::Rgb).framerate(rate);
        let canvas = rgb()
            .width(plan.video.width.try_into()?)
            .height(plan.video.height.try_into()?)
            .pixel_aspect_ratio(gst::Fraction::new(1, 1));
        let chain = [
            poses.clone().upcast(),
            stages.clone(),
            filter(&rgb().build())?,
            make("videoscale")?,
            filter(&canvas.build())?,
            frames(&around.relay, plan.video).upcast(),
        ];
        let pipeline = gst::Pipeline::new();
        pipeline.add_many(&chain)?;
        gst::Element::link_many(&chain)?;
        around.base.apply(&pipeline);
        report_key_frames(&stages, around)?;
        Ok(Self { pipeline, poses, stages, plan })
    }

    /// Why it has failed, if it has; asked once.
    pub fn failure(&self) -> Option<anyhow::Error> {
        bus::first_error(&self.pipeline)
    }

    /// Where poses go in.
    pub fn poses(&self) -> gst_app::AppSrc {
        self.poses.clone()
    }

    /// What it was built from, with the changes since.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Changes parameters, all of them between the same two poses.
    pub fn set_params(&mut self, params: Params) {
        let changed = params::values(&params, Some(&self.plan.params));
        if changed.is_empty() {
            return;
        }
        let structure = gst::Structure::from_iter(params::EVENT, changed);
        self.poses.send_event(gst::event::CustomDownstream::new(structure));
        self.plan.params = params;
    }

    /// Notes that a reference was set, or will be before any other.
    pub fn note_reference(&mut self, reference: Option<PathBuf>) {
        self.plan.reference = reference;
    }

    /// Sets the reference from any thread.
    pub fn reference_setter(&self) -> SetReference {
        let stages = self.stages.clone();
        Box::new(move |path| {
            let Ok(path) = path.map(|path| path.to_str().ok_or(())).transpose() else { return false };
            stages.set_property("reference", path);
            stages.property::<Option<String>>("reference").as_deref() == path
        })
    }

    /// Tells the elements that latencies have changed.
    pub fn recalculate_latency(&self) -> impl FnOnce() + Send + 'static {
        let pipeline = self.pipeline.clone();
        move || {
            // A pipeline that is being stopped has no latency.
            let _ = pipeline.recalculate_latency();
        }
    }

    /// Figures so far.
    pub fn figures(&self) -> Figures {
        Figures::of(&self.stages, &self.poses)
    }

    /// Ends it. A key frame under way is finished first, so this may take as long as that.
    pub fn stop(&self) {
        // Going to NULL cannot fail, only take its time.
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

impl Drop for Animation {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The three stages, set as planned; with the picture in the open file, if there is one.
fn stages(plan: &Plan, chosen: Option<&File>) -> anyhow::Result<gst::Element> {
    let stages = make("avataranimate")?;
    let config = &plan.config;
    for (name, value) in [("model", &config.model), ("device", &config.device), ("prompt", &config.prompt)] {
        stages.set_property(name, value);
    }
    let words =
        [("dtype", &config.dtype), ("context-mode", &config.context_mode), ("schedule", &config.schedule)];
    for (name, nick) in words {
        let pspec = stages.find_property(name).with_context(|| format!("the animation has no {name}"))?;
        let value =
            glib::EnumClass::with_type(pspec.value_type()).and_then(|class| class.to_value_by_nick(nick));
        let value = value.with_context(|| format!("the animation takes no {name} {nick:?}"))?;
        stages.set_property_from_value(name, &value);
    }
    if let Some(path) = chosen.map(gallery::link_to).or_else(|| plan.reference.clone()) {
        let path = path.to_str().with_context(|| format!("{}: this name is no UTF-8", path.display()))?;
        stages.set_property("reference", path);
    }
    for (name, value) in params::values(&plan.params, None) {
        stages.set_property_from_value(name, &value);
    }
    Ok(stages)
}

/// The end of the pipeline: hands frames to the relay, whose business it is when they are shown.
fn frames(relay: &Relay, video: Video) -> gst_app::AppSink {
    let relay = relay.clone();
    let on_frame = move |sink: &gst_app::AppSink| {
        let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
        if let Some(buffer) = sample.buffer_owned() {
            relay.picture(buffer, video);
        }
        Ok(gst::FlowSuccess::Ok)
    };
    gst_app::AppSink::builder()
        .name("frames")
        .sync(false)
        .max_buffers(1)
        .drop(true)
        .callbacks(gst_app::AppSinkCallbacks::builder().new_sample(on_frame).build())
        .build()
}

/// Tells telemetry of each key frame as it leaves stage 2.
fn report_key_frames(stages: &gst::Element, around: &Surroundings) -> anyhow::Result<()> {
    let bin = stages.downcast_ref::<gst::Bin>().context("avataranimate is no bin")?;
    let pad = bin.by_name("animate").and_then(|animate| animate.static_pad("src"));
    let pad = pad.context("avataranimate has no stage named animate")?;
    let Surroundings { base, telemetry, key_frames, .. } = around.clone();
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if let Some(pose) = info.buffer().and_then(|buffer| buffer.pts()) {
            let count = key_frames.fetch_add(1, Relaxed) + 1;
            let latency_ms = to_millis(base.now().saturating_sub(pose.nseconds()));
            let pose_secs = pose.nseconds() as f64 / 1e9;
            // Nobody listening is no error.
            let _ = telemetry.send(Telemetry::Keyframe(Keyframe { pose_secs, latency_ms, count }));
        }
        gst::PadProbeReturn::Ok
    });
    Ok(())
}
