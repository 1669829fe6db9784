//! What a pipeline's bus says, as far as the daemon cares.

use anyhow::anyhow;
use gst::prelude::*;

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// It cannot go on.
    Error(String),
    /// It goes on without something.
    Warning(String),
    /// An element is slower or faster than it said.
    Latency,
    /// The model's weights are loaded.
    Loaded,
}

/// Tells what the pipeline's bus says. Errors stay on the bus, too, for [`first_error`]; everything else is
/// taken off it. `also` sees each message on the thread that posts it.
pub fn listen(
    pipeline: &gst::Pipeline,
    tell: impl Fn(Said) + Send + Sync + 'static,
    also: impl Fn(&gst::Message) + Send + Sync + 'static,
) {
    let Some(bus) = pipeline.bus() else { return };
    bus.set_sync_handler(move |_, message| {
        use gst::MessageView as M;
        also(message);
        let one = match message.view() {
            M::Error(error) => Some(Said::Error(text(message, &error.error()))),
            M::Warning(warning) => Some(Said::Warning(text(message, &warning.error()))),
            M::Latency(_) => Some(Said::Latency),
            M::Progress(progress) if progress.get().0 == gst::ProgressType::Complete => Some(Said::Loaded),
            _ => None,
        };
        if let Some(one) = one {
            tell(one);
        }
        if message.type_() == gst::MessageType::Error { gst::BusSyncReply::Pass } else { gst::BusSyncReply::Drop }
    });
}

/// The first error on the pipeline's bus.
pub fn first_error(pipeline: &gst::Pipeline) -> Option<anyhow::Error> {
    let message = pipeline.bus()?.pop_filtered(&[gst::MessageType::Error])?;
    let gst::MessageView::Error(error) = message.view() else { return None };
    Some(anyhow!(text(&message, &error.error())))
}

/// One line. Ours are whole sentences; others' make sense with the element's name.
fn text(message: &gst::Message, error: &gst::glib::Error) -> String {
    let line = error.message().split_whitespace().collect::<Vec<_>>().join(" ");
    let line = line.trim_end_matches('.');
    let source = message.src().and_then(|src| src.downcast_ref::<gst::Element>());
    let plugin = source.and_then(|element| element.factory()?.plugin());
    match (plugin, source) {
        (Some(plugin), _) if plugin.plugin_name() == "keyframed" => line.to_owned(),
        (_, Some(source)) => format!("{line} ({})", source.name()),
        _ => line.to_owned(),
    }
}
