//! Ways to animate a clip, compared with each other and with the rendered truth.
//!
//! Clips are sequences of the gallery's avatars in motions that no training saw. Everything runs through the selector,
//! generator, interpolator and timeline that `keyframed` itself uses.

mod clip;
pub mod context;
pub mod fastervd;
pub(crate) mod flicker;
mod produce;

pub use clip::{Clip, RATE, cast_clips, clips};
pub use flicker::{MARGIN, flicker, still};
pub use produce::{Keys, Kind, Made, every, interpolated};

use indicatif::{ProgressBar, ProgressStyle};

/// A bar on the terminal that says what is running; elsewhere nothing.
fn progress(length: usize) -> anyhow::Result<ProgressBar> {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} {msg}")?;
    Ok(ProgressBar::new(length as u64).with_style(style))
}
