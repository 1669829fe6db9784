//! The ranges here, those of the control plane and those of the elements' properties are the same.

use gst::{glib, prelude::*};
use keyframed_control::params::{Kind, SETTINGS};

use super::*;

/// Keys and the properties behind them, with what one unit is there.
const KEYS: [(&str, &str, f64); 9] = [
    ("lambda", "lambda", 1.0),
    ("window_frames", "window", 1.0),
    ("target_key_rate_hz", "target-key-rate", 1.0),
    ("steps", "steps", 1.0),
    ("guidance_scale", "guidance-scale", 1.0),
    ("lora_scale", "lora-scale", 1.0),
    ("context_frames", "context-frames", 1.0),
    ("seed", "seed", 1.0),
    ("latency_ms", "latency", 1e6),
];

fn element(name: &str) -> gst::Element {
    gst::init().unwrap();
    gstkeyframed::plugin_register_static().unwrap();
    gst::ElementFactory::make(name).build().unwrap()
}

/// Range and default of a property.
fn of(pspec: &glib::ParamSpec) -> (f64, f64, f64) {
    let number = |value: &glib::Value| value.transform::<f64>().unwrap().get::<f64>().unwrap();
    let default = number(pspec.default_value());
    if let Some(p) = pspec.downcast_ref::<glib::ParamSpecDouble>() {
        (p.minimum(), p.maximum(), default)
    } else if let Some(p) = pspec.downcast_ref::<glib::ParamSpecUInt>() {
        (p.minimum().into(), p.maximum().into(), default)
    } else if let Some(p) = pspec.downcast_ref::<glib::ParamSpecInt>() {
        (p.minimum().into(), p.maximum().into(), default)
    } else if let Some(p) = pspec.downcast_ref::<glib::ParamSpecUInt64>() {
        (p.minimum() as f64, p.maximum() as f64, default)
    } else {
        panic!("{pspec:?}")
    }
}

#[test]
fn numbers() {
    let animate = element("avataranimate");
    let defaults = serde_json::to_value(good("").pipelines["figure"].animation.params).unwrap();
    for (key, property, unit) in KEYS {
        let (low, high, default) = of(&animate.find_property(property).unwrap());
        let setting = SETTINGS.iter().find(|setting| setting.name == key).unwrap();
        let (min, max, step) = match setting.kind {
            Kind::Number { min, max } => (min, max, 1e-6),
            Kind::Integer { min, max } => (min as f64, max as f64, 1.0),
            other => panic!("{key}: {other:?}"),
        };
        // Where the model may decide, the element has one value below the range that says so.
        let left_out = if setting.nullable { 1.0 } else { 0.0 };
        assert_eq!((low / unit + left_out, high / unit), (min, max), "{key}");
        let written = |value: f64| if step == 1.0 { format!("{value:.0}") } else { format!("{value:?}") };
        let takes = |value: String| parse(&format!("[animation]\n{key} = {value}")).is_ok();
        // The greatest u64 is no f64; one more is 2^64 either way.
        let most = if key == "seed" { u64::MAX.to_string() } else { written(max) };
        assert!(takes(written(min)) && takes(most), "{key} from {min} to {max}");
        assert!(
            !takes(written(min - step)) && !takes(written(if key == "seed" { 2e19 } else { max + step })),
            "{key}"
        );
        match defaults[key].as_f64() {
            Some(own) => assert_eq!(own, default / unit, "{key}"),
            None => assert!(setting.nullable, "{key}"),
        }
    }
    assert_eq!(KEYS.len() + 1, SETTINGS.len(), "and max_quality");
}

#[test]
fn words() {
    let nicks = |element: &str, property: &str| {
        let pspec = self::element(element).find_property(property).unwrap();
        let class = glib::EnumClass::with_type(pspec.value_type()).unwrap();
        class.values().iter().map(|value| value.nick().to_owned()).collect::<Vec<_>>()
    };
    for (element, property, table, key) in [
        ("avataranimate", "max-quality", "[animation]", "max_quality"),
        ("avataranimate", "context-mode", "[animation]", "context_mode"),
        ("avataranimate", "schedule", "[animation]", "schedule"),
        ("avataranimate", "dtype", "[animation]", "dtype"),
        ("denseposetestsrc", "pattern", "[sources.a]\nkind = 'test-figure'", "pattern"),
    ] {
        let nicks = nicks(element, property);
        for nick in &nicks {
            good(&format!("{table}\n{key} = '{nick}'"));
        }
        let refused = parse(&format!("{table}\n{key} = '?'")).unwrap_err().to_string();
        assert!(
            nicks.iter().all(|nick| refused.contains(nick.as_str())),
            "{refused} has not all of {nicks:?}"
        );
    }
    let defaults = good("");
    let animation = &defaults.pipelines["figure"].animation;
    let animate = element("avataranimate");
    assert_eq!(animate.property::<String>("model"), animation.model);
    assert_eq!(animate.property::<String>("device"), animation.device);
    let nick = |property: &str| {
        let value = animate.property_value(property);
        glib::EnumValue::from_value(&value).unwrap().1.nick().to_owned()
    };
    assert_eq!(nick("dtype"), animation.dtype);
    assert_eq!(nick("context-mode"), animation.context_mode);
    assert_eq!(nick("schedule"), animation.schedule);
    assert_eq!(serde_json::json!(animation.params.max_quality), nick("max-quality"));
}
