//! One function for each kind of source: a bin with a pad `src`.

mod decode;
pub mod local;
pub mod network;
