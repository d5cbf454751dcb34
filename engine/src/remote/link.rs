//! The way to the server on another host: a process, or a TLS session.

use std::io::{Read, Write};
use std::time::Duration;

use crate::Error;

/// The way to a server, apart from the bytes themselves.
pub(super) trait Link: Send {
    /// The name of the way in errors of reading, such as `HOST:PORT`.
    fn read_name(&self) -> String;

    /// Returns the error for an end of the server's output that the client did not ask for, before or after the greeting.
    fn ended(&mut self, timeout: Duration, has_greeted: bool) -> Error;

    /// Ends the way after the last request was sent, and waits for the server's end. Does not wait longer than `timeout`.
    fn finish(&mut self, timeout: Duration);

    /// Ends the way at once. Reads and writes end.
    fn kill(&mut self);
}

/// A way to a server that was just opened.
pub(super) struct Opened {
    /// What is not about bytes.
    pub(super) link: Box<dyn Link>,
    /// What the server sends.
    pub(super) input: Box<dyn Read + Send>,
    /// What the server gets. A write fails if nothing can be sent for too long.
    pub(super) output: Box<dyn Write + Send>,
}
