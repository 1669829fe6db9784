//! `avataranimate` live on a test clock: what an application sees when latency, caps or the stream change.
mod common;
#[path = "../../../models/tests/tiny/mod.rs"]
mod tiny;

use std::fs;

use common::{flat, init, messages, rgb};
use gst::prelude::*;
use gst_check::Harness;
use tempfile::TempDir;
use tiny::Tiny;

const MS: gst::ClockTime = gst::ClockTime::from_mseconds(1);

struct Live {
    /// Kept until the end.
    _models: TempDir,
    bin: gst::Element,
    bus: gst::Bus,
    h: Harness,
    /// Poses so far.
    poses: u64,
}

impl Live {
    /// Every pose is a key pose; 50 pictures a second come out, 600 ms after what is upstream of the interpolator.
    fn new() -> Self {
        init();
        let models = tempfile::tempdir().unwrap();
        let mini = models.path().join("mini");
        fs::create_dir_all(mini.join("avatars")).unwrap();
        Tiny::new(&mini);
        let shade = |x, y| image::Rgb([200, (x * 9 % 200) as u8, (y * 5 % 200) as u8]);
        image::RgbImage::from_fn(24, 24, shade).save(mini.join("avatars/anna.png")).unwrap();
        let bin = gst::ElementFactory::make("avataranimate")
            .property("model", mini.to_str().unwrap())
            .property("device", "cpu")
            .property("lambda", 0.)
            // However long the key frame before took.
            .property("window", 1u32)
            .property_from_str("max-quality", "crossfade")
            .property("latency", 600_000_000u64)
            .build()
            .unwrap();
        let bus = gst::Bus::new();
        bin.set_bus(Some(&bus));
        let mut h = Harness::with_element(&bin, Some("sink"), Some("src"));
        h.set_live(true);
        h.set_time(gst::ClockTime::ZERO).unwrap();
        h.set_src_caps_str(&rgb(64, 32, "25/1"));
        h.set_sink_caps_str("video/x-raw,framerate=50/1");
        Self { _models: models, bin, bus, h, poses: 0 }
    }

    /// A pose, and its key frame: else a newer pose would replace one that waits, as it should.
    fn pose(&mut self, size: (usize, usize), ms: u64, duration: u64) {
        let grey = [(self.poses * 13 % 200) as u8; 3];
        self.h.push(flat(size.0, size.1, grey, ms, duration)).unwrap();
        self.poses += 1;
        for _ in 0..6000 {
            if self.stat("interpolate", "in") >= self.poses {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        panic!("no key frame within a minute");
    }

    fn stat(&self, child: &str, field: &str) -> u64 {
        let stats = self.bin.property::<gst::Structure>("stats");
        stats.get::<gst::Structure>(child).unwrap().get::<u64>(field).unwrap()
    }

    /// The next picture, and the time at which it came.
    fn next(&mut self) -> (u64, gst::Buffer) {
        for _ in 0..10 {
            self.h.crank_single_clock_wait().unwrap();
            let clock = self.h.testclock().unwrap();
            let now = clock.time().mseconds();
            // Whatever it did, it waits again.
            clock.wait_for_next_pending_id();
            if let Some(buffer) = self.h.try_pull() {
                return (now, buffer);
            }
        }
        panic!("ten turns without a picture");
    }

    /// The next pictures lie on the grid of 20 ms, from tick `from` on, each as late as it should be.
    #[track_caller]
    fn check_ticks(&mut self, from: u64, count: u64, latency: u64) {
        for n in from..from + count {
            let (now, buffer) = self.next();
            assert_eq!(buffer.pts(), Some(20 * n * MS));
            assert_eq!(buffer.duration(), Some(20 * MS));
            assert_eq!(buffer.size(), 32 * 16 * 3, "the model's size, whatever comes in");
            // One tick early, to have time for making it.
            assert_eq!(now, 20 * n + latency - 20);
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.bin.set_bus(None);
    }
}

#[test]
fn the_latency_answered_is_the_sum_and_is_kept() {
    let mut live = Live::new();
    live.pose((64, 32), 0, 40);
    messages(&live.bus, gst::MessageType::Latency);
    assert_eq!(live.h.query_latency(), Some(640 * MS), "a frame, and what was asked for");
    for n in 1..5 {
        live.pose((64, 32), 40 * n, 40);
    }
    // Key frames take time, which is measured, told and answered.
    assert!(!messages(&live.bus, gst::MessageType::Latency).is_empty());
    let declared = live.stat("animate", "latency");
    assert!(declared > 0);
    let latency = live.h.query_latency().unwrap();
    assert_eq!(latency, 640 * MS + gst::ClockTime::from_nseconds(declared));
    live.check_ticks(0, 20, latency.mseconds());
    live.bin.set_property("latency", 700_000_000u64);
    assert_eq!(messages(&live.bus, gst::MessageType::Latency).len(), 1);
    assert_eq!(live.h.query_latency(), Some(latency + 100 * MS));
    live.check_ticks(20, 5, latency.mseconds() + 100);
}

#[test]
fn another_size_and_rate_of_poses_in_mid_stream() {
    let mut live = Live::new();
    for n in 0..4 {
        live.pose((64, 32), 40 * n, 40);
    }
    let latency = live.h.query_latency().unwrap().mseconds();
    live.check_ticks(0, 4, latency);
    live.h.set_src_caps_str(&rgb(48, 48, "50/1"));
    for n in 0..4 {
        live.pose((48, 48), 160 + 20 * n, 20);
    }
    // Frames are shorter now, and so is what the selector keeps back; key frames may be declared anew.
    assert!(!messages(&live.bus, gst::MessageType::Latency).is_empty());
    let declared = live.stat("animate", "latency") / 1_000_000;
    let latency = live.h.query_latency().unwrap().mseconds();
    assert_eq!(latency, 620 + declared);
    // All of the time before the next tick has passed, whichever latency it was due by.
    let now = live.h.testclock().unwrap().time();
    live.h.set_time(now + 3000 * MS).unwrap();
    let (_, first) = live.next();
    let from = first.pts().unwrap().mseconds() / 20;
    assert_eq!(first.pts(), Some(20 * from * MS), "on the old grid");
    live.check_ticks(from + 1, 10, latency);
    let caps = live.h.sinkpad().unwrap().current_caps().unwrap();
    let info = gst_video::VideoInfo::from_caps(&caps).unwrap();
    assert_eq!((info.width(), info.height(), info.fps()), (32, 16, gst::Fraction::new(50, 1)));
}

#[test]
fn a_flush_starts_anew() {
    let mut live = Live::new();
    live.pose((64, 32), 0, 40);
    live.pose((64, 32), 40, 40);
    let latency = live.h.query_latency().unwrap().mseconds();
    live.check_ticks(0, 2, latency);
    assert!(live.h.push_event(gst::event::FlushStart::new()));
    assert!(live.h.push_event(gst::event::FlushStop::builder(true).build()));
    assert!(live.h.push_event(gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new())));
    live.h.set_time(9000 * MS).unwrap();
    live.pose((64, 32), 9000, 40);
    live.pose((64, 32), 9040, 40);
    let latency = live.h.query_latency().unwrap().mseconds();
    live.check_ticks(450, 10, latency);
    assert_eq!((live.stat("interpolate", "late"), live.stat("interpolate", "dropped")), (0, 0));
}
