//! Everything that reads pictures while the daemon runs: one thread, one job after the other in the order they were
//! asked for, so that the last word is the last done, and the memory of one picture is all that it takes.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::Builder,
};

use anyhow::Context as _;
use keyframed_control::{ErrorObject, types::Reference};
use tokio::sync::mpsc;

use super::{
    animation::SetReference,
    gallery::{self, Gallery},
    handle::{Answer, Choice},
    relay::Relay,
    slate,
    supervisor::Note,
};
use crate::{
    config::resolved::{Slate, Video},
    telemetry::events::{Events, Kind},
};

/// Wishes of clients that wait; more are refused.
const MOST_WISHES: usize = 16;

/// A client's wish for a reference.
pub struct Wish {
    /// What it asked for.
    pub choice: Choice,
    /// Where to look.
    pub gallery: Gallery,
    /// Of the animation that runs; `None` while there is none.
    pub set: Option<SetReference>,
    /// That animation.
    pub generation: u64,
    /// The configuration it was asked under: see [`Pictures::overrule`].
    pub epoch: u64,
    /// Who wants to know.
    pub answer: Answer<Reference>,
}

/// What came of a wish.
pub struct Granted {
    /// The animation that the reference was set on.
    pub generation: u64,
    /// As in the wish.
    pub epoch: u64,
    /// The picture, or why not.
    pub result: Result<Reference, ErrorObject>,
    /// Who wants to know.
    pub answer: Answer<Reference>,
}

/// What a slate is made of, and where it goes.
pub struct Drawing {
    /// As configured.
    pub slate: Slate,
    /// The reference in force; `None`: the model's own.
    pub reference: Option<PathBuf>,
    /// Knows the model's own.
    pub gallery: Gallery,
    /// The canvas.
    pub video: Video,
    /// Takes the slate.
    pub relay: Relay,
    /// For what goes wrong.
    pub events: Events,
}

enum Job {
    Wish(Box<Wish>),
    Restore(SetReference, Option<PathBuf>, bool),
    Draw(Box<Drawing>),
}

/// Takes jobs; cheap to clone.
#[derive(Clone)]
pub struct Pictures {
    shared: Arc<Shared>,
}

struct Shared {
    queue: Mutex<Queue>,
    more: Condvar,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    epoch: u64,
}

impl Pictures {
    /// Starts the thread; it tells `notes` what came of wishes.
    ///
    /// # Errors
    /// If there can be no more threads.
    pub fn start(notes: mpsc::Sender<Note>) -> anyhow::Result<Self> {
        let shared = Arc::new(Shared { queue: Mutex::default(), more: Condvar::new() });
        let pictures = Self { shared: shared.clone() };
        let run = move || {
            loop {
                let job = shared.next();
                shared.carry_out(job, &notes);
            }
        };
        Builder::new()
            .name("pictures".into())
            .spawn(run)
            .context("the pictures' thread cannot be started")?;
        Ok(pictures)
    }

    /// The number of the configuration in force.
    pub fn epoch(&self) -> u64 {
        self.shared.queue().epoch
    }

    /// Another pipeline or configuration says which reference is in force: wishes from before it are void.
    pub fn overrule(&self) {
        self.shared.queue().epoch += 1;
    }

    /// Sets the reference that a client wishes for.
    pub fn wish(&self, wish: Wish) {
        let mut queue = self.shared.queue();
        let waiting = queue.jobs.iter().filter(|job| matches!(job, Job::Wish(_))).count();
        if waiting < MOST_WISHES {
            queue.jobs.push_back(Job::Wish(Box::new(wish)));
            drop(queue);
            self.shared.more.notify_one();
        } else {
            let why = format!("{waiting} references wait to be set already; try again later");
            let _ = wish.answer.send(Err(ErrorObject::failed(why)));
        }
    }

    /// Sets a reference that is configured, or that a client had `chosen`.
    pub fn restore(&self, set: SetReference, reference: Option<PathBuf>, chosen: bool) {
        self.replace(Job::Restore(set, reference, chosen), |job| matches!(job, Job::Restore(..)));
    }

    /// Draws a slate.
    pub fn draw(&self, drawing: Drawing) {
        self.replace(Job::Draw(Box::new(drawing)), |job| matches!(job, Job::Draw(_)));
    }

    /// Puts a job last, instead of those before it that it makes pointless.
    fn replace(&self, job: Job, pointless: impl Fn(&Job) -> bool) {
        let mut queue = self.shared.queue();
        queue.jobs.retain(|job| !pointless(job));
        queue.jobs.push_back(job);
        drop(queue);
        self.shared.more.notify_one();
    }
}

impl Shared {
    // Nothing that runs under the lock leaves it half changed.
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> Job {
        let mut queue = self.queue();
        loop {
            match queue.jobs.pop_front() {
                Some(job) => return job,
                None => queue = self.more.wait(queue).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    fn carry_out(&self, job: Job, notes: &mpsc::Sender<Note>) {
        match job {
            // Who has gone away wishes for nothing any more.
            Job::Wish(wish) if wish.answer.is_closed() => {}
            Job::Wish(wish) => {
                let Wish { choice, gallery, set, generation, epoch, answer } = *wish;
                let result = if epoch == self.queue().epoch {
                    find_and_set(&gallery, &choice, set)
                } else {
                    Err(overruled())
                };
                // Refused only when the daemon ends.
                let granted = Granted { generation, epoch, result, answer };
                let _ = notes.blocking_send(Note::Reference(granted));
            }
            Job::Restore(set, reference, chosen) => restore(&set, reference.as_deref(), chosen),
            Job::Draw(drawing) => drawing.draw(),
        }
    }
}

impl Drawing {
    fn draw(self) {
        let reference = self.reference.or_else(|| self.gallery.models_own());
        let (buffer, trouble) = make_slate(&self.slate, reference.as_deref(), self.video);
        if let Some(why) = trouble {
            self.events.emit(Kind::AnimationWarning, Some("slate"), why);
        }
        self.relay.set_slate(buffer, self.video);
    }
}

/// The slate; what is wrong with its picture, if so, when it is drawn instead.
pub fn make_slate(slate: &Slate, reference: Option<&Path>, video: Video) -> (gst::Buffer, Option<String>) {
    let trouble = match &slate.picture {
        Some(path) => match slate::load(path, video) {
            Ok(buffer) => return (buffer, None),
            Err(error) => Some(format!("{error:#}")),
        },
        None => None,
    };
    (slate::draw(reference, video), trouble)
}

/// The picture was checked before; if it has vanished since, the one in force stays.
fn restore(set: &SetReference, reference: Option<&Path>, chosen: bool) {
    match reference.filter(|_| chosen).map(gallery::open_again) {
        None => {
            // If it is refused, a warning on the animation's bus tells.
            set(reference);
        }
        Some(Ok(file)) => {
            set(Some(&gallery::link_to(&file)));
        }
        Some(Err(error)) => tracing::warn!("the reference cannot be set again: {error:#}"),
    }
}

/// Why a wish is void.
pub fn overruled() -> ErrorObject {
    ErrorObject::failed("another pipeline or configuration has set its own reference meanwhile")
}

/// The file is opened once: what is checked is what is shown.
fn find_and_set(
    gallery: &Gallery,
    choice: &Choice,
    set: Option<SetReference>,
) -> Result<Reference, ErrorObject> {
    let failed = |error: anyhow::Error| ErrorObject::failed(format!("{error:#}"));
    let (file, path) =
        gallery.open(choice).map_err(|error| ErrorObject::invalid_params(format!("{error:#}")))?;
    let copy = file.try_clone().map_err(|error| failed(error.into()))?;
    gallery::decode(copy, &path).map_err(failed)?;
    if set.is_some_and(|set| !set(Some(&gallery::link_to(&file)))) {
        return Err(ErrorObject::failed(format!("{} cannot be animated", path.display())));
    }
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Reference { name, path: path.display().to_string(), current: true })
}

#[cfg(test)]
mod tests;
