//! Gathers the stored bytes of a job and writes them.

use repo_format::hash::{Sha1, Sha1Hasher};
use repo_format::layout::RepoPath;

use crate::storage::on_turn::OnTurn;
use crate::storage::{RepoStorage, RepoWriter, WriteOptions};
use crate::{Error, ErrorCode, Result};

/// The file of a job in the repository. It is created when the first bytes are written, so that a bundle of unchanged
/// files leaves none.
pub(super) struct Sink<'a> {
    storage: OnTurn<&'a dyn RepoStorage>,
    options: WriteOptions,
    /// Bytes not written yet.
    pub(super) pending: Vec<u8>,
    job: JobFile,
    file: CurrentFile,
}

/// The file in the repository so far.
#[derive(Default)]
struct JobFile {
    writer: Option<Box<dyn RepoWriter>>,
    /// Whether the file was created.
    made: bool,
    /// Bytes of complete files.
    offset: u64,
}

/// The file whose bytes are being gathered.
#[derive(Default)]
struct CurrentFile {
    /// Where it begins in the pending bytes; 0 if part of it was written already.
    begin: usize,
    /// Whether bytes of it were written.
    written: bool,
    /// Bytes of it so far written.
    size: u64,
    hasher: Option<Sha1Hasher>,
}

impl<'a> Sink<'a> {
    pub(super) fn new(storage: OnTurn<&'a dyn RepoStorage>, options: WriteOptions) -> Self {
        Sink { storage, options, pending: Vec::new(), job: JobFile::default(), file: CurrentFile::default() }
    }

    pub(super) fn begin_job(&mut self) {
        self.pending.clear();
        self.job = JobFile::default();
        self.file = CurrentFile::default();
    }

    pub(super) fn begin_file(&mut self, hash: bool) {
        self.file =
            CurrentFile { begin: self.pending.len(), written: false, size: 0, hasher: hash.then(Sha1Hasher::new) };
    }

    /// The offset of the current file in the job's file.
    pub(super) fn offset(&self) -> u64 {
        self.job.offset
    }

    /// Bytes of the current file that are not written yet.
    pub(super) fn file_pending(&self) -> &[u8] {
        &self.pending[self.file.begin..]
    }

    /// Returns whether nothing of the current file was written, so that it can be dropped.
    pub(super) fn may_drop_file(&self) -> bool {
        !self.file.written
    }

    /// Writes the pending bytes to this path.
    pub(super) fn flush(&mut self, path: &RepoPath) -> Result<()> {
        if let Some(hasher) = &mut self.file.hasher {
            hasher.update(&self.pending[self.file.begin..]);
        }
        self.file.size += (self.pending.len() - self.file.begin) as u64;
        self.file.written |= self.pending.len() > self.file.begin;
        let writer = match &mut self.job.writer {
            Some(writer) => writer,
            // Not atomic, because a resume checks checksums
            none => {
                self.job.made = true;
                none.insert(self.storage.write(path, self.options)?)
            }
        };
        writer.write_all(&self.pending).map_err(|error| {
            let path = self.storage.display(path);
            Error::from_io(ErrorCode::FileWrite, format!("unable to write '{path}'"), error)
        })?;
        self.pending.clear();
        self.file.begin = 0;
        Ok(())
    }

    /// Removes what a failed job wrote. When the job is retried, its files may no longer exist, and nothing would
    /// overwrite it.
    pub(super) fn abandon(&mut self, path: &RepoPath) {
        self.job.writer = None;
        if std::mem::take(&mut self.job.made) {
            // The earlier error is the one to report; a file that no manifest names is only in the way
            let _ = self.storage.remove(path);
        }
    }

    /// Drops the current file, of which nothing may be written yet.
    pub(super) fn drop_file(&mut self) {
        self.pending.truncate(self.file.begin);
    }

    /// Ends the current file. Returns its stored size and checksum.
    pub(super) fn end_file(&mut self) -> (u64, Option<Sha1>) {
        let checksum = self.file.hasher.take().map(|mut hasher| {
            hasher.update(&self.pending[self.file.begin..]);
            hasher.finish()
        });
        let size = self.file.size + (self.pending.len() - self.file.begin) as u64;
        self.file.begin = self.pending.len();
        self.job.offset += size;
        (size, checksum)
    }

    /// Writes the rest. A job that stored nothing creates no file.
    pub(super) fn end_job(&mut self, path: &RepoPath, stored: bool) -> Result<()> {
        if stored && (self.job.writer.is_none() || !self.pending.is_empty()) {
            self.file.begin = self.pending.len();
            self.flush(path)?;
        }
        match self.job.writer.take() {
            Some(writer) => writer.finish(),
            None => Ok(()),
        }
    }
}
