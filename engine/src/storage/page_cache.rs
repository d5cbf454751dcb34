//! Reads what is on the disk instead of what this host has cached.
//!
//! If pages can't be written back, the kernel reports it to the next sync. After that it treats the pages as clean,
//! although the disk has other content. After a failed run a checksum must not come from such pages, because lost data
//! would look correct.

use std::fs::File;

use rustix::fs::{Advice, fadvise, syncfs};

use super::whole_sync;

/// Drops files from the page cache.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PageCache {
    sync_each: bool,
}

impl PageCache {
    /// Writes back the dirty pages of these directories' file systems, because only clean pages can be dropped.
    pub(crate) fn write_back<'a>(directories: impl IntoIterator<Item = &'a File>) -> Self {
        let mut sync_each = false;
        for directory in directories {
            if whole_sync::is_trusted(directory) {
                // Pages that could not be written are clean after this too: reading the disk shows which
                let _ = syncfs(directory);
            } else {
                sync_each = true;
            }
        }
        PageCache { sync_each }
    }

    /// Makes the next reads of a file come from the disk.
    pub(crate) fn forget(self, file: &File) {
        if self.sync_each {
            // As above
            let _ = file.sync_data();
        }
        // This is advice: a file system without a disk has nothing else to read
        let _ = fadvise(file, 0, None, Advice::DontNeed);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::IoSliceMut;

    use rustix::io::{Errno, ReadWriteFlags, preadv2};

    use super::*;

    /// Returns whether the first page of a file is cached; `None` if the file system can't tell.
    pub(crate) fn is_cached(file: &File) -> Option<bool> {
        match preadv2(file, &mut [IoSliceMut::new(&mut [0; 512])], 0, ReadWriteFlags::NOWAIT) {
            Ok(_) => Some(true),
            Err(Errno::AGAIN) => Some(false),
            Err(_) => None,
        }
    }

    #[test]
    fn forgotten_file_is_read_from_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        for sync_each in [false, true] {
            std::fs::write(&path, [7; 100_000]).unwrap();
            let file = File::open(&path).unwrap();
            let directory = File::open(dir.path()).unwrap();
            let cache = if sync_each { PageCache { sync_each } } else { PageCache::write_back([&directory]) };
            // The file has no disk, or the file system can't tell: nothing to test here
            if is_in_memory(&directory) || is_cached(&file).is_none() {
                return;
            }
            assert_eq!(is_cached(&file), Some(true));
            cache.forget(&file);
            assert_eq!(is_cached(&file), Some(false), "sync_each {sync_each}");
            assert_eq!(std::fs::read(&path).unwrap(), [7; 100_000]);
        }
    }

    /// Returns whether files in this directory have no disk.
    pub(crate) fn is_in_memory(directory: &File) -> bool {
        const TMPFS: u64 = 0x0102_1994;
        rustix::fs::fstatfs(directory).is_ok_and(|stat| stat.f_type as u64 == TMPFS)
    }
}
