//! Whether a repository has no space left.
//!
//! Who makes an error knows it, and keeps it beside the text: a text may contain the path of a file, which says anything.

use std::io;

use protocol::message::NoSpace;

use crate::{Error, ErrorCode};

/// Where pgBackRest writes the system's number and text: at the end of its message. These are the texts of a full disk and
/// of an exceeded quota on Linux, the last one by musl.
const SAID_BY_THE_SYSTEM: [&str; 3] =
    [": [28] No space left on device", ": [122] Disk quota exceeded", ": [122] Quota exceeded"];
/// The same of its SFTP repositories.
const SAID_BY_SFTP: [&str; 2] = [": sftp error [14] no space on filesystem", ": sftp error [15] quota exceeded"];
/// Servers of OpenSSH have no other status for either, but also use it for anything else.
const SAID_BY_OPENSSH: &str = ": sftp error [4] failure";

/// The source of an error from another host that says this.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the storage of another host has no space left ({0:?})")]
struct Said(NoSpace);

/// Returns what an error says about the space of the storage.
pub(crate) fn no_space(error: &Error) -> Option<NoSpace> {
    let source = error.source.as_ref()?;
    if let Some(Said(said)) = source.downcast_ref::<Said>() {
        return Some(*said);
    }
    let kind = source.downcast_ref::<io::Error>()?.kind();
    matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded).then_some(NoSpace::Certain)
}

/// Notes in an error what another host says about the space of its storage.
pub(crate) fn with_no_space(error: Error, said: Option<NoSpace>) -> Error {
    match said {
        Some(said) => error.cause(Said(said)),
        None => error,
    }
}

/// Returns what a message of pgBackRest on another host says about the space of its storage.
pub(crate) fn said_by_pgbackrest(code: ErrorCode, message: &str) -> Option<NoSpace> {
    if SAID_BY_THE_SYSTEM.iter().chain(&SAID_BY_SFTP).any(|end| message.ends_with(end)) {
        return Some(NoSpace::Certain);
    }
    (code == ErrorCode::FileWrite && message.ends_with(SAID_BY_OPENSSH)).then_some(NoSpace::Possible)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(code: ErrorCode, message: &str) -> Option<NoSpace> {
        said_by_pgbackrest(code, &format!("raised from remote-0 tls protocol on 'backup': {message}"))
    }

    #[test]
    fn full_disk_of_a_host_with_pgbackrest_is_known_by_the_end_of_its_message() {
        let name = "unable to write '/repo/x.pgbackrest.tmp'";
        let certain = Some(NoSpace::Certain);
        assert_eq!(says(ErrorCode::FileWrite, &format!("{name}: [28] No space left on device")), certain);
        assert_eq!(says(ErrorCode::FileOpen, &format!("{name}: [122] Disk quota exceeded")), certain);
        assert_eq!(says(ErrorCode::FileWrite, &format!("{name}: [5] Input/output error")), None);
        assert_eq!(says(ErrorCode::FileOpen, &format!("{name}: [13] Permission denied")), None);
        let sftp = |status: &str| format!("{name}: libssh2 error [-31]: sftp error [{status}");
        assert_eq!(says(ErrorCode::FileWrite, &sftp("14] no space on filesystem")), certain);
        assert_eq!(says(ErrorCode::FileWrite, &sftp("15] quota exceeded")), certain);
        assert_eq!(says(ErrorCode::FileWrite, &sftp("4] failure")), Some(NoSpace::Possible));
        assert_eq!(says(ErrorCode::FileOpen, &sftp("4] failure")), None);
        assert_eq!(says(ErrorCode::FileWrite, &sftp("3] permission denied")), None);
    }

    #[test]
    fn path_that_contains_the_text_of_a_full_disk_is_no_full_disk() {
        for path in ["/repo/a: [28] No space left on device", "/repo/sftp error [4] failure", "/: [122] x"] {
            for message in [
                format!("unable to open file '{path}' for write: [13] Permission denied"),
                format!("unable to write '{path}'"),
                format!("unable to write '{path}': [5] Input/output error"),
            ] {
                assert_eq!(says(ErrorCode::FileWrite, &message), None, "{message}");
                assert_eq!(no_space(&Error::new(ErrorCode::FileWrite, message)), None);
            }
        }
    }

    #[test]
    fn error_of_this_system_is_known_by_its_kind() {
        let local = |errno: rustix::io::Errno| Error::from_io(ErrorCode::FileWrite, "unable to write", errno.into());
        assert_eq!(no_space(&local(rustix::io::Errno::NOSPC)), Some(NoSpace::Certain));
        assert_eq!(no_space(&local(rustix::io::Errno::DQUOT)), Some(NoSpace::Certain));
        assert_eq!(no_space(&local(rustix::io::Errno::IO)), None);
        let passed_on = io::Error::from(with_no_space(local(rustix::io::Errno::IO), Some(NoSpace::Possible)));
        let error = Error::from_io(ErrorCode::FileRead, "unable to read", passed_on).context("copy");
        assert_eq!(no_space(&error), Some(NoSpace::Possible));
    }
}
