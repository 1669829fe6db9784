//! Errors of this crate.

use std::path::PathBuf;

/// What can go wrong while a model is loaded or run.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A network asked for a tensor that the weight file lacks.
    #[error("{file}: tensor `{name}` is missing (the network needs shape {shape:?})")]
    MissingTensor {
        /// The weight file.
        file: PathBuf,
        /// Full key of the tensor.
        name: String,
        /// Shape that the network asked for.
        shape: Vec<i64>,
    },
    /// A tensor has another shape than the configuration says.
    #[error("{file}: tensor `{name}` has shape {found:?}, the network's configuration needs {expected:?}")]
    WrongShape {
        /// The weight file.
        file: PathBuf,
        /// Full key of the tensor.
        name: String,
        /// Shape in the file.
        found: Vec<i64>,
        /// Shape that the network asked for.
        expected: Vec<i64>,
    },
    /// The weight file holds tensors that no part of the network uses.
    #[error("{file}: {} tensors belong to no part of the network, the first is `{}`", .names.len(), .names.first().map(String::as_str).unwrap_or(""))]
    UnusedTensors {
        /// The weight file.
        file: PathBuf,
        /// Keys nobody asked for, sorted.
        names: Vec<String>,
    },
    /// A file cannot be read or written.
    #[error("{file}: {source}")]
    Io {
        /// The file.
        file: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file is not what its name promises.
    #[error("{file}: {reason}")]
    BadFile {
        /// The file.
        file: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
    /// A configuration value no network can be built from.
    #[error("{0}")]
    Config(String),
    /// A tensor or setting that this network cannot work on, with the reason.
    #[error("{0}")]
    Input(String),
    /// libtorch refused an operation.
    #[error("libtorch: {0}")]
    Torch(#[from] tch::TchError),
}

/// Result of this crate.
pub type Result<T, E = ModelError> = std::result::Result<T, E>;
