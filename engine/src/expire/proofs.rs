//! Proofs of recovery: the newest proven backup may be kept, and proofs of backups that are gone are removed.

use std::collections::BTreeSet;

use repo_format::backup_info::BackupInfo;
use repo_format::label::BackupLabel;
use repo_format::layout;

use super::Task;
use super::plan::{BackupCandidate, BackupPlan};
use crate::proof::attest;
use crate::repo::manifest_store;
use crate::{Error, ErrorCode, Result};

impl Task<'_> {
    /// Keeps the newest backup that a test restore has proven, with its set.
    ///
    /// # Errors
    /// The proofs can't be listed; [`ErrorCode::OptionInvalidValue`] if the operator named this backup to be expired.
    pub(super) fn keep_proven(&self, plan: &mut BackupPlan, info: &BackupInfo, all: &[BackupCandidate]) -> Result<()> {
        if !self.request.keep_proven || plan.expired.is_empty() {
            return Ok(());
        }
        let key = self.repo.key;
        let found = attest::newest_proven(self.repo, self.session.stanza(), info)?;
        for (label, error) in &found.unreadable {
            crate::warn!("repo{key}: the last proof of backup {label} can't be read, so it may be proven: {error}");
            self.keep_set_of(label, "its last proof can't be read", plan, all)?;
        }
        match &found.proven {
            Some(proven) => self.keep_set_of(proven, "it is the newest proven backup", plan, all),
            None => {
                crate::warn!("repo{key}: no backup is proven, so --keep-proven keeps none");
                Ok(())
            }
        }
    }

    /// Keeps the set of a backup for this reason.
    fn keep_set_of(
        &self,
        label: &BackupLabel,
        reason: &str,
        plan: &mut BackupPlan,
        all: &[BackupCandidate],
    ) -> Result<()> {
        let key = self.repo.key;
        if plan.keep_sets(&BTreeSet::from([label.full_label()]), all).is_empty() {
            return Ok(());
        }
        if self.request.set.is_some() {
            let text = format!("backup set of {label} cannot be expired with --keep-proven: {reason}");
            return Err(Error::new(ErrorCode::OptionInvalidValue, text));
        }
        crate::info!("repo{key}: backup {label} is kept with its set: {reason}");
        Ok(())
    }

    /// Removes the proofs of backups that are not in backup.info any more. What can't be removed, for example because
    /// another user made it, stays with a warning: nothing else depends on it.
    ///
    /// # Errors
    /// A signal arrived.
    pub(super) fn remove_proofs(&self, info: &BackupInfo) -> Result<()> {
        match self.remove_proofs_of_expired(info) {
            Err(error) => {
                self.session.cancel_token().check()?;
                crate::warn!("repo{}: proofs of expired backups are not removed: {error}", self.repo.key);
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    fn remove_proofs_of_expired(&self, info: &BackupInfo) -> Result<()> {
        let (storage, stanza, key) = (&self.repo.storage, self.session.stanza(), self.repo.key);
        for name in self.list(&layout::proof_stanza(stanza))? {
            let Ok(label) = name.parse::<BackupLabel>() else { continue };
            // pgBackRest on another host may have made it since backup.info was loaded. A dry run has not removed any
            let is_new = || Ok(!self.request.dry_run && manifest_store::is_complete(self.repo, stanza, &label)?);
            if info.backups.contains_key(&label) || is_new()? {
                continue;
            }
            crate::info!("repo{key}: remove proofs of expired backup {label}");
            self.change(|| storage.remove_all(&layout::proof_backup(stanza, &label)))?;
        }
        Ok(())
    }
}
