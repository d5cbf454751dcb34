//! Reads the block map of a prior backup, which a block incremental file continues.

use std::io::{BufReader, Read};

use repo_format::block_map::BlockMap;
use repo_format::cipher::{Decryptor, Framing};

use super::CopyRules;
use super::job::{BlockJob, CopyFile, PriorMap};
use crate::pipeline::block_delta::{self, BlockFile};
use crate::storage::{ReadRange, RepoStorage};
use crate::{Error, ErrorCode, Result};

/// Reads the map; `None` if the file continues none. Errors name its location, because a mismatch between manifest and repository is hard to find
/// otherwise.
///
/// # Errors
/// The map can't be read, or does not belong to the file.
pub(super) fn read(rules: &CopyRules, storage: &dyn RepoStorage, file: &CopyFile) -> Result<Option<BlockMap>> {
    let Some(block) = &file.block else { return Ok(None) };
    let Some(prior) = &block.prior else { return Ok(None) };
    read_at(rules, storage, file, block, prior).map(Some).map_err(|error| {
        error.context(format!(
            "unable to read block map for '{}' from '{}' at offset {} size {}",
            file.name,
            storage.display(&prior.path),
            prior.offset,
            prior.size
        ))
    })
}

fn read_at(
    rules: &CopyRules,
    storage: &dyn RepoStorage,
    file: &CopyFile,
    block: &BlockJob,
    prior: &PriorMap,
) -> Result<BlockMap> {
    let known = BlockFile {
        // The size that the prior backup's file has
        size: file.size,
        block_size: u64::from(block.block_size),
        checksum_size: usize::from(block.checksum_size),
        // Only earlier backups can be in it
        reference_total: rules.reference as usize,
    };
    if file.has_reference && prior.size > known.map_size_max() {
        return Err(Error::new(ErrorCode::Format, "block map is invalid: too large"));
    }
    let blocks_max = if file.has_reference { known.block_total() } else { u64::MAX };
    let range = ReadRange { offset: prior.offset, limit: Some(prior.size) };
    let source = storage.read(&prior.path, range)?.ok_or_else(|| crate::storage::missing(storage, &prior.path))?;
    let mut stored = source.take(prior.size);
    let plain = Decryptor::new(&rules.cipher, Framing::Raw, &mut stored);
    let map = BlockMap::read_from(BufReader::new(plain), block.block_size, block.checksum_size, blocks_max)?;
    if stored.limit() != 0 {
        let read = prior.size - stored.limit();
        let message = format!("expected {} byte(s) but read {read}", prior.size);
        return Err(Error::new(ErrorCode::FileRead, message));
    }
    if file.has_reference {
        block_delta::check(&map, &known)?;
    }
    Ok(map)
}
