//! Determines whether a backup without a manifest was interrupted, or is still being made by a process without a claim.

use repo_format::cipher::Cipher;
use repo_format::claim::RUNNING_SUFFIX;
use repo_format::label::BackupLabel;
use repo_format::layout::{self, Stanza};
use repo_format::manifest::PG_DATA;

use crate::cancel::CancelToken;
use crate::claim::unclaimed;
use crate::pg::session::OtherBackup;
use crate::repo::{Repo, manifest_store};
use crate::work::retry::{is_of_peer, patiently};
use crate::{Result, detail};

/// How long the directory of a backup that pgBackRest began must not have changed before the backup is resumed, in
/// seconds. pgBackRest copies by processes that outlive a killed main process until their current file is stored. This
/// is at most 1 GiB, but it may be compressed slowly and sent through a slow line, where an object store does not show
/// it before its end.
const ORPHAN_SECONDS: i64 = 3600;

/// The same for a backup that PostgreSQL does not need to complete, because it has stopped or is offline. pgBackRest then
/// waits for its last WAL, without a sign of life for up to `archive-timeout`, which is a day at most.
const COMPLETION_SECONDS: i64 = 24 * 3600;

/// What can be done with an unfinished backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// Nobody makes it any more: it can be resumed or removed.
    Surely,
    /// pgBackRest may still store files in it, or complete it. Its directory must stay as it is.
    Perhaps,
}

impl Ended {
    /// Judges by the time since the last change.
    fn after(age: i64, limit: i64) -> Self {
        if age >= limit { Ended::Surely } else { Ended::Perhaps }
    }
}

/// Asks PostgreSQL which other backups it knows; `None` if it is not running.
pub(super) type Sessions<'a> = dyn FnMut() -> Result<Option<Vec<OtherBackup>>> + 'a;

/// What is needed to check unfinished backups.
pub(super) struct Unfinished<'a> {
    pub(super) repo: &'a Repo,
    pub(super) stanza: &'a Stanza,
    pub(super) manifest_cipher: &'a Cipher,
    pub(super) sessions: &'a mut Sessions<'a>,
    /// The time by the clock of the store, in seconds since 1970.
    pub(super) now: &'a dyn Fn() -> Result<i64>,
    pub(super) cancel: &'a CancelToken,
}

impl Unfinished<'_> {
    /// Checks that no process still makes this backup. The caller holds the claim on the stanza.
    ///
    /// A process with a claim leaves a mark. pgBackRest does not resume such a backup while the copy of its manifest
    /// says that it is running. It may have resumed one that ended normally.
    ///
    /// pgBackRest shows no sign of life while it uploads a large file to an object store. But PostgreSQL ends a backup
    /// together with the session that started it. So an online backup without a session can't complete anymore, unless
    /// PostgreSQL has already stopped it (`backup_label` exists). Only offline backups and backups that wait for their
    /// last WAL remain. They are watched, and completing them after a long pause must not name missing files. So the
    /// directory of a backup of pgBackRest stays until it is old: `expire` removes it later.
    ///
    /// # Errors
    /// [`crate::ErrorCode::LockAcquire`] if a process still makes it, and errors of the repository and the session.
    pub(super) fn check_ended(&mut self, label: &BackupLabel) -> Result<Ended> {
        let (repo, stanza) = (self.repo, self.stanza);
        if unclaimed::is_empty(repo, stanza, label)? {
            return Ok(Ended::Surely);
        }
        let has_mark = unclaimed::has_mark(repo, stanza, label)?;
        let copy = match patiently(|| manifest_store::load_copy(repo, stanza, label, self.manifest_cipher)) {
            // It tells nothing about the backup
            Err(error) if is_of_peer(&error) => return Err(error),
            copy => copy,
        };
        // Also without a mark: a resume that was interrupted may have removed it
        if copy.as_ref().is_ok_and(|manifest| manifest.backrest_version.ends_with(RUNNING_SUFFIX)) {
            return Ok(Ended::Surely);
        }
        let sessions = (self.sessions)()?;
        if let Some(session) = sessions.iter().flatten().next() {
            return Err(unclaimed::runs(label, &format!("PostgreSQL has a session for a backup ({})", session.text)));
        }
        if has_mark {
            return Ok(Ended::Surely);
        }
        let online = copy.is_ok_and(|manifest| manifest.data.options.online);
        let limit = if sessions.is_some() && online && !self.has_stopped(label)? {
            detail!("unfinished backup '{label}' no longer has a session with PostgreSQL");
            ORPHAN_SECONDS
        } else {
            unclaimed::watch(repo, stanza, label, self.cancel)?;
            COMPLETION_SECONDS
        };
        Ok(Ended::after((self.now)()? - unclaimed::last_change(repo, stanza, label)?, limit))
    }

    /// Returns whether PostgreSQL was told that the backup ends.
    fn has_stopped(&self, label: &BackupLabel) -> Result<bool> {
        let names = self.repo.storage.names(&layout::backup_member(self.stanza, label, PG_DATA)?)?;
        Ok(names.iter().flatten().any(|name| name.starts_with("backup_label")))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use repo_format::label::BackupType;
    use repo_format::manifest::ManifestData;
    use repo_format::pg::PgVersion;

    use super::*;
    use crate::repo::manifest_store::{CopyProgress, ManifestCopy};
    use crate::storage::memory::MemoryStorage;
    use crate::storage::{WriteOptions, put};

    /// Checks an unfinished online backup with this copy of its manifest that last changed `age` seconds ago, while the
    /// server has this session.
    fn check(has_mark: bool, progress: CopyProgress, session: Option<&str>, age: i64) -> Result<Ended> {
        let repo = Repo { key: 1, storage: Arc::new(MemoryStorage::new()), cipher: Cipher::None };
        let stanza: Stanza = "demo".parse()?;
        let label: BackupLabel = "20260101-000000F".parse()?;
        let mut manifest =
            manifest_store::smallest(ManifestData::new(label.clone(), BackupType::Full, 1, PgVersion::V15, 1));
        manifest.data.options.online = true;
        let copy = ManifestCopy { manifest: &manifest, files: &manifest.files, progress };
        manifest_store::save_copy(&repo, &stanza, &Cipher::None, copy)?;
        if has_mark {
            let mark = repo_format::claim::backup_claim(&stanza, &label, "7-x")?;
            put(&*repo.storage, &mark, b"x", WriteOptions::ATOMIC)?;
        }
        let now = unclaimed::last_change(&repo, &stanza, &label)? + age;
        let sessions = || {
            let other = |text: &str| OtherBackup { text: text.to_owned(), since: None };
            Ok(Some(session.map(other).into_iter().collect()))
        };
        Unfinished {
            repo: &repo,
            stanza: &stanza,
            manifest_cipher: &Cipher::None,
            sessions: &mut { sessions },
            now: &|| Ok(now),
            cancel: &CancelToken::new(),
        }
        .check_ended(&label)
    }

    #[test]
    fn backup_that_ended_in_order_is_left_to_pgbackrest_if_it_may_go_on_with_it() {
        let error = check(true, CopyProgress::Ended, Some("process 9"), 0).unwrap_err();
        assert!(error.message.contains("process 9"), "{error}");
        assert_eq!(check(true, CopyProgress::Ended, None, 0).unwrap(), Ended::Surely);
        // The session of a killed process may last for hours
        for has_mark in [true, false] {
            assert_eq!(check(has_mark, CopyProgress::Runs, Some("process 9"), 0).unwrap(), Ended::Surely);
        }
    }

    #[test]
    fn backup_into_which_an_orphan_of_pgbackrest_may_write_is_left_alone() {
        for (age, ended) in [(0, Ended::Perhaps), (ORPHAN_SECONDS - 1, Ended::Perhaps), (ORPHAN_SECONDS, Ended::Surely)]
        {
            assert_eq!(check(false, CopyProgress::Ended, None, age).unwrap(), ended);
        }
    }

    #[test]
    fn backup_that_pgbackrest_may_complete_is_left_alone_for_a_day() {
        assert_eq!(Ended::after(COMPLETION_SECONDS - 1, COMPLETION_SECONDS), Ended::Perhaps);
        assert_eq!(Ended::after(COMPLETION_SECONDS, COMPLETION_SECONDS), Ended::Surely);
    }
}
