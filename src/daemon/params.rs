//! Parameters that change between two frames: checked against the ranges of the elements' properties, and turned
//! into those properties' values.

use gst::{glib, prelude::*};
use keyframed_control::{ErrorObject, types::Params};
use serde_json::{Number, Value};

use super::handle::ParamsPatch;

/// How a parameter is written in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Any number.
    Real,
    /// A whole number.
    Whole,
    /// Milliseconds, whole; nanoseconds in the element.
    Millis,
    /// One of the property's nicks.
    Nick,
}

/// A parameter and the property behind it.
struct Spec {
    name: &'static str,
    property: &'static str,
    form: Form,
    /// Whether `null` stands for the model's default; then the smallest value that is not.
    default_below: Option<f64>,
}

const fn spec(name: &'static str, property: &'static str, form: Form, default_below: Option<f64>) -> Spec {
    Spec { name, property, form, default_below }
}

const SPECS: [Spec; 10] = [
    spec("lambda", "lambda", Form::Real, None),
    spec("window_frames", "window", Form::Whole, None),
    spec("target_key_rate_hz", "target-key-rate", Form::Real, None),
    spec("steps", "steps", Form::Whole, Some(1.)),
    spec("guidance_scale", "guidance-scale", Form::Real, Some(0.)),
    spec("lora_scale", "lora-scale", Form::Real, Some(0.)),
    spec("context_frames", "context-frames", Form::Whole, Some(0.)),
    spec("seed", "seed", Form::Whole, None),
    spec("latency_ms", "latency", Form::Millis, None),
    spec("max_quality", "max-quality", Form::Nick, None),
];

/// Specifications of the properties of `avataranimate`.
pub struct Properties(Vec<glib::ParamSpec>);

impl Properties {
    /// Looks them up; GStreamer must have been started and the plugin registered.
    ///
    /// # Errors
    /// If the element is not there.
    pub fn look_up() -> anyhow::Result<Self> {
        let element = gst::ElementFactory::make("avataranimate").build()?;
        Ok(Self(element.list_properties().to_vec()))
    }

    fn get(&self, name: &str) -> Option<&glib::ParamSpec> {
        self.0.iter().find(|pspec| pspec.name() == name)
    }
}

/// `params` with the changes of `patch`: all of them, or an error that names the first that cannot be.
///
/// # Errors
/// [`ErrorObject::invalid_params`], one sentence.
pub fn patched(params: &Params, patch: &ParamsPatch, properties: &Properties) -> Result<Params, ErrorObject> {
    let Ok(Value::Object(mut all)) = serde_json::to_value(params) else {
        return Err(ErrorObject::internal("the parameters cannot be written as JSON"));
    };
    for (name, value) in patch {
        let spec = SPECS.iter().find(|spec| spec.name == name);
        let spec = spec.ok_or_else(|| {
            let known: Vec<_> = SPECS.iter().map(|spec| spec.name).collect();
            ErrorObject::invalid_params(format!("there is no parameter {name:?}; there are {}", known.join(", ")))
        })?;
        let value = spec.check(value, properties).map_err(|why| {
            ErrorObject::invalid_params(format!("{name}: {why}"))
        })?;
        all.insert(name.clone(), value);
    }
    serde_json::from_value(Value::Object(all)).map_err(ErrorObject::invalid_params)
}

/// The properties' values for `params`, those in which it differs from `old`.
pub fn values(
    params: &Params,
    old: Option<&Params>,
    properties: &Properties,
) -> Vec<(&'static str, glib::Value)> {
    let json = |params: &Params| serde_json::to_value(params).unwrap_or_default();
    let (new, old) = (json(params), old.map(json));
    let changed = SPECS.iter().filter(|spec| old.as_ref().is_none_or(|old| old[spec.name] != new[spec.name]));
    changed.filter_map(|spec| Some((spec.property, spec.value(&new[spec.name], properties)?))).collect()
}

/// `new` where the configuration changed from `old`, and `live` elsewhere: what a client has set stays.
pub fn merged(live: &Params, old: &Params, new: &Params) -> Params {
    let object = |params: &Params| match serde_json::to_value(params) {
        Ok(Value::Object(object)) => object,
        _ => ParamsPatch::new(),
    };
    let (mut all, old, new) = (object(live), object(old), object(new));
    all.extend(new.into_iter().filter(|(name, value)| old.get(name) != Some(value)));
    serde_json::from_value(Value::Object(all)).unwrap_or(*live)
}

impl Spec {
    /// The value to take, as [`Params`] has it.
    fn check(&self, value: &Value, properties: &Properties) -> Result<Value, String> {
        let pspec = properties.get(self.property).ok_or("this build does not have it")?;
        match value {
            Value::Null if self.default_below.is_some() => Ok(Value::Null),
            Value::String(nick) if self.form == Form::Nick => {
                let nicks = nicks(pspec);
                let known = nicks.contains(nick);
                known.then(|| value.clone()).ok_or_else(|| format!("{nick:?} is none of {}", nicks.join(", ")))
            }
            Value::Number(number) if self.form != Form::Nick => {
                let number = self.number(number)?;
                self.check_range(&number, pspec)?;
                Ok(Value::Number(number))
            }
            _ => Err(format!("{} is needed, not {}", self.wanted(), kind(value))),
        }
    }

    fn wanted(&self) -> &'static str {
        match self.form {
            Form::Real => "a number",
            Form::Whole | Form::Millis => "a whole number",
            Form::Nick => "a string",
        }
    }

    /// Whole numbers may be written with a point, as JavaScript does not.
    fn number(&self, number: &Number) -> Result<Number, String> {
        if self.form == Form::Real || number.is_u64() {
            return Ok(number.clone());
        }
        let whole = number.as_f64().filter(|x| x.fract() == 0.0 && (0.0..9e15).contains(x));
        match whole {
            Some(whole) => Ok(Number::from(whole as u64)),
            None if number.as_f64().is_some_and(|x| x < 0.0) => Err(format!("{number} is less than 0")),
            None => Err(format!("a whole number is needed, not {number}")),
        }
    }

    fn check_range(&self, number: &Number, pspec: &glib::ParamSpec) -> Result<(), String> {
        let (low, high) = range(pspec);
        let scale = if self.form == Form::Millis { 1e6 } else { 1.0 };
        let (low, high) = (self.default_below.unwrap_or(low / scale), high / scale);
        let value = number.as_f64().unwrap_or(f64::NAN);
        let fits = (low..=high).contains(&value);
        fits.then_some(()).ok_or_else(|| format!("{number} is not from {low} to {high}"))
    }

    /// A checked value as the property's.
    fn value(&self, json: &Value, properties: &Properties) -> Option<glib::Value> {
        let pspec = properties.get(self.property)?;
        let whole = json.as_u64();
        Some(match pspec.value_type() {
            // Below zero, or zero of an unsigned type, stands for the model's default.
            glib::Type::F64 => json.as_f64().unwrap_or(-1.0).to_value(),
            glib::Type::I32 => whole.and_then(|n| i32::try_from(n).ok()).unwrap_or(-1).to_value(),
            glib::Type::U32 => whole.and_then(|n| u32::try_from(n).ok()).unwrap_or(0).to_value(),
            glib::Type::U64 if self.form == Form::Millis => (whole? * 1_000_000).to_value(),
            glib::Type::U64 => whole?.to_value(),
            _ => glib::EnumClass::with_type(pspec.value_type())?.to_value_by_nick(json.as_str()?)?,
        })
    }
}

/// Least and greatest number that a property takes.
fn range(pspec: &glib::ParamSpec) -> (f64, f64) {
    if let Some(p) = pspec.downcast_ref::<glib::ParamSpecDouble>() {
        (p.minimum(), p.maximum())
    } else if let Some(p) = pspec.downcast_ref::<glib::ParamSpecUInt>() {
        (p.minimum().into(), p.maximum().into())
    } else if let Some(p) = pspec.downcast_ref::<glib::ParamSpecInt>() {
        (p.minimum().into(), p.maximum().into())
    } else if let Some(p) = pspec.downcast_ref::<glib::ParamSpecUInt64>() {
        (p.minimum() as f64, p.maximum() as f64)
    } else {
        (f64::MIN, f64::MAX)
    }
}

fn nicks(pspec: &glib::ParamSpec) -> Vec<String> {
    let class = glib::EnumClass::with_type(pspec.value_type());
    class.map_or_else(Vec::new, |class| class.values().iter().map(|v| v.nick().to_owned()).collect())
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use keyframed_control::types::MaxQuality;
    use serde_json::json;

    use super::*;

    fn properties() -> Properties {
        gst::init().unwrap();
        gstkeyframed::plugin_register_static().unwrap();
        Properties::look_up().unwrap()
    }

    fn params() -> Params {
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

    fn patch(value: Value) -> ParamsPatch {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn all_or_none() {
        let properties = properties();
        let set = |value| patched(&params(), &patch(value), &properties).map_err(|e| e.message);
        let new = set(json!({"lambda": 0, "steps": 2, "lora_scale": null, "latency_ms": 1500.0, "seed": u64::MAX,
            "max_quality": "warp", "window_frames": 1, "context_frames": 0}));
        let new = new.unwrap();
        assert_eq!((new.lambda, new.steps, new.lora_scale), (0.0, Some(2), None));
        assert_eq!((new.latency_ms, new.seed, new.max_quality), (1500, u64::MAX, MaxQuality::Warp));
        for (bad, said) in [
            (json!({"steps": 2, "lambda": 1.5}), "lambda: 1.5 is not from 0 to 1"),
            (json!({"steps": 0}), "steps: 0 is not from 1 to 50"),
            (json!({"steps": 1.5}), "steps: a whole number is needed, not 1.5"),
            (json!({"steps": -1}), "steps: -1 is less than 0"),
            (json!({"lambda": null}), "lambda: a number is needed, not null"),
            (json!({"lambda": "0.1"}), "lambda: a number is needed, not a string"),
            (json!({"guidance_scale": -1}), "guidance_scale: -1 is not from 0 to 30"),
            (json!({"latency_ms": 60001}), "latency_ms: 60001 is not from 0 to 60000"),
            (json!({"context_frames": 24}), "context_frames: 24 is not from 0 to 23"),
            (json!({"window_frames": 5_000_000_000u64}), "window_frames: 5000000000 is not from 1 to 4294967295"),
            (json!({"max_quality": "best"}), "max_quality: \"best\" is none of film, warp, crossfade, repeat"),
            (json!({"max_quality": 1}), "max_quality: a string is needed, not a number"),
            (json!({"lamda": 1}), "there is no parameter \"lamda\""),
        ] {
            let why = set(bad.clone()).unwrap_err();
            assert!(why.contains(said), "{bad}: {why}");
        }
    }

    #[test]
    fn values_are_those_the_properties_hold() {
        let properties = properties();
        let element = gst::ElementFactory::make("avataranimate").build().unwrap();
        let all = values(&params(), None, &properties);
        assert_eq!(all.len(), SPECS.len());
        for (name, value) in all {
            assert_eq!(value.type_(), element.find_property(name).unwrap().value_type(), "{name}");
            element.set_property_from_value(name, &value);
        }
        assert_eq!(element.property::<u64>("latency"), 700_000_000);
        assert_eq!(element.property::<i32>("context-frames"), -1);
        assert_eq!(element.property::<u32>("steps"), 0);
        assert_eq!(element.property::<f64>("guidance-scale"), -1.0);
        let new = Params { steps: Some(2), ..params() };
        let changed = values(&new, Some(&params()), &properties);
        assert_eq!(changed.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["steps"]);
    }

    #[test]
    fn reloading_keeps_what_clients_have_set() {
        let live = Params { lambda: 0.5, steps: Some(1), ..params() };
        let new = Params { steps: Some(3), seed: 7, ..params() };
        let merged = merged(&live, &params(), &new);
        assert_eq!((merged.lambda, merged.steps, merged.seed), (0.5, Some(3), 7));
    }
}
