//! One function for each kind of output: the elements from raw video to the sink.

pub mod encoder;
pub mod local;
pub mod network;
pub mod pipewire;
pub mod recording;
pub mod v4l2;
