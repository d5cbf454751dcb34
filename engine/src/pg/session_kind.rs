//! Which servers of a list are suitable (`PGTARGETSESSIONATTRS`).

use super::connection::PgConnection;
use crate::Result;

/// What a session must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SessionKind {
    /// Any session.
    Any,
    /// One that may write.
    ReadWrite,
    /// One that may not write.
    ReadOnly,
    /// One with a primary.
    Primary,
    /// One with a standby.
    Standby,
    /// One with a standby, or any if no server of the list is a standby.
    PreferStandby,
}

impl SessionKind {
    /// Parses libpq's word.
    pub(super) fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "any" => SessionKind::Any,
            "read-write" => SessionKind::ReadWrite,
            "read-only" => SessionKind::ReadOnly,
            "primary" => SessionKind::Primary,
            "standby" => SessionKind::Standby,
            "prefer-standby" => SessionKind::PreferStandby,
            _ => return None,
        })
    }

    /// Returns the kinds to look for in the whole list of servers, one after the other.
    pub(super) fn passes(self) -> &'static [SessionKind] {
        match self {
            SessionKind::Any => &[SessionKind::Any],
            SessionKind::ReadWrite => &[SessionKind::ReadWrite],
            SessionKind::ReadOnly => &[SessionKind::ReadOnly],
            SessionKind::Primary => &[SessionKind::Primary],
            SessionKind::Standby => &[SessionKind::Standby],
            SessionKind::PreferStandby => &[SessionKind::Standby, SessionKind::Any],
        }
    }

    /// Returns why a session is not of this kind, in libpq's words; `None` if it is.
    ///
    /// # Errors
    /// The server can't be asked.
    pub(super) fn mismatch(self, connection: &mut dyn PgConnection) -> Result<Option<&'static str>> {
        if matches!(self, SessionKind::Any | SessionKind::PreferStandby) {
            return Ok(None);
        }
        let state = "select pg_catalog.pg_is_in_recovery()::text, pg_catalog.current_setting('transaction_read_only')";
        let [recovery, read_only] = connection.row::<2>(state)?;
        let is_standby = recovery.as_deref() == Some("true");
        let is_read_only = read_only.as_deref() == Some("on");
        Ok(match self {
            SessionKind::ReadWrite if is_read_only => Some("session is read-only"),
            SessionKind::ReadOnly if !is_read_only => Some("session is not read-only"),
            SessionKind::Primary if is_standby => Some("server is in hot standby mode"),
            SessionKind::Standby if !is_standby => Some("server is not in hot standby mode"),
            _ => None,
        })
    }
}
