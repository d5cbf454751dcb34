//! How many sessions there may be at a time.

use engine::file_limit;

/// Sessions of one client. A command has one more than its `process-max`.
const OF_CLIENT_MAX: u64 = 400;
/// Sessions of all clients.
const ALL_MAX: u64 = 1000;
/// Clients that have not said who they are.
const UNKNOWN_MAX: u64 = 400;
/// The same for clients of one address, so that one host does not keep out others.
const OF_ADDRESS_MAX: u64 = 100;
/// The server's open files for a session: the connection, and the three pipes of the process.
const FILES_OF_SESSION: u64 = 4;
/// Files for all sessions, for clients that have not said who they are, and for processes that start.
const FILES_WANTED: u64 = 8192;

/// The most sessions at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SessionLimits {
    /// Those of one client.
    pub(super) of_client: usize,
    /// All.
    pub(super) all: usize,
    /// Connections of clients that have not said who they are.
    pub(super) unknown: usize,
    /// Those of one address.
    pub(super) of_address: usize,
}

impl SessionLimits {
    /// Raises the limit of open files, and returns what it allows. Many systems start services with 1024, which a single client
    /// could use up.
    pub(super) fn prepare() -> Self {
        let files = file_limit::raise(FILES_WANTED);
        let limits = Self::within(files);
        if limits.is_lowered() {
            let SessionLimits { of_client, all, .. } = limits;
            engine::warn!(
                "the limit of {files} open files allows {all} sessions at a time, {of_client} of one client\
                 \nHINT: raise the hard limit of open files (LimitNOFILE of the service) to {FILES_WANTED}."
            );
        }
        limits
    }

    /// Returns whether fewer sessions are allowed than with enough open files.
    pub(super) fn is_lowered(self) -> bool {
        self != Self::default()
    }

    /// What this many open files allow. A quarter is left for clients that have not said who they are, each with one file, and
    /// for what starts.
    pub(super) fn within(files: u64) -> Self {
        let all = (files / 4 * 3 / FILES_OF_SESSION).clamp(1, ALL_MAX);
        // One client leaves room for others
        let share = |max: u64| usize::try_from((all * max / ALL_MAX).max(1)).unwrap_or(usize::MAX);
        SessionLimits {
            of_client: share(OF_CLIENT_MAX),
            all: share(ALL_MAX),
            unknown: share(UNKNOWN_MAX),
            of_address: share(OF_ADDRESS_MAX),
        }
    }
}

impl Default for SessionLimits {
    fn default() -> Self {
        Self::within(FILES_WANTED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_could_use_up_the_files_of_a_server_with_the_usual_limit() {
        let within = |files| {
            let limits = SessionLimits::within(files);
            let SessionLimits { of_client, all, unknown, of_address } = limits;
            assert!(of_client <= all && of_address <= unknown, "{files}");
            // Some are left for a process that starts
            let used = all as u64 * FILES_OF_SESSION + unknown as u64;
            assert!(used + 16 < files || files < 64, "{limits:?} of {files}");
            (of_client, all, unknown, of_address)
        };
        assert_eq!(within(u64::MAX), (400, 1000, 400, 100));
        assert_eq!(within(FILES_WANTED), (400, 1000, 400, 100));
        assert_eq!(within(4096), (307, 768, 307, 76));
        assert_eq!(within(1024), (76, 192, 76, 19));
        assert_eq!(within(256), (19, 48, 19, 4));
        assert_eq!(within(8), (1, 1, 1, 1));
        assert_eq!(SessionLimits::default(), SessionLimits::within(FILES_WANTED));
    }
}
