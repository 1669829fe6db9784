//! Allocator settings and memory figures of this process.

use std::fs;

/// Lets glibc keep what libtorch frees. By default every large tensor is mapped, faulted in page by page and
/// unmapped again, which costs more time than the arithmetic on it.
///
/// Settings in the environment win: these calls would overrule them.
pub fn tune_allocator() {
    const MIB: libc::c_int = 1 << 20;
    for (variable, parameter, value) in [
        ("MALLOC_MMAP_THRESHOLD_", libc::M_MMAP_THRESHOLD, 256 * MIB),
        ("MALLOC_TRIM_THRESHOLD_", libc::M_TRIM_THRESHOLD, 1024 * MIB),
        ("MALLOC_TOP_PAD_", libc::M_TOP_PAD, 64 * MIB),
    ] {
        if std::env::var_os(variable).is_none() {
            // SAFETY: sets a number in the allocator; no other thread runs yet. A refusal changes nothing.
            unsafe { libc::mallopt(parameter, value) };
        }
    }
}

/// The most memory this process has held so far, in bytes (`VmHWM`), where the kernel tells.
pub fn peak_bytes() -> Option<u64> {
    status("VmHWM:")
}

/// The memory that this process holds now, in bytes (`VmRSS`).
pub fn resident_bytes() -> Option<u64> {
    status("VmRSS:")
}

fn status(name: &str) -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}
