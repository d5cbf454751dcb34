//! Answers of a connection, and the wait for them.

use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use super::Connection;
use crate::remote::received::{Received, ReceivedPart};
use crate::remote::shared::Reply;
use crate::work::retry::PeerFault;
use crate::{CancelToken, Result};

/// An answer.
pub(crate) struct Answer {
    pub(super) message: Received,
    /// The data within the message.
    pub(super) data: Option<Range<usize>>,
    /// Whether its session has ended.
    pub(crate) is_closed: bool,
    /// The name of the server in errors.
    pub(super) name: Arc<str>,
}

impl Answer {
    /// The data: a complete pack.
    pub(crate) fn data(&self) -> Option<&[u8]> {
        self.data.clone().and_then(|data| self.message.get(data))
    }

    /// Keeps a part of the data, where it is.
    pub(crate) fn into_part(self, part: AnswerPart) -> ReceivedPart {
        ReceivedPart::new(self.message, part.0)
    }

    /// The place of bytes that were decoded from the data, for [`Self::into_part`].
    pub(crate) fn part(&self, bytes: &[u8]) -> AnswerPart {
        AnswerPart(position(&self.message, bytes))
    }

    /// Reads the data.
    ///
    /// # Errors
    /// Those of `read`, as errors of the server.
    pub(crate) fn read<'a, T>(&'a self, read: impl FnOnce(Option<&'a [u8]>) -> Result<T>) -> Result<T> {
        read(self.data()).map_err(|error| error.context(&self.name).cause(PeerFault))
    }
}

/// A place in an answer.
pub(crate) struct AnswerPart(Range<usize>);

/// A request that was sent.
#[must_use]
pub(crate) struct PendingAnswer {
    pub(super) connection: Arc<Connection>,
    /// The number of the session.
    pub(crate) session: u64,
    pub(super) reply: Receiver<Reply>,
}

impl PendingAnswer {
    /// Waits for the answer.
    ///
    /// # Errors
    /// The server's error, or the error that ended the connection.
    pub(crate) fn wait(self) -> Result<Answer> {
        self.connection.receive(&self.reply, None)
    }

    /// Returns the answer if it has come already.
    pub(crate) fn try_wait(self) -> std::result::Result<Result<Answer>, Self> {
        match self.reply.try_recv() {
            Ok(reply) => Ok(self.connection.accept(reply)),
            // Why there is none is for those who wait
            Err(_) => Err(self),
        }
    }

    /// Waits for an answer whose content does not matter. A server that does not answer in time loses the connection. Returns
    /// whether it has answered.
    pub(crate) fn answers_within(self, limit: Duration) -> bool {
        match self.reply.recv_timeout(limit) {
            Ok(reply) => reply.is_ok(),
            Err(error) => {
                let _ = self.connection.silent(error);
                false
            }
        }
    }

    /// Waits for an answer that the server may need long for, or until the token is cancelled. This ends the connection,
    /// because the server can't do anything else meanwhile.
    ///
    /// # Errors
    /// Those of [`PendingAnswer::wait`], [`ErrorCode::Term`] once cancelled.
    pub(crate) fn wait_or_stop(self, cancel: &CancelToken) -> Result<Answer> {
        self.connection.receive(&self.reply, Some(cancel))
    }
}

/// Returns the position of a slice of a message.
pub(super) fn position(message: &[u8], part: &[u8]) -> Range<usize> {
    // An empty slice may be anywhere
    if part.is_empty() {
        return 0..0;
    }
    let begin = part.as_ptr().addr() - message.as_ptr().addr();
    begin..begin + part.len()
}
