//! `lcmanimate`: key frames of the reference from key poses.
use gst::{glib, prelude::*};

mod imp;
mod job;
mod load;
mod maker;
mod pads;
mod settings;
mod state;
mod work;

/// What `lcmanimate` does with key poses that come while one is waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, glib::Enum)]
#[enum_type(name = "GstLcmAnimateLeaky")]
#[repr(i32)]
pub enum Leaky {
    /// As upstream is.
    #[default]
    #[enum_value(name = "Replace in live pipelines, block in others", nick = "auto")]
    Auto,
    /// Replace.
    #[enum_value(name = "A newer key pose replaces the waiting one", nick = "true")]
    True,
    /// Block.
    #[enum_value(name = "Block upstream, lose nothing", nick = "false")]
    False,
}

/// How earlier key frames are taken into account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, glib::Enum)]
#[enum_type(name = "GstLcmAnimateContextMode")]
#[repr(i32)]
pub enum ContextMode {
    /// Keeps what each key frame left: a new one costs one frame whatever the context.
    #[default]
    #[enum_value(name = "Keep what each key frame left and run the new one alone", nick = "cache")]
    Cache,
    /// As MagicAnimate does.
    #[enum_value(name = "Noise the context again and run the whole window", nick = "recompute")]
    Recompute,
}

/// In which order denoising steps are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, glib::Enum)]
#[enum_type(name = "GstLcmAnimateSchedule")]
#[repr(i32)]
pub enum Schedule {
    /// All steps of a key frame, then the next key frame.
    #[default]
    #[enum_value(name = "One key frame after the other: the least delay", nick = "sequential")]
    Sequential,
    /// The steps of successive key frames as one batch.
    #[enum_value(
        name = "Steps of successive key frames as one batch: the most key frames, which come steps - 1 key poses later",
        nick = "pipelined"
    )]
    Pipelined,
}

/// Number format of the networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, glib::Enum)]
#[enum_type(name = "GstLcmAnimateDtype")]
#[repr(i32)]
pub enum Dtype {
    /// By the device.
    #[default]
    #[enum_value(name = "bfloat16 where the device computes it faster, else float32", nick = "auto")]
    Auto,
    /// 32 bits.
    #[enum_value(name = "float32", nick = "f32")]
    F32,
    /// 16 bits.
    #[enum_value(
        name = "bfloat16: all of the networks on CUDA, convolutions and products on a CPU",
        nick = "bf16"
    )]
    Bf16,
    /// 16 bits, on CUDA devices only.
    #[enum_value(name = "float16, on CUDA devices only", nick = "f16")]
    F16,
}

impl Dtype {
    fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
        }
    }
}

glib::wrapper! {
    /// Filter that makes key frames; behaviour in the documentation of `imp`.
    pub struct LcmAnimate(ObjectSubclass<imp::LcmAnimate>) @extends gst::Element, gst::Object;
}

pub(crate) use settings::properties;

/// Registers the element.
pub(crate) fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    for enumeration in
        [Leaky::static_type(), ContextMode::static_type(), Schedule::static_type(), Dtype::static_type()]
    {
        enumeration.mark_as_plugin_api(gst::PluginAPIFlags::empty());
    }
    gst::Element::register(Some(plugin), "lcmanimate", gst::Rank::NONE, LcmAnimate::static_type())
}
