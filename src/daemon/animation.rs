//! The animation pipeline: poses in, canvas frames for the relay out.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use anyhow::{Context as _, anyhow};
use gst::{glib, prelude::*};
use keyframed_control::types::{InBetweens, Keyframe, Params, Percentiles};
use tokio::sync::broadcast;

use super::{bus, clock::Base, handle::Telemetry, nice, params, relay::Relay};
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
    /// Reference in force.
    pub reference: Option<PathBuf>,
    /// The canvas.
    pub video: Video,
}

impl Plan {
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

/// Figures of an animation since its start.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    /// Poses that came to stage 1.
    pub input: u64,
    /// Key poses selected.
    pub key_poses: u64,
    /// Key frames generated.
    pub key_frames: u64,
    /// Key frames that could not be made.
    pub failed: u64,
    /// Key poses and output ticks given up.
    pub dropped: u64,
    /// Output frames that repeat a picture.
    pub repeated: u64,
    /// Output frames that came late.
    pub late: u64,
    /// In-betweens.
    pub in_betweens: InBetweens,
    /// λ in force.
    pub lambda: f64,
    /// Rung in force.
    pub rung: Option<String>,
    /// Time of the last key frame, milliseconds.
    pub generate_ms: f64,
    /// Whether the model is loaded.
    pub loaded: bool,
    /// Reference in force.
    pub reference: Option<String>,
    /// From pose to output.
    pub latency_ms: Option<Percentiles>,
    /// Poses that wait.
    pub waiting: u64,
    /// Age of the oldest of these, milliseconds.
    pub waiting_ms: f64,
}

impl Figures {
    /// Sums of both; what is no sum is `now`'s.
    pub fn plus(self, now: Self) -> Self {
        Self {
            input: self.input + now.input,
            key_poses: self.key_poses + now.key_poses,
            key_frames: self.key_frames + now.key_frames,
            failed: self.failed + now.failed,
            dropped: self.dropped + now.dropped,
            repeated: self.repeated + now.repeated,
            late: self.late + now.late,
            in_betweens: InBetweens {
                film: self.in_betweens.film + now.in_betweens.film,
                warp: self.in_betweens.warp + now.in_betweens.warp,
                crossfade: self.in_betweens.crossfade + now.in_betweens.crossfade,
            },
            ..now
        }
    }
}

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
        let animation = Self::build(plan, &around)?;
        bus::listen(&animation.pipeline, tell, nice::tasks_give_way());
        if animation.pipeline.set_state(gst::State::Playing).is_err() {
            let why = animation.failure();
            return Err(why.unwrap_or_else(|| anyhow!("the animation does not start")));
        }
        Ok(animation)
    }

    fn build(plan: Plan, around: &Surroundings) -> anyhow::Result<Self> {
        let poses = gst_app::AppSrc::builder()
            .name("poses")
            .is_live(true)
            .format(gst::Format::Time)
            .max_buffers(MOST_POSES)
            .leaky_type(gst_app::AppLeakyType::Downstream)
            .build();
        let stages = stages(&plan)?;
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

    /// Notes that a [`reference_setter`](Self::reference_setter) was successful.
    pub fn note_reference(&mut self, path: PathBuf) {
        self.plan.reference = Some(path);
    }

    /// Sets the reference from any thread; it takes as long as reading a picture. The answer is whether it was
    /// taken: it is used from the next key frame on.
    pub fn reference_setter(&self) -> impl FnOnce(&Path) -> bool + Send + 'static {
        let stages = self.stages.clone();
        move |path| {
            let Some(path) = path.to_str() else { return false };
            stages.set_property("reference", path);
            stages.property::<Option<String>>("reference").as_deref() == Some(path)
        }
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
        let stats = self.stages.property::<gst::Structure>("stats");
        let of = |child: &str| {
            stats.get::<gst::Structure>(child).unwrap_or_else(|_| gst::Structure::new_empty("none"))
        };
        let (select, animate, interpolate) = (of("select"), of("animate"), of("interpolate"));
        let count = |of: &gst::StructureRef, field: &str| of.get::<u64>(field).unwrap_or(0);
        let millis = |field: &str| interpolate.get::<u64>(field).ok().map(to_millis);
        let latency = || {
            let [p50, p95, p99] = ["latency-p50", "latency-p95", "latency-p99"].map(millis);
            Some(Percentiles { p50: p50?, p95: p95?, p99: p99? })
        };
        Figures {
            input: count(&select, "in"),
            key_poses: count(&select, "key"),
            key_frames: count(&animate, "generated"),
            failed: count(&animate, "failed"),
            dropped: count(&stats, "dropped"),
            repeated: count(&interpolate, "repeated"),
            late: count(&interpolate, "late"),
            in_betweens: InBetweens {
                film: count(&interpolate, "film"),
                warp: count(&interpolate, "warp"),
                crossfade: count(&interpolate, "crossfade"),
            },
            lambda: select.get("lambda").unwrap_or(0.0),
            rung: interpolate.get("rung").ok(),
            generate_ms: to_millis(count(&animate, "last-time")),
            loaded: animate.get("loaded").unwrap_or(false),
            reference: animate.get::<Option<String>>("reference").ok().flatten(),
            latency_ms: latency(),
            waiting: self.poses.current_level_buffers(),
            waiting_ms: to_millis(self.poses.current_level_time().nseconds()),
        }
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

/// The three stages, set as planned.
fn stages(plan: &Plan) -> anyhow::Result<gst::Element> {
    let stages = make("avataranimate")?;
    let config = &plan.config;
    for (name, value) in [("model", &config.model), ("device", &config.device)] {
        stages.set_property(name, value);
    }
    for (name, nick) in [("dtype", &config.dtype), ("context-mode", &config.context_mode)] {
        let pspec = stages.find_property(name).with_context(|| format!("the animation has no {name}"))?;
        let value =
            glib::EnumClass::with_type(pspec.value_type()).and_then(|class| class.to_value_by_nick(nick));
        let value = value.with_context(|| format!("the animation takes no {name} {nick:?}"))?;
        stages.set_property_from_value(name, &value);
    }
    if let Some(path) = &plan.reference {
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

fn to_millis(nanos: u64) -> f64 {
    nanos as f64 / 1e6
}
