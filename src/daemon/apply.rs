//! Reloading: a new configuration is read and checked away from the supervisor, and then applied all at once. One at
//! a time: who asks meanwhile gets another reading afterwards.

use std::path::Path;

use keyframed_control::{ErrorObject, types::Reloaded};
use tokio::task::spawn_blocking;

use super::{
    animation::Plan,
    gallery::Gallery,
    handle::Answer,
    reload::Changes,
    slate,
    supervisor::{Note, Supervisor},
};
use crate::{
    config::{
        self,
        check::{self, Severity},
        resolved::Config,
    },
    telemetry::events::Kind,
};

/// Reloads under way.
#[derive(Default)]
pub struct Reloads {
    running: Option<Round>,
    /// Who asked since that one began.
    next: Option<Vec<Answer<Reloaded>>>,
}

/// One reading of the configuration.
struct Round {
    waiting: Vec<Answer<Reloaded>>,
    /// Whether the service manager was told that it began, and so must be told that it is over.
    told: bool,
}

impl Supervisor {
    /// Reads the configuration anew, for a client if there is an answer to give.
    pub fn begin_reload(&mut self, answer: Option<Answer<Reloaded>>) {
        if self.reloads.running.is_some() {
            self.reloads.next.get_or_insert_default().extend(answer);
        } else {
            self.read_config(answer.into_iter().collect());
        }
    }

    fn read_config(&mut self, waiting: Vec<Answer<Reloaded>>) {
        // Before the first frame is out the daemon is not ready, and must not be called so.
        let told = self.ready;
        if told {
            self.notify.reloading();
        }
        self.reloads.running = Some(Round { waiting, told });
        let (file, notes) = (self.file.clone(), self.notes.clone());
        tokio::spawn(async move {
            let read = spawn_blocking(move || read(file.as_deref())).await;
            let config = read.unwrap_or_else(|_| Err("reading the configuration panicked".into()));
            let _ = notes.send(Note::Config(Box::new(config))).await;
        });
    }

    /// Applies the configuration that was read; one that does not hold changes nothing.
    pub fn end_reload(&mut self, config: Result<Config, String>) {
        let Some(round) = self.reloads.running.take() else { return };
        let result = match config {
            Ok(config) => {
                let reloaded = self.apply(config);
                self.events.emit(Kind::Reloaded, None, summary(&reloaded));
                Ok(reloaded)
            }
            Err(why) => {
                let why = format!("{why}. Nothing was changed");
                self.events.emit(Kind::ReloadRefused, None, why.clone());
                Err(ErrorObject::failed(why))
            }
        };
        if round.told {
            self.notify.ready();
        }
        for answer in round.waiting {
            self.answer(answer, result.clone());
        }
        if let Some(waiting) = self.reloads.next.take() {
            self.read_config(waiting);
        }
    }

    fn apply(&mut self, new: Config) -> Reloaded {
        let changes = Changes::between(&self.config, &new, &self.pipeline, &self.params);
        if changes.log
            && let Err(error) = self.log.apply(&new.log)
        {
            tracing::warn!("{error:#}");
        }
        self.config = new.with_deferred_of(&self.config);
        self.pipeline.clone_from(&changes.pipeline);
        self.params = changes.params;
        let Config { pipelines, sources, video, slate, .. } = &self.config;
        let Some(pipeline) = pipelines.get(&self.pipeline) else { return changes.summary };
        if changes.video {
            // A plain one, until the picture on it has been read.
            self.relay.set_video(*video, slate::draw(None, *video), slate.after);
        }
        self.relay.set_slate_after(slate.after);
        if let Some(source) = sources.get(&pipeline.source).filter(|_| changes.source) {
            self.parts.set_source(&pipeline.source, source);
        }
        if !(changes.stop.is_empty() && changes.start.is_empty()) {
            self.parts.set_outputs(&self.config.outputs, &changes.stop, *video);
        }
        let mut wanted = Plan::of(&pipeline.animation, self.params, *video);
        match changes.reference {
            Some(_) => self.pictures.overrule(),
            None => {
                let now = self.stage.wanted();
                (wanted.reference, wanted.chosen) = (now.reference.clone(), now.chosen);
            }
        }
        self.gallery = Gallery::new(&self.config.gallery, &pipeline.animation.model);
        self.stage.set(wanted);
        if changes.slate || changes.reference.is_some() {
            self.redraw_slate();
        }
        changes.summary
    }
}

/// A configuration that would hold in a run, or why there is none.
fn read(file: Option<&Path>) -> Result<Config, String> {
    let config = config::load(file).map_err(|error| error.to_string())?;
    let wrong = check::all(&config, true).into_iter().filter(|finding| finding.severity == Severity::Error);
    let wrong: Vec<_> = wrong.map(|finding| format!("{}: {}", finding.part, finding.message)).collect();
    match (wrong.is_empty(), &config.file) {
        (true, _) => Ok(config),
        (false, Some(file)) => Err(format!("{}: {}", file.display(), wrong.join("; "))),
        (false, None) => Err(wrong.join("; ")),
    }
}

fn summary(reloaded: &Reloaded) -> String {
    let part = |what: &str, names: &[String]| {
        if names.is_empty() { String::new() } else { format!("; {what}: {}", names.join(", ")) }
    };
    let parts = part("started anew", &reloaded.restarted)
        + &part("applied", &reloaded.applied)
        + &part("with the next start", &reloaded.deferred);
    if parts.is_empty() { "reloaded; nothing has changed".into() } else { format!("reloaded{parts}") }
}
