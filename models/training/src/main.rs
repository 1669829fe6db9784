//! Trainer of keyframed models.
fn main() {}
