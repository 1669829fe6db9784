//! Where poses come from and where the video goes: one small GStreamer pipeline for each source and each output.
//!
//! ```text
//! source.rs, sources/  kind ─► bin that ends in raw video     source_pipe.rs  runs one, for ever
//! output.rs, outputs/  kind ─► bin that takes RGB frames      output_pipe.rs  runs one, for ever
//!                                                             runner.rs       what both do alike
//! ```
//!
//! A pipe opens its pipeline again whenever it fails, ends or stalls; none touches another, and none ever blocks who
//! feeds it.

pub mod backoff;
pub mod bus;
pub mod element;
pub mod output;
mod output_feed;
pub mod output_pipe;
mod output_role;
mod outputs;
mod pipe;
mod role;
mod runner;
pub mod source;
pub mod source_pipe;
mod sources;
#[cfg(test)]
mod tests;
pub mod timecode;
mod transition;

pub use output_pipe::OutputPipe;
pub use outputs::v4l2;
pub use pipe::{PipeChange, PipeEvent, PipeStatus};
pub use source_pipe::SourcePipe;
