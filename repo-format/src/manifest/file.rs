//! A file's entry in the manifest.

use std::num::NonZero;

use crate::hash::Sha1;

use super::OwnerId;

/// A file of a backup. A backup may have millions of files, so the struct is small.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestFile {
    /// The manifest name: `pg_data/...` or `pg_tblspc/<oid>/...`.
    pub name: Box<str>,
    /// The size in bytes as copied; before the copy, the size at the scan or in the prior backup.
    pub size: u64,
    /// The size in bytes at the scan.
    pub size_original: u64,
    /// The size in bytes as stored. It equals `size` until the copy, and if the manifest does not specify another size.
    pub size_repo: u64,
    /// The modification time in seconds since 1970.
    pub timestamp: i64,
    /// The checksum of the file's bytes; `None` before the copy.
    pub checksum: Option<Sha1>,
    /// The checksum of the stored bytes; `None` before the copy, and if the stored bytes are the file's own bytes.
    pub checksum_repo: Option<Sha1>,
    /// The permission bits.
    pub mode: u16,
    /// The owner.
    pub user: OwnerId,
    /// The group.
    pub group: OwnerId,
    /// The backup that contains the bytes, as an index into the manifest's references; `None` if it is this backup.
    pub reference: Option<u32>,
    /// The location of the bytes if they are in a bundle.
    pub bundle: Option<Bundle>,
    /// How the bytes are split if the file is stored in blocks.
    pub block: Option<BlockIncr>,
    /// The result of the page check; `None` if pages were not checked.
    pub page_check: Option<PageCheck>,
}

impl ManifestFile {
    /// Creates a file that was found but not copied, with an unknown owner.
    pub fn new(name: &str, size: u64, timestamp: i64) -> Self {
        ManifestFile {
            name: name.into(),
            size,
            size_original: size,
            size_repo: size,
            timestamp,
            checksum: None,
            checksum_repo: None,
            mode: 0o600,
            user: OwnerId::UNKNOWN,
            group: OwnerId::UNKNOWN,
            reference: None,
            bundle: None,
            block: None,
            page_check: None,
        }
    }

    /// Returns the bytes that the file uses in the repository: the stored size, or for older manifests the size.
    pub fn repo_bytes(&self) -> u64 {
        if self.size_repo > 0 { self.size_repo } else { self.size }
    }

    /// Returns how the stored bytes are split into blocks; `None` if the file is stored as a whole. Such a file may
    /// have a block size too: pgBackRest keeps it if a later backup of the set does not store blocks.
    pub fn stored_blocks(&self) -> Option<BlockIncr> {
        self.block.filter(|block| block.map_size != 0)
    }
}

/// A place in a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bundle {
    /// Not a plain number, so that an entry without a bundle takes no more space.
    id: NonZero<u64>,
    /// The offset in bytes.
    pub offset: u64,
}

impl Bundle {
    /// The place in the bundle with this number; `None` for 0, since bundles count from 1.
    pub fn new(id: u64, offset: u64) -> Option<Self> {
        Some(Bundle { id: NonZero::new(id)?, offset })
    }

    /// The bundle's number, from 1.
    pub fn id(&self) -> u64 {
        self.id.get()
    }
}

/// How a file is stored in blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockIncr {
    /// The size of a block in bytes, a multiple of 8192.
    pub size: u32,
    /// The bytes of each block's checksum in the map, 1 to 16.
    pub checksum_size: u8,
    /// The size in bytes of the map at the end of the stored data; 0 before the copy.
    pub map_size: u64,
}

/// Invalid pages from `first` to `last`, counted from the start of the relation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRange {
    /// The first page.
    pub first: u32,
    /// The last page, at least `first`.
    pub last: u32,
}

/// The result of checking a file's pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageCheck {
    /// Whether every page was valid.
    pub valid: bool,
    /// Boxed twice, because nearly every file has no errors and this keeps those entries small.
    errors: Option<Box<PageErrors>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct PageErrors(Vec<PageRange>);

impl PageCheck {
    /// A check without errors. It also marks a file whose pages are still to be checked.
    pub const VALID: PageCheck = PageCheck { valid: true, errors: None };

    /// Creates a check with errors. The list is empty if the file does not consist of whole pages.
    pub fn invalid(errors: Vec<PageRange>) -> Self {
        PageCheck { valid: false, errors: if errors.is_empty() { None } else { Some(Box::new(PageErrors(errors))) } }
    }

    /// Creates a check with these invalid pages, in ascending order. Adjacent pages are merged into a range.
    pub fn from_pages(pages: impl IntoIterator<Item = u32>) -> Self {
        let mut errors: Vec<PageRange> = Vec::new();
        for page in pages {
            match errors.last_mut() {
                Some(range) if range.last.checked_add(1) == Some(page) => range.last = page,
                _ => errors.push(PageRange { first: page, last: page }),
            }
        }
        Self::invalid(errors)
    }

    /// The damaged pages.
    pub fn errors(&self) -> &[PageRange] {
        self.errors.as_deref().map_or(&[], |errors| &errors.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_entry_stays_small() {
        assert!(size_of::<ManifestFile>() <= 160, "{}", size_of::<ManifestFile>());
    }

    #[test]
    fn from_pages_merges_neighbours() {
        let check = PageCheck::from_pages([2, 5, 6, 7, 9, u32::MAX - 1, u32::MAX]);
        let ranges: Vec<_> = check.errors().iter().map(|range| (range.first, range.last)).collect();
        assert_eq!(ranges, [(2, 2), (5, 7), (9, 9), (u32::MAX - 1, u32::MAX)]);
        assert!(!check.valid);
        assert!(PageCheck::from_pages([]).errors().is_empty());
    }
}
