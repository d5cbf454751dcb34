//! The stored form of records.
//!
//! ```text
//! 8 bytes  magic
//! 4 bytes  number of groups, little endian, as all numbers
//! group:   4 bytes  time, in seconds since the epoch
//!          1 byte   0 for good files, 1 for bad ones, 2 for good ones whose size and time were not known
//!          4 bytes  number of files
//!          for each file: 12 bytes key; for kind 0 also 4 bytes size and 4 bytes time
//! 20 bytes SHA-1 of everything before
//! ```
//!
//! A million files need 20 MB: hashes do not compress.

use std::collections::BTreeMap;

use repo_format::hash::Sha1;

use super::{FileKey, KEY_BYTES, Memory, Record, StateMark};
use crate::{Error, ErrorCode, Result};

const MAGIC: &[u8; 8] = b"RBRVFY2\n";
/// Bytes of a checksum.
const SUM_BYTES: usize = 20;
/// Bytes before the keys of a group.
const GROUP_BYTES: usize = 9;

/// The largest file that is read, in bytes. It has more than twelve million records.
pub(super) const FILE_BYTES_MAX: u64 = 256 << 20;

/// Records of all files. They need about 100 bytes of memory each while they are written.
const RECORDS_MAX: usize = 24 << 20;

/// What a group contains.
const GOOD: u8 = 0;
const BAD: u8 = 1;
const GOOD_STATELESS: u8 = 2;

/// Writes records.
pub(super) fn encode(records: impl Iterator<Item = (FileKey, Record)>) -> Vec<u8> {
    let mut groups = BTreeMap::<(u32, u8), Vec<(FileKey, StateMark)>>::new();
    for (key, record) in records {
        let kind = match record.state {
            _ if record.is_bad => BAD,
            Some(_) => GOOD,
            None => GOOD_STATELESS,
        };
        let state = record.state.unwrap_or(StateMark { size: 0, modified: 0 });
        groups.entry((record.time, kind)).or_default().push((key, state));
    }
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes();
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&count(groups.len()));
    for ((time, kind), mut files) in groups {
        files.sort_unstable_by_key(|(key, _)| *key);
        bytes.extend_from_slice(&time.to_le_bytes());
        bytes.push(kind);
        bytes.extend_from_slice(&count(files.len()));
        for (key, state) in files {
            bytes.extend_from_slice(&key.0);
            if kind == GOOD {
                bytes.extend_from_slice(&state.size.to_le_bytes());
                bytes.extend_from_slice(&state.modified.to_le_bytes());
            }
        }
    }
    let sum = Sha1::of(&bytes);
    bytes.extend_from_slice(&sum.0);
    bytes
}

/// Reads records. Those of a time after `now`, in seconds since the epoch, do not count: the clock was wrong.
///
/// # Errors
/// [`ErrorCode::Checksum`] for a damaged file, [`ErrorCode::Format`] for anything that no program writes, and for more
/// records than fit into memory.
pub(super) fn decode(bytes: &[u8], now: u32, memory: &mut Memory) -> Result<()> {
    let end = bytes.len().checked_sub(SUM_BYTES).ok_or_else(invalid)?;
    let (content, sum) = bytes.split_at(end);
    let rest = content.strip_prefix(MAGIC).ok_or_else(invalid)?;
    if Sha1::of(content).0 != sum {
        return Err(Error::new(ErrorCode::Checksum, "it is damaged"));
    }
    read_groups(rest, &mut |key, record| {
        if record.time <= now {
            memory.recall(key, record);
        }
        if memory.records.len() <= RECORDS_MAX {
            return Ok(());
        }
        Err(Error::new(ErrorCode::Format, format!("there are more than {RECORDS_MAX} records")))
    })
}

/// Reads records of bad files from a damaged file, as far as they can be found. One that is none matches no file.
pub(super) fn salvage_bad(bytes: &[u8], now: u32, memory: &mut Memory) {
    let rest = bytes.get(MAGIC.len()..).unwrap_or_default();
    let _ = read_groups(rest, &mut |key, record| {
        if record.is_bad {
            memory.recall(key, Record { time: record.time.min(now), ..record });
        }
        if memory.records.len() <= RECORDS_MAX { Ok(()) } else { Err(invalid()) }
    });
}

/// Reads what follows the magic.
fn read_groups(mut rest: &[u8], add: &mut dyn FnMut(FileKey, Record) -> Result<()>) -> Result<()> {
    let groups = number(take::<4>(&mut rest).ok_or_else(invalid)?);
    for _ in 0..groups {
        let [t0, t1, t2, t3, kind, n0, n1, n2, n3] = take::<GROUP_BYTES>(&mut rest).ok_or_else(invalid)?;
        let (time, count) = (number([t0, t1, t2, t3]), number([n0, n1, n2, n3]));
        if ![GOOD, BAD, GOOD_STATELESS].contains(&kind) {
            return Err(invalid());
        }
        for _ in 0..count {
            let key = FileKey(take::<KEY_BYTES>(&mut rest).ok_or_else(invalid)?);
            let mut mark = || take::<4>(&mut rest).map(number).ok_or_else(invalid);
            let state = if kind == GOOD { Some(StateMark { size: mark()?, modified: mark()? }) } else { None };
            add(key, Record::earlier(time, state, kind == BAD))?;
        }
    }
    if rest.is_empty() { Ok(()) } else { Err(invalid()) }
}

fn invalid() -> Error {
    Error::new(ErrorCode::Format, "it has another format")
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*head)
}

fn number(bytes: [u8; 4]) -> u32 {
    u32::from_le_bytes(bytes)
}

/// For the fuzz targets: records, as they are and with their checksum.
pub(crate) fn verify_records(data: &[u8]) {
    let sum = Sha1::of(data).0;
    for bytes in [data, &[data, &sum].concat()] {
        let mut memory = Memory::default();
        let result = decode(bytes, u32::MAX, &mut memory);
        assert!(memory.records.len() * KEY_BYTES <= bytes.len());
        if result.is_ok() {
            let records = memory.records.iter().map(|(key, record)| (*key, *record));
            let mut again = Memory::default();
            assert!(decode(&encode(records), u32::MAX, &mut again).is_ok());
            assert_eq!(again.records, memory.records);
        }
        let mut salvaged = Memory::default();
        salvage_bad(bytes, u32::MAX, &mut salvaged);
        assert!(salvaged.records.values().all(|record| record.is_bad));
    }
}
