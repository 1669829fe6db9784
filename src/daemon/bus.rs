//! What a pipeline's bus says, as far as the daemon cares.

use anyhow::anyhow;
use gst::prelude::*;

use crate::media::bus::sentence;

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
    /// In-betweens are made in another way, and why.
    Rung(String, String),
    /// Memory ran out; key frames are made with less: how, and why.
    Less(String, String),
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
            M::Error(error) => Some(Said::Error(sentence(error))),
            M::Warning(warning) => Some(Said::Warning(warning.error().message().to_owned())),
            M::Latency(_) => Some(Said::Latency),
            M::Progress(progress) if progress.get().0 == gst::ProgressType::Complete => Some(Said::Loaded),
            M::Element(element) => element.structure().and_then(element_said),
            _ => None,
        };
        if let Some(one) = one {
            tell(one);
        }
        if message.type_() == gst::MessageType::Error {
            gst::BusSyncReply::Pass
        } else {
            gst::BusSyncReply::Drop
        }
    });
}

/// What `filminterpolate` says when it steps on its quality ladder, and `lcmanimate` when memory ran out.
fn element_said(structure: &gst::StructureRef) -> Option<Said> {
    let field = |name| structure.get::<String>(name).ok();
    match structure.name().as_str() {
        "keyframed-quality" => Some(Said::Rung(field("to")?, field("reason")?)),
        "keyframed-memory" => {
            let frames = structure.get::<u32>("context-frames").ok()?;
            let guided = structure.get::<f64>("guidance-scale").ok()? > 1.0;
            let guidance = if guided { "" } else { ", no guidance" };
            Some(Said::Less(format!("{frames} context frames{guidance}"), field("reason")?))
        }
        _ => None,
    }
}

/// The first error on the pipeline's bus.
pub fn first_error(pipeline: &gst::Pipeline) -> Option<anyhow::Error> {
    let message = pipeline.bus()?.pop_filtered(&[gst::MessageType::Error])?;
    let gst::MessageView::Error(error) = message.view() else { return None };
    Some(anyhow!(sentence(error)))
}
