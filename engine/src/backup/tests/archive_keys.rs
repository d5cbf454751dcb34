//! An archive.info of format 6 that is damaged while only it has the newest key.

use repo_format::archive_info::ArchiveInfo;

use std::sync::atomic::AtomicBool;

use super::*;
use crate::stanza::StanzaRequest;
use crate::storage::{WriteOptions, put};

fn archive_info() -> RepoPath {
    layout::archive_info(&stanza())
}

fn stored(world: &World, path: &RepoPath) -> Vec<u8> {
    get(&*world.repo.storage, path, 1 << 20).unwrap().unwrap()
}

/// A repository whose damaged archive.info has a key that its copy lacks. Returns the damaged bytes and those of the copy.
fn damaged() -> (World, Vec<u8>, Vec<u8>) {
    let world = World::new(Some("secret"));
    upgrade(&world).unwrap();
    let (file, copy) = (archive_info(), layout::copy(&archive_info()));
    let old = stored(&world, &copy);
    let mut info: ArchiveInfo = info_files::load_archive_info(&world.repo, &stanza()).unwrap();
    info.keys.as_mut().unwrap().rotate(Passphrase::generate(RepoFormat::V6).unwrap(), 1).unwrap();
    info_files::save_archive_info(&world.repo, &stanza(), &info).unwrap();
    let mut bytes = stored(&world, &file);
    bytes[100] ^= 1;
    put(&*world.repo.storage, &file, &bytes, WriteOptions::ATOMIC).unwrap();
    put(&*world.repo.storage, &copy, &old, WriteOptions::ATOMIC).unwrap();
    (world, bytes, old)
}

fn upgrade(world: &World) -> Result<()> {
    let pg = world.settings(BackupType::Full).pg;
    let request = StanzaRequest { online: false, pg, formats: [(1, RepoFormat::V6)].into() };
    let session = world.session(&world.repo);
    crate::stanza::upgrade(&request, &session, std::slice::from_ref(&world.repo)).map(drop)
}

#[test]
fn damaged_archive_info_whose_copy_may_lack_a_key_outlives_a_backup_and_an_upgrade() {
    let (world, damaged, copy) = damaged();
    let summary = world.session(&world.repo).backup(&world.settings(BackupType::Full)).unwrap();
    assert!(summary.warnings.texts.iter().any(|text| text.contains("archive.info' is damaged")));
    assert_eq!(stored(&world, &archive_info()), damaged);
    assert_eq!(stored(&world, &layout::copy(&archive_info())), copy);
    // The files must be saved, because they are of another cluster now
    let mut info = world.info();
    info.upgrade(info.current().version, 7, info.current().catalog_version).unwrap();
    info_files::save_backup_info(&world.repo, &stanza(), &info).unwrap();
    let mut archive = info_files::load_archive_info(&world.repo, &stanza()).unwrap();
    archive.upgrade(archive.current().version, 7).unwrap();
    let error = info_files::save_archive_info(&world.repo, &stanza(), &archive).unwrap_err();
    assert_eq!(error.code, crate::ErrorCode::FileInvalid);
    assert!(error.hints[0].contains("verify with --repair"), "{error}");
    assert_eq!(stored(&world, &archive_info()), damaged);
}

#[test]
fn damaged_archive_info_whose_copy_may_lack_a_key_is_kept_by_a_repair() {
    let (world, damaged, copy) = damaged();
    let request = VerifyRequest { repair: true, ..verify_request() };
    let summary = crate::verify::run(&request, &world.session(&world.repo), &world.repo).unwrap();
    assert!(summary.failure.is_none());
    assert_eq!(stored(&world, &archive_info()), copy);
    let names = world.repo.storage.names(&layout::archive_stanza(&stanza())).unwrap().unwrap();
    let kept: Vec<&String> = names.iter().filter(|name| name.starts_with("archive.info.damaged-")).collect();
    let [kept] = kept.as_slice() else { panic!("{names:?}") };
    assert_eq!(stored(&world, &layout::archive_stanza(&stanza()).join(kept).unwrap()), damaged);
}

/// Makes a backup in which these reads of archive.info, counted from 0 from the time when the backup is complete, fail.
/// Returns the texts of the warnings.
fn backup_with_failing_reads(world: &World, failing: std::ops::Range<usize>) -> Vec<String> {
    let faulty = FaultyStorage::new(Arc::clone(&world.repo.storage));
    let (inner, is_complete, reads) = (faulty.clone(), AtomicBool::new(false), AtomicUsize::new(0));
    let storage = faulty.before(move |op, path| {
        if op == Op::Finish && path.file_name() == "backup.manifest" {
            is_complete.store(true, Ordering::SeqCst);
        }
        let is_one = op == Op::Read && path.file_name() == "archive.info" && is_complete.load(Ordering::SeqCst);
        if is_one && failing.contains(&reads.fetch_add(1, Ordering::SeqCst)) {
            let so_far = inner.calls().iter().filter(|(op, _)| *op == Op::Read).count() as u64;
            drop(inner.clone().fail(Op::Read, so_far + 1));
        }
    });
    let repo = Repo { storage: Arc::new(storage), ..world.repo.clone() };
    let summary = world.session(&repo).backup(&world.settings(BackupType::Full)).unwrap();
    assert!(world.info().backups.contains_key(&summary.label));
    summary.warnings.texts
}

#[test]
fn read_of_archive_info_that_fails_at_the_end_of_a_backup_is_repeated_and_no_damage() {
    let world = World::new(Some("secret"));
    upgrade(&world).unwrap();
    let before = stored(&world, &archive_info());
    // The first read is that of the load, the second that of the save
    assert_eq!(backup_with_failing_reads(&world, 0..1), [""; 0]);
    assert_ne!(stored(&world, &archive_info()), before, "it is written anew");
    assert_eq!(backup_with_failing_reads(&world, 1..2), [""; 0]);
    let before = stored(&world, &archive_info());
    for first in [0, 1] {
        let warnings = backup_with_failing_reads(&world, first..usize::MAX);
        let [warning] = warnings.as_slice() else { panic!("{warnings:?}") };
        assert!(warning.contains("archive.info' is not written anew after the backup: "), "{warning}");
        assert!(warning.contains("fault injected"), "{warning}");
        assert!(!warning.contains("keys") && !warning.contains("damaged"), "{warning}");
        assert_eq!(stored(&world, &archive_info()), before);
    }
}
