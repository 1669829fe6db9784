//! The animation's life: started, stopped and started anew, one at a time and never on the supervisor's thread; for
//! opening a model, and waiting for a key frame under way, may take long.

use std::{
    path::PathBuf,
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
    animation::{Animation, Plan, SetReference, Surroundings},
    bus::Said,
    feed::Feed,
    figures::Figures,
    pictures::Pictures,
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
    pictures: Pictures,
    wanted: Plan,
    phase: Phase,
    /// Of the animation that is being started or runs; messages of those before it are stale.
    generation: u64,
    backoff: Backoff,
    /// When the model was loaded: from then on it counts as running.
    loaded: Option<Instant>,
    /// The failure that was told last.
    told: Option<String>,
    /// Warnings of this animation that were told.
    warned: Vec<String>,
    /// Sums of the animations before this one.
    past: Figures,
    /// Whether one is being stopped just now.
    ending: Arc<AtomicBool>,
}

/// What there is of the animation.
enum Phase {
    /// The last one is ending, or a pause after it; a word ends the pause.
    Waiting(Arc<Notify>),
    /// One is being started, from this plan.
    Starting(Box<Plan>),
    Running(Box<Animation>),
    /// There will be none any more.
    Over,
}

impl Stage {
    /// Begins to start an animation.
    pub fn new(
        around: Surroundings,
        feed: Feed,
        events: Events,
        notes: mpsc::Sender<Note>,
        pictures: Pictures,
        wanted: Plan,
    ) -> Self {
        let mut stage = Self {
            around,
            feed,
            events,
            notes,
            pictures,
            wanted,
            phase: Phase::Over,
            generation: 0,
            backoff: Backoff::new(RETRY),
            loaded: None,
            told: None,
            warned: Vec::new(),
            past: Figures::default(),
            ending: Arc::new(AtomicBool::new(false)),
        };
        stage.restart(Duration::ZERO);
        stage
    }

    /// What it is or is going to be.
    pub fn wanted(&self) -> &Plan {
        &self.wanted
    }

    /// Changes it: while running what can be, else by starting it anew.
    pub fn set(&mut self, wanted: Plan) {
        if wanted == self.wanted {
            return;
        }
        let same = wanted.is_same_but_for_parameters(&self.wanted);
        self.wanted = wanted;
        match &self.phase {
            Phase::Running(_) if !same => self.restart(Duration::ZERO),
            _ => self.settle(),
        }
    }

    /// Sets the reference of the animation that runs, if one does.
    pub fn reference_setter(&self) -> Option<SetReference> {
        self.running().map(Animation::reference_setter)
    }

    /// This reference was set, on the animation of this generation.
    pub fn note_reference(&mut self, generation: u64, path: PathBuf) {
        (self.wanted.reference, self.wanted.chosen) = (Some(path.clone()), true);
        match &mut self.phase {
            Phase::Running(animation) if generation == self.generation => {
                animation.note_reference(Some(path));
            }
            _ => self.settle(),
        }
    }

    /// Another reference was set on the animation than is wanted.
    pub fn restore_reference(&mut self) {
        if let Phase::Running(animation) = &mut self.phase {
            animation.note_reference(self.wanted.reference.clone());
            let Plan { reference, chosen, .. } = &self.wanted;
            self.pictures.restore(animation.reference_setter(), reference.clone(), *chosen);
        }
    }

    /// Tells animations apart.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The pause before the animation of this generation is over.
    pub fn due(&mut self, generation: u64) {
        if generation != self.generation || !matches!(self.phase, Phase::Waiting(_)) {
            return;
        }
        let (plan, around, notes) = (self.wanted.clone(), self.around.clone(), self.notes.clone());
        self.phase = Phase::Starting(Box::new(plan.clone()));
        tokio::spawn(async move {
            let said = notes.clone();
            let tell = move |words| {
                // Full only if the supervisor has fallen far behind, and then it has enough to go by.
                let _ = said.try_send(Note::Animation(generation, words));
            };
            let started = spawn_blocking(move || Animation::start(plan, around, tell)).await;
            let started = started.unwrap_or_else(|_| Err(anyhow::anyhow!("starting the animation panicked")));
            let _ = notes.send(Note::AnimationStarted(Box::new(started))).await;
        });
    }

    /// An animation was started, or could not be.
    pub fn started(&mut self, result: anyhow::Result<Animation>) {
        let Phase::Starting(tried) = &self.phase else { return };
        match result {
            Ok(animation) if animation.plan().is_same_but_for_parameters(&self.wanted) => {
                // One that has failed since it was started told so before it was known here.
                let failed = animation.failure();
                self.feed.connect(Some(animation.poses()));
                self.phase = Phase::Running(Box::new(animation));
                match failed {
                    Some(error) => self.fail(format!("{error:#}")),
                    None => self.settle(),
                }
            }
            Ok(misfit) => {
                self.phase = Phase::Running(Box::new(misfit));
                self.restart(Duration::ZERO);
            }
            Err(error) if **tried != self.wanted => {
                tracing::debug!("what is not wanted any more could not be started: {error:#}");
                self.backoff = Backoff::new(RETRY);
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
            Said::Error(why) if self.running().is_some() => self.fail(why),
            // Starting has failed, which is told when it is over.
            Said::Error(_) => {}
            Said::Warning(why) => self.warn(why),
            Said::Latency => {
                if let Some(animation) = self.running() {
                    spawn_blocking(animation.recalculate_latency());
                }
            }
            Said::Rung(to, reason) => {
                let message = format!("in-betweens are made by {to} ({reason})");
                self.events.emit(Kind::RungChanged, Some("animation"), message);
            }
            Said::Less(how, why) => {
                let message = format!("out of memory, key frames are made with {how} ({why})");
                self.events.emit(Kind::MemoryShort, Some("animation"), message);
            }
            Said::Loaded => {
                self.loaded = Some(Instant::now());
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
        let now = self.running().map(Animation::figures).unwrap_or_default();
        self.past.clone().plus(now)
    }

    /// Begins to end it for good. The future is true if nothing runs any more at `deadline`; of what cannot be waited
    /// for it says so at once.
    pub fn stop(&mut self, deadline: Instant) -> impl Future<Output = bool> + use<> {
        self.feed.connect(None);
        let loading = "the model is still being loaded, which is not waited for";
        let phase = std::mem::replace(&mut self.phase, Phase::Over);
        let ending = self.ending.load(Relaxed);
        async move {
            match phase {
                Phase::Running(animation) if animation.figures().loaded => {
                    let stopped = spawn_blocking(move || animation.stop());
                    let in_time = tokio::time::timeout_at(deadline.into(), stopped).await.is_ok();
                    if !in_time {
                        tracing::info!("a key frame is under way, which is not waited for any longer");
                    }
                    in_time
                }
                Phase::Running(animation) => {
                    tracing::info!("{loading}");
                    // Dropping it would wait.
                    std::mem::forget(animation);
                    false
                }
                Phase::Starting(_) => {
                    tracing::info!("{loading}");
                    false
                }
                Phase::Waiting(_) | Phase::Over => !ending,
            }
        }
    }

    fn running(&self) -> Option<&Animation> {
        match &self.phase {
            Phase::Running(animation) => Some(animation),
            _ => None,
        }
    }

    /// Brings what runs in line with what is wanted, and what waits to be started on its way.
    fn settle(&mut self) {
        match &mut self.phase {
            Phase::Running(animation) => {
                animation.set_params(self.wanted.params);
                if animation.plan().reference != self.wanted.reference {
                    self.restore_reference();
                }
            }
            Phase::Waiting(hurry) => {
                hurry.notify_one();
                self.backoff = Backoff::new(RETRY);
            }
            // When it is known what came of that, what is wanted is looked at again.
            Phase::Starting(_) | Phase::Over => {}
        }
    }

    fn fail(&mut self, why: String) {
        let ran = self.loaded.map_or(Duration::ZERO, |loaded| loaded.elapsed());
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

    /// Stops what runs and, after `pause`, starts what is wanted by then.
    fn restart(&mut self, pause: Duration) {
        self.feed.connect(None);
        self.generation += 1;
        self.warned.clear();
        self.loaded = None;
        let hurry = Arc::new(Notify::new());
        let old = match std::mem::replace(&mut self.phase, Phase::Waiting(hurry.clone())) {
            Phase::Running(old) => Some(old),
            _ => None,
        };
        if let Some(old) = &old {
            self.past = self.past.clone().plus(old.figures());
        }
        let (generation, notes, ending) = (self.generation, self.notes.clone(), self.ending.clone());
        tokio::spawn(async move {
            if let Some(old) = old {
                ending.store(true, Relaxed);
                // Waits for its end, whatever that is.
                let _ = spawn_blocking(move || old.stop()).await;
                ending.store(false, Relaxed);
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = hurry.notified() => {}
            }
            let _ = notes.send(Note::AnimationDue(generation)).await;
        });
    }
}

#[cfg(test)]
mod tests;
