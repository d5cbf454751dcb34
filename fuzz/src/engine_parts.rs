//! Targets for what the engine reads from servers and local files, and what it plans from that.

use engine::fuzzing;
use engine::fuzzing::block_delta::{self, BlockFile};
use repo_format::block_map::BlockMap;

/// A text, or nothing to do.
fn with_text(data: &[u8], read: impl Fn(&str)) {
    if let Ok(text) = std::str::from_utf8(data) {
        read(text);
    }
}

/// The plan for restoring a block incremental file. The first bytes choose file size and block size. The blocks on disk
/// and the map follow.
pub fn block_plan(data: &[u8]) {
    let [shape, tail, on_disk, data @ ..] = data else { return };
    let block_size = 8192 * (1 + u32::from(shape & 3));
    let checksum_size = 6 + (shape >> 2) % 11;
    let Some((existing, map)) = data.split_at_checked(usize::from(*on_disk)) else { return };
    let Ok(map) = BlockMap::read(map, block_size, checksum_size) else { return };
    let file = BlockFile {
        size: (map.0.len() as u64 * u64::from(block_size)).saturating_sub(u64::from(*tail)),
        block_size: u64::from(block_size),
        checksum_size: usize::from(checksum_size),
        reference_total: 4,
    };
    for read_over_bytes in [0, 1 << 20] {
        let Ok(plan) = block_delta::plan(&map, &file, existing, read_over_bytes) else { continue };
        assert!(plan.size <= file.size);
        let mut written = 0;
        for super_block in plan.reads.iter().flat_map(|read| &read.super_blocks) {
            for block in &super_block.blocks {
                assert!(block.file_offset + block.size <= file.size);
                assert!(block.super_block_offset + block.size <= super_block.decoded_size);
                written += block.size;
            }
        }
        assert_eq!(written, plan.size);
    }
}

/// Packets of an SFTP server.
pub fn sftp_packet(data: &[u8]) {
    fuzzing::sftp_packet(data);
}

/// Answers of object stores and token services in XML.
pub fn xml_answer(data: &[u8]) {
    fuzzing::xml_answer(data);
}

/// Answers of object stores and token services in JSON.
pub fn json_answer(data: &[u8]) {
    fuzzing::json_answer(data);
}

/// Files of known hosts.
pub fn known_hosts(data: &[u8]) {
    with_text(data, fuzzing::known_hosts);
}

/// Password files.
pub fn passfile(data: &[u8]) {
    with_text(data, fuzzing::passfile);
}

/// Times of a restore's target.
pub fn target_time(data: &[u8]) {
    with_text(data, fuzzing::target_time);
}

/// The requests of a client that is rbr to the far side of a data directory.
pub fn served_jobs(data: &[u8]) {
    fuzzing::served_jobs(data);
}

/// The requests of a client that the far side serves.
pub fn served_requests(data: &[u8]) {
    fuzzing::served_requests(data);
}
