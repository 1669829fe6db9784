//! What `filminterpolate` remembers while it runs.
use std::{collections::VecDeque, sync::Arc};

use gst::glib;
use keyframed_engine::{
    Ahead, Costs, Counters, Frame, Nanos, PaceConfig, Pacer, Reason, Rung, Timeline, ahead::AheadCounts,
};

use crate::models::EMBEDDED;

use super::{
    Quality,
    caps::OutCaps,
    rungs::{Made, RungStats},
};

/// The last rung told, the one in force and why, if they differ.
pub type RungChange = Option<(Rung, Rung, Reason)>;

/// Properties.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    pub model: String,
    pub device: String,
    pub latency: gst::ClockTime,
    pub max_quality: Quality,
}

impl Default for Settings {
    /// The default window of `keyposeselect` at 25 frames a second, and two ticks for making pictures.
    fn default() -> Self {
        let latency = gst::ClockTime::from_mseconds(280);
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

impl Key {
    /// Whether in-betweens of the two can be made.
    pub fn fits(&self, next: &Self) -> bool {
        let size = |key: &Self| (key.out.info.width(), key.out.info.height());
        size(self) == size(next)
    }
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
    /// FILM's pictures that wait for their ticks.
    pub ahead: Ahead<Frame>,
    /// Tells streams apart: what FILM makes for one is of no use in the next.
    pub stream: u64,
}

/// How the stream is driven; known with the first key frame.
pub enum Mode {
    Undecided,
    Offline(Box<Offline>),
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
    /// Counters of what was made ahead for them.
    pub past_ahead: AheadCounts,
    /// What FILM took in the last of these streams.
    pub costs: Costs,
    /// Number of the stream.
    pub stream: u64,
    /// Live: whether FILM can be used, once that is known.
    pub film: Option<bool>,
    /// The rung that was told last.
    pub rung: Option<Rung>,
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
            past_ahead: AheadCounts::default(),
            costs: Costs::default(),
            stream: 0,
            film: None,
            rung: None,
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
        self.past_ahead = self.ahead_counts();
        self.costs = self.costs();
        self.stream += 1;
        self.mode = Mode::Undecided;
    }

    /// What was made ahead since the start.
    pub fn ahead_counts(&self) -> AheadCounts {
        let mut counts = self.past_ahead;
        if let Mode::Live(live) = &self.mode {
            counts.merge(&live.ahead.counts());
        }
        counts
    }

    /// What FILM is expected to take.
    pub fn costs(&self) -> Costs {
        match &self.mode {
            Mode::Live(live) => live.ahead.costs(),
            _ => self.costs,
        }
    }

    /// The best rung live, where the user allows `wanted`: FILM only once it is there.
    pub fn best(&self, wanted: Rung) -> Rung {
        if self.film == Some(true) { wanted } else { wanted.max(Rung::Warp) }
    }

    /// Lets the pacer know of another best rung.
    pub fn set_best(&mut self, wanted: Rung) {
        let best = self.best(wanted);
        if let Mode::Live(live) = &mut self.mode {
            live.pacer.set_best(best);
        }
    }

    /// Lets the pacer know of the latency in force: that of upstream and `own`. One tick less than promised: that is
    /// the time for making a picture that is not there.
    pub fn tune(&mut self, own: gst::ClockTime) {
        let promised = self.upstream_latency.saturating_add(own.nseconds());
        if let Mode::Live(live) = &mut self.mode {
            let rate = live.pacer.config().rate;
            let waiting = PaceConfig::most_waiting(rate, promised);
            live.pacer.set_latency(promised.saturating_sub(rate.period()), waiting);
        }
    }

    /// Notes an in-between that was made on a light rung; the ladder learns what it cost. Says whether its trouble, if
    /// it had any, is the first.
    pub fn note_light(&mut self, made: &Made, now: Option<Nanos>) -> bool {
        self.rungs.count(made);
        if let Some(now) = now
            && let Mode::Live(live) = &mut self.mode
        {
            let cost = u64::try_from(made.cost.as_nanos()).unwrap_or(u64::MAX);
            live.pacer.observe_cost(now, made.rung, cost);
        }
        made.trouble.is_some() && !std::mem::replace(&mut self.warned, true)
    }

    /// What is to be told of the rung since this was asked last.
    pub fn rung_change(&mut self) -> RungChange {
        let Mode::Live(live) = &self.mode else { return None };
        let ladder = live.pacer.ladder();
        let (to, reason) = (ladder.rung(), ladder.reason());
        let from = self.rung.replace(to)?;
        (from != to).then_some((from, to, reason))
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
