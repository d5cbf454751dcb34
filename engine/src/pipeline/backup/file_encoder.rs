//! Encodes files on this host, and decides what of a file is stored.

use repo_format::hash::Sha1;

use super::codecs::Codecs;
use super::job::{Copied, CopyFile, CopyJob, CopyOutcome};
use super::pass::{Input, Pass, Passed};
use super::sink::Sink;
use super::worker::JobStore;
use super::{CopyRules, READ_BUFFER_BYTES};
use crate::cancel::CancelToken;
use crate::pipeline::block_writer::BlockLayout;
use crate::pipeline::page_check::PageChecker;
use crate::progress::JobProgress;
use crate::throttle::Pace;
use crate::work::turn::Turn;
use crate::{Error, ErrorCode, Result};

/// Stored bytes gathered before they are written.
const WRITE_BUFFER_BYTES: usize = 256 << 10;

/// One job in progress.
pub(crate) struct OpenJob<'a> {
    pub(crate) job: &'a CopyJob,
    pub(crate) store: &'a mut dyn JobStore,
    pub(crate) cancel: &'a CancelToken,
    /// How fast the data directory may be read.
    pub(crate) pace: Pace,
    /// Where to tell how much is done.
    pub(crate) progress: JobProgress,
}

/// What follows from the comparison of a file with what is recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Compared {
    /// The file need not be copied.
    Done(CopyOutcome),
    /// The file is to be copied.
    Differs {
        /// As in [`Copied::repo_invalid`].
        repo_invalid: bool,
    },
}

impl<'a> OpenJob<'a> {
    pub(crate) fn new(job: &'a CopyJob, store: &'a mut dyn JobStore, cancel: &'a CancelToken) -> Self {
        let (pace, progress) = (store.pace(), store.progress());
        OpenJob { job, store, cancel, pace, progress }
    }

    /// Compares a file with what is recorded. `plain` returns its size and checksum, or `None` if it no longer exists.
    pub(crate) fn compare(
        &mut self,
        file: &CopyFile,
        plain: impl FnOnce() -> Result<Option<(u64, Sha1)>>,
    ) -> Result<Compared> {
        if file.method.resumes() && self.job.bundle_id.is_some() {
            // What is stored is the bundle, which would be checked and removed instead of the file
            let message = format!("file '{}' of an interrupted backup can't be resumed in a bundle", file.name);
            return Err(Error::new(ErrorCode::Assert, message));
        }
        let mut matches = None;
        if file.method.compares() {
            match plain()? {
                None => return Ok(Compared::Done(CopyOutcome::Removed)),
                Some((size, checksum)) => {
                    let same = size == file.size && Some(checksum) == file.checksum;
                    if same && file.has_reference {
                        return Ok(Compared::Done(CopyOutcome::Unchanged { size, checksum }));
                    }
                    matches = Some(same);
                }
            }
        }
        let mut repo_invalid = false;
        if file.method.resumes() && matches != Some(false) {
            let expected = file.checksum_repo.or(file.checksum);
            let found = self.store.stored_checksum()?;
            match (found, expected, file.checksum) {
                (Some((size, found)), Some(expected), Some(checksum))
                    if size == file.size_repo && found == expected =>
                {
                    return Ok(Compared::Done(CopyOutcome::Resumed { size: file.size, checksum }));
                }
                _ => repo_invalid = true,
            }
        }
        Ok(Compared::Differs { repo_invalid })
    }
}

/// Encodes files and gathers stored bytes.
pub(crate) struct FileEncoder<'a> {
    pub(crate) rules: &'a CopyRules,
    /// The turn to compute of the thread that copies.
    pub(crate) turn: Turn,
    pub(crate) sink: Sink,
    read_buffer: Vec<u8>,
}

impl<'a> FileEncoder<'a> {
    /// An encoder for the thread that has this turn.
    pub(crate) fn new(rules: &'a CopyRules, turn: &Turn) -> Self {
        FileEncoder { rules, turn: turn.clone(), sink: Sink::default(), read_buffer: Vec::new() }
    }

    /// The buffer for reading plain bytes.
    pub(crate) fn read_buffer(&mut self) -> &mut Vec<u8> {
        self.read_buffer.resize(READ_BUFFER_BYTES, 0);
        &mut self.read_buffer
    }

    /// Copies a file. `display` is its path for messages.
    pub(crate) fn copy(
        &mut self,
        open: &mut OpenJob<'_>,
        file: &CopyFile,
        input: Input,
        display: &dyn Fn() -> String,
    ) -> Result<CopyOutcome> {
        let FileEncoder { rules, turn, sink, .. } = self;
        let (place, mut codecs) = rules.codecs.take(rules, turn);
        let Codecs { encoders, read_buffer } = &mut codecs;
        // Not before the thread can use them
        let helpers = (open.job.threads > 1).then(|| {
            crate::debug!("{} threads compress '{}'", open.job.threads, file.name);
            turn.reserve(open.job.threads - 1)
        });
        let pages = file.page_check.then(|| PageChecker::new(&file.name, rules.page_size, rules.page_header_check));
        let transform = match &file.block {
            Some(block) => {
                let layout = BlockLayout {
                    block_size: block.block_size,
                    checksum_size: block.checksum_size,
                    super_block_size: block.super_block_size,
                    reference: rules.reference,
                    bundle_id: open.job.bundle_id.unwrap_or(0),
                    offset: sink.offset(),
                };
                encoders.blocks(layout, open.store.prior_map(file)?)?
            }
            None => encoders.stream(rules, open.job)?,
        };
        sink.begin_file(transform.transforms());
        let mut pass = Pass::new(input, transform, pages);
        let mut paid = 0;
        while pass.advance(read_buffer, &mut sink.pending, display)? {
            open.progress.add(pass.size() - paid);
            open.pace.after(pass.size() - paid, open.cancel);
            paid = pass.size();
            open.cancel.check()?;
            if let Some(block) = &file.block {
                open.store.map_grows(paid / u64::from(block.block_size.max(1)))?;
            }
            turn.give_way();
            // What is kept to find out that the file did not change need not be kept any more once some of it is written
            let kept = if sink.may_drop_file() { rules.compare_buffer_bytes } else { WRITE_BUFFER_BYTES };
            if sink.file_pending().len() >= kept {
                sink.flush(open.store)?;
            }
        }
        open.progress.add(pass.size() - paid);
        open.pace.after(pass.size() - paid, open.cancel);
        let passed = pass.finish(&mut sink.pending)?;
        // What is still to do may wait for the repository
        place.give_back(codecs);
        drop(helpers);
        self.end_file(open, file, passed)
    }

    /// Gives the file that was just read to the repository, unless that is not necessary.
    pub(crate) fn end_file(&mut self, open: &mut OpenJob<'_>, file: &CopyFile, passed: Passed) -> Result<CopyOutcome> {
        let Passed { size, checksum, map_size, pages } = passed;
        let FileEncoder { rules, sink, .. } = self;
        if sink.may_drop_file() && sink.file_pending().len() < rules.compare_buffer_bytes.max(1) {
            // Without blocks there is no map, which the manifest would need to locate the file
            if size == 0 && (open.job.bundle_id.is_some() || file.block.is_some()) {
                sink.drop_file();
                return Ok(CopyOutcome::Truncated);
            }
            if file.has_reference && size == file.size && Some(checksum) == file.checksum {
                sink.drop_file();
                return Ok(CopyOutcome::Unchanged { size, checksum });
            }
        }
        let bundle_offset = sink.offset();
        let (size_repo, checksum_repo) = sink.end_file();
        if sink.pending.len() >= WRITE_BUFFER_BYTES {
            sink.flush(open.store)?;
        }
        Ok(CopyOutcome::Copied(Copied {
            size,
            checksum,
            size_repo,
            checksum_repo,
            bundle_offset,
            map_size,
            pages,
            repo_invalid: false,
        }))
    }
}
