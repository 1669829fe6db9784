//! The MagicAnimate stack and FILM on libtorch.
//!
//! Networks spell the published checkpoints' keys and read the published
//! configuration names, so the small embedded model and the full-size
//! checkpoints run through the same code.

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

pub mod allocator;
pub mod appearance;
pub mod autoencoder;
pub mod bench;
pub mod checkpoint;
pub mod clip;
pub mod controlnet;
pub mod device;
pub mod error;
pub mod film;
pub mod generator;
pub mod kernels;
pub mod nn;
pub mod random;
pub mod reference;
pub mod registry;
mod rows;
pub mod scheduler;
pub mod stack;
pub mod taesd;
pub mod tokenizer;
pub mod torch_cuda;
pub mod torch_ext;
pub mod unet;
pub mod vae;
pub mod vars;

pub use appearance::AppearanceEncoder;
pub use checkpoint::ModelDir;
pub use controlnet::{ControlNet, ControlNetConfig, ControlNetResiduals};
pub use device::{DeviceChoice, DtypeChoice, Placement};
pub use error::{ModelError, Result};
pub use generator::{ContextMode, FilmInterpolator, LcmGenerator, PipelinedGenerator, Schedule, Settings};
pub use reference::{Bank, Fusion, ProjectedBank, Reference};
pub use stack::Stack;
pub use unet::{MotionConfig, UNet, UNetConfig};
pub use vars::{Init, Source, Vars};
