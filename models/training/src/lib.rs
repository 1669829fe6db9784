//! Trainer of keyframed models: synthetic figures, datasets and training stages.

pub mod synth;
