//! All four stages together over simulated time: what an output promises whatever the input and the generator do,
//! and how λ follows both.

mod control;
mod day;
mod film;
mod pacing;
mod sim;

use keyframed_engine::{Nanos, SECOND};

const MS: Nanos = SECOND / 1000;
