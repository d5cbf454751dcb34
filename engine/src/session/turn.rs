//! The right to work on the backups of a stanza, over several commands.

use std::time::Duration;

use super::Session;
use crate::backup::{self, BackupPhase, BackupRequest, BackupSummary, Held, PhaseFigures};
use crate::claim::Claim;
use crate::expire::{self, ExpireRequest, ExpireSummary};
use crate::host_locks::HeldLocks;
use crate::lock::LockType;
use crate::repo::Repo;
use crate::{Error, ErrorCode, Result, info};

impl Session {
    /// Takes the lock of the stanza's backups on this host.
    ///
    /// # Errors
    /// [`ErrorCode::LockAcquire`](crate::ErrorCode::LockAcquire) if another process holds it, [`ErrorCode::Stop`](crate::ErrorCode::Stop) if commands were stopped.
    pub fn begin_backup(&self) -> Result<BackupTurn<'_>> {
        let lock = self.lock(&[LockType::Backup])?;
        self.locks.check_stop(Some(&self.stanza))?;
        Ok(BackupTurn { session: self, claim: None, lock, repo: None })
    }
}

/// The right to make a backup of the stanza. It ends when the value is dropped, so that an expire in between excludes
/// others too.
pub struct BackupTurn<'a> {
    session: &'a Session,
    // Dropped before the lock: the claim is removed while no other process of this host looks for it
    claim: Option<Claim>,
    lock: Box<dyn HeldLocks>,
    /// The repository of the last backup.
    repo: Option<Repo>,
}

/// What pgBackRest writes first is the directory of the backup, so its number is that of directories.
fn as_of_first_write(error: Error) -> Error {
    if error.code != ErrorCode::FileOpen || !error.message.contains(" for write") {
        return error;
    }
    Error { code: ErrorCode::PathCreate, ..error }.context("unable to write into the path of the stanza")
}

impl BackupTurn<'_> {
    /// Makes a backup in the first repository of the session. From then on the turn includes a claim on the stanza in
    /// that repository, which keeps other hosts away.
    ///
    /// # Errors
    /// [`ErrorCode::LockAcquire`](crate::ErrorCode::LockAcquire) if another host is working on the stanza, and anything that keeps the backup from
    /// being complete. The next full backup can resume from the files that were copied.
    pub fn run(&mut self, request: &BackupRequest) -> Result<BackupSummary> {
        let session = self.session;
        let repo = self.repo.insert(session.open_first()?);
        // A claim knows what was in the repository when it began, so every backup needs its own
        self.claim = None;
        let who = session.claimant();
        let claim = Claim::acquire(repo, &session.stanza, who, "backup", &session.cancel);
        let claim = self.claim.insert(claim.map_err(as_of_first_write)?);
        let lock = &mut *self.lock;
        let summary = backup::run(request, session, &mut Held { repo, lock, claim })?;
        // What follows may run under the same lock
        self.lock.update_clear(repo.key);
        Ok(summary)
    }

    /// The open repository of the last backup, for what follows it. It is opened again, with a new claim, if its connection
    /// has ended since: the backup is complete, and what follows needs no more than another connection. `None` if that
    /// fails, or before the first backup. The turn then has no claim that is renewed: what follows needs its own.
    pub fn repo(&mut self) -> Option<&Repo> {
        if self.repo.as_ref()?.storage.has_ended()
            && let Err(error) = self.open_again()
        {
            info!("unable to open the repository again after the backup: {error}");
            self.give_up_claim();
            return None;
        }
        self.repo.as_ref()
    }

    /// Leaves a claim that can be neither renewed nor removed, because its connection has ended.
    fn give_up_claim(&mut self) {
        self.claim.take().into_iter().for_each(Claim::leave);
    }

    fn open_again(&mut self) -> Result<()> {
        let Session { stanza, cancel, .. } = self.session;
        let repo = self.session.open_first()?;
        let claim = Claim::acquire(&repo, stanza, self.session.claimant(), "backup", cancel)?;
        // It can't be removed over the old connection, and the new one has its name
        self.give_up_claim();
        self.claim = Some(claim);
        self.repo = Some(repo);
        Ok(())
    }

    /// Keeps how long the phases of a backup of this turn took, for those who watch the repository. Nothing else depends on
    /// it, so a failure is only told.
    pub fn keep_phases(&self, summary: &BackupSummary, expire: Option<Duration>) {
        let (Some(repo), Some(claim)) = (&self.repo, &self.claim) else { return };
        let stanza = &self.session.stanza;
        let mut phases = summary.phases.clone();
        phases.extend(expire.map(|took| PhaseFigures::new(BackupPhase::Expire, took)));
        if let Err(error) = backup::phases::keep(&claim.guard(repo), stanza, &summary.label, &phases) {
            info!("repo{}: the phases of backup {} are not kept: {error}", repo.key, summary.label);
        }
    }

    /// Removes what exceeds the retention of the request, from every repository of the session. A failure in one is
    /// logged and does not affect the others. If none can be reached, the error of the first is that of the command.
    ///
    /// # Errors
    /// [`ErrorCode::OptionInvalid`](crate::ErrorCode::OptionInvalid) for a backup together with the oldest one,
    /// [`ErrorCode::Command`](crate::ErrorCode::Command) if any repository failed, with the first failure as its source,
    /// the error of opening if none can be opened, and the error of the token.
    pub fn expire(&self, request: &ExpireRequest) -> Result<ExpireSummary> {
        let own = self.repo.as_ref().filter(|repo| self.claim.is_some() && !repo.storage.has_ended());
        let claimed: Vec<u32> = own.map(|repo| repo.key).into_iter().chain(self.session.claimed()).collect();
        expire::run(request, self.session, &self.session.open_some()?, &claimed)
    }
}
