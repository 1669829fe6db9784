//! The networks, if this build has them: the one place where the elements meet `keyframed-models`.
use keyframed_engine::Interpolator;

/// What was loaded, or one line that says why not.
pub type LoadResult<T> = Result<T, String>;

/// FILM of a model directory (`None`: the embedded model) on a device.
pub fn film(_model: Option<&str>, _device: &str) -> LoadResult<Box<dyn Interpolator>> {
    Err("this build has no networks".into())
}
