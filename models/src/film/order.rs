//! Several in-betweens by repeated interpolation, as the port's script does it.

/// One interpolation of a series: picture `new` from pictures `left` and `right`.
///
/// Positions count from 0 (first picture) to `frames + 1` (second picture).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Insertion {
    /// Position of the earlier picture, given or made before.
    pub left: usize,
    /// Position of the later picture.
    pub right: usize,
    /// Position of the picture to make.
    pub new: usize,
    /// Where `new` lies between the two, 0..1.
    pub dt: f32,
}

/// The order in which `frames` evenly spaced in-betweens are made: each time the
/// one nearest to the middle of the gap it lies in.
///
/// Computed in float32 in the script's order of operations, because its ties
/// are decided by rounding.
pub fn multi_frame_order(frames: usize) -> Vec<Insertion> {
    let last = frames + 1;
    let at: Vec<f32> = (0..=last).map(|i| even(i, last)).collect();
    let mut known = vec![0, last];
    let mut remaining: Vec<usize> = (1..last).collect();
    let mut order = Vec::with_capacity(frames);
    while !remaining.is_empty() {
        let mut best: Option<(f32, usize, usize)> = None;
        for gap in 0..known.len() - 1 {
            let (start, end) = (at[known[gap]], at[known[gap + 1]]);
            for (slot, &position) in remaining.iter().enumerate() {
                let distance = ((at[position] - start) / (end - start) - 0.5).abs();
                if best.is_none_or(|(least, ..)| distance < least) {
                    best = Some((distance, gap, slot));
                }
            }
        }
        let Some((_, gap, slot)) = best else { break };
        let new = remaining.remove(slot);
        let (left, right) = (known[gap], known[gap + 1]);
        let dt = (at[new] - at[left]) / (at[right] - at[left]);
        order.push(Insertion { left, right, new, dt });
        known.insert(known.partition_point(|&k| k < new), new);
    }
    order
}

/// `torch.linspace(0, 1, last + 1)[i]`: counted from the nearer end, product and difference rounded once.
fn even(i: usize, last: usize) -> f32 {
    let step = 1.0 / last as f32;
    if i < last.div_ceil(2) { step * i as f32 } else { (-step).mul_add((last - i) as f32, 1.0) }
}
