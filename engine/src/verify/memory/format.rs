//! The stored form of records.
//!
//! ```text
//! 8 bytes  magic
//! 4 bytes  number of groups, little endian, as all numbers
//! group:   4 bytes  time, in seconds since the epoch
//!          1 byte   0 for good files, 1 for bad ones
//!          4 bytes  number of keys
//!          12 bytes for each key
//! 20 bytes SHA-1 of everything before
//! ```
//!
//! A million files need 12 MB: hashes do not compress.

use std::collections::BTreeMap;

use repo_format::hash::Sha1;

use super::{FileKey, KEY_BYTES, Memory};
use crate::{Error, ErrorCode, Result};

const MAGIC: &[u8; 8] = b"RBRVFY1\n";
/// Bytes of a checksum.
const SUM_BYTES: usize = 20;
/// Bytes before the keys of a group.
const GROUP_BYTES: usize = 9;

/// The largest file that is read, in bytes. It has more than twenty million records.
pub(super) const FILE_BYTES_MAX: u64 = 256 << 20;

/// Writes records.
pub(super) fn encode(records: impl Iterator<Item = (FileKey, u32, bool)>) -> Vec<u8> {
    let mut groups = BTreeMap::<(u32, bool), Vec<FileKey>>::new();
    for (key, time, is_bad) in records {
        groups.entry((time, is_bad)).or_default().push(key);
    }
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes();
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&count(groups.len()));
    for ((time, is_bad), mut keys) in groups {
        keys.sort_unstable();
        bytes.extend_from_slice(&time.to_le_bytes());
        bytes.push(u8::from(is_bad));
        bytes.extend_from_slice(&count(keys.len()));
        keys.iter().for_each(|key| bytes.extend_from_slice(&key.0));
    }
    let sum = Sha1::of(&bytes);
    bytes.extend_from_slice(&sum.0);
    bytes
}

/// Reads records. Those of a time after `now`, in seconds since the epoch, do not count: the clock was wrong.
///
/// # Errors
/// [`ErrorCode::Checksum`] for a damaged file, [`ErrorCode::Format`] for anything that no program writes.
pub(super) fn decode(bytes: &[u8], now: u32, memory: &mut Memory) -> Result<()> {
    let invalid = || Error::new(ErrorCode::Format, "it has another format");
    let end = bytes.len().checked_sub(SUM_BYTES).ok_or_else(invalid)?;
    let (content, sum) = bytes.split_at(end);
    let mut rest = content.strip_prefix(MAGIC).ok_or_else(invalid)?;
    if Sha1::of(content).0 != sum {
        return Err(Error::new(ErrorCode::Checksum, "it is damaged"));
    }
    let groups = number(take::<4>(&mut rest).ok_or_else(invalid)?);
    for _ in 0..groups {
        let head = take::<GROUP_BYTES>(&mut rest).ok_or_else(invalid)?;
        let [t0, t1, t2, t3, is_bad, n0, n1, n2, n3] = head;
        let (time, count) = (number([t0, t1, t2, t3]), number([n0, n1, n2, n3]));
        if is_bad > 1 {
            return Err(invalid());
        }
        for _ in 0..count {
            let key = FileKey(take::<KEY_BYTES>(&mut rest).ok_or_else(invalid)?);
            if time <= now {
                memory.recall(key, time, is_bad == 1);
            }
        }
    }
    if rest.is_empty() { Ok(()) } else { Err(invalid()) }
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
            let records = memory.records.iter().map(|(key, record)| (*key, record.time, record.is_bad));
            let mut again = Memory::default();
            assert!(decode(&encode(records), u32::MAX, &mut again).is_ok());
            assert_eq!(again.records, memory.records);
        }
    }
}
