//! Which frames the U-Net sees together in a clip longer than its window.

/// Windows of `size` frames over a clip, each starting `overlap` frames before
/// the one before it ends; the last ones wrap around to the clip's start.
///
/// MagicAnimate's `uniform` context scheduler (`pipelines/context.py`) with
/// stride 1 and step 0, the only way its pipeline calls it.
pub fn context_windows(frames: usize, size: usize, overlap: usize) -> Vec<Vec<i64>> {
    if frames <= size {
        return vec![(0..frames as i64).collect()];
    }
    let advance = size.saturating_sub(overlap).max(1);
    let window = |start: usize| (start..start + size).map(|frame| (frame % frames) as i64).collect();
    (0..frames).step_by(advance).map(window).collect()
}
