//! Properties of `lcmanimate`.
use gst::{glib, prelude::*};

use super::{Dtype, Leaky, Schedule};
use crate::models::{EMBEDDED, Tuning};

/// Value of a number property that stands for the model's default.
const MODEL_DEFAULT: f64 = -1.;

/// What the properties hold.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    pub model: String,
    pub reference: Option<String>,
    pub tuning: Tuning,
    pub device: String,
    pub dtype: Dtype,
    pub schedule: Schedule,
    pub leaky: Leaky,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            model: EMBEDDED.into(),
            reference: None,
            tuning: Tuning::default(),
            device: "auto".into(),
            dtype: Dtype::default(),
            schedule: Schedule::default(),
            leaky: Leaky::default(),
        }
    }
}

impl Settings {
    /// Takes a property's value; `reference` is not among them, it must be checked first.
    pub fn set(
        &mut self,
        name: &str,
        value: &glib::Value,
    ) -> Result<(), glib::value::ValueTypeMismatchError> {
        let text = |default: &str| -> Result<String, glib::value::ValueTypeMismatchError> {
            Ok(value.get::<Option<String>>()?.unwrap_or_else(|| default.into()))
        };
        fn known<T>(
            value: Result<T, glib::value::ValueTypeMismatchError>,
            is_set: impl Fn(&T) -> bool,
        ) -> Result<Option<T>, glib::value::ValueTypeMismatchError> {
            value.map(|value| Some(value).filter(is_set))
        }
        match name {
            "model" => self.model = text(EMBEDDED)?,
            "device" => self.device = text("auto")?,
            "steps" => self.tuning.steps = known(value.get::<u32>(), |n| *n > 0)?,
            "guidance-scale" => self.tuning.guidance_scale = known(value.get::<f64>(), |x| *x >= 0.)?,
            "lora-scale" => self.tuning.lora_scale = known(value.get::<f64>(), |x| *x >= 0.)?,
            "prompt" => self.tuning.prompt = text("")?,
            "context-frames" => {
                self.tuning.context_frames =
                    known(value.get::<i32>(), |n| *n >= 0)?.and_then(|n| u32::try_from(n).ok());
            }
            "seed" => self.tuning.seed = value.get()?,
            "context-mode" => self.tuning.context_mode = value.get()?,
            "dtype" => self.dtype = value.get()?,
            "schedule" => self.schedule = value.get()?,
            "leaky" => self.leaky = value.get()?,
            _ => {}
        }
        Ok(())
    }

    /// A property's value; what is left to the model is answered from `defaults`, once it is open.
    pub fn get(&self, name: &str, defaults: Option<&Tuning>) -> Option<glib::Value> {
        let defaults = defaults.cloned().unwrap_or_default();
        let number = |own: Option<f64>, model: Option<f64>| own.or(model).unwrap_or(MODEL_DEFAULT).to_value();
        let tuning = &self.tuning;
        Some(match name {
            "model" => self.model.to_value(),
            "reference" => self.reference.to_value(),
            "device" => self.device.to_value(),
            "steps" => tuning.steps.or(defaults.steps).unwrap_or(0).to_value(),
            "guidance-scale" => number(tuning.guidance_scale, defaults.guidance_scale),
            "lora-scale" => number(tuning.lora_scale, defaults.lora_scale),
            "prompt" => tuning.prompt.to_value(),
            "context-frames" => {
                let frames = tuning.context_frames.or(defaults.context_frames);
                frames.and_then(|n| i32::try_from(n).ok()).unwrap_or(-1).to_value()
            }
            "seed" => tuning.seed.to_value(),
            "context-mode" => tuning.context_mode.to_value(),
            "dtype" => self.dtype.to_value(),
            "schedule" => self.schedule.to_value(),
            "leaky" => self.leaky.to_value(),
            _ => return None,
        })
    }
}

/// What `gst-inspect-1.0` shows. Specifications of its own for each call: every class needs some.
pub fn properties() -> Vec<glib::ParamSpec> {
    let default = Settings::default();
    let number = |name, nick, blurb| {
        glib::ParamSpecDouble::builder(name)
            .nick(nick)
            .blurb(blurb)
            .minimum(MODEL_DEFAULT)
            .maximum(30.)
            .default_value(MODEL_DEFAULT)
            .mutable_playing()
            .build()
    };
    vec![
        glib::ParamSpecString::builder("model")
            .nick("Model")
            .blurb("Name or directory of the model")
            .default_value(Some(default.model.as_str()))
            .mutable_ready()
            .build(),
        glib::ParamSpecString::builder("reference")
            .nick("Reference")
            .blurb("Picture to animate: a file, or the name of one that comes with the model (none: its first)")
            .mutable_playing()
            .build(),
        glib::ParamSpecUInt::builder("steps")
            .nick("Steps")
            .blurb("Denoising steps a key frame (0 = the model's default)")
            .maximum(50)
            .mutable_playing()
            .build(),
        number("guidance-scale", "Guidance scale", "1 or less: no second pass (-1 = the model's default)"),
        number("lora-scale", "LoRA scale", "Share of the LoRA in the weights (-1 = the model's default)"),
        glib::ParamSpecString::builder("prompt")
            .nick("Prompt")
            .blurb("What the text encoder reads, for models that have one (empty: nothing)")
            .default_value(Some(""))
            .mutable_playing()
            .build(),
        glib::ParamSpecInt::builder("context-frames")
            .nick("Context frames")
            .blurb("Key frames that a new one sees, for steadiness (-1 = the model's default)")
            .minimum(-1)
            .maximum(23)
            .default_value(-1)
            .mutable_playing()
            .build(),
        glib::ParamSpecEnum::builder_with_default("context-mode", default.tuning.context_mode)
            .nick("Context mode")
            .blurb("How earlier key frames are taken into account")
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt64::builder("seed")
            .nick("Seed")
            .blurb("Seed of the noise, the same for all key frames")
            .mutable_playing()
            .build(),
        glib::ParamSpecString::builder("device")
            .nick("Device")
            .blurb("Where the networks run: auto, cpu, cuda, cuda:N")
            .default_value(Some(default.device.as_str()))
            .mutable_ready()
            .build(),
        glib::ParamSpecEnum::builder_with_default("dtype", default.dtype)
            .nick("Number format")
            .blurb("Number format of the networks")
            .mutable_ready()
            .build(),
        glib::ParamSpecEnum::builder_with_default("schedule", default.schedule)
            .nick("Schedule")
            .blurb("In which order denoising steps are made")
            .mutable_ready()
            .build(),
        glib::ParamSpecEnum::builder_with_default("leaky", default.leaky)
            .nick("Leaky")
            .blurb("What to do with key poses that come while one is waiting")
            .mutable_ready()
            .build(),
        glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
            .nick("Statistics")
            .blurb(
                "Counts: in, generated, dropped (replaced by newer), failed; busy-time, last-time, latency (ns); \
                 waiting-age of the key pose that waits, 0 if none does (ns); loaded; reference (the file in force)",
            )
            .read_only()
            .build(),
    ]
}
