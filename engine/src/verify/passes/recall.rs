//! Decides for each file of a pass whether it is read, and records the results.

use jiff::Timestamp;
use repo_format::layout::Stanza;

use super::super::VerifyRequest;
use super::super::file::{Checked, FileCheck, FileFault};
use super::super::memory::{Cutoff, Decision, FileKey, Keeper, Limits, Memory, ReadFigures, StoredState, Survey};
use super::super::tally::{PendingRecord, VerifyJob};
use crate::{Repo, Result};

/// What happens to a file.
pub(super) enum Next {
    Read,
    /// It has this result.
    Known(Option<FileFault>),
    /// Nothing is known about it.
    Left,
}

/// What is remembered, and how much of the rest is read.
pub(super) struct Recall<'a> {
    keeper: Keeper<'a>,
    memory: Memory,
    pub limits: Limits,
    /// Bytes that this pass reads.
    pub pass_bytes: u64,
    /// Whether the block map of some file that is known to be good was not read.
    pub has_skipped_maps: bool,
    reads_maps: bool,
}

impl<'a> Recall<'a> {
    /// Loads what earlier runs remember.
    ///
    /// # Errors
    /// A signal arrived.
    pub fn load(repo: &'a Repo, stanza: &Stanza, request: &VerifyRequest) -> Result<Self> {
        let now = now();
        let (keeper, memory) = Keeper::load(repo, stanza, now)?;
        let age = |age: std::time::Duration| now.saturating_sub(u32::try_from(age.as_secs()).unwrap_or(u32::MAX));
        // A run without limits reads everything
        let limits =
            Limits { fresh_from: request.older_than.filter(|age| !age.is_zero()).map(age), ..Limits::default() };
        Ok(Recall { keeper, memory, limits, pass_bytes: 0, has_skipped_maps: false, reads_maps: false })
    }

    /// Begins a pass that reads files up to here.
    pub fn begin_pass(&mut self, cutoff: Option<Cutoff>) {
        self.limits.cutoff = cutoff;
        self.limits.figures = ReadFigures::default();
        self.pass_bytes = 0;
    }

    /// Begins a pass that reads nothing but the block maps of files that are known to be good.
    pub fn read_maps(&mut self) {
        self.begin_pass(Some(super::NOTHING));
        self.reads_maps = true;
    }

    /// Adds a file to what there is to read.
    pub fn survey(&mut self, survey: &mut Survey, check: &FileCheck, state: Option<StoredState>) {
        let known = self.memory.look_up(&FileKey::of(check, state));
        survey.add(known, stored_bytes(check, state), self.limits.fresh_from);
    }

    /// Decides what happens to a file.
    pub fn next(&mut self, job: &mut VerifyJob, state: Option<StoredState>) -> Next {
        let key = FileKey::of(&job.check, state);
        let known = self.memory.look_up(&key);
        let bytes = stored_bytes(&job.check, state);
        match self.limits.decide(known, bytes) {
            Decision::Read => {
                self.pass_bytes = self.pass_bytes.saturating_add(bytes);
                job.record = Some(PendingRecord { key, time: now(), is_listed: state.is_some() });
                Next::Read
            }
            Decision::Known(None) if job.check.block.is_some() && self.reads_maps => {
                job.only_map = true;
                Next::Read
            }
            Decision::Known(None) => {
                // A file that an earlier pass has read needs its map read again, too
                self.has_skipped_maps |= job.check.block.is_some();
                Next::Known(None)
            }
            Decision::Known(fault) => Next::Known(fault),
            Decision::Left => Next::Left,
        }
    }

    /// Records the result of a file.
    pub fn record(&mut self, job: &VerifyJob, result: &Result<Checked>) {
        let Some(PendingRecord { key, time, is_listed }) = job.record else { return };
        let fault = match result {
            Ok(checked) => checked.fault,
            Err(_) => Some(FileFault::Other),
        };
        // A file that was missing in the listing and appeared since has another key
        if is_listed || fault.is_some() {
            self.memory.record(key, time, fault);
        }
        self.keeper.checkpoint(&self.memory);
    }

    /// Writes the records of this run.
    pub fn save_new(&mut self) {
        self.keeper.save_new(&self.memory);
    }

    /// Writes the records of all files.
    ///
    /// # Errors
    /// The repository can't be written.
    pub fn save_all(&mut self) -> Result<()> {
        self.keeper.save_all(&self.memory)
    }
}

/// Bytes that are read to check a file.
fn stored_bytes(check: &FileCheck, state: Option<StoredState>) -> u64 {
    check.range.limit.or(state.map(|state| state.size)).or(check.size).unwrap_or(0)
}

/// Seconds since the epoch.
fn now() -> u32 {
    u32::try_from(Timestamp::now().as_second()).unwrap_or(0)
}
