//! The clusters of a repository and the WAL of each.

use std::collections::HashMap;

use repo_format::archive_info::{self, ArchiveInfo};
use repo_format::backup_info::{BackupInfo, PgHistory};
use repo_format::layout::{self, ArchiveId, Stanza};
use repo_format::pg::PgVersion;
use repo_format::wal_name::{ArchivedSegment, SEGMENT_DIR_LEN};

use super::{ArchiveFact, DatabaseFact};
use crate::{Error, ErrorCode, Repo, Result};

/// The cluster history of one repository.
pub(super) struct History {
    pub databases: Vec<DatabaseFact>,
    /// The archives of these clusters. Only that of the newest is listed without WAL.
    pub archives: Vec<ArchiveFact>,
}

/// Reads the WAL of each cluster in a history.
///
/// # Errors
/// archive.info does not have a cluster, or a directory can't be listed. The history holds what was read until then.
pub(super) fn read_history(
    repo: &Repo,
    stanza: &Stanza,
    backup_info: &BackupInfo,
    archive_info: &ArchiveInfo,
) -> (History, Result<()>) {
    let mut history = History { databases: Vec::new(), archives: Vec::new() };
    let newest = backup_info.history.last();
    let archive_ids = Archives::new(archive_info);
    for pg in &backup_info.history {
        let database = DatabaseFact { id: pg.id, repo_key: repo.key, system_id: pg.system_id, version: pg.version };
        history.databases.push(database);
        let range = archive_ids.of(pg).and_then(|id| Ok((id, wal_range(repo, stanza, id)?)));
        match range {
            Ok((id, (min, max))) if min.is_some() || Some(pg) == newest => {
                history.archives.push(ArchiveFact { db_id: pg.id, repo_key: repo.key, id, min, max });
            }
            Ok(_) => {}
            Err(error) => return (history, Err(error)),
        }
    }
    (history, Ok(()))
}

/// The archives of a history, indexed, because a hostile history may be long.
struct Archives<'a> {
    by_id: HashMap<(PgVersion, u64, u32), &'a archive_info::ArchiveCluster>,
    /// The last one of a cluster.
    newest: HashMap<(PgVersion, u64), &'a archive_info::ArchiveCluster>,
}

impl<'a> Archives<'a> {
    fn new(info: &'a ArchiveInfo) -> Self {
        let by_id = info.history.iter().map(|pg| ((pg.version, pg.system_id, pg.id), pg)).collect();
        let newest = info.history.iter().map(|pg| ((pg.version, pg.system_id), pg)).collect();
        Archives { by_id, newest }
    }

    /// Returns the archive of a cluster. Both histories usually have the same numbers, but a recreated archive.info may
    /// count differently.
    fn of(&self, pg: &PgHistory) -> Result<ArchiveId> {
        let same_id = self.by_id.get(&(pg.version, pg.system_id, pg.id));
        let found = same_id.or_else(|| self.newest.get(&(pg.version, pg.system_id)));
        found.map(|pg| pg.archive_id()).ok_or_else(|| {
            let text = format!(
                "unable to retrieve the archive id for database version '{}' and system-id '{}'",
                pg.version, pg.system_id
            );
            Error::new(ErrorCode::ArchiveMismatch, text)
        })
    }
}

/// Returns first and last segment of an archive.
fn wal_range(repo: &Repo, stanza: &Stanza, id: ArchiveId) -> Result<(Option<String>, Option<String>)> {
    let path = layout::archive_path(stanza, id);
    let mut directories = repo.storage.names(&path)?.unwrap_or_default();
    directories.retain(|name| name.len() == SEGMENT_DIR_LEN && name.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let segments = |name: &String| -> Result<Vec<String>> {
        let names = repo.storage.names(&path.join(name)?)?.unwrap_or_default();
        let segments = names.iter().filter_map(|name| name.parse::<ArchivedSegment>().ok());
        Ok(segments.filter(|stored| !stored.partial).map(|stored| stored.segment.to_string()).collect())
    };
    if let [only] = directories.as_slice() {
        let segments = segments(only)?;
        return Ok((segments.first().cloned(), segments.last().cloned()));
    }
    // Not every directory contains segments
    let first = || -> Result<Option<String>> {
        for name in &directories {
            if let Some(first) = segments(name)?.first() {
                return Ok(Some(first.clone()));
            }
        }
        Ok(None)
    };
    let last = || -> Result<Option<String>> {
        for name in directories.iter().rev() {
            if let Some(last) = segments(name)?.last() {
                return Ok(Some(last.clone()));
            }
        }
        Ok(None)
    };
    let (first, last) = repo.both(first, last);
    Ok((first?, last?))
}
