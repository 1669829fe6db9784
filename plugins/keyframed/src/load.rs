//! The event `keyframed-load`: how often the generator can be given a key pose, told upstream.

/// Name of the structure of the custom upstream event.
const NAME: &str = "keyframed-load";

/// Its field: nanoseconds between key poses that can be sustained.
const INTERVAL: &str = "key-interval";

/// The event that says that key poses may come every `interval` nanoseconds.
pub fn event(interval: u64) -> gst::Event {
    let structure = gst::Structure::builder(NAME).field(INTERVAL, interval).build();
    gst::event::CustomUpstream::new(structure)
}

/// What such an event says; `None` if it is another.
pub fn interval(event: &gst::EventRef) -> Option<u64> {
    let gst::EventView::CustomUpstream(custom) = event.view() else { return None };
    let structure = custom.structure().filter(|structure| structure.name() == NAME)?;
    structure.get(INTERVAL).ok()
}
