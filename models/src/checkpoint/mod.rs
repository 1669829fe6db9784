//! Weight files and model directories.

mod digest;
mod import;
mod lora;
mod manifest;
mod model_dir;
mod pickle;
mod torch_file;
mod weights;

pub use digest::{Digest, sha256};
pub use import::{Parts, import, modern};
pub use lora::Lora;
pub(crate) use manifest::network;
pub use manifest::{Defaults, FileEntry, Files, ImageSize, Manifest, Networks, PaletteName, PoseInput, Role};
pub use model_dir::{ENVIRONMENT, Installed, MANIFEST, ModelDir, list, search_path};
pub use weights::{WeightFile, save};
