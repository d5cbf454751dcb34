//! Creates, upgrades and deletes a stanza (pgBackRest `src/command/stanza`).

mod request;
mod upgrade;

use std::fmt;

use jiff::Timestamp;
use repo_format::archive_info::ArchiveInfo;
use repo_format::backup_info::BackupInfo;
use repo_format::cipher::Keyring;
use repo_format::format::RepoFormat;
use repo_format::layout::{self, RepoPath, Stanza};
use repo_format::pg::control::PgControl;
use repo_format::pg::version::PgVersion;

pub use self::request::{
    StanzaChange, StanzaDeleteRequest, StanzaDeleteSummary, StanzaOutcome, StanzaRequest, StanzaSummary,
};
pub(crate) use self::upgrade::upgrade;
use crate::claim::{Claim, unclaimed};
use crate::pg::cluster;
use crate::repo::formats::{self, LoadedInfos};
use crate::repo::info_files::{self, generate_passphrase};
use crate::session::Session;
use crate::{CancelToken, Error, ErrorCode, Repo, Result, log};

/// The identity of the cluster that the stanza is for.
fn primary_control(request: &StanzaRequest, cancel: &CancelToken) -> Result<PgControl> {
    if request.online {
        let search = cluster::Search { primary_required: true, ..cluster::Search::default() };
        let found = cluster::find(&request.pg, search, cancel)?;
        let Some(primary) = found.primary else { return Err(cluster::no_primary()) };
        cluster::check_config(&primary, None)?;
        return Ok(*primary.control());
    }
    match request.pg.first() {
        Some(host) => host.control(),
        None => Err(Error::new(ErrorCode::OptionRequired, "stanza-create command requires option: pg1-path")),
    }
}

/// Creates the stanza in every repository, or checks it if it exists.
///
/// # Errors
/// [`ErrorCode::Stop`]; [`ErrorCode::PathNotEmpty`] if something else is in its place; [`ErrorCode::FileMissing`] if
/// one of its info files is missing; [`ErrorCode::FileInvalid`] if it belongs to another cluster.
pub(crate) fn create(request: &StanzaRequest, session: &Session, repos: &[Repo]) -> Result<StanzaSummary> {
    in_each(request, session, repos, |repo, pg| {
        crate::info!("stanza-create for stanza '{}' on {}", session.stanza(), repo.name());
        let format = request.formats.get(&repo.key).copied().unwrap_or_default();
        create_in(repo, session.stanza(), pg, format)
    })
}

/// Finds the cluster, and changes the stanza for it in every repository.
fn in_each(
    request: &StanzaRequest,
    session: &Session,
    repos: &[Repo],
    change: impl Fn(&Repo, &PgControl) -> Result<StanzaChange>,
) -> Result<StanzaSummary> {
    let ((pg, repos), warnings, duration) = log::observe(|| {
        session.locks().check_stop(Some(session.stanza()))?;
        let pg = primary_control(request, session.cancel_token())?;
        let outcome = |repo: &Repo| Ok(StanzaOutcome { repo_key: repo.key, change: change(repo, &pg)? });
        Ok((pg, repos.iter().map(outcome).collect::<Result<_>>()?))
    })?;
    Ok(StanzaSummary { version: pg.version, system_id: pg.system_id, repos, warnings, duration })
}

fn create_in(repo: &Repo, stanza: &Stanza, pg: &PgControl, format: RepoFormat) -> Result<StanzaChange> {
    let (archive_info, backup_info) = (layout::archive_info(stanza), layout::backup_info(stanza));
    let archive_exists = info_files::exists_any(repo, &archive_info)?;
    let backup_exists = info_files::exists_any(repo, &backup_info)?;
    match (archive_exists, backup_exists) {
        (false, false) => create_new(repo, stanza, pg, format).map(|()| StanzaChange::Created),
        (true, true) => {
            for text in check_info(repo, stanza, pg.version, pg.system_id)?.warnings {
                crate::warn!("{text}");
            }
            // Both are replaced, even if the first one was
            let archive_copied = info_files::copy_if_missing(repo, &archive_info)?;
            let backup_copied = info_files::copy_if_missing(repo, &backup_info)?;
            if archive_copied || backup_copied {
                return Ok(StanzaChange::Completed);
            }
            crate::info!("stanza '{stanza}' already exists on {} and is valid", repo.name());
            Ok(StanzaChange::Unchanged)
        }
        (archive_exists, _) => {
            let what = match archive_exists {
                true => "archive.info exists but backup.info is missing",
                false => "backup.info exists but archive.info is missing",
            };
            Err(Error::new(ErrorCode::FileMissing, format!("{what} on {}", repo.name()))
                .hint("this may be a symptom of repository corruption!"))
        }
    }
}

fn create_new(repo: &Repo, stanza: &Stanza, pg: &PgControl, format: RepoFormat) -> Result<()> {
    let backup_used = !is_empty(repo, &layout::backup_stanza(stanza))?;
    let archive_used = !is_empty(repo, &layout::archive_stanza(stanza))?;
    let what = match (backup_used, archive_used) {
        (false, false) => None,
        (true, false) => Some("backup directory"),
        (false, true) => Some("archive directory"),
        (true, true) => Some("backup directory and/or archive directory"),
    };
    if let Some(what) = what {
        return Err(Error::new(ErrorCode::PathNotEmpty, format!("{what} not empty")));
    }
    let keys = generate_passphrase(repo, format)?.map(|passphrase| match format {
        RepoFormat::V5 => Keyring::single(passphrase),
        RepoFormat::V6 => Keyring::rotatable(passphrase, Timestamp::now().as_second()),
    });
    let archive = ArchiveInfo::with_format(format, pg.version, pg.system_id, keys);
    info_files::save_archive_info(repo, stanza, &archive)?;
    let manifest_pass = generate_passphrase(repo, format)?;
    let mut backup = BackupInfo::new(pg.version, pg.system_id, pg.catalog_version, manifest_pass)?;
    backup.format = format;
    info_files::save_backup_info(repo, stanza, &backup)
}

fn is_empty(repo: &Repo, path: &RepoPath) -> Result<bool> {
    Ok(repo.storage.list(path)?.is_none_or(|entries| entries.is_empty()))
}

/// The current cluster as both info files have it.
#[derive(Debug, PartialEq, Eq)]
struct ClusterIdentity {
    id: u32,
    version: PgVersion,
    system_id: u64,
}

impl ClusterIdentity {
    fn of_archive(info: &ArchiveInfo) -> Self {
        let pg = info.current();
        ClusterIdentity { id: pg.id, version: pg.version, system_id: pg.system_id }
    }

    fn of_backup(info: &BackupInfo) -> Self {
        let pg = info.current();
        ClusterIdentity { id: pg.id, version: pg.version, system_id: pg.system_id }
    }
}

impl fmt::Display for ClusterIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "id = {}, version = {}, system-id = {}", self.id, self.version, self.system_id)
    }
}

/// Checks that both info files name the same current cluster.
pub(crate) fn check_match(archive: &ArchiveInfo, backup: &BackupInfo) -> Result<()> {
    let (archive, backup) = (ClusterIdentity::of_archive(archive), ClusterIdentity::of_backup(backup));
    if archive == backup {
        return Ok(());
    }
    let text = format!("backup info file and archive info file do not match\narchive: {archive}\nbackup : {backup}");
    Err(Error::new(ErrorCode::FileInvalid, text).hint("this may be a symptom of repository corruption!"))
}

/// The info files of a stanza that belongs to the cluster.
#[derive(Debug)]
pub(crate) struct CheckedInfo {
    pub archive: ArchiveInfo,
    /// Warnings about files that can't be read, for the caller to log.
    pub warnings: Vec<String>,
}

/// Checks that the stanza's info files exist, agree with each other and belong to this cluster.
///
/// # Errors
/// They can't be loaded, or [`ErrorCode::FileInvalid`].
pub(crate) fn check_info(repo: &Repo, stanza: &Stanza, version: PgVersion, system_id: u64) -> Result<CheckedInfo> {
    let LoadedInfos { archive, backup, warnings } = formats::load(repo, stanza)?;
    check_match(&archive, &backup)?;
    if (archive.current().version, archive.current().system_id) != (version, system_id) {
        let text = "backup and archive info files exist but do not match the database";
        return Err(Error::new(ErrorCode::FileInvalid, text)
            .hint("is this the correct stanza?")
            .hint("did an error occur during stanza-upgrade?"));
    }
    Ok(CheckedInfo { archive, warnings })
}

/// Deletes a stanza from one repository. A missing stanza is not an error.
///
/// # Errors
/// [`ErrorCode::FileMissing`] without a stop file, [`ErrorCode::PgRunning`], [`ErrorCode::LockAcquire`] if a command of
/// another host works on the stanza, or something can't be removed.
pub(crate) fn delete(request: &StanzaDeleteRequest, session: &Session, repo: &Repo) -> Result<StanzaDeleteSummary> {
    let (existed, warnings, duration) = log::observe(|| delete_in(request, session, repo))?;
    Ok(StanzaDeleteSummary { repo_key: repo.key, existed, warnings, duration })
}

/// Returns whether the repository had the stanza.
fn delete_in(request: &StanzaDeleteRequest, session: &Session, repo: &Repo) -> Result<bool> {
    let (stanza, cancel) = (session.stanza(), session.cancel_token());
    let (archive_path, backup_path) = (layout::archive_stanza(stanza), layout::backup_stanza(stanza));
    let archive = repo.storage.list(&archive_path)?;
    let backup = repo.storage.list(&backup_path)?;
    if archive.is_none() && backup.is_none() {
        return Ok(false);
    }
    let is_used = |entries: &Option<Vec<_>>| entries.as_ref().is_some_and(|entries| !entries.is_empty());
    if is_used(&archive) || is_used(&backup) {
        check_delete(request, session, repo)?;
        if is_used(&backup) {
            // The claim goes with all else
            let claim = Claim::acquire_to_remove(repo, stanza, session.claimant(), "stanza-delete", cancel)?;
            unclaimed::watch_all(repo, stanza, None, cancel)?;
            // Both may have taken minutes
            check_delete(request, session, repo)?;
            claim.leave();
        }
        // First, so that no command takes the stanza for complete while the rest is removed
        for info in [layout::archive_info(stanza), layout::backup_info(stanza)] {
            repo.storage.remove(&info)?;
            repo.storage.remove(&layout::copy(&info))?;
        }
    }
    for path in [&archive_path, &backup_path] {
        repo.storage.remove_all(path)?;
    }
    repo.storage.remove_all(&layout::proof_stanza(stanza))?;
    session.locks().remove_stop_file(Some(stanza))?;
    Ok(true)
}

fn check_delete(request: &StanzaDeleteRequest, session: &Session, repo: &Repo) -> Result<()> {
    let stanza = session.stanza();
    if !session.locks().is_stopped(Some(stanza))? {
        return Err(Error::new(ErrorCode::FileMissing, format!("stop file does not exist for stanza '{stanza}'"))
            .hint("has the pgbackrest stop command been run on this server for this stanza?"));
    }
    let runs = request.pg.as_ref().map_or(Ok(false), |host| host.has_postmaster_pid())?;
    if runs && !request.force {
        return Err(Error::new(
            ErrorCode::PgRunning,
            format!(
                "postmaster.pid exists - looks like PostgreSQL is running. To delete stanza '{stanza}' on {}, shut down \
                 PostgreSQL for stanza '{stanza}' and try again, or use --force.",
                repo.name()
            ),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use repo_format::cipher::{Cipher, Passphrase};
    use repo_format::wal_name::{Lsn, TimelineId};

    use super::*;
    use crate::pg::PgSettings;
    use crate::storage::faulty::FaultyStorage;
    use crate::storage::memory::MemoryStorage;
    use crate::storage::{RepoStorage, WriteOptions, put};

    const VERSION: PgVersion = PgVersion::V15;

    fn stanza() -> Stanza {
        "main".parse().unwrap()
    }

    fn pg(version: PgVersion, system_id: u64) -> PgControl {
        let catalog_version = version.catalog_version().unwrap();
        PgControl {
            version,
            system_id,
            control_version: version.control_version().unwrap(),
            catalog_version,
            checkpoint: Lsn(0),
            timeline: TimelineId(1),
            page_size: 8192,
            wal_segment_size: 16 << 20,
            data_checksums: false,
        }
    }

    fn repo_on(storage: Arc<dyn RepoStorage>, pass: Option<&str>) -> Repo {
        let pass = pass.map(Passphrase::new);
        Repo { key: 1, storage, cipher: Cipher::from_passphrase(pass.as_ref()) }
    }

    fn put_text(repo: &Repo, path: &str) {
        put(&*repo.storage, &RepoPath::new(path).unwrap(), b"x", WriteOptions::ATOMIC).unwrap();
    }

    #[test]
    fn create_makes_four_files_whose_copies_are_equal() {
        let memory = MemoryStorage::new();
        let repo = repo_on(Arc::new(memory.clone()), Some("secret"));
        create_in(&repo, &stanza(), &pg(VERSION, 7), RepoFormat::V5).unwrap();
        assert_eq!(
            memory.paths(),
            [
                "archive/main/archive.info",
                "archive/main/archive.info.copy",
                "backup/main/backup.info",
                "backup/main/backup.info.copy"
            ]
        );
        let bytes = |path: &RepoPath| crate::storage::get(&memory, path, 9999).unwrap().unwrap();
        let info = layout::backup_info(&stanza());
        assert_eq!(bytes(&info), bytes(&layout::copy(&info)));
        assert_eq!(&bytes(&info)[..8], b"Salted__");
        let archive = check_info(&repo, &stanza(), VERSION, 7).unwrap().archive;
        let backup = info_files::load_backup_info(&repo, &stanza()).unwrap();
        let archive_pass = archive.keys.map(|keys| keys.current().clone());
        assert!(archive_pass.is_some() && archive_pass != backup.cipher_pass);
    }

    #[test]
    fn create_over_other_things_is_path_not_empty() {
        let repo = repo_on(Arc::new(MemoryStorage::new()), None);
        put_text(&repo, "archive/main/15-1/x");
        let error = create_in(&repo, &stanza(), &pg(VERSION, 7), RepoFormat::V5).unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (ErrorCode::PathNotEmpty, "archive directory not empty"));
        put_text(&repo, "backup/main/x");
        let error = create_in(&repo, &stanza(), &pg(VERSION, 7), RepoFormat::V5).unwrap_err();
        assert_eq!(error.message, "backup directory and/or archive directory not empty");
    }

    #[test]
    fn create_with_half_of_the_files_restores_copies_or_refuses() {
        let memory = MemoryStorage::new();
        let repo = repo_on(Arc::new(memory.clone()), None);
        create_in(&repo, &stanza(), &pg(VERSION, 7), RepoFormat::V5).unwrap();
        repo.storage.remove(&layout::archive_info(&stanza())).unwrap();
        repo.storage.remove(&layout::copy(&layout::backup_info(&stanza()))).unwrap();
        create_in(&repo, &stanza(), &pg(VERSION, 7), RepoFormat::V5).unwrap();
        assert_eq!(memory.paths().len(), 4);

        repo.storage.remove(&layout::archive_info(&stanza())).unwrap();
        repo.storage.remove(&layout::copy(&layout::archive_info(&stanza()))).unwrap();
        let error = create_in(&repo, &stanza(), &pg(VERSION, 7), RepoFormat::V5).unwrap_err();
        assert_eq!(error.code, ErrorCode::FileMissing);
        assert_eq!(error.message, "backup.info exists but archive.info is missing on repo1");
    }

    #[test]
    fn create_for_another_cluster_is_file_invalid() {
        let repo = repo_on(Arc::new(MemoryStorage::new()), None);
        create_in(&repo, &stanza(), &pg(VERSION, 7), RepoFormat::V5).unwrap();
        create_in(&repo, &stanza(), &pg(VERSION, 7), RepoFormat::V5).unwrap();
        assert_eq!(
            create_in(&repo, &stanza(), &pg(VERSION, 8), RepoFormat::V5).unwrap_err().code,
            ErrorCode::FileInvalid
        );
    }

    #[test]
    fn upgrade_appends_to_both_histories_once() {
        let repo = repo_on(Arc::new(MemoryStorage::new()), None);
        create_in(&repo, &stanza(), &pg(VERSION, 7), RepoFormat::V5).unwrap();
        for _ in 0..2 {
            upgrade::upgrade_in(&repo, &stanza(), &pg(PgVersion::V16, 8), None).unwrap();
        }
        let archive = check_info(&repo, &stanza(), PgVersion::V16, 8).unwrap().archive;
        assert_eq!(archive.current().archive_id().to_string(), "16-2");
        assert_eq!(archive.history.len(), 2);
    }

    /// Every key in archive.info and its copy.
    fn archive_keys(repo: &Repo) -> Vec<(String, Passphrase)> {
        let file = info_files::load_archive_info(repo, &stanza()).unwrap();
        let copy = info_files::load_archive_info_copy(repo, &stanza()).unwrap();
        let keys = [Some(file), copy].into_iter().flatten().filter_map(|info| info.keys);
        let pairs = |keys: Keyring| keys.keys().map(|(id, key)| (id.to_string(), key.clone())).collect::<Vec<_>>();
        keys.flat_map(pairs).collect()
    }

    #[test]
    fn upgrade_of_the_format_cut_short_anywhere_is_finished_without_loss_of_a_key() {
        let upgrade = |repo: &Repo, format| upgrade::upgrade_in(repo, &stanza(), &pg(VERSION, 7), format);
        for calls in 0.. {
            let memory = MemoryStorage::new();
            let repo = repo_on(Arc::new(memory.clone()), Some("secret"));
            create_in(&repo, &stanza(), &pg(VERSION, 7), RepoFormat::V5).unwrap();
            let old = archive_keys(&repo);
            let crashing = repo_on(Arc::new(FaultyStorage::new(Arc::new(memory)).crash_at(calls)), Some("secret"));
            let is_done = upgrade(&crashing, Some(RepoFormat::V6)).is_ok();
            let between = archive_keys(&repo);
            // Without the option, if any file has the new format already
            upgrade(&repo, if between.len() > 2 { None } else { Some(RepoFormat::V6) }).unwrap();
            let LoadedInfos { archive, backup, .. } = formats::load(&repo, &stanza()).unwrap();
            assert_eq!((archive.format, backup.format), (RepoFormat::V6, RepoFormat::V6));
            let keys = archive_keys(&repo);
            assert!(old.iter().chain(&between).all(|key| keys.contains(key)), "{calls}");
            assert_eq!(archive.keys.map(|keys| keys.current_id().to_string()).as_deref(), Some("1"));
            assert_eq!(upgrade(&repo, None).unwrap(), StanzaChange::Unchanged);
            assert_eq!(upgrade(&repo, Some(RepoFormat::V5)).unwrap_err().code, ErrorCode::Format);
            if is_done {
                assert!(calls > 8, "{calls}");
                break;
            }
        }
    }

    #[test]
    fn upgrade_does_not_replace_a_damaged_file_of_format_6_by_its_copy_of_format_5() {
        let memory = MemoryStorage::new();
        let repo = repo_on(Arc::new(memory.clone()), Some("secret"));
        create_in(&repo, &stanza(), &pg(VERSION, 7), RepoFormat::V5).unwrap();
        // The first of the four files is written, and then damaged
        let crashing = repo_on(Arc::new(FaultyStorage::new(Arc::new(memory.clone())).crash_at(3)), Some("secret"));
        assert!(upgrade::upgrade_in(&crashing, &stanza(), &pg(VERSION, 7), Some(RepoFormat::V6)).is_err());
        let path = layout::archive_info(&stanza());
        let mut stored = crate::storage::get(&memory, &path, 9999).unwrap().unwrap();
        assert!(stored.starts_with(b"PGBR006_"));
        stored[200] ^= 1;
        put(&memory, &path, &stored, WriteOptions::ATOMIC).unwrap();
        let copy = crate::storage::get(&memory, &layout::copy(&path), 9999).unwrap();
        for wanted in [None, Some(RepoFormat::V6)] {
            let error = upgrade::upgrade_in(&repo, &stanza(), &pg(VERSION, 7), wanted).unwrap_err();
            assert!(error.message.contains("whose copy has an older format"), "{error}");
        }
        // Who may save it is told first
        assert_eq!(formats::load(&repo, &stanza()).unwrap_err().code, ErrorCode::FileInvalid);
        assert_eq!(crate::storage::get(&memory, &path, 9999).unwrap(), Some(stored));
        assert_eq!(crate::storage::get(&memory, &layout::copy(&path), 9999).unwrap(), copy);
    }

    #[test]
    fn upgrade_of_the_format_is_refused_while_an_unclaimed_backup_runs() {
        let memory = MemoryStorage::new();
        let repo = repo_on(Arc::new(memory.clone()), Some("secret"));
        create_in(&repo, &stanza(), &pg(VERSION, 7), RepoFormat::V5).unwrap();
        put_text(&repo, "backup/main/20260101-000000F/pg_data/1");
        // pgBackRest on another host adds a file each time somebody looks
        let (files, plain) = (std::sync::atomic::AtomicU32::new(1), repo.clone());
        let running = FaultyStorage::new(Arc::new(memory)).after(move |op, _| {
            if op == crate::storage::faulty::Op::List {
                let number = files.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                put_text(&plain, &format!("backup/main/20260101-000000F/pg_data/{number}"));
            }
        });
        let running = repo_on(Arc::new(running), Some("secret"));
        let session = Session::new(stanza(), [running.clone()]).unwrap().with_exec_id("1-x");
        let files = upgrade::StanzaFiles::load(&running, &stanza()).unwrap();
        let claim = |wanted| upgrade::claim(&running, &session, &files.plan(&pg(VERSION, 7), wanted).unwrap());
        assert_eq!(claim(Some(RepoFormat::V6)).err().unwrap().code, ErrorCode::LockAcquire);
        // Another cluster does not concern it
        claim(None).unwrap();
    }

    /// Gives the cluster of a control file another system identifier.
    fn replace_cluster(control: &[u8]) -> Vec<u8> {
        let mut control = control.to_vec();
        let is_checksum = |at: &usize| control[*at..at + 4] == crc32c::crc32c(&control[..*at]).to_le_bytes();
        let at = (0..control.len() - 4).find(is_checksum).unwrap();
        control[0] ^= 1;
        let checksum = crc32c::crc32c(&control[..at]).to_le_bytes();
        control[at..at + 4].copy_from_slice(&checksum);
        control
    }

    #[test]
    fn cluster_that_changes_during_the_wait_for_a_claim_leaves_no_repository_with_another_than_is_reported() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("global/pg_control");
        std::fs::create_dir(path.parent().unwrap()).unwrap();
        let mut control = include_bytes!("../../tests/fixtures/pg/pg_control_15").to_vec();
        control.resize(8192, 0);
        std::fs::write(&path, &control).unwrap();
        let replaced = replace_cluster(&control);
        let (first, second) = (MemoryStorage::new(), MemoryStorage::new());
        let changes = Arc::new(std::sync::atomic::AtomicBool::new(true));
        let is_on = Arc::clone(&changes);
        let changing = FaultyStorage::new(Arc::new(second.clone())).after(move |op, claim| {
            let is_claimed = op == crate::storage::faulty::Op::Finish && claim.as_str().contains("backup.claim");
            if is_claimed && is_on.load(std::sync::atomic::Ordering::Relaxed) {
                std::fs::write(&path, &replaced).unwrap();
            }
        });
        let repos = [repo_on(Arc::new(first), None), Repo { key: 2, ..repo_on(Arc::new(changing), None) }];
        for repo in &repos {
            create_in(repo, &stanza(), &pg(VERSION, 7), RepoFormat::V5).unwrap();
        }
        let session = Session::new(stanza(), repos.clone()).unwrap();
        let session = session.with_lock_path(dir.path().join("lock")).with_exec_id("1-x");
        let pg = crate::backup::BackupRequest::new(PgSettings::new(dir.path())).pg;
        let request = StanzaRequest { online: false, pg, formats: [].into() };
        let error = upgrade(&request, &session, &repos).unwrap_err();
        assert_eq!(error.code, ErrorCode::FileInvalid);
        assert!(error.message.contains("the cluster changed"), "{error}");
        let current = |repo: &Repo| info_files::load_backup_info(repo, &stanza()).unwrap().current().system_id;
        assert_eq!(current(&repos[1]), 7, "the second one is as it was");
        changes.store(false, std::sync::atomic::Ordering::Relaxed);
        let summary = upgrade(&request, &session, &repos).unwrap();
        assert_eq!(repos.each_ref().map(current), [summary.system_id; 2]);
    }

    #[test]
    fn stanza_of_format_6_without_encryption_has_no_keys() {
        let memory = MemoryStorage::new();
        let repo = repo_on(Arc::new(memory.clone()), None);
        create_in(&repo, &stanza(), &pg(VERSION, 7), RepoFormat::V6).unwrap();
        let LoadedInfos { archive, backup, .. } = formats::load(&repo, &stanza()).unwrap();
        assert_eq!(
            (archive.format, backup.format, archive.keys, backup.cipher_pass),
            (RepoFormat::V6, RepoFormat::V6, None, None)
        );
        let text = crate::storage::get(&memory, &layout::archive_info(&stanza()), 999).unwrap().unwrap();
        assert!(text.starts_with(b"[backrest]\nbackrest-format=6\n"));
    }

    #[test]
    fn upgrade_cut_short_is_finished_by_the_next() {
        let memory = MemoryStorage::new();
        let repo = repo_on(Arc::new(memory.clone()), None);
        create_in(&repo, &stanza(), &pg(VERSION, 7), RepoFormat::V5).unwrap();
        // Each save consists of two files with two calls each: the crash occurs after archive.info was saved and before
        // backup.info
        let crashing = repo_on(Arc::new(FaultyStorage::new(Arc::new(memory)).crash_at(5)), None);
        assert!(upgrade::upgrade_in(&crashing, &stanza(), &pg(PgVersion::V16, 8), None).is_err());
        assert_eq!(check_info(&repo, &stanza(), PgVersion::V16, 8).unwrap_err().code, ErrorCode::FileInvalid);
        upgrade::upgrade_in(&repo, &stanza(), &pg(PgVersion::V16, 8), None).unwrap();
        check_info(&repo, &stanza(), PgVersion::V16, 8).unwrap();
    }

    #[test]
    fn delete_needs_stop_file_and_stopped_server() {
        let dir = tempfile::tempdir().unwrap();
        let memory = MemoryStorage::new();
        let repo = repo_on(Arc::new(memory.clone()), None);
        let lock_path = dir.path().join("lock");
        let session = Session::new(stanza(), [repo.clone()]).unwrap().with_lock_path(&lock_path).with_exec_id("1-x");
        let request = StanzaDeleteRequest::new(PgSettings::new(dir.path()));
        let delete = |request| super::delete(request, &session, &repo).map(|summary| summary.existed);
        assert!(!delete(&request).unwrap());
        create_in(&repo, &stanza(), &pg(VERSION, 7), RepoFormat::V5).unwrap();
        put_text(&repo, "archive/main/15-1/0000000100000000/x");
        put_text(&repo, "archive/other/archive.info");
        assert_eq!(delete(&request).unwrap_err().code, ErrorCode::FileMissing);

        crate::control::stop(&lock_path, Some(&stanza()), false).unwrap();
        std::fs::write(dir.path().join("postmaster.pid"), "").unwrap();
        assert_eq!(delete(&request).unwrap_err().code, ErrorCode::PgRunning);
        assert!(delete(&request.clone().force()).unwrap());
        assert_eq!(memory.paths(), ["archive/other/archive.info"]);
        session.locks().check_stop(Some(&stanza())).unwrap();
    }

    #[test]
    fn stanza_that_was_started_during_the_wait_for_the_claim_is_not_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let (lock_path, pid_file) = (dir.path().join("lock"), dir.path().join("postmaster.pid"));
        let request = StanzaDeleteRequest::new(PgSettings::new(dir.path()));
        let start_commands = {
            let lock_path = lock_path.clone();
            move || crate::control::start(&lock_path, Some(&stanza())).map(drop).unwrap()
        };
        let start_server = move || std::fs::write(&pid_file, "").unwrap();
        let changes: [(Box<dyn Fn() + Send + Sync>, ErrorCode); 2] =
            [(Box::new(start_commands), ErrorCode::FileMissing), (Box::new(start_server), ErrorCode::PgRunning)];
        for (change, code) in changes {
            let memory = MemoryStorage::new();
            create_in(&repo_on(Arc::new(memory.clone()), None), &stanza(), &pg(VERSION, 7), RepoFormat::V5).unwrap();
            let before = memory.paths();
            let changing = FaultyStorage::new(Arc::new(memory.clone())).after(move |op, path| {
                if op == crate::storage::faulty::Op::Finish && path.as_str().contains("backup.claim") {
                    change();
                }
            });
            let repo = repo_on(Arc::new(changing), None);
            let session =
                Session::new(stanza(), [repo.clone()]).unwrap().with_lock_path(&lock_path).with_exec_id("1-x");
            crate::control::stop(&lock_path, Some(&stanza()), false).unwrap();
            assert_eq!(super::delete(&request, &session, &repo).unwrap_err().code, code);
            assert_eq!(memory.paths(), before);
        }
    }
}
