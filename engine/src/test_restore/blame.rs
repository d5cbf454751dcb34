//! Whether a failure says something about the backup, or only about this host and its network.
//!
//! Only the former may become a proof: the last proof of a backup decides what `expire` keeps.

use std::error::Error as _;

use rustix::io::Errno;

use crate::storage::RepoStorage;
use crate::work::retry::is_of_peer;
use crate::{Error, ErrorCode, Result};

/// What programs write if the host has no room, no memory or no files left, in the C locale. The kernel sends the signal
/// to processes when memory is used up.
const HOST_TROUBLE: [&str; 9] = [
    "No space left on device",
    "Disk quota exceeded",
    "out of memory",
    "Out of memory",
    "Cannot allocate memory",
    "Too many open files",
    "Resource temporarily unavailable",
    "Read-only file system",
    "signal 9",
];

/// Returns what a text of a program says about this host, if it does.
pub(super) fn host_trouble(text: &str) -> Option<&'static str> {
    HOST_TROUBLE.into_iter().find(|words| text.contains(words))
}

/// Returns whether an error says something about the backup. Others say that the repository can't be reached, or that
/// this host can't hold the files or run the programs. They prove nothing.
pub(super) fn is_about_backup(error: &Error) -> bool {
    is_code_about_backup(error.code)
        && !is_of_peer(error)
        && !is_of_host(error)
        && host_trouble(&error.message).is_none()
}

/// Returns an error of reading a backup or its WAL, if it says something about them.
///
/// # Errors
/// The error, if it does not; the end of the connection to the repository, after which nothing that fails proves anything.
pub(super) fn about_backup(error: Error, storage: &dyn RepoStorage) -> Result<Error> {
    if !is_about_backup(&error) {
        return Err(error);
    }
    storage.connected().map(|()| error)
}

fn is_code_about_backup(code: ErrorCode) -> bool {
    use ErrorCode::{
        Access, Execute, FileClose, FileMode, FileOwner, FileSync, FileWrite, HostConnect, Kernel, LockAcquire, Memory,
        OptionInvalid, OptionInvalidValue, PathCreate, PathSync, Protocol, Service, Term,
    };
    !matches!(
        code,
        Access
            | Execute
            | FileClose
            | FileMode
            | FileOwner
            | FileSync
            | FileWrite
            | HostConnect
            | Kernel
            | LockAcquire
            | Memory
            | OptionInvalid
            | OptionInvalidValue
            | PathCreate
            | PathSync
            | Protocol
            | Service
            | Term
    )
}

/// Returns whether the system refused something that has nothing to do with the content of a file.
fn is_of_host(error: &Error) -> bool {
    const ERRNOS: [Errno; 13] = [
        Errno::ACCESS,
        Errno::AGAIN,
        Errno::CONNRESET,
        Errno::DQUOT,
        Errno::HOSTUNREACH,
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOMEM,
        Errno::NOSPC,
        Errno::PIPE,
        Errno::ROFS,
        Errno::STALE,
        Errno::TIMEDOUT,
    ];
    let mut cause = error.source();
    while let Some(inner) = cause {
        let errno = inner.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error);
        if errno.is_some_and(|errno| ERRNOS.iter().any(|known| known.raw_os_error() == errno)) {
            return true;
        }
        cause = inner.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::storage::faulty::FaultyStorage;
    use crate::storage::memory::MemoryStorage;
    use crate::work::retry::PeerFault;

    #[test]
    fn error_of_the_host_or_the_network_says_nothing_about_the_backup() {
        for code in [ErrorCode::FileWrite, ErrorCode::HostConnect, ErrorCode::Service, ErrorCode::Execute] {
            assert!(!is_about_backup(&Error::new(code, "x")), "{code}");
        }
        for code in [ErrorCode::Checksum, ErrorCode::FileMissing, ErrorCode::Format, ErrorCode::DbQuery] {
            assert!(is_about_backup(&Error::new(code, "x")), "{code}");
        }
    }

    #[test]
    fn end_of_a_connection_was_taken_for_a_bad_backup() {
        for code in [ErrorCode::Format, ErrorCode::FileRead, ErrorCode::Unknown, ErrorCode::FileMissing] {
            assert!(!is_about_backup(&Error::new(code, "x").cause(PeerFault)), "{code}");
        }
        let storage = FaultyStorage::new(Arc::new(MemoryStorage::new()));
        let damaged = || Error::new(ErrorCode::Checksum, "damaged");
        assert_eq!(about_backup(damaged(), &storage).unwrap().code, ErrorCode::Checksum);
        assert_eq!(about_backup(Error::new(ErrorCode::FileWrite, "full"), &storage).unwrap_err().message, "full");
        storage.end();
        assert_eq!(about_backup(damaged(), &storage).unwrap_err().message, "unexpected EOF");
    }

    #[test]
    fn program_that_finds_no_files_or_no_memory_says_nothing_about_the_backup() {
        for errno in [Errno::MFILE, Errno::NOSPC, Errno::CONNRESET] {
            let error = std::io::Error::from_raw_os_error(errno.raw_os_error());
            assert!(!is_about_backup(&Error::from_io(ErrorCode::FileOpen, "unable to open 'log'", error)));
        }
        let error = std::io::Error::from_raw_os_error(Errno::NOENT.raw_os_error());
        assert!(is_about_backup(&Error::from_io(ErrorCode::FileMissing, "unable to open 'x'", error)));
        assert!(!is_about_backup(&Error::new(ErrorCode::DbQuery, "ERROR:  out of memory")));
        let full = "PANIC:  could not write to file \"pg_wal/xlogtemp.7\": No space left on device";
        assert_eq!(host_trouble(full), Some("No space left on device"));
        assert_eq!(host_trouble("FATAL:  could not locate required checkpoint record"), None);
    }
}
