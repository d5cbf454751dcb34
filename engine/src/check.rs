//! Checks that a stanza can archive and be backed up (pgBackRest `src/command/check`).

use std::sync::Arc;
use std::time::Duration;

use repo_format::wal_name::WalSegment;

use crate::log::{self, Warnings};
use crate::pg::cluster::{self, ArchiveCheck, Search};
use crate::pg::{PgHost, PgSession};
use crate::repo::archive_find::WalSegmentFind;
use crate::session::Session;
use crate::stanza::check_info;
use crate::{Error, ErrorCode, Repo, Result};

/// What to check. [`CheckRequest::new`] sets pgBackRest's defaults.
#[derive(Clone, Debug)]
pub struct CheckRequest {
    /// The hosts of the clusters, in the order of their keys.
    pub pg: Vec<Arc<dyn PgHost>>,
    /// Check the archive settings of the primary; `None` skips the check.
    pub archive: Option<ArchiveCheck>,
    /// The maximum time until a WAL segment arrives.
    pub archive_timeout: Duration,
    /// Whether backups are to come from a standby, which should then exist.
    pub backup_standby: bool,
    /// Whether this host reaches a repository itself, and not through a process on another host. Then the primary is to be
    /// among the clusters.
    pub reaches_repository: bool,
}

impl CheckRequest {
    /// Checks this cluster.
    pub fn new(pg: impl Into<Arc<dyn PgHost>>) -> Self {
        CheckRequest {
            pg: vec![pg.into()],
            archive: Some(ArchiveCheck { mode_check: true }),
            archive_timeout: Duration::from_secs(60),
            backup_standby: false,
            reaches_repository: true,
        }
    }
}

/// What a check found to work.
#[derive(Clone, Debug)]
pub struct CheckSummary {
    /// Whether a standby was checked.
    pub standby: bool,
    /// The segment that the primary archived to show that this works; `None` if only a standby was checked.
    pub segment: Option<WalSegment>,
    /// Where that segment is in each repository.
    pub archived: Vec<ArrivedSegment>,
    /// The warnings that were logged.
    pub warnings: Warnings,
    /// How long it took.
    pub duration: Duration,
}

/// A WAL segment in a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArrivedSegment {
    /// The repository.
    pub repo_key: u32,
    /// The path as messages have it.
    pub path: String,
}

/// What was found to work on a primary.
#[derive(Default)]
struct CheckedArchive {
    segment: Option<WalSegment>,
    archived: Vec<ArrivedSegment>,
}

/// Checks settings and repositories of every reachable cluster. On a primary it switches WAL and waits for the segment
/// in each repository.
///
/// # Errors
/// [`ErrorCode::Config`] if no cluster can be reached, and the first problem.
pub(crate) fn run(request: &CheckRequest, session: &Session, repos: &[Repo]) -> Result<CheckSummary> {
    let ((standby, checked), warnings, duration) = log::observe(|| check(request, session, repos))?;
    let CheckedArchive { segment, archived } = checked;
    Ok(CheckSummary { standby, segment, archived, warnings, duration })
}

/// Returns whether a standby was checked, and what the primary archived.
fn check(request: &CheckRequest, session: &Session, repos: &[Repo]) -> Result<(bool, CheckedArchive)> {
    let mut found = cluster::find(&request.pg, Search::default(), session.cancel_token())?;
    if found.primary.is_none() && found.standby.is_none() {
        return Err(
            Error::new(ErrorCode::Config, "no database found").hint("check indexed pg-path/pg-host configurations")
        );
    }
    request.pg.iter().try_for_each(|host| host.check_data_dir())?;
    let told = match &found.standby {
        Some(standby) => {
            // The host of a standby alone has no repository of its own
            if found.primary.is_none() && (request.pg.len() > 1 || request.reaches_repository) {
                return Err(Error::new(ErrorCode::Config, "primary database not found")
                    .hint("check indexed pg-path/pg-host configurations"));
            }
            check_standby(session, repos, standby)?
        }
        None if request.backup_standby => {
            crate::warn!("option 'backup-standby' is enabled but standby is not properly configured");
            Vec::new()
        }
        None => Vec::new(),
    };
    // Its session is not needed while the archive is waited for
    let has_standby = found.standby.take().is_some();
    let checked = match &mut found.primary {
        Some(primary) => check_primary(request, session, repos, primary, &told)?,
        None => CheckedArchive::default(),
    };
    Ok((has_standby, checked))
}

/// Returns the warnings that were logged about the repositories.
fn check_standby(session: &Session, repos: &[Repo], standby: &PgSession) -> Result<Vec<String>> {
    cluster::check_config(standby, None)?;
    let mut told = Vec::new();
    for repo in repos {
        crate::info!("check {} (standby)", repo.name());
        let checked = check_info(repo, session.stanza(), standby.control().version, standby.control().system_id)?;
        warn_once(&checked.warnings, &told);
        told.extend(checked.warnings);
    }
    crate::info!("switch wal not performed because this is a standby");
    Ok(told)
}

/// Logs the warnings that were not told yet.
fn warn_once(warnings: &[String], told: &[String]) {
    for text in warnings.iter().filter(|text| !told.contains(text)) {
        crate::warn!("{text}");
    }
}

/// Says that the server's `archive_command` fails, if that is why a segment does not arrive. Its error is in the server's log.
fn with_archiver_hint(error: Error, primary: &mut PgSession) -> Error {
    if error.code != ErrorCode::ArchiveTimeout {
        return error;
    }
    // The error is about the archive, whatever the server answers
    match primary.archive_failing() {
        Ok(Some(file)) => error.hint(format!("archive_command fails for '{file}': the PostgreSQL log has its error.")),
        _ => error,
    }
}

fn check_primary(
    request: &CheckRequest,
    session: &Session,
    repos: &[Repo],
    primary: &mut PgSession,
    told: &[String],
) -> Result<CheckedArchive> {
    cluster::check_config(primary, request.archive)?;
    let mut archive_ids = Vec::with_capacity(repos.len());
    for repo in repos {
        crate::info!("check {} configuration (primary)", repo.name());
        let checked = check_info(repo, session.stanza(), primary.control().version, primary.control().system_id)?;
        warn_once(&checked.warnings, told);
        archive_ids.push(checked.archive.current().archive_id());
    }
    let segment = primary.wal_switch()?;
    let (stanza, cancel) = (session.stanza(), session.cancel_token());
    let mut archived = Vec::with_capacity(repos.len());
    for (repo, archive_id) in repos.iter().zip(archive_ids) {
        crate::info!("check {} archive for WAL (primary)", repo.name());
        let timeout = request.archive_timeout;
        let mut find = WalSegmentFind::new(&*repo.storage, stanza, archive_id, timeout, cancel)
            .with_segment_size(primary.control().wal_segment_size);
        let found = find.find(&segment, false).map_err(|error| with_archiver_hint(error, primary))?;
        // Without a timeout there would be no error for a missing segment, but the option does not allow zero
        let Some(found) = found else {
            let text = format!("WAL segment {segment} was not archived");
            return Err(Error::new(ErrorCode::ArchiveTimeout, text));
        };
        let path = repo.storage.display(&found.path).to_string();
        crate::info!("WAL segment {segment} successfully archived to '{path}' on {}", repo.name());
        archived.push(ArrivedSegment { repo_key: repo.key, path });
    }
    Ok(CheckedArchive { segment: Some(segment), archived })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_of_a_primary_and_a_standby_warned_twice_of_one_file() {
        let texts = ["first", "second"].map(str::to_owned);
        let ((), warnings) = log::collect_warnings(|| warn_once(&texts, &texts[..1]));
        assert_eq!(warnings.texts, ["second"]);
    }
}
