//! What waits in front of a thread: at most one piece of work, and the events around it.
use std::time::{Duration, Instant};

use keyframed_engine::{Frame, Mailbox, SendError, Unfinished};

use crate::params;

/// A key pose to be animated.
#[derive(Debug)]
pub struct Pose {
    pub frame: Frame,
    /// For its timestamps and metadata; the pixels are replaced.
    pub buffer: gst::Buffer,
    /// Running time, nanoseconds.
    pub time: u64,
    /// When it came.
    pub since: Instant,
}

/// A key pose that the networks have taken.
#[derive(Debug)]
pub struct Taken {
    /// That of the key pose.
    pub buffer: gst::Buffer,
    /// When the key pose came.
    pub since: Instant,
    /// Whether a new reference was prepared first: this key frame and those that waited meanwhile say nothing about
    /// the usual latency.
    pub disturbs: bool,
    /// By which settings it is made; see [`Worker`](super::state::Worker).
    pub costs: u64,
}

/// A key frame whose first half is made.
#[derive(Debug)]
pub struct Begun {
    /// The second half, or why the first failed.
    pub half: Result<Unfinished, String>,
    /// Of its key pose.
    pub pose: Taken,
    /// Time that the first half took; where several are made at once, since the one before came out.
    pub took: Duration,
}

/// The unit that a thread takes. In time order: `before`, `work`, `after`.
#[derive(Debug)]
pub struct Job<W> {
    /// Flushes before it: work of before the last flush is dropped.
    pub epoch: u64,
    pub before: Vec<gst::Event>,
    pub work: Option<W>,
    pub after: Vec<gst::Event>,
}

impl<W> Job<W> {
    fn new(epoch: u64) -> Self {
        Self { epoch, before: vec![], work: None, after: vec![] }
    }

    /// An event alone.
    pub fn event(epoch: u64, event: gst::Event) -> Self {
        Self { before: vec![event], ..Self::new(epoch) }
    }

    /// Work alone.
    pub fn work(epoch: u64, work: W) -> Self {
        Self { work: Some(work), ..Self::new(epoch) }
    }

    /// Nothing joins what is of before a flush: it is dropped.
    fn renew(&mut self, epoch: u64) {
        if self.epoch != epoch {
            *self = Self::new(epoch);
        }
    }

    /// Adds an event at the end; `joins`: see [`params::queue`].
    pub fn push(&mut self, epoch: u64, event: gst::Event, joins: impl Fn(&gst::EventRef) -> bool) {
        self.renew(epoch);
        let waiting = if self.work.is_some() { &mut self.after } else { &mut self.before };
        params::queue(waiting, event, joins);
    }

    /// Lets newer work take this one's place; returns whether there was one. Events stay, but for GAPs that held the
    /// key frame which is not made now.
    pub fn replace(&mut self, epoch: u64, work: W, joins: impl Fn(&gst::EventRef) -> bool) -> bool {
        let replaced = self.work.is_some();
        self.renew(epoch);
        self.work = Some(work);
        for event in std::mem::take(&mut self.after) {
            if event.type_() != gst::EventType::Gap {
                params::queue(&mut self.before, event, &joins);
            }
        }
        replaced
    }

    /// Sends an event, or adds it to the job that waits. Never blocks: only one thread sends, so a slot found empty
    /// stays empty until then.
    pub fn offer_event(
        slot: &Mailbox<Self>,
        epoch: u64,
        event: gst::Event,
        joins: impl Fn(&gst::EventRef) -> bool,
    ) -> bool {
        let mut event = Some(event);
        slot.amend(|job| {
            if let Some(event) = event.take() {
                job.push(epoch, event, joins);
            }
        });
        event.is_none_or(|event| slot.send(Self::event(epoch, event), 0).is_ok())
    }

    /// Sends work, or adds it to the events that wait; where other work waits, blocks.
    pub fn offer(slot: &Mailbox<Self>, epoch: u64, work: W, now: u64) -> Result<(), SendError> {
        let mut work = Some(work);
        slot.amend(|job| {
            if job.work.is_none() {
                job.renew(epoch);
                job.work = work.take();
            }
        });
        work.map_or(Ok(()), |work| slot.send(Self::work(epoch, work), now).map(|_| ()))
    }
}

#[cfg(test)]
mod tests {
    use keyframed_engine::Policy;

    use super::*;

    fn pose(ms: u64) -> Pose {
        let frame = Frame::filled(1, 1, [0; 3]).unwrap();
        Pose { frame, buffer: gst::Buffer::new(), time: ms, since: Instant::now() }
    }

    #[test]
    fn newer_poses_replace_older_ones_and_their_holds() {
        gst::init().unwrap();
        let gap = |ms| gst::event::Gap::builder(gst::ClockTime::from_mseconds(ms)).build();
        let mut job = Job::event(0, gap(1));
        assert!(!job.replace(0, pose(2), |_| true), "nothing waited");
        job.push(0, gap(3), |_| true);
        job.push(0, gst::event::Tag::new(gst::TagList::new()), |_| true);
        assert!(job.replace(0, pose(4), |_| true));
        let types = |events: &[gst::Event]| events.iter().map(|e| e.type_()).collect::<Vec<_>>();
        assert_eq!(types(&job.before), [gst::EventType::Gap, gst::EventType::Tag]);
        assert!(job.after.is_empty());
        assert_eq!(job.work.unwrap().time, 4);
    }

    #[test]
    fn what_waits_since_before_a_flush_spoils_nothing_after_it() {
        gst::init().unwrap();
        let tag = || gst::event::Tag::new(gst::TagList::new());
        let slot = Mailbox::new(Policy::Block);
        Job::offer(&slot, 0, pose(1), 0).unwrap();
        assert!(Job::offer_event(&slot, 0, tag(), |_| true));
        assert!(Job::offer_event(&slot, 1, tag(), |_| true));
        Job::offer(&slot, 1, pose(2), 0).unwrap();
        assert!(Job::offer_event(&slot, 1, tag(), |_| true));
        let job = slot.recv().unwrap().item;
        assert_eq!((job.epoch, job.before.len(), job.after.len()), (1, 1, 1));
        assert_eq!(job.work.unwrap().time, 2);
    }
}
