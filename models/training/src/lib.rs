//! Makes the models of keyframed: synthetic figures, datasets, training stages.

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
