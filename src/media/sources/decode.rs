//! From anything to raw video: the first video stream, whatever its codec; sound is left out.

use std::sync::atomic::{AtomicBool, Ordering};

use gst::prelude::*;

use crate::media::element::{make, queue};

/// Frames that wait between decoder and animation.
const QUEUE_FRAMES: u32 = 2;
/// Most pixels a side of a stream's pictures, as of reference pictures.
const LARGEST: i32 = 4096;

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
    limit(&decoder, &bin);
    let exit = queue(QUEUE_FRAMES)?;
    bin.add_many([&decoder, &exit])?;
    show(&bin, &exit)?;
    lead(&decoder, &exit);
    Ok((bin, decoder))
}

/// Keeps pictures that are too large away from decoders, which would take gigabytes for them, as far as the stream says
/// its size before it is decoded.
fn limit(decoder: &gst::Element, bin: &gst::Bin) {
    // Errors are the bin's: while a decoder is tried out, its own are not passed on.
    let (Some(parts), bin) = (decoder.downcast_ref::<gst::Bin>(), bin.downgrade()) else { return };
    parts.connect_deep_element_added(move |_, _, element| {
        let decodes = |factory: gst::ElementFactory| factory.has_type(gst::ElementFactoryType::DECODER);
        let sink = element.static_pad("sink").filter(|_| element.factory().is_some_and(decodes));
        let Some(sink) = sink else { return };
        let (bin, refused) = (bin.clone(), AtomicBool::new(false));
        let types = gst::PadProbeType::EVENT_DOWNSTREAM | gst::PadProbeType::BUFFER;
        sink.add_probe(types, move |_, info| {
            if let Some((width, height)) = info.event().and_then(|event| size(event)).filter(too_large)
                && !refused.swap(true, Ordering::Relaxed)
                && let Some(bin) = bin.upgrade()
            {
                let text = format!("pictures of {width}x{height}: {LARGEST} pixels a side are the most");
                gst::element_error!(bin, gst::StreamError::Decode, ("{}", text));
            }
            // Of caps alone nothing is allocated.
            if info.buffer().is_none() || !refused.load(Ordering::Relaxed) {
                return gst::PadProbeReturn::Ok;
            }
            (info.data, info.flow_res) = (None, Err(gst::FlowError::Error));
            gst::PadProbeReturn::Handled
        });
    });
}

/// What caps say of the pictures' size.
fn size(event: &gst::EventRef) -> Option<(i32, i32)> {
    let gst::EventView::Caps(caps) = event.view() else { return None };
    let structure = caps.caps().structure(0)?;
    Some((structure.get("width").ok()?, structure.get("height").ok()?))
}

fn too_large(&(width, height): &(i32, i32)) -> bool {
    width.max(height) > LARGEST
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
