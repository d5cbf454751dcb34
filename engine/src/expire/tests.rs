//! Tests of expire with a repository in memory.

use std::sync::Arc;

use repo_format::cipher::Cipher;
use repo_format::layout::Stanza;
use repo_format::manifest::{Manifest, ManifestData};
use repo_format::pg::PgVersion;

use super::*;
use crate::storage::faulty::{FaultyStorage, Op};
use crate::storage::memory::MemoryStorage;
use crate::storage::{RepoStorage, WriteOptions, exists, put};

/// Written by pgBackRest.
const BACKUP_INFO: &[u8] = include_bytes!("../../../tests/fixtures/info/online/backup.info");

#[test]
fn oldest_damaged_is_the_first_that_stays_if_it_has_errors() -> Result<()> {
    let mut info = BackupInfo::parse(BACKUP_INFO)?;
    let retention = Retention {
        full_type: FullRetention::Count,
        full: None,
        diff: None,
        archive_type: repo_format::label::BackupType::Full,
        archive: None,
        history: None,
    };
    let plan = plan::by_retention(facts(&info), &retention, 0);
    let labels: Vec<BackupLabel> = info.backups.keys().cloned().collect();
    assert!(labels.len() > 1);
    // The cluster of this file has a damaged page
    assert_eq!(oldest_damaged(&info, &plan), labels.first());
    for label in &labels {
        info.backups.values_mut().for_each(|entry| entry.error = Some(false));
        info.backups.entry(label.clone()).and_modify(|entry| entry.error = Some(true));
        assert_eq!(oldest_damaged(&info, &plan), Some(label).filter(|&label| *label == labels[0]));
    }
    // Backups of programs that did not record it count as valid
    info.backups.values_mut().for_each(|entry| entry.error = None);
    assert_eq!(oldest_damaged(&info, &plan), None);
    Ok(())
}

#[test]
fn newest_backup_that_had_no_manifest_stays_also_if_it_is_complete_by_now() -> Result<()> {
    let stanza: Stanza = "demo".parse()?;
    let (older, newest) = ("20260101-000000F".parse()?, "20260102-000000F".parse()?);
    let path = |label, file: &str| layout::backup_member(&stanza, label, file);
    let copied = ["backup.manifest.copy"].as_slice();
    let complete = ["backup.manifest.copy", "backup.manifest"].as_slice();
    for (before, after, stays) in
        [(copied, copied, true), (copied, complete, true), (&[], &[], false), (copied, &["backup.manifest"], true)]
    {
        let storage = FaultyStorage::new(Arc::new(MemoryStorage::new()));
        let repo = Repo { key: 1, storage: Arc::new(storage.clone()), cipher: Cipher::None };
        let write = |label, file: &str| put(&storage, &path(label, file)?, b"x", WriteOptions::ATOMIC);
        info_files::save_backup_info(&repo, &stanza, &BackupInfo::new(PgVersion::V15, 1, 2, None)?)?;
        for label in [&older, &newest] {
            write(label, "pg_data/x")?;
            before.iter().try_for_each(|file| write(label, file))?;
        }
        let found = reconstruct::load_backup_info_reconstruct(&repo, &stanza)?;
        assert_eq!(found.labels, [older.clone(), newest.clone()]);
        // Another host goes on meanwhile
        before.iter().try_for_each(|file| storage.remove(&path(&newest, file)?))?;
        after.iter().try_for_each(|file| write(&newest, file))?;

        let session = Session::new(stanza.clone(), [repo.clone()])?;
        let calls = storage.calls().len();
        let task = Task {
            claim: None,
            repo: &repo,
            now: Timestamp::now().as_second(),
            request: &ExpireRequest::default(),
            session: &session,
            is_last: true,
            set_found: &AtomicBool::new(false),
        };
        let plan = BackupPlan { expired: Vec::new(), kept: Vec::new(), archive: None, newest_expired: None };
        task.remove_directories(&task.directories(&found, &[], &plan)?)?;
        let asked = storage.calls()[calls..].iter().filter(|(op, _)| *op == Op::Info).count();
        assert!(asked <= 2, "{asked}");
        assert!(!exists(&storage, &path(&older, "pg_data/x")?)?);
        assert_eq!(exists(&storage, &path(&newest, "pg_data/x")?)?, stays, "{before:?} {after:?}");
    }
    Ok(())
}

const FULL: &str = "20260101-000000F";
const DIFF: &str = "20260101-000000F_20260102-000000D";
const LATER: &str = "20260103-000000F";
/// The remainder of a backup based on the first full backup.
const INCR: &str = "20260101-000000F_20260104-000000I";

/// A repository with two full backups, a differential one of the first, and WAL.
fn repository() -> Result<(MemoryStorage, Repo)> {
    let storage = MemoryStorage::new();
    let repo = Repo { key: 1, storage: Arc::new(storage.clone()), cipher: Cipher::None };
    let stanza: Stanza = "demo".parse()?;
    let mut info = BackupInfo::new(PgVersion::V15, 7, 202_209_061, None)?;
    for (number, (label, prior)) in [(FULL, None), (DIFF, Some(FULL)), (LATER, None)].into_iter().enumerate() {
        let label: BackupLabel = label.parse()?;
        let mut data = ManifestData::new(label.clone(), label.backup_type(), 1, PgVersion::V15, 202_209_061);
        data.prior = prior.map(str::parse).transpose()?;
        (data.pg_id, data.pg_system_id) = (1, 7);
        let segment = format!("00000001000000000000000{}", number + 1);
        data.archive_start = Some(segment.parse()?);
        data.archive_stop = Some(segment.parse()?);
        put_file(&storage, &format!("backup/demo/{label}/backup.manifest"))?;
        put_file(&storage, &format!("archive/demo/15-1/0000000100000000/{segment}-{}", "a".repeat(40)))?;
        info.add_manifest(&Manifest::new(data))?;
    }
    info_files::save_backup_info(&repo, &stanza, &info)?;
    info_files::save_archive_info(&repo, &stanza, &ArchiveInfo::new(PgVersion::V15, 7, None))?;
    Ok((storage, repo))
}

fn put_file(storage: &MemoryStorage, path: &str) -> Result<()> {
    put(storage, &RepoPath::new(path)?, b"x", WriteOptions::ATOMIC)
}

fn expire(repo: &Repo, full: u32, set: Option<&str>) -> Result<()> {
    expire_telling(repo, full, set).map(drop)
}

/// Expires, and returns the warnings.
fn expire_telling(repo: &Repo, full: u32, set: Option<&str>) -> Result<String> {
    let retention = Retention {
        full_type: FullRetention::Count,
        full: Some(full),
        diff: None,
        archive_type: BackupType::Full,
        archive: Some(full),
        history: None,
    };
    let request = ExpireRequest { set: set.map(str::parse).transpose()?, ..ExpireRequest::default() };
    let summary = run(&request.keep(1, retention), &session(repo)?, std::slice::from_ref(repo), &[])?;
    Ok(summary.warnings.texts.join("\n"))
}

fn session(repo: &Repo) -> Result<Session> {
    Ok(Session::new("demo".parse()?, [repo.clone()])?.with_exec_id("1-x"))
}

fn labels(repo: &Repo) -> Result<Vec<String>> {
    Ok(info_files::load_backup_info(repo, &"demo".parse()?)?.backups.keys().map(BackupLabel::to_string).collect())
}

fn segments(storage: &MemoryStorage) -> usize {
    storage.paths().iter().filter(|path| path.contains("/0000000100000000/")).count()
}

#[test]
fn backup_that_may_run_without_a_claim_stays_with_what_it_may_be_based_on() -> Result<()> {
    for set in [None, Some(DIFF)] {
        let (storage, repo) = repository()?;
        put_file(&storage, &format!("backup/demo/{INCR}/pg_data/1"))?;
        put_file(&storage, &format!("backup/demo/{INCR}/backup.manifest.copy"))?;
        let before = storage.paths();
        assert_eq!(expire(&repo, 1, set).is_err(), set.is_some());
        assert_eq!(labels(&repo)?, [FULL, DIFF, LATER]);
        assert_eq!(storage.paths(), before, "{set:?}");
    }
    Ok(())
}

#[test]
fn wal_of_a_full_backup_that_may_run_without_a_claim_stays() -> Result<()> {
    for (running, left) in [("20260102-120000F", 3), ("20260109-000000F", 1)] {
        let (storage, repo) = repository()?;
        put_file(&storage, &format!("backup/demo/{running}/backup.manifest.copy"))?;
        let told = expire_telling(&repo, 1, None)?;
        assert_eq!(labels(&repo)?, [LATER]);
        assert_eq!(segments(&storage), left, "{running}");
        // It was not said what keeps the WAL, and until when
        let is_told = told.contains(&format!("'/backup/demo/{running}' had no backup.manifest and no claim when "));
        assert_eq!(is_told && told.contains("it counts as running until 20"), left == 3, "{told}");
        assert!(!told.contains("remove that directory"), "{told}");
    }
    Ok(())
}

#[test]
fn hint_about_what_keeps_a_backup_named_another_unfinished_one() -> Result<()> {
    let (storage, repo) = repository()?;
    let older = "20260101-120000F";
    for label in [older, INCR] {
        put_file(&storage, &format!("backup/demo/{label}/backup.manifest.copy"))?;
    }
    let told = expire_telling(&repo, 1, None)?;
    let of_backup = told.lines().skip_while(|line| !line.contains(&format!("backup {FULL} is not expired: ")));
    let [text, hint, warning] = of_backup.take(3).collect::<Vec<_>>()[..] else { panic!("{told}") };
    assert!(text.contains(&format!("unfinished backup {INCR} may be running")), "{told}");
    assert!(hint.starts_with(&format!("HINT: '/backup/demo/{INCR}' had no backup.manifest")), "{told}");
    assert!(warning.contains("Do not remove it by hand"), "{told}");
    // The WAL is kept for the older one, too
    assert!(told.contains(&format!("archive is not expired: unfinished backup {older} ")), "{told}");
    Ok(())
}

#[test]
fn unfinished_backup_was_listed_again_for_log_lines_and_expire_failed_with_that_after_the_removals() -> Result<()> {
    let (storage, _) = repository()?;
    let running = "20260102-120000F";
    put_file(&storage, &format!("backup/demo/{running}/backup.manifest.copy"))?;
    let directory = RepoPath::new(format!("backup/demo/{running}"))?;
    let faulty = FaultyStorage::new(Arc::new(storage));
    let lists = |storage: &FaultyStorage| {
        storage.calls().iter().filter(|(op, path)| *op == Op::List && *path == directory).count()
    };
    let repo = Repo { key: 1, storage: Arc::new(faulty.clone()), cipher: Cipher::None };
    let told = expire_telling(&repo, 1, None)?;
    assert!(told.contains("archive is not expired") && !told.contains("1970"), "{told}");
    // For the mark of a claim, and for the time of the last change
    assert_eq!(lists(&faulty), 2);
    assert_eq!(labels(&repo)?, [LATER]);
    Ok(())
}

#[test]
fn backup_whose_claim_is_gone_was_interrupted_and_keeps_nothing() -> Result<()> {
    let (storage, repo) = repository()?;
    put_file(&storage, &format!("backup/demo/{INCR}/pg_data/1"))?;
    put_file(&storage, &format!("backup/demo/{INCR}/backup.claim.9-b"))?;
    expire(&repo, 1, None)?;
    assert_eq!(labels(&repo)?, [LATER]);
    assert!(!storage.paths().iter().any(|path| path.contains(FULL)), "{:?}", storage.paths());
    assert_eq!(segments(&storage), 1);
    Ok(())
}

#[test]
fn manifest_copy_that_can_not_be_read_keeps_nothing_from_being_expired() -> Result<()> {
    let (storage, repo) = repository()?;
    let newest = "20260103-000000F_20260104-000000I";
    put_file(&storage, &format!("backup/demo/{newest}/backup.manifest.copy"))?;
    put_file(&storage, &format!("backup/demo/{newest}/backup.claim.9-b"))?;
    for set in [Some(DIFF), None, Some(FULL)] {
        expire(&repo, 2, set)?;
        assert!(storage.paths().iter().any(|path| path.contains(newest)));
    }
    assert_eq!(labels(&repo)?, [LATER]);
    Ok(())
}

#[test]
fn archive_info_that_can_not_be_read_fails_before_any_backup_is_removed() -> Result<()> {
    let (storage, repo) = repository()?;
    for name in ["archive/demo/archive.info", "archive/demo/archive.info.copy"] {
        put_file(&storage, name)?;
    }
    let before = storage.paths();
    assert!(expire(&repo, 1, None).is_err());
    assert_eq!(storage.paths(), before);
    assert_eq!(labels(&repo)?, [FULL, DIFF, LATER]);
    Ok(())
}

#[test]
fn expire_with_nothing_to_do_writes_no_info_file() -> Result<()> {
    let (storage, _) = repository()?;
    let faulty = FaultyStorage::new(Arc::new(storage));
    let repo = Repo { key: 1, storage: Arc::new(faulty.clone()), cipher: Cipher::None };
    expire(&repo, 9, None)?;
    let calls = faulty.calls();
    let written: Vec<&str> = calls.iter().filter(|(op, _)| *op == Op::Write).map(|(_, path)| path.as_str()).collect();
    assert_eq!(written, ["backup/demo/backup.claim.1-x"]);
    Ok(())
}

/// Stores a proof that the backup passed.
fn prove(repo: &Repo, label: &str) -> Result<()> {
    let mut report = crate::proof::report::tests::report(Vec::new());
    (report.backup.label, report.system_id) = (label.to_owned(), 7);
    crate::proof::store::save(repo, &report, None).map(drop)
}

/// Expires with retention of one full backup.
fn expire_keeping_proven(repo: &Repo) -> Result<ExpireSummary> {
    let session = Session::new("demo".parse()?, [repo.clone()])?;
    let retention = [(1, Retention::full_backups(1))].into();
    let request = ExpireRequest { retention, keep_proven: true, dry_run: true, ..ExpireRequest::default() };
    run(&request, &session, std::slice::from_ref(repo), &[])
}

#[test]
fn damaged_proof_keeps_its_backup_instead_of_ending_every_expire() -> Result<()> {
    let (storage, repo) = repository()?;
    prove(&repo, LATER)?;
    assert_eq!(expire_keeping_proven(&repo)?.repos[0].backups.len(), 2);
    // Older than the newest proven backup: nobody asks for it
    put(&storage, &RepoPath::new(format!("proof/demo/{FULL}/x.json"))?, b"{\"format\":99}", WriteOptions::ATOMIC)?;
    assert_eq!(expire_keeping_proven(&repo)?.repos[0].backups.len(), 2);
    storage.remove_all(&RepoPath::new(format!("proof/demo/{LATER}"))?)?;
    let summary = expire_keeping_proven(&repo)?;
    assert!(summary.repos[0].backups.is_empty(), "{summary:?}");
    assert!(!summary.warnings.texts.is_empty());
    Ok(())
}

#[test]
fn proofs_that_cannot_be_removed_are_only_a_warning() -> Result<()> {
    let (storage, repo) = repository()?;
    prove(&repo, FULL)?;
    let storage = FaultyStorage::new(Arc::new(storage)).fail_path(Op::List, "proof/demo");
    let repo = Repo { storage: Arc::new(storage), ..repo };
    let session = Session::new("demo".parse()?, [repo.clone()])?;
    let retention = [(1, Retention::full_backups(1))].into();
    let request = ExpireRequest { retention, ..ExpireRequest::default() };
    let summary = run(&request, &session, std::slice::from_ref(&repo), &[])?;
    assert_eq!(summary.repos[0].backups.len(), 2);
    assert!(!summary.warnings.texts.is_empty());
    Ok(())
}
