//! Stages 1, 3 (light rungs) and 4 of keyframed, and the traits of stages 2 and 3: no GStreamer, no libtorch.
//!
//! No stage reads a clock: time is a parameter, a running time in [nanoseconds](Nanos), so every rule can be
//! tested without sleeping. In flow order:
//!
//! ```text
//!  DensePose ─► 1 select ─► 2 generate ─► 3 interpolate ─► 4 pace ─► sink
//! ```
//!
//! | module | does |
//! |---|---|
//! | [`frame`] | pictures and timestamps that pass between the stages |
//! | [`pose`] | DensePose colours to part labels and back |
//! | [`thumbnail`] | the fixed-size copy on which poses are compared |
//! | [`select`], [`rate`] | 1: which pose frames become key poses; λ that follows the motion |
//! | [`generate`] | 2: what a key-frame generator is, and the single-slot mailbox in front of it |
//! | [`interpolate`], [`warp`], [`ladder`] | 3: what an interpolator is, the light rungs, the quality ladder |
//! | [`ahead`] | 3, live: which in-betweens FILM makes before they are due |
//! | [`grid`], [`timeline`], [`pace`] | 4: output ticks at a constant rate, offline and live |
//! | [`relay`] | one frame a tick between animation and outputs, live |
//! | [`counters`] | what every stage counts |

#![forbid(unsafe_code)]
// What comes from outside must not end the program: see docs/reliability.md.
#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::unimplemented
    )
)]

pub mod ahead;
pub mod counters;
pub mod error;
pub mod frame;
pub mod generate;
pub mod grid;
pub mod interpolate;
pub mod ladder;
pub mod pace;
pub mod pose;
pub mod rate;
pub mod relay;
pub mod select;
mod stretch;
pub mod thumbnail;
pub mod timeline;
pub mod warp;

pub use ahead::{Ahead, Costs, Slot};
pub use counters::{Counters, Latencies, Percentiles};
pub use error::{EngineError, GenerateError, InterpolateError};
pub use frame::{Frame, Nanos, SECOND, Timed};
pub use generate::{KeyframeGenerator, Mailbox, Policy, SendError, Unfinished, Waiting};
pub use grid::{Grid, Rate};
pub use interpolate::{Crossfade, Interpolator, Repeat, Rung};
pub use ladder::{Ladder, LadderConfig, Reason};
pub use pace::{PaceConfig, Pacer, Picture, Poll};
pub use pose::{Labels, Palette};
pub use relay::{Relay, RelayConfig};
pub use select::{Decision, KeyReason, SelectConfig, SelectStats, Selector};
pub use thumbnail::Thumbnail;
pub use timeline::{Tick, Timeline, What};
pub use warp::Warp;
