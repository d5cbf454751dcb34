//! What verify remembers: which stored files it has read, when, and whether they were good.
//!
//! A record is a hash of everything that the result depends on: the path and range, what the manifest expects, and the
//! size and time that the repository shows. A file that changed in any of these has no record and is read again.
//!
//! Records are in `proof/<stanza>/verified/`, where pgBackRest does not look. Each run writes a file of its own and then
//! removes those that it has read, so that runs of several hosts disturb neither each other nor themselves when they are
//! killed. For a file with several records the newest counts, and a failure counts more than a success of the same second.

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
pub(super) use self::states::{StoredState, StoredStates};
pub(super) use self::store::Keeper;
use super::file::{FileCheck, FileFault};

/// Bytes of a key. More than a million files, two of them have the same key once in 10^16 repositories.
const KEY_BYTES: usize = 12;

/// Identifies a file in a certain state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct FileKey([u8; KEY_BYTES]);

impl FileKey {
    pub fn of(check: &FileCheck, state: Option<StoredState>) -> Self {
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
        add_maybe(state.map(|state| state.size));
        add_maybe(state.map(|state| state.modified.cast_unsigned()));
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

/// The last time that a file was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Record {
    /// Seconds since the epoch.
    time: u32,
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
    /// Nothing, or that it was bad: seconds since the epoch 0. Otherwise it was good at this time.
    Earlier { time: u32, is_bad: bool },
    /// It was read in this run.
    Now(Option<FileFault>),
}

/// What is known about the files of a repository.
#[derive(Debug, Default)]
pub(super) struct Memory {
    records: HashMap<FileKey, Record>,
    /// The faults that were found in this run.
    faults: HashMap<FileKey, FileFault>,
}

impl Memory {
    /// Adds a record of an earlier run. Of several about a file, the newest counts.
    fn recall(&mut self, key: FileKey, time: u32, is_bad: bool) {
        let record = Record { time, is_bad, is_new: false, is_seen: false };
        match self.records.entry(key) {
            Entry::Vacant(entry) => {
                entry.insert(record);
            }
            Entry::Occupied(mut entry) => {
                let known = entry.get_mut();
                if (known.time, known.is_bad) < (time, is_bad) {
                    *known = record;
                }
            }
        }
    }

    /// Returns what is known about a file.
    pub fn look_up(&mut self, key: &FileKey) -> Knowledge {
        let Some(record) = self.records.get_mut(key) else { return Knowledge::Earlier { time: 0, is_bad: false } };
        record.is_seen = true;
        match *record {
            Record { is_new: true, is_bad: true, .. } => {
                Knowledge::Now(Some(self.faults.get(key).copied().unwrap_or(FileFault::Other)))
            }
            Record { is_new: true, .. } => Knowledge::Now(None),
            Record { is_bad: true, .. } => Knowledge::Earlier { time: 0, is_bad: true },
            Record { time, .. } => Knowledge::Earlier { time, is_bad: false },
        }
    }

    /// Records that a file was read in this run.
    pub fn record(&mut self, key: FileKey, time: u32, fault: Option<FileFault>) {
        let record = Record { time, is_bad: fault.is_some(), is_new: true, is_seen: true };
        self.records.insert(key, record);
        if let Some(fault) = fault {
            self.faults.insert(key, fault);
        }
    }

    /// The records that this run made.
    fn new_records(&self) -> impl Iterator<Item = (FileKey, u32, bool)> {
        self.records.iter().filter(|(_, record)| record.is_new).map(|(key, record)| (*key, record.time, record.is_bad))
    }

    /// The records of files that the repository has.
    fn seen_records(&self) -> impl Iterator<Item = (FileKey, u32, bool)> {
        self.records.iter().filter(|(_, record)| record.is_seen).map(|(key, record)| (*key, record.time, record.is_bad))
    }
}

#[cfg(test)]
mod tests;
