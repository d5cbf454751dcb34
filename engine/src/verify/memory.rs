//! What verify remembers: which stored files it has read, when, and whether they were good.
//!
//! A record belongs to a hash of everything that is expected of a file: the path and range, and what the manifest says. It
//! has the size and time that the repository showed. A good file that shows another time counts as never read. One that is
//! missing or shows another size is suspect, as one that was bad is, and no limit keeps it from being read.
//!
//! Records are in `proof/<stanza>/verified/`, where pgBackRest does not look. Each run writes files of its own and then
//! removes those that it has read, so that runs of several hosts disturb neither each other nor themselves when they are
//! killed. For a file with several records the newest counts. A failure counts more than a success of about the same time.

mod format;
mod limits;
mod states;
mod store;

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use repo_format::hash::Sha1;

pub(crate) use self::format::verify_records;
pub(super) use self::limits::{Cutoff, Decision, Limits, Survey};
pub use self::limits::{ReadAmount, ReadFigures};
pub(super) use self::states::{Shown, StoredState, StoredStates};
pub(super) use self::store::{Keeper, Unseen};
use super::file::{FileCheck, FileFault};

/// Bytes of a key. More than a million files, two of them have the same key once in 10^16 repositories.
const KEY_BYTES: usize = 12;

/// A clock of another host may be ahead by so many seconds.
const CLOCK_AHEAD_MAX: u32 = 300;

/// Identifies a file and what is expected of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct FileKey([u8; KEY_BYTES]);

impl FileKey {
    pub fn of(check: &FileCheck) -> Self {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(check.path.as_str().as_bytes());
        bytes.push(0);
        let mut add = |number: u64| bytes.extend_from_slice(&number.to_le_bytes());
        let mut add_maybe = |number: Option<u64>| {
            add(u64::from(number.is_some()));
            add(number.unwrap_or(0));
        };
        add_maybe(Some(check.range.offset));
        add_maybe(check.range.limit);
        add_maybe(check.size);
        let block = check.block.as_ref();
        add_maybe(block.map(|block| block.file_size));
        add_maybe(block.map(|block| block.block.map_size));
        add_maybe(block.map(|block| u64::from(block.block.size)));
        add_maybe(block.map(|block| u64::from(block.block.checksum_size)));
        bytes.extend_from_slice(&check.checksum.0);
        let mut key = [0; KEY_BYTES];
        let hash = Sha1::of(&bytes).0;
        key.copy_from_slice(&hash[..KEY_BYTES]);
        FileKey(key)
    }
}

/// The size and time of a file, shortened. Files below 4 GiB differ if their sizes do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StateMark {
    size: u32,
    modified: u32,
}

impl StateMark {
    pub fn of(state: StoredState) -> Self {
        let mixed = |number: u64| number ^ (number >> 32).wrapping_mul(0x9E37_79B1);
        let fold = |number: u64| u32::try_from(mixed(number) & u64::from(u32::MAX)).unwrap_or(0);
        StateMark { size: fold(state.size), modified: fold(state.modified.cast_unsigned()) }
    }
}

/// The last time that a file was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Record {
    /// Seconds since the epoch.
    time: u32,
    /// What the repository showed of it; `None` if that was not known.
    state: Option<StateMark>,
    /// Whether it was bad, or could not be read.
    is_bad: bool,
    /// Whether it was read in this run.
    is_new: bool,
    /// Whether the repository still has it.
    is_seen: bool,
}

/// What is known about a file without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Knowledge {
    /// What earlier runs tell, and when it was read, in seconds since the epoch: 0 if that does not count.
    Earlier { time: u32, standing: EarlierStanding },
    /// It was read in this run.
    Now(Option<FileFault>),
}

/// What earlier runs tell about a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EarlierStanding {
    /// It was good, and the repository shows the same size and time.
    Good,
    /// It was bad, or it is missing or has a size that it can't have.
    Suspect,
    /// Nothing that counts.
    Open,
}

/// What is known about the files of a repository.
#[derive(Debug)]
pub(super) struct Memory {
    records: HashMap<FileKey, Record>,
    /// The faults that were found in this run.
    faults: HashMap<FileKey, FileFault>,
    /// Whether all records of bad files are known. Otherwise a file that was good earlier may have been bad since.
    is_complete: bool,
}

impl Default for Memory {
    fn default() -> Self {
        Memory { records: HashMap::new(), faults: HashMap::new(), is_complete: true }
    }
}

impl Memory {
    /// Adds a record of an earlier run.
    fn recall(&mut self, key: FileKey, record: Record) {
        match self.records.entry(key) {
            Entry::Vacant(entry) => {
                entry.insert(record);
            }
            Entry::Occupied(mut entry) => {
                if record.counts_more_than(entry.get()) {
                    entry.insert(record);
                }
            }
        }
    }

    /// Forgets what was good, because records of bad files are lost.
    fn forget_good(&mut self) {
        self.records.retain(|_, record| record.is_bad);
    }

    /// Returns what is known about a file of which the repository shows this.
    pub fn look_up(&mut self, key: &FileKey, shown: Shown) -> Knowledge {
        let Some(record) = self.records.get_mut(key) else {
            let standing = if shown == Shown::Missing { EarlierStanding::Suspect } else { EarlierStanding::Open };
            return Knowledge::Earlier { time: 0, standing };
        };
        record.is_seen = true;
        if record.is_new {
            let fault = || self.faults.get(key).copied().unwrap_or(FileFault::Other);
            return Knowledge::Now(record.is_bad.then(fault));
        }
        let (time, standing) = record.standing(shown);
        match standing {
            EarlierStanding::Good if !self.is_complete => Knowledge::Earlier { time, standing: EarlierStanding::Open },
            standing => Knowledge::Earlier { time, standing },
        }
    }

    /// Records that a file was read in this run. `state` is what the repository showed of it.
    pub fn record(&mut self, key: FileKey, (time, state): (u32, Option<StateMark>), fault: Option<FileFault>) {
        let record = Record { time, state, is_bad: fault.is_some(), is_new: true, is_seen: true };
        self.records.insert(key, record);
        if let Some(fault) = fault {
            self.faults.insert(key, fault);
        }
    }

    /// The records that a predicate wants.
    fn records_of(&self, is_wanted: impl Fn(&Record) -> bool) -> impl Iterator<Item = (FileKey, Record)> {
        self.records.iter().filter(move |(_, record)| is_wanted(record)).map(|(key, record)| (*key, *record))
    }
}

impl Record {
    fn earlier(time: u32, state: Option<StateMark>, is_bad: bool) -> Self {
        Record { time, state, is_bad, is_new: false, is_seen: false }
    }

    /// A clock may be ahead, so a success that seems to be a little newer than a failure does not count.
    fn counts_more_than(&self, other: &Record) -> bool {
        if self.is_bad != other.is_bad && self.time.abs_diff(other.time) <= CLOCK_AHEAD_MAX {
            return self.is_bad;
        }
        self.time > other.time
    }

    fn standing(&self, shown: Shown) -> (u32, EarlierStanding) {
        if self.is_bad {
            return (0, EarlierStanding::Suspect);
        }
        let now = match shown {
            Shown::Missing => return (0, EarlierStanding::Suspect),
            // It takes its turn, but nothing tells whether it is still the same
            Shown::Unknown => return (self.time, EarlierStanding::Open),
            Shown::Listed(state) => StateMark::of(state),
        };
        match self.state {
            None => (self.time, EarlierStanding::Open),
            Some(then) if then == now => (self.time, EarlierStanding::Good),
            Some(then) if then.size != now.size => (0, EarlierStanding::Suspect),
            Some(_) => (0, EarlierStanding::Open),
        }
    }
}

#[cfg(test)]
mod tests;
