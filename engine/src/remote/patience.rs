//! Tries again while the server of another host has too many sessions: a command that starts at the same time as many others,
//! such as one that archives WAL, need not fail.

use std::time::Duration;

use super::{RemoteSettings, Way};
use crate::work::backoff::{Backoff, Growth};
use crate::{Error, ErrorCode, Result};

/// The beginning of the error with which a server of rbr refuses a session because it has too many.
pub const TOO_MANY_SESSIONS: &str = "server has too many sessions";

/// The shortest pause between two tries.
const PAUSE_MIN: Duration = Duration::from_millis(if cfg!(test) { 1 } else { 250 });
/// The longest one.
const PAUSE_MAX: Duration = Duration::from_secs(5);

fn is_too_many_sessions(error: &Error) -> bool {
    error.code == ErrorCode::Service && error.message.contains(TOO_MANY_SESSIONS)
}

/// Opens the connection of a command. Tries again for as long as connecting to a server may take, unless the command is to stop.
/// Connections of workers, without which a command can do with those that it has, are tried once.
///
/// # Errors
/// The error of the last try; [`ErrorCode::Term`] once cancelled.
pub(super) fn open<T>(settings: &RemoteSettings, mut open_once: impl FnMut() -> Result<T>) -> Result<T> {
    let Way::Tls { client, .. } = &settings.way else { return open_once() };
    let backoff = Backoff {
        first: PAUSE_MIN,
        max: PAUSE_MAX,
        growth: Growth::Random(3.0),
        limit: client.connect_timeout,
        tries_min: 1,
    };
    let mut pauses = backoff.start();
    loop {
        match open_once() {
            Err(error) if settings.process == 0 && is_too_many_sessions(&error) => {
                // Not at the level info: the standard output of some commands is data
                crate::debug!("wait for a session: {}", error.message);
                if !pauses.wait(&settings.cancel)? {
                    return Err(error);
                }
            }
            opened => return opened,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::CancelToken;
    use crate::remote::testing::tls_settings;

    fn too_many_sessions() -> Error {
        let text = format!("raised from remote-0 tls protocol on 'far': {TOO_MANY_SESSIONS}: 400 of client 'a'");
        Error::new(ErrorCode::Service, text)
    }

    /// Opens a connection whose first tries have this error. Returns the number of tries.
    fn tries(process: u32, limit: Duration, failing: u32, error: impl Fn() -> Error) -> (u32, Result<()>) {
        let tried = Cell::new(0);
        let result = open(&RemoteSettings { process, ..tls_settings(limit) }, || {
            tried.set(tried.get() + 1);
            if tried.get() <= failing { Err(error()) } else { Ok(()) }
        });
        (tried.get(), result)
    }

    #[test]
    fn command_that_started_while_the_server_had_too_many_sessions_failed_at_once() {
        let long = Duration::from_secs(60);
        let (count, result) = tries(0, long, 3, too_many_sessions);
        assert!(count == 4 && result.is_ok(), "{result:?}");
        // A worker is not waited for, nor is a server that refuses for another reason
        assert_eq!(tries(1, long, 3, too_many_sessions).0, 1);
        assert_eq!(tries(0, long, 3, || Error::new(ErrorCode::Access, "access denied")).0, 1);
        let (count, result) = tries(0, Duration::from_secs(1), u32::MAX, too_many_sessions);
        assert!(count > 1 && result.unwrap_err().message.contains("400 of client 'a'"));
    }

    #[test]
    fn command_that_was_told_to_stop_went_on_waiting_for_a_session() {
        let cancel = CancelToken::new();
        let settings = RemoteSettings { process: 0, cancel: cancel.clone(), ..tls_settings(Duration::from_secs(60)) };
        let tried = Cell::new(0);
        let result: Result<()> = open(&settings, || {
            tried.set(tried.get() + 1);
            if tried.get() == 2 {
                cancel.cancel_by_signal(15);
            }
            Err(too_many_sessions())
        });
        assert_eq!((tried.get(), result.unwrap_err().code), (2, ErrorCode::Term));
    }
}
