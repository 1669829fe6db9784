//! Faults on demand, in debug builds alone: tests of a whole program strike its generator with them while it runs.
//!
//! `KEYFRAMED_FAULT_FILE` names a file. When it exists, the next key frame fails as it says, once, and it is removed:
//! `panic`, or `memory` for what libtorch says when a GPU has none left.

/// Fails if that was asked for.
#[cfg(debug_assertions)]
#[expect(clippy::panic, reason = "that is what was asked for")]
pub fn strike() -> Result<(), String> {
    let Some(file) = std::env::var_os("KEYFRAMED_FAULT_FILE") else { return Ok(()) };
    let Ok(asked) = std::fs::read_to_string(&file) else { return Ok(()) };
    let _ = std::fs::remove_file(&file);
    match asked.trim() {
        "panic" => panic!("a panic that was asked for"),
        "memory" => Err("CUDA out of memory. Tried to allocate 2.00 GiB".into()),
        other => Err(format!("no fault is called {other:?}")),
    }
}

/// Never fails.
#[cfg(not(debug_assertions))]
#[expect(clippy::unnecessary_wraps, reason = "in debug builds it can")]
pub fn strike() -> Result<(), String> {
    Ok(())
}
