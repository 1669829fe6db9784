//! Weight files and model directories.

mod digest;
mod fit;
mod import;
pub(crate) mod limits;
mod lora;
mod manifest;
mod model_dir;
mod pickle;
mod save;
mod torch_file;
mod weight;
mod weights;

pub use digest::{Digest, sha256};
pub use import::{Parts, Progress, import, modern};
pub use lora::Lora;
pub(crate) use manifest::network;
pub use manifest::{Defaults, FileEntry, Files, ImageSize, Manifest, Networks, PaletteName, PoseInput, Role};
pub use model_dir::{ENVIRONMENT, Installed, MANIFEST, ModelDir, list, search_path};
pub use save::{save, save_weights};
pub use weight::Weight;
pub use weights::{OpenedFile, WeightFile};
