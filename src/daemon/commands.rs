//! What the supervisor does when it is asked.

use std::{path::PathBuf, sync::Arc};

use keyframed_control::{
    ErrorObject,
    types::{PipelineInfo, Reference, Snapshot},
};
use tokio::{sync::Semaphore, task::spawn_blocking};

use super::{
    animation::Plan,
    gallery::Gallery,
    handle::{Answer, Choice, Command},
    params,
    pictures::{Drawing, Granted, Wish, overruled},
    snapshot,
    supervisor::Supervisor,
};
use crate::telemetry::events::Kind;

// An answer whose receiver has gone away is nobody's loss: results of `send` are ignored throughout.
impl Supervisor {
    /// Carries out a command; what takes long is done elsewhere and answered later.
    pub fn carry_out(&mut self, command: Command) {
        match command {
            Command::ParamsSet(patch, answer) => {
                let set = params::patched(&self.params, &patch).inspect(|params| self.set_params(*params));
                self.answer(answer, set);
            }
            Command::ReferenceSet(choice, answer) => self.set_reference(choice, answer),
            Command::ReferenceList(answer) => self.list_references(answer),
            Command::PipelineList(answer) => {
                let all = self.config.pipelines.keys().filter_map(|name| self.pipeline_info(name));
                let _ = answer.send(Ok(all.collect()));
            }
            Command::PipelineSwitch(name, answer) => {
                let switched = self.switch(&name);
                self.answer(answer, switched);
            }
            Command::Pause(answer) => {
                self.set_paused(true);
                self.answer(answer, Ok(()));
            }
            Command::Resume(answer) => {
                self.set_paused(false);
                self.answer(answer, Ok(()));
            }
            Command::Snapshot(answer) => self.snapshot(answer),
            Command::Reload(answer) => self.begin_reload(Some(answer)),
            // The loop has taken it.
            Command::Shutdown(_) => {}
        }
        self.publish();
    }

    /// Answers; whoever has the answer sees in `status` what it changed.
    pub fn answer<T>(&mut self, to: Answer<T>, answer: Result<T, ErrorObject>) {
        self.publish();
        let _ = to.send(answer);
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

    fn snapshot(&self, answer: Answer<Snapshot>) {
        let relay = self.relay.clone();
        tokio::spawn(in_turn(self.turns.clone(), answer, move || {
            let shot = relay.newest().ok_or_else(|| ErrorObject::failed("no frame has been sent yet"))?;
            snapshot::encode(&shot).map_err(|error| failed(&error))
        }));
    }

    fn list_references(&self, answer: Answer<Vec<Reference>>) {
        let (gallery, current) = (self.gallery.clone(), self.stage.wanted().reference.clone());
        tokio::spawn(in_turn(self.turns.clone(), answer, move || {
            let current = current.or_else(|| gallery.models_own()).and_then(|path| path.canonicalize().ok());
            let all = gallery.list().into_iter().map(|entry| Reference {
                current: Some(&entry.path) == current.as_ref(),
                path: entry.path.display().to_string(),
                name: entry.name,
            });
            Ok(all.collect())
        }));
    }

    fn set_reference(&self, choice: Choice, answer: Answer<Reference>) {
        self.pictures.wish(Wish {
            choice,
            gallery: self.gallery.clone(),
            set: self.stage.reference_setter(),
            generation: self.stage.generation(),
            epoch: self.pictures.epoch(),
            answer,
        });
    }

    /// The end of setting a reference.
    pub fn reference_set(&mut self, granted: Granted) {
        let Granted { generation, epoch, mut result, answer } = granted;
        if epoch != self.pictures.epoch() && result.is_ok() {
            // It was under way when another was put in force.
            self.stage.restore_reference();
            result = Err(overruled());
        }
        match &result {
            Ok(reference) => {
                self.stage.note_reference(generation, PathBuf::from(&reference.path));
                self.redraw_slate();
                let message = format!("the reference is {}", reference.path);
                self.events.emit(Kind::ReferenceChanged, None, message);
            }
            Err(error) => self.events.emit(Kind::ReferenceRefused, None, error.message.clone()),
        }
        self.answer(answer, result);
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
            self.pictures.overrule();
            self.gallery = Gallery::new(&self.config.gallery, &pipeline.animation.model);
            self.stage.set(Plan::of(&pipeline.animation, self.params, self.config.video));
            self.redraw_slate();
            self.events.emit(Kind::PipelineSwitched, None, format!("pipeline {name} runs"));
        }
        self.pipeline_info(name).ok_or_else(|| ErrorObject::internal("the pipeline has gone"))
    }

    /// Draws the slate with what is in force now.
    pub fn redraw_slate(&self) {
        self.pictures.draw(Drawing {
            slate: self.config.slate.clone(),
            reference: self.stage.wanted().reference.clone(),
            gallery: self.gallery.clone(),
            video: self.config.video,
            relay: self.relay.clone(),
            events: self.events.clone(),
        });
    }
}

/// Does what takes long, when it is its turn and if somebody still wants to know.
async fn in_turn<T: Send + 'static>(
    turns: Arc<Semaphore>,
    mut answer: Answer<T>,
    work: impl FnOnce() -> Result<T, ErrorObject> + Send + 'static,
) {
    let turn = tokio::select! {
        turn = turns.acquire() => turn,
        () = answer.closed() => return,
    };
    let done = spawn_blocking(work).await;
    drop(turn);
    let _ = answer.send(done.unwrap_or_else(|_| Err(ErrorObject::internal("it panicked"))));
}

fn failed(error: &anyhow::Error) -> ErrorObject {
    ErrorObject::failed(format!("{error:#}"))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn nothing_is_done_out_of_turn_or_for_who_has_gone_away() {
        let turns = Arc::new(Semaphore::new(1));
        let begin = |work: Box<dyn FnOnce() -> u32 + Send>| {
            let (answer, answered) = oneshot::channel();
            (tokio::spawn(in_turn(turns.clone(), answer, || Ok(work()))), answered)
        };
        let ((go, goes), (done, is_done)) = (sync_channel::<()>(1), sync_channel(10));
        let done_too = done.clone();
        let first = begin(Box::new(move || goes.recv().map_or(0, |()| 1)));
        while turns.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let second = begin(Box::new(move || done.send(2).map_or(0, |()| 2)));
        let third = begin(Box::new(move || done_too.send(3).map_or(0, |()| 3)));
        drop(second.1);
        // It does not wait for its turn to notice.
        second.0.await.unwrap();
        go.send(()).unwrap();
        assert_eq!((first.1.await.unwrap(), third.1.await.unwrap()), (Ok(1), Ok(3)));
        assert_eq!(is_done.try_iter().collect::<Vec<_>>(), [3]);
    }
}
