//! Makes the models of keyframed: synthetic figures, datasets, training stages.

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

pub mod checkpoint;
pub mod cli;
pub mod compare;
pub mod config;
pub mod data;
pub mod eval;
pub mod export;
pub mod optim;
pub mod personal;
pub mod plot;
pub mod stages;
pub mod synth;
pub mod trainer;
pub mod video;
