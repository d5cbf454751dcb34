//! Finds the primary and a standby among the configured clusters (pgBackRest `src/db/helper.c`), and checks that a
//! session belongs to the configured data directory (`src/command/check/common.c`).

use std::sync::Arc;

use super::host::PgHost;
use super::session::PgSession;
use crate::work::retry::is_stop;
use crate::{CancelToken, Error, ErrorCode, Result};

/// What must be found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Search {
    /// Do not keep a session with a standby.
    pub primary_only: bool,
    /// A missing primary is an error.
    pub primary_required: bool,
    /// A missing standby is an error.
    pub standby_required: bool,
}

/// The sessions found.
#[derive(Default)]
pub struct Cluster {
    /// The session with the primary.
    pub primary: Option<PgSession>,
    /// The session with the first standby.
    pub standby: Option<PgSession>,
}

/// Connects to every configured cluster. An unreachable cluster is only a warning, because another may suffice.
///
/// # Errors
/// [`ErrorCode::DbConnect`] for more than one primary, and if something required is missing.
pub fn find(hosts: &[Arc<dyn PgHost>], search: Search, cancel: &CancelToken) -> Result<Cluster> {
    let mut cluster = Cluster::default();
    for host in hosts {
        cancel.check()?;
        let session = match PgSession::connect(host, cancel) {
            Ok(session) => session,
            Err(error) if is_stop(&error) => return Err(error),
            Err(error) => {
                crate::warn!("unable to check pg{}: [{}] {error}", host.key(), error.code);
                continue;
            }
        };
        if session.is_standby() {
            if cluster.standby.is_none() && !search.primary_only {
                cluster.standby = Some(session);
            }
        } else if cluster.primary.is_some() {
            return Err(Error::new(ErrorCode::DbConnect, "more than one primary cluster found"));
        } else {
            cluster.primary = Some(session);
        }
    }
    if cluster.primary.is_none() && search.primary_required {
        return Err(no_primary());
    }
    if cluster.standby.is_none() && search.standby_required {
        return Err(Error::new(ErrorCode::DbConnect, "unable to find standby cluster - cannot proceed"));
    }
    Ok(cluster)
}

/// The error when a primary is needed and there is none.
pub(crate) fn no_primary() -> Error {
    Error::new(ErrorCode::DbConnect, "unable to find primary cluster - cannot proceed")
        .hint("are all available clusters in recovery?")
}

/// Which archive settings of a primary to require.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArchiveCheck {
    /// Refuse `archive_mode = always`, with which a standby would push the same WAL again (`archive-mode-check`).
    pub mode_check: bool,
}

/// Checks that the server behind the session runs in the configured data directory and, for a primary with `archive`,
/// that it archives with this program.
///
/// # Errors
/// [`ErrorCode::DbMismatch`], [`ErrorCode::ArchiveDisabled`], [`ErrorCode::FeatureNotSupported`],
/// [`ErrorCode::ArchiveCommandInvalid`].
pub fn check_config(session: &PgSession, archive: Option<ArchiveCheck>) -> Result<()> {
    let (version, path) = (session.control().version, session.host().path().to_string_lossy());
    if version != session.version() || path != session.data_directory() {
        let key = session.host().key();
        return Err(Error::new(
            ErrorCode::DbMismatch,
            format!(
                "version '{}' and path '{}' queried from cluster do not match version '{version}' and '{path}' read from \
                 '{path}/global/pg_control'",
                session.version(),
                session.data_directory(),
            ),
        )
        .hint(format!("the pg{key}-path and pg{key}-port settings likely reference different clusters.")));
    }
    match archive {
        Some(archive) if !session.is_standby() => {
            check_archive(session.archive_mode(), session.archive_command(), archive)
        }
        _ => Ok(()),
    }
}

fn check_archive(mode: &str, command: &str, check: ArchiveCheck) -> Result<()> {
    if mode == "off" {
        return Err(Error::new(ErrorCode::ArchiveDisabled, "archive_mode must be enabled"));
    }
    if mode == "always" && check.mode_check {
        return Err(Error::new(ErrorCode::FeatureNotSupported, "archive_mode=always not supported"));
    }
    if !calls_archiver(command) {
        let text = format!("archive_command '{command}' must contain pgbackrest or rbr");
        return Err(Error::new(ErrorCode::ArchiveCommandInvalid, text));
    }
    Ok(())
}

/// Returns whether the command can put WAL into a repository of this format. pgBackRest requires its own name anywhere
/// in the text, which is accepted here too while a site migrates. Our own name is short, so it must be a word
/// (`/usr/bin/rbr`, but not `xrbr1`).
pub(crate) fn calls_archiver(command: &str) -> bool {
    command.contains("pgbackrest")
        || command.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').any(|word| word == "rbr")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archive_mode_off_and_always_are_refused() {
        let code = |mode, mode_check| {
            check_archive(mode, "rbr archive-push %p", ArchiveCheck { mode_check }).err().map(|error| error.code)
        };
        assert_eq!(code("off", false), Some(ErrorCode::ArchiveDisabled));
        assert_eq!(code("always", true), Some(ErrorCode::FeatureNotSupported));
        assert_eq!(code("always", false), None);
        assert_eq!(code("on", true), None);
    }

    #[test]
    fn archive_command_must_call_a_known_archiver() {
        for good in
            ["pgbackrest --stanza=a archive-push %p", "/usr/bin/rbr archive-push %p", "exec rbr-0.1 archive-push %p"]
        {
            assert!(calls_archiver(good), "{good}");
        }
        for bad in ["", "cp %p /archive/%f", "arbre %p", "/opt/xrbr1 %p"] {
            assert!(!calls_archiver(bad), "{bad}");
        }
    }

    #[test]
    fn find_without_any_cluster_is_db_connect_if_required() {
        let search = Search { primary_required: true, ..Search::default() };
        assert_eq!(find(&[], search, &CancelToken::new()).err().unwrap().code, ErrorCode::DbConnect);
        assert!(find(&[], Search::default(), &CancelToken::new()).unwrap().primary.is_none());
    }
}
