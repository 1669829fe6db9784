//! The event `keyframed-params`: properties that change together, at one place in the stream.
use gst::{glib, prelude::*};

/// Name of the structure of the custom downstream event.
const NAME: &str = "keyframed-params";

/// Most events that wait for one picture.
const MOST_WAITING: usize = 64;

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

/// Whether [`take`] would set what `event` has for the properties `names` of `element`.
pub fn is_valid(element: &impl IsA<gst::Element>, event: &gst::EventRef, names: &[&'static str]) -> bool {
    check(element.as_ref(), event, names).is_ok()
}

/// Adds `event` to those that wait for the same picture. No picture may come for long, while somebody turns a knob:
/// `keyframed-params` that `joins` accepts becomes one event with those that wait, newer values winning; and of too
/// many events the oldest GAP goes, or the oldest that a newer one of its type follows.
pub fn queue(waiting: &mut Vec<gst::Event>, event: gst::Event, joins: impl Fn(&gst::EventRef) -> bool) {
    let may_join = |event: &gst::EventRef| fields(event).is_some() && joins(event);
    let older = if may_join(&event) { waiting.iter().rposition(|older| may_join(older)) } else { None };
    let event = match older.map(|at| waiting.remove(at)) {
        Some(older) => join(&older, event),
        None => event,
    };
    if waiting.len() >= MOST_WAITING {
        let gap = waiting.iter().position(|event| event.type_() == gst::EventType::Gap);
        // There are fewer types than places.
        let is_outdated = |at: &usize| waiting[at + 1..].iter().any(|e| e.type_() == waiting[*at].type_());
        if let Some(oldest) = gap.or_else(|| (0..waiting.len()).find(is_outdated)) {
            waiting.remove(oldest);
        }
    }
    waiting.push(event);
}

/// One event with the fields of both.
fn join(older: &gst::EventRef, newer: gst::Event) -> gst::Event {
    let (Some(old), Some(new)) = (fields(older), fields(&newer)) else { return newer };
    let mut both = old.to_owned();
    for (name, value) in new.iter() {
        both.set_value(name.as_str(), value.clone());
    }
    gst::event::CustomDownstream::builder(both).seqnum(newer.seqnum()).build()
}

/// The structure of the event, if it is `keyframed-params`.
fn fields(event: &gst::EventRef) -> Option<&gst::StructureRef> {
    let gst::EventView::CustomDownstream(custom) = event.view() else { return None };
    custom.structure().filter(|structure| structure.name() == NAME)
}

fn check<'a>(
    element: &gst::Element,
    event: &gst::EventRef,
    names: &[&'a str],
) -> Result<Vec<Value<'a>>, String> {
    let mut values = Vec::new();
    let Some(structure) = fields(event) else { return Ok(values) };
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

#[cfg(test)]
mod tests {
    use super::*;

    fn params(name: &str, value: u32) -> gst::Event {
        gst::event::CustomDownstream::new(gst::Structure::builder(NAME).field(name, value).build())
    }

    #[test]
    fn what_waits_is_bounded() {
        gst::init().unwrap();
        let mut waiting = Vec::new();
        let tag = || gst::event::Tag::new(gst::TagList::new());
        let gap = |n| gst::event::Gap::builder(gst::ClockTime::from_seconds(n)).build();
        for n in 0..1000 {
            queue(&mut waiting, tag(), |_| true);
            queue(&mut waiting, gap(n), |_| true);
            queue(&mut waiting, params("steps", n as u32), |_| true);
            queue(&mut waiting, params("seed", 7), |_| true);
            assert!(waiting.len() <= MOST_WAITING);
        }
        let kept: Vec<_> = waiting.iter().filter_map(|event| fields(event)).collect();
        assert_eq!(kept.len(), 1);
        assert_eq!((kept[0].get("steps"), kept[0].get("seed")), (Ok(999u32), Ok(7u32)));
    }

    #[test]
    fn what_may_not_join_stays_as_it_is() {
        gst::init().unwrap();
        let mut waiting = Vec::new();
        let even =
            |event: &gst::EventRef| fields(event).unwrap().get::<u32>("steps").unwrap().is_multiple_of(2);
        for n in [2, 4, 5, 6, 7] {
            queue(&mut waiting, params("steps", n), even);
        }
        let steps = |event: &gst::Event| fields(event).unwrap().get::<u32>("steps").unwrap();
        assert_eq!(waiting.iter().map(steps).collect::<Vec<_>>(), [5, 6, 7]);
    }
}
