//! Checks the page checksums of a relation's file while it is copied.
//!
//! Source of the rules: pgBackRest `src/command/backup/pageChecksum.c`.

use std::path::PathBuf;

use repo_format::pg::page::{PageCheck, first_page};

use crate::Result;
use crate::pg::data_dir::reread_page;

/// The result of checking a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PageOutcome {
    /// Every page is right.
    Valid,
    /// The file does not end with a whole page, so single pages were not checked.
    Misaligned,
    /// Invalid pages, as first and last number counted from the beginning of the relation.
    Errors(Vec<(u32, u32)>),
}

/// The check of one file.
pub(super) struct PageChecker {
    path: PathBuf,
    check: PageCheck,
    /// Bytes seen so far.
    offset: u64,
    misaligned: bool,
    suspects: Vec<u32>,
    errors: Vec<(u32, u32)>,
}

impl PageChecker {
    /// Creates a check for the file at `path`, whose name tells which part of the relation it is.
    pub(super) fn new(path: PathBuf, name: &str, page_size: u32, header_check: bool) -> Self {
        PageChecker {
            path,
            check: PageCheck { page_size, first_page: first_page(name, page_size), header_check },
            offset: 0,
            misaligned: false,
            suspects: Vec::new(),
            errors: Vec::new(),
        }
    }

    /// Checks the next bytes of the file. All calls except the last must pass whole pages.
    pub(super) fn push(&mut self, data: &[u8]) -> Result<()> {
        self.misaligned |= self.check.check(data, self.offset, &mut self.suspects) != 0;
        for index in 0..self.suspects.len() {
            let page = self.suspects[index];
            let at = self.check.file_offset(page);
            let begin = (at - self.offset) as usize;
            if !self.has_changed(at, &data[begin..begin + self.check.page_size as usize])? {
                match self.errors.last_mut() {
                    Some((_, last)) if last.wrapping_add(1) == page => *last = page,
                    _ => self.errors.push((page, page)),
                }
            }
        }
        self.suspects.clear();
        self.offset += data.len() as u64;
        Ok(())
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

    /// Returns whether a page on disk differs by now. Then PostgreSQL was writing it while it was read, and recovery
    /// replays it from WAL. Whether the new content is valid does not matter.
    fn has_changed(&self, at: u64, data: &[u8]) -> Result<bool> {
        let now = reread_page(&self.path, at, self.check.page_size as usize)?;
        Ok(now.is_none_or(|now| now != data))
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
        let mut checker = PageChecker::new(path, &name, PAGE as u32, true);
        let (first, rest) = data.split_at(PAGE.min(data.len()));
        checker.push(first).unwrap();
        if !rest.is_empty() {
            checker.push(rest).unwrap();
        }
        checker.finish()
    }

    #[test]
    fn pages_with_right_checksums_are_valid() {
        assert_eq!(check(&[good_page(0), vec![0; PAGE], good_page(2)], None, 0), PageOutcome::Valid);
    }

    #[test]
    fn wrong_pages_are_merged_into_ranges() {
        let pages = [bad_page(0), good_page(1), bad_page(2), bad_page(3)];
        assert_eq!(check(&pages, None, 0), PageOutcome::Errors(vec![(0, 0), (2, 3)]));
    }

    #[test]
    fn wrong_pages_of_a_later_segment_count_from_the_relation() {
        let first = 2 * 131_072;
        let pages = [good_page(first), bad_page(first + 1)];
        assert_eq!(check(&pages, None, 2), PageOutcome::Errors(vec![(first + 1, first + 1)]));
    }

    #[test]
    fn wrong_page_that_is_another_one_on_disk_is_accepted() {
        let pages = [good_page(0), bad_page(1)];
        assert_eq!(check(&pages, Some(&[good_page(0), good_page(1)].concat()), 0), PageOutcome::Valid);
        // Missing on disk: truncated by now
        assert_eq!(check(&pages, Some(&good_page(0)), 0), PageOutcome::Valid);
    }

    #[test]
    fn file_with_a_part_of_a_page_is_misaligned() {
        assert_eq!(check(&[good_page(0), vec![1; 600]], None, 0), PageOutcome::Misaligned);
        assert_eq!(check(&[bad_page(0), vec![1; 100]], None, 0), PageOutcome::Misaligned);
    }
}
