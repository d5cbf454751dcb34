//! A channel of a connection as the link of another one.

use std::sync::Arc;
use std::time::Duration;

use crate::remote::channels::{Channels, ServerEnd};
use crate::remote::link::Link;
use crate::remote::shared::{End, Shared, lock};
use crate::{Error, ErrorCode};

/// A channel of another connection.
pub(super) struct ChannelLink {
    /// Of the other connection. Only the connection on the channel keeps that one itself, because this ends later.
    pub(super) parent: Arc<Shared>,
    pub(super) parent_name: String,
    pub(super) read_name: String,
    pub(super) channels: Arc<Channels>,
    pub(super) number: u32,
}

impl Link for ChannelLink {
    fn read_name(&self) -> String {
        self.read_name.clone()
    }

    fn ended(&mut self, _: Duration, _: bool) -> Error {
        let text = || format!("unexpected EOF from {}", self.parent_name);
        let end = lock(&self.parent.queue).end.clone();
        end.map_or_else(|| Error::new(ErrorCode::Format, text()), |end| end.to_error())
    }

    fn finish(&mut self, _: Duration) {
        // The server's locks belong to the first connection
        self.channels.finish(self.number);
    }

    fn kill(&mut self) {
        if self.channels.abort(self.number) {
            let text = format!("timeout waiting for write to '{}'", self.read_name);
            self.parent.fail(&End::of(Error::new(ErrorCode::FileWrite, text)));
            // A thread may be blocked while it sends
            lock(&self.parent.link).kill();
        }
    }
}

/// How a channel ends.
pub(super) struct ChannelEnd {
    pub(super) channels: Arc<Channels>,
    pub(super) number: u32,
    pub(super) server_end: ServerEnd,
}

impl ChannelEnd {
    /// Waits until the server has ended the channel. Returns `false` if it does not within the limit, or was not the first.
    pub(super) fn is_by_server(&self, limit: Duration) -> bool {
        self.channels.was_ended_by_server(self.number, &self.server_end, limit)
    }
}
