//! Pads: what comes in is placed in time, queries are answered.
use gst::{prelude::*, subclass::prelude::*};
use keyframed_engine::{Nanos, Timed};

use super::{
    caps::{self, OutCaps},
    imp::{CAT, FilmInterpolate},
    state::{Key, Mode},
};
use crate::{
    filter::Filter,
    params,
    video::{frame_time, read_frame},
};

/// Properties that the event `keyframed-params` sets.
const PARAMS: [&str; 2] = ["latency", "max-quality"];

impl Filter for FilmInterpolate {
    fn sink_chain(&self, pad: &gst::Pad, buffer: gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
        gst::trace!(CAT, obj = pad, "Incoming {buffer:?}");
        let Some((time, end, info)) = self.place(&buffer)? else {
            return Ok(gst::FlowSuccess::Ok);
        };
        let frame = read_frame(&buffer, &info).map_err(|err| {
            gst::element_imp_error!(self, gst::StreamError::Decode, ("Cannot read a key frame: {err}"));
            gst::FlowError::Error
        })?;
        let out = self.out_caps()?;
        let live = self.is_live();
        let key = Key { frame, out };
        self.take_key(time, end, key, live)?;
        if live { self.start_task().map(|()| gst::FlowSuccess::Ok) } else { self.drain_offline() }
    }

    fn sink_event(&self, pad: &gst::Pad, event: gst::Event) -> bool {
        gst::log!(CAT, obj = pad, "Incoming {event:?}");
        match event.view() {
            gst::EventView::FlushStart(_) => self.flush_start(event),
            gst::EventView::FlushStop(_) => {
                let pushed = self.srcpad.push_event(event);
                if let Some(state) = self.state().as_mut() {
                    state.flush();
                }
                pushed
            }
            gst::EventView::Caps(caps) => self.set_caps(caps.caps()),
            gst::EventView::Segment(segment) => {
                let Some(segment) = segment.segment().downcast_ref::<gst::ClockTime>() else {
                    gst::error!(CAT, obj = pad, "Only TIME segments are understood");
                    return false;
                };
                if let Some(state) = self.state().as_mut() {
                    state.segment = Some(segment.clone());
                }
                true
            }
            gst::EventView::Gap(gap) => {
                let (pts, duration) = gap.get();
                self.hold(pts, duration.unwrap_or_default());
                true
            }
            gst::EventView::CustomDownstream(_) => {
                params::take(&*self.obj(), &event, &PARAMS, |values| self.set(values));
                self.queue_event(event)
            }
            gst::EventView::Eos(_) => self.end(event),
            _ if event.is_serialized() => self.queue_event(event),
            _ => gst::Pad::event_default(pad, Some(&*self.obj()), event),
        }
    }

    fn sink_query(&self, pad: &gst::Pad, query: &mut gst::QueryRef) -> bool {
        match query.view_mut() {
            gst::QueryViewMut::Caps(q) => {
                let caps = caps::across(&self.srcpad, true, q.filter());
                q.set_result(&caps);
                true
            }
            _ => gst::Pad::query_default(pad, Some(&*self.obj()), query),
        }
    }

    fn src_query(&self, pad: &gst::Pad, query: &mut gst::QueryRef) -> bool {
        if let gst::QueryViewMut::Caps(q) = query.view_mut() {
            let caps = caps::across(&self.sinkpad, false, q.filter());
            q.set_result(&caps);
            return true;
        }
        if !gst::Pad::query_default(pad, Some(&*self.obj()), query) {
            return false;
        }
        if let gst::QueryViewMut::Latency(q) = query.view_mut() {
            let (live, min, max) = q.result();
            if live {
                let (own, _) = self.asked();
                q.set(live, min + own, max.map(|max| max + own));
                if let Some(state) = self.state().as_mut() {
                    state.upstream_latency = min.nseconds();
                }
            }
        }
        true
    }

    fn src_activate(&self, pad: &gst::Pad, active: bool) -> Result<(), gst::LoggableError> {
        if active {
            if let Some(state) = self.state().as_mut() {
                state.flow = Ok(());
            }
        } else {
            self.interrupt();
            pad.stop_task().map_err(|err| gst::loggable_error!(CAT, "Cannot stop the output: {err}"))?;
            self.stop_worker();
        }
        Ok(())
    }
}

impl FilmInterpolate {
    /// When a key frame is shown and until when, and what it is; `None` if it lies outside the segment.
    fn place(
        &self,
        buffer: &gst::Buffer,
    ) -> Result<Option<(Nanos, Nanos, gst_video::VideoInfo)>, gst::FlowError> {
        let guard = self.state();
        let state = guard.as_ref().ok_or(gst::FlowError::Flushing)?;
        state.flow?;
        let info = state.in_info.clone().ok_or(gst::FlowError::NotNegotiated)?;
        let Some(pts) = buffer.pts() else {
            drop(guard);
            gst::element_imp_error!(self, gst::StreamError::Format, ("Key frames need timestamps"));
            return Err(gst::FlowError::Error);
        };
        let duration = buffer.duration().or_else(|| frame_time(1, info.fps())).unwrap_or_default();
        Ok(state.running_time(pts).map(|time| (time, time + duration.nseconds(), info)))
    }

    /// What the key frame is sent as; negotiates if something has changed on either side.
    fn out_caps(&self) -> Result<std::sync::Arc<OutCaps>, gst::FlowError> {
        let known = self.state().as_ref().and_then(|state| state.out.clone());
        if let Some(out) = known.filter(|_| !self.srcpad.check_reconfigure()) {
            return Ok(out);
        }
        match caps::negotiate(&self.sinkpad, &self.srcpad) {
            Ok(out) => {
                gst::debug!(CAT, imp = self, "Output is {}", out.caps);
                if let Some(state) = self.state().as_mut() {
                    state.out = Some(out.clone());
                }
                Ok(out)
            }
            Err(err) => {
                self.srcpad.mark_reconfigure();
                if self.srcpad.pad_flags().contains(gst::PadFlags::FLUSHING) {
                    return Err(gst::FlowError::Flushing);
                }
                gst::error!(CAT, imp = self, "Cannot negotiate: {err}");
                Err(gst::FlowError::NotNegotiated)
            }
        }
    }

    /// Whether the stream is live; upstream is asked once a stream.
    fn is_live(&self) -> bool {
        match self.state().as_ref().map(|state| &state.mode) {
            Some(Mode::Live(_)) => return true,
            Some(Mode::Offline(_)) => return false,
            _ => {}
        }
        let mut query = gst::query::Latency::new();
        let (live, min) = match self.sinkpad.peer_query(&mut query) {
            true => (query.result().0, query.result().1),
            false => (false, gst::ClockTime::ZERO),
        };
        if let Some(state) = self.state().as_mut() {
            state.upstream_latency = if live { min.nseconds() } else { 0 };
        }
        gst::debug!(CAT, imp = self, "Upstream is {}, latency {min}", if live { "live" } else { "not live" });
        live
    }

    fn take_key(&self, time: Nanos, end: Nanos, key: Key, live: bool) -> Result<(), gst::FlowError> {
        let (latency, best) = self.asked();
        let mut guard = self.state();
        let state = guard.as_mut().ok_or(gst::FlowError::Flushing)?;
        state.flow?;
        state.buffers.0 += 1;
        let taken = if live {
            let now = self.running_time(state);
            let best = state.best(best);
            let live = state.live_for(&key, best, latency);
            let taken = live.and_then(|live| {
                if let Some(now) = now {
                    live.pacer.first(time, now);
                }
                live.pacer.key(Timed::new(time, key))
            });
            // Timestamps may have jumped: the end is that of the last key frame which is shown.
            taken.map(|_| state.end = end)
        } else {
            state.end = state.end.max(end);
            state.offline_for(&key).and_then(|offline| offline.key(time, key))
        };
        let change = state.rung_change();
        drop(guard);
        self.changed.notify_all();
        self.tell_rung(change);
        if let Err(err) = taken {
            // Nothing can be shown at a time that is past or taken.
            gst::warning!(
                CAT,
                imp = self,
                "Key frame at {} not used: {err}",
                gst::ClockTime::from_nseconds(time)
            );
        }
        Ok(())
    }

    fn flush_start(&self, event: gst::Event) -> bool {
        let pushed = self.srcpad.push_event(event);
        self.interrupt();
        // Waits until the picture being made is done with.
        let _ = self.srcpad.stop_task();
        pushed
    }

    /// Makes everything that waits give up.
    fn interrupt(&self) {
        if let Some(state) = self.state().as_mut() {
            state.flow = Err(gst::FlowError::Flushing);
            state.wake();
        }
        self.changed.notify_all();
    }

    fn set_caps(&self, caps: &gst::CapsRef) -> bool {
        let Ok(info) = gst_video::VideoInfo::from_caps(caps) else {
            gst::error!(CAT, imp = self, "Cannot read the caps {caps:?}");
            return false;
        };
        if let Some(state) = self.state().as_mut() {
            (state.in_info, state.out) = (Some(info), None);
        }
        true
    }

    /// A GAP: the last key frame is valid up to `position`.
    fn hold(&self, position: gst::ClockTime, duration: gst::ClockTime) {
        let mut guard = self.state();
        let Some(state) = guard.as_mut() else { return };
        let Some(time) = state.running_time(position) else { return };
        let end = time + duration.nseconds();
        match &mut state.mode {
            Mode::Undecided => state.end = state.end.max(end),
            Mode::Offline(offline) => {
                state.end = state.end.max(end);
                if let Err(err) = offline.timeline.hold(time) {
                    gst::warning!(CAT, imp = self, "GAP at {position} not used: {err}");
                }
            }
            Mode::Live(live) => {
                state.end = end;
                live.pacer.hold(time);
            }
        }
    }

    /// Keeps a serialized event until the next picture.
    fn queue_event(&self, event: gst::Event) -> bool {
        let first = event.type_() == gst::EventType::StreamStart;
        let ended =
            first && self.state().as_ref().is_some_and(|state| state.flow == Err(gst::FlowError::Eos));
        if ended {
            let _ = self.srcpad.stop_task();
        }
        let mut guard = self.state();
        let Some(state) = guard.as_mut() else { return false };
        if ended {
            // A new stream after the end of the last one.
            state.retire();
            state.flow = Ok(());
        }
        if first {
            state.events.retain(|event| event.type_() != gst::EventType::StreamStart);
            state.events.insert(0, event);
        } else {
            params::queue(&mut state.events, event, |_| true);
        }
        true
    }

    /// The end of the stream; live pictures are still to come before it goes out.
    fn end(&self, event: gst::Event) -> bool {
        let mut guard = self.state();
        let Some(state) = guard.as_mut() else { return false };
        let end = state.end;
        match &mut state.mode {
            Mode::Undecided => {
                drop(guard);
                self.push_eos(event)
            }
            Mode::Offline(_) => {
                drop(guard);
                if let Err(err) = self.finish_offline() {
                    gst::debug!(CAT, imp = self, "The last pictures were not taken: {err}");
                }
                if let Some(state) = self.state().as_mut() {
                    state.retire();
                }
                self.push_eos(event)
            }
            Mode::Live(live) => {
                if state.flow.is_err() {
                    return false;
                }
                live.pacer.finish(end);
                state.eos = Some(event);
                state.wake();
                drop(guard);
                self.changed.notify_all();
                true
            }
        }
    }
}
