//! Data pages: their checksums and the check that a backup makes.
//!
//! Sources: PostgreSQL `src/include/storage/checksum_impl.h` for the checksum, pgBackRest
//! `src/command/backup/pageChecksum.c` for the check.

use crate::{Error, ErrorCode, Result};

/// Size in bytes at which PostgreSQL starts another file for a relation: `<name>.1`, `<name>.2` and so on.
pub const SEGMENT_SIZE: u64 = 1024 * 1024 * 1024;

/// Page sizes in bytes that PostgreSQL can be built with.
pub const PAGE_SIZES: [u32; 6] = [1024, 2048, 4096, 8192, 16384, 32768];

/// The offset of a page's checksum.
const CHECKSUM_OFFSET: usize = 8;
/// The offset of the end of a page's free space, which is 0 only if the page was never used.
const UPPER_OFFSET: usize = 14;

/// Number of parallel sums, so that a processor can compute several at once.
const LANES: usize = 32;
/// Bytes that feed each lane once.
const ROW_SIZE: usize = LANES * 4;
const FNV_PRIME: u32 = 16_777_619;
const LANES_BEGIN: [u32; LANES] = [
    0x5B1F_36E9,
    0xB852_5960,
    0x02AB_50AA,
    0x1DE6_6D2A,
    0x79FF_467A,
    0x9BB9_F8A3,
    0x217E_7CD2,
    0x83E1_3D2C,
    0xF8D4_474F,
    0xE39E_B970,
    0x42C6_AE16,
    0x9932_16FA,
    0x7B09_3B5D,
    0x98DA_FF3C,
    0xF718_902A,
    0x0B1C_9CDB,
    0xE58F_764B,
    0x1876_36BC,
    0x5D7B_3BB1,
    0xE73D_E7DE,
    0x92BE_C979,
    0xCCA6_C0B2,
    0x304A_0979,
    0x85AA_43D4,
    0x7831_25BB,
    0x6CA8_EAA2,
    0xE407_EAC6,
    0x4B5C_FC3E,
    0x9FBF_8C76,
    0x15CA_20BE,
    0xF2CA_9FD3,
    0x959B_D756,
];

/// Returns a format error (029) for a size that PostgreSQL does not have.
pub fn check_page_size(size: u32) -> Result<()> {
    if PAGE_SIZES.contains(&size) {
        return Ok(());
    }
    Err(Error::new(
        ErrorCode::Format,
        format!("page size is {size} but only 1024, 2048, 4096, 8192, 16384, and 32768 are supported"),
    ))
}

/// Returns the checksum that `page` should have as page number `block` of its relation, computed with 0 in place of the
/// checksum itself.
///
/// The size of a page is a multiple of 128 bytes. Bytes after the last multiple do not count.
pub fn checksum(page: &[u8], block: u32) -> u16 {
    let (rows, _) = page.as_chunks::<ROW_SIZE>();
    let sum = sum_rows(rows) ^ block;
    // The remainder is below 65535, so adding one fits; no page has the checksum 0
    (sum % 65535) as u16 + 1
}

fn sum_rows(rows: &[[u8; ROW_SIZE]]) -> u32 {
    let mut lanes = LANES_BEGIN;
    if let Some((first, rest)) = rows.split_first() {
        let mut first = *first;
        first[CHECKSUM_OFFSET..CHECKSUM_OFFSET + 2].fill(0);
        add_row(&mut lanes, &first);
        for row in rest {
            add_row(&mut lanes, row);
        }
    }
    for _ in 0..2 {
        add_row(&mut lanes, &[0; ROW_SIZE]);
    }
    lanes.iter().fold(0, |sum, lane| sum ^ lane)
}

#[inline]
fn add_row(lanes: &mut [u32; LANES], row: &[u8; ROW_SIZE]) {
    let (values, _) = row.as_chunks::<4>();
    for (lane, value) in lanes.iter_mut().zip(values) {
        let mixed = *lane ^ u32::from_le_bytes(*value);
        *lane = mixed.wrapping_mul(FNV_PRIME) ^ (mixed >> 17);
    }
}

/// How the pages of one file are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRules {
    /// Size of a page in bytes, one of [`PAGE_SIZES`].
    pub page_size: u32,
    /// Number of the file's first page in its relation, see [`first_page`].
    pub first_page: u32,
    /// Whether the header decides that a page was never used (the default). Otherwise a checksum of 0 decides.
    pub header_check: bool,
}

impl PageRules {
    /// Checks the pages in `data`, which starts at `offset` in the file (a multiple of the page size), and appends the
    /// numbers of suspect pages to `suspects`.
    ///
    /// PostgreSQL may have been writing a page while it was read. The caller reads a suspect page again from the file,
    /// at [`PageRules::file_offset`], and accepts it if it has changed. Only pages that did not change are errors.
    ///
    /// Returns the number of bytes after the last whole page. At the end of a file, any such byte makes the file
    /// misaligned, and therefore invalid as a whole.
    #[must_use = "bytes that are not a whole page are an error at the end of a file"]
    pub fn check(&self, data: &[u8], offset: u64, suspects: &mut Vec<u32>) -> usize {
        let pages = data.chunks_exact(self.page_size as usize);
        let rest = pages.remainder().len();
        // Page numbers have 32 bits in PostgreSQL. For a file with more pages, which it never creates, they wrap as in
        // C.
        let mut block = self.first_page.wrapping_add((offset / u64::from(self.page_size)) as u32);
        for page in pages {
            if !self.is_good(page, block) {
                suspects.push(block);
            }
            block = block.wrapping_add(1);
        }
        rest
    }

    fn is_good(&self, page: &[u8], block: u32) -> bool {
        let field = |offset| super::u16_at(page, offset).unwrap_or(0);
        let unused = if self.header_check { field(UPPER_OFFSET) == 0 } else { field(CHECKSUM_OFFSET) == 0 };
        if unused { page.iter().all(|&byte| byte == 0) } else { field(CHECKSUM_OFFSET) == checksum(page, block) }
    }

    /// Returns the offset in the file, in bytes, of a page that [`PageRules::check`] reported.
    pub fn file_offset(&self, block: u32) -> u64 {
        u64::from(block.wrapping_sub(self.first_page)) * u64::from(self.page_size)
    }
}

/// Returns the number of the first page of the file `name` in its relation. Files after the first end with a dot and
/// their number.
pub fn first_page(name: &str, page_size: u32) -> u32 {
    let number = match name.rsplit_once('.') {
        Some((_, number)) if !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) => {
            number.parse::<u32>().unwrap_or(0)
        }
        _ => 0,
    };
    // At most 2^20 for the smallest page, so it fits; page numbers wrap as in C
    number.wrapping_mul((SEGMENT_SIZE / u64::from(page_size)) as u32)
}

#[cfg(test)]
mod tests;
