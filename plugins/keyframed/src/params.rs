//! The event `keyframed-params`: properties that change together, at one place in the stream.
use gst::{glib, prelude::*};

/// Name of the structure of the custom downstream event.
const NAME: &str = "keyframed-params";

/// A property and its new value.
pub type Value<'a> = (&'a str, glib::Value);

/// Hands to `set` what `event` has for the properties `names` of `element`, unless it is another event. All of the
/// values are valid, or nothing is set and a warning posted.
pub fn take(
    element: &impl IsA<gst::Element>,
    event: &gst::EventRef,
    names: &[&'static str],
    set: impl FnOnce(&[Value]),
) {
    let element = element.as_ref();
    match check(element, event, names) {
        Ok(values) if values.is_empty() => {}
        Ok(values) => {
            set(&values);
            for (name, _) in values {
                element.notify(name);
            }
        }
        Err(err) => gst::element_warning!(
            element,
            gst::LibraryError::Settings,
            ("{NAME}: {err}. {} uses nothing of the event", element.name())
        ),
    }
}

fn check<'a>(
    element: &gst::Element,
    event: &gst::EventRef,
    names: &[&'a str],
) -> Result<Vec<Value<'a>>, String> {
    let mut values = Vec::new();
    let gst::EventView::CustomDownstream(custom) = event.view() else { return Ok(values) };
    let Some(structure) = custom.structure().filter(|structure| structure.name() == NAME) else {
        return Ok(values);
    };
    for name in names {
        let (Ok(value), Some(spec)) = (structure.value(*name), element.find_property(name)) else { continue };
        if value.type_() != spec.value_type() {
            let (is, wanted) = (value.type_(), spec.value_type());
            return Err(format!("{name} must be of type {wanted}, not {is}"));
        }
        if let Some(range) = outside(value, &spec) {
            return Err(format!("{name} must be {range}"));
        }
        values.push((*name, (**value).clone()));
    }
    Ok(values)
}

/// The range that `value`, which has the property's type, is outside of.
fn outside(value: &glib::Value, spec: &glib::ParamSpec) -> Option<String> {
    fn misses<T: PartialOrd + std::fmt::Display>(value: T, least: T, most: T) -> Option<String> {
        // Not `<` or `>`: a number that is none is outside, too.
        let inside = value >= least && value <= most;
        (!inside).then(|| format!("{least} to {most}, not {value}"))
    }
    if let Some(spec) = spec.downcast_ref::<glib::ParamSpecDouble>() {
        misses(value.get::<f64>().ok()?, spec.minimum(), spec.maximum())
    } else if let Some(spec) = spec.downcast_ref::<glib::ParamSpecUInt>() {
        misses(value.get::<u32>().ok()?, spec.minimum(), spec.maximum())
    } else if let Some(spec) = spec.downcast_ref::<glib::ParamSpecInt>() {
        misses(value.get::<i32>().ok()?, spec.minimum(), spec.maximum())
    } else if let Some(spec) = spec.downcast_ref::<glib::ParamSpecUInt64>() {
        misses(value.get::<u64>().ok()?, spec.minimum(), spec.maximum())
    } else {
        None
    }
}
