//! The training stages, in the order in which `keyframed-train run` takes them.

pub mod denoise;
pub mod encode;
pub mod feed;
pub mod film;
pub mod lcm;
pub mod motion;
pub mod networks;
pub mod vae;

/// Peak signal-to-noise ratio in dB of a mean squared error of values in [-1, 1].
pub(crate) fn psnr(mse: f64) -> f64 {
    10.0 * (4.0 / mse.max(1e-12)).log10()
}
