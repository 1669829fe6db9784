use std::{
    sync::{
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc::sync_channel,
    },
    time::Duration,
};

use tokio::sync::oneshot;

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for the next note, which must be about a wish.
fn granted(notes: &mut mpsc::Receiver<Note>) -> Granted {
    match notes.blocking_recv() {
        Some(Note::Reference(granted)) => granted,
        _ => panic!("another note"),
    }
}

#[test]
fn wishes_are_granted_in_order_unless_they_are_overruled() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["a", "b", "c"] {
        image::RgbImage::new(20, 20).save(dir.path().join(name).with_extension("png")).unwrap();
    }
    let (sender, mut notes) = mpsc::channel(100);
    let pictures = Pictures::start(sender).unwrap();
    let gallery = Gallery::new(&[dir.path().to_owned()], "");
    let wish = |name: &str, set: SetReference| {
        let (answer, answered) = oneshot::channel();
        let choice = Choice::Name(name.into());
        let (set, epoch) = (Some(set), pictures.epoch());
        pictures.wish(Wish { choice, gallery: gallery.clone(), set, generation: 1, epoch, answer });
        answered
    };
    let touched: &'static AtomicBool = Box::leak(Box::default());
    let ((busy, is_busy), (go, goes)) = (sync_channel(1), sync_channel(1));
    let first = wish("a", Box::new(move |_| busy.send(()).is_ok() && goes.recv_timeout(PATIENCE).is_ok()));
    is_busy.recv_timeout(PATIENCE).unwrap();
    // While it is under way: one that will be overruled, one whose client goes away, one that counts.
    let second = wish("b", Box::new(|_| touched.swap(true, SeqCst)));
    drop(wish("b", Box::new(|_| touched.swap(true, SeqCst))));
    pictures.overrule();
    let (restored, is_restored) = sync_channel(2);
    pictures.restore(Box::new(|_| touched.swap(true, SeqCst)), None, false);
    pictures.restore(Box::new(move |path| restored.send(path.is_none()).is_ok()), None, false);
    let third = wish("c", Box::new(|path| path.is_some_and(|path| path.starts_with("/proc/self/fd"))));
    go.send(()).unwrap();
    let all = [0; 3].map(|_| granted(&mut notes));
    assert!(all[0].result.as_ref().is_ok_and(|r| r.name == "a") && all[0].epoch == 0, "it was under way");
    assert!(all[1].result.as_ref().unwrap_err().message.contains("meanwhile"));
    assert!(all[2].result.as_ref().is_ok_and(|r| r.name == "c") && all[2].epoch == 1);
    assert!(is_restored.recv_timeout(PATIENCE).unwrap() && !touched.load(SeqCst));
    drop((first, second, third));
}

#[test]
fn a_flood_of_wishes_is_refused() {
    let (sender, _notes) = mpsc::channel(100);
    let pictures = Pictures::start(sender).unwrap();
    let ((busy, is_busy), (go, goes)) = (sync_channel(1), sync_channel::<()>(1));
    pictures.restore(Box::new(move |_| busy.send(()).is_ok() && goes.recv().is_ok()), None, true);
    is_busy.recv_timeout(PATIENCE).unwrap();
    let wish = || {
        let (answer, answered) = oneshot::channel();
        let (choice, gallery) = (Choice::Name("a".into()), Gallery::new(&[], ""));
        pictures.wish(Wish { choice, gallery, set: None, generation: 1, epoch: 0, answer });
        answered
    };
    let mut all: Vec<_> = (0..MOST_WISHES + 1).map(|_| wish()).collect();
    let refused = all.pop().unwrap().blocking_recv().unwrap().unwrap_err();
    assert!(refused.message.contains("try again"), "{refused}");
    assert!(all.iter_mut().all(|answered| answered.try_recv().is_err()));
    go.send(()).unwrap();
}
