//! What the elements with one sink pad and one source pad have in common: how their pads are made.
use gst::{prelude::*, subclass::prelude::*};

/// What the pads of such an element do.
pub trait Filter: ElementImpl {
    /// A buffer has come.
    fn sink_chain(&self, pad: &gst::Pad, buffer: gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError>;

    /// An event has come from upstream.
    fn sink_event(&self, pad: &gst::Pad, event: gst::Event) -> bool;

    /// Upstream asks.
    fn sink_query(&self, pad: &gst::Pad, query: &mut gst::QueryRef) -> bool {
        gst::Pad::query_default(pad, Some(&*self.obj()), query)
    }

    /// Downstream asks.
    fn src_query(&self, pad: &gst::Pad, query: &mut gst::QueryRef) -> bool;

    /// An event has come from downstream.
    fn src_event(&self, pad: &gst::Pad, event: gst::Event) -> bool {
        gst::Pad::event_default(pad, Some(&*self.obj()), event)
    }

    /// The source pad is switched on (before the sink pad) or off, in push mode.
    fn src_activate(&self, _pad: &gst::Pad, _active: bool) -> Result<(), gst::LoggableError> {
        Ok(())
    }
}

/// The sink pad and the source pad. A panic in one of their functions is an error on the bus.
pub fn pads<T: Filter>(templates: [gst::PadTemplate; 2], flags: gst::PadFlags) -> [gst::Pad; 2] {
    let [sink, src] = templates.map(|template| gst::Pad::builder_from_template(&template).flags(flags));
    let sink = sink
        .chain_function(|pad, parent, buffer| {
            T::catch_panic_pad_function(
                parent,
                || Err(gst::FlowError::Error),
                |this| this.sink_chain(pad, buffer),
            )
        })
        .event_function(|pad, parent, event| {
            T::catch_panic_pad_function(parent, || false, |this| this.sink_event(pad, event))
        })
        .query_function(|pad, parent, query| {
            T::catch_panic_pad_function(parent, || false, |this| this.sink_query(pad, query))
        });
    let src = src
        .event_function(|pad, parent, event| {
            T::catch_panic_pad_function(parent, || false, |this| this.src_event(pad, event))
        })
        .query_function(|pad, parent, query| {
            T::catch_panic_pad_function(parent, || false, |this| this.src_query(pad, query))
        })
        .activatemode_function(|pad, parent, mode, active| {
            T::catch_panic_pad_function(
                parent,
                || Err(gst::loggable_error!(gst::CAT_RUST, "Panic in activation")),
                |this| match mode {
                    gst::PadMode::Push => this.src_activate(pad, active),
                    _ => Err(gst::loggable_error!(gst::CAT_RUST, "Only push mode is understood")),
                },
            )
        });
    [sink.build(), src.build()]
}

/// Gives an element under construction its pads.
pub fn add_pads(element: &impl IsA<gst::Element>, pads: [&gst::Pad; 2]) {
    for pad in pads {
        // Cannot fail: the names differ and the pads have no parent yet.
        let _ = element.add_pad(pad);
    }
}

/// Templates of a sink and a source pad that are always there.
pub fn templates(sink: &gst::Caps, src: &gst::Caps) -> Vec<gst::PadTemplate> {
    let always =
        |name, direction, caps| gst::PadTemplate::new(name, direction, gst::PadPresence::Always, caps);
    let both = [always("sink", gst::PadDirection::Sink, sink), always("src", gst::PadDirection::Src, src)];
    both.into_iter().flatten().collect()
}
