//! keyframed: DensePose in, avatar out.
fn main() {}
