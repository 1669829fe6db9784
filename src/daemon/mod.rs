//! The daemon: `keyframed run`.

pub mod handle;
