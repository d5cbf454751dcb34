//! A claim that is held: renewing it and seeing that it is lost.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use repo_format::cipher::{self, Cipher};
use repo_format::claim::{self, Claim};
use repo_format::label::BackupLabel;
use repo_format::layout::{RepoPath, Stanza};
use rustix::time::{ClockId, clock_gettime};

use super::Timing;
use crate::storage::{self, RepoStorage, WriteOptions};
use crate::{Error, ErrorCode, Result, side_by_side};

/// Renewed too often to be synced: after a crash of the machine nobody misses it.
const RENEWAL: WriteOptions = WriteOptions { atomic: true, sync_file: false, sync_path: false };

/// What the threads of a command know of its claim.
pub(super) struct Lease {
    storage: Arc<dyn RepoStorage>,
    cipher: Cipher,
    path: RepoPath,
    exec_id: String,
    timing: Timing,
    state: Mutex<State>,
    /// When the claim was certainly held, in milliseconds since the boot.
    confirmed_ms: AtomicU64,
    lost: AtomicBool,
}

/// Held while the repository is asked, so that two threads do not renew at once.
struct State {
    claim: Claim,
    /// The claim on the directory of the backup.
    directory: Option<RepoPath>,
}

/// Milliseconds since the boot, those included in which the machine slept.
fn now_ms() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec.cast_unsigned().saturating_mul(1000).saturating_add(now.tv_nsec.cast_unsigned() / 1_000_000)
}

impl Lease {
    pub(super) fn new(
        storage: Arc<dyn RepoStorage>,
        cipher: Cipher,
        path: RepoPath,
        exec_id: String,
        claim: Claim,
        timing: Timing,
    ) -> Self {
        Lease {
            storage,
            cipher,
            path,
            exec_id,
            timing,
            state: Mutex::new(State { claim, directory: None }),
            confirmed_ms: AtomicU64::new(now_ms()),
            lost: AtomicBool::new(false),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is one assignment
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the claim for the first time, or again.
    pub(super) fn put(&self) -> Result<()> {
        let state = self.state();
        self.write(&self.path, &state.claim)
    }

    /// Takes the claim back.
    pub(super) fn remove(&self) -> Result<()> {
        let _state = self.state();
        self.storage.remove(&self.path)
    }

    fn write(&self, path: &RepoPath, claim: &Claim) -> Result<()> {
        let stored = cipher::encrypt(&self.cipher, claim.serialize().as_bytes())?;
        storage::put(&*self.storage, path, &stored, RENEWAL)
    }

    /// Marks the directory of a backup as ours. It is written once: when it is gone, another has taken the directory.
    pub(super) fn mark(&self, stanza: &Stanza, label: &BackupLabel) -> Result<()> {
        let path = claim::backup_claim(stanza, label, &self.exec_id)?;
        let mut state = self.state();
        self.write(&path, &state.claim)?;
        state.directory = Some(path);
        Ok(())
    }

    /// The repository without the guard.
    pub(super) fn storage(&self) -> &dyn RepoStorage {
        &*self.storage
    }

    /// Takes the mark away from a directory that needs none any more.
    pub(super) fn unmark(&self) -> Result<()> {
        let mark = self.state().directory.take();
        mark.map_or(Ok(()), |mark| self.storage.remove(&mark))
    }

    /// Looks whether the claim is still there.
    pub(super) fn check(&self) -> Result<()> {
        let started = now_ms();
        self.look(&self.state())?;
        self.confirmed_ms.store(started, Ordering::SeqCst);
        Ok(())
    }

    fn look(&self, state: &State) -> Result<()> {
        if self.is_lost() {
            return Err(self.lost());
        }
        let paths: Vec<&RepoPath> = [Some(&self.path), state.directory.as_ref()].into_iter().flatten().collect();
        let exist = |path: &&RepoPath| storage::exists(&*self.storage, path);
        let found = side_by_side::each(self.storage.features().remote, &paths, exist)?;
        if found.contains(&false) {
            self.lost.store(true, Ordering::SeqCst);
            return Err(self.lost());
        }
        Ok(())
    }

    /// Looks whether the claim is still there, and shows that its holder lives.
    pub(super) fn renew(&self) -> Result<()> {
        let started = now_ms();
        let mut state = self.state();
        self.look(&state)?;
        state.claim.beat += 1;
        self.write(&self.path, &state.claim)?;
        self.confirmed_ms.store(started, Ordering::SeqCst);
        Ok(())
    }

    /// When the claim was written last, by the clock of the store.
    pub(super) fn renewed_at(&self) -> Result<i64> {
        self.storage.info(&self.path)?.map(|entry| entry.modified).ok_or_else(|| self.lost())
    }

    /// Whether the claim was found lost before.
    pub(super) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::SeqCst)
    }

    /// Makes sure that the claim is held. That costs nothing unless it could not be renewed for long.
    pub(super) fn ensure(&self) -> Result<()> {
        if self.is_lost() {
            return Err(self.lost());
        }
        let age = Duration::from_millis(now_ms().saturating_sub(self.confirmed_ms.load(Ordering::SeqCst)));
        if age < self.timing.trusted() { Ok(()) } else { self.renew() }
    }

    pub(super) fn lost(&self) -> Error {
        Error::new(
            ErrorCode::LockAcquire,
            format!("claim '{}' is lost: another process has taken over", self.storage.display(&self.path)),
        )
        .hint("was this process stopped for a while, or was the repository out of reach?")
        .hint("does another host, or pgBackRest, back up or expire the same stanza?")
    }
}
