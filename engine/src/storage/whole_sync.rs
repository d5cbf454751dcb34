//! Determines whether one sync of a whole file system can replace the syncs of all files that were written to it.

use std::fs::File;

/// File systems whose `syncfs` waits for all data and reports failed writes: ext2 to ext4, xfs, btrfs, f2fs, zfs, tmpfs
/// (numbers from `linux/magic.h` and the OpenZFS sources). Network file systems are missing, because they may leave
/// data in the server's memory. So is FUSE, whose servers mostly do not receive the call.
const TRUSTED: [u64; 6] = [0xEF53, 0x5846_5342, 0x9123_683E, 0xF2F5_2010, 0x2FC1_2FC1, 0x0102_1994];

/// The first kernel whose `syncfs` reports data that could not be written back before.
const KERNEL_MIN: (u32, u32) = (5, 8);

/// Returns whether `syncfs` on the file system of this file or directory makes everything on it durable, or fails.
pub(crate) fn is_trusted(file: &File) -> bool {
    kernel_version().is_some_and(|version| version >= KERNEL_MIN)
        // The field's type differs between platforms
        && rustix::fs::fstatfs(file).is_ok_and(|stat| TRUSTED.contains(&(stat.f_type as u64)))
}

/// Returns the version of the running kernel, e.g. (6, 1); `None` for systems other than Linux.
fn kernel_version() -> Option<(u32, u32)> {
    let uname = rustix::system::uname();
    if uname.sysname().to_bytes() != b"Linux" {
        return None;
    }
    let release = uname.release().to_string_lossy().into_owned();
    let mut parts = release.split(|char: char| !char.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_system_that_has_no_disk_is_not_trusted() {
        assert!(!is_trusted(&File::open("/proc").unwrap()));
    }
}
