//! Allocator settings.

/// Lets glibc keep what libtorch frees. By default every large tensor is mapped, faulted in page by page and
/// unmapped again, which costs more time than the arithmetic on it. For programs, before they start threads.
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
            // SAFETY: sets a number in the allocator, which locks itself. A refusal changes nothing.
            unsafe { libc::mallopt(parameter, value) };
        }
    }
}

/// Gives free memory back to the kernel: what reading and converting a network leaves would be held beside the next.
pub(crate) fn give_back() {
    // SAFETY: the allocator locks itself.
    unsafe { libc::malloc_trim(0) };
}
