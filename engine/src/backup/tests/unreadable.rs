//! A backup.info that the system can't read. A link to itself is one, also for root.

use super::*;
use crate::annotate::AnnotateRequest;
use crate::expire::ExpireRequest;
use crate::repo::formats;
use crate::stanza::StanzaRequest;
use crate::storage;

/// Puts something unreadable in the place of a file. Returns where.
fn make_unreadable(world: &World, path: &RepoPath) -> PathBuf {
    let place = world.dir.path().join("repo").join(path.as_str());
    fs::remove_file(&place).unwrap();
    std::os::unix::fs::symlink(place.file_name().unwrap(), &place).unwrap();
    assert!(fs::read(&place).is_err());
    place
}

fn warning_about_the_copy(texts: &[String]) {
    let [warning] = texts else { panic!("{texts:?}") };
    assert!(warning.contains("/backup/demo/backup.info' can't be read, its copy is used: "), "{warning}");
    assert!(warning.ends_with("for read: [40] Too many levels of symbolic links"), "{warning}");
}

#[test]
fn backup_info_that_can_not_be_read_stopped_backup_and_expire_for_good() {
    for passphrase in [None, Some("secret")] {
        let world = World::new(passphrase);
        let first = world.run(world.settings(BackupType::Full)).unwrap();
        let path = layout::backup_info(&stanza());
        let is_renewed = |place: &Path| {
            assert!(fs::symlink_metadata(place).unwrap().is_file());
            let copy = world.dir.path().join("repo").join(layout::copy(&path).as_str());
            assert_eq!(fs::read(place).unwrap(), fs::read(copy).unwrap());
        };

        let place = make_unreadable(&world, &path);
        let session = world.session(&world.repo);
        let summary = session.backup(&world.settings(BackupType::Full)).unwrap();
        warning_about_the_copy(&summary.warnings.texts);
        assert!([&first, &summary.label].iter().all(|label| world.info().backups.contains_key(label)));
        is_renewed(&place);

        // It has nothing to remove, but the file to write
        make_unreadable(&world, &path);
        let before = world.info();
        let summary = session.expire(&ExpireRequest::default().dry_run()).unwrap();
        warning_about_the_copy(&summary.warnings.texts);
        assert!(fs::read(&place).is_err(), "dry run");
        warning_about_the_copy(&session.expire(&ExpireRequest::default()).unwrap().warnings.texts);
        is_renewed(&place);
        assert_eq!(world.info(), before);

        // Only the copy: nothing to warn about
        let copy = make_unreadable(&world, &layout::copy(&path));
        let summary = session.backup(&world.settings(BackupType::Full)).unwrap();
        assert_eq!(summary.warnings.texts, [""; 0]);
        is_renewed(&copy);
    }
}

#[test]
fn annotate_warned_twice_of_a_backup_info_that_can_not_be_read() {
    let world = World::new(None);
    let label = world.run(world.settings(BackupType::Full)).unwrap();
    let session = world.session(&world.repo);
    let path = layout::backup_info(&stanza());
    make_unreadable(&world, &path);
    let summary = session.annotate(&AnnotateRequest::new(label.clone()).set("keep", "legal")).unwrap();
    warning_about_the_copy(&summary.warnings.texts);
    assert_eq!(world.info().backups[&label].annotation["keep"], "legal");
    // A repository without the backup is not changed
    let place = make_unreadable(&world, &path);
    let other = AnnotateRequest::new("20200101-000000F".parse().unwrap()).set("keep", "legal");
    assert_eq!(session.annotate(&other).unwrap_err().code, ErrorCode::BackupSetInvalid);
    assert!(fs::symlink_metadata(place).unwrap().is_symlink());
}

#[test]
fn stanza_create_and_check_said_nothing_of_a_backup_info_that_can_not_be_read() {
    let world = World::new(Some("secret"));
    let control = PgControl::parse(CONTROL, None).unwrap();
    let warnings = || {
        let check = || crate::stanza::check_info(&world.repo, &stanza(), control.version, control.system_id);
        let (checked, logged) = crate::log::collect_warnings(check);
        // Whoever calls it logs them, check of a primary and a standby once
        assert_eq!(logged.texts, [""; 0]);
        let pg = world.settings(BackupType::Full).pg;
        let request = StanzaRequest { online: false, pg, formats: [].into() };
        let created = world.session(&world.repo).stanza_create(&request).unwrap().warnings.texts;
        let texts = checked.unwrap().warnings;
        assert_eq!(created, texts);
        texts
    };
    assert_eq!(warnings(), [""; 0]);
    let path = layout::backup_info(&stanza());
    let place = make_unreadable(&world, &path);
    warning_about_the_copy(&warnings());
    let copy = world.dir.path().join("repo").join(layout::copy(&path).as_str());
    fs::remove_file(&place).unwrap();
    fs::copy(&copy, &place).unwrap();
    make_unreadable(&world, &layout::copy(&path));
    let texts = warnings();
    let [warning] = &texts[..] else { panic!("{texts:?}") };
    assert!(warning.contains("/backup/demo/backup.info.copy' can't be read: "), "{warning}");
}

#[test]
fn format_of_a_file_that_could_not_be_read_after_it_was_opened_was_unknown() {
    for passphrase in [None, Some("secret")] {
        let world = World::new(passphrase);
        let format = |path| info_files::stored_format(&world.repo, path);
        let (archive, backup) = (layout::archive_info(&stanza()), layout::backup_info(&stanza()));
        assert_eq!(format(&backup).unwrap(), Some(5));
        for path in [&archive, &backup] {
            // A directory can be opened, but not read
            let place = world.dir.path().join("repo").join(path.as_str());
            fs::remove_file(&place).unwrap();
            fs::create_dir(&place).unwrap();
            let error = format(path).unwrap_err();
            assert!(error.code == ErrorCode::FileRead && error.message.contains("Is a directory"), "{error}");
        }
        // The copy of backup.info serves, but nothing tells which keys archive.info has
        let error = formats::check(&world.repo, &stanza()).unwrap_err();
        assert!(error.message.contains("archive.info"), "{error}");
        fs::remove_dir(world.dir.path().join("repo").join(archive.as_str())).unwrap();
        formats::check(&world.repo, &stanza()).unwrap();
        fs::write(world.dir.path().join("repo").join(archive.as_str()), "damage").unwrap();
        assert_eq!(format(&archive).unwrap(), None);
    }
}

#[test]
fn backup_info_that_fails_for_a_moment_or_whose_copy_is_older_is_not_replaced() {
    let world = World::new(Some("secret"));
    let path = layout::backup_info(&stanza());
    let failing = FaultyStorage::new(Arc::clone(&world.repo.storage)).fail_path(Op::Read, path.as_str());
    let repo = Repo { storage: Arc::new(failing), ..world.repo.clone() };
    let error = info_files::load_backup_info_to_save(&repo, &stanza()).unwrap_err();
    assert!(error.message.starts_with("unable to load info file '"), "{error}");
    assert!(error.hints[0].ends_with("backup.info', and is its disk sound?"), "{error}");
    assert!(error.hints[1].ends_with("replace it with the copy, which may be older."), "{error}");

    // An upgrade that was interrupted before it wrote the copy of backup.info
    let mut archive = info_files::load_archive_info(&world.repo, &stanza()).unwrap();
    archive.format = RepoFormat::V6;
    let keys = archive.keys.as_mut().unwrap();
    keys.rotate(Passphrase::generate(RepoFormat::V6).unwrap(), 1).unwrap();
    info_files::save_archive_info(&world.repo, &stanza(), &archive).unwrap();
    make_unreadable(&world, &path);
    for error in [
        formats::load_backup(&world.repo, &stanza()).unwrap_err(),
        world.run(world.settings(BackupType::Full)).unwrap_err(),
    ] {
        assert_eq!(error.code, ErrorCode::FileInvalid);
        assert!(error.hints.iter().any(|hint| hint.contains("stanza-upgrade")), "{error}");
    }
}

#[test]
fn archive_info_that_can_not_be_read_is_not_replaced() {
    let world = World::new(Some("secret"));
    let place = make_unreadable(&world, &layout::archive_info(&stanza()));
    let error = info_files::load_archive_info_to_save(&world.repo, &stanza()).unwrap_err();
    assert!(error.message.starts_with("unable to load info file '"), "{error}");
    let error = world.session(&world.repo).backup(&world.settings(BackupType::Full)).unwrap_err();
    assert!(error.message.contains("archive.info"), "{error}");
    assert!(fs::symlink_metadata(place).unwrap().is_symlink());
}

#[test]
fn repository_with_an_unreadable_info_file_or_manifest_was_valid_for_verify() {
    let world = World::new(None);
    let label = world.run(world.settings(BackupType::Full)).unwrap();
    let manifest = RepoPath::new(format!("backup/demo/{label}/backup.manifest")).unwrap();
    for path in [layout::backup_info(&stanza()), manifest] {
        for path in [path.clone(), layout::copy(&path)] {
            make_unreadable(&world, &path);
            let verify = |repair| {
                let request = VerifyRequest { repair, ..VerifyRequest::default() };
                crate::verify::run(&request, &world.session(&world.repo), &world.repo).unwrap()
            };
            let summary = verify(false);
            assert_eq!((summary.errors, summary.half_whole), (0, 1), "{path:?}");
            assert!(summary.into_error().is_some(), "{path:?}");
            assert_eq!(verify(true).half_whole, 0, "{path:?}");
            let summary = verify(false);
            assert!(summary.half_whole == 0 && summary.into_error().is_none(), "{path:?}");
        }
    }
}

#[test]
fn end_of_a_backup_wrote_an_older_copy_over_a_backup_info_that_it_could_not_read_for_a_moment() {
    let world = World::new(None);
    let first = world.run(world.settings(BackupType::Full)).unwrap();
    let path = layout::backup_info(&stanza());
    let mut newer = world.info();
    newer.backups.get_mut(&first).unwrap().annotation.insert("keep".to_owned(), "legal".to_owned());
    let copy = storage::get(&*world.repo.storage, &layout::copy(&path), info_files::SIZE_MAX).unwrap().unwrap();
    let run_on = |storage: &FaultyStorage| {
        // Whoever wrote it was killed before the copy
        info_files::save_backup_info(&world.repo, &stanza(), &newer).unwrap();
        storage::put(&*world.repo.storage, &layout::copy(&path), &copy, WriteOptions::ATOMIC).unwrap();
        let repo = Repo { storage: Arc::new(storage.clone()), ..world.repo.clone() };
        world.run_on(&repo, world.settings(BackupType::Full))
    };
    let whole = FaultyStorage::new(Arc::clone(&world.repo.storage));
    run_on(&whole).unwrap();
    let reads = whole.calls().into_iter().filter(|(op, read)| *op == Op::Read && *read == path).count();
    assert!(reads > 1, "{reads}");
    for n in 1..=reads as u64 {
        // It may fail, but not lose what only the file has
        let _ = run_on(&FaultyStorage::new(Arc::clone(&world.repo.storage)).fail_of(Op::Read, &path, n));
        assert_eq!(world.info().backups[&first].annotation["keep"], "legal", "read {n} of {reads}");
    }
}
