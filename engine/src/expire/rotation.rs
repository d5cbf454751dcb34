//! Replaces archive keys that are too old.

use jiff::Timestamp;
use repo_format::archive_info::ArchiveInfo;
use repo_format::backup_info::BackupInfo;
use repo_format::cipher::{Keyring, Passphrase};
use repo_format::format::RepoFormat;
use repo_format::label::BackupLabel;
use repo_format::layout;

use super::Task;
use crate::Result;
use crate::repo::{info_files, unreadable};
use crate::work::retry::{is_about_content, patiently};

impl Task<'_> {
    /// Adds a key to archive.info if the current one is too old. Files that exist keep their keys, so that none is ever
    /// removed (pgBackRest 2.60.0, `src/command/expire/expire.c`). Completes a rotation that was interrupted between
    /// archive.info and its copy first. `loaded` is archive.info, if it was loaded already; it tells only whether there is
    /// something to do. If archive.info or its copy can't be read at the moment, the next expire rotates.
    ///
    /// # Errors
    /// archive.info is damaged, as is its copy, or can't be saved; the key is too old, and one of the two will not be readable later
    /// either; the current key has no number that another could follow.
    pub(super) fn rotate_key(
        &self,
        info: &BackupInfo,
        loaded: Option<ArchiveInfo>,
        running: Option<&BackupLabel>,
    ) -> Result<()> {
        let (repo, stanza, key) = (self.repo, self.session.stanza(), self.repo.key);
        let Some(rotation) = self.request.cipher_rotate.get(&key).filter(|_| !repo.cipher.is_none()) else {
            return Ok(());
        };
        if info.format < RepoFormat::V6 {
            if rotation.is_expected {
                crate::warn!("option 'repo{key}-cipher-rotate' requires repository format 6 or higher");
            }
            return Ok(());
        }
        // Without a claim, another host may rotate at the same time. On a full disk, only one of the two files may be
        // written
        if self.claim.is_some_and(|claim| !claim.is_held()) {
            return Ok(());
        }
        let now = Timestamp::now().as_second();
        let is_due = |keys: &Keyring| {
            u64::try_from(now.saturating_sub(keys.rotated())).is_ok_and(|age| age > rotation.period.as_secs())
        };
        let load = || loaded.clone().map_or_else(|| info_files::load_archive_info(repo, stanza), Ok);
        let load_both = || {
            let (seen, copy) = repo.both(load, || info_files::load_archive_info_copy(repo, stanza));
            let seen = seen?;
            match copy {
                // Nothing is to be done now
                Err(error) if unreadable::lasts(repo, &error) && !seen.keys.as_ref().is_some_and(is_due) => {
                    let name = repo.storage.display(&layout::copy(&layout::archive_info(stanza)));
                    crate::warn!("repo{key}: '{name}' can't be read: {error}");
                    Ok((seen, None))
                }
                copy => Ok((seen, copy?)),
            }
        };
        let Some((seen, copy)) = self.unless_unread(load_both)? else { return Ok(()) };
        let differ = copy.is_some_and(|copy| copy.keys != seen.keys);
        if !info_files::has_rotating_keys(&seen) || !differ && !seen.keys.as_ref().is_some_and(is_due) {
            return Ok(());
        }
        // Since it was loaded, expire may have removed files for hours, and pgBackRest on another host may have upgraded
        // the stanza
        let to_refresh = || info_files::load_archive_info_to_refresh(repo, stanza);
        let Some(found) = self.unless_unread(to_refresh)? else { return Ok(()) };
        let Some(mut archive) = found else {
            let name = repo.storage.display(&layout::archive_info(stanza));
            let hint = info_files::DAMAGED_HINT;
            crate::warn!("repo{key}: archive key is not rotated: '{name}' is damaged\nHINT: {hint}");
            return Ok(());
        };
        if !self.complete_rotation(&mut archive)? {
            return Ok(());
        }
        let Some(keys) = archive.keys.as_mut().filter(|keys| is_due(keys)) else { return Ok(()) };
        // It may be one of pgBackRest, which knows only the keys that it has loaded at its start
        if let Some(label) = running {
            crate::detail!("repo{key}: archive key is not rotated: backup {label} may be running on another host");
            return Ok(());
        }
        keys.rotate(Passphrase::generate(archive.format)?, now)?;
        crate::info!("repo{key}: rotate archive key to id {}", keys.current_id());
        self.save_keys(&archive).map(drop)
    }

    /// Reads, and again for a while if that fails. Warns if it still does, and returns `None`: a rotation is never urgent, and
    /// everything else that expire has to do is done.
    ///
    /// # Errors
    /// What was read is damaged, or will not be readable later either: no key would ever be rotated.
    fn unless_unread<R>(&self, read: impl FnMut() -> Result<R>) -> Result<Option<R>> {
        match patiently(read) {
            Err(error) if unreadable::lasts(self.repo, &error) => Err(error.context("archive key is not rotated")),
            Err(error) if !is_about_content(&error) => {
                crate::warn!("repo{}: archive key is not rotated: {error}", self.repo.key);
                Ok(None)
            }
            read => read.map(Some),
        }
    }

    /// Saves archive.info. Returns whether it did: the stored files are read before anything is written.
    ///
    /// # Errors
    /// It can't be written, or the stored files contradict it.
    fn save_keys(&self, archive: &ArchiveInfo) -> Result<bool> {
        let (repo, stanza) = (self.repo, self.session.stanza());
        let prepared = self.unless_unread(|| info_files::prepare_archive_info(repo, stanza, archive))?;
        let Some(prepared) = prepared else { return Ok(false) };
        self.change(|| prepared.save(repo)).map(|()| true)
    }

    /// Adds the keys that only the copy of archive.info has. Saves both if they have different keys: later rotations would be
    /// based on one of them, and if the other is all that is left some day, keys would be missing. Returns whether both are
    /// complete.
    ///
    /// # Errors
    /// archive.info can't be written, or the stored files contradict it.
    fn complete_rotation(&self, archive: &mut ArchiveInfo) -> Result<bool> {
        let (repo, stanza) = (self.repo, self.session.stanza());
        let load_copy = || info_files::load_archive_info_copy(repo, stanza);
        let Some(copy) = self.unless_unread(load_copy)? else { return Ok(false) };
        let (Some(keys), Some(stored)) = (&mut archive.keys, copy.and_then(|copy| copy.keys)) else { return Ok(true) };
        if *keys == stored {
            return Ok(true);
        }
        let name = || repo.storage.display(&layout::archive_info(stanza));
        keys.keep(&stored).map_err(|error| error.context(format_args!("unable to save '{}'", name())))?;
        crate::info!("repo{}: complete an interrupted rotation of the archive key", repo.key);
        self.save_keys(archive)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;
    use std::time::Duration;

    use repo_format::cipher::Cipher;
    use repo_format::layout::{RepoPath, Stanza};
    use repo_format::pg::PgVersion;

    use super::super::{ExpireRequest, Task};
    use super::*;
    use crate::log::collect_warnings;
    use crate::session::Session;
    use crate::storage::faulty::{FaultyStorage, Op};
    use crate::storage::memory::MemoryStorage;
    use crate::storage::posix::PosixStorage;
    use crate::storage::{self, RepoStorage, WriteOptions};
    use crate::{ErrorCode, Repo};

    const DAY: u64 = 24 * 60 * 60;

    fn stanza() -> Stanza {
        "demo".parse().unwrap()
    }

    fn repo_on(storage: impl RepoStorage + 'static) -> Repo {
        Repo { key: 1, storage: Arc::new(storage), cipher: Cipher::Aes256Cbc(Passphrase::new("secret")) }
    }

    fn request() -> ExpireRequest {
        ExpireRequest::default().rotate_key(1, Duration::from_secs(15 * DAY))
    }

    /// An archive.info whose current key was made this many seconds ago.
    fn archive_info(format: RepoFormat, age: u64) -> ArchiveInfo {
        let made = Timestamp::now().as_second() - i64::try_from(age).unwrap();
        let keys = match format {
            RepoFormat::V5 => Keyring::single(Passphrase::new("old")),
            RepoFormat::V6 => Keyring::rotatable(Passphrase::generate(format).unwrap(), made),
        };
        ArchiveInfo::with_format(format, PgVersion::V15, 7, Some(keys))
    }

    /// Stores one of the two files.
    fn put(repo: &Repo, path: &RepoPath, info: &ArchiveInfo) {
        let text = info.serialize().unwrap();
        let stored = repo_format::cipher::encrypt(&repo.cipher.of_info_file(info.format), &text).unwrap();
        storage::put(&*repo.storage, path, &stored, WriteOptions::ATOMIC).unwrap();
    }

    fn rotate(repo: &Repo, format: RepoFormat, request: &ExpireRequest, running: &[&str]) -> Result<()> {
        rotate_after(None, repo, format, request, running)
    }

    fn rotate_after(
        loaded: Option<ArchiveInfo>,
        repo: &Repo,
        format: RepoFormat,
        request: &ExpireRequest,
        running: &[&str],
    ) -> Result<()> {
        let mut info = BackupInfo::new(PgVersion::V15, 7, 1, Some(Passphrase::new("manifests")))?;
        info.format = format;
        let session = Session::new(stanza(), [repo.clone()])?;
        let set_found = AtomicBool::new(false);
        let task = Task { claim: None, repo, now: 0, request, session: &session, is_last: true, set_found: &set_found };
        let running: Vec<BackupLabel> = running.iter().map(|label| label.parse().unwrap()).collect();
        task.rotate_key(&info, loaded, running.first())
    }

    /// The keys of the file and of its copy.
    fn keys(repo: &Repo) -> [Keyring; 2] {
        let file = info_files::load_archive_info(repo, &stanza()).unwrap();
        let copy = info_files::load_archive_info_copy(repo, &stanza()).unwrap().unwrap();
        [file, copy].map(|info| info.keys.unwrap())
    }

    fn current(repo: &Repo) -> [String; 2] {
        keys(repo).map(|keys| keys.current_id().to_string())
    }

    #[test]
    fn key_is_replaced_only_after_its_period() {
        // The current ids after two runs, in the file and in its copy. The second run has nothing to do
        let rotated = |format, age, request: ExpireRequest| {
            let repo = repo_on(MemoryStorage::new());
            info_files::save_archive_info(&repo, &stanza(), &archive_info(format, age)).unwrap();
            rotate(&repo, format, &request, &[]).unwrap();
            rotate(&repo, format, &request, &[]).unwrap();
            assert_eq!(info_files::load_archive_info(&repo, &stanza()).unwrap().format, format);
            current(&repo)
        };
        assert_eq!(rotated(RepoFormat::V6, 15 * DAY - 5, request()), ["1", "1"]);
        assert_eq!(rotated(RepoFormat::V6, 15 * DAY + 5, request()), ["2", "2"]);
        assert_eq!(rotated(RepoFormat::V6, 9999 * DAY, request()), ["2", "2"]);
        assert_eq!(rotated(RepoFormat::V6, 9999 * DAY, request().dry_run()), ["1", "1"]);
        assert_eq!(rotated(RepoFormat::V6, 9999 * DAY, ExpireRequest::default()), ["1", "1"]);
        assert_eq!(rotated(RepoFormat::V5, 9999 * DAY, request()), ["0", "0"]);
    }

    #[test]
    fn rotation_of_which_only_one_file_was_written_is_completed_by_the_next_expire() {
        let file = layout::archive_info(&stanza());
        for written in [file.clone(), layout::copy(&file)] {
            let repo = repo_on(MemoryStorage::new());
            let old = archive_info(RepoFormat::V6, 9999 * DAY);
            info_files::save_archive_info(&repo, &stanza(), &old).unwrap();
            let mut new = old.clone();
            let made = Timestamp::now().as_second() - 5;
            new.keys.as_mut().unwrap().rotate(Passphrase::generate(RepoFormat::V6).unwrap(), made).unwrap();
            put(&repo, &written, &new);
            rotate(&repo, RepoFormat::V6, &request().dry_run(), &[]).unwrap();
            assert_ne!(keys(&repo)[0], keys(&repo)[1]);
            // A backup that may run keeps only later keys away
            rotate(&repo, RepoFormat::V6, &request(), &["20260101-000000F"]).unwrap();
            let expected = new.keys.clone().unwrap();
            assert_eq!(keys(&repo), [expected.clone(), expected.clone()], "{written}");
            rotate(&repo, RepoFormat::V6, &request(), &[]).unwrap();
            assert_eq!(keys(&repo), [expected.clone(), expected]);
        }
    }

    #[test]
    fn rotation_that_fails_anywhere_succeeds_the_next_time() {
        for calls in 1.. {
            let memory = MemoryStorage::new();
            let repo = repo_on(memory.clone());
            info_files::save_archive_info(&repo, &stanza(), &archive_info(RepoFormat::V6, 9999 * DAY)).unwrap();
            let faulty = FaultyStorage::new(Arc::new(memory)).crash_at(calls);
            let is_done = rotate(&repo_on(faulty), RepoFormat::V6, &request(), &[]).is_ok();
            let [file, copy] = keys(&repo);
            // The copy never has a key that the file lacks
            assert!(copy.keys().all(|key| file.keys().any(|other| other == key)));
            rotate(&repo, RepoFormat::V6, &request(), &[]).unwrap();
            assert_eq!(current(&repo), ["2", "2"]);
            assert!(file.keys().all(|key| keys(&repo)[1].keys().any(|other| other == key)));
            if is_done {
                assert!(calls > 4, "{calls}");
                break;
            }
        }
    }

    #[test]
    fn key_that_is_not_too_old_costs_one_read_of_each_file_and_no_write() {
        let memory = MemoryStorage::new();
        info_files::save_archive_info(&repo_on(memory.clone()), &stanza(), &archive_info(RepoFormat::V6, 5)).unwrap();
        let faulty = FaultyStorage::new(Arc::new(memory));
        rotate(&repo_on(faulty.clone()), RepoFormat::V6, &request(), &[]).unwrap();
        let calls: Vec<Op> = faulty.calls().into_iter().map(|(op, _)| op).collect();
        assert_eq!(calls, [Op::Read, Op::Read]);
    }

    #[test]
    fn key_is_not_rotated_while_an_unclaimed_backup_may_run() {
        let repo = repo_on(MemoryStorage::new());
        info_files::save_archive_info(&repo, &stanza(), &archive_info(RepoFormat::V6, 9999 * DAY)).unwrap();
        rotate(&repo, RepoFormat::V6, &request(), &["20260101-000000F"]).unwrap();
        assert_eq!(current(&repo), ["1", "1"]);
        rotate(&repo, RepoFormat::V6, &request(), &[]).unwrap();
        assert_eq!(current(&repo), ["2", "2"]);
    }

    #[test]
    fn history_that_was_upgraded_while_expire_removed_files_stays() {
        let repo = repo_on(MemoryStorage::new());
        let old = archive_info(RepoFormat::V6, 9999 * DAY);
        let mut upgraded = old.clone();
        upgraded.upgrade(PgVersion::V16, 8).unwrap();
        info_files::save_archive_info(&repo, &stanza(), &upgraded).unwrap();
        rotate_after(Some(old), &repo, RepoFormat::V6, &request(), &[]).unwrap();
        assert_eq!(current(&repo), ["2", "2"]);
        let saved = info_files::load_archive_info(&repo, &stanza()).unwrap();
        assert_eq!(saved.current(), upgraded.current());
        assert_eq!(saved.history, upgraded.history);
    }

    #[test]
    fn key_is_not_rotated_while_archive_info_is_damaged_and_may_have_a_newer_one() {
        let repo = repo_on(MemoryStorage::new());
        let old = archive_info(RepoFormat::V6, 9999 * DAY);
        info_files::save_archive_info(&repo, &stanza(), &old).unwrap();
        let path = layout::archive_info(&stanza());
        let mut stored = storage::get(&*repo.storage, &path, 1 << 20).unwrap().unwrap();
        stored[100] ^= 1;
        storage::put(&*repo.storage, &path, &stored, WriteOptions::ATOMIC).unwrap();
        for loaded in [None, Some(old.clone())] {
            rotate_after(loaded, &repo, RepoFormat::V6, &request(), &[]).unwrap();
            assert_eq!(storage::get(&*repo.storage, &path, 1 << 20).unwrap().as_ref(), Some(&stored));
            assert_eq!(info_files::load_archive_info_copy(&repo, &stanza()).unwrap().as_ref(), Some(&old));
        }
    }

    /// Expires, with archive.info loaded before, over a storage that fails as `with_faults` says. Returns the current ids.
    fn rotated_over(with_faults: impl FnOnce(FaultyStorage) -> FaultyStorage) -> [String; 2] {
        let memory = MemoryStorage::new();
        let old = archive_info(RepoFormat::V6, 9999 * DAY);
        info_files::save_archive_info(&repo_on(memory.clone()), &stanza(), &old).unwrap();
        let faulty = with_faults(FaultyStorage::new(Arc::new(memory.clone())));
        rotate_after(Some(old), &repo_on(faulty), RepoFormat::V6, &request(), &[]).unwrap();
        current(&repo_on(memory))
    }

    #[test]
    fn rotation_that_could_never_happen_was_only_a_warning() {
        for (age, is_due) in [(9999 * DAY, true), (DAY, false)] {
            let dir = tempfile::tempdir().unwrap();
            let repo = repo_on(PosixStorage::new(dir.path()));
            info_files::save_archive_info(&repo, &stanza(), &archive_info(RepoFormat::V6, age)).unwrap();
            let place = dir.path().join("archive/demo/archive.info.copy");
            std::fs::remove_file(&place).unwrap();
            // A link to itself can't be read, not even by root
            std::os::unix::fs::symlink("archive.info.copy", &place).unwrap();
            let (rotated, warnings) = collect_warnings(|| rotate(&repo, RepoFormat::V6, &request(), &[]));
            let told: Vec<String> = if is_due {
                let error = rotated.unwrap_err();
                assert_eq!(error.code, ErrorCode::FileOpen);
                vec![error.message]
            } else {
                rotated.unwrap();
                warnings.texts
            };
            let [text] = &told[..] else { panic!("{told:?}") };
            assert_eq!(text.starts_with("archive key is not rotated: "), is_due, "{text}");
            assert!(text.contains("archive.info.copy'") && text.contains("symbolic links"), "{text}");
            let file = info_files::load_archive_info(&repo, &stanza()).unwrap();
            assert_eq!(file.keys.unwrap().current_id().to_string(), "1");
        }
    }

    #[test]
    fn one_failed_read_of_archive_info_ended_expire_at_its_end() {
        // The copy, then the file and the copy, then both before they are saved
        for read in 1..=5 {
            assert_eq!(rotated_over(|storage| storage.fail(Op::Read, read)), ["2", "2"], "{read}");
        }
    }

    #[test]
    fn rotation_waits_for_the_next_expire_while_archive_info_or_its_copy_can_not_be_read() {
        for path in ["archive.info", "archive.info.copy"] {
            let (ids, warnings) = crate::log::collect_warnings(|| {
                rotated_over(|storage| storage.fail_path(Op::Read, &format!("/{path}")))
            });
            assert_eq!(ids, ["1", "1"], "{path}");
            let [warning] = warnings.texts.as_slice() else { panic!("{warnings:?}") };
            assert!(warning.starts_with("repo1: archive key is not rotated: "), "{warning}");
            assert!(!warning.contains("damaged") && !warning.contains("HINT"), "{warning}");
        }
    }
}
