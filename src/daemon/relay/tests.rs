use std::{sync::mpsc::sync_channel, time::Instant};

use keyframed_engine::{Grid, Rate};

use super::*;

#[test]
fn frames_leave_on_the_grid_whatever_comes() {
    gst::init().unwrap();
    let base = Base::start();
    let video = Video { width: 4, height: 2, rate: Rate::new(50, 1).unwrap() };
    let slate = gst::Buffer::from_slice([9u8; 24]);
    let (relay, running) = Relay::start(base, video, slate, Duration::from_millis(300)).unwrap();
    let (sender, frames) = sync_channel(1000);
    relay.attach("test", Arc::new(move |buffer, pose| sender.try_send((buffer.clone(), pose)).unwrap()));
    let started = Instant::now();
    let patience = Duration::from_secs(20);
    let mut seen = vec![frames.recv_timeout(patience).unwrap()];
    while started.elapsed() < Duration::from_millis(400) {
        let mut picture = gst::Buffer::from_slice([1u8; 24]);
        picture.make_mut().set_pts(gst::ClockTime::from_nseconds(base.now()));
        relay.picture(picture, video);
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut showing = relay.showing();
    while *showing.borrow_and_update() != Some(types::Showing::Slate) {
        seen.push(frames.recv_timeout(patience).unwrap());
    }
    drop(running);
    seen.extend(frames.try_iter());
    assert_eq!(seen.len() as u64, relay.counts().frames);
    let grid = Grid::new(video.rate, seen[0].0.pts().unwrap().nseconds());
    for (i, (frame, _)) in seen.iter().enumerate() {
        assert_eq!(frame.pts().unwrap().nseconds(), grid.pts(i as u64));
    }
    let first: Vec<_> = seen.iter().map(|(frame, _)| frame.map_readable().unwrap()[0]).collect();
    assert!(first.contains(&1) && *first.last().unwrap() == 9, "{first:?}");
    let poses = seen.iter().filter(|(_, pose)| pose.is_some()).count();
    assert_eq!(poses, first.iter().filter(|level| **level == 1).count());
}
