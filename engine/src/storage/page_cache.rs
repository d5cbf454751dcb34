//! Reading what is on the disk rather than what this machine remembers of it.
//!
//! When pages can't be written back, the kernel tells whoever syncs next; from then on it takes them for clean, although the
//! disk does not hold what they say. After a run that did not end well, a checksum must not come from such pages: data that
//! is lost would be called right.

use std::fs::File;

use rustix::fs::{Advice, fadvise, syncfs};

use super::whole_sync;

/// Takes files out of memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PageCache {
    sync_each: bool,
}

impl PageCache {
    /// Writes back what is waiting on the file systems of these directories, since only clean pages can be dropped.
    pub(crate) fn write_back<'a>(directories: impl IntoIterator<Item = &'a File>) -> Self {
        let mut sync_each = false;
        for directory in directories {
            if whole_sync::is_trusted(directory) {
                // Pages that could not be written are clean after this as well: reading the disk shows which
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
        // Advice: a file system without a disk has nothing that it could read instead
        let _ = fadvise(file, 0, None, Advice::DontNeed);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::IoSliceMut;

    use rustix::io::{Errno, ReadWriteFlags, preadv2};

    use super::*;

    /// Whether the first page of a file is in memory; `None` where the file system can't tell.
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
            // Memory behind the file, or a file system that can't tell: nothing can be seen here
            if is_in_memory(&directory) || is_cached(&file).is_none() {
                return;
            }
            assert_eq!(is_cached(&file), Some(true));
            cache.forget(&file);
            assert_eq!(is_cached(&file), Some(false), "sync_each {sync_each}");
            assert_eq!(std::fs::read(&path).unwrap(), [7; 100_000]);
        }
    }

    /// Whether files in this directory have no disk behind them.
    pub(crate) fn is_in_memory(directory: &File) -> bool {
        const TMPFS: u64 = 0x0102_1994;
        rustix::fs::fstatfs(directory).is_ok_and(|stat| stat.f_type as u64 == TMPFS)
    }
}
