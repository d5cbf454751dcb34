//! Backups without a manifest: interrupted backups, and backups that another process may be making.

use jiff::Timestamp;
use repo_format::backup_info::BackupInfo;
use repo_format::label::{BackupLabel, BackupType};
use repo_format::layout;

use super::Task;
use super::plan::{self, BackupCandidate, BackupPlan};
use crate::claim::unclaimed;
use crate::repo::info_files::manifest_cipher;
use crate::repo::manifest_store;
use crate::repo::reconstruct::Reconstructed;
use crate::{Error, ErrorCode, Result, time_zone};

/// How long an unfinished backup without a claim must not have changed before its directory is removed, in seconds.
/// Expire can't ask PostgreSQL whether pgBackRest is still making it, which may send one large file for hours.
const UNCLAIMED_SECONDS: i64 = plan::SECONDS_PER_DAY;

impl Task<'_> {
    /// Returns the backups without a manifest that another process may be making: no claim shows that it has ended, and
    /// the directory changed recently. A backup that is known to have had no manifest and has been completed since
    /// counts as running and is kept.
    pub(super) fn maybe_running(&self, found: &Reconstructed) -> Result<Vec<BackupLabel>> {
        let Reconstructed { info, labels, unfinished, .. } = found;
        let (repo, stanza) = (self.repo, self.session.stanza());
        let mut running = Vec::new();
        for label in labels.iter().filter(|label| !info.backups.contains_key(label)) {
            if (unfinished.contains(label) || !manifest_store::is_complete(repo, stanza, label)?)
                && !unclaimed::has_mark(repo, stanza, label)?
                && self.changed_since(label)?
            {
                running.push(label.clone());
            }
        }
        Ok(running)
    }

    /// Returns whether the directory of a backup changed recently, by the clock of the store.
    fn changed_since(&self, label: &BackupLabel) -> Result<bool> {
        Ok(self.now - unclaimed::last_change(self.repo, self.session.stanza(), label)? < UNCLAIMED_SECONDS)
    }

    /// Logs which unfinished backups are kept, and until when. pgBackRest keeps the newest one, too, and does not log it.
    pub(super) fn tell_kept(&self, found: &Reconstructed, running: &[BackupLabel]) -> Result<()> {
        for label in running.iter().filter(|label| found.labels.last() != Some(label)) {
            let until = self.kept_until(label)?;
            crate::info!("repo{}: unfinished backup {label} is kept until {until}", self.repo.key);
        }
        Ok(())
    }

    /// Returns until when an unfinished backup counts as running if it does not change, by the clock of the store.
    fn kept_until(&self, label: &BackupLabel) -> Result<String> {
        let until = unclaimed::last_change(self.repo, self.session.stanza(), label)?.saturating_add(UNCLAIMED_SECONDS);
        let until = Timestamp::from_second(until).map(|until| until.to_zoned(time_zone::local().clone()));
        Ok(until
            .map_or_else(|_| "an unknown time".to_owned(), |until| until.strftime("%Y-%m-%d %H:%M:%S%:z").to_string()))
    }

    /// Warns that an unfinished backup keeps WAL from being expired.
    pub(super) fn warn_of_kept_archive(&self, label: &BackupLabel) -> Result<()> {
        let (key, hint) = (self.repo.key, self.unfinished_hint(label)?);
        let text = format!("unfinished backup {label} may run on another host and need it");
        crate::warn!("repo{key}: archive is not expired: {text}\nHINT: {hint}");
        Ok(())
    }

    /// Hints at what to do about an unfinished backup that keeps something from being expired.
    fn unfinished_hint(&self, label: &BackupLabel) -> Result<String> {
        let (storage, stanza) = (&self.repo.storage, self.session.stanza());
        let directory = storage.display(&layout::backup_path(stanza, label));
        let until = self.kept_until(label)?;
        Ok(format!(
            "'{directory}' has no {manifest} and no claim, as of a backup of pgBackRest that has not ended. It counts as running \
             until {until}, unless it changes.\nHINT: if no process is making it, remove that directory to expire now.",
            manifest = layout::BACKUP_MANIFEST
        ))
    }

    /// Keeps backups on which possibly running backups are based.
    pub(super) fn keep_needed(
        &self,
        plan: &mut BackupPlan,
        running: &[BackupLabel],
        facts: &[BackupCandidate],
    ) -> Result<()> {
        let dependent = running.iter().filter(|label| label.backup_type() != BackupType::Full);
        let fulls = dependent.map(BackupLabel::full_label).collect();
        let stay = plan.keep_sets(&fulls, facts);
        let Some(first) = stay.first() else { return Ok(()) };
        let labels: Vec<&str> = running.iter().map(AsRef::as_ref).collect();
        let text = format!("unfinished backup {} may be running on another host and be based on it", labels.join(", "));
        if self.request.set.is_some() {
            return Err(Error::new(ErrorCode::LockAcquire, format!("backup {first} cannot be expired: {text}"))
                .hint("wait until it has ended. If none is running, the next backup removes the unfinished one."));
        }
        let hint = running.first().map(|label| self.unfinished_hint(label)).transpose()?.unwrap_or_default();
        crate::warn!("repo{}: backup {first} is not expired: {text}\nHINT: {hint}", self.repo.key);
        Ok(())
    }

    /// Returns the directories of backups to remove.
    pub(super) fn directories(
        &self,
        found: &Reconstructed,
        running: &[BackupLabel],
        plan: &BackupPlan,
    ) -> Result<Vec<BackupLabel>> {
        let Reconstructed { info, labels, unfinished, .. } = found;
        let keep_newest = match labels.last() {
            // A backup in backup.info has a manifest
            Some(newest) if info.backups.contains_key(newest) || running.contains(newest) => false,
            Some(newest) => self.is_unfinished(newest, unfinished)? && !self.is_orphan(newest, info, plan),
            None => false,
        };
        Ok(plan::directories(labels, &plan.kept, running, keep_newest))
    }

    /// Returns whether a backup has no manifest yet, because it was running or was interrupted and may be resumed.
    /// Another host may have completed this backup since backup.info was read, and it must not count as one that is
    /// invalid because backup.info lacks it.
    fn is_unfinished(&self, label: &BackupLabel, unfinished: &[BackupLabel]) -> Result<bool> {
        let has = |path| Ok(self.repo.storage.info(&path)?.is_some());
        let (manifest, copy) =
            (layout::manifest(self.session.stanza(), label), layout::manifest_copy(self.session.stanza(), label));
        if unfinished.contains(label) { Ok(has(copy)? || has(manifest)?) } else { Ok(!has(manifest)? && has(copy)?) }
    }

    /// Returns whether an unfinished backup depends on the backup that was named to be expired and so can't be resumed
    /// any more. An unreadable backup can't be resumed either, and does no harm until the next backup removes it.
    fn is_orphan(&self, label: &BackupLabel, info: &BackupInfo, plan: &BackupPlan) -> bool {
        let Some(set) = &self.request.set else { return false };
        if label.full_part() != set.full_part() {
            return false;
        }
        match manifest_store::load(self.repo, self.session.stanza(), label, &manifest_cipher(info)) {
            Ok(manifest) => {
                manifest.data.prior.is_some_and(|prior| !plan.kept.iter().any(|backup| backup.label == prior))
            }
            Err(error) => {
                crate::warn!("unfinished backup {label} is left unchanged: {error}");
                false
            }
        }
    }
}
