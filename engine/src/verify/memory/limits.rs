//! Which files a run reads: those that were read longest ago, as far as its limits allow.

use std::collections::BTreeMap;
use std::time::Instant;

use super::{EarlierStanding, Knowledge};
use crate::verify::file::FileFault;

/// Files, and the bytes that are stored for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadAmount {
    /// Files or parts of bundles.
    pub files: u64,
    /// Stored bytes.
    pub bytes: u64,
}

impl ReadAmount {
    fn add(&mut self, bytes: u64) {
        self.files += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

/// What a run has read and what it has not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadFigures {
    /// Read in this run.
    pub read: ReadAmount,
    /// Not read, because they were good when they were last read, and that is not long enough ago.
    pub remembered: ReadAmount,
    /// Good when they were last read. They should be read again, but the limits did not allow it.
    pub due: ReadAmount,
    /// Never read, or nothing tells whether they are still the same. The limits did not allow to read them.
    pub never: ReadAmount,
    /// When the file that was read longest ago was read, in seconds since the epoch. Files that were never read do not
    /// count.
    pub oldest: Option<i64>,
}

/// What to do with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::verify) enum Decision {
    /// Read it.
    Read,
    /// It has this result.
    Known(Option<FileFault>),
    /// Nothing is known about it, and it is not read.
    Left,
}

/// The limits of one pass over the repository, and what was decided.
#[derive(Debug, Default)]
pub(in crate::verify) struct Limits {
    /// Files that were good after this time are not read: seconds since the epoch. `None` reads all.
    pub fresh_from: Option<u32>,
    /// Only files that were read before are read. `None` reads all.
    pub cutoff: Option<Cutoff>,
    /// No file is read after.
    pub deadline: Option<Instant>,
    pub figures: ReadFigures,
}

/// Where a limit in bytes ends the files, which are in the order of the times at which they were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::verify) struct Cutoff {
    /// Seconds since the epoch.
    pub time: u32,
    /// Bytes to read of the files of just this time.
    pub bytes: u64,
}

impl Limits {
    /// Decides what to do with a file of so many stored bytes.
    pub fn decide(&mut self, known: Knowledge, bytes: u64) -> Decision {
        let figures = &mut self.figures;
        let (time, standing) = match known {
            Knowledge::Now(fault) => {
                figures.read.add(bytes);
                return Decision::Known(fault);
            }
            Knowledge::Earlier { time, standing } => (time, standing),
        };
        let is_good = standing == EarlierStanding::Good;
        let is_fresh = is_good && self.fresh_from.is_some_and(|from| time > from);
        if standing == EarlierStanding::Suspect || (!is_fresh && self.has_room(time, bytes)) {
            self.figures.read.add(bytes);
            return Decision::Read;
        }
        if !is_good {
            self.figures.never.add(bytes);
            return Decision::Left;
        }
        let amount = if is_fresh { &mut self.figures.remembered } else { &mut self.figures.due };
        amount.add(bytes);
        let time = i64::from(time);
        self.figures.oldest = Some(self.figures.oldest.map_or(time, |oldest| oldest.min(time)));
        Decision::Known(None)
    }

    /// Returns whether the time is over.
    pub fn is_over(&self) -> bool {
        self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// Returns whether a file may be read, and reserves its bytes. A file may exceed the limit, so that one that is larger
    /// than all limits is read some day.
    fn has_room(&mut self, time: u32, bytes: u64) -> bool {
        if self.is_over() {
            return false;
        }
        match &mut self.cutoff {
            None => true,
            Some(cutoff) if time == cutoff.time && cutoff.bytes > 0 => {
                cutoff.bytes = cutoff.bytes.saturating_sub(bytes);
                true
            }
            Some(cutoff) => time < cutoff.time,
        }
    }
}

/// The bytes to read, by the time when they were last read.
#[derive(Debug, Default)]
pub(in crate::verify) struct Survey(BTreeMap<u32, u64>);

impl Survey {
    /// Adds a file of so many stored bytes.
    pub fn add(&mut self, known: Knowledge, bytes: u64, fresh_from: Option<u32>) {
        let (time, is_good) = match known {
            // No limit keeps it from being read
            Knowledge::Now(_) | Knowledge::Earlier { standing: EarlierStanding::Suspect, .. } => return,
            Knowledge::Earlier { time, standing } => (time, standing == EarlierStanding::Good),
        };
        if !is_good || fresh_from.is_none_or(|from| time <= from) {
            let sum = self.0.entry(time).or_default();
            *sum = sum.saturating_add(bytes);
        }
    }

    /// Takes the oldest files, so many bytes, out of the survey. Returns where they end; `None` if they are all.
    pub fn take(&mut self, bytes: u64) -> Option<Cutoff> {
        let mut left = bytes;
        while let Some(mut entry) = self.0.first_entry() {
            let (time, sum) = (*entry.key(), entry.get_mut());
            if *sum > left {
                *sum -= left;
                return Some(Cutoff { time, bytes: left });
            }
            left -= *sum;
            entry.remove();
        }
        None
    }
}
