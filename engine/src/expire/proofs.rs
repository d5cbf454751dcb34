//! Proofs of recovery: the newest proven backup may be kept, and proofs of backups that are gone are removed.

use std::collections::BTreeSet;

use repo_format::backup_info::BackupInfo;
use repo_format::label::BackupLabel;
use repo_format::layout;

use super::Task;
use super::plan::{BackupCandidate, BackupPlan};
use crate::proof::attest;
use crate::{Error, ErrorCode, Result};

impl Task<'_> {
    /// Keeps the newest backup that a test restore has proven, with its set.
    ///
    /// # Errors
    /// The proofs can't be read; [`ErrorCode::OptionInvalidValue`] if the operator named this backup to be expired.
    pub(super) fn keep_proven(&self, plan: &mut BackupPlan, info: &BackupInfo, all: &[BackupCandidate]) -> Result<()> {
        if !self.request.keep_proven || plan.expired.is_empty() {
            return Ok(());
        }
        let key = self.repo.key;
        let Some(proven) = attest::newest_proven(self.repo, self.session.stanza(), info)? else {
            crate::warn!("repo{key}: no backup is proven, so --keep-proven keeps none");
            return Ok(());
        };
        let fulls = BTreeSet::from([proven.full_label()]);
        if plan.keep_sets(&fulls, all).is_empty() {
            return Ok(());
        }
        if self.request.set.is_some() {
            let text =
                format!("backup set of {proven}, the newest proven backup, cannot be expired with --keep-proven");
            return Err(Error::new(ErrorCode::OptionInvalidValue, text));
        }
        crate::info!("repo{key}: backup {proven} is kept with its set because it is the newest proven backup");
        Ok(())
    }

    /// Removes the proofs of backups that are not in backup.info any more.
    pub(super) fn remove_proofs(&self, info: &BackupInfo) -> Result<()> {
        let (storage, stanza, key) = (&self.repo.storage, self.session.stanza(), self.repo.key);
        for name in self.list(&layout::proof_stanza(stanza))? {
            let Ok(label) = name.parse::<BackupLabel>() else { continue };
            if info.backups.contains_key(&label) {
                continue;
            }
            crate::info!("repo{key}: remove proofs of expired backup {label}");
            self.change(|| storage.remove_all(&layout::proof_backup(stanza, &label)))?;
        }
        Ok(())
    }
}
