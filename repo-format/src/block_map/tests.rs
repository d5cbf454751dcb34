use proptest::prelude::*;

use super::*;

/// Converts hex with spaces to bytes. `#` stands for a checksum of six bytes that contains its number.
fn bytes(hex: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut checksum = 0u8;
    for word in hex.split_whitespace() {
        if word == "#" {
            out.extend_from_slice(&[0xcc, 0, 0, 0, 0, checksum]);
            checksum += 1;
        } else {
            for pair in word.as_bytes().chunks(2) {
                out.push(u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap());
            }
        }
    }
    out
}

fn read_and_write_back(hex: &str) -> Vec<BlockRef> {
    let data = bytes(hex);
    let map = BlockMap::read(&data, 8192, 6).unwrap();
    let mut written = Vec::new();
    map.write(8192, 6, &mut written).unwrap();
    assert_eq!(written, data);
    map.0
}

/// Returns (reference, bundle, offset, size, super block size, block) of an item.
fn place(block: &BlockRef) -> (u32, u64, u64, u64, u64, u64) {
    (block.reference, block.bundle_id, block.offset, block.size, block.super_block_size, block.block)
}

/// A full backup's map as pgBackRest wrote it.
#[test]
fn map_of_a_full_backup_has_one_super_block() {
    let blocks = read_and_write_back("00 07 02 98e60a c30a 06 84f806390a02 298e21c37795 e0364e8e3bc5");
    assert_eq!(
        blocks.iter().map(place).collect::<Vec<_>>(),
        [(0, 2, 176_920, 168, 24576, 0), (0, 2, 176_920, 168, 24576, 1), (0, 2, 176_920, 168, 24576, 2)]
    );
    assert_eq!(blocks[0].checksum[..6], [0x84, 0xf8, 0x06, 0x39, 0x0a, 0x02]);
    assert_eq!(blocks[0].checksum[6..], [0; 10]);
}

/// The map of a differential backup, as written by pgBackRest: 14 blocks of the full backup and a new last one.
#[test]
fn map_of_a_differential_backup_has_two_references() {
    let blocks = read_and_write_back(
        "00 06 02 988051 c7b305 1e 1a
         5138cbf896c3 22fcf7059e7f 969f303e90ac 2d91fb9dd245 60437c5629b6 62e0aac32ad8 2a817f08ed5a
         df7934ae44f4 207bd9937690 40474a6376de 812e75d16f13 90a73454cd5e 2b0b73de5ca9 1ef61c806218
         0f 01 d8c504 f9ab0a 42e9d69eeb4e",
    );
    assert_eq!(blocks.len(), 15);
    assert_eq!(place(&blocks[13]), (0, 2, 1_327_128, 11064, 122_880, 13));
    assert_eq!(place(&blocks[14]), (1, 1, 74456, 472, 8192, 0));
}

/// The map of an incremental backup, in pgBackRest's form: continued super blocks, skipped blocks, a gap, sizes across
/// references. Its beginning is a real one.
#[test]
fn map_of_an_incremental_backup_continues_super_blocks() {
    let mut hex = String::from("00 10 c7de16 20 00 # 08 86d031 40 3d01 ");
    hex += &"# ".repeat(31);
    hex += "fd6732 ";
    hex += &"# ".repeat(26);
    hex += "16 00 # 0a 0901 # # # # # 855e 14 ";
    hex += &"# ".repeat(11);
    hex += "17 00 #";
    let blocks = read_and_write_back(&hex);
    assert_eq!(blocks.len(), 1 + 31 + 26 + 1 + 5 + 11 + 1);
    assert_eq!(place(&blocks[0]), (2, 0, 0, 46568, 131_072, 0));
    assert_eq!(place(&blocks[1]), (1, 0, 0, 97384, 262_144, 1));
    assert_eq!(place(&blocks[31]), (1, 0, 0, 97384, 262_144, 31));
    assert_eq!(place(&blocks[32]), (1, 0, 97384, 96552, 262_144, 0));
    assert_eq!(place(&blocks[58]), (2, 0, 0, 46568, 131_072, 1));
    assert_eq!(place(&blocks[59]), (1, 0, 97384, 96552, 262_144, 27));
    assert_eq!(place(&blocks[64]), (1, 0, 193_936, 97304, 262_144, 0));
    assert_eq!(place(&blocks[75]), (2, 0, 0, 46568, 131_072, 2));
}

fn read_error(hex: &str) -> Error {
    BlockMap::read(&bytes(hex), 8192, 6).unwrap_err()
}

#[test]
fn map_of_another_version_is_refused() {
    let error = read_error("01 07 02 98e60a c30a 06 # # #");
    assert_eq!((error.code, error.message.as_str()), (ErrorCode::Format, "block map version must be zero"));
}

#[test]
fn map_cut_short_at_any_byte_is_refused() {
    let data = bytes("00 07 02 98e60a c30a 06 84f806390a02 298e21c37795 e0364e8e3bc5");
    for len in 0..data.len() {
        assert_eq!(BlockMap::read(&data[..len], 8192, 6).unwrap_err().code, ErrorCode::FileRead, "{len}");
    }
}

#[test]
fn map_with_bytes_after_the_end_is_refused() {
    assert_eq!(read_error("00 01 11 # 00").code, ErrorCode::Format);
}

#[test]
fn map_with_a_number_of_more_than_64_bits_is_refused() {
    assert_eq!(read_error("00 07 ffffffffffffffffff02").code, ErrorCode::Format);
    let error = read_error("00 07 ffffffffffffffffffff01");
    assert_eq!(error.code, ErrorCode::Format);
}

#[test]
fn map_with_a_giant_block_total_takes_no_memory() {
    // A super block of 2^61 bytes and as many blocks as fit.
    assert_eq!(read_error("00 01 13 ffffffffffff7f").code, ErrorCode::FileRead);
    assert_eq!(read_error("00 01 13 feffffffffff7f").code, ErrorCode::Format);
    assert_eq!(read_error("00 01 15 feffffffffffffff7f").code, ErrorCode::Format);
}

#[test]
fn map_of_a_sparse_file_takes_no_memory() {
    // A valid beginning, then endless zeros: seven of them encode a super block of the same size
    let begin = bytes("00 00 08 #");
    let input = std::io::BufReader::new(std::io::Read::chain(begin.as_slice(), std::io::repeat(0)));
    assert_eq!(BlockMap::read_from(input, 8192, 6, u64::MAX).unwrap_err().code, ErrorCode::Format);
}

#[test]
fn map_with_more_blocks_than_the_file_is_refused() {
    let data = bytes("00 01 08 # 01 #");
    assert_eq!(BlockMap::read_from(data.as_slice(), 8192, 6, 2).unwrap().0.len(), 2);
    let error = BlockMap::read_from(data.as_slice(), 8192, 6, 1).unwrap_err();
    assert_eq!(error.message, "block map is invalid: it has more blocks than the file");
}

#[test]
fn map_with_more_blocks_than_the_super_block_holds_is_refused() {
    assert_eq!(read_error("00 01 0d 02 # #").code, ErrorCode::Format);
    assert_eq!(read_error("00 01 0d 01 01 #").code, ErrorCode::Format);
}

#[test]
fn map_with_sizes_out_of_range_is_refused() {
    // A size of zero, a size that a difference makes negative, a reference that is too large, a super block without
    // bytes
    assert_eq!(read_error("00 01 01 #").code, ErrorCode::Format);
    assert_eq!(read_error("00 01 08 # 19 #").code, ErrorCode::Format);
    assert_eq!(read_error("00 8180808080808001 08 #").code, ErrorCode::Format);
    assert_eq!(read_error("00 01 0b 00").code, ErrorCode::Format);
}

#[test]
fn map_without_blocks_is_not_written() {
    assert_eq!(BlockMap::default().write(8192, 6, &mut Vec::new()).unwrap_err().code, ErrorCode::Assert);
}

#[test]
fn map_out_of_the_order_of_storage_is_not_written() {
    let block = |reference, offset, size, block| BlockRef {
        reference,
        bundle_id: 0,
        offset,
        size,
        super_block_size: 16384,
        block,
        checksum: [0; 16],
    };
    let cases = [
        // A gap inside a group, which cannot be encoded; reverse order; blocks of a super block with one missing or
        // reversed
        vec![block(0, 0, 10, 0), block(0, 11, 10, 0)],
        vec![block(0, 10, 10, 0), block(1, 0, 10, 0), block(0, 0, 10, 0)],
        vec![block(0, 0, 10, 1), block(0, 0, 10, 0)],
        vec![block(0, 0, 10, 0), block(1, 0, 10, 0), block(0, 0, 10, 0)],
        vec![block(0, 0, 10, 0), block(1, 0, 10, 0), block(0, 0, 11, 1)],
        vec![block(0, 0, 10, 2)],
        vec![block(0, 0, 0, 0)],
    ];
    for case in cases {
        assert_eq!(
            BlockMap(case.clone()).write(8192, 6, &mut Vec::new()).unwrap_err().code,
            ErrorCode::Assert,
            "{case:?}"
        );
    }
}

/// A chain of backups of one file: which blocks each changes, by block number modulo the file's blocks, and how it
/// stores them.
#[derive(Debug, Clone)]
struct Step {
    changed: Vec<bool>,
    bundle_id: u64,
    offset: u64,
    super_block_blocks: usize,
    sizes: Vec<u64>,
    last_block_bytes: u64,
}

fn step() -> impl Strategy<Value = Step> {
    (
        proptest::collection::vec(any::<bool>(), 1..60),
        prop_oneof![Just(0), 1..5u64, any::<u64>()],
        prop_oneof![Just(0), 0..100_000u64, 0..u64::MAX / 4],
        1..20usize,
        proptest::collection::vec(1..2_000_000u64, 1..10),
        1..=8192u64,
    )
        .prop_map(|(changed, bundle_id, offset, super_block_blocks, sizes, last_block_bytes)| Step {
            changed,
            bundle_id,
            offset: if bundle_id == 0 { 0 } else { offset },
            super_block_blocks,
            sizes,
            last_block_bytes,
        })
}

/// Derives a backup's map from the prior map, as the writer loop of a backup does.
fn apply(prior: &[BlockRef], reference: u32, step: &Step) -> Vec<BlockRef> {
    let mut map = Vec::new();
    let mut offset = step.offset;
    let mut open: Vec<usize> = Vec::new();
    let mut super_block_number = 0;
    let mut close = |map: &mut Vec<BlockRef>, open: &mut Vec<usize>, offset: &mut u64, bytes: u64| {
        let size = step.sizes[super_block_number % step.sizes.len()];
        super_block_number += 1;
        for index in open.drain(..) {
            (map[index].size, map[index].super_block_size) = (size, bytes);
        }
        *offset += size;
    };
    for (index, &changed) in step.changed.iter().enumerate() {
        match prior.get(index) {
            Some(block) if !changed => map.push(*block),
            _ => {
                let checksum = std::array::from_fn(|byte| if byte < 6 { (index * 7 + byte) as u8 } else { 0 });
                let block = open.len() as u64;
                open.push(index);
                let bundle_id = step.bundle_id;
                map.push(BlockRef { reference, bundle_id, offset, size: 0, super_block_size: 0, block, checksum });
            }
        }
        let last = index + 1 == step.changed.len();
        if open.len() == step.super_block_blocks || last && !open.is_empty() {
            let full = open.len() as u64 * 8192;
            let bytes = if open.last() == Some(&index) && last { full - 8192 + step.last_block_bytes } else { full };
            close(&mut map, &mut open, &mut offset, bytes);
        }
    }
    map
}

proptest! {
    #[test]
    fn map_of_any_chain_of_backups_round_trips(steps in proptest::collection::vec(step(), 1..6)) {
        let mut prior = Vec::new();
        for (reference, step) in steps.iter().enumerate() {
            prior = apply(&prior, reference as u32, step);
            let map = BlockMap(prior.clone());
            let mut data = Vec::new();
            map.write(8192, 6, &mut data).unwrap();
            prop_assert_eq!(BlockMap::read(&data, 8192, 6).unwrap(), map);
        }
    }

    #[test]
    fn map_of_any_bytes_is_read_or_refused(data in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(map) = BlockMap::read(&data, 8192, 6) {
            prop_assert!(map.0.len() * 6 <= data.len());
        }
    }
}

/// A complete block incremental file of pgBackRest. Its map describes its super block.
#[test]
fn map_of_a_real_backup_has_the_checksums_of_its_blocks() {
    use std::io::Read;
    let data = include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/codecs/block_map"));
    let stored = include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/codecs/raw.zst"));
    let map = BlockMap::read(data, 8192, 6).unwrap();
    let mut content = Vec::new();
    crate::compress::Decompressor::new(crate::compress::CompressType::Zst, crate::cipher::Framing::Raw, &stored[..])
        .unwrap()
        .read_to_end(&mut content)
        .unwrap();
    assert_eq!(map.0.len(), content.len().div_ceil(8192));
    for (index, (block, bytes)) in map.0.iter().zip(content.chunks(8192)).enumerate() {
        assert_eq!(block.checksum[..6], crate::hash::block_checksum(bytes)[..6]);
        assert_eq!((block.block, block.size), (index as u64, stored.len() as u64));
        assert_eq!(block.super_block_size, content.len() as u64);
    }
    let mut written = Vec::new();
    map.write(8192, 6, &mut written).unwrap();
    assert_eq!(written, data);
}
