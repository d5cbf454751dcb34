//! The two sides of a job: who reads the data directory, and who has the repository. They may be on different hosts.

use repo_format::block_map::BlockMap;
use repo_format::hash::Sha1;

use super::job::{CopyFile, CopyJob, CopyResult};
use crate::Result;
use crate::cancel::CancelToken;
use crate::progress::JobProgress;
use crate::throttle::Pace;

/// Does whole jobs beside the data directory: reads files, checks their pages and reads suspect ones again, hashes,
/// compresses and encrypts.
pub trait CopyWorker {
    /// Copies the files of a job. The stored bytes go to `store`.
    ///
    /// # Errors
    /// A file can't be read, or an error of `store`. Nothing of the job counts. The job can be retried with a new
    /// worker, because this one may contain half a stream.
    fn run(&mut self, job: &CopyJob, store: &mut dyn JobStore, cancel: &CancelToken) -> Result<Vec<CopyResult>>;
}

/// What a worker needs of the repository for one job. Only plain data pass through.
pub trait JobStore {
    /// Appends bytes to the job's file.
    ///
    /// # Errors
    /// They can't be written.
    fn write(&mut self, bytes: &[u8]) -> Result<()>;

    /// Returns size and checksum of what an interrupted backup stored as the job's file; `None` if it is missing.
    ///
    /// # Errors
    /// It can't be read.
    fn stored_checksum(&mut self) -> Result<Option<(u64, Sha1)>>;

    /// The pace at which the worker may read the data directory, or receive what another host read of it.
    fn pace(&self) -> Pace {
        Pace::FREE
    }

    /// The block map of a file has so many blocks by now.
    ///
    /// # Errors
    /// [`crate::ErrorCode::Memory`] if it may not become so large.
    fn map_grows(&mut self, _blocks: u64) -> Result<()> {
        Ok(())
    }

    /// Where the worker tells how much of the job is done.
    fn progress(&self) -> JobProgress {
        JobProgress::UNSEEN
    }

    /// Returns the block map of the prior backup that this file of the job continues; `None` if there is none.
    ///
    /// # Errors
    /// It can't be read, or does not belong to the file.
    fn prior_map(&mut self, file: &CopyFile) -> Result<Option<BlockMap>>;
}
