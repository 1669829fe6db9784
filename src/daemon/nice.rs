//! Threads of the animation give way to everybody else's: on a small machine the networks take all the time there
//! is, and relay, control and encoders must be punctual.

use std::thread::{Builder, JoinHandle};

use gst::{
    glib,
    prelude::*,
    subclass::{TaskPoolFunction, prelude::*},
};

/// How much the animation's threads give way. libtorch's threads do as those that they are started from.
const NICENESS: libc::c_int = 5;

/// For a bus's sync handler: lets the tasks of a pipeline run on threads that give way.
///
/// They are started for them: there is no way back from giving way without privileges, and GStreamer's own pool
/// lends its threads to other pipelines afterwards.
pub fn tasks_give_way() -> impl Fn(&gst::Message) + Send + Sync + 'static {
    let pool: Pool = glib::Object::new();
    move |message| {
        let gst::MessageView::StreamStatus(status) = message.view() else { return };
        if status.type_() != gst::StreamStatusType::Create {
            return;
        }
        let task = status.stream_status_object().and_then(|object| object.get::<gst::Task>().ok());
        if let Some(task) = task {
            task.set_pool(&pool);
        }
    }
}

/// Makes the calling thread give way, and those that it starts from now on.
fn give_way() {
    // SAFETY: reads and changes a number of the calling thread. A refusal changes nothing.
    unsafe {
        let own = libc::getpriority(libc::PRIO_PROCESS, 0);
        libc::setpriority(libc::PRIO_PROCESS, 0, own + NICENESS);
    }
}

glib::wrapper! {
    /// Starts a thread for each task.
    pub struct Pool(ObjectSubclass<imp::Pool>) @extends gst::TaskPool, gst::Object;
}

// SAFETY: it has no state.
unsafe impl Send for Pool {}
// SAFETY: it has no state.
unsafe impl Sync for Pool {}

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
    use super::*;

    /// No state.
    #[derive(Default)]
    pub struct Pool;

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
            let run = move || {
                give_way();
                task.call();
            };
            let thread = Builder::new().name("animation".into()).spawn(run);
            let thread =
                thread.map_err(|error| glib::Error::new(gst::CoreError::Thread, &error.to_string()))?;
            Ok(Some(Handle(thread)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_threads_of_that_pipeline_give_way() {
        gst::init().unwrap();
        let niceness = |yields: bool| {
            let pipeline =
                gst::parse::launch("fakesrc num-buffers=2 ! fakesink name=sink signal-handoffs=true")
                    .unwrap();
            let pipeline = pipeline.downcast::<gst::Pipeline>().unwrap();
            let bus = pipeline.bus().unwrap();
            let also = tasks_give_way();
            bus.set_sync_handler(move |_, message| {
                if yields {
                    also(message);
                }
                gst::BusSyncReply::Pass
            });
            let (sender, seen) = std::sync::mpsc::sync_channel(10);
            let sink = pipeline.by_name("sink").unwrap();
            sink.connect("handoff", false, move |_| {
                // SAFETY: reads a number of this thread.
                let _ = sender.try_send(unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) });
                None
            });
            pipeline.set_state(gst::State::Playing).unwrap();
            let nice = seen.recv_timeout(std::time::Duration::from_secs(20)).unwrap();
            pipeline.set_state(gst::State::Null).unwrap();
            nice
        };
        let usual = niceness(false);
        assert_eq!(niceness(true), (usual + NICENESS).min(19));
        assert_eq!(niceness(false), usual, "no thread is lent on");
    }
}
