//! The MagicAnimate stack and FILM on libtorch.
//!
//! Networks spell the published checkpoints' keys and read the published
//! configuration names, so the small embedded model and the full-size
//! checkpoints run through the same code.

pub mod clip;
pub mod error;
pub mod film;
pub mod nn;
pub mod scheduler;
pub mod taesd;
pub mod torch_ext;
pub mod vae;
pub mod vars;

pub use error::{ModelError, Result};
pub use vars::{Init, Source, Vars};
