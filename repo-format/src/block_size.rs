//! Which block size a file of a block incremental backup gets, and how long its block checksums are.
//!
//! Large files get large blocks so that their maps stay small, and files that have not changed for long get larger ones or
//! none (source: pgBackRest `src/command/backup/option.c.inc`, `src/info/manifest/build.c.inc`).

use crate::hash::BLOCK_CHECKSUM_SIZE_MAX;

/// The unit in which the manifest keeps block sizes, in bytes: a block size must be a multiple of it.
pub const BLOCK_SIZE_UNIT: u32 = 8192;

/// The smallest number of bytes of a block's checksum.
pub const BLOCK_CHECKSUM_SIZE_MIN: u8 = 6;

/// The bounds of the size of a block's checksum.
pub const BLOCK_CHECKSUM_SIZE_RANGE: std::ops::RangeInclusive<u8> =
    BLOCK_CHECKSUM_SIZE_MIN..=BLOCK_CHECKSUM_SIZE_MAX as u8;

const KIB: u32 = 1024;
const MIB: u64 = 1024 * 1024;
const WEEK_SECONDS: i64 = 7 * 24 * 60 * 60;

/// Three tables, each searched from its first row for the first that fits: rows are in descending order of their keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockSizeTables {
    /// (file size in bytes, block size in bytes): the block size of files of at least that size.
    pub size: Vec<(u64, u32)>,
    /// (age in seconds, factor): what the block size of files of at least that age is multiplied by; 0 is no blocks at all.
    pub age: Vec<(i64, u32)>,
    /// (block size in bytes, checksum size in bytes) for blocks of at least that size.
    pub checksum_size: Vec<(u32, u8)>,
}

impl Default for BlockSizeTables {
    fn default() -> Self {
        BlockSizeTables {
            size: vec![
                (914 * MIB, 88 * KIB),
                (740 * MIB, 80 * KIB),
                (585 * MIB, 72 * KIB),
                (448 * MIB, 64 * KIB),
                (329 * MIB, 56 * KIB),
                (228 * MIB, 48 * KIB),
                (146 * MIB, 40 * KIB),
                (96 * MIB, 32 * KIB),
                (43 * MIB, 24 * KIB),
                (11 * MIB, 16 * KIB),
                (16 * 1024, 8 * KIB),
            ],
            age: vec![(4 * WEEK_SECONDS, 0), (2 * WEEK_SECONDS, 4), (WEEK_SECONDS, 2)],
            checksum_size: vec![
                (4096 * KIB, 12),
                (2048 * KIB, 11),
                (1024 * KIB, 10),
                (512 * KIB, 9),
                (128 * KIB, 8),
                (32 * KIB, 7),
            ],
        }
    }
}

impl BlockSizeTables {
    /// The block size in bytes of a file of `size` bytes that was last changed `age` seconds before the backup began (negative
    /// for a time in the future); 0 for a file that is not stored in blocks.
    pub fn block_size(&self, size: u64, age: i64) -> u32 {
        let block_size = self.size.iter().find(|row| size >= row.0).map_or(0, |row| row.1);
        let factor = self.age.iter().find(|row| age >= row.0).map_or(1, |row| row.1);
        block_size.saturating_mul(factor)
    }

    /// The number of bytes of the checksum of a block of `block_size` bytes.
    pub fn checksum_size(&self, block_size: u32) -> u8 {
        self.checksum_size.iter().find(|row| block_size >= row.0).map_or(BLOCK_CHECKSUM_SIZE_MIN, |row| row.1)
    }
}

/// The size in bytes at which a super block is closed: the wanted size rounded up to whole blocks. `block_size` is not 0.
pub fn super_block_size(wanted: u64, block_size: u32) -> u64 {
    wanted.div_ceil(u64::from(block_size)) * u64::from(block_size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_size_at_a_row_and_just_below_it() {
        let tables = BlockSizeTables::default();
        assert_eq!(tables.block_size(16 * 1024 - 1, 0), 0);
        assert_eq!(tables.block_size(16 * 1024, 0), 8 * KIB);
        assert_eq!(tables.block_size(11 * MIB - 1, 0), 8 * KIB);
        assert_eq!(tables.block_size(11 * MIB, 0), 16 * KIB);
        assert_eq!(tables.block_size(u64::MAX, 0), 88 * KIB);
    }

    #[test]
    fn block_size_grows_with_age_and_ends_at_four_weeks() {
        let tables = BlockSizeTables::default();
        assert_eq!(tables.block_size(16 * 1024, -5), 8 * KIB);
        assert_eq!(tables.block_size(16 * 1024, WEEK_SECONDS - 1), 8 * KIB);
        assert_eq!(tables.block_size(16 * 1024, WEEK_SECONDS), 16 * KIB);
        assert_eq!(tables.block_size(16 * 1024, 2 * WEEK_SECONDS), 32 * KIB);
        assert_eq!(tables.block_size(16 * 1024, 4 * WEEK_SECONDS), 0);
    }

    #[test]
    fn checksum_size_grows_with_the_block() {
        let tables = BlockSizeTables::default();
        assert_eq!(tables.checksum_size(8 * KIB), 6);
        assert_eq!(tables.checksum_size(32 * KIB), 7);
        assert_eq!(tables.checksum_size(128 * KIB), 8);
        assert_eq!(tables.checksum_size(u32::MAX), 12);
    }

    #[test]
    fn super_block_size_is_rounded_up_to_blocks() {
        assert_eq!(super_block_size(262_144, 8192), 262_144);
        assert_eq!(super_block_size(262_144, 24 * KIB), 270_336);
        assert_eq!(super_block_size(1, 8192), 8192);
    }
}
