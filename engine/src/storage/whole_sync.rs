//! Whether one sync of a whole file system may stand for the syncs of all files that were written to it.

use std::fs::File;

/// File systems whose `syncfs` waits for all data and tells of writes that failed: ext2 to ext4, xfs, btrfs, f2fs, zfs, tmpfs
/// (numbers from `linux/magic.h` and the OpenZFS sources). Not so network file systems, which may leave data in the server's
/// memory, and FUSE, whose servers mostly never hear of it.
const TRUSTED: [u64; 6] = [0xEF53, 0x5846_5342, 0x9123_683E, 0xF2F5_2010, 0x2FC1_2FC1, 0x0102_1994];

/// The first kernel whose `syncfs` tells of data that it could not write back before.
const KERNEL_MIN: (u32, u32) = (5, 8);

/// Whether `syncfs` on the file system that holds this file or directory makes everything on it durable, or fails.
pub(crate) fn is_trusted(file: &File) -> bool {
    kernel_version().is_some_and(|version| version >= KERNEL_MIN)
        // The field's type differs between platforms
        && rustix::fs::fstatfs(file).is_ok_and(|stat| TRUSTED.contains(&(stat.f_type as u64)))
}

/// The version of the running kernel, e.g. (6, 1); `None` for another system than Linux.
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
