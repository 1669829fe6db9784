//! A key frame's work as one CUDA graph: some thousand small launches become one.
//!
//! A graph reads and writes the memory it was noted with. So the pose picture and the context are copied into
//! buffers that stay, and what comes out is copied from there, before the next replay writes over it.

use super::{Context, ContextMode, LcmGenerator, ReferenceState};
use crate::{error::Result, torch_cuda::Graph};
use tch::{Device, Tensor};

impl Context {
    fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        let states = self.states.iter().flat_map(|states| states.tensors());
        [&self.latents, &self.embedded].into_iter().chain(states)
    }

    /// The same in tensors of its own.
    fn copied(&self) -> Self {
        Self {
            latents: self.latents.copy(),
            embedded: self.embedded.copy(),
            states: self.states.iter().map(|states| states.copied()).collect(),
        }
    }

    /// Writes `other`'s values over its own.
    fn take_values(&self, other: &Self) -> Result<()> {
        self.tensors().zip(other.tensors()).try_for_each(|(own, other)| {
            own.shallow_clone().f_copy_(other)?;
            Ok(())
        })
    }
}

/// Noted work and the memory it runs on.
struct Noted {
    pose: Tensor,
    context: Vec<Context>,
    made: Context,
    /// None on the processor: the work is done again.
    graph: Option<Graph>,
}

/// Whether and how far key frames come from a graph.
#[derive(Default)]
pub(super) struct Graphs {
    wanted: bool,
    noted: Option<Noted>,
}

impl Graphs {
    pub(super) fn new(wanted: bool) -> Self {
        Self { wanted, noted: None }
    }

    /// Whatever the graph was noted with has changed.
    pub(super) fn forget(&mut self) {
        self.noted = None;
    }

    pub(super) fn are_replayed(&self) -> bool {
        self.noted.as_ref().is_some_and(|noted| noted.graph.is_some())
    }

    /// The next key frame of `generator`, from the graph where there is one.
    pub(super) fn new_frame(
        &mut self,
        generator: &LcmGenerator,
        pose: &Tensor,
        reference: &ReferenceState,
    ) -> Result<Context> {
        let full = generator.context.len() + 1 == generator.window();
        let cached = generator.settings.context_mode == ContextMode::Cache || generator.window() == 1;
        if !(self.wanted && full && cached) {
            return generator.new_frame(pose, generator.context.iter(), reference);
        }
        if self.noted.as_ref().is_some_and(|noted| noted.context.len() != generator.context.len()) {
            self.noted = None;
        }
        if self.noted.is_none() {
            match Noted::new(generator, pose, reference) {
                Ok(noted) => self.noted = Some(noted),
                Err(error) => {
                    tracing::warn!(%error, "no CUDA graph of a key frame: its operations are started one by one");
                    self.wanted = false;
                    return generator.new_frame(pose, generator.context.iter(), reference);
                }
            }
        }
        match &mut self.noted {
            Some(noted) => noted.run(generator, pose, reference),
            None => generator.new_frame(pose, generator.context.iter(), reference),
        }
    }
}

impl Noted {
    fn new(generator: &LcmGenerator, pose: &Tensor, reference: &ReferenceState) -> Result<Self> {
        let pose = pose.copy();
        let context: Vec<Context> = generator.context.iter().map(Context::copied).collect();
        let work = || generator.new_frame(&pose, context.iter(), reference);
        let (graph, made) = match generator.place.device {
            Device::Cuda(index) => {
                let (graph, made) = Graph::capture(index, work)?;
                tracing::info!("key frames are replayed as one CUDA graph");
                (Some(graph), made)
            }
            _ => (None, work()?.copied()),
        };
        Ok(Self { pose, context, made, graph })
    }

    fn run(
        &mut self,
        generator: &LcmGenerator,
        pose: &Tensor,
        reference: &ReferenceState,
    ) -> Result<Context> {
        self.pose.shallow_clone().f_copy_(pose)?;
        for (own, other) in self.context.iter().zip(&generator.context) {
            own.take_values(other)?;
        }
        match &mut self.graph {
            Some(graph) => graph.replay()?,
            None => {
                self.made.take_values(&generator.new_frame(&self.pose, self.context.iter(), reference)?)?
            }
        }
        Ok(self.made.copied())
    }
}
