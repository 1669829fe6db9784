/**
 * SECTION:element-avataranimate
 * @see_also: keyposeselect, lcmanimate, filminterpolate
 *
 * Animates a reference picture: a DensePose stream of any size and rate in, video of the model's size at the rate
 * of the output caps out. It is a bin of
 *
 * |[
 * keyposeselect ! lcmanimate ! filminterpolate
 * ]|
 *
 * named `select`, `animate` and `interpolate`, and has all their properties; `model` and `device` are those of
 * both networks. Behaviour, live and offline and when something changes, is that of the three; see there. `stats`
 * has the sums and, as fields `select`, `animate` and `interpolate`, the statistics of each.
 *
 * ## Changing several properties at once
 *
 * A property set while running takes effect in its stage at once, and so for key poses that were under way.
 * The serialized custom downstream event `keyframed-params` changes any of `lambda`, `window`, `target-key-rate`,
 * `still-epsilon`, `steps`, `guidance-scale`, `lora-scale`, `prompt`, `context-frames`, `seed`, `latency` and `max-quality`
 * between two pose frames: its structure has fields of these names and of the properties' types, and each stage
 * takes its own when the event, which travels between the frames, comes to it. Fields that no stage knows are
 * ignored.
 *
 * |[
 * gst-launch-1.0 denseposetestsrc pattern=dance num-buffers=10 ! avataranimate ! video/x-raw,framerate=25/1 ! videoconvert ! autovideosink
 * ]| Shows the embedded model's first avatar dancing for two fifths of a second.
 *
 * |[
 * gst-launch-1.0 denseposetestsrc is-live=true num-buffers=50 ! avataranimate max-quality=warp latency=1000000000 ! video/x-raw,framerate=25/1 ! queue max-size-buffers=2 max-size-bytes=0 max-size-time=0 ! videoconvert ! autovideosink
 * ]| The same live, for two seconds.
 */
use std::{
    collections::HashSet,
    sync::{LazyLock, OnceLock},
};

use gst::{glib, prelude::*, subclass::prelude::*};

use crate::{
    filminterpolate, filter, keyposeselect, lcmanimate,
    video::{rgb_caps, rgb_caps_with_rate},
};

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new("avataranimate", gst::DebugColorFlags::empty(), Some("DensePose in, avatar out"))
});

/// Factory and name of each child, in flow order.
const CHILDREN: [(&str, &str); 3] =
    [("keyposeselect", "select"), ("lcmanimate", "animate"), ("filminterpolate", "interpolate")];

/// Statistics of the children that the bin shows, and whose they are.
const SHOWN: [(&str, &str); 6] = [
    ("in", "select"),
    ("key", "select"),
    ("generated", "animate"),
    ("interpolated", "interpolate"),
    ("repeated", "interpolate"),
    ("late", "interpolate"),
];

/// The bin.
#[derive(Default)]
pub struct AvatarAnimate {
    /// In flow order; set once, on construction.
    children: OnceLock<Vec<gst::Element>>,
}

#[glib::object_subclass]
impl ObjectSubclass for AvatarAnimate {
    const NAME: &'static str = "GstAvatarAnimate";
    type Type = super::AvatarAnimate;
    type ParentType = gst::Bin;
    type Interfaces = (gst::ChildProxy,);
}

impl ObjectImpl for AvatarAnimate {
    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
            let all = [keyposeselect::properties(), lcmanimate::properties(), filminterpolate::properties()];
            let mut seen = HashSet::new();
            let mut own: Vec<_> =
                all.into_iter().flatten().filter(|p| seen.insert(p.name().to_owned())).collect();
            own.retain(|p| p.name() != "stats");
            own.push(
                glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
                    .nick("Statistics")
                    .blurb(
                        "Counts: in, key, generated, interpolated, repeated, late, dropped; and the statistics of \
                         select, animate, interpolate",
                    )
                    .read_only()
                    .build(),
            );
            own
        });
        &PROPERTIES
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        for child in self.owners(pspec.name()) {
            child.set_property_from_value(pspec.name(), value);
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        if pspec.name() == "stats" {
            return self.stats().to_value();
        }
        let first = self.owners(pspec.name()).next();
        first.map_or_else(|| pspec.default_value().clone(), |child| child.property_value(pspec.name()))
    }

    fn constructed(&self) {
        self.parent_constructed();
        if let Err(err) = self.build() {
            gst::error!(CAT, imp = self, "Cannot build the bin: {err}");
        }
    }
}

impl GstObjectImpl for AvatarAnimate {}

impl ElementImpl for AvatarAnimate {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "Avatar animator",
                "Filter/Effect/Video",
                "Animates a reference picture by a DensePose stream: constant-rate video out, live or offline",
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
}

impl BinImpl for AvatarAnimate {}

impl ChildProxyImpl for AvatarAnimate {
    fn child_by_index(&self, index: u32) -> Option<glib::Object> {
        self.children().get(index as usize).map(|child| child.clone().upcast())
    }

    fn child_by_name(&self, name: &str) -> Option<glib::Object> {
        self.child(name).map(|child| child.clone().upcast())
    }

    fn children_count(&self) -> u32 {
        self.children().len() as u32
    }
}

impl AvatarAnimate {
    fn build(&self) -> Result<(), glib::BoolError> {
        let obj = self.obj();
        let children: Vec<gst::Element> = CHILDREN
            .iter()
            .map(|(factory, name)| gst::ElementFactory::make(factory).name(*name).build())
            .collect::<Result<_, _>>()?;
        obj.add_many(&children)?;
        gst::Element::link_many(&children)?;
        for (name, child) in [("sink", children.first()), ("src", children.last())] {
            let target = child.and_then(|child| child.static_pad(name));
            let (Some(target), Some(template)) = (target, obj.pad_template(name)) else { continue };
            obj.add_pad(&gst::GhostPad::from_template_with_target(&template, &target)?)?;
        }
        let _ = self.children.set(children);
        Ok(())
    }

    fn children(&self) -> &[gst::Element] {
        self.children.get().map_or(&[], Vec::as_slice)
    }

    fn child(&self, name: &str) -> Option<&gst::Element> {
        self.children().iter().find(|child| child.name() == name)
    }

    /// The children that have a property.
    fn owners<'a>(&'a self, property: &'a str) -> impl Iterator<Item = &'a gst::Element> {
        self.children().iter().filter(move |child| child.has_property(property))
    }

    fn stats(&self) -> gst::Structure {
        let of = |name| Some(self.child(name)?.property::<gst::Structure>("stats"));
        let count = |name, field| of(name).and_then(|stats| stats.get::<u64>(field).ok()).unwrap_or(0);
        let mut stats = gst::Structure::builder("avataranimate-stats")
            .field("dropped", count("animate", "dropped") + count("interpolate", "dropped"));
        for (field, child) in SHOWN {
            stats = stats.field(field, count(child, field));
        }
        for (_, child) in CHILDREN {
            stats = stats.field_if_some(child, of(child));
        }
        stats.build()
    }
}
