//! `verify` of backups without `backup.manifest`: those that have lost it, and those that never had one.

use super::*;
use crate::repo::manifest_store::{CopyProgress, ManifestCopy};
use crate::verify::{BackupStatus, VerifySummary};

fn verify(world: &World) -> VerifySummary {
    crate::verify::run(&VerifyRequest::default(), &world.session(&world.repo), &world.repo).unwrap()
}

/// Removes the manifest of a backup, which the next save of a reconstructed backup.info then drops.
fn lose_manifest(world: &World, label: &BackupLabel) {
    world.repo.storage.remove(&layout::manifest(&stanza(), label)).unwrap();
    let mut info = world.info();
    info.backups.remove(label);
    info_files::save_backup_info(&world.repo, &stanza(), &info).unwrap();
}

fn lose_history(world: &World, label: &BackupLabel) {
    world.repo.storage.remove(&layout::history_manifest(&stanza(), label)).unwrap();
}

/// Replaces the copy of a backup's manifest by one of a backup that has not been completed.
fn save_copy(world: &World, label: &BackupLabel, timestamp_stop: i64, progress: CopyProgress) {
    let cipher = info_files::manifest_cipher(&world.info());
    let mut manifest = manifest_store::load_copy(&world.repo, &stanza(), label, &cipher).unwrap();
    manifest.data.timestamp_stop = timestamp_stop;
    let copy = ManifestCopy { manifest: &manifest, files: &manifest.files, progress };
    manifest_store::save_copy(&world.repo, &stanza(), &cipher, copy).unwrap();
}

/// Removes a stored file of the data directory.
fn damage(world: &World, label: &BackupLabel) {
    let path = layout::backup_file(&stanza(), label, "pg_data/base/5/1", FileForm::Whole(CompressType::Lz4)).unwrap();
    assert!(exists(&*world.repo.storage, &path).unwrap());
    world.repo.storage.remove(&path).unwrap();
}

#[test]
fn complete_backup_that_lost_its_manifest_was_in_progress_for_verify() {
    for (passphrase, is_newest) in [(None, false), (Some("secret"), false), (None, true)] {
        let world = World::new(passphrase);
        let [first, second] = [(); 2].map(|()| world.run(world.settings(BackupType::Full)).unwrap());
        let label = if is_newest { second } else { first };
        lose_manifest(&world, &label);
        let summary = verify(&world);
        assert_eq!((summary.errors, summary.half_whole), (0, 1), "{passphrase:?} {is_newest}");
        let warning = summary.warnings.texts.iter().find(|text| text.contains("is missing, only ")).unwrap();
        assert!(warning.contains(&format!("/backup/demo/{label}/backup.manifest' is missing, only ")), "{warning}");
        assert!(summary.backups.iter().all(|backup| backup.status == BackupStatus::Valid && backup.total > 5));
        assert_eq!(summary.into_error().unwrap().code, ErrorCode::Command);

        damage(&world, &label);
        let summary = verify(&world);
        assert_eq!((summary.errors, summary.half_whole), (1, 1), "{passphrase:?} {is_newest}");
        // Also if nothing of the copy is left
        world.repo.storage.remove(&layout::manifest_copy(&stanza(), &label)).unwrap();
        let status = |summary: VerifySummary| summary.backups.into_iter().find(|backup| backup.label == label).unwrap();
        assert_eq!(status(verify(&world)).status, BackupStatus::ManifestMissing);
    }
}

#[test]
fn backup_that_was_never_complete_is_no_damage_for_verify() {
    let world = World::new(Some("secret"));
    let [label, newest] = [(); 2].map(|()| world.run(world.settings(BackupType::Full)).unwrap());
    lose_manifest(&world, &label);
    lose_history(&world, &label);
    let found = || {
        let summary = verify(&world);
        let backup = summary.backups.iter().find(|backup| backup.label == label).unwrap();
        (backup.status, summary.errors, summary.half_whole)
    };
    // pgBackRest waits for its WAL: everything is there
    assert_eq!(found(), (BackupStatus::Valid, 0, 0));
    damage(&world, &label);
    assert_eq!(found(), (BackupStatus::Invalid, 1, 0));
    // rbr waits for it, or is still copying; the same for pgBackRest
    for (stop, progress) in [(1, CopyProgress::Runs), (0, CopyProgress::Runs), (0, CopyProgress::Ended)] {
        save_copy(&world, &label, stop, progress);
        assert_eq!(found(), (BackupStatus::InProgress, 0, 0), "{stop} {progress:?}");
    }

    // The newest one may be completed at any moment
    lose_manifest(&world, &newest);
    lose_history(&world, &newest);
    let backup = verify(&world).backups.into_iter().find(|backup| backup.label == newest).unwrap();
    assert_eq!((backup.status, backup.total), (BackupStatus::InProgress, 0));
}

#[test]
fn backup_that_is_completed_while_verify_looks_is_read_by_its_manifest() {
    let world = World::new(None);
    let label = world.run(world.settings(BackupType::Full)).unwrap();
    let place = world.dir.path().join("repo").join(layout::manifest(&stanza(), &label).as_str());
    let aside = place.with_extension("later");
    lose_manifest(&world, &label);
    fs::copy(place.with_extension("manifest.copy"), &aside).unwrap();
    let history = layout::history_manifest(&stanza(), &label);
    let storage = FaultyStorage::new(Arc::clone(&world.repo.storage)).before(move |op, path| {
        if op == Op::Info && *path == history {
            fs::rename(&aside, &place).unwrap();
        }
    });
    let repo = Repo { storage: Arc::new(storage), ..world.repo.clone() };
    let summary = crate::verify::run(&VerifyRequest::default(), &world.session(&repo), &repo).unwrap();
    assert_eq!((summary.errors, summary.half_whole), (0, 0));
    assert_eq!(summary.backups[0].status, BackupStatus::Valid);
}
