//! Sums of files that the host of the repository makes, so that the files need not come here.
//!
//! The host decrypts, decompresses and hashes with the filters that pgBackRest's own verify sends (`src/command/verify/file.c`). A
//! filter at the end swallows the data.

use std::sync::Arc;

use protocol::Call;
use protocol::call::CallKind;
use protocol::filter::FilterResult;
use protocol::storage::{Chunk, ReadAnswer, ReadRequest};
use repo_format::hash::Sha1;

use super::RemoteStorage;
use crate::Result;
use crate::remote::filters::content_sum;
use crate::storage::{ContentSum, ReadRange, StoredContent};

impl RemoteStorage {
    /// Returns the sum of a file, or of a version of it; `None` if it is missing or the host has no filters for it.
    ///
    /// # Errors
    /// The server's error, the error that ended the connection, and [`ErrorCode::Term`](crate::ErrorCode::Term) once cancelled.
    pub(super) fn sum_of(&self, content: &StoredContent<'_>, version: Option<&str>) -> Result<Option<ContentSum>> {
        let ReadRange { offset, limit } = content.range;
        let filters = content_sum(content.cipher, content.compress_type);
        // Such a limit can't be sent
        let Some(filters) = filters.filter(|_| limit != Some(0)) else { return Ok(None) };
        let path = &*self.absolute(content.path);
        let request = ReadRequest { path, offset, limit, version, filters };
        let lane = self.lanes.take_to_compute(content.cancel)?;
        let opened = lane.connection().send(&Call::ReadOpen(request), None);
        let session = opened.session;
        // The connection of the command itself is still needed for what was found
        let answer = match Arc::ptr_eq(lane.connection(), self.lanes.first()) {
            true => opened.wait()?,
            false => opened.wait_or_stop(content.cancel)?,
        };
        let sum = match answer.read(|data| ReadAnswer::decode(data, answer.is_closed))? {
            ReadAnswer::Missing => None,
            ReadAnswer::Chunk(chunk) => sum(&chunk),
        };
        if !answer.is_closed {
            // It began to send the file
            drop(lane.connection().send(&Call::Cancel(CallKind::StorageRead), Some(session)));
        }
        Ok(sum)
    }
}

/// The results of a file of which no data came.
fn sum(chunk: &Chunk<'_>) -> Option<ContentSum> {
    let results = chunk.results.as_ref().filter(|_| chunk.data.is_empty())?;
    let checksum = results.iter().find_map(|result| match result {
        FilterResult::Hash(hash) => <[u8; 20]>::try_from(*hash).ok().map(Sha1),
        _ => None,
    });
    let size = results.iter().find_map(|result| match result {
        FilterResult::Size(size) => Some(*size),
        _ => None,
    });
    Some(ContentSum { checksum: checksum?, size: size? })
}
