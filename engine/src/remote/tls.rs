//! The TLS session with the server on another host.

use std::time::Duration;

use super::failure::with_session_hint;
use super::link::{Link, Opened};
use crate::tls::{ClientSettings, Session, connect};
use crate::{Error, ErrorCode, Result};

struct TlsLink(Session);

/// Begins a session.
///
/// # Errors
/// The same as [`connect`].
pub(super) fn open(settings: &ClientSettings, timeout: Duration) -> Result<Opened> {
    let session = connect(settings).map_err(|error| with_session_hint(error, settings))?;
    // Whoever waits for an answer knows for how long
    let input = Box::new(session.reader(None));
    let output = Box::new(session.writer(timeout));
    Ok(Opened { link: Box::new(TlsLink(session)), input, output })
}

impl Link for TlsLink {
    fn read_name(&self) -> String {
        self.0.name().to_owned()
    }

    fn ended(&mut self, _: Duration, _: bool) -> Error {
        Error::new(ErrorCode::Format, format!("unexpected EOF from '{}'", self.0.name()))
            .hint("the log of the server on that host may tell why the session has ended")
    }

    fn finish(&mut self, timeout: Duration) {
        self.0.close(timeout);
    }

    fn kill(&mut self) {
        self.0.abort();
    }
}
