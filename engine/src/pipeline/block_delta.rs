//! Plans from which parts of the repository a block incremental file is assembled.
//!
//! This is a pure function: the block map, and the checksums of blocks on disk, yield the ranges to read and the blocks
//! inside them to write (pgBackRest `src/command/restore/blockDelta.c`). Everything in a map is checked before it is
//! used, because only the checksum of the finished file protects a map.

use repo_format::block_map::{BlockMap, BlockRef, SUPER_BLOCK_SIZE_MAX};

use crate::{Error, ErrorCode, Result};

/// The maximum size of a stored block map entry without its checksum: six numbers of at most ten bytes.
const MAP_ENTRY_SIZE_MAX: u64 = 60;

/// The manifest's data about a block incremental file.
#[derive(Clone, Copy, Debug)]
pub struct BlockFile {
    /// Size of the original file in bytes.
    pub size: u64,
    /// Size of a block in bytes.
    pub block_size: u64,
    /// Number of bytes kept of a block's checksum.
    pub checksum_size: usize,
    /// Number of backups that the map may refer to.
    pub reference_total: usize,
}

impl BlockFile {
    /// Number of blocks, the last one possibly short.
    pub fn block_total(&self) -> u64 {
        self.size.div_ceil(self.block_size)
    }

    /// Size of one block of the file in bytes.
    fn block_len(&self, block: u64) -> u64 {
        self.block_size.min(self.size.saturating_sub(block.saturating_mul(self.block_size)))
    }

    /// Returns the size of the largest valid stored map, so that no memory is spent on a wrong size.
    pub fn map_size_max(&self) -> u64 {
        let entry = MAP_ENTRY_SIZE_MAX + self.checksum_size as u64;
        // The constant covers salt and padding of an encrypted map and the flags before the entries
        self.block_total().saturating_mul(entry).saturating_add(64)
    }
}

/// A block to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WantedBlock {
    /// Offset in the decoded super block, in bytes.
    pub super_block_offset: u64,
    /// Offset in the file, in bytes.
    pub file_offset: u64,
    /// Its size in bytes.
    pub size: u64,
}

/// A super block to decode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SuperBlockRead {
    /// Stored bytes before it to skip.
    pub skip: u64,
    /// Stored bytes.
    pub size: u64,
    /// Decoded bytes.
    pub decoded_size: u64,
    /// What to extract from it, in ascending order.
    pub blocks: Vec<WantedBlock>,
}

/// One ranged read: super blocks that follow each other in one repository file, with small gaps at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockRead {
    /// The backup, as an index into the manifest's references.
    pub reference: usize,
    /// The bundle that contains the bytes; 0 for a file on its own.
    pub bundle_id: u64,
    /// The first byte in that file.
    pub offset: u64,
    /// Number of bytes.
    pub size: u64,
    /// The super blocks, one after the other.
    pub super_blocks: Vec<SuperBlockRead>,
}

/// Everything to be read for one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockPlan {
    /// The reads, newest backup first.
    pub reads: Vec<BlockRead>,
    /// Bytes of the file that will be written.
    pub size: u64,
    /// Whether the whole file is written in order, so that it can be hashed while it is written.
    pub sequential: bool,
}

fn invalid(what: &str) -> Error {
    Error::new(ErrorCode::Format, format!("block map is invalid: {what}"))
}

/// Checks that a map can belong to a file. A restore relies on it, and so does a backup that continues the map.
///
/// # Errors
/// [`ErrorCode::Format`] if it can't.
pub fn check(map: &BlockMap, file: &BlockFile) -> Result<()> {
    if map.0.len() as u64 != file.block_total() {
        return Err(invalid("wrong number of blocks"));
    }
    let super_block_size_max = SUPER_BLOCK_SIZE_MAX.max(file.block_size).saturating_add(file.block_size);
    for (block, entry) in (0u64..).zip(&map.0) {
        if entry.reference as usize >= file.reference_total {
            return Err(invalid("reference to an unknown backup"));
        }
        let size = file.block_len(block);
        let super_block_offset = entry.block.saturating_mul(file.block_size);
        if entry.super_block_size > super_block_size_max
            || super_block_offset.saturating_add(size) > entry.super_block_size
            || entry.super_block_size.saturating_sub(super_block_offset).min(file.block_size) != size
        {
            return Err(invalid("block outside of its super block"));
        }
        if entry.offset.checked_add(entry.size).is_none() {
            return Err(invalid("offset out of range"));
        }
    }
    Ok(())
}

/// Plans the reads for a file. `existing` contains the checksums of the blocks on disk, concatenated. A block whose
/// checksum matches the map is left alone. Gaps of up to `read_over_bytes` between super blocks are read and discarded
/// instead of starting another read.
///
/// # Errors
/// [`ErrorCode::Format`] for a map that can't belong to this file.
pub fn plan(map: &BlockMap, file: &BlockFile, existing: &[u8], read_over_bytes: u64) -> Result<BlockPlan> {
    check(map, file)?;
    // Blocks by reference, each list in file order
    let mut by_reference: Vec<Vec<u64>> = vec![Vec::new(); file.reference_total];
    for (block, entry) in (0u64..).zip(&map.0) {
        let wanted =
            by_reference.get_mut(entry.reference as usize).ok_or_else(|| invalid("reference to an unknown backup"))?;
        let on_disk = usize::try_from(block)
            .ok()
            .and_then(|block| block.checked_mul(file.checksum_size))
            .and_then(|at| existing.get(at..at.checked_add(file.checksum_size)?));
        if on_disk.is_none_or(|on_disk| on_disk != &entry.checksum[..file.checksum_size.min(entry.checksum.len())]) {
            wanted.push(block);
        }
    }

    let mut plan = BlockPlan::default();
    for (reference, blocks) in by_reference.iter().enumerate().rev() {
        let mut last = None;
        for &block in blocks {
            // `block` counts entries of the map, so the index is valid
            let Some(entry) = usize::try_from(block).ok().and_then(|block| map.0.get(block)) else { continue };
            let size = file.block_len(block);
            let super_block_offset = entry.block.saturating_mul(file.block_size);
            let wanted = WantedBlock { super_block_offset, file_offset: block * file.block_size, size };
            let placement = Placement::of(entry, last, read_over_bytes)?;
            plan.add(reference, entry, placement, wanted)?;
            last = Some(entry);
        }
    }

    // All blocks from a single backup come in file order
    let references_used = by_reference.iter().filter(|blocks| !blocks.is_empty()).count();
    plan.sequential = plan.size == file.size && references_used <= 1;
    Ok(plan)
}

/// Where a block is, as seen from the one that is read before it.
#[derive(Clone, Copy)]
enum Placement {
    /// In the same super block.
    SameSuperBlock,
    /// In a super block after a gap of so many bytes, which are read over.
    After(u64),
    /// Elsewhere.
    Apart,
}

impl Placement {
    fn of(entry: &BlockRef, last: Option<&BlockRef>, read_over_bytes: u64) -> Result<Self> {
        let end_of =
            |entry: &BlockRef| entry.offset.checked_add(entry.size).ok_or_else(|| invalid("offset out of range"));
        let end = end_of(entry)?;
        let Some(last) = last.filter(|last| last.bundle_id == entry.bundle_id) else { return Ok(Placement::Apart) };
        let last_end = end_of(last)?;
        if last.offset == entry.offset && last_end == end && last.block < entry.block {
            return Ok(Placement::SameSuperBlock);
        }
        let gap = entry.offset.checked_sub(last_end).filter(|gap| *gap <= read_over_bytes);
        Ok(gap.map_or(Placement::Apart, Placement::After))
    }
}

impl BlockPlan {
    /// Adds a block of a backup.
    fn add(&mut self, reference: usize, entry: &BlockRef, placement: Placement, wanted: WantedBlock) -> Result<()> {
        let new_super_block = |skip| SuperBlockRead {
            skip,
            size: entry.size,
            decoded_size: entry.super_block_size,
            blocks: vec![wanted],
        };
        match (placement, self.reads.last_mut()) {
            (Placement::SameSuperBlock, Some(read)) => match read.super_blocks.last_mut() {
                Some(super_block) if super_block.decoded_size == entry.super_block_size => {
                    super_block.blocks.push(wanted);
                }
                _ => return Err(invalid("super block with two sizes")),
            },
            (Placement::After(gap), Some(read)) => {
                read.size = read.size.saturating_add(gap).saturating_add(entry.size);
                read.super_blocks.push(new_super_block(gap));
            }
            _ => self.reads.push(BlockRead {
                reference,
                bundle_id: entry.bundle_id,
                offset: entry.offset,
                size: entry.size,
                super_blocks: vec![new_super_block(0)],
            }),
        }
        self.size += wanted.size;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BLOCK: u64 = 8192;

    fn file(size: u64) -> BlockFile {
        BlockFile { size, block_size: BLOCK, checksum_size: 6, reference_total: 3 }
    }

    fn entry(reference: u32, offset: u64, size: u64, blocks: u64, block: u64) -> BlockRef {
        BlockRef {
            reference,
            bundle_id: 0,
            offset,
            size,
            super_block_size: blocks * BLOCK,
            block,
            checksum: [u8::try_from(block).unwrap_or(0); 16],
        }
    }

    #[test]
    fn plan_of_one_backup_is_one_sequential_read() {
        let map = BlockMap(vec![entry(0, 10, 100, 2, 0), entry(0, 10, 100, 2, 1), entry(0, 110, 50, 1, 0)]);
        let plan = plan(&map, &file(3 * BLOCK), &[], 0).unwrap();
        assert!(plan.sequential);
        assert_eq!(plan.size, 3 * BLOCK);
        assert_eq!(plan.reads.len(), 1);
        assert_eq!((plan.reads[0].offset, plan.reads[0].size), (10, 150));
        assert_eq!(plan.reads[0].super_blocks.len(), 2);
        assert_eq!(plan.reads[0].super_blocks[0].blocks.len(), 2);
    }

    #[test]
    fn plan_short_last_block_has_its_size() {
        let mut last = entry(0, 0, 100, 2, 1);
        last.super_block_size = BLOCK + 100;
        let mut first = entry(0, 0, 100, 2, 0);
        first.super_block_size = BLOCK + 100;
        let plan = plan(&BlockMap(vec![first, last]), &file(BLOCK + 100), &[], 0).unwrap();
        let sizes: Vec<u64> = plan.reads[0].super_blocks[0].blocks.iter().map(|block| block.size).collect();
        assert_eq!(sizes, [BLOCK, 100]);
    }

    #[test]
    fn plan_of_two_backups_reads_newest_first_and_splits_gaps() {
        let map = BlockMap(vec![
            entry(0, 0, 100, 1, 0),
            entry(2, 0, 40, 2, 0),
            entry(0, 200, 100, 1, 0),
            entry(2, 0, 40, 2, 1),
        ]);
        let plan = plan(&map, &file(4 * BLOCK), &[], 0).unwrap();
        let reads: Vec<(usize, u64, u64)> =
            plan.reads.iter().map(|read| (read.reference, read.offset, read.size)).collect();
        assert_eq!(reads, [(2, 0, 40), (0, 0, 100), (0, 200, 100)]);
        assert!(!plan.sequential);
    }

    #[test]
    fn plan_reads_over_gaps_up_to_the_limit() {
        let map = BlockMap(vec![entry(0, 0, 100, 1, 0), entry(0, 164, 100, 1, 0), entry(0, 20, 5, 1, 0)]);
        for (read_over_bytes, expected) in [(63, vec![100, 100, 5]), (64, vec![264, 5])] {
            let plan = plan(&map, &file(3 * BLOCK), &[], read_over_bytes).unwrap();
            assert_eq!(plan.reads.iter().map(|read| read.size).collect::<Vec<_>>(), expected);
            let skipped: u64 = plan.reads.iter().flat_map(|read| &read.super_blocks).map(|block| block.skip).sum();
            assert_eq!(skipped, if read_over_bytes < 64 { 0 } else { 64 });
            assert!(plan.sequential, "whatever is read, blocks are written in order");
        }
    }

    #[test]
    fn plan_with_right_blocks_on_disk_reads_only_the_others() {
        let map = BlockMap(vec![entry(0, 10, 100, 3, 0), entry(0, 10, 100, 3, 1), entry(0, 10, 100, 3, 2)]);
        // Block 0 matches, block 1 differs, block 2 is missing
        let existing = [[0u8; 6], [9u8; 6]].concat();
        let plan = plan(&map, &file(3 * BLOCK), &existing, 0).unwrap();
        assert_eq!(plan.size, 2 * BLOCK);
        let offsets: Vec<u64> = plan.reads[0].super_blocks[0].blocks.iter().map(|block| block.file_offset).collect();
        assert_eq!(offsets, [BLOCK, 2 * BLOCK]);
        assert!(!plan.sequential);
    }

    #[test]
    fn check_of_a_map_that_plan_refuses_refuses_it_too() {
        let entry = BlockRef {
            reference: 0,
            bundle_id: 1,
            offset: 0,
            size: 100,
            super_block_size: BLOCK,
            block: 0,
            checksum: [0; 16],
        };
        let refused = |entry: BlockRef| check(&BlockMap(vec![entry]), &file(BLOCK)).is_err();
        assert!(!refused(entry));
        assert!(refused(BlockRef { offset: u64::MAX, ..entry }), "end of the super block");
        assert!(refused(BlockRef { reference: 99, ..entry }), "backup that is not in the manifest");
        assert!(refused(BlockRef { block: 1, ..entry }), "block outside of its super block");
        assert!(check(&BlockMap(vec![entry; 2]), &file(BLOCK)).is_err(), "more blocks than the file has");
    }

    #[test]
    fn plan_of_wrong_map_is_refused() {
        let bad: [(Vec<BlockRef>, u64); 6] = [
            (vec![entry(0, 0, 1, 1, 0)], 2 * BLOCK),
            (vec![entry(3, 0, 1, 1, 0)], BLOCK),
            (vec![entry(0, 0, 1, 1, 1)], BLOCK),
            (vec![entry(0, u64::MAX, 1, 1, 0)], BLOCK),
            (vec![entry(0, 0, 1, 1 << 40, 0)], BLOCK),
            (vec![entry(0, 0, 1, 2, 0)], 100),
        ];
        for (entries, size) in bad {
            assert_eq!(plan(&BlockMap(entries), &file(size), &[], 0).unwrap_err().code, ErrorCode::Format);
        }
    }

    proptest! {
        #[test]
        fn plan_of_any_map_stays_inside_the_file(
            raw in proptest::collection::vec((0u32..4, any::<u64>(), 0u64..1 << 20, 0u64..5, 0u64..5), 0..12),
            size in 0u64..12 * BLOCK,
            read_over_bytes in any::<u64>(),
        ) {
            let map = BlockMap(
                raw.into_iter()
                    .map(|(reference, offset, size, blocks, block)| entry(reference, offset, size, blocks, block))
                    .collect(),
            );
            if let Ok(plan) = plan(&map, &file(size), &[], read_over_bytes) {
                prop_assert_eq!(plan.size, size);
                for read in &plan.reads {
                    let stored: u64 = read.super_blocks.iter().map(|super_block| super_block.skip + super_block.size).sum();
                    prop_assert_eq!(stored, read.size);
                    for super_block in &read.super_blocks {
                        for block in &super_block.blocks {
                            prop_assert!(block.file_offset + block.size <= size);
                            prop_assert!(block.super_block_offset + block.size <= super_block.decoded_size);
                        }
                    }
                }
            }
        }
    }
}
