//! The MagicAnimate stack and FILM on libtorch.
//!
//! Networks spell the published checkpoints' keys and read the published
//! configuration names, so the small embedded model and the full-size
//! checkpoints run through the same code.

pub mod appearance;
pub mod checkpoint;
pub mod clip;
pub mod controlnet;
pub mod error;
pub mod film;
pub mod nn;
pub mod reference;
pub mod scheduler;
pub mod taesd;
pub mod torch_ext;
pub mod unet;
pub mod vae;
pub mod vars;

pub use appearance::AppearanceEncoder;
pub use controlnet::{ControlNet, ControlNetConfig, ControlNetResiduals};
pub use error::{ModelError, Result};
pub use reference::{Bank, Fusion, ProjectedBank, Reference};
pub use unet::{MotionConfig, UNet, UNetConfig};
pub use vars::{Init, Source, Vars};
