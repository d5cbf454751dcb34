//! Gathers the stored bytes of a job and writes them.

use repo_format::hash::{Sha1, Sha1Hasher};
use repo_format::layout::RepoPath;

use super::CopySettings;
use crate::storage::RepoWriter;
use crate::{Error, ErrorCode, Result};

/// The file of a job in the repository. It is created when the first bytes are written, so that a bundle of unchanged
/// files leaves none.
#[derive(Default)]
pub(super) struct Sink {
    writer: Option<Box<dyn RepoWriter>>,
    /// Whether the file was created.
    made: bool,
    /// Bytes not written yet.
    pub(super) pending: Vec<u8>,
    /// Where the current file begins in `pending`; 0 if part of it was written already.
    file_begin: usize,
    /// Whether bytes of the current file were written.
    pub(super) file_written: bool,
    /// Bytes of complete files.
    pub(super) offset: u64,
    /// Bytes of the current file so far written.
    file_size: u64,
    hasher: Option<Sha1Hasher>,
}

impl Sink {
    pub(super) fn begin_job(&mut self) {
        *self = Sink { pending: std::mem::take(&mut self.pending), ..Sink::default() };
        self.pending.clear();
    }

    pub(super) fn begin_file(&mut self, hash: bool) {
        self.file_begin = self.pending.len();
        self.file_written = false;
        self.file_size = 0;
        self.hasher = hash.then(Sha1Hasher::new);
    }

    /// Bytes of the current file that are not written yet.
    pub(super) fn file_pending(&self) -> &[u8] {
        &self.pending[self.file_begin..]
    }

    pub(super) fn flush(&mut self, settings: &CopySettings, path: &RepoPath) -> Result<()> {
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&self.pending[self.file_begin..]);
        }
        self.file_size += (self.pending.len() - self.file_begin) as u64;
        self.file_written |= self.pending.len() > self.file_begin;
        let writer = match &mut self.writer {
            Some(writer) => writer,
            // Not atomic, because a resume checks checksums
            none => {
                self.made = true;
                none.insert(settings.storage.write(path, settings.write_options)?)
            }
        };
        writer.write_all(&self.pending).map_err(|error| {
            let path = settings.storage.display(path);
            Error::from_io(ErrorCode::FileWrite, format!("unable to write '{path}'"), error)
        })?;
        self.pending.clear();
        self.file_begin = 0;
        Ok(())
    }

    /// Removes what a failed job wrote. When the job is retried, its files may no longer exist, and nothing would
    /// overwrite it.
    pub(super) fn abandon(&mut self, settings: &CopySettings, path: &RepoPath) {
        self.writer = None;
        if std::mem::take(&mut self.made) {
            // The earlier error is the one to report; a file that no manifest names is only in the way
            let _ = settings.storage.remove(path);
        }
    }

    /// Drops the current file, of which nothing may be written yet.
    pub(super) fn drop_file(&mut self) {
        self.pending.truncate(self.file_begin);
    }

    /// Ends the current file. Returns its stored size and checksum.
    pub(super) fn end_file(&mut self) -> (u64, Option<Sha1>) {
        let checksum = self.hasher.take().map(|mut hasher| {
            hasher.update(&self.pending[self.file_begin..]);
            hasher.finish()
        });
        let size = self.file_size + (self.pending.len() - self.file_begin) as u64;
        self.file_begin = self.pending.len();
        self.offset += size;
        (size, checksum)
    }

    /// Writes the rest. A job that stored nothing creates no file.
    pub(super) fn end_job(&mut self, settings: &CopySettings, path: &RepoPath, stored: bool) -> Result<()> {
        if stored && (self.writer.is_none() || !self.pending.is_empty()) {
            self.file_begin = self.pending.len();
            self.flush(settings, path)?;
        }
        match self.writer.take() {
            Some(writer) => writer.finish(),
            None => Ok(()),
        }
    }
}
