//! The daemon: `keyframed run`.

pub mod clock;
pub mod handle;
