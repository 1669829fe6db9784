//! The mailbox in every order in which its threads can run: no item lost or out of order, nobody left waiting.
//!
//!     RUSTFLAGS="--cfg loom" cargo test -p keyframed-engine --test loom
#![cfg(loom)]

use keyframed_engine::{Mailbox, Policy, SendError};
use loom::{model, sync::Arc, thread};

fn shared(policy: Policy) -> (Arc<Mailbox<u32>>, Arc<Mailbox<u32>>) {
    let mailbox = Arc::new(Mailbox::new(policy));
    (mailbox.clone(), mailbox)
}

fn all(mailbox: &Mailbox<u32>) -> Vec<u32> {
    std::iter::from_fn(|| mailbox.recv()).map(|waiting| waiting.item).collect()
}

#[test]
fn offline_all_arrives_in_order() {
    model(|| {
        let (mailbox, theirs) = shared(Policy::Block);
        let sender = thread::spawn(move || {
            for n in 0..3 {
                assert_eq!(theirs.send(n, 0), Ok(None));
            }
            theirs.close();
        });
        assert_eq!(all(&mailbox), [0, 1, 2]);
        sender.join().unwrap();
    });
}

#[test]
fn live_the_newest_arrives_and_the_others_are_counted() {
    model(|| {
        let (mailbox, theirs) = shared(Policy::Replace);
        let sender = thread::spawn(move || {
            for n in 0..3 {
                theirs.send(n, 0).unwrap();
            }
            theirs.close();
        });
        let got = all(&mailbox);
        sender.join().unwrap();
        assert_eq!(got.last(), Some(&2));
        assert!(got.is_sorted());
        assert_eq!(got.len() as u64 + mailbox.dropped(), 3);
    });
}

#[test]
fn a_flush_sends_a_blocked_sender_away_and_the_receiver_goes_on() {
    model(|| {
        let (mailbox, theirs) = shared(Policy::Block);
        let sender = thread::spawn(move || {
            theirs.send(0, 0).unwrap();
            let second = theirs.send(1, 0);
            theirs.close();
            second
        });
        let flushed = mailbox.flush();
        let got = all(&mailbox);
        match sender.join().unwrap() {
            Err(SendError::Flushed) => assert!(flushed == Some(0) && got.is_empty()),
            Ok(None) => assert!(if flushed.is_some() { got == [1] } else { got == [0, 1] }),
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn closing_or_going_live_frees_a_blocked_sender() {
    model(|| {
        let (mailbox, theirs) = shared(Policy::Block);
        mailbox.send(0, 0).unwrap();
        let sender = thread::spawn(move || theirs.send(1, 0));
        mailbox.close();
        assert_eq!(sender.join().unwrap(), Err(SendError::Closed));
        assert_eq!(all(&mailbox), [0]);
    });
    model(|| {
        let (mailbox, theirs) = shared(Policy::Block);
        mailbox.send(0, 0).unwrap();
        let sender = thread::spawn(move || theirs.send(1, 0));
        mailbox.set_policy(Policy::Replace);
        assert_eq!(sender.join().unwrap(), Ok(Some(0)));
        assert_eq!(mailbox.try_recv().map(|waiting| waiting.item), Some(1));
    });
}

#[test]
fn who_waits_for_room_gets_it_from_whoever_makes_some() {
    let ways: [fn(&Mailbox<u32>); 4] =
        [|m| drop(m.recv()), |m| drop(m.flush()), |m| drop(m.amend(|n| *n = 7)), |m| m.close()];
    for make_room in ways {
        model(move || {
            let (mailbox, theirs) = shared(Policy::Replace);
            mailbox.send(0, 0).unwrap();
            let sender = thread::spawn(move || theirs.await_room(|&n| n == 7).map(|()| theirs.send(1, 0)));
            make_room(&mailbox);
            let sent = sender.join().unwrap();
            assert_eq!(sent.is_err(), mailbox.send(2, 0).is_err());
        });
    }
}
