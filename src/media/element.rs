//! Making elements, with an answer for what is missing.

use anyhow::{Context as _, anyhow, bail};
use gst::{glib, prelude::*};
use keyframed_engine::Rate;

/// Which Debian package an element comes with, where it is not one of the first five that everybody installs.
const PACKAGES: [(&str, &[&str]); 9] = [
    ("libgstreamer1.0-0", &["capsfilter", "filesink", "filesrc", "identity", "queue"]),
    ("gstreamer1.0-plugins-base", &["decodebin", "rawvideoparse", "videoconvert", "videoscale"]),
    (
        "gstreamer1.0-plugins-good",
        &[
            "autovideosink",
            "flvmux",
            "mp4mux",
            "rtspsrc",
            "splitmuxsink",
            "udpsink",
            "udpsrc",
            "v4l2sink",
            "v4l2src",
        ],
    ),
    (
        "gstreamer1.0-plugins-bad",
        &[
            "h264parse",
            "mpegtsmux",
            "openh264enc",
            "rtmp2sink",
            "rtmp2src",
            "shmsink",
            "shmsrc",
            "srtsink",
            "srtsrc",
        ],
    ),
    ("gstreamer1.0-plugins-ugly", &["x264enc"]),
    ("gstreamer1.0-libav", &["avdec_h264"]),
    ("gstreamer1.0-rtsp", &["rtspclientsink"]),
    ("gstreamer1.0-pipewire", &["pipewiresink", "pipewiresrc"]),
    ("keyframed", &["denseposetestsrc"]),
];

/// The Debian package that brings an element.
pub fn package(element: &str) -> Option<&'static str> {
    PACKAGES.iter().find(|(_, elements)| elements.contains(&element)).map(|(package, _)| *package)
}

/// Whether an element can be made.
pub fn exists(name: &str) -> bool {
    gst::ElementFactory::find(name).is_some()
}

/// Says what is missing of `elements`, and which package brings it.
///
/// # Errors
/// The first that is missing.
pub fn require(elements: &[&str]) -> anyhow::Result<()> {
    match elements.iter().find(|name| !exists(name)) {
        Some(missing) => Err(missing_element(missing)),
        None => Ok(()),
    }
}

fn missing_element(name: &str) -> anyhow::Error {
    match package(name) {
        Some(package) => {
            anyhow!("GStreamer's element {name} is missing: install the package {package}")
        }
        None => anyhow!("GStreamer's element {name} is missing"),
    }
}

/// Makes an element.
///
/// # Errors
/// If it is missing; says which package brings it.
pub fn make(name: &str) -> anyhow::Result<gst::Element> {
    gst::ElementFactory::make(name).build().map_err(|_| missing_element(name))
}

/// Makes an element and sets properties, each from how its value is written on a `gst-launch-1.0` line.
///
/// # Errors
/// If it is missing, or does not take a value.
pub fn make_with(name: &str, properties: &[(&str, &str)]) -> anyhow::Result<gst::Element> {
    let element = make(name)?;
    for (property, value) in properties {
        set(&element, property, value)?;
    }
    Ok(element)
}

/// Sets a property from how its value is written.
///
/// # Errors
/// If there is no such property, or it does not take the value.
pub fn set(element: &gst::Element, name: &str, value: &str) -> anyhow::Result<()> {
    let factory = element.factory().map(|factory| factory.name().to_string()).unwrap_or_default();
    let Some(pspec) = element.find_property(name) else { bail!("{factory} has no property {name}") };
    // Not `set_property_from_str`, which panics at a value it cannot read; and strings are taken as they are.
    let value = match pspec.value_type() {
        glib::Type::STRING => value.to_value(),
        _ => glib::Value::deserialize_with_pspec(value, &pspec)
            .with_context(|| format!("{factory} takes no {name} {value}"))?,
    };
    element.set_property_from_value(name, &value);
    Ok(())
}

/// A queue of `frames` between two threads; full, it blocks.
pub fn queue(frames: u32) -> anyhow::Result<gst::Element> {
    let queue = make("queue")?;
    queue.set_property("max-size-buffers", frames);
    queue.set_property("max-size-bytes", 0u32);
    queue.set_property("max-size-time", 0u64);
    Ok(queue)
}

/// Lets nothing but `caps` through.
pub fn filter(caps: &gst::Caps) -> anyhow::Result<gst::Element> {
    let filter = make("capsfilter")?;
    filter.set_property("caps", caps);
    Ok(filter)
}

/// A rate as GStreamer writes it.
pub fn fraction(rate: Rate) -> gst::Fraction {
    let part = |part: u64| i32::try_from(part).unwrap_or(i32::MAX);
    gst::Fraction::new(part(rate.num().into()), part(rate.den().into()))
}

/// Milliseconds as a property of whole milliseconds takes them.
pub fn millis(duration: std::time::Duration) -> String {
    duration.as_millis().min(i32::MAX as u128).to_string()
}

/// A bin of `elements`, linked in their order, that shows the first one's sink pad.
pub fn sink_bin(elements: &[gst::Element]) -> anyhow::Result<gst::Element> {
    let Some(first) = elements.first() else { bail!("an empty bin") };
    let bin = gst::Bin::new();
    bin.add_many(elements)?;
    gst::Element::link_many(elements)?;
    let pad = first.static_pad("sink").context("an output begins with an element without a sink pad")?;
    bin.add_pad(&gst::GhostPad::with_target(&pad)?)?;
    Ok(bin.upcast())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_told_with_its_package() {
        gst::init().unwrap();
        assert_eq!(package("x264enc"), Some("gstreamer1.0-plugins-ugly"));
        let error = require(&["identity", "nosuchelement"]).unwrap_err().to_string();
        assert_eq!(error, "GStreamer's element nosuchelement is missing");
        assert!(
            missing_element("rtspclientsink").to_string().ends_with("install the package gstreamer1.0-rtsp")
        );
    }

    #[test]
    fn bad_values_are_errors() {
        gst::init().unwrap();
        let element = make("queue").unwrap();
        assert!(set(&element, "max-size-buffers", "many").is_err());
        assert!(set(&element, "nosuch", "1").is_err());
        set(&element, "max-size-buffers", "7").unwrap();
        assert_eq!(element.property::<u32>("max-size-buffers"), 7);
    }
}
