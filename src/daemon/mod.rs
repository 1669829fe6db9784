//! The daemon: `keyframed run`.

mod animation;
mod bus;
pub mod clock;
mod feed;
mod gallery;
pub mod handle;
mod nice;
mod params;
mod relay;
mod slate;
