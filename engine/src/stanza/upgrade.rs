//! Upgrades a stanza to another cluster, and to another format of the repository.
//!
//! The upgrade of the format writes archive.info, its copy, backup.info and its copy. An upgrade that is interrupted
//! leaves files of both formats. The next one repairs that: of a file and its copy, the one of the newer format counts,
//! because only it has all keys (pgBackRest 2.60.0, `src/command/stanza/upgrade.c`, which takes the file even then).

use jiff::Timestamp;
use repo_format::archive_info::ArchiveInfo;
use repo_format::backup_info::BackupInfo;
use repo_format::cipher::Passphrase;
use repo_format::format::RepoFormat;
use repo_format::layout::Stanza;
use repo_format::pg::control::PgControl;

use super::{ClusterIdentity, StanzaChange, StanzaRequest, StanzaSummary, check_match, in_each, primary_control};
use crate::claim::{Claim, unclaimed};
use crate::repo::info_files;
use crate::session::Session;
use crate::{Error, ErrorCode, Repo, Result};

/// Adds the cluster to the stanza's history in every repository where it is not the current one, and makes it the
/// current one. Raises the format where a newer one is asked for.
///
/// # Errors
/// [`ErrorCode::Stop`]; the info files can't be loaded or saved; [`ErrorCode::FileInvalid`] if they do not agree, or if the
/// cluster changes meanwhile; [`ErrorCode::LockAcquire`] if another host is working on the stanza; [`ErrorCode::Format`] for an older format.
pub(crate) fn upgrade(request: &StanzaRequest, session: &Session, repos: &[Repo]) -> Result<StanzaSummary> {
    let stanza = session.stanza();
    in_each(request, session, repos, |repo, pg| {
        crate::info!("stanza-upgrade for stanza '{stanza}' on {}", repo.name());
        let wanted = request.formats.get(&repo.key).copied();
        // Nothing is claimed or written if nothing changes
        let plan = StanzaFiles::load(repo, stanza)?.plan(pg, wanted)?;
        if !plan.changes() {
            return Ok(unchanged(repo, stanza));
        }
        let claim = claim(repo, session, &plan)?;
        // The claim may have taken minutes
        check_unchanged(pg, &primary_control(request, session.cancel_token())?)?;
        upgrade_in(&claim.guard(repo), stanza, pg, wanted)
    })
}

/// Fails if the cluster was upgraded or replaced since the command began. Repositories before this one may have got the
/// old one, so the command has to go through all of them again.
fn check_unchanged(before: &PgControl, now: &PgControl) -> Result<()> {
    if (before.version, before.system_id) == (now.version, now.system_id) {
        return Ok(());
    }
    let name = |pg: &PgControl| format!("version {}, system-id {}", pg.version, pg.system_id);
    let text = format!("the cluster changed while the stanza was claimed: from {} to {}", name(before), name(now));
    Err(Error::new(ErrorCode::FileInvalid, text).hint("run the command again."))
}

/// Claims the stanza. Before another format, makes sure that no backup runs without a claim.
pub(super) fn claim(repo: &Repo, session: &Session, plan: &UpgradePlan) -> Result<Claim> {
    let (stanza, cancel) = (session.stanza(), session.cancel_token());
    let claim = Claim::acquire(repo, stanza, session.claimant(), "stanza-upgrade", cancel)?;
    if plan.raises {
        // A backup of pgBackRest ends by saving the info files in the format that it has loaded at its start
        unclaimed::watch_all(repo, stanza, None, cancel)?;
    }
    Ok(claim)
}

pub(super) fn upgrade_in(
    repo: &Repo,
    stanza: &Stanza,
    pg: &PgControl,
    wanted: Option<RepoFormat>,
) -> Result<StanzaChange> {
    let mut files = StanzaFiles::load(repo, stanza)?;
    let plan = files.plan(pg, wanted)?;
    if !plan.changes() {
        return Ok(unchanged(repo, stanza));
    }
    let old = files.archive.format.min(files.backup.format);
    if files.archive.format != files.backup.format || files.copies_differ {
        crate::warn!("repository format mismatch from an interrupted stanza-upgrade will be repaired");
    }
    if plan.archive_cluster {
        files.archive.upgrade(pg.version, pg.system_id)?;
    }
    if plan.backup_cluster {
        files.backup.upgrade(pg.version, pg.system_id, pg.catalog_version)?;
    }
    if old < plan.format {
        crate::info!("upgrade repository format from {old} to {}", plan.format);
    }
    raise_archive(&mut files.archive, plan.format)?;
    files.backup.format = plan.format;
    check_match(&files.archive, &files.backup)?;
    if plan.saves_archive() {
        info_files::save_archive_info(repo, stanza, &files.archive)?;
    }
    if plan.saves_backup() {
        info_files::save_backup_info(repo, stanza, &files.backup)?;
    }
    Ok(StanzaChange::Upgraded)
}

fn unchanged(repo: &Repo, stanza: &Stanza) -> StanzaChange {
    crate::info!("stanza '{stanza}' on {} is already up to date", repo.name());
    StanzaChange::Unchanged
}

/// Gives archive.info this format. The key of files that exist is kept, and later files get a new one.
fn raise_archive(archive: &mut ArchiveInfo, format: RepoFormat) -> Result<()> {
    if archive.format >= format {
        return Ok(());
    }
    archive.format = format;
    if let Some(keys) = &mut archive.keys {
        keys.rotate(Passphrase::generate(format)?, Timestamp::now().as_second())?;
    }
    Ok(())
}

/// The info files of a stanza, which may differ in format.
pub(super) struct StanzaFiles {
    archive: ArchiveInfo,
    backup: BackupInfo,
    /// Whether a file and its copy differ in format.
    copies_differ: bool,
}

/// What an upgrade changes.
pub(super) struct UpgradePlan {
    /// Whether archive.info is of another cluster.
    archive_cluster: bool,
    /// Whether backup.info is of another cluster. An interrupted upgrade changed only one of them.
    backup_cluster: bool,
    /// The format of both files after the upgrade.
    format: RepoFormat,
    /// Whether either file, or its copy, has another format.
    raises: bool,
}

impl UpgradePlan {
    fn changes(&self) -> bool {
        self.archive_cluster || self.backup_cluster || self.raises
    }

    fn saves_archive(&self) -> bool {
        self.archive_cluster || self.raises
    }

    fn saves_backup(&self) -> bool {
        self.backup_cluster || self.raises
    }
}

impl StanzaFiles {
    pub(super) fn load(repo: &Repo, stanza: &Stanza) -> Result<Self> {
        let archive = || info_files::load_archive_info_to_save(repo, stanza);
        let (archive, backup) = repo.both(archive, || info_files::load_backup_info_to_save(repo, stanza));
        let (mut archive, (mut backup, _)) = (archive?, backup?.warned(repo, stanza));
        let mut copies_differ = false;
        if let Some(copy) = info_files::load_archive_info_copy(repo, stanza)? {
            copies_differ |= copy.format != archive.format;
            archive = if copy.format > archive.format { copy } else { archive };
        }
        if let Some(copy) = info_files::load_backup_info_copy(repo, stanza)? {
            copies_differ |= copy.format != backup.format;
            backup = if copy.format > backup.format { copy } else { backup };
        }
        Ok(StanzaFiles { archive, backup, copies_differ })
    }

    pub(super) fn plan(&self, pg: &PgControl, wanted: Option<RepoFormat>) -> Result<UpgradePlan> {
        let have = self.archive.format.max(self.backup.format);
        let format = wanted.unwrap_or(have);
        if format < have {
            let text = format!("unable to downgrade repository format from {have} to {format}");
            return Err(Error::new(ErrorCode::Format, text).hint(format!(
                "backups and archives already written at format {have} would not be readable by a version that only \
                 supports format {format}."
            )));
        }
        let is_other = |current: ClusterIdentity| (current.version, current.system_id) != (pg.version, pg.system_id);
        let raises = [self.archive.format, self.backup.format].into_iter().any(|other| other != format);
        Ok(UpgradePlan {
            archive_cluster: is_other(ClusterIdentity::of_archive(&self.archive)),
            backup_cluster: is_other(ClusterIdentity::of_backup(&self.backup)),
            format,
            raises: raises || self.copies_differ,
        })
    }
}
