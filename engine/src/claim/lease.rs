//! A held claim: its renewal, and the detection of its loss.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use repo_format::cipher::{self, Cipher};
use repo_format::claim::{self, ClaimFile};
use repo_format::label::BackupLabel;
use repo_format::layout::{self, RepoPath, Stanza};
use rustix::time::{ClockId, clock_gettime};

use super::Timing;
use crate::storage::{self, RepoStorage, WriteOptions};
use crate::{Error, ErrorCode, Result};

/// Renewals are too frequent to sync: after a crash of the machine nobody misses one.
const RENEWAL: WriteOptions = WriteOptions { atomic: true, sync_file: false, sync_path: false };

/// The location of a claim.
pub(super) struct ClaimPlace {
    pub(super) storage: Arc<dyn RepoStorage>,
    pub(super) cipher: Cipher,
    pub(super) stanza: Stanza,
    pub(super) path: RepoPath,
}

/// How often a claim is renewed without a pause until the repository counts as too slow.
const RENEWALS_MAX: u32 = 4;

/// What the threads of a command know about its claim.
pub(super) struct Lease {
    place: ClaimPlace,
    exec_id: String,
    timing: Timing,
    state: Mutex<State>,
    /// When the claim was last known to be held, in milliseconds since the boot.
    confirmed_ms: AtomicU64,
    lost: AtomicBool,
    /// Whether there is no claim, because the repository has no space for it.
    unclaimed: bool,
}

/// Held while the repository is asked, so that two threads do not renew at the same time.
struct State {
    claim: ClaimFile,
    /// The claim on the directory of the backup.
    directory: Option<RepoPath>,
}

/// Returns milliseconds since the boot, including the time in which the machine slept.
fn now_ms() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec.cast_unsigned().saturating_mul(1000).saturating_add(now.tv_nsec.cast_unsigned() / 1_000_000)
}

/// Returns the time that has passed since `since_ms`.
fn age(since_ms: u64) -> Duration {
    Duration::from_millis(now_ms().saturating_sub(since_ms))
}

impl Lease {
    pub(super) fn new(place: ClaimPlace, exec_id: String, claim: ClaimFile, timing: Timing) -> Self {
        Lease {
            place,
            exec_id,
            timing,
            state: Mutex::new(State { claim, directory: None }),
            confirmed_ms: AtomicU64::new(now_ms()),
            lost: AtomicBool::new(false),
            unclaimed: false,
        }
    }

    /// Returns a lease without a claim. It is lost once another process has one.
    pub(super) fn unclaimed(self) -> Self {
        Lease { unclaimed: true, ..self }
    }

    /// Whether there is a claim.
    pub(super) fn is_claimed(&self) -> bool {
        !self.unclaimed
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is one assignment
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the claim for the first time, or again.
    pub(super) fn put(&self) -> Result<()> {
        let state = self.state();
        self.write(&self.place.path, &state.claim)
    }

    /// Removes the claim.
    pub(super) fn remove(&self) -> Result<()> {
        let _state = self.state();
        self.place.storage.remove(&self.place.path)
    }

    fn write(&self, path: &RepoPath, claim: &ClaimFile) -> Result<()> {
        let stored = cipher::encrypt(&self.place.cipher, claim.serialize().as_bytes())?;
        storage::put(&*self.place.storage, path, &stored, RENEWAL)
    }

    /// Marks the directory of a backup as ours. The mark is written once: if it is missing, another process has taken
    /// the directory.
    pub(super) fn mark(&self, label: &BackupLabel) -> Result<()> {
        let path = claim::backup_claim(&self.place.stanza, label, &self.exec_id)?;
        let mut state = self.state();
        self.write(&path, &state.claim)?;
        state.directory = Some(path);
        Ok(())
    }

    /// The repository without the guard.
    pub(super) fn storage(&self) -> &dyn RepoStorage {
        &*self.place.storage
    }

    /// Removes the mark from a directory that no longer needs it.
    pub(super) fn unmark(&self) -> Result<()> {
        let mark = self.state().directory.take();
        mark.map_or(Ok(()), |mark| self.place.storage.remove(&mark))
    }

    /// Checks that the claim still exists.
    pub(super) fn check(&self) -> Result<()> {
        let started = now_ms();
        self.look(&self.state())?;
        self.confirmed_ms.store(started, Ordering::SeqCst);
        Ok(())
    }

    fn look(&self, state: &State) -> Result<()> {
        if self.unclaimed {
            return Ok(());
        }
        if self.is_lost() {
            return Err(self.lost());
        }
        let paths: Vec<&RepoPath> = [Some(&self.place.path), state.directory.as_ref()].into_iter().flatten().collect();
        let exist = |path: &&RepoPath| storage::exists(&*self.place.storage, path);
        let found = self.place.storage.concurrency().each(&paths, exist)?;
        if found.contains(&false) {
            self.lost.store(true, Ordering::SeqCst);
            return Err(self.lost());
        }
        Ok(())
    }

    /// Checks that the claim still exists, and shows that its holder is alive.
    pub(super) fn renew(&self) -> Result<()> {
        let started = now_ms();
        let mut state = self.state();
        let confirmed = self.confirmed_ms.load(Ordering::SeqCst);
        self.look(&state)?;
        state.claim.beat += 1;
        self.write(&self.place.path, &state.claim)?;
        // Others may have removed the claim before this write created it again. The rule is the same as for a new
        // claim: a process that sees another's claim gives up
        if age(confirmed.min(started)) >= self.timing.trusted && self.has_other()? {
            self.lost.store(true, Ordering::SeqCst);
            self.place.storage.remove(&self.place.path)?;
            return Err(self.lost());
        }
        self.confirmed_ms.store(started, Ordering::SeqCst);
        Ok(())
    }

    /// Returns the name of the claim's file.
    pub(super) fn file_name(&self) -> &str {
        self.place.path.file_name()
    }

    /// Returns whether another process has a claim on the stanza.
    fn has_other(&self) -> Result<bool> {
        let listing = self.place.storage.list(&layout::backup_stanza(&self.place.stanza))?;
        Ok(listing.is_some_and(|listing| super::has_other(&listing, &self.exec_id)))
    }

    /// Returns when the claim was last written, by the clock of the store.
    pub(super) fn renewed_at(&self) -> Result<i64> {
        if self.unclaimed {
            return Ok(0);
        }
        self.place.storage.info(&self.place.path)?.map(|entry| entry.modified).ok_or_else(|| self.lost())
    }

    /// Returns whether the claim was found lost before.
    pub(super) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::SeqCst)
    }

    /// Checks that the claim is held. Asks the repository only if the claim was not renewed recently.
    pub(super) fn ensure(&self) -> Result<()> {
        if self.unclaimed {
            return self.ensure_alone();
        }
        for _ in 0..RENEWALS_MAX {
            if self.is_lost() {
                return Err(self.lost());
            }
            if self.is_trusted() {
                return Ok(());
            }
            // The process may be stopped during the renewal. Then it has to check again
            self.renew()?;
        }
        Err(Error::new(
            ErrorCode::LockAcquire,
            format!("unable to renew claim '{}' in time", self.place.storage.display(&self.place.path)),
        )
        .hint("does the repository take very long to answer?"))
    }

    /// Checks that nobody else has a claim. What this command has removed may have made room for one.
    fn ensure_alone(&self) -> Result<()> {
        if self.is_lost() {
            return Err(self.lost());
        }
        let started = now_ms();
        if self.is_trusted() {
            return Ok(());
        }
        if self.has_other()? {
            self.lost.store(true, Ordering::SeqCst);
            return Err(self.lost());
        }
        self.confirmed_ms.store(started, Ordering::SeqCst);
        Ok(())
    }

    /// Returns whether the claim was confirmed recently enough, so that nobody is asked.
    pub(super) fn is_trusted(&self) -> bool {
        age(self.confirmed_ms.load(Ordering::SeqCst)) < self.timing.trusted
    }

    pub(super) fn lost(&self) -> Error {
        Error::new(
            ErrorCode::LockAcquire,
            format!("claim '{}' is lost: another process has taken over", self.place.storage.display(&self.place.path)),
        )
        .hint("was this process stopped for a while, or was the repository out of reach?")
        .hint("does another host, or pgBackRest, back up or expire the same stanza?")
    }
}
