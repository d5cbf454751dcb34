//! Whether a repository has no space left.

use std::io;

use crate::{Error, ErrorCode};

/// What pgBackRest and rbr on another host write before the system's text: the numbers of a full disk and an exceeded
/// quota on Linux.
const SAID_BY_A_HOST: [&str; 2] = [": [28] ", ": [122] "];
/// The same of SFTP servers.
const SAID_BY_SFTP: [&str; 2] = ["sftp error [14] ", "sftp error [15] "];
/// Servers of OpenSSH have no other status for either. They have one for a lack of permission.
const SAID_BY_OPENSSH: &str = "sftp error [4] ";

/// Returns whether an error of a write says that the storage is full. An error from another host is only a text.
pub(crate) fn is_full(error: &Error) -> bool {
    let source = error.source.as_ref().and_then(|source| source.downcast_ref::<io::Error>());
    if let Some(source) = source {
        return matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    }
    let says = |text: &&str| error.message.contains(*text);
    SAID_BY_A_HOST.iter().chain(&SAID_BY_SFTP).any(says) || error.code == ErrorCode::FileWrite && says(&SAID_BY_OPENSSH)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(code: ErrorCode, message: &str) -> bool {
        is_full(&Error::new(code, message))
    }

    #[test]
    fn full_disk_of_another_host_is_one() {
        let far = "raised from remote-0 tls protocol on 'backup': unable to write '/repo/x.pgbackrest.tmp'";
        assert!(says(ErrorCode::FileWrite, &format!("{far}: [28] No space left on device")));
        assert!(says(ErrorCode::FileOpen, &format!("{far}: [122] Disk quota exceeded")));
        assert!(!says(ErrorCode::FileWrite, &format!("{far}: [5] Input/output error")));
        assert!(!says(ErrorCode::FileOpen, &format!("{far}: [13] Permission denied")));
    }

    #[test]
    fn full_disk_of_an_sftp_server_is_one() {
        for status in ["14] no space on filesystem", "15] quota exceeded", "4] failure"] {
            assert!(says(ErrorCode::FileWrite, &format!("unable to write 'x': sftp error [{status} on host 'h:22'")));
        }
        assert!(!says(ErrorCode::FileOpen, "unable to open 'x': sftp error [4] failure on host 'h:22'"));
        assert!(!says(ErrorCode::FileWrite, "unable to write 'x': sftp error [3] permission denied on host 'h:22'"));
    }

    #[test]
    fn error_of_this_system_is_known_by_its_kind() {
        let local = |errno: rustix::io::Errno| Error::from_io(ErrorCode::FileWrite, "unable to write", errno.into());
        assert!(is_full(&local(rustix::io::Errno::NOSPC)));
        assert!(is_full(&local(rustix::io::Errno::DQUOT)));
        assert!(!is_full(&local(rustix::io::Errno::IO)));
    }
}
