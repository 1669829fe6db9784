//! What sources and outputs do differently.

use std::time::{Duration, Instant};

use super::pipe::PipeChange;

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Open again after a pause.
    Retry(PipeChange),
    /// Open again at once: nothing is wrong.
    Again,
    /// Never again.
    Over,
    /// A stop was requested.
    Stop,
}

/// One pipe's part in its running; the thread in `runner` calls it.
pub trait Role: Send + 'static {
    /// Builds the pipeline.
    fn build(&mut self) -> anyhow::Result<gst::Pipeline>;

    /// The state to bring it to first: PAUSED if something is to be done there.
    fn first_state(&self) -> gst::State {
        gst::State::Playing
    }

    /// A message that is no error came. `Some`: this attempt is over.
    fn message(&mut self, pipeline: &gst::Pipeline, message: &gst::Message) -> Option<End>;

    /// Whether frames flow.
    fn is_running(&self, pipeline: &gst::Pipeline) -> bool;

    /// How long frames must flow until the pipe counts as running; `again`: after a failure. What fails soon after
    /// each start, such as a recording on a full disk, shall not come and go for ever.
    fn settle(&self, again: bool) -> Duration;

    /// Looks for silence and stalls. `Some`: this attempt is over.
    fn check(&mut self, now: Instant) -> Option<End>;

    /// Asks for the stream's end before a stop; false if there is nothing to wait for.
    fn finish(&mut self, _pipeline: &gst::Pipeline) -> bool {
        false
    }

    /// The pipeline is about to be closed.
    fn closing(&mut self) {}
}
