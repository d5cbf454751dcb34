//! The size of the blocks of a block incremental file.
//!
//! Source of the tables: pgBackRest `src/command/backup/option.c.inc`.

use repo_format::hash::BLOCK_CHECKSUM_SIZE_MIN;

use super::settings::BlockSettings;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const DAY_SECONDS: i64 = 86_400;

/// Minimum file size and block size, descending. Blocks grow when the map would fill more than one of them.
const SIZES: [(u64, u64); 11] = [
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
    (16 * KIB, 8 * KIB),
];

/// Minimum age in days and factor, descending. A file that has not changed for long is unlikely to change.
const AGES: [(u32, u32); 3] = [(28, 0), (14, 4), (7, 2)];

/// Minimum block size and checksum size, descending.
const CHECKSUM_SIZES: [(u64, u8); 6] =
    [(4 * MIB, 12), (2 * MIB, 11), (MIB, 10), (512 * KIB, 9), (128 * KIB, 8), (32 * KIB, 7)];

/// The tables of one backup.
#[derive(Clone, Debug)]
pub(super) struct BlockSizes {
    sizes: Vec<(u64, u64)>,
    ages: Vec<(u32, u32)>,
    checksum_sizes: Vec<(u64, u8)>,
}

impl BlockSizes {
    /// Creates the built-in tables. Tables of the settings that are not empty replace them.
    pub(super) fn new(settings: &BlockSettings) -> Self {
        fn table<K: Ord + Copy, V: Copy>(own: &[(K, V)], default: &[(K, V)]) -> Vec<(K, V)> {
            let mut table = if own.is_empty() { default.to_vec() } else { own.to_vec() };
            table.sort_by_key(|entry| std::cmp::Reverse(entry.0));
            table
        }
        BlockSizes {
            sizes: table(&settings.size_map, &SIZES),
            ages: table(&settings.age_map, &AGES),
            checksum_sizes: table(&settings.checksum_size_map, &CHECKSUM_SIZES),
        }
    }

    /// Returns block size and checksum size, both in bytes, for a file of `size` bytes that was last changed `age`
    /// seconds before the backup; `None` for a file that is stored as a whole.
    pub(super) fn of(&self, size: u64, age: i64) -> Option<(u64, u8)> {
        let block = self.sizes.iter().find(|(from, _)| size >= *from).map(|(_, block)| *block)?;
        let factor =
            self.ages.iter().find(|(days, _)| age >= i64::from(*days) * DAY_SECONDS).map_or(1, |(_, factor)| *factor);
        let block = block.saturating_mul(u64::from(factor));
        if block == 0 {
            return None;
        }
        let checksum = self
            .checksum_sizes
            .iter()
            .find(|(from, _)| block >= *from)
            .map_or(BLOCK_CHECKSUM_SIZE_MIN, |(_, size)| *size);
        Some((block, checksum))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes() -> BlockSizes {
        BlockSizes::new(&BlockSettings::default())
    }

    #[test]
    fn block_size_follows_file_size() {
        for (size, expected) in [
            (0, None),
            (16 * KIB - 1, None),
            (16 * KIB, Some((8 * KIB, 6))),
            (11 * MIB - 1, Some((8 * KIB, 6))),
            (96 * MIB, Some((32 * KIB, 7))),
            (1024 * MIB, Some((88 * KIB, 7))),
        ] {
            assert_eq!(sizes().of(size, 0), expected, "{size}");
        }
    }

    #[test]
    fn block_size_grows_with_age_until_there_are_none() {
        for (days, expected) in [
            (6, Some((88 * KIB, 7))),
            (7, Some((176 * KIB, 8))),
            (14, Some((352 * KIB, 8))),
            (27, Some((352 * KIB, 8))),
            (28, None),
        ] {
            assert_eq!(sizes().of(1024 * MIB, days * DAY_SECONDS), expected, "{days}");
        }
        assert_eq!(sizes().of(1024 * MIB, -5), Some((88 * KIB, 7)));
    }

    #[test]
    fn own_tables_replace_the_built_in_ones() {
        let own = BlockSettings {
            size_map: vec![(8 * KIB, 8 * KIB), (32 * KIB, 16 * KIB)],
            age_map: vec![(100, 3)],
            checksum_size_map: vec![(16 * KIB, 16)],
            ..BlockSettings::default()
        };
        let sizes = BlockSizes::new(&own);
        assert_eq!(sizes.of(8 * KIB, 0), Some((8 * KIB, 6)));
        assert_eq!(sizes.of(40 * KIB, 50 * DAY_SECONDS), Some((16 * KIB, 16)));
        assert_eq!(sizes.of(40 * KIB, 100 * DAY_SECONDS), Some((48 * KIB, 16)));
    }
}
