//! The animation's life: started, stopped and started anew, one at a time and never on the supervisor's thread; for
//! opening a model, and waiting for a key frame under way, may take long.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::{
    sync::{Notify, mpsc},
    task::spawn_blocking,
};

use super::{
    animation::{Animation, Figures, Plan, Surroundings},
    bus::Said,
    feed::Feed,
    supervisor::Note,
};
use crate::{
    media::backoff::Backoff,
    telemetry::events::{Events, Kind},
};

/// Shortest and longest pause before a failed animation is started anew.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// The same failure is told again if it comes after the animation has run for so long.
const FORGOTTEN: Duration = Duration::from_secs(60);

/// How lcmanimate's warning about a single key frame begins.
const KEYFRAME_FAILED: &str = "A key frame failed";

/// The one animation, and what it should be.
pub struct Stage {
    around: Surroundings,
    feed: Feed,
    events: Events,
    notes: mpsc::Sender<Note>,
    wanted: Plan,
    running: Option<Animation>,
    /// Of the animation that is being started or runs; messages of those before it are stale.
    generation: u64,
    backoff: Backoff,
    since: Instant,
    /// The failure that was told last.
    told: Option<String>,
    /// Warnings of this animation that were told.
    warned: Vec<String>,
    /// Ends the pause before a new attempt.
    hurry: Arc<Notify>,
    /// Sums of the animations before this one.
    past: Figures,
    /// Whether one is being stopped or started just now.
    at_work: Arc<AtomicBool>,
}

impl Stage {
    /// Begins to start an animation.
    pub fn new(
        around: Surroundings,
        feed: Feed,
        events: Events,
        notes: mpsc::Sender<Note>,
        wanted: Plan,
    ) -> Self {
        let mut stage = Self {
            around,
            feed,
            events,
            notes,
            wanted,
            running: None,
            generation: 0,
            backoff: Backoff::new(RETRY),
            since: Instant::now(),
            told: None,
            warned: Vec::new(),
            hurry: Arc::new(Notify::new()),
            past: Figures::default(),
            at_work: Arc::new(AtomicBool::new(false)),
        };
        stage.restart(Duration::ZERO);
        stage
    }

    /// What it is or is going to be.
    pub fn wanted(&self) -> &Plan {
        &self.wanted
    }

    /// Changes it: while running what can be, else by starting it anew. Returns whether it is started anew.
    pub fn set(&mut self, wanted: Plan) -> bool {
        let same = wanted.is_same_but_for_parameters(&self.wanted);
        self.wanted = wanted;
        if same {
            self.settle();
        } else if self.running.is_some() {
            self.restart(Duration::ZERO);
        } else {
            // What is being started will not fit, and then be replaced.
            self.hurry.notify_one();
        }
        !same
    }

    /// For setting a reference that was checked: see [`Animation::reference_setter`]. While none runs, it is taken
    /// when one does.
    pub fn reference_setter(&self) -> impl FnOnce(&Path) -> bool + Send + 'static {
        let setter = self.running.as_ref().map(Animation::reference_setter);
        move |path| setter.is_none_or(|set| set(path))
    }

    /// This reference was set, on the animation of this generation.
    pub fn note_reference(&mut self, generation: u64, path: PathBuf) {
        self.wanted.reference = Some(path.clone());
        match &mut self.running {
            Some(animation) if generation == self.generation => animation.note_reference(path),
            _ => self.settle(),
        }
    }

    /// Tells animations apart.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// An animation was started, or could not be.
    pub fn started(&mut self, result: anyhow::Result<Animation>) {
        match result {
            Ok(animation) if animation.plan().is_same_but_for_parameters(&self.wanted) => {
                // One that has failed since it was started told so before it was known here.
                let failed = animation.failure();
                self.feed.connect(Some(animation.poses()));
                self.running = Some(animation);
                match failed {
                    Some(error) => self.fail(format!("{error:#}")),
                    None => self.settle(),
                }
            }
            Ok(misfit) => {
                self.running = Some(misfit);
                self.restart(Duration::ZERO);
            }
            Err(error) => self.fail(format!("{error:#}")),
        }
    }

    /// An animation's bus said something.
    pub fn said(&mut self, generation: u64, said: Said) {
        if generation != self.generation {
            return;
        }
        match said {
            Said::Error(why) if self.running.is_some() => self.fail(why),
            // Starting has failed, which is told when it is over.
            Said::Error(_) => {}
            Said::Warning(why) => self.warn(why),
            Said::Latency => {
                if let Some(animation) = &self.running {
                    spawn_blocking(animation.recalculate_latency());
                }
            }
            Said::Loaded => {
                self.events.emit(
                    Kind::ModelLoaded,
                    None,
                    format!("the model {} is loaded", self.wanted.config.model),
                );
            }
        }
    }

    /// Figures of all animations together; those that are no sums are of the one that runs.
    pub fn figures(&self) -> Figures {
        let now = self.running.as_ref().map(Animation::figures).unwrap_or_default();
        self.past.clone().plus(now)
    }

    /// Ends it for good. The future is true if nothing runs any more within `limit`.
    pub fn stop(&mut self, limit: Duration) -> impl Future<Output = bool> + use<> {
        self.feed.connect(None);
        // While one is being started its thread cannot be waited for.
        let running = self.running.take();
        let busy = self.at_work.load(Relaxed);
        async move {
            let Some(animation) = running else { return !busy };
            let stopped = spawn_blocking(move || animation.stop());
            tokio::time::timeout(limit, stopped).await.is_ok()
        }
    }

    /// Brings what runs in line with what is wanted.
    fn settle(&mut self) {
        let Some(animation) = &mut self.running else { return };
        animation.set_params(self.wanted.params);
        if animation.plan().reference == self.wanted.reference {
            return;
        }
        if let Some(path) = self.wanted.reference.clone() {
            let set = animation.reference_setter();
            animation.note_reference(path.clone());
            // It was checked before; if it has vanished since, a warning on the bus tells.
            spawn_blocking(move || set(&path));
        }
    }

    fn fail(&mut self, why: String) {
        let ran = self.since.elapsed();
        if ran > FORGOTTEN {
            self.told = None;
        }
        let pause = self.backoff.after(ran);
        if self.told.as_ref() != Some(&why) {
            let message = format!("{why}; it is started anew after {:.1} s", pause.as_secs_f64());
            self.events.emit(Kind::AnimationLost, Some("animation"), message);
            self.told = Some(why);
        }
        self.restart(pause);
    }

    fn warn(&mut self, why: String) {
        // A stream of the same warning tells nothing new.
        if self.warned.contains(&why) || self.warned.len() > 20 {
            return;
        }
        let kind =
            if why.starts_with(KEYFRAME_FAILED) { Kind::KeyframeFailed } else { Kind::AnimationWarning };
        self.events.emit(kind, Some("animation"), why.clone());
        self.warned.push(why);
    }

    /// Stops what runs and, after `pause`, starts what is wanted.
    fn restart(&mut self, pause: Duration) {
        self.feed.connect(None);
        self.generation += 1;
        self.warned.clear();
        let old = self.running.take();
        if let Some(old) = &old {
            self.past = self.past.clone().plus(old.figures());
        }
        self.since = Instant::now() + pause;
        let (generation, notes, hurry) = (self.generation, self.notes.clone(), self.hurry.clone());
        let (plan, around) = (self.wanted.clone(), self.around.clone());
        let at_work = self.at_work.clone();
        tokio::spawn(async move {
            if let Some(old) = old {
                at_work.store(true, Relaxed);
                // Waits for its end, whatever that is.
                let _ = spawn_blocking(move || old.stop()).await;
                at_work.store(false, Relaxed);
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = hurry.notified() => {}
            }
            let said = notes.clone();
            let tell = move |words| {
                // Full only if the supervisor has fallen far behind, and then it has enough to go by.
                let _ = said.try_send(Note::Animation(generation, words));
            };
            at_work.store(true, Relaxed);
            let started = spawn_blocking(move || Animation::start(plan, around, tell)).await;
            at_work.store(false, Relaxed);
            let started = started.unwrap_or_else(|_| Err(anyhow::anyhow!("starting the animation panicked")));
            let _ = notes.send(Note::AnimationStarted(Box::new(started))).await;
        });
    }
}
