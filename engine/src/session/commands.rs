//! The commands of a session. Each takes its locks, opens the repositories that it needs, and returns a summary.

use std::collections::BTreeMap;

use repo_format::label::BackupLabel;

use super::Session;
use crate::Result;
use crate::annotate::{self, AnnotateRequest, AnnotateSummary};
use crate::backup::{self, BackupRequest, BackupSummary, PhaseFigures};
use crate::check::{self, CheckRequest, CheckSummary};
use crate::diagnose::{self, DiagnoseRequest, DiagnoseSummary};
use crate::expire::{ExpireRequest, ExpireSummary};
use crate::info::{self, BackupFact, InfoRequest, StanzaFact};
use crate::lock::LockType;
use crate::objectives::{self, RecoveryObjectives};
use crate::recovery_points::{self, RecoveryPointsRequest, RepoPoints};
use crate::repo::info_files;
use crate::restore::{self, RestorePlan, RestoreRequest, RestoreSummary};
use crate::stanza::{self, StanzaDeleteRequest, StanzaDeleteSummary, StanzaRequest, StanzaSummary};
use crate::verify::{self, VerifyRequest, VerifySummary};

impl Session {
    /// Makes a backup in the first repository.
    ///
    /// # Errors
    /// The same as [`Session::begin_backup`] and [`BackupTurn::run`](super::turn::BackupTurn::run).
    pub fn backup(&self, request: &BackupRequest) -> Result<BackupSummary> {
        let mut turn = self.begin_backup()?;
        let summary = turn.run(request)?;
        turn.keep_phases(&summary, None);
        Ok(summary)
    }

    /// Restores a backup from the first repository that has a suitable one.
    ///
    /// # Errors
    /// Many, each with pgBackRest's number: another restore is running (50), the target directories are unsuitable (38,
    /// 40, 53, 93), no set matches (75, 29), the timeline can't be reached (58), mappings or databases do not exist (76,
    /// 78, 80, 81), stored files are missing or damaged (26, 29, 55, 95), writing fails. After an error the cluster
    /// can't be started. A later restore with delta continues.
    pub fn restore(&self, request: &RestoreRequest) -> Result<RestoreSummary> {
        // Another one may have the backup
        let repos: Vec<_> = self.open_some()?.into_iter().map(|repo| self.paced(repo)).collect();
        let mut lock = self.lock(&[LockType::Restore])?;
        restore::run(request, self, &repos, &mut *lock)
    }

    /// Plans a restore: decides and compares everything as the restore would, and changes nothing. Reasons for which the
    /// restore would be refused, and what is missing, are part of the plan.
    ///
    /// # Errors
    /// The same as [`Session::restore`] for what the plan depends on: no set matches (75, 29), the timeline can't be
    /// reached (58), mappings or databases do not exist (76, 78, 80, 81), existing files can't be read.
    pub fn plan_restore(&self, request: &RestoreRequest) -> Result<RestorePlan> {
        restore::plan(request, self, &self.open_some()?)
    }

    /// Lists the points that the stanza can be recovered to, by repository. A repository that can't be read has its
    /// error.
    ///
    /// # Errors
    /// [`ErrorCode::Format`](crate::ErrorCode::Format) for a time in the request that is no time,
    /// [`ErrorCode::OptionInvalid`](crate::ErrorCode::OptionInvalid) for a range that ends before it begins,
    /// [`ErrorCode::Term`](crate::ErrorCode::Term) if the session is cancelled.
    pub fn recovery_points(&self, request: &RecoveryPointsRequest) -> Result<Vec<RepoPoints>> {
        recovery_points::run(request, self, &self.open_each())
    }

    /// Reads the measured recovery time and the newest WAL of each repository, with its key. A repository that can't be
    /// read has its error.
    pub fn recovery_objectives(&self) -> Vec<(u32, Result<RecoveryObjectives>)> {
        let repos = self.open_each();
        repos.iter().map(|repo| (repo.key, objectives::of_repo(repo, &self.stanza))).collect()
    }

    /// Lists the backups of all repositories, by repository, oldest first.
    ///
    /// # Errors
    /// A repository has no readable backup.info for the stanza.
    pub fn backups(&self) -> Result<Vec<BackupFact>> {
        let mut backups = Vec::new();
        for source in &self.repos {
            let repo = source.open()?;
            let info = info_files::load_backup_info(&repo, &self.stanza)?;
            let fact = |(label, entry)| BackupFact { label, repo_key: repo.key, entry, set: None, proof: None };
            backups.extend(info.backups.into_iter().map(fact));
        }
        Ok(backups)
    }

    /// Reports on the stanza in all repositories. What can't be read is part of the report.
    ///
    /// # Errors
    /// [`ErrorCode::Assert`](crate::ErrorCode::Assert) without a repository.
    pub fn info(&self, request: &InfoRequest) -> Result<StanzaFact> {
        info::of_stanza(request, self, &self.open_each())
    }

    /// Returns how long the phases of the backups in the first repository took, by label. Backups of pgBackRest have none.
    ///
    /// # Errors
    /// The repository can't be read, or the file that keeps them is damaged ([`ErrorCode::Format`](crate::ErrorCode::Format)).
    pub fn backup_phases(&self) -> Result<BTreeMap<BackupLabel, Vec<PhaseFigures>>> {
        backup::phases::load(&self.open_first()?, &self.stanza)
    }

    /// Removes what exceeds the retention of the request, from every repository of the session.
    ///
    /// # Errors
    /// The same as [`Session::begin_backup`] and [`BackupTurn::expire`](super::turn::BackupTurn::expire).
    pub fn expire(&self, request: &ExpireRequest) -> Result<ExpireSummary> {
        self.begin_backup()?.expire(request)
    }

    /// Checks every file of the first repository. What is invalid is in the summary and no error.
    ///
    /// # Errors
    /// The repository can't be opened, or directories can't be listed.
    pub fn verify(&self, request: &VerifyRequest) -> Result<VerifySummary> {
        verify::run(request, self, &self.paced(self.open_first()?))
    }

    /// Checks that the stanza can archive and be backed up: the settings and repositories of every cluster that can be
    /// reached. On a primary it switches WAL and waits for the segment in each repository.
    ///
    /// # Errors
    /// [`ErrorCode::Config`](crate::ErrorCode::Config) if no cluster can be reached, and the first problem.
    pub fn check(&self, request: &CheckRequest) -> Result<CheckSummary> {
        check::run(request, self, &self.open_all()?)
    }

    /// Looks for what usually goes wrong, in PostgreSQL, in every repository and on this host. What is wrong is in the
    /// summary, and no error.
    ///
    /// # Errors
    /// The error of the token.
    pub fn diagnose(&self, request: &DiagnoseRequest) -> Result<DiagnoseSummary> {
        diagnose::run(request, self, &self.open_each())
    }

    /// Changes the annotations of a backup in every repository that has it.
    ///
    /// # Errors
    /// [`ErrorCode::LockAcquire`](crate::ErrorCode::LockAcquire) if another process holds the lock of the stanza's
    /// backups, [`ErrorCode::OptionInvalidValue`](crate::ErrorCode::OptionInvalidValue) if a key could not be read back,
    /// [`ErrorCode::Command`](crate::ErrorCode::Command) if any repository failed, and
    /// [`ErrorCode::BackupSetInvalid`](crate::ErrorCode::BackupSetInvalid) if no repository has the backup.
    pub fn annotate(&self, request: &AnnotateRequest) -> Result<AnnotateSummary> {
        let _lock = self.lock(&[LockType::Backup])?;
        annotate::run(request, self, &self.open_each())
    }

    /// Creates the stanza in every repository, or checks it if it exists.
    ///
    /// # Errors
    /// A lock is held or commands were stopped (50, 62), something else is in its place (40), one of its info files is
    /// missing (55), it belongs to another cluster (28), or the cluster can't be reached (56).
    pub fn stanza_create(&self, request: &StanzaRequest) -> Result<StanzaSummary> {
        let _lock = self.lock(&LockType::ALL)?;
        stanza::create(request, self, &self.open_all()?)
    }

    /// Makes the cluster the stanza's current one in every repository, after it was upgraded.
    ///
    /// # Errors
    /// A lock is held or commands were stopped (50, 62), the info files can't be loaded or saved, they do not agree (28),
    /// or the cluster can't be reached (56).
    pub fn stanza_upgrade(&self, request: &StanzaRequest) -> Result<StanzaSummary> {
        let _lock = self.lock(&LockType::ALL)?;
        stanza::upgrade(request, self, &self.open_all()?)
    }

    /// Deletes the stanza from the first repository. Commands on it must have been stopped.
    ///
    /// # Errors
    /// A lock is held (50), there is no stop file (55), PostgreSQL is running (38), a command of another host works on
    /// the stanza (50), or something can't be removed.
    pub fn stanza_delete(&self, request: &StanzaDeleteRequest) -> Result<StanzaDeleteSummary> {
        let _lock = self.lock(&LockType::ALL)?;
        stanza::delete(request, self, &self.open_first()?)
    }
}
