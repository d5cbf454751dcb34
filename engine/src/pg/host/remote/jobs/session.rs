//! Workers on the other host as this side counts them.

use std::sync::Arc;

use protocol::Call;
use protocol::call::CallKind;

use crate::pg::host::remote::open_files::{Place, files_max};
use crate::pg::host::remote::worker::RemoteWorker;
use crate::remote::Connection;
use crate::work::turn::Turn;
use crate::{CancelToken, Result};

/// Codecs of which the process on the other host may have so many besides those of open files are not counted.
const UNCOUNTED_MAX: u64 = 4;
/// A worker counts as an open file of any size.
const WORKER_BYTES: u64 = u64::MAX;

/// A worker on the other host. It ends when this is dropped.
pub(super) struct FarSession {
    connection: Arc<Connection>,
    pub(super) number: u64,
    place: Option<Place>,
}

/// Waits until the process there may have one more codec; `None` if codecs need so little that nobody counts them.
///
/// # Errors
/// The same as [`CancelToken::check`].
pub(super) fn place(worker: &RemoteWorker<'_>, turn: &Turn, cancel: &CancelToken) -> Result<Option<Place>> {
    let max = files_max(worker.rules().compression);
    if max > UNCOUNTED_MAX {
        return Ok(None);
    }
    match worker.open_files.try_open(WORKER_BYTES, max) {
        Some(place) => Ok(Some(place)),
        None => turn.waiting(|| worker.open_files.open(WORKER_BYTES, max, cancel)).map(Some),
    }
}

impl FarSession {
    /// The worker of this session.
    pub(super) fn new(connection: &Arc<Connection>, number: u64, place: Option<Place>) -> Self {
        FarSession { connection: Arc::clone(connection), number, place }
    }

    /// The worker for the next job. One that counts ends, because others may wait for its place.
    pub(super) fn kept(self) -> Option<Self> {
        self.place.is_none().then_some(self)
    }
}

impl Drop for FarSession {
    fn drop(&mut self) {
        // Before its place is free. The connection goes on without the answer
        drop(self.connection.send(&Call::Cancel(CallKind::Copy), Some(self.number)));
    }
}
