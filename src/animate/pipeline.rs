//! The GStreamer pipeline from file to file.
//!
//! ```text
//! filesrc ! decodebin ! queue ! videoconvert ! videoscale ! RGB
//!   ! keyposeselect ! lcmanimate ! queue ! filminterpolate ! rate
//!   ! queue ! videoconvert ! videoscale ! size ! encoder ! muxer ! filesink
//! ```

use std::path::Path;

use anyhow::{Context as _, anyhow};
use gst::{glib, prelude::*};
use keyframed_engine::Rate;
use keyframed_models::ModelDir;

use super::{Options, input::Clip, output::Container};

/// Frames that wait between the threads of decoder, generator, interpolator and encoder: enough to keep all busy.
const QUEUE_FRAMES: u32 = 4;

/// W unless the user says: there is no latency to keep, and fewer key frames are less work.
const WINDOW: u32 = 12;

/// An encoder and what it is set to: near-lossless to the eye, for pictures this size are small files anyway.
#[derive(Debug)]
struct Encoder {
    name: &'static str,
    settings: &'static [(&'static str, &'static str)],
    parser: &'static str,
}

/// In order of preference; all of them go into all of [`Container`]'s formats.
const ENCODERS: [Encoder; 3] = [
    Encoder {
        name: "x264enc",
        settings: &[
            ("pass", "quant"),
            ("quantizer", "18"),
            ("speed-preset", "medium"),
            ("key-int-max", "50"),
        ],
        parser: "h264parse",
    },
    Encoder { name: "openh264enc", settings: &[("bitrate", "6000000")], parser: "h264parse" },
    Encoder { name: "avenc_mpeg4", settings: &[("bitrate", "6000000")], parser: "mpeg4videoparse" },
];

/// What is built: everything looked up and checked.
pub struct Plan<'a> {
    /// The driving clip.
    pub clip: &'a Clip,
    /// The model.
    pub model: &'a ModelDir,
    /// The reference picture.
    pub reference: &'a Path,
    /// The file to write.
    pub output: &'a Path,
    /// What kind of file.
    pub container: Container,
    /// Output frames a second.
    pub rate: Rate,
    /// The user's settings.
    pub options: &'a Options,
}

/// The pipeline and the elements that are asked for figures afterwards.
pub struct Stages {
    /// The whole.
    pub pipeline: gst::Pipeline,
    /// Stage 1.
    pub select: gst::Element,
    /// Stage 2.
    pub animate: gst::Element,
    /// Stages 3 and 4.
    pub interpolate: gst::Element,
    /// Which encoder was there.
    pub encoder: &'static str,
}

impl Stages {
    /// Builds the pipeline; nothing runs yet.
    ///
    /// # Errors
    /// Where an element is missing or refuses a setting.
    pub fn build(plan: &Plan) -> anyhow::Result<Self> {
        let source = make("filesrc")?;
        source.set_property("location", &plan.clip.path);
        let decode = make("decodebin")?;
        let select = make("keyposeselect")?;
        let animate = make("lcmanimate")?;
        let interpolate = make("filminterpolate")?;
        configure(&select, &animate, &interpolate, plan)?;

        let square = gst_video::VideoCapsBuilder::new()
            .format(gst_video::VideoFormat::Rgb)
            .pixel_aspect_ratio((1, 1).into());
        let entry = queue()?;
        let mut chain =
            vec![entry.clone(), make("videoconvert")?, make("videoscale")?, filter(square.build())?];
        // Between the two networks, too: each has its share of the cores, and neither waits for the other.
        chain.extend([select.clone(), animate.clone(), queue()?, interpolate.clone()]);
        chain.push(filter(rate_caps(plan.rate)?)?);
        let (encoder, tail) = encoding(plan)?;
        chain.extend(tail);

        let pipeline = gst::Pipeline::new();
        pipeline.add_many([&source, &decode])?;
        pipeline.add_many(&chain)?;
        source.link(&decode)?;
        gst::Element::link_many(&chain)?;
        link_first_video(&decode, &entry);
        Ok(Self { pipeline, select, animate, interpolate, encoder })
    }
}

/// From RGB at the output's rate to a file.
fn encoding(plan: &Plan) -> anyhow::Result<(&'static str, Vec<gst::Element>)> {
    let chosen = encoder()?;
    let encoder = make(chosen.name)?;
    for (property, value) in chosen.settings {
        encoder.set_property_from_str(property, value);
    }
    let sink = make("filesink")?;
    sink.set_property("location", plan.output);
    // 4:2:0 is what players decode; left to itself x264 keeps RGB's 4:4:4.
    let mut caps = gst_video::VideoCapsBuilder::new()
        .format(gst_video::VideoFormat::I420)
        .pixel_aspect_ratio((1, 1).into());
    if let Some((width, height)) = plan.options.size {
        caps = caps.width(width.try_into()?).height(height.try_into()?);
    }
    let scale = make("videoscale")?;
    scale.set_property_from_str("method", "lanczos");
    let parts =
        [queue()?, make("videoconvert")?, scale, filter(caps.build())?, encoder, make(chosen.parser)?];
    let tail = parts.into_iter().chain([make(plan.container.muxer)?, sink]).collect();
    Ok((chosen.name, tail))
}

/// The best encoder that is installed.
fn encoder() -> anyhow::Result<&'static Encoder> {
    let found = ENCODERS.iter().position(|encoder| gst::ElementFactory::find(encoder.name).is_some());
    match found {
        Some(0) => Ok(&ENCODERS[0]),
        Some(other) => {
            let name = ENCODERS[other].name;
            tracing::warn!(
                "x264enc is not installed, encoding with {name} (for x264: gstreamer1.0-plugins-ugly)"
            );
            Ok(&ENCODERS[other])
        }
        None => Err(anyhow!("no video encoder is installed: install gstreamer1.0-plugins-ugly for x264enc")),
    }
}

/// Sets what the user chose; everything else stays as the elements have it, but for the window.
fn configure(
    select: &gst::Element,
    animate: &gst::Element,
    interpolate: &gst::Element,
    plan: &Plan,
) -> anyhow::Result<()> {
    let options = plan.options;
    set(select, "lambda", options.lambda)?;
    set(select, "window", Some(options.window.unwrap_or(WINDOW)))?;
    set(animate, "reference", Some(plan.reference.display()))?;
    set(animate, "steps", options.steps)?;
    set(animate, "guidance-scale", options.guidance_scale)?;
    if let Some(prompt) = &options.prompt {
        // Not as text that GStreamer parses: it may have quotes.
        animate.set_property("prompt", prompt);
    }
    set(animate, "seed", options.seed)?;
    for element in [animate, interpolate] {
        set(element, "model", Some(plan.model.dir().display()))?;
        set(element, "device", options.device)?;
    }
    Ok(())
}

/// Sets a property from how its value is written; `None` leaves it as it is.
fn set(element: &gst::Element, name: &str, value: Option<impl ToString>) -> anyhow::Result<()> {
    let Some(value) = value.map(|value| value.to_string()) else { return Ok(()) };
    let pspec =
        element.find_property(name).with_context(|| format!("{} has no property {name}", element.name()))?;
    // Not `set_property_from_str`, which panics at a value it cannot read; and strings are taken as they are.
    let value = match pspec.value_type() {
        glib::Type::STRING => value.to_value(),
        _ => glib::Value::deserialize_with_pspec(&value, &pspec)
            .with_context(|| format!("{} takes no {name} {value}", element.name()))?,
    };
    element.set_property_from_value(name, &value);
    Ok(())
}

/// Leads the first video stream into the chain; sound and further pictures are left unlinked.
fn link_first_video(decode: &gst::Element, entry: &gst::Element) {
    let entry = entry.downgrade();
    decode.connect_pad_added(move |_, pad| {
        let is_video =
            pad.current_caps().is_some_and(|caps| caps.iter().any(|s| s.name().starts_with("video/")));
        let Some(sink) = entry.upgrade().and_then(|entry| entry.static_pad("sink")) else { return };
        if is_video
            && !sink.is_linked()
            && let Err(error) = pad.link(&sink)
        {
            tracing::error!("decoded video does not fit the pipeline: {error}");
        }
    });
}

fn rate_caps(rate: Rate) -> anyhow::Result<gst::Caps> {
    let fraction = gst::Fraction::new(rate.num().try_into()?, rate.den().try_into()?);
    Ok(gst_video::VideoCapsBuilder::new().format(gst_video::VideoFormat::Rgb).framerate(fraction).build())
}

fn queue() -> anyhow::Result<gst::Element> {
    let queue = make("queue")?;
    queue.set_property("max-size-buffers", QUEUE_FRAMES);
    queue.set_property("max-size-bytes", 0u32);
    queue.set_property("max-size-time", 0u64);
    Ok(queue)
}

fn filter(caps: gst::Caps) -> anyhow::Result<gst::Element> {
    let filter = make("capsfilter")?;
    filter.set_property("caps", caps);
    Ok(filter)
}

fn make(name: &str) -> anyhow::Result<gst::Element> {
    gst::ElementFactory::make(name).build().with_context(|| {
        format!("GStreamer's element {name} is missing: `keyframed doctor` tells how to install it")
    })
}
