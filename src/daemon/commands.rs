//! What the supervisor does when it is asked.

use std::path::{Path, PathBuf};

use keyframed_control::{
    ErrorObject,
    types::{PipelineInfo, Reference, Reloaded},
};
use tokio::task::spawn_blocking;

use super::{
    animation::Plan,
    gallery::{self, Gallery},
    handle::{Answer, Choice, Command},
    params,
    reload::Changes,
    slate, snapshot,
    supervisor::{Note, ReferenceSet, Supervisor},
};
use crate::{
    config::{
        self,
        resolved::{Animation, Config, Slate, Video},
    },
    telemetry::events::Kind,
};

// An answer whose receiver has gone away is nobody's loss: results of `send` are ignored throughout.
impl Supervisor {
    /// Carries out a command; what takes long is done elsewhere and answered later.
    pub fn carry_out(&mut self, command: Command) {
        match command {
            Command::ParamsSet(patch, answer) => {
                let set = params::patched(&self.params, &patch).inspect(|params| self.set_params(*params));
                let _ = answer.send(set);
            }
            Command::ReferenceSet(choice, answer) => self.set_reference(choice, answer),
            Command::ReferenceList(answer) => self.list_references(answer),
            Command::PipelineList(answer) => {
                let all = self.config.pipelines.keys().filter_map(|name| self.pipeline_info(name));
                let _ = answer.send(Ok(all.collect()));
            }
            Command::PipelineSwitch(name, answer) => {
                let _ = answer.send(self.switch(&name));
            }
            Command::Pause(answer) => {
                self.set_paused(true);
                let _ = answer.send(Ok(()));
            }
            Command::Resume(answer) => {
                self.set_paused(false);
                let _ = answer.send(Ok(()));
            }
            Command::Snapshot(answer) => self.snapshot(answer),
            Command::Reload(answer) => self.begin_reload(Some(answer)),
            // The loop has taken it.
            Command::Shutdown(_) => {}
        }
        self.publish();
    }

    fn set_params(&mut self, params: keyframed_control::types::Params) {
        if params == self.params {
            return;
        }
        self.params = params;
        self.stage.set(Plan { params, ..self.stage.wanted().clone() });
        self.events.emit(Kind::ParamsChanged, None, "parameters changed");
    }

    fn set_paused(&mut self, paused: bool) {
        if paused == self.paused {
            return;
        }
        self.paused = paused;
        self.feed.set_paused(paused);
        let (kind, text) = if paused {
            (Kind::Paused, "generating is paused")
        } else {
            (Kind::Resumed, "generating goes on")
        };
        self.events.emit(kind, None, text);
    }

    fn snapshot(&self, answer: Answer<keyframed_control::types::Snapshot>) {
        let Some(shot) = self.relay.newest() else {
            let _ = answer.send(Err(ErrorObject::failed("no frame has been sent yet")));
            return;
        };
        spawn_blocking(move || {
            let _ = answer.send(snapshot::encode(&shot).map_err(|error| failed(&error)));
        });
    }

    fn list_references(&self, answer: Answer<Vec<Reference>>) {
        let (gallery, current) = (self.gallery.clone(), self.stage.wanted().reference.clone());
        spawn_blocking(move || {
            let current = current.and_then(|path| path.canonicalize().ok());
            let all = gallery.list().into_iter().map(|entry| Reference {
                current: Some(&entry.path) == current.as_ref(),
                path: entry.path.display().to_string(),
                name: entry.name,
            });
            let _ = answer.send(Ok(all.collect()));
        });
    }

    fn set_reference(&self, choice: Choice, answer: Answer<Reference>) {
        let (gallery, order, notes) = (self.gallery.clone(), self.references.clone(), self.notes.clone());
        let (setter, generation) = (self.stage.reference_setter(), self.stage.generation());
        tokio::spawn(async move {
            let _turn = order.lock().await;
            let set = spawn_blocking(move || find_and_set(&gallery, &choice, setter)).await;
            let result = set.unwrap_or_else(|_| Err(ErrorObject::internal("reading the picture panicked")));
            let _ = notes.send(Note::Reference(ReferenceSet { generation, result, answer })).await;
        });
    }

    /// The end of setting a reference.
    pub fn reference_set(&mut self, set: ReferenceSet) {
        match &set.result {
            Ok(reference) => {
                self.stage.note_reference(set.generation, PathBuf::from(&reference.path));
                self.redraw_slate();
                self.events.emit(
                    Kind::ReferenceChanged,
                    None,
                    format!("the reference is {}", reference.path),
                );
            }
            Err(error) => self.events.emit(Kind::ReferenceRefused, None, error.message.clone()),
        }
        let _ = set.answer.send(set.result);
    }

    fn pipeline_info(&self, name: &str) -> Option<PipelineInfo> {
        let pipeline = self.config.pipelines.get(name)?;
        Some(PipelineInfo {
            name: name.to_owned(),
            source: pipeline.source.clone(),
            model: pipeline.animation.model.clone(),
            current: name == self.pipeline,
        })
    }

    fn switch(&mut self, name: &str) -> Result<PipelineInfo, ErrorObject> {
        let unknown = || {
            let all: Vec<_> = self.config.pipelines.keys().map(String::as_str).collect();
            ErrorObject::invalid_params(format!(
                "there is no pipeline {name:?}; there are {}",
                all.join(", ")
            ))
        };
        let pipeline = self.config.pipelines.get(name).cloned().ok_or_else(unknown)?;
        let source = self.config.sources.get(&pipeline.source).cloned().ok_or_else(unknown)?;
        if name != self.pipeline {
            name.clone_into(&mut self.pipeline);
            self.parts.set_source(&pipeline.source, &source);
            self.params = pipeline.animation.params;
            self.stage.set(plan(&pipeline.animation, self.params, self.config.video));
            self.gallery = Gallery::new(&self.config.gallery, &pipeline.animation.model).into();
            self.redraw_slate();
            self.events.emit(Kind::PipelineSwitched, None, format!("pipeline {name} runs"));
        }
        self.pipeline_info(name).ok_or_else(|| ErrorObject::internal("the pipeline has gone"))
    }

    fn redraw_slate(&self) {
        let (slate, reference) = (self.config.slate.clone(), self.stage.wanted().reference.clone());
        let (relay, video, events) = (self.relay.clone(), self.config.video, self.events.clone());
        spawn_blocking(move || {
            let (buffer, trouble) = make_slate(&slate, reference.as_deref(), video);
            if let Some(why) = trouble {
                events.emit(Kind::AnimationWarning, Some("slate"), why);
            }
            relay.set_slate(buffer, video);
        });
    }

    /// Reads the configuration anew.
    pub fn begin_reload(&mut self, answer: Option<Answer<Reloaded>>) {
        self.notify.reloading();
        let (file, notes) = (self.file.clone(), self.notes.clone());
        tokio::spawn(async move {
            let read = move || config::load(file.as_deref()).map_err(|error| error.to_string());
            let read = spawn_blocking(read).await;
            let config = read.unwrap_or_else(|_| Err("reading the configuration panicked".into()));
            let _ = notes.send(Note::Config(Box::new(config), answer)).await;
        });
    }

    /// Applies the configuration that was read; one that is not valid changes nothing.
    pub fn end_reload(&mut self, config: Result<Config, String>, answer: Option<Answer<Reloaded>>) {
        let result = match config {
            Ok(config) => {
                let reloaded = self.apply(config);
                self.events.emit(Kind::Reloaded, None, summary(&reloaded));
                Ok(reloaded)
            }
            Err(why) => {
                self.events.emit(Kind::ReloadRefused, None, format!("{why}. Nothing was changed"));
                Err(ErrorObject::failed(format!("{why}. Nothing was changed")))
            }
        };
        self.notify.ready();
        if let Some(answer) = answer {
            let _ = answer.send(result);
        }
    }

    fn apply(&mut self, new: Config) -> Reloaded {
        let changes = Changes::between(&self.config, &new, &self.pipeline, &self.params);
        if changes.log
            && let Err(error) = self.log.apply(&new.log)
        {
            tracing::warn!("{error:#}");
        }
        self.config = new;
        self.pipeline.clone_from(&changes.pipeline);
        self.params = changes.params;
        let Config { pipelines, sources, video, slate, .. } = &self.config;
        let Some(pipeline) = pipelines.get(&self.pipeline) else { return changes.summary };
        if changes.video {
            let (buffer, _) = make_slate(slate, self.stage.wanted().reference.as_deref(), *video);
            self.relay.set_video(*video, buffer, slate.after);
        }
        self.relay.set_slate_after(slate.after);
        if let Some(source) = sources.get(&pipeline.source).filter(|_| changes.source) {
            self.parts.set_source(&pipeline.source, source);
        }
        if !(changes.stop.is_empty() && changes.start.is_empty()) {
            self.parts.set_outputs(&self.config.outputs, &changes.stop, *video);
        }
        let mut wanted = plan(&pipeline.animation, self.params, *video);
        if changes.reference.is_none() {
            wanted.reference.clone_from(&self.stage.wanted().reference);
        }
        self.stage.set(wanted);
        self.gallery = Gallery::new(&self.config.gallery, &pipeline.animation.model).into();
        if changes.slate || changes.reference.is_some() {
            self.redraw_slate();
        }
        changes.summary
    }
}

/// Of a pipeline as configured; the model's first picture is named, so that changing back to it is a change.
pub fn plan(animation: &Animation, params: keyframed_control::types::Params, video: Video) -> Plan {
    let first = || Gallery::new(&[], &animation.model).list().into_iter().next().map(|entry| entry.path);
    let reference = animation.reference.clone().or_else(first);
    Plan { config: animation.clone(), params, reference, video }
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

fn find_and_set(
    gallery: &Gallery,
    choice: &Choice,
    set: impl FnOnce(&Path) -> bool,
) -> Result<Reference, ErrorObject> {
    let path = gallery.find(choice).map_err(|error| ErrorObject::invalid_params(format!("{error:#}")))?;
    gallery::read(&path).map_err(|error| failed(&error))?;
    if !set(&path) {
        return Err(ErrorObject::failed(format!("{} cannot be animated", path.display())));
    }
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Reference { name, path: path.display().to_string(), current: true })
}

fn failed(error: &anyhow::Error) -> ErrorObject {
    ErrorObject::failed(format!("{error:#}"))
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
