//! Whether a backup without a manifest was interrupted, or is still being made by a process that no claim tells of.

use repo_format::cipher::Cipher;
use repo_format::label::BackupLabel;
use repo_format::layout::{self, Stanza};

use crate::cancel::CancelToken;
use crate::claim::unclaimed;
use crate::pg::data_dir::TARGET_PGDATA;
use crate::repo::{Repo, manifest_store};
use crate::{Result, detail};

/// Asks PostgreSQL which other backups it knows; `None` where it does not run.
pub(super) type Sessions<'a> = dyn FnMut() -> Result<Option<Vec<String>>> + 'a;

/// What is needed to look after unfinished backups.
pub(super) struct Unfinished<'a> {
    pub(super) repo: &'a Repo,
    pub(super) stanza: &'a Stanza,
    pub(super) manifest_cipher: &'a Cipher,
    pub(super) sessions: &'a mut Sessions<'a>,
    pub(super) cancel: &'a CancelToken,
}

impl Unfinished<'_> {
    /// Makes sure that nobody makes this backup any more. The caller has the claim on the stanza.
    ///
    /// pgBackRest shows no sign of life while it sends one large file to an object store. But PostgreSQL ends a backup with the session
    /// that began it: without such a session an online backup that has not got PostgreSQL's last word (`backup_label`) can't end
    /// well. What remains are backups of a stopped server and those that wait for their last WAL: they are watched.
    ///
    /// # Errors
    /// [`crate::ErrorCode::LockAcquire`] if it is, and what the repository and the session give.
    pub(super) fn check_ended(&mut self, label: &BackupLabel) -> Result<()> {
        let (repo, stanza) = (self.repo, self.stanza);
        if unclaimed::has_mark(repo, stanza, label)? || unclaimed::is_empty(repo, stanza, label)? {
            return Ok(());
        }
        let sessions = (self.sessions)()?;
        if let Some(session) = sessions.iter().flatten().next() {
            return Err(unclaimed::runs(label, &format!("PostgreSQL has a session for a backup ({session})")));
        }
        let online = manifest_store::load_copy(repo, stanza, label, self.manifest_cipher)
            .is_ok_and(|manifest| manifest.data.options.online);
        if sessions.is_some() && online && !self.has_stopped(label)? {
            detail!("unfinished backup '{label}' has no session with PostgreSQL any more");
            return Ok(());
        }
        unclaimed::watch(repo, stanza, label, self.cancel)
    }

    /// Whether PostgreSQL was told that the backup ends.
    fn has_stopped(&self, label: &BackupLabel) -> Result<bool> {
        let names = self.repo.storage.names(&layout::backup_member(self.stanza, label, TARGET_PGDATA)?)?;
        Ok(names.iter().flatten().any(|name| name.starts_with("backup_label")))
    }
}
