//! Room on a volume.

use std::path::Path;

/// Free bytes on the volume of `path`, as far as they are for everybody.
pub fn free_bytes(path: &Path) -> Option<u64> {
    nix::sys::statvfs::statvfs(path).ok().map(|s| s.blocks_available() * s.fragment_size())
}

/// Why something on the volume of `path` may have failed, in brackets; empty where there is room. A full disk is the most
/// common reason of all, and programs hide it in the middle of their output.
pub fn hint(path: &Path) -> String {
    let free = free_bytes(path).unwrap_or(u64::MAX);
    let inodes = nix::sys::statvfs::statvfs(path).map(|s| s.files_available()).unwrap_or(u64::MAX);
    match (free >> 20, inodes) {
        (0..64, _) => format!(" (the disk is full: {} MB free on the volume of {})", free >> 20, path.display()),
        (_, 1..100) => format!(" (the volume of {} has only {inodes} inodes free)", path.display()),
        _ => String::new(),
    }
}
