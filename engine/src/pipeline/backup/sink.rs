//! Gathers the stored bytes of a job.

use repo_format::hash::{Sha1, Sha1Hasher};

use super::worker::JobStore;
use crate::Result;

/// The stored bytes of a job. Those of an unchanged file can be dropped as long as they are here.
#[derive(Default)]
pub(crate) struct Sink {
    /// Bytes not written yet.
    pub(crate) pending: Vec<u8>,
    /// Bytes of complete files.
    offset: u64,
    file: CurrentFile,
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

impl Sink {
    pub(crate) fn begin_job(&mut self) {
        self.pending.clear();
        *self = Sink { pending: std::mem::take(&mut self.pending), ..Sink::default() };
    }

    pub(crate) fn begin_file(&mut self, hash: bool) {
        self.file =
            CurrentFile { begin: self.pending.len(), written: false, size: 0, hasher: hash.then(Sha1Hasher::new) };
    }

    /// The offset of the current file in the job's file.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// Bytes of the current file that are not written yet.
    pub(crate) fn file_pending(&self) -> &[u8] {
        &self.pending[self.file.begin..]
    }

    /// Returns whether nothing of the current file was written, so that it can be dropped.
    pub(crate) fn may_drop_file(&self) -> bool {
        !self.file.written
    }

    /// Writes the pending bytes.
    pub(crate) fn flush(&mut self, store: &mut dyn JobStore) -> Result<()> {
        if let Some(hasher) = &mut self.file.hasher {
            hasher.update(&self.pending[self.file.begin..]);
        }
        self.file.size += (self.pending.len() - self.file.begin) as u64;
        self.file.written |= self.pending.len() > self.file.begin;
        store.write(&self.pending)?;
        self.pending.clear();
        self.file.begin = 0;
        Ok(())
    }

    /// Drops the current file, of which nothing may be written yet.
    pub(crate) fn drop_file(&mut self) {
        self.pending.truncate(self.file.begin);
    }

    /// Ends the current file. Returns its stored size and checksum.
    pub(crate) fn end_file(&mut self) -> (u64, Option<Sha1>) {
        let checksum = self.file.hasher.take().map(|mut hasher| {
            hasher.update(&self.pending[self.file.begin..]);
            hasher.finish()
        });
        let size = self.file.size + (self.pending.len() - self.file.begin) as u64;
        self.file.begin = self.pending.len();
        self.offset += size;
        (size, checksum)
    }

    /// Writes the rest.
    pub(crate) fn end_job(&mut self, store: &mut dyn JobStore) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        self.file.begin = self.pending.len();
        self.flush(store)
    }
}
