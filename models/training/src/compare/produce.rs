//! A clip's frames: each generated, or key frames and what lies between them.

use anyhow::{Context, Result, anyhow};
use keyframed_engine::{
    Decision, Frame, Interpolator, KeyReason, KeyframeGenerator, Nanos, Rate, Selector, Timeline, What,
};
use std::{
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
    time::Instant,
};

use super::{Clip, RATE};

/// Where a frame comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The generator.
    Generated,
    /// The interpolator.
    Interpolated,
    /// The key frame before.
    Repeated,
}

/// What was made of a clip.
pub struct Made {
    /// One frame for each pose.
    pub frames: Vec<(Frame, Kind)>,
    /// Key frames.
    pub key_frames: usize,
    /// From the first pose to the last frame, the reference's preparation excluded.
    pub seconds: f64,
}

impl Made {
    /// The pictures' bytes.
    pub fn pictures(&self) -> Vec<&[u8]> {
        self.frames.iter().map(|(frame, _)| frame.data()).collect()
    }
}

/// Generates a frame for every pose.
///
/// # Errors
/// Whatever the generator says.
pub fn every(generator: &mut dyn KeyframeGenerator, poses: &[Frame]) -> Result<Made> {
    let started = Instant::now();
    let one = |(n, pose)| -> Result<_> { Ok((generator.generate(pose, Clip::pts(n))?, Kind::Generated)) };
    let frames = poses.iter().enumerate().map(one).collect::<Result<Vec<_>>>()?;
    Ok(Made { key_frames: frames.len(), frames, seconds: started.elapsed().as_secs_f64() })
}

/// Which poses become key frames. The last one always does.
pub enum Keys {
    /// Every second one.
    Second,
    /// Those that stage 1 selects.
    Selected(Box<Selector>),
}

impl Keys {
    fn decide(&mut self, index: usize, last: bool, pose: &Frame) -> Decision {
        let decision = match self {
            Self::Second if index.is_multiple_of(2) => Decision::Key(KeyReason::Motion),
            Self::Second => Decision::Skip,
            Self::Selected(selector) => selector.push(pose, Clip::pts(index)),
        };
        match (decision, last, self) {
            (Decision::Skip, true, Self::Selected(selector)) => {
                selector.finish().map_or(decision, |timed| timed.item)
            }
            (Decision::Skip, true, Self::Second) => Decision::Key(KeyReason::Last),
            _ => decision,
        }
    }
}

/// What goes from the generator's thread to the interpolator's.
enum Fed {
    Key(Nanos, Frame),
    Hold(Nanos),
}

/// Generates key frames, and in-betweens beside the next key frame on another thread: one key frame waits at most.
///
/// # Errors
/// Whatever generator or interpolator say.
pub fn interpolated(
    generator: &mut dyn KeyframeGenerator,
    interpolator: &mut dyn Interpolator,
    poses: &[Frame],
    keys: &mut Keys,
) -> Result<Made> {
    let started = Instant::now();
    let (send, receive) = sync_channel(1);
    let (fed, made) = thread::scope(|scope| {
        let fill = move || in_betweens(interpolator, &receive, poses.len());
        let thread = thread::Builder::new().name("interpolate".into()).spawn_scoped(scope, fill)?;
        let fed = feed(generator, poses, keys, send);
        let made = thread.join().unwrap_or_else(|_| Err(anyhow!("the interpolator panicked")));
        anyhow::Ok((fed, made))
    })?;
    // An interpolator that failed closed the channel, which is what the generator then says.
    let frames = made?;
    Ok(Made { key_frames: fed?, frames, seconds: started.elapsed().as_secs_f64() })
}

/// Returns the number of key frames.
fn feed(
    generator: &mut dyn KeyframeGenerator,
    poses: &[Frame],
    keys: &mut Keys,
    send: SyncSender<Fed>,
) -> Result<usize> {
    let mut count = 0;
    for (index, pose) in poses.iter().enumerate() {
        let pts = Clip::pts(index);
        let fed = match keys.decide(index, index + 1 == poses.len(), pose) {
            Decision::Key(_) => {
                count += 1;
                Fed::Key(pts, generator.generate(pose, pts)?)
            }
            Decision::Hold => Fed::Hold(pts),
            Decision::Skip => continue,
        };
        send.send(fed).context("the interpolator is gone")?;
    }
    Ok(count)
}

/// All frames up to the end, as `filminterpolate` makes them of a file.
fn in_betweens(
    interpolator: &mut dyn Interpolator,
    receive: &Receiver<Fed>,
    length: usize,
) -> Result<Vec<(Frame, Kind)>> {
    let mut timeline = Timeline::new(Rate::new(RATE, 1)?);
    let (mut keys, mut made) = (Vec::new(), Vec::with_capacity(length));
    for fed in receive {
        match fed {
            Fed::Key(pts, frame) => {
                timeline.key(pts)?;
                keys.push(frame);
            }
            Fed::Hold(until) => timeline.hold(until)?,
        }
        drain(&mut timeline, interpolator, &keys, &mut made)?;
    }
    timeline.finish(Clip::pts(length))?;
    drain(&mut timeline, interpolator, &keys, &mut made)?;
    Ok(made)
}

fn drain(
    timeline: &mut Timeline,
    interpolator: &mut dyn Interpolator,
    keys: &[Frame],
    made: &mut Vec<(Frame, Kind)>,
) -> Result<()> {
    let key = |n: u64| keys.get(n as usize).context("a key frame that was never made");
    while let Some(tick) = timeline.next_tick() {
        made.push(match tick.what {
            What::Key(n) => (key(n)?.clone(), Kind::Generated),
            What::Repeat(n) => (key(n)?.clone(), Kind::Repeated),
            What::Between { a, b, t } => (interpolator.interpolate(key(a)?, key(b)?, t)?, Kind::Interpolated),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use keyframed_engine::{Crossfade, GenerateError, InterpolateError, SelectConfig, Unfinished};

    /// Draws the pose itself: which frame was made of which pose can be read off.
    struct Echo;

    impl KeyframeGenerator for Echo {
        fn set_reference(&mut self, _: &Frame) -> Result<(), GenerateError> {
            Ok(())
        }

        fn begin(&mut self, pose: &Frame, _: Nanos) -> Result<Unfinished, GenerateError> {
            let pose = pose.clone();
            Ok(Unfinished::new(move || Ok(pose)))
        }

        fn reset(&mut self) {}
    }

    struct Broken;

    impl Interpolator for Broken {
        fn interpolate(&mut self, _: &Frame, _: &Frame, _: f32) -> Result<Frame, InterpolateError> {
            Err(InterpolateError::BadTime(7.0))
        }
    }

    /// Frames of one grey each.
    fn greys(levels: &[u8]) -> Vec<Frame> {
        levels.iter().filter_map(|&grey| Frame::filled(8, 8, [grey; 3]).ok()).collect()
    }

    fn seen(made: &Made) -> Vec<(u8, Kind)> {
        made.frames.iter().map(|(frame, kind)| (frame.data()[0], *kind)).collect()
    }

    #[test]
    fn every_pose_is_generated() -> Result<()> {
        let made = every(&mut Echo, &greys(&[1, 2, 3]))?;
        assert_eq!(seen(&made), [1, 2, 3].map(|grey| (grey, Kind::Generated)));
        assert_eq!(made.key_frames, 3);
        Ok(())
    }

    #[test]
    fn every_second_pose_is_generated_and_the_last() -> Result<()> {
        let poses = greys(&[0, 99, 40, 99, 80, 90]);
        let made = interpolated(&mut Echo, &mut Crossfade, &poses, &mut Keys::Second)?;
        let (key, between) = (Kind::Generated, Kind::Interpolated);
        assert_eq!(seen(&made), [(0, key), (20, between), (40, key), (60, between), (80, key), (90, key)]);
        assert_eq!(made.key_frames, 4);
        Ok(())
    }

    #[test]
    fn selected_poses_are_generated_and_a_still_one_is_held() -> Result<()> {
        let config = SelectConfig { lambda: 0.01, window: 3, ..SelectConfig::default() };
        let mut keys = Keys::Selected(Box::new(Selector::new(config)?));
        // Nothing moves for a window, then much, then too little but for the end.
        let poses = greys(&[0, 0, 0, 0, 80, 84]);
        let made = interpolated(&mut Echo, &mut Crossfade, &poses, &mut keys)?;
        let kinds: Vec<_> = made.frames.iter().map(|(_, kind)| *kind).collect();
        assert_eq!(kinds.iter().filter(|kind| **kind == Kind::Generated).count(), made.key_frames);
        assert_eq!(seen(&made).iter().map(|(grey, _)| *grey).collect::<Vec<_>>(), [0, 0, 0, 0, 80, 84]);
        assert_eq!((made.key_frames, kinds[1]), (3, Kind::Repeated));
        Ok(())
    }

    #[test]
    fn an_interpolator_that_fails_is_named() {
        let made = interpolated(&mut Echo, &mut Broken, &greys(&[0; 20]), &mut Keys::Second);
        let said = made.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(said.contains('7') && !said.contains("gone"), "{said}");
    }
}
