//! What pipelines say, as sentences.

use gst::{glib, prelude::*};

/// What a full disk is called.
pub const NO_SPACE: &str = "no space is left on the disk";

/// An error message as one sentence; GStreamer's own details go to the log.
pub fn sentence(message: &gst::message::Error) -> String {
    let error = message.error();
    if error.matches(gst::ResourceError::NoSpaceLeft) {
        return NO_SPACE.into();
    }
    describe(message.src(), &error, message.debug().as_deref())
}

/// A warning message as one sentence.
pub fn warning(message: &gst::message::Warning) -> String {
    describe(message.src(), &message.error(), message.debug().as_deref())
}

fn describe(src: Option<&gst::Object>, error: &glib::Error, details: Option<&str>) -> String {
    let source = src.map(|src| src.name().to_string()).unwrap_or_default();
    let details = details.unwrap_or_default();
    tracing::debug!("{source}: {error}: {details}");
    let element = src.and_then(|src| src.downcast_ref::<gst::Element>()?.factory());
    // Ours are whole sentences; others' make sense with the element's name.
    let ours = element.as_ref().and_then(|factory| factory.plugin());
    if ours.is_some_and(|plugin| plugin.plugin_name() == "keyframed") {
        return error.message().into();
    }
    let element = element.map(|factory| factory.name().to_string()).unwrap_or(source);
    let text = error.message().trim_end_matches('.');
    match detail(details).filter(|detail| !text.contains(detail)) {
        Some(detail) => format!("{text}: {detail} ({element})"),
        None => format!("{text} ({element})"),
    }
}

/// The reason that an element gave: the last line of the details, after those that say where in its source it is.
fn detail(debug: &str) -> Option<&str> {
    let mut lines = debug.lines();
    lines.next().filter(|first| first.contains(".c(") || first.contains(".cpp("))?;
    let last = lines.next_back()?.trim().trim_end_matches('.');
    (!last.is_empty() && last.len() < 200).then_some(last)
}

/// What is missing, if that is what the message says.
pub fn missing_plugin(message: &gst::Message) -> Option<String> {
    let missing = gst_pbutils::MissingPluginMessage::parse(message).ok()?;
    Some(format!("no {} is installed", missing.description()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_told_and_the_source_line_is_not() {
        let debug =
            "../gst/filesink.c(471): gst_file_sink_open_file (): /p/f:\nsystem error: Permission denied";
        assert_eq!(detail(debug), Some("system error: Permission denied"));
        assert_eq!(detail("../gst/filesink.c(471): f (): /p/f"), None);
        assert_eq!(detail(""), None);
    }
}
