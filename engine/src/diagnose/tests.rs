//! Tests of a diagnosis with repositories in memory and a cluster that can't be reached.

use std::path::Path;
use std::sync::Arc;

use repo_format::archive_info::ArchiveInfo;
use repo_format::backup_info::BackupInfo;
use repo_format::cipher::Cipher;
use repo_format::pg::PgVersion;
use repo_format::pg::control::PgControl;

use super::*;
use crate::check::CheckRequest;
use crate::pg::PgSettings;
use crate::repo::info_files;
use crate::storage::faulty::{FaultyStorage, Op};
use crate::storage::memory::MemoryStorage;

fn repo(storage: impl crate::storage::RepoStorage + 'static) -> Repo {
    Repo { key: 1, storage: Arc::new(storage), cipher: Cipher::None }
}

fn create_stanza(storage: &MemoryStorage) {
    let (repo, stanza) = (repo(storage.clone()), "demo".parse().unwrap());
    let archive = ArchiveInfo::new(PgVersion::V15, 7, None);
    info_files::save_archive_info(&repo, &stanza, &archive).unwrap();
    let backup = BackupInfo::new(PgVersion::V15, 7, 202_209_061, None).unwrap();
    info_files::save_backup_info(&repo, &stanza, &backup).unwrap();
}

fn diagnose(repo: Repo, lock_path: &Path, paths: HostPaths) -> Vec<Diagnosis> {
    let session = Session::new("demo".parse().unwrap(), [repo.clone()]).unwrap().with_lock_path(lock_path);
    let pg = PgSettings { db_timeout: std::time::Duration::from_secs(1), ..PgSettings::new(lock_path.join("pg")) };
    let request = DiagnoseRequest { paths, ..DiagnoseRequest::new(CheckRequest::new(pg)) };
    run(&request, &session, &[repo]).unwrap().found
}

#[track_caller]
fn worst(found: &[Diagnosis], topic: &str) -> (Severity, String) {
    let of_topic = found.iter().filter(|diagnosis| diagnosis.topic == topic);
    let worst = of_topic.max_by_key(|diagnosis| diagnosis.severity).unwrap_or_else(|| panic!("{topic}: {found:#?}"));
    assert!(worst.severity == Severity::Ok || !worst.advice.is_empty(), "no advice: {worst:?}");
    (worst.severity, worst.text.clone())
}

#[test]
fn stanza_that_is_missing_and_one_that_works_differ() {
    let dir = tempfile::tempdir().unwrap();
    let storage = MemoryStorage::new();
    let found = diagnose(repo(storage.clone()), dir.path(), HostPaths::default());
    assert_eq!(worst(&found, "stanza").0, Severity::Error);
    assert_eq!(worst(&found, "connection").0, Severity::Error);
    assert_eq!(worst(&found, "retention").0, Severity::Warning);

    create_stanza(&storage);
    let before = storage.paths();
    let found = diagnose(repo(storage.clone()), dir.path(), HostPaths::default());
    assert_eq!(worst(&found, "repository"), (Severity::Ok, "can be read and written".to_owned()));
    assert_eq!(worst(&found, "backups").0, Severity::Warning);
    assert_eq!(worst(&found, "stop-file").0, Severity::Ok);
    // Nothing is left of the file that was written
    assert_eq!(storage.paths(), before);
}

#[test]
fn repository_that_can_not_be_written_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let storage = MemoryStorage::new();
    create_stanza(&storage);
    let faulty = FaultyStorage::new(Arc::new(storage)).fail_path(Op::Write, "archive/demo");
    let found = diagnose(repo(faulty), dir.path(), HostPaths::default());
    let (severity, text) = worst(&found, "repository");
    assert!(
        severity == Severity::Error && text.contains("archive/demo") && text.contains("can't be written"),
        "{text}"
    );
}

#[test]
fn stop_file_and_unusable_paths_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    crate::control::stop(dir.path(), Some(&"demo".parse().unwrap()), false).unwrap();
    std::fs::write(dir.path().join("file"), "").unwrap();
    let paths = HostPaths {
        lock: Some(dir.path().to_owned()),
        log: Some(dir.path().join("file")),
        spool: Some(dir.path().join("file/spool")),
    };
    let found = diagnose(repo(MemoryStorage::new()), dir.path(), paths);
    assert_eq!(worst(&found, "stop-file").0, Severity::Error);
    assert_eq!(worst(&found, "lock-path").0, Severity::Ok);
    assert_eq!(worst(&found, "log-path").0, Severity::Warning);
    assert_eq!(worst(&found, "spool-path").0, Severity::Error);
}

#[test]
fn clocks_that_differ_are_told_by_how_much() {
    let mut chart = Chart::default();
    for (skew, severity) in [(0, Severity::Ok), (5, Severity::Ok), (-6, Severity::Warning), (90, Severity::Warning)] {
        chart.clock("repo1", skew, "x");
        assert_eq!(chart.0.last().unwrap().severity, severity, "{skew}");
    }
    assert_eq!(chart.0[2].text, "the clock is 6 second(s) behind that of this host");
    assert_eq!(chart.0[3].text, "the clock is 90 second(s) ahead of that of this host");
}

#[test]
fn backup_info_that_can_not_be_read_was_only_logged_beside_the_diagnosis() {
    let dir = tempfile::tempdir().unwrap();
    let repo = repo(crate::storage::posix::PosixStorage::new(dir.path().join("repo")));
    let control = PgControl::parse(include_bytes!("../../../tests/fixtures/pg/pg_control_15"), None).unwrap();
    let stanza = "demo".parse().unwrap();
    let archive = ArchiveInfo::new(control.version, control.system_id, None);
    info_files::save_archive_info(&repo, &stanza, &archive).unwrap();
    let backup = BackupInfo::new(control.version, control.system_id, control.catalog_version, None).unwrap();
    info_files::save_backup_info(&repo, &stanza, &backup).unwrap();
    let session = Session::new(stanza, [repo.clone()]).unwrap().with_lock_path(dir.path());
    let request = DiagnoseRequest::new(CheckRequest::new(PgSettings::new(dir.path().join("pg"))));
    let diagnose = || {
        let mut chart = Chart(Vec::new());
        let examine = || repository::examine(&request, &session, &repo, Some(&control), &mut chart);
        let ((), warnings) = crate::log::collect_warnings(examine);
        assert_eq!(warnings.texts, [""; 0]);
        worst(&chart.0, "stanza")
    };
    assert_eq!(diagnose(), (Severity::Ok, "it belongs to the cluster".to_owned()));
    // A link to itself
    let place = dir.path().join("repo/backup/demo/backup.info");
    std::fs::remove_file(&place).unwrap();
    std::os::unix::fs::symlink("backup.info", &place).unwrap();
    let (severity, text) = diagnose();
    assert_eq!(severity, Severity::Warning);
    assert!(text.contains("/backup/demo/backup.info' can't be read, its copy is used: "), "{text}");
}
