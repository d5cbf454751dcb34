//! Where a primary writes WAL, and whether its archiver keeps up.

use repo_format::wal_name::{Lsn, WalSegment};

use super::{PgSession, required};
use crate::Result;

/// Where a primary writes WAL, and what its archiver says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalProgress {
    /// The position.
    pub lsn: Lsn,
    /// The segment.
    pub segment: WalSegment,
    /// Size of a segment in bytes.
    pub segment_size: u32,
    /// When it archived a file last, in seconds since the epoch.
    pub last_archived: Option<i64>,
    /// How often it failed since the statistics began.
    pub failed_count: u64,
    /// The file that it can't archive, if its last attempt failed.
    pub failing: Option<String>,
    /// Files that wait, and for how many seconds the oldest has; `None` if the role may not see them.
    pub ready: Option<(u64, u64)>,
}

impl PgSession {
    /// Returns where a primary writes WAL and what its archiver says; `None` for a standby.
    ///
    /// # Errors
    /// [`ErrorCode::DbQuery`].
    pub fn wal_progress(&mut self) -> Result<Option<WalProgress>> {
        if self.is_standby() {
            return Ok(None);
        }
        let (file_name, lsn) = (self.version.wal_file_name_function(), self.version.current_wal_insert_lsn_function());
        let query = format!("select pg_catalog.{lsn}()::text, pg_catalog.{file_name}(pg_catalog.{lsn}())::text");
        let [lsn, segment] = self.client.row(&query)?;
        let query = "select extract(epoch from last_archived_time)::int8, failed_count::int8 \
                     from pg_catalog.pg_stat_archiver";
        let [archived, failed] = self.client.row(query)?;
        let failing = self.archive_failing()?;
        let ready = self.archive_ready()?;
        Ok(Some(WalProgress {
            lsn: required(lsn, query)?.parse()?,
            segment: required(segment, query)?.parse()?,
            segment_size: self.control.wal_segment_size,
            last_archived: archived.and_then(|text| text.parse().ok()),
            failed_count: failed.and_then(|text| text.parse().ok()).unwrap_or(0),
            failing,
            ready: ready.map(|(count, age)| (u64::try_from(count).unwrap_or(0), u64::try_from(age).unwrap_or(0))),
        }))
    }
}
