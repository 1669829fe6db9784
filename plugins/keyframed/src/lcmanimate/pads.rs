//! Pads: what comes in becomes jobs, queries are answered.
use std::time::Instant;

use gst::{prelude::*, subclass::prelude::*};
use keyframed_engine::{Policy, SendError};

use super::{
    Leaky,
    imp::{CAT, LcmAnimate},
    job::{Job, Pose},
    maker::PARAMS,
    state::State,
};
use crate::{
    filter::Filter,
    params,
    video::{read_frame, rgb_caps},
};

impl Filter for LcmAnimate {
    fn sink_chain(&self, pad: &gst::Pad, buffer: gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
        gst::trace!(CAT, obj = pad, "Incoming {buffer:?}");
        self.decide_mode(pad);
        let since = Instant::now();
        let (info, time, epoch, leaky) = {
            let mut guard = self.state();
            let state = guard.as_mut().ok_or(gst::FlowError::Flushing)?;
            state.flow?;
            let info = state.in_info.clone().ok_or(gst::FlowError::NotNegotiated)?;
            let Some(pts) = buffer.pts() else {
                drop(guard);
                gst::element_imp_error!(self, gst::StreamError::Format, ("Key poses need timestamps"));
                return Err(gst::FlowError::Error);
            };
            let Some(time) = state.segment.as_ref().and_then(|s| s.to_running_time(pts)) else {
                gst::debug!(CAT, obj = pad, "{pts} is outside the segment, dropped");
                return Ok(gst::FlowSuccess::Ok);
            };
            state.counts.input += 1;
            (info, time.nseconds(), state.epoch, state.leaky.unwrap_or(false))
        };
        let frame = read_frame(&buffer, &info).map_err(|err| {
            gst::element_imp_error!(self, gst::StreamError::Decode, ("Cannot read a key pose: {err}"));
            gst::FlowError::Error
        })?;
        self.offer(epoch, Pose { frame, buffer, time, since }, leaky)
    }

    fn sink_event(&self, pad: &gst::Pad, event: gst::Event) -> bool {
        gst::log!(CAT, obj = pad, "Incoming {event:?}");
        match event.view() {
            gst::EventView::FlushStart(_) => {
                let pushed = self.srcpad.push_event(event);
                self.flush_start();
                pushed
            }
            gst::EventView::FlushStop(_) => {
                self.await_push();
                let pushed = self.srcpad.push_event(event);
                self.flush_stop();
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
                self.offer_event(event)
            }
            gst::EventView::Eos(_) => {
                if let Some(state) = self.state().as_mut() {
                    state.ending = true;
                }
                self.offer_event(event)
            }
            gst::EventView::StreamStart(_) => {
                if let Some(state) = self.state().as_mut() {
                    state.ending = false;
                    if state.flow == Err(gst::FlowError::Eos) {
                        state.flow = Ok(());
                    }
                }
                self.offer_event(event)
            }
            _ if event.is_serialized() => self.offer_event(event),
            _ => gst::Pad::event_default(pad, Some(&*self.obj()), event),
        }
    }

    fn sink_query(&self, pad: &gst::Pad, query: &mut gst::QueryRef) -> bool {
        match query.view_mut() {
            gst::QueryViewMut::Caps(q) => {
                let caps = self.caps_across(&self.srcpad, rgb_caps(), q.filter());
                q.set_result(&caps);
                true
            }
            _ => gst::Pad::query_default(pad, Some(&*self.obj()), query),
        }
    }

    fn src_query(&self, pad: &gst::Pad, query: &mut gst::QueryRef) -> bool {
        if let gst::QueryViewMut::Caps(q) = query.view_mut() {
            let own = self.state().as_ref().map_or_else(rgb_caps, |state| sized_caps(state.model.size()));
            let caps = self.caps_across(&self.sinkpad, own, q.filter());
            q.set_result(&caps);
            return true;
        }
        if !gst::Pad::query_default(pad, Some(&*self.obj()), query) {
            return false;
        }
        if let gst::QueryViewMut::Latency(q) = query.view_mut() {
            let (live, min, max) = q.result();
            if live {
                let own = self.state().as_ref().map_or(0, |state| state.latency.declared);
                let own = gst::ClockTime::from_nseconds(own);
                q.set(live, min + own, max.map(|max| max + own));
            }
        }
        true
    }

    fn src_activate(&self, pad: &gst::Pad, active: bool) -> Result<(), gst::LoggableError> {
        if active {
            return self.start_task();
        }
        if let Some(state) = self.state().as_mut() {
            state.end();
        }
        // A key frame under way is finished first: networks cannot be interrupted.
        pad.stop_task().map_err(|err| gst::loggable_error!(CAT, "Cannot stop the task: {err}"))
    }
}

impl LcmAnimate {
    /// Hands a key pose to the maker.
    fn offer(&self, epoch: u64, pose: Pose, leaky: bool) -> Result<gst::FlowSuccess, gst::FlowError> {
        let mailbox = self.state().as_ref().map(|s| s.mailbox.clone()).ok_or(gst::FlowError::Flushing)?;
        let time = pose.time;
        let mut pose = Some(pose);
        if leaky {
            let mut replaced = false;
            mailbox.amend(|job| {
                replaced =
                    pose.take().is_some_and(|pose| job.replace(epoch, pose, |event| self.joins(event)));
            });
            if replaced && let Some(state) = self.state().as_mut() {
                state.counts.dropped += 1;
            }
        }
        let Some(pose) = pose else { return Ok(gst::FlowSuccess::Ok) };
        match Job::offer(&mailbox, epoch, pose, time) {
            Ok(()) => Ok(gst::FlowSuccess::Ok),
            Err(SendError::Closed | SendError::Flushed) => {
                let flow = self.state().as_ref().map_or(Err(gst::FlowError::Flushing), |state| state.flow);
                Err(flow.err().unwrap_or(gst::FlowError::Flushing))
            }
        }
    }

    /// Hands a serialized event to the maker; it leaves in its place between key frames.
    fn offer_event(&self, event: gst::Event) -> bool {
        let Some((mailbox, epoch)) = self.state().as_ref().map(|s| (s.mailbox.clone(), s.epoch)) else {
            return false;
        };
        Job::offer_event(&mailbox, epoch, event, |event| self.joins(event))
    }

    /// Whether `keyframed-params` may become one with others: bad values are told where they stand, and spoil no
    /// others.
    pub(super) fn joins(&self, event: &gst::EventRef) -> bool {
        params::is_valid(&*self.obj(), event, &PARAMS)
    }

    /// Live or not, leaky or not: asked once a stream.
    fn decide_mode(&self, pad: &gst::Pad) {
        if self.state().as_ref().is_none_or(|state| state.leaky.is_some()) {
            return;
        }
        let mut query = gst::query::Latency::new();
        let live = pad.peer_query(&mut query) && query.result().0;
        let leaky = match self.settings().leaky {
            Leaky::Auto => live,
            Leaky::True => true,
            Leaky::False => false,
        };
        gst::debug!(CAT, obj = pad, "Upstream live: {live}, leaky: {leaky}");
        if let Some(state) = self.state().as_mut() {
            (state.live, state.leaky) = (live, Some(leaky));
            state.mailbox.set_policy(if leaky { Policy::Replace } else { Policy::Block });
        }
    }

    fn flush_start(&self) {
        if let Some(state) = self.state().as_mut() {
            state.flush();
        }
    }

    fn flush_stop(&self) {
        let caps = {
            let mut guard = self.state();
            let Some(state) = guard.as_mut() else { return };
            state.flow = Ok(());
            (state.ending, state.segment) = (false, None);
            state.out_caps()
        };
        // Stream-start and caps outlive a flush, but their events may have waited in the slot.
        let start = self.sinkpad.sticky_event::<gst::event::StreamStart>(0);
        if let Some(start) =
            start.filter(|_| self.srcpad.sticky_event::<gst::event::StreamStart>(0).is_none())
        {
            self.offer_event(start.into());
        }
        if let Some(caps) = caps {
            self.offer_event(gst::event::Caps::new(&caps));
        }
    }

    fn set_caps(&self, caps: &gst::CapsRef) -> bool {
        let Ok(info) = gst_video::VideoInfo::from_caps(caps) else {
            gst::error!(CAT, imp = self, "Cannot read the caps {caps:?}");
            return false;
        };
        let caps = {
            let mut guard = self.state();
            let Some(state) = guard.as_mut() else { return false };
            state.in_info = Some(info);
            state.out_caps()
        };
        caps.is_some_and(|caps| self.offer_event(gst::event::Caps::new(&caps)))
    }

    /// What one pad can do, given what the peer of the other can. Sizes have nothing to do with each other.
    fn caps_across(&self, peer: &gst::Pad, own: gst::Caps, filter: Option<&gst::CapsRef>) -> gst::Caps {
        let mut other = peer.peer_query_caps(None);
        for structure in other.make_mut().iter_mut() {
            structure.remove_fields(["width", "height", "pixel-aspect-ratio"]);
        }
        let caps = other.intersect_with_mode(&own, gst::CapsIntersectMode::First);
        match filter {
            Some(filter) => filter.intersect_with_mode(&caps, gst::CapsIntersectMode::First),
            None => caps,
        }
    }
}

impl State {
    /// Caps of the key frames: the model's size, the input's nominal rate.
    fn out_caps(&self) -> Option<gst::Caps> {
        let rate = self.in_info.as_ref()?.fps();
        let mut caps = sized_caps(self.model.size());
        caps.make_mut().structure_mut(0)?.set("framerate", rate);
        Some(caps)
    }
}

/// Square pixels of the model's size, any rate.
fn sized_caps((width, height): (u32, u32)) -> gst::Caps {
    let side = |n: u32| i32::try_from(n).unwrap_or(i32::MAX);
    gst_video::VideoCapsBuilder::new()
        .format(gst_video::VideoFormat::Rgb)
        .width(side(width))
        .height(side(height))
        .pixel_aspect_ratio(gst::Fraction::new(1, 1))
        .build()
}
