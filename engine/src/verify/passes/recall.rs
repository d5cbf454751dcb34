//! Decides for each file of a pass whether it is read, and records the results.

use std::collections::BTreeSet;

use jiff::Timestamp;
use repo_format::label::BackupLabel;
use repo_format::layout::Stanza;

use super::super::VerifyRequest;
use super::super::file::{Checked, FileCheck, FileFault};
use super::super::memory::{
    Cutoff, Decision, EarlierStanding, FileKey, Keeper, Knowledge, Limits, Memory, ReadFigures, Shown, StateMark,
    Survey, Unseen,
};
use super::super::tally::{PendingRecord, VerifyJob};
use crate::{Error, Repo, Result};

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
    /// Backups that hold something bad. Maps that may refer to them are read.
    map_holders: BTreeSet<BackupLabel>,
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
        Ok(Recall { keeper, memory, limits, pass_bytes: 0, has_skipped_maps: false, map_holders: BTreeSet::new() })
    }

    /// Begins a pass that reads files up to here.
    pub fn begin_pass(&mut self, cutoff: Option<Cutoff>) {
        self.limits.cutoff = cutoff;
        self.limits.figures = ReadFigures::default();
        self.pass_bytes = 0;
    }

    /// Begins a pass that reads nothing but the block maps of files that are known to be good, as far as they may refer to
    /// these backups.
    pub fn read_maps(&mut self, holders: BTreeSet<BackupLabel>) {
        self.begin_pass(Some(super::NOTHING));
        self.map_holders = holders;
    }

    fn wants_map(&self, check: &FileCheck) -> bool {
        let is_wanted = |label: &BackupLabel| self.map_holders.contains(label);
        check
            .block
            .as_ref()
            .is_some_and(|block| block.references.iter().any(|label| *label != block.holder && is_wanted(label)))
    }

    /// Why records of earlier runs can't be used.
    pub fn take_faults(&mut self) -> Vec<Error> {
        std::mem::take(&mut self.keeper.faults)
    }

    /// Adds a file to what there is to read.
    pub fn survey(&mut self, survey: &mut Survey, check: &FileCheck, shown: Shown) {
        survey.add(self.look_up(&FileKey::of(check), check, shown), stored_bytes(check, shown), self.limits.fresh_from);
    }

    /// Returns what is known about a file. Nothing tells that one is good whose size contradicts what is expected.
    fn look_up(&mut self, key: &FileKey, check: &FileCheck, shown: Shown) -> Knowledge {
        match self.memory.look_up(key, shown) {
            Knowledge::Earlier { time, standing: EarlierStanding::Open } if contradicts(check, shown) => {
                Knowledge::Earlier { time, standing: EarlierStanding::Suspect }
            }
            known => known,
        }
    }

    /// Decides what happens to a file.
    pub fn next(&mut self, job: &mut VerifyJob, shown: Shown) -> Next {
        let key = FileKey::of(&job.check);
        let known = self.look_up(&key, &job.check, shown);
        let bytes = stored_bytes(&job.check, shown);
        job.record = Some(PendingRecord { key, time: now(), state: shown.state().map(StateMark::of) });
        match self.limits.decide(known, bytes) {
            Decision::Read => {
                self.pass_bytes = self.pass_bytes.saturating_add(bytes);
                Next::Read
            }
            // Without the map, nothing tells whether the file needs what is bad
            Decision::Known(None) if self.wants_map(&job.check) && self.limits.is_over() => Next::Left,
            Decision::Known(None) if self.wants_map(&job.check) => {
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
        let Some(PendingRecord { key, time, state }) = job.record else { return };
        let fault = match result {
            Ok(checked) => checked.fault,
            Err(_) => Some(FileFault::Other),
        };
        // A good map is no proof of the file
        if !job.only_map || fault.is_some() {
            self.memory.record(key, (time, state), fault);
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
    pub fn save_all(&mut self, unseen: Unseen) -> Result<()> {
        self.keeper.save_all(&self.memory, unseen)
    }
}

/// Bytes that are read to check a file.
fn stored_bytes(check: &FileCheck, shown: Shown) -> u64 {
    match shown {
        Shown::Missing => 0,
        Shown::Listed(state) => check.range.limit.map_or(state.size, |limit| limit.min(state.size)),
        Shown::Unknown => check.range.limit.or(check.stored_size).or(check.size).unwrap_or(0),
    }
}

/// Returns whether a file can't be good, because the repository shows a size that it can't have.
fn contradicts(check: &FileCheck, shown: Shown) -> bool {
    let Shown::Listed(state) = shown else { return false };
    match check.range.limit {
        Some(limit) => check.range.offset.saturating_add(limit) > state.size,
        None => check.stored_size.is_some_and(|expected| expected != state.size),
    }
}

/// Seconds since the epoch.
fn now() -> u32 {
    u32::try_from(Timestamp::now().as_second()).unwrap_or(0)
}
