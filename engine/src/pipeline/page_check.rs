//! Checks the page checksums of a relation's file while it is copied.
//!
//! Source of the rules: pgBackRest `src/command/backup/pageChecksum.c`.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};

use protocol::filter::PageCheckResult;
use repo_format::manifest::PageRange;
use repo_format::pg::page::{PageRules, first_page};

/// From this size on, pgBackRest takes a part of a page for a write that was not completed.
const PARTIAL_PAGE_BYTES_MIN: usize = 512;

/// The result of checking a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PageOutcome {
    /// Every page is right.
    Valid,
    /// The file does not end with a whole page, so single pages were not checked.
    Misaligned,
    /// Invalid pages.
    Errors(Vec<PageRange>),
}

/// The check of one file.
pub(crate) struct PageChecker {
    check: PageRules,
    /// Bytes seen so far.
    offset: u64,
    misaligned: bool,
    suspects: Vec<u32>,
    errors: Vec<PageRange>,
    /// A page that is read again.
    page: Vec<u8>,
}

impl PageChecker {
    /// Creates a check for a file, whose name tells which part of the relation it is.
    pub(super) fn new(name: &str, page_size: u32, header_check: bool) -> Self {
        Self::of_segment(first_page(name, page_size), page_size, header_check)
    }

    /// Creates a check for a file that begins with this page of its relation.
    pub(crate) fn of_segment(first_page: u32, page_size: u32, header_check: bool) -> Self {
        PageChecker {
            check: PageRules { page_size, first_page, header_check },
            offset: 0,
            misaligned: false,
            suspects: Vec::new(),
            errors: Vec::new(),
            page: Vec::new(),
        }
    }

    /// Checks the next bytes of the file. All calls except the last must pass whole pages. Suspect pages are read again
    /// from `file`, whose position does not change.
    pub(crate) fn push(&mut self, data: &[u8], file: &File) -> io::Result<()> {
        self.misaligned |= self.check.check(data, self.offset, &mut self.suspects) != 0;
        let size = self.check.page_size as usize;
        self.page.resize(if self.suspects.is_empty() { 0 } else { size }, 0);
        for number in self.suspects.drain(..) {
            let at = self.check.file_offset(number);
            let begin = (at - self.offset) as usize;
            if has_changed(file, at, &data[begin..begin + size], &mut self.page)? {
                continue;
            }
            match self.errors.last_mut() {
                Some(range) if range.last.wrapping_add(1) == number => range.last = number,
                _ => self.errors.push(PageRange { first: number, last: number }),
            }
        }
        self.offset += data.len() as u64;
        Ok(())
    }

    /// The result for a client on another host, after all bytes of the file. `rest` is what follows the last whole page.
    /// A large part of a page counts as a damaged page.
    pub(crate) fn result(&self, rest: &[u8]) -> PageCheckResult {
        let mut errors: Vec<u32> = self.errors.iter().flat_map(|range| range.first..=range.last).collect();
        if rest.len() >= PARTIAL_PAGE_BYTES_MIN {
            let pages = self.offset / u64::from(self.check.page_size);
            errors.push(self.check.first_page.wrapping_add(pages as u32));
        }
        PageCheckResult { is_valid: errors.is_empty() && rest.is_empty(), is_aligned: rest.is_empty(), errors }
    }

    /// The result, after all bytes of the file.
    pub(super) fn finish(self) -> PageOutcome {
        if self.misaligned {
            PageOutcome::Misaligned
        } else if self.errors.is_empty() {
            PageOutcome::Valid
        } else {
            PageOutcome::Errors(self.errors)
        }
    }
}

/// Returns whether a page on disk differs by now. Then PostgreSQL was writing it while it was read, and recovery replays
/// it from WAL. Whether the new content is valid does not matter. The same applies to a file that was dropped, of which
/// some versions of PostgreSQL only remove the name.
fn has_changed(file: &File, at: u64, data: &[u8], now: &mut [u8]) -> io::Result<bool> {
    match file.read_exact_at(now, at) {
        Ok(()) => Ok(now != data || file.metadata()?.nlink() == 0),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(true),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use repo_format::pg::page;

    use super::*;

    const PAGE: usize = 8192;

    /// A page with content and the right checksum for its number.
    fn good_page(number: u32) -> Vec<u8> {
        let mut data: Vec<u8> = (0..PAGE).map(|index| (index as u32).wrapping_mul(number + 7) as u8).collect();
        data[14] = 1;
        let checksum = page::checksum(&data, number);
        data[8..10].copy_from_slice(&checksum.to_le_bytes());
        data
    }

    fn bad_page(number: u32) -> Vec<u8> {
        let mut data = good_page(number);
        data[100] ^= 1;
        data
    }

    fn check(pages: &[Vec<u8>], on_disk: Option<&[u8]>, segment: u32) -> PageOutcome {
        let dir = tempfile::tempdir().unwrap();
        let name = if segment == 0 { "16384".to_owned() } else { format!("16384.{segment}") };
        let path = dir.path().join(&name);
        let data = pages.concat();
        std::fs::write(&path, on_disk.unwrap_or(&data)).unwrap();
        check_file(&data, &File::open(&path).unwrap(), &name)
    }

    fn check_file(data: &[u8], file: &File, name: &str) -> PageOutcome {
        let mut checker = PageChecker::new(name, PAGE as u32, true);
        let (first, rest) = data.split_at(PAGE.min(data.len()));
        checker.push(first, file).unwrap();
        if !rest.is_empty() {
            checker.push(rest, file).unwrap();
        }
        checker.finish()
    }

    fn errors(ranges: &[(u32, u32)]) -> PageOutcome {
        PageOutcome::Errors(ranges.iter().map(|&(first, last)| PageRange { first, last }).collect())
    }

    #[test]
    fn pages_with_right_checksums_are_valid() {
        assert_eq!(check(&[good_page(0), vec![0; PAGE], good_page(2)], None, 0), PageOutcome::Valid);
    }

    #[test]
    fn wrong_pages_are_merged_into_ranges() {
        let pages = [bad_page(0), good_page(1), bad_page(2), bad_page(3)];
        assert_eq!(check(&pages, None, 0), errors(&[(0, 0), (2, 3)]));
    }

    #[test]
    fn wrong_pages_of_a_later_segment_count_from_the_relation() {
        let first = 2 * 131_072;
        let pages = [good_page(first), bad_page(first + 1)];
        assert_eq!(check(&pages, None, 2), errors(&[(first + 1, first + 1)]));
    }

    #[test]
    fn wrong_page_that_is_another_one_on_disk_is_accepted() {
        let pages = [good_page(0), bad_page(1)];
        assert_eq!(check(&pages, Some(&[good_page(0), good_page(1)].concat()), 0), PageOutcome::Valid);
        // Missing on disk: truncated by now
        assert_eq!(check(&pages, Some(&good_page(0)), 0), PageOutcome::Valid);
    }

    #[test]
    fn wrong_page_of_a_file_that_was_dropped_is_accepted() {
        let mut file = tempfile::tempfile().unwrap();
        let data = [good_page(0), bad_page(1)].concat();
        io::Write::write_all(&mut file, &data).unwrap();
        assert_eq!(check_file(&data, &file, "16384"), PageOutcome::Valid);
    }

    #[test]
    fn suspect_pages_are_read_from_the_open_file_and_leave_its_position() {
        let dir = tempfile::tempdir().unwrap();
        let data: Vec<u8> = (0..100).flat_map(bad_page).collect();
        let path = dir.path().join("16384");
        std::fs::write(&path, &data).unwrap();
        let mut file = File::open(&path).unwrap();
        // Another file has the name by now
        std::fs::rename(&path, dir.path().join("old")).unwrap();
        std::fs::write(&path, [good_page(0), good_page(1)].concat()).unwrap();
        assert_eq!(check_file(&data, &file, "16384"), errors(&[(0, 99)]));
        assert_eq!(io::Seek::stream_position(&mut file).unwrap(), 0);
    }

    #[test]
    fn file_with_a_part_of_a_page_is_misaligned() {
        assert_eq!(check(&[good_page(0), vec![1; 600]], None, 0), PageOutcome::Misaligned);
        assert_eq!(check(&[bad_page(0), vec![1; 100]], None, 0), PageOutcome::Misaligned);
    }
}
