//! Determines whether a backup without a manifest was interrupted, or is still being made by a process without a claim.

use repo_format::cipher::Cipher;
use repo_format::claim::RUNNING_SUFFIX;
use repo_format::label::BackupLabel;
use repo_format::layout::{self, Stanza};

use crate::cancel::CancelToken;
use crate::claim::unclaimed;
use crate::pg::data_dir::TARGET_PGDATA;
use crate::pg::session::OtherBackup;
use crate::repo::{Repo, manifest_store};
use crate::{Result, detail};

/// Asks PostgreSQL which other backups it knows; `None` if it is not running.
pub(super) type Sessions<'a> = dyn FnMut() -> Result<Option<Vec<OtherBackup>>> + 'a;

/// What is needed to check unfinished backups.
pub(super) struct Unfinished<'a> {
    pub(super) repo: &'a Repo,
    pub(super) stanza: &'a Stanza,
    pub(super) manifest_cipher: &'a Cipher,
    pub(super) sessions: &'a mut Sessions<'a>,
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
    /// last WAL remain. They are watched.
    ///
    /// # Errors
    /// [`crate::ErrorCode::LockAcquire`] if a process still makes it, and errors of the repository and the session.
    pub(super) fn check_ended(&mut self, label: &BackupLabel) -> Result<()> {
        let (repo, stanza) = (self.repo, self.stanza);
        if unclaimed::is_empty(repo, stanza, label)? {
            return Ok(());
        }
        let has_mark = unclaimed::has_mark(repo, stanza, label)?;
        let copy = manifest_store::load_copy(repo, stanza, label, self.manifest_cipher);
        if has_mark && copy.as_ref().is_ok_and(|manifest| manifest.backrest_version.ends_with(RUNNING_SUFFIX)) {
            return Ok(());
        }
        let sessions = (self.sessions)()?;
        if let Some(session) = sessions.iter().flatten().next() {
            return Err(unclaimed::runs(label, &format!("PostgreSQL has a session for a backup ({})", session.text)));
        }
        if has_mark {
            return Ok(());
        }
        let online = copy.is_ok_and(|manifest| manifest.data.options.online);
        if sessions.is_some() && online && !self.has_stopped(label)? {
            detail!("unfinished backup '{label}' no longer has a session with PostgreSQL");
            return Ok(());
        }
        unclaimed::watch(repo, stanza, label, self.cancel)
    }

    /// Returns whether PostgreSQL was told that the backup ends.
    fn has_stopped(&self, label: &BackupLabel) -> Result<bool> {
        let names = self.repo.storage.names(&layout::backup_member(self.stanza, label, TARGET_PGDATA)?)?;
        Ok(names.iter().flatten().any(|name| name.starts_with("backup_label")))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use repo_format::label::BackupType;
    use repo_format::manifest::{Manifest, ManifestData, ManifestPath, OwnerId, PG_DATA, Target, TargetType};
    use repo_format::pg::PgVersion;

    use super::*;
    use crate::repo::manifest_store::CopyProgress;
    use crate::storage::memory::MemoryStorage;
    use crate::storage::{WriteOptions, put};

    /// Checks an unfinished backup that has a mark and this copy of its manifest, while the server has this session.
    fn check(progress: CopyProgress, session: Option<&str>) -> Result<()> {
        let repo = Repo { key: 1, storage: Arc::new(MemoryStorage::new()), cipher: Cipher::None };
        let stanza: Stanza = "demo".parse()?;
        let label: BackupLabel = "20260101-000000F".parse()?;
        let mut manifest = Manifest::new(ManifestData::new(label.clone(), BackupType::Full, 1, PgVersion::V15, 1));
        manifest.targets.push(Target {
            name: PG_DATA.to_owned(),
            target_type: TargetType::Path,
            path: "/pg".to_owned(),
            file: None,
            tablespace: None,
        });
        let (user, group) = (OwnerId::UNKNOWN, OwnerId::UNKNOWN);
        manifest.paths.push(ManifestPath { name: PG_DATA.to_owned(), mode: 0o700, user, group });
        manifest_store::save_copy(&repo, &stanza, &manifest, &Cipher::None, progress)?;
        let mark = repo_format::claim::backup_claim(&stanza, &label, "7-x")?;
        put(&*repo.storage, &mark, b"x", WriteOptions::ATOMIC)?;
        let sessions = || {
            let other = |text: &str| OtherBackup { text: text.to_owned(), since: None };
            Ok(Some(session.map(other).into_iter().collect()))
        };
        Unfinished {
            repo: &repo,
            stanza: &stanza,
            manifest_cipher: &Cipher::None,
            sessions: &mut { sessions },
            cancel: &CancelToken::new(),
        }
        .check_ended(&label)
    }

    #[test]
    fn backup_that_ended_in_order_is_left_to_pgbackrest_if_it_may_go_on_with_it() {
        let error = check(CopyProgress::Ended, Some("process 9")).unwrap_err();
        assert!(error.message.contains("process 9"), "{error}");
        check(CopyProgress::Ended, None).unwrap();
        // The session of a killed process may last for hours
        check(CopyProgress::Runs, Some("process 9")).unwrap();
    }
}
