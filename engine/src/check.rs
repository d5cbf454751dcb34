//! Checks that a stanza can archive and be backed up (pgBackRest `src/command/check`).

use std::sync::Arc;
use std::time::Duration;

use repo_format::layout::Stanza;

use crate::pg::cluster::{self, ArchiveCheck, Search};
use crate::pg::{PgHost, PgSession};
use crate::repo::archive_find::WalSegmentFind;
use crate::stanza::check_info;
use crate::{CancelToken, Error, ErrorCode, Repo, Result};

/// The settings of check.
#[derive(Clone, Debug)]
pub struct CheckSettings {
    /// The stanza.
    pub stanza: Stanza,
    /// The hosts of the clusters, in the order of their keys.
    pub pg: Vec<Arc<dyn PgHost>>,
    /// Check the archive settings of the primary; `None` skips the check.
    pub archive: Option<ArchiveCheck>,
    /// The maximum time until a WAL segment arrives.
    pub archive_timeout: Duration,
    /// Whether backups are to come from a standby, which should then exist.
    pub backup_standby: bool,
}

/// Checks settings and repositories of every reachable cluster. On a primary it switches WAL and waits for the segment
/// in each repository.
///
/// # Errors
/// [`ErrorCode::Config`] if no cluster can be reached, and the first problem.
pub fn check(settings: &CheckSettings, repos: &[Repo], cancel: &CancelToken) -> Result<()> {
    let found = cluster::find(&settings.pg, Search::default(), cancel)?;
    if found.primary.is_none() && found.standby.is_none() {
        return Err(
            Error::new(ErrorCode::Config, "no database found").hint("check indexed pg-path/pg-host configurations")
        );
    }
    settings.pg.iter().try_for_each(|host| host.check_data_dir())?;
    match &found.standby {
        Some(standby) => check_standby(settings, repos, standby, found.primary.is_some())?,
        None if settings.backup_standby => {
            crate::warn!("option 'backup-standby' is enabled but standby is not properly configured");
        }
        None => {}
    }
    // Its session is not needed while the archive is waited for
    drop(found.standby);
    found.primary.map_or(Ok(()), |mut primary| check_primary(settings, repos, &mut primary, cancel))
}

fn check_standby(settings: &CheckSettings, repos: &[Repo], standby: &PgSession, has_primary: bool) -> Result<()> {
    // The primary's host writes a repository on this host, so the primary must be configured here
    if !has_primary && (settings.pg.len() > 1 || !repos.is_empty()) {
        return Err(Error::new(ErrorCode::Config, "primary database not found")
            .hint("check indexed pg-path/pg-host configurations"));
    }
    cluster::check_config(standby, None)?;
    for repo in repos {
        crate::info!("check {} (standby)", repo.name());
        check_info(repo, &settings.stanza, standby.control().version, standby.control().system_id)?;
    }
    crate::info!("switch wal not performed because this is a standby");
    Ok(())
}

fn check_primary(
    settings: &CheckSettings,
    repos: &[Repo],
    primary: &mut PgSession,
    cancel: &CancelToken,
) -> Result<()> {
    cluster::check_config(primary, settings.archive)?;
    let mut archive_ids = Vec::with_capacity(repos.len());
    for repo in repos {
        crate::info!("check {} configuration (primary)", repo.name());
        let archive = check_info(repo, &settings.stanza, primary.control().version, primary.control().system_id)?;
        archive_ids.push(archive.current().archive_id());
    }
    let segment = primary.wal_switch()?;
    for (repo, archive_id) in repos.iter().zip(archive_ids) {
        crate::info!("check {} archive for WAL (primary)", repo.name());
        let timeout = settings.archive_timeout;
        let mut find = WalSegmentFind::new(&*repo.storage, &settings.stanza, archive_id, timeout, cancel);
        let found = find.find(&segment, false)?;
        // Without a timeout there would be no error for a missing segment, but the option does not allow zero
        let Some(found) = found else {
            let text = format!("WAL segment {segment} was not archived");
            return Err(Error::new(ErrorCode::ArchiveTimeout, text));
        };
        crate::info!(
            "WAL segment {segment} successfully archived to '{}' on {}",
            repo.storage.display(&found.path),
            repo.name()
        );
    }
    Ok(())
}
