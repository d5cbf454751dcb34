//! A worker on the other host.

use std::sync::Arc;

use protocol::Call;
use protocol::call::CallKind;

use crate::remote::Connection;

/// The session of a worker. It ends when this is dropped.
pub(super) struct FarSession {
    connection: Arc<Connection>,
    pub(super) number: u64,
}

impl FarSession {
    /// The session with this number, which was asked for.
    pub(super) fn new(connection: &Arc<Connection>, number: u64) -> Self {
        FarSession { connection: Arc::clone(connection), number }
    }
}

impl Drop for FarSession {
    fn drop(&mut self) {
        // The connection goes on without the answer
        drop(self.connection.send(&Call::Cancel(CallKind::Copy), Some(self.number)));
    }
}
