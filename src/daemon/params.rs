//! Parameters that change between two frames, turned into the values of the properties behind them.

use gst::{glib, prelude::*};
use gstkeyframed::filminterpolate::Quality;
use keyframed_control::{
    ErrorObject, Method, params,
    types::{self, Params},
};
use serde_json::Value;

use super::handle::ParamsPatch;

/// Structure of the event that sets properties of the animation's stages between two frames.
pub const EVENT: &str = "keyframed-params";

/// `live` with the changes of `patch`: all of them, or an error that names the first that cannot be.
///
/// # Errors
/// -32602, one sentence.
pub fn patched(live: &Params, patch: &ParamsPatch) -> Result<Params, ErrorObject> {
    let mut patch = patch.clone();
    params::check(Method::ParamsSet, &mut patch)?;
    let mut all = object(live);
    all.extend(patch);
    serde_json::from_value(Value::Object(all)).map_err(ErrorObject::invalid_params)
}

/// `new` where the configuration changed from `old`, and `live` elsewhere: what a client has set stays.
pub fn merged(live: &Params, old: &Params, new: &Params) -> Params {
    let (mut all, old) = (object(live), object(old));
    all.extend(object(new).into_iter().filter(|(name, value)| old.get(name) != Some(value)));
    serde_json::from_value(Value::Object(all)).unwrap_or(*live)
}

/// Parameters, the properties behind them, and the values of those. Below zero, or zero of an unsigned type, stands
/// for the model's default.
fn properties(params: &Params) -> [(&'static str, &'static str, glib::SendValue); 10] {
    let real = |own: Option<f64>| own.unwrap_or(-1.0).to_send_value();
    let frames = params.context_frames.and_then(|n| i32::try_from(n).ok()).unwrap_or(-1);
    let latency = params.latency_ms.saturating_mul(1_000_000);
    let quality = match params.max_quality {
        types::MaxQuality::Film => Quality::Film,
        types::MaxQuality::Warp => Quality::Warp,
        types::MaxQuality::Crossfade => Quality::Crossfade,
        types::MaxQuality::Repeat => Quality::Repeat,
    };
    [
        ("lambda", "lambda", params.lambda.to_send_value()),
        ("window_frames", "window", params.window_frames.to_send_value()),
        ("target_key_rate_hz", "target-key-rate", params.target_key_rate_hz.to_send_value()),
        ("steps", "steps", params.steps.unwrap_or(0).to_send_value()),
        ("guidance_scale", "guidance-scale", real(params.guidance_scale)),
        ("lora_scale", "lora-scale", real(params.lora_scale)),
        ("context_frames", "context-frames", frames.to_send_value()),
        ("seed", "seed", params.seed.to_send_value()),
        ("latency_ms", "latency", latency.to_send_value()),
        ("max_quality", "max-quality", quality.to_send_value()),
    ]
}

/// The values of properties for `new`: all of them, or those that are others than for `old`.
pub fn values(new: &Params, old: Option<&Params>) -> Vec<(&'static str, glib::SendValue)> {
    let (wanted, had) = (object(new), old.map(object));
    let changed = |name| had.as_ref().is_none_or(|had| had.get(name) != wanted.get(name));
    let values = properties(new).into_iter().filter(|(name, ..)| changed(*name));
    values.map(|(_, property, value)| (property, value)).collect()
}

fn object(params: &Params) -> ParamsPatch {
    match serde_json::to_value(params) {
        Ok(Value::Object(object)) => object,
        _ => ParamsPatch::new(),
    }
}

#[cfg(test)]
mod tests {
    use keyframed_control::{params::Kind, types::MaxQuality};
    use serde_json::json;

    use super::*;

    fn element() -> gst::Element {
        gst::init().unwrap();
        gstkeyframed::plugin_register_static().unwrap();
        gst::ElementFactory::make("avataranimate").build().unwrap()
    }

    fn live() -> Params {
        Params {
            lambda: 0.01,
            window_frames: 12,
            target_key_rate_hz: 0.0,
            steps: None,
            guidance_scale: None,
            lora_scale: Some(1.0),
            context_frames: None,
            seed: 0,
            latency_ms: 700,
            max_quality: MaxQuality::Film,
        }
    }

    #[test]
    fn all_or_none() {
        let set = |patch: Value| patched(&live(), patch.as_object().unwrap());
        let new =
            set(json!({"lambda": 0, "steps": 2, "lora_scale": null, "latency_ms": 1500.0, "seed": u64::MAX,
            "max_quality": "warp"}));
        let new = new.unwrap();
        assert_eq!((new.lambda, new.steps, new.lora_scale), (0.0, Some(2), None));
        assert_eq!((new.latency_ms, new.seed, new.max_quality), (1500, u64::MAX, MaxQuality::Warp));
        for bad in [
            json!({"steps": 2, "lambda": 1.5}),
            json!({"steps": 0}),
            json!({"lambda": null}),
            json!({"x": 1}),
        ] {
            assert_eq!(set(bad.clone()).unwrap_err().code, keyframed_control::code::INVALID_PARAMS, "{bad}");
        }
    }

    /// What is allowed on the wire is what the elements take: nothing is refused later, and nothing needlessly.
    #[test]
    fn ranges_are_those_of_the_properties() {
        let element = element();
        for spec in params::SETTINGS {
            let all = properties(&live());
            let (_, property, _) = all.iter().find(|(name, ..)| *name == spec.name).unwrap();
            let pspec = element.find_property(property).unwrap();
            let unit = if spec.name == "latency_ms" { 1e6 } else { 1.0 };
            let (low, high) = if let Some(p) = pspec.downcast_ref::<glib::ParamSpecDouble>() {
                (p.minimum(), p.maximum())
            } else if let Some(p) = pspec.downcast_ref::<glib::ParamSpecUInt>() {
                (p.minimum().into(), p.maximum().into())
            } else if let Some(p) = pspec.downcast_ref::<glib::ParamSpecInt>() {
                (p.minimum().into(), p.maximum().into())
            } else if let Some(p) = pspec.downcast_ref::<glib::ParamSpecUInt64>() {
                (p.minimum() as f64, p.maximum() as f64)
            } else {
                (f64::NAN, f64::NAN)
            };
            let (least, most) = match spec.kind {
                Kind::Number { min, max } => (min, max),
                Kind::Integer { min, max } => (min as f64, max as f64),
                Kind::Choice(words) => {
                    let class = glib::EnumClass::with_type(pspec.value_type()).unwrap();
                    let nicks: Vec<_> = class.values().iter().map(|value| value.nick()).collect();
                    assert_eq!(nicks, words, "{}", spec.name);
                    continue;
                }
                Kind::Text => panic!("{} is no text", spec.name),
            };
            assert_eq!(most * unit, high, "{}", spec.name);
            // What stands for the model's default is written as null.
            assert!(least * unit == low || (spec.nullable && low < least), "{}", spec.name);
        }
    }

    #[test]
    fn values_are_those_the_properties_hold() {
        let element = element();
        let all = values(&live(), None);
        assert_eq!(all.len(), params::SETTINGS.len());
        for (name, value) in all {
            assert_eq!(value.type_(), element.find_property(name).unwrap().value_type(), "{name}");
            element.set_property_from_value(name, &value);
        }
        assert_eq!(element.property::<u64>("latency"), 700_000_000);
        assert_eq!(element.property::<i32>("context-frames"), -1);
        assert_eq!(element.property::<u32>("steps"), 0);
        assert_eq!(element.property::<f64>("guidance-scale"), -1.0);
        let new = Params { steps: Some(2), ..live() };
        let changed = values(&new, Some(&live()));
        assert_eq!(changed.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["steps"]);
    }

    #[test]
    fn reloading_keeps_what_clients_have_set() {
        let set = Params { lambda: 0.5, steps: Some(1), ..live() };
        let new = Params { steps: Some(3), seed: 7, ..live() };
        let merged = merged(&set, &live(), &new);
        assert_eq!((merged.lambda, merged.steps, merged.seed), (0.5, Some(3), 7));
    }
}
