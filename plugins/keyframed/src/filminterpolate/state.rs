//! What `filminterpolate` remembers while it runs.
use std::{collections::VecDeque, sync::Arc};

use gst::glib;
use keyframed_engine::{Counters, Frame, Nanos, Pacer, Timeline};

use crate::models::EMBEDDED;

use super::{Quality, caps::OutCaps, rungs::RungStats};

/// Properties.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    pub model: String,
    pub device: String,
    pub latency: gst::ClockTime,
    pub max_quality: Quality,
}

impl Default for Settings {
    /// Half a second covers the default window of `keyposeselect` at 25 frames a second.
    fn default() -> Self {
        let latency = gst::ClockTime::from_mseconds(500);
        Self { model: EMBEDDED.into(), device: "auto".into(), latency, max_quality: Quality::default() }
    }
}

impl Settings {
    /// Takes a property's value.
    pub fn set(
        &mut self,
        name: &str,
        value: &glib::Value,
    ) -> Result<(), glib::value::ValueTypeMismatchError> {
        let text = |default: &str| -> Result<String, glib::value::ValueTypeMismatchError> {
            Ok(value.get::<Option<String>>()?.unwrap_or_else(|| default.into()))
        };
        match name {
            "model" => self.model = text(EMBEDDED)?,
            "device" => self.device = text("auto")?,
            "latency" => self.latency = gst::ClockTime::from_nseconds(value.get()?),
            "max-quality" => self.max_quality = value.get()?,
            _ => {}
        }
        Ok(())
    }
}

/// A key frame and how it, and what is made from it, is sent.
#[derive(Debug, Clone)]
pub struct Key {
    pub frame: Frame,
    pub out: Arc<OutCaps>,
}

/// Offline: the list of ticks, and the key frames they still need.
pub struct Offline {
    pub timeline: Timeline,
    /// Key frames by the number `Timeline` gave them: at most two.
    pub keys: VecDeque<(u64, Key)>,
    /// Running time of the last one.
    pub last: Nanos,
}

/// Live: when to send what.
pub struct Live {
    pub pacer: Pacer<Key>,
    /// The last key frame and its running time: a new pacer starts with it.
    pub last: Option<(Nanos, Key)>,
}

/// How the stream is driven; known with the first key frame.
pub enum Mode {
    Undecided,
    Offline(Offline),
    Live(Box<Live>),
}

/// Exists from READY to PAUSED to READY.
pub struct State {
    pub mode: Mode,
    /// What the sink pad carries.
    pub in_info: Option<gst_video::VideoInfo>,
    /// Of the sink pad, in TIME format.
    pub segment: Option<gst::FormattedSegment<gst::ClockTime>>,
    /// What the next key frames are sent as; `None` makes the next one negotiate.
    pub out: Option<Arc<OutCaps>>,
    /// Caps that downstream has last got.
    pub sent: Option<Arc<OutCaps>>,
    /// Whether downstream has got a segment.
    pub segment_sent: bool,
    /// Serialized events that wait for the next picture, stream-start first.
    pub events: Vec<gst::Event>,
    /// The end-of-stream event, while live pictures are still to come.
    pub eos: Option<gst::Event>,
    /// Running time at which the input so far ends.
    pub end: Nanos,
    /// Running time at which the output so far ends.
    pub sent_until: Nanos,
    /// What pushing last gave in live mode; chain returns it. Flushing between flush-start and -stop.
    pub flow: Result<(), gst::FlowError>,
    /// What the source task waits for on the clock.
    pub clock_id: Option<gst::SingleShotClockId>,
    /// Whether the element is in PLAYING: only then has running time a meaning.
    pub playing: bool,
    /// Minimum latency that upstream last answered; 0 if not live.
    pub upstream_latency: Nanos,
    /// Counters of pacers and timelines that were replaced.
    pub past: Counters,
    /// In-betweens by rung.
    pub rungs: RungStats,
    /// Buffers received, buffers sent.
    pub buffers: (u64, u64),
    /// Whether trouble with in-betweens has been reported.
    pub warned: bool,
}

impl State {
    pub fn new(playing: bool) -> Self {
        Self {
            mode: Mode::Undecided,
            in_info: None,
            segment: None,
            out: None,
            sent: None,
            segment_sent: false,
            events: Vec::new(),
            eos: None,
            end: 0,
            sent_until: 0,
            flow: Ok(()),
            clock_id: None,
            playing,
            upstream_latency: 0,
            past: Counters::default(),
            rungs: RungStats::default(),
            buffers: (0, 0),
            warned: false,
        }
    }

    /// Forgets the stream, as after a flush.
    pub fn flush(&mut self) {
        self.retire();
        (self.segment, self.eos) = (None, None);
        self.segment_sent = false;
        self.events.retain(|event| event.type_() == gst::EventType::StreamStart);
        (self.end, self.sent_until) = (0, 0);
        self.flow = Ok(());
    }

    /// Ends the present timeline or pacer, keeping its counters.
    pub fn retire(&mut self) {
        self.past = self.counters();
        self.mode = Mode::Undecided;
    }

    /// Counters since the start.
    pub fn counters(&self) -> Counters {
        let mut counters = self.past;
        match &self.mode {
            Mode::Undecided => {}
            Mode::Offline(offline) => counters.merge(&offline.timeline.counters()),
            Mode::Live(live) => counters.merge(&live.pacer.counters()),
        }
        counters
    }

    /// Running time in nanoseconds of a stream position; `None` outside the segment.
    pub fn running_time(&self, position: gst::ClockTime) -> Option<Nanos> {
        self.segment.as_ref()?.to_running_time(position).map(gst::ClockTime::nseconds)
    }

    /// Makes the source task look again.
    pub fn wake(&mut self) {
        if let Some(id) = self.clock_id.take() {
            id.unschedule();
        }
    }
}
