//! What this process holds.

use std::fs;

/// The most memory this process has held so far, in bytes (`VmHWM`), where the kernel tells.
pub fn peak_bytes() -> Option<u64> {
    status("VmHWM:")
}

/// The memory that this process holds now, in bytes (`VmRSS`).
pub fn resident_bytes() -> Option<u64> {
    status("VmRSS:")
}

/// Its threads.
pub fn threads() -> Option<u64> {
    line("Threads:")?.parse().ok()
}

/// Its open file descriptors.
pub fn open_files() -> Option<u64> {
    // The listing itself holds one.
    fs::read_dir("/proc/self/fd").ok().map(|entries| (entries.count() as u64).saturating_sub(1))
}

fn status(name: &str) -> Option<u64> {
    let kib: u64 = line(name)?.strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// What the kernel says behind `name`.
fn line(name: &str) -> Option<String> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let found = status.lines().find_map(|line| line.strip_prefix(name))?;
    Some(found.trim().to_owned())
}
