//! The single slot in front of the generator, with real threads where blocking matters.

use std::{
    sync::Arc,
    thread::{Builder, JoinHandle},
    time::Duration,
};

use keyframed_engine::{
    Frame, GenerateError, KeyframeGenerator, Mailbox, Nanos, Policy, SendError, Unfinished, Waiting,
};

fn spawn<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    Builder::new().name("mailbox-test".into()).spawn(work).unwrap()
}

/// Gives another thread time to block; a test that needs it can only pass too easily, never fail, if it is short.
fn let_it_block() {
    std::thread::sleep(Duration::from_millis(20));
}

#[test]
fn live_a_newer_item_takes_the_place_of_the_waiting_one() {
    let mailbox = Mailbox::new(Policy::Replace);
    assert_eq!(mailbox.age(5), None);
    assert_eq!(mailbox.send('a', 10), Ok(None));
    assert_eq!(mailbox.send('b', 25), Ok(Some('a')));
    assert_eq!(mailbox.age(30), Some(5));
    assert_eq!(mailbox.age(20), Some(0), "clocks may be read in either order");
    assert_eq!(mailbox.recv(), Some(Waiting { since: 25, item: 'b' }));
    assert_eq!(mailbox.try_recv(), None);
    assert_eq!(mailbox.dropped(), 1);
}

#[test]
fn offline_nothing_is_lost_and_order_is_kept() {
    let mailbox = Arc::new(Mailbox::new(Policy::Block));
    let receiver = spawn({
        let mailbox = mailbox.clone();
        move || std::iter::from_fn(|| mailbox.recv()).map(|w| w.item).collect::<Vec<u32>>()
    });
    for n in 0..10_000 {
        assert_eq!(mailbox.send(n, 0), Ok(None));
    }
    mailbox.close();
    assert_eq!(receiver.join().unwrap(), (0..10_000).collect::<Vec<_>>());
    assert_eq!(mailbox.dropped(), 0);
    assert_eq!(mailbox.send(0, 0), Err(SendError::Closed));
}

#[test]
fn flush_and_close_free_a_blocked_sender() {
    for (close, want) in [(false, SendError::Flushed), (true, SendError::Closed)] {
        let mailbox = Arc::new(Mailbox::new(Policy::Block));
        mailbox.send(1, 0).unwrap();
        let sender = spawn({
            let mailbox = mailbox.clone();
            move || mailbox.send(2, 0)
        });
        let_it_block();
        if close {
            mailbox.close();
            assert_eq!(sender.join().unwrap(), Err(want));
            // What waited is still delivered.
            assert_eq!(mailbox.recv().map(|w| w.item), Some(1));
            assert_eq!(mailbox.recv(), None);
        } else {
            // The sender may come late: then it finds the slot free and succeeds.
            let flushed = mailbox.flush();
            let sent = sender.join().unwrap();
            assert_eq!(flushed, Some(1));
            assert!(sent == Err(want) || sent == Ok(None), "{sent:?}");
        }
    }
}

#[test]
fn a_receiver_waits_through_a_flush() {
    let mailbox = Arc::new(Mailbox::new(Policy::Replace));
    let receiver = spawn({
        let mailbox = mailbox.clone();
        move || mailbox.recv()
    });
    let_it_block();
    assert_eq!(mailbox.flush(), None);
    let_it_block();
    mailbox.send(7, 3).unwrap();
    assert_eq!(receiver.join().unwrap(), Some(Waiting { since: 3, item: 7 }));
}

#[test]
fn going_live_frees_a_blocked_sender_to_replace() {
    let mailbox = Arc::new(Mailbox::new(Policy::Block));
    mailbox.send(1, 0).unwrap();
    let sender = spawn({
        let mailbox = mailbox.clone();
        move || mailbox.send(2, 0)
    });
    let_it_block();
    mailbox.set_policy(Policy::Replace);
    assert_eq!(sender.join().unwrap(), Ok(Some(1)));
}

#[test]
fn news_is_added_to_the_waiting_item() {
    let mailbox = Mailbox::new(Policy::Replace);
    assert!(!mailbox.amend(|_: &mut (u8, Nanos)| panic!("nothing waits")));
    mailbox.send((1, 0), 0).unwrap();
    assert!(mailbox.amend(|item| item.1 = 40));
    assert_eq!(mailbox.recv().map(|w| w.item), Some((1, 40)));
}

/// Shows the reference, tinted by the pose: enough of a generator to use the trait as the plugin does.
#[derive(Default)]
struct Tint(Option<Frame>);

impl KeyframeGenerator for Tint {
    fn set_reference(&mut self, reference: &Frame) -> Result<(), GenerateError> {
        self.0 = Some(reference.clone());
        Ok(())
    }

    fn begin(&mut self, pose: &Frame, _pts: Nanos) -> Result<Unfinished, GenerateError> {
        let reference = self.0.clone().ok_or(GenerateError::NoReference)?;
        let tint = pose.data()[0] / 2;
        Ok(Unfinished::new(move || {
            let data: Vec<u8> = reference.data().iter().map(|&v| v / 2 + tint).collect();
            Frame::new(reference.width(), reference.height(), data)
                .map_err(|e| GenerateError::BadPicture(e.to_string()))
        }))
    }

    fn reset(&mut self) {}
}

#[test]
fn a_sender_waits_for_room_before_it_makes_its_item() {
    let mailbox = Arc::new(Mailbox::new(Policy::Block));
    assert_eq!(mailbox.await_room(|_| false), Ok(()), "empty");
    mailbox.send(2, 0).unwrap();
    assert_eq!(mailbox.await_room(|&n| n == 2), Ok(()), "what waits takes more");
    let waiter = || {
        let mailbox = mailbox.clone();
        spawn(move || mailbox.await_room(|&n| n == 3))
    };
    type Free = fn(&Mailbox<u8>);
    let ways: [Free; 3] = [|m| _ = m.recv(), |m| _ = m.flush(), |m| _ = m.amend(|n| *n = 3)];
    for free in ways {
        mailbox.flush();
        mailbox.send(2, 0).unwrap();
        let waiting = waiter();
        let_it_block();
        assert!(!waiting.is_finished());
        free(&mailbox);
        assert_eq!(waiting.join().unwrap(), Ok(()));
    }
    mailbox.amend(|n| *n = 2);
    let waiting = waiter();
    let_it_block();
    mailbox.close();
    assert_eq!(waiting.join().unwrap(), Err(SendError::Closed));
}

#[test]
fn a_key_frame_is_finished_after_the_next_is_begun() {
    let mut generator: Box<dyn KeyframeGenerator> = Box::new(Tint::default());
    let pose = |level| Frame::filled(1, 1, [level; 3]).unwrap();
    generator.set_reference(&Frame::filled(2, 2, [100; 3]).unwrap()).unwrap();
    let made = [10, 20].map(|level| generator.generate(&pose(level), 0).unwrap());
    let [first, second] = [10, 20].map(|level| generator.begin(&pose(level), 0).unwrap());
    generator.set_reference(&Frame::filled(3, 3, [0; 3]).unwrap()).unwrap();
    drop(generator);
    let second = spawn(move || second.finish().unwrap()).join().unwrap();
    assert_eq!([first.finish().unwrap(), second], made);
}

#[test]
fn a_boxed_generator_works_behind_a_mailbox() {
    let mailbox = Arc::new(Mailbox::new(Policy::Block));
    let mut generator: Box<dyn KeyframeGenerator> = Box::new(Tint::default());
    let pose = Frame::filled(1, 1, [10; 3]).unwrap();
    assert!(matches!(generator.generate(&pose, 0), Err(GenerateError::NoReference)));
    generator.set_reference(&Frame::filled(2, 2, [100; 3]).unwrap()).unwrap();
    let worker = spawn({
        let mailbox = mailbox.clone();
        move || {
            let mut key_frames = Vec::new();
            while let Some(Waiting { item: (pts, pose), .. }) = mailbox.recv() {
                key_frames.push((pts, generator.generate(&pose, pts).unwrap()));
            }
            key_frames
        }
    });
    for pts in 0..3 {
        mailbox.send((pts, pose.clone()), pts).unwrap();
    }
    mailbox.close();
    let want = Frame::filled(2, 2, [55; 3]).unwrap();
    assert_eq!(worker.join().unwrap(), [0, 1, 2].map(|pts| (pts, want.clone())));
}
