//! What waits between the sink pad and the worker: at most one key pose, and the events around it.
use std::time::Instant;

use keyframed_engine::Frame;

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

/// The unit that the worker takes. In time order: `before`, `pose`, `after`.
#[derive(Debug, Default)]
pub struct Job {
    /// Flushes before it: a job of before the last flush is dropped.
    pub epoch: u64,
    pub before: Vec<gst::Event>,
    pub pose: Option<Pose>,
    pub after: Vec<gst::Event>,
}

impl Job {
    /// An event alone.
    pub fn event(epoch: u64, event: gst::Event) -> Self {
        Self { epoch, before: vec![event], ..Self::default() }
    }

    /// A key pose alone.
    pub fn pose(epoch: u64, pose: Pose) -> Self {
        Self { epoch, pose: Some(pose), ..Self::default() }
    }

    /// Adds an event at the end; `joins`: see [`params::queue`].
    pub fn push(&mut self, event: gst::Event, joins: impl Fn(&gst::EventRef) -> bool) {
        let waiting = if self.pose.is_some() { &mut self.after } else { &mut self.before };
        params::queue(waiting, event, joins);
    }

    /// Lets a newer key pose take this one's place; returns whether there was one. Events stay, but for GAPs
    /// that held the key frame which is not made now.
    pub fn replace(&mut self, pose: Pose, joins: impl Fn(&gst::EventRef) -> bool) -> bool {
        let replaced = self.pose.replace(pose).is_some();
        for event in std::mem::take(&mut self.after) {
            if event.type_() != gst::EventType::Gap {
                params::queue(&mut self.before, event, &joins);
            }
        }
        replaced
    }
}

#[cfg(test)]
mod tests {
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
        assert!(!job.replace(pose(2), |_| true), "nothing waited");
        job.push(gap(3), |_| true);
        job.push(gst::event::Tag::new(gst::TagList::new()), |_| true);
        assert!(job.replace(pose(4), |_| true));
        let types = |events: &[gst::Event]| events.iter().map(|e| e.type_()).collect::<Vec<_>>();
        assert_eq!(types(&job.before), [gst::EventType::Gap, gst::EventType::Tag]);
        assert!(job.after.is_empty());
        assert_eq!(job.pose.unwrap().time, 4);
    }
}
