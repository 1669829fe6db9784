//! The networks, if this build has them: the one place where the elements meet `keyframed-models`.
use std::path::PathBuf;

use keyframed_engine::{Frame, GenerateError, Nanos, Unfinished};

use crate::lcmanimate::{ContextMode, Schedule};

#[cfg(feature = "torch")]
mod torch;
#[cfg(feature = "torch")]
pub use torch::{film, open};

/// The model that comes with keyframed.
pub const EMBEDDED: &str = "mini";

/// What was loaded, or one line that says why not.
pub type LoadResult<T> = Result<T, String>;

/// Settings of a generator; `None` is the model's default.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Tuning {
    pub steps: Option<u32>,
    pub guidance_scale: Option<f64>,
    pub lora_scale: Option<f64>,
    /// What the text encoder reads; empty for none.
    pub prompt: String,
    pub context_frames: Option<u32>,
    pub context_mode: ContextMode,
    pub seed: u64,
}

impl Tuning {
    /// Whether a key frame costs the same by both. Guidance up to 1 is none.
    pub fn costs_as(&self, other: &Self) -> bool {
        let guided = |tuning: &Self| tuning.guidance_scale.map(|scale| scale > 1.0);
        let rest = |tuning: &Self| {
            let prompt = String::new();
            Self { guidance_scale: None, seed: 0, prompt, ..tuning.clone() }
        };
        guided(self) == guided(other) && rest(self) == rest(other)
    }

    /// Settings of which a key frame takes less memory: half of the context frames, with none left no guidance, which
    /// makes two pictures at once. `None` if nothing is left. `defaults` are the model's.
    pub fn less(&self, defaults: &Self) -> Option<Self> {
        let context = self.context_frames.or(defaults.context_frames).unwrap_or(0);
        let guidance = self.guidance_scale.or(defaults.guidance_scale).unwrap_or(1.0);
        if context == 0 && guidance <= 1.0 {
            return None;
        }
        let guidance = if context == 0 { 1.0 } else { guidance };
        Some(Self { context_frames: Some(context / 2), guidance_scale: Some(guidance), ..self.clone() })
    }
}

/// A generator whose settings can change between two key frames. As an engine's `KeyframeGenerator`, but that a key
/// frame may come out when later key poses have gone in.
pub trait Animator: Send {
    /// Changes the settings, while no key frame is on its way; if it fails the old ones stay in force.
    fn tune(&mut self, tuning: &Tuning) -> LoadResult<()>;

    /// Sets the picture to animate, while no key frame is on its way; if it fails the old one stays in force.
    ///
    /// # Errors
    /// Why it failed.
    fn set_reference(&mut self, reference: &Frame) -> Result<(), GenerateError>;

    /// Takes a key pose, and gives the first half of the key frame of the oldest that are on their way, if it is made.
    ///
    /// # Errors
    /// Why it failed; all that were on their way are lost then.
    fn begin(&mut self, pose: &Frame, pts: Nanos) -> Result<Option<Unfinished>, GenerateError>;

    /// The same without a key pose: `None` once none is on its way.
    ///
    /// # Errors
    /// As [`begin`](Self::begin).
    fn begin_rest(&mut self) -> Result<Option<Unfinished>, GenerateError>;

    /// Forgets what is on its way and the key frames so far; the reference stays.
    fn reset(&mut self);
}

/// A model whose description has been read, not yet its weights.
pub trait OpenModel: Send + Sync {
    /// Width and height of its pictures.
    fn size(&self) -> (u32, u32);
    /// Its defaults, every field filled in.
    fn defaults(&self) -> Tuning;
    /// Folder of the reference pictures that come with it, which may not exist.
    fn avatars(&self) -> PathBuf;
    /// Whether it takes the prompt, and its steps can be made in this order.
    fn check(&self, tuning: &Tuning, schedule: Schedule) -> LoadResult<()>;
    /// Reads the weights: seconds, for large models more. `device` is auto, cpu, cuda or cuda:N, `dtype` auto,
    /// f32, bf16 or f16.
    fn load(
        &self,
        tuning: &Tuning,
        device: &str,
        dtype: &str,
        schedule: Schedule,
    ) -> LoadResult<Box<dyn Animator>>;
}

/// An error and what caused it, on one line.
pub fn describe(err: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(err.source(), |cause| cause.source());
    causes.fold(err.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(not(feature = "torch"))]
const NO_NETWORKS: &str = "this build has no networks (feature `torch`)";

/// Opens a model by name or directory.
#[cfg(not(feature = "torch"))]
pub fn open(_model: &str) -> LoadResult<Box<dyn OpenModel>> {
    Err(NO_NETWORKS.into())
}

/// FILM of a model.
#[cfg(not(feature = "torch"))]
pub fn film(_model: &str, _device: &str) -> LoadResult<Box<dyn keyframed_engine::Interpolator>> {
    Err(NO_NETWORKS.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn less_is_half_the_context_and_then_no_guidance() {
        let defaults = Tuning { context_frames: Some(5), guidance_scale: Some(7.5), ..Tuning::default() };
        let mut tuning = Tuning::default();
        let mut seen = Vec::new();
        while let Some(less) = tuning.less(&defaults) {
            seen.push((less.context_frames.unwrap(), less.guidance_scale.unwrap()));
            tuning = less;
        }
        assert_eq!(seen, [(2, 7.5), (1, 7.5), (0, 7.5), (0, 1.0)]);
    }
}
