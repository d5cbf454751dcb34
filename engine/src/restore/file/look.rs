//! Determines what a restore would read and write for the files of a job, and changes nothing.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek as _};

use repo_format::block_map::BlockMap;
use repo_format::label::BackupType;
use repo_format::layout::RepoPath;
use repo_format::manifest::{BlockIncr, ManifestFile};

use super::{Copy, Decision, FileContext, MEMBER_SIZE_MAX, ReadRun, runs};
use crate::pipeline::block_delta::{self, BlockRead, SuperBlockRead};
use crate::pipeline::restore::{OutFile, RestorePipeline};
use crate::restore::queue::RestoreJob;
use crate::storage::on_turn::OnTurn;
use crate::storage::{self, ReadRange, RepoStorage};
use crate::{CancelToken, Error, ErrorCode, Result};

/// What a restore would do with some files.
#[derive(Clone, Debug, Default)]
pub(in crate::restore) struct Looked {
    /// Files that exist and match.
    pub(in crate::restore) files_kept: u64,
    pub(in crate::restore) bytes_kept: u64,
    /// Files that are empty or zeroed, which are created without reading.
    pub(in crate::restore) files_zeroed: u64,
    /// Files of which at least a part is copied.
    pub(in crate::restore) files_copied: u64,
    /// Stored bytes that are read.
    pub(in crate::restore) bytes_fetched: u64,
    /// Bytes that are written to files.
    pub(in crate::restore) bytes_written: u64,
    /// Reads from the repository.
    pub(in crate::restore) requests: u64,
    /// Repository files that are read, and how many bytes each must have.
    pub(in crate::restore) needed: HashMap<RepoPath, u64>,
    /// Reads that this look made, of block maps.
    pub(in crate::restore) map_requests: u64,
}

impl Looked {
    /// Adds what was found about other files.
    pub(in crate::restore) fn add(&mut self, other: Looked) {
        self.files_kept += other.files_kept;
        self.bytes_kept = self.bytes_kept.saturating_add(other.bytes_kept);
        self.files_zeroed += other.files_zeroed;
        self.files_copied += other.files_copied;
        self.bytes_fetched = self.bytes_fetched.saturating_add(other.bytes_fetched);
        self.bytes_written = self.bytes_written.saturating_add(other.bytes_written);
        self.requests += other.requests;
        self.map_requests += other.map_requests;
        other.needed.into_iter().for_each(|(path, end)| self.need(path, end));
    }

    fn need(&mut self, path: RepoPath, end: u64) {
        let known = self.needed.entry(path).or_default();
        *known = (*known).max(end);
    }

    fn fetch(&mut self, path: RepoPath, offset: u64, size: u64) {
        self.requests += 1;
        self.bytes_fetched = self.bytes_fetched.saturating_add(size);
        self.need(path, offset.saturating_add(size));
    }
}

impl FileContext<'_> {
    /// Looks at the files of a job. The context must look only.
    ///
    /// # Errors
    /// An existing file can't be read; a block map can't be read; [`crate::ErrorCode::Format`] for impossible sizes.
    pub(in crate::restore) fn look(
        &self,
        pipeline: &mut RestorePipeline,
        job: &RestoreJob,
        cancel: &CancelToken,
    ) -> Result<Looked> {
        pipeline.begin_job(cancel);
        let mut looked = Looked::default();
        let mut copies = Vec::new();
        for &index in &job.files {
            cancel.check()?;
            let Some(file) = self.manifest.files.get(index as usize) else { continue };
            match self.decide_if_there(pipeline, file)? {
                Decision::Preserve => {
                    looked.files_kept += 1;
                    looked.bytes_kept = looked.bytes_kept.saturating_add(file.size);
                }
                Decision::Zero => looked.files_zeroed += 1,
                Decision::Copy { existing } => copies.push(self.plan_copy(index, file, existing)?),
            }
        }
        for run in runs(&copies, self.storage.read_ahead().read_over_bytes) {
            self.look_at_run(pipeline, &run, &mut looked)?;
        }
        Ok(looked)
    }

    /// A file whose target directory does not exist yet has nothing to compare with.
    fn decide_if_there(&self, pipeline: &mut RestorePipeline, file: &ManifestFile) -> Result<Decision> {
        if self.delta && !self.is_zeroed(file) && self.place(file).is_err() {
            return Ok(if file.size == 0 { Decision::Zero } else { Decision::Copy { existing: None } });
        }
        self.decide(pipeline, file)
    }

    fn look_at_run(&self, pipeline: &RestorePipeline, run: &ReadRun<'_, '_>, looked: &mut Looked) -> Result<()> {
        let (path, ReadRange { offset, limit }) = self.read_of(run)?;
        looked.fetch(path, offset, limit.unwrap_or_else(|| run.first.file.repo_bytes()));
        for copy in run.copies {
            looked.files_copied += 1;
            match copy.file.stored_blocks() {
                Some(block) => self.look_at_blocks(pipeline, copy, block, looked)?,
                None => looked.bytes_written = looked.bytes_written.saturating_add(copy.file.size),
            }
        }
        Ok(())
    }

    /// Adds what a block incremental file needs besides what is read of it first.
    fn look_at_blocks(
        &self,
        pipeline: &RestorePipeline,
        copy: &Copy<'_>,
        block: BlockIncr,
        looked: &mut Looked,
    ) -> Result<()> {
        let file = copy.file;
        let own_size = file.repo_bytes().saturating_sub(block.map_size);
        if self.manifest.holder(file).backup_type() == BackupType::Full && copy.existing.is_none() {
            // All blocks are in one place
            looked.bytes_written = looked.bytes_written.saturating_add(file.size);
            if copy.limit == Some(block.map_size) && own_size > 0 {
                let offset = file.bundle.map_or(0, |bundle| bundle.offset);
                looked.fetch(self.repo_file(file)?, offset, own_size);
            }
            return Ok(());
        }
        let storage = OnTurn::new(self.storage, pipeline.turn());
        let map = self.read_map_only(pipeline, &storage, copy, block)?;
        looked.map_requests += 1;
        let existing = copy.existing.as_deref().unwrap_or_default();
        let plan = block_delta::plan(
            &map,
            &self.block_file(file, block),
            existing,
            self.storage.read_ahead().read_over_bytes,
        )?;
        looked.bytes_written = looked.bytes_written.saturating_add(plan.size);
        let member_len = copy.limit.filter(|limit| *limit <= MEMBER_SIZE_MAX).unwrap_or(0);
        for read in &plan.reads {
            let in_member = self.member_range(copy, read).is_some_and(|range| range.end as u64 <= member_len);
            if !in_member {
                looked.fetch(self.block_repo_file(file, read)?, read.offset, read.size);
            }
        }
        Ok(())
    }
}

impl FileContext<'_> {
    /// Reads the block map of a file. `copy` is what the restore would read of the file first.
    fn read_map_only(
        &self,
        pipeline: &RestorePipeline,
        storage: &dyn RepoStorage,
        copy: &Copy<'_>,
        block: BlockIncr,
    ) -> Result<BlockMap> {
        let offset = copy.offset.saturating_add(copy.limit.unwrap_or(0)).saturating_sub(block.map_size);
        let map_only = Copy { offset, limit: Some(block.map_size), existing: None, ..*copy };
        let path = self.repo_file(copy.file)?;
        let range = ReadRange { offset, limit: map_only.limit };
        let mut stored = storage.read(&path, range)?.ok_or_else(|| storage::missing(storage, &path))?;
        Ok(self.read_map(pipeline, &map_only, block, &mut stored)?.0)
    }

    /// Reads and decodes the beginning of a file into a file in memory, as the restore would. Returns how many stored
    /// bytes were read. `sample` is the index of the file and the number of bytes to decode at most.
    ///
    /// # Errors
    /// It can't be read or decoded.
    pub(in crate::restore) fn read_sample(
        &self,
        pipeline: &mut RestorePipeline,
        sample: (u32, u64),
        memory: &mut File,
        cancel: &CancelToken,
    ) -> Result<u64> {
        pipeline.begin_job(cancel);
        let (index, size_max) = sample;
        let Some(file) = self.manifest.files.get(index as usize) else { return Ok(0) };
        let fail = |error| Error::from_io(ErrorCode::FileWrite, "unable to write to a file in memory", error);
        memory.set_len(0).and_then(|()| memory.rewind()).map_err(fail)?;
        let storage = OnTurn::new(self.storage, &pipeline.turn().clone());
        let copy = self.plan_copy(index, file, None)?;
        let (path, range, blocks) = match file.stored_blocks() {
            Some(block) => {
                let map = self.read_map_only(pipeline, &storage, &copy, block)?;
                let plan = block_delta::plan(&map, &self.block_file(file, block), &[], 0)?;
                let Some(read) = plan.reads.into_iter().next() else { return Ok(0) };
                let read = beginning(read, size_max);
                let range = ReadRange { offset: read.offset, limit: Some(read.size) };
                (self.block_repo_file(file, &read)?, range, Some(read))
            }
            None => (self.repo_file(file)?, ReadRange { offset: copy.offset, limit: copy.limit }, None),
        };
        let stored = storage.read(&path, range)?.ok_or_else(|| storage::missing(&storage, &path))?;
        let mut stored = Counted { inner: stored, bytes: 0 };
        let out = OutFile { file: memory, name: &file.name };
        match blocks {
            Some(read) => pipeline.copy_blocks(&mut stored, &read, false, out)?,
            None => {
                let framing = self.framing(file);
                pipeline.copy(&mut stored, framing, file.size.min(size_max), out)?;
            }
        }
        Ok(stored.bytes)
    }
}

/// Returns the first super blocks of a read, whose decoded sizes are not above this together, but at least one.
fn beginning(mut read: BlockRead, size_max: u64) -> BlockRead {
    let mut decoded = 0u64;
    let is_within = |super_block: &&SuperBlockRead| {
        let is_first = decoded == 0;
        decoded = decoded.saturating_add(super_block.decoded_size);
        is_first || decoded <= size_max
    };
    let count = read.super_blocks.iter().take_while(is_within).count();
    read.super_blocks.truncate(count);
    read.size =
        read.super_blocks.iter().map(|block| block.skip.saturating_add(block.size)).fold(0, u64::saturating_add);
    read
}

/// Counts the bytes that are read.
struct Counted<R> {
    inner: R,
    /// So many.
    bytes: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.bytes += read as u64;
        Ok(read)
    }
}
