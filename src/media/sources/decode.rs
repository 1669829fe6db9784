//! From anything to raw video: the first video stream, whatever its codec; sound is left out.

use gst::prelude::*;

use crate::media::element::{make, queue};

/// Frames that wait between decoder and animation.
const QUEUE_FRAMES: u32 = 2;

/// A bin of linked `elements`, decoded; empty: of what `into` links to the decoder itself.
pub fn decoded(elements: &[gst::Element]) -> anyhow::Result<gst::Bin> {
    let (bin, decoder) = decoder()?;
    bin.add_many(elements)?;
    gst::Element::link_many(elements.iter().chain([&decoder]))?;
    Ok(bin)
}

/// A bin with a decoder in it that nothing is linked to yet.
pub fn decoder() -> anyhow::Result<(gst::Bin, gst::Element)> {
    let bin = gst::Bin::new();
    let decoder = make("decodebin")?;
    // Streams that do not end in raw video are not decoded.
    decoder.set_property("caps", gst::Caps::builder("video/x-raw").any_features().build());
    decoder.set_property("expose-all-streams", false);
    let exit = queue(QUEUE_FRAMES)?;
    bin.add_many([&decoder, &exit])?;
    show(&bin, &exit)?;
    lead(&decoder, &exit);
    Ok((bin, decoder))
}

/// Shows the source pad of `last` as the bin's.
pub fn show(bin: &gst::Bin, last: &gst::Element) -> anyhow::Result<()> {
    let pad = last.static_pad("src").ok_or_else(|| anyhow::anyhow!("{} has no source pad", last.name()))?;
    bin.add_pad(&gst::GhostPad::with_target(&pad)?)?;
    Ok(())
}

/// Leads the decoder's first video stream into `exit`; after a change of streams, the new one's first.
fn lead(decoder: &gst::Element, exit: &gst::Element) {
    let exit = exit.downgrade();
    decoder.connect_pad_added(move |_, pad| {
        let Some(sink) = exit.upgrade().and_then(|exit| exit.static_pad("sink")) else { return };
        if sink.is_linked() {
            return;
        }
        if let Err(error) = pad.link(&sink) {
            tracing::error!("decoded video does not fit: {error}");
        }
    });
}
