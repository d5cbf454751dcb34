//! Backups without a manifest: interrupted backups, and backups that another process may be making.

use std::collections::BTreeMap;

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

/// A backup without a manifest that another process may be making.
#[derive(Clone, Debug)]
pub(super) struct MaybeRunning {
    pub label: BackupLabel,
    /// When its directory last changed, by the clock of the store, in seconds since 1970.
    changed: i64,
}

impl MaybeRunning {
    /// Returns until when it counts as running if it does not change, by the clock of the store.
    fn until(&self) -> String {
        let until = Timestamp::from_second(self.changed.saturating_add(UNCLAIMED_SECONDS));
        let until = until.map(|until| until.to_zoned(time_zone::local().clone()));
        until.map_or_else(|_| "an unknown time".to_owned(), |until| until.strftime("%Y-%m-%d %H:%M:%S%:z").to_string())
    }
}

impl Task<'_> {
    /// Returns the backups without a manifest that another process may be making: no claim shows that it has ended, and
    /// the directory changed recently, by the clock of the store. A backup that is known to have had no manifest and has been
    /// completed since counts as running and is kept.
    pub(super) fn maybe_running(&self, found: &Reconstructed) -> Result<Vec<MaybeRunning>> {
        let Reconstructed { info, labels, unfinished, .. } = found;
        let (repo, stanza) = (self.repo, self.session.stanza());
        let mut running = Vec::new();
        for label in labels.iter().filter(|label| !info.backups.contains_key(label)) {
            if (!unfinished.contains(label) && manifest_store::is_complete(repo, stanza, label)?)
                || unclaimed::has_mark(repo, stanza, label)?
            {
                continue;
            }
            let changed = unclaimed::last_change(repo, stanza, label)?;
            if self.now.saturating_sub(changed) < UNCLAIMED_SECONDS {
                running.push(MaybeRunning { label: label.clone(), changed });
            }
        }
        Ok(running)
    }

    /// Logs which unfinished backups are kept, and until when. pgBackRest keeps the newest one, too, and does not log it.
    pub(super) fn tell_kept(&self, found: &Reconstructed, running: &[MaybeRunning]) {
        for backup in running.iter().filter(|backup| found.labels.last() != Some(&backup.label)) {
            crate::info!("repo{}: unfinished backup {} is kept until {}", self.repo.key, backup.label, backup.until());
        }
    }

    /// Warns that an unfinished backup keeps WAL from being expired.
    pub(super) fn warn_of_kept_archive(&self, backup: &MaybeRunning) {
        let (key, hints) = (self.repo.key, self.unfinished_hints(backup).join("\nHINT: "));
        let text = format!("unfinished backup {} may run on another host and need it", backup.label);
        crate::warn!("repo{key}: archive is not expired: {text}\nHINT: {hints}");
    }

    /// Hints at an unfinished backup that keeps something from being expired. Whoever reads this later may find it complete, so it
    /// says until when nothing is to be done, and nothing about what to remove.
    fn unfinished_hints(&self, backup: &MaybeRunning) -> [String; 2] {
        let directory = self.repo.storage.display(&layout::backup_path(self.session.stanza(), &backup.label));
        let until = backup.until();
        [
            format!(
                "'{directory}' had no {} and no claim when expire began, like a backup of pgBackRest that has not ended. Unless it \
                 changes, it counts as running until {until}.",
                layout::BACKUP_MANIFEST
            ),
            "an expire after that keeps nothing for it. Do not remove it by hand: it may have been completed since."
                .to_owned(),
        ]
    }

    /// Keeps backups on which possibly running backups are based.
    pub(super) fn keep_needed(
        &self,
        plan: &mut BackupPlan,
        running: &[MaybeRunning],
        facts: &[BackupCandidate],
    ) -> Result<()> {
        let mut dependent: BTreeMap<BackupLabel, Vec<&MaybeRunning>> = BTreeMap::new();
        for backup in running.iter().filter(|backup| backup.label.backup_type() != BackupType::Full) {
            dependent.entry(backup.label.full_label()).or_default().push(backup);
        }
        let fulls = dependent.keys().cloned().collect();
        let stay = plan.keep_sets(&fulls, facts);
        for (full, dependent) in &dependent {
            let first = stay.iter().find(|label| label.full_label() == *full);
            let last = dependent.iter().max_by_key(|backup| backup.changed);
            let (Some(first), Some(last)) = (first, last) else { continue };
            let labels: Vec<&str> = dependent.iter().map(|backup| backup.label.as_str()).collect();
            let text =
                format!("unfinished backup {} may be running on another host and be based on it", labels.join(", "));
            let hints = self.unfinished_hints(last);
            if self.request.set.is_some() {
                let error = Error::new(ErrorCode::LockAcquire, format!("backup {first} cannot be expired: {text}"));
                return Err(hints.into_iter().fold(error.hint("wait until it has ended."), Error::hint));
            }
            crate::warn!(
                "repo{}: backup {first} is not expired: {text}\nHINT: {}",
                self.repo.key,
                hints.join("\nHINT: ")
            );
        }
        Ok(())
    }

    /// Returns the directories of backups to remove.
    pub(super) fn directories(
        &self,
        found: &Reconstructed,
        running: &[MaybeRunning],
        plan: &BackupPlan,
    ) -> Result<Vec<BackupLabel>> {
        let Reconstructed { info, labels, unfinished, .. } = found;
        let running: Vec<BackupLabel> = running.iter().map(|backup| backup.label.clone()).collect();
        let keep_newest = match labels.last() {
            // A backup in backup.info has a manifest
            Some(newest) if info.backups.contains_key(newest) || running.contains(newest) => false,
            Some(newest) => self.is_unfinished(newest, unfinished)? && !self.is_orphan(newest, info, plan),
            None => false,
        };
        Ok(plan::directories(labels, &plan.kept, &running, keep_newest))
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
