//! Copies block incremental files: the blocks that differ from those on disk, from the backups that contain them.

use std::fs::File;
use std::io::{BufReader, Read, Take};

use repo_format::block_map::BlockMap;
use repo_format::cipher::Cipher;
use repo_format::hash::Sha1;
use repo_format::layout::{self, FileForm, RepoPath};
use repo_format::manifest::{BlockIncr, ManifestFile};
use rustix::fs::OFlags;

use super::{Copy, FileContext, MEMBER_SIZE_MAX, check_sha1, set_time};
use crate::pipeline::block_delta::{self, BlockFile, BlockPlan, BlockRead};
use crate::pipeline::restore::{OutFile, RestorePipeline};
use crate::restore::names::restored_path;
use crate::storage::ReadRange;
use crate::storage::on_turn::OnTurn;
use crate::storage::read_ahead::ReadQueue;
use crate::{Error, ErrorCode, Result, warn};

/// Stored data that may lack its last bytes if they belong to the checksum of the last block. That checksum is only
/// compared with blocks on disk, and the checksum of the file proves the content. Zeros replace the missing bytes.
/// pgBackRest does not detect it.
struct Completed<'a> {
    stored: Take<&'a mut dyn Read>,
    missing_max: u64,
    /// Number of zeros returned.
    missing: u64,
}

impl Completed<'_> {
    /// Bytes that were to come and did not.
    fn left(&self) -> u64 {
        self.stored.limit().saturating_sub(self.missing)
    }
}

impl Read for Completed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.stored.read(buffer)?;
        if read != 0 || self.stored.limit() > self.missing_max {
            return Ok(read);
        }
        let zeros = usize::try_from(self.left()).unwrap_or(usize::MAX).min(buffer.len());
        buffer[..zeros].fill(0);
        self.missing += zeros as u64;
        Ok(zeros)
    }
}

impl FileContext<'_> {
    /// Copies a block incremental file. Returns how many bytes were written. `stored` begins with what [`struct@Copy`]
    /// requested.
    pub(super) fn copy_blocks(
        &self,
        pipeline: &mut RestorePipeline,
        copy: &Copy<'_>,
        block: BlockIncr,
        stored: &mut dyn Read,
    ) -> Result<u64> {
        let file = copy.file;
        let path = restored_path(self.pg_path, &file.name);
        let repo_file = self.repo_file(file)?;
        let own = |error| self.stored_in(error, &repo_file, copy.offset);
        let (map, member) = self.read_map(pipeline, copy, block, stored)?;
        let existing = copy.existing.as_deref().unwrap_or_default();
        let read_over_bytes = self.storage.read_ahead().read_over_bytes;
        let plan = block_delta::plan(&map, &self.block_file(file, block), existing, read_over_bytes).map_err(own)?;
        let mut written = plan.size;
        let (mut out, mut sha1) = self.write_blocks(pipeline, copy, &member, &plan)?;
        if !existing.is_empty() && Some(sha1) != file.checksum {
            // The short checksum of a block on disk can match by chance: then all blocks are copied
            let plan = block_delta::plan(&map, &self.block_file(file, block), &[], read_over_bytes).map_err(own)?;
            (out, sha1) = self.write_blocks(pipeline, copy, &member, &plan)?;
            written = plan.size;
        }
        check_sha1(file, &path, sha1).map_err(own)?;
        if copy.existing.is_some() {
            // Size and time of the file say nothing about its blocks, so they must be durable before the time says that
            // they match
            out.sync_data().map_err(|error| {
                Error::from_io(ErrorCode::FileSync, format!("unable to sync file '{path}' after write"), error)
            })?;
        }
        set_time(&out, file.timestamp, &path)?;
        Ok(written)
    }

    /// Reads the block map, and with it the file's own stored data if they are small.
    fn read_map(
        &self,
        pipeline: &RestorePipeline,
        copy: &Copy<'_>,
        block: BlockIncr,
        stored: &mut dyn Read,
    ) -> Result<(BlockMap, Vec<u8>)> {
        let path = restored_path(self.pg_path, &copy.file.name);
        let repo_file = self.repo_file(copy.file)?;
        let own = |error| self.stored_in(error, &repo_file, copy.offset);
        let short = || own(Error::new(ErrorCode::Format, format!("stored form of '{path}' is too short")));
        let limit = copy.limit.unwrap_or(0);
        let block_total = self.block_file(copy.file, block).block_total();
        let read_map = |map: &mut dyn Read| {
            let map = BufReader::new(pipeline.decrypt_raw(map));
            BlockMap::read_from(map, block.size, block.checksum_size, block_total).map_err(own)
        };
        // Encrypted data can't be read without its last bytes
        let missing_max = if matches!(self.cipher, Cipher::None) { u64::from(block.checksum_size) } else { 0 };
        let mut stored = Completed { stored: stored.take(limit), missing_max, missing: 0 };
        let mut member = Vec::new();
        let map = if limit > MEMBER_SIZE_MAX {
            // Only the map, whose claimed size uses memory only as far as it is plausible
            let map = read_map(&mut stored)?;
            if stored.left() != 0 {
                return Err(short());
            }
            map
        } else {
            stored.read_to_end(&mut member).map_err(|error| {
                own(Error::from_io(ErrorCode::FileRead, format!("unable to read stored form of '{path}'"), error))
            })?;
            let map_size = usize::try_from(block.map_size).map_err(|_| short())?;
            if member.len() as u64 != limit || member.len() < map_size {
                return Err(short());
            }
            read_map(&mut &member[member.len() - map_size..])?
        };
        if stored.missing > 0 {
            warn!(
                "the last {} byte(s) of the stored form of '{path}' are missing; they are not needed, and the checksum \
                 confirms the restored content",
                stored.missing
            );
        }
        Ok((map, member))
    }

    /// Writes what a plan says into a file and hashes the file.
    fn write_blocks(
        &self,
        pipeline: &mut RestorePipeline,
        copy: &Copy<'_>,
        member: &[u8],
        plan: &BlockPlan,
    ) -> Result<(File, Sha1)> {
        let file = copy.file;
        let path = restored_path(self.pg_path, &file.name);
        let out = self.create(file, &path, OFlags::RDWR, copy.existing.is_some())?;
        pipeline.start_hash();
        let from_repo = plan.reads.iter().filter(|read| self.member_part(copy, member, read).is_none());
        let wanted = from_repo.map(|read| {
            Ok((self.block_repo_file(file, read)?, ReadRange { offset: read.offset, limit: Some(read.size) }))
        });
        let target = OutFile { file: &out, name: &path };
        let storage = OnTurn::new(self.storage, pipeline.turn());
        let mut reads = ReadQueue::new(&storage, wanted.collect::<Result<Vec<_>>>()?);
        for read in &plan.reads {
            let copied = match self.member_part(copy, member, read) {
                Some(mut part) => pipeline.copy_blocks(&mut part, read, plan.sequential, target),
                None => pipeline.copy_blocks(&mut reads.next()?, read, plan.sequential, target),
            };
            copied.map_err(|error| match self.block_repo_file(file, read) {
                Ok(repo_file) => self.stored_in(error, &repo_file, read.offset),
                Err(_) => error,
            })?;
        }
        let sha1 = if plan.sequential { pipeline.finish_hash() } else { pipeline.hash_file(&out, &path, None)?.sha1 };
        Ok((out, sha1))
    }

    /// Returns the bytes of a read that were already read with the file's own stored data.
    fn member_part<'m>(&self, copy: &Copy<'_>, member: &'m [u8], read: &BlockRead) -> Option<&'m [u8]> {
        let own = copy.file.reference.map_or(self.manifest.references.len().checked_sub(1)?, |index| index as usize);
        if read.reference != own || read.bundle_id != copy.file.bundle.map_or(0, |bundle| bundle.id()) {
            return None;
        }
        let start = usize::try_from(read.offset.checked_sub(copy.offset)?).ok()?;
        member.get(start..start.checked_add(usize::try_from(read.size).ok()?)?)
    }

    pub(super) fn block_file(&self, file: &ManifestFile, block: BlockIncr) -> BlockFile {
        BlockFile {
            size: file.size,
            block_size: u64::from(block.size),
            checksum_size: usize::from(block.checksum_size),
            reference_total: self.manifest.references.len(),
        }
    }

    /// The repository file that holds super blocks.
    fn block_repo_file(&self, file: &ManifestFile, read: &BlockRead) -> Result<RepoPath> {
        let label = self
            .manifest
            .references
            .get(read.reference)
            .ok_or_else(|| Error::new(ErrorCode::Format, "block map refers to an unknown backup"))?;
        if read.bundle_id != 0 {
            return Ok(layout::bundle(self.stanza, label, read.bundle_id));
        }
        layout::backup_file(self.stanza, label, &file.name, FileForm::BlockIncr)
    }
}
