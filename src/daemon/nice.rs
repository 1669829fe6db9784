//! Threads of the animation give way to everybody else's: on a small machine the networks take all the time there
//! is, and relay, control and encoders must be punctual. On two busy cores a tenth as many frames left late.

use std::{
    io,
    sync::mpsc::{SyncSender, sync_channel},
    thread::{Builder, JoinHandle},
};

use gst::{
    glib,
    prelude::*,
    subclass::{TaskPoolFunction, prelude::*},
};

/// How much the animation's threads give way. libtorch's threads do as those that they are started from.
///
/// The plugin's own threads give way by more, relative to whoever starts them. Where the process is at 0, that makes:
/// relay, control, encoders and the output's task 0; sources, selection and the second half of a key frame 5; its first
/// half, thread `lcm-make`, started by whoever starts the pipeline, 5 too; FILM, thread `film`, started from a task of
/// the animation, 15. Without this, as in `gst-launch-1.0`: `lcm-make` 5, `film` 10, all else 0.
const NICENESS: libc::c_int = 5;

/// Elements (by their types) whose tasks must be as punctual as the relay: the one that sends a frame a tick, by the
/// clock, and a queue, as `keyframed bench` has behind it, which takes each frame on to the sink.
const PUNCTUAL: [&str; 2] = ["GstFilmInterpolate", "GstQueue"];

/// For a bus's sync handler: lets the tasks of a pipeline run on threads that give way, but for those that must be
/// punctual. To be called on a thread that does not give way itself.
///
/// Threads are started for them, and not by the thread that asks: there is no way back from giving way without
/// privileges, and GStreamer's own pool lends its threads to other pipelines afterwards.
///
/// # Errors
/// If there can be no more threads.
pub fn tasks_give_way() -> io::Result<impl Fn(&gst::Message) + Send + Sync + 'static> {
    let starter = starter()?;
    let [punctual, patient] = [false, true].map(|gives_way| Pool::new(starter.clone(), gives_way));
    Ok(move |message: &gst::Message| {
        let gst::MessageView::StreamStatus(status) = message.view() else { return };
        let (kind, owner) = status.get();
        if kind != gst::StreamStatusType::Create {
            return;
        }
        let is_punctual = PUNCTUAL.contains(&owner.type_().name());
        let task = status.stream_status_object().and_then(|object| object.get::<gst::Task>().ok());
        if let Some(task) = task {
            task.set_pool(if is_punctual { &punctual } else { &patient });
        }
    })
}

/// A thread to be started.
struct Start {
    run: Box<dyn FnOnce() + Send>,
    started: SyncSender<io::Result<JoinHandle<()>>>,
}

/// Starts threads that are as nice as the caller of this function, whoever asks for them.
fn starter() -> io::Result<SyncSender<Start>> {
    let (sender, asked) = sync_channel::<Start>(1);
    Builder::new().name("starter".into()).spawn(move || {
        for Start { run, started } in asked {
            // Who asked waits for it.
            let _ = started.send(Builder::new().name("animation".into()).spawn(run));
        }
    })?;
    Ok(sender)
}

/// Makes the calling thread give way, and those that it starts from now on.
fn give_way() {
    // SAFETY: reads a number of the main thread, which never gives way, and changes one of the calling thread. A
    // refusal changes nothing.
    unsafe {
        let usual = libc::getpriority(libc::PRIO_PROCESS, libc::getpid().unsigned_abs());
        libc::setpriority(libc::PRIO_PROCESS, 0, usual + NICENESS);
    }
}

glib::wrapper! {
    /// Starts a thread for each task.
    pub struct Pool(ObjectSubclass<imp::Pool>) @extends gst::TaskPool, gst::Object;
}

// SAFETY: its state is set once and shared safely.
unsafe impl Send for Pool {}
// SAFETY: its state is set once and shared safely.
unsafe impl Sync for Pool {}

impl Pool {
    fn new(starter: SyncSender<Start>, gives_way: bool) -> Self {
        let pool: Self = glib::Object::new();
        // Set nowhere else.
        let _ = pool.imp().set.set((starter, gives_way));
        pool
    }
}

/// A thread that runs a task.
pub struct Handle(JoinHandle<()>);

impl gst::TaskHandle for Handle {
    fn join(self) {
        if self.0.join().is_err() {
            // Its panic has been reported where it happened.
        }
    }
}

mod imp {
    use std::sync::OnceLock;

    use super::*;

    /// Who starts threads, and whether they give way.
    #[derive(Default)]
    pub struct Pool {
        pub(super) set: OnceLock<(SyncSender<Start>, bool)>,
    }

    #[glib::object_subclass]
    impl ObjectSubclass for Pool {
        const NAME: &'static str = "KeyframedTaskPool";
        type Type = super::Pool;
        type ParentType = gst::TaskPool;
    }

    impl ObjectImpl for Pool {}
    impl GstObjectImpl for Pool {}

    impl TaskPoolImpl for Pool {
        type Handle = Handle;

        fn push(&self, task: TaskPoolFunction) -> Result<Option<Handle>, glib::Error> {
            let failed = |why: &str| glib::Error::new(gst::CoreError::Thread, why);
            let (starter, gives_way) =
                self.set.get().ok_or_else(|| failed("a pool without threads"))?.clone();
            let run = move || {
                if gives_way {
                    give_way();
                }
                task.call();
            };
            let (started, starting) = sync_channel(1);
            let asked = starter.send(Start { run: Box::new(run), started });
            asked.map_err(|_| failed("the starter has ended"))?;
            let thread = starting.recv().map_err(|_| failed("the starter has ended"))?;
            let thread = thread.map_err(|error| failed(&error.to_string()))?;
            Ok(Some(Handle(thread)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn niceness() -> libc::c_int {
        // SAFETY: reads a number of this thread.
        unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) }
    }

    /// How nice a thread is that runs a pipeline, started from a thread that is so much nicer than usual.
    fn seen(yields: bool, own: libc::c_int) -> libc::c_int {
        seen_behind("", yields, own)
    }

    /// The same of the one that comes to the pipeline's sink behind `elements`.
    fn seen_behind(elements: &str, yields: bool, own: libc::c_int) -> libc::c_int {
        let (sender, seen) = sync_channel(10);
        let also = tasks_give_way().unwrap();
        let elements = elements.to_owned();
        let nicer = Builder::new().spawn(move || {
            // SAFETY: changes a number of this thread.
            unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, niceness() + own) };
            let line = format!("fakesrc num-buffers=2 ! {elements} fakesink name=sink signal-handoffs=true");
            let pipeline = gst::parse::launch(&line).unwrap().downcast::<gst::Pipeline>().unwrap();
            pipeline.bus().unwrap().set_sync_handler(move |_, message| {
                if yields {
                    also(message);
                }
                gst::BusSyncReply::Pass
            });
            pipeline.by_name("sink").unwrap().connect("handoff", false, move |_| {
                let _ = sender.try_send(niceness());
                None
            });
            pipeline.set_state(gst::State::Playing).unwrap();
            let nice = seen.recv_timeout(std::time::Duration::from_secs(20)).unwrap();
            pipeline.set_state(gst::State::Null).unwrap();
            nice
        });
        nicer.unwrap().join().unwrap()
    }

    #[test]
    fn only_threads_of_that_pipeline_give_way() {
        gst::init().unwrap();
        let usual = niceness();
        assert_eq!(seen(true, 0), (usual + NICENESS).min(19));
        assert_eq!(seen(false, 0), usual, "no thread is lent on");
        assert_eq!(seen_behind("queue !", true, 0), usual, "who takes pictures to a sink does not");
    }

    #[test]
    fn niceness_does_not_add_up() {
        gst::init().unwrap();
        let usual = niceness();
        // GLib's shared threads are all as nice as whoever needs the first of them.
        assert_eq!(seen(false, 0), usual);
        assert_eq!(seen(true, 3), (usual + NICENESS).min(19));
    }

    #[test]
    fn threads_are_as_nice_as_whoever_made_the_starter() {
        let (usual, starter) = (niceness(), starter().unwrap());
        let nicer = Builder::new().spawn(move || {
            give_way();
            let ((started, starting), (sender, seen)) = (sync_channel(1), sync_channel(1));
            let run = Box::new(move || sender.send(niceness()).unwrap());
            starter.send(Start { run, started }).unwrap();
            starting.recv().unwrap().unwrap().join().unwrap();
            seen.recv().unwrap()
        });
        assert_eq!(nicer.unwrap().join().unwrap(), usual);
    }
}
