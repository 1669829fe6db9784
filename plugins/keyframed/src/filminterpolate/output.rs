//! Sending: events in the order that GStreamer asks for, then the picture.
use std::sync::Arc;

use gst::{prelude::*, subclass::prelude::*};
use keyframed_engine::{Frame, Nanos};

use super::{
    caps::OutCaps,
    imp::{CAT, FilmInterpolate},
    rungs::Made,
    state::State,
};
use crate::video::write_frame;

/// One picture of the output grid.
pub struct Picture {
    pub pts: Nanos,
    pub duration: Nanos,
    pub frame: Frame,
    pub out: Arc<OutCaps>,
}

impl State {
    /// Events that must go out before a picture of these caps, or before end of stream if `None`.
    fn take_events(&mut self, out: Option<&Arc<OutCaps>>) -> Vec<gst::Event> {
        let mut waiting = std::mem::take(&mut self.events);
        // Downstream must see stream-start, caps and segment first; tags and the like may follow at any time.
        let later = waiting
            .split_off(waiting.iter().take_while(|e| e.type_() == gst::EventType::StreamStart).count());
        if let Some(out) = out.filter(|out| self.sent.as_ref() != Some(out)) {
            waiting.push(gst::event::Caps::new(&out.caps));
            self.sent = Some(out.clone());
        }
        if !self.segment_sent
            && let Some(input) = &self.segment
        {
            // Output timestamps are running times, so the segment starts at 0; its stream time is the input's.
            let mut segment = gst::FormattedSegment::<gst::ClockTime>::new();
            segment.set_time(input.to_stream_time(input.start()));
            waiting.push(gst::event::Segment::new(&segment));
            self.segment_sent = true;
        }
        waiting.extend(later);
        waiting
    }
}

impl FilmInterpolate {
    /// Sends a picture, and first the events that belong before it. `light` is what a light rung made for it live.
    pub(super) fn push_picture(
        &self,
        picture: Picture,
        light: Option<&Made>,
    ) -> Result<gst::FlowSuccess, gst::FlowError> {
        let mut buffer = write_frame(&picture.frame, &picture.out.info).map_err(|err| {
            gst::element_imp_error!(self, gst::ResourceError::Write, ("Cannot write a picture: {err}"));
            gst::FlowError::Error
        })?;
        let buffer_ref = buffer.make_mut();
        buffer_ref.set_pts(gst::ClockTime::from_nseconds(picture.pts));
        buffer_ref.set_duration(gst::ClockTime::from_nseconds(picture.duration));
        let (events, change, failed) = {
            let mut guard = self.state();
            let state = guard.as_mut().ok_or(gst::FlowError::Flushing)?;
            state.sent_until = picture.pts + picture.duration;
            state.buffers.1 += 1;
            let now = light.and_then(|_| self.running_time(state));
            let failed = light.filter(|made| state.note_light(made, now));
            (state.take_events(Some(&picture.out)), state.rung_change(), failed)
        };
        self.tell_rung(change);
        if let Some(Made { rung, trouble: Some(trouble), .. }) = failed {
            self.warn_failed(*rung, trouble);
        }
        for event in events {
            self.srcpad.push_event(event);
        }
        gst::trace!(CAT, imp = self, "Outgoing {buffer:?}");
        self.srcpad.push(buffer)
    }

    /// Sends end of stream, and first whatever events still wait.
    pub(super) fn push_eos(&self, eos: gst::Event) -> bool {
        let events = self.state().as_mut().map(|state| state.take_events(None)).unwrap_or_default();
        for event in events {
            self.srcpad.push_event(event);
        }
        self.srcpad.push_event(eos)
    }
}
