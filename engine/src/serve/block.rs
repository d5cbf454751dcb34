//! Filters that work block by block.

use std::io;
use std::sync::Mutex;

use protocol::filter::BlockFilter;
use repo_format::block_map::BlockMap;
use repo_format::cipher::{Cipher, Framing};
use repo_format::compress::Compression;
use repo_format::hash::{BLOCK_CHECKSUM_SIZE_MAX, block_checksum};

use super::Shared;
use super::codecs::{cipher, compression};
use super::memory::{Grown, Growth};
use super::stages::{Convert, Tap};
use crate::pipeline::{BlockLayout, BlockWriter, SuperBlockEncoders};
use crate::work::turn::Turn;
use crate::{Error, ErrorCode, Result};

/// The largest block and super block, in bytes. pgBackRest's largest ones by default are 96 KiB and 1 MiB.
const BLOCK_BYTES_MAX: u64 = 64 << 20;
/// The smallest block, in bytes: the unit of block sizes in manifests. Smaller ones would need more memory for the map
/// than the file has bytes.
const BLOCK_BYTES_MIN: u64 = 8192;
const SUPER_BLOCK_BYTES_MAX: u64 = 256 << 20;
/// A block of a map in memory takes less than this many bytes.
pub(super) const MAP_ENTRY_BYTES: u64 = 80;
/// The smallest stored form of a block in a map.
const MAP_STORED_BYTES: u64 = 5;

/// An estimate of the memory that the filter uses.
pub(super) fn memory_bytes(filter: &BlockFilter<'_>) -> u64 {
    let compression = filter.compression.as_ref().and_then(|filter| compression(filter).ok());
    let map = map_bytes(filter.prior_map);
    let blocks = filter.super_block_size.saturating_add(filter.block_size).saturating_mul(2);
    compression.map_or(0, Compression::memory_bytes_max).saturating_add(map).saturating_add(blocks)
}

/// An estimate of the memory of a map that is decoded.
pub(super) fn map_bytes(stored: Option<&[u8]>) -> u64 {
    stored.map_or(0, |map| map.len() as u64 / MAP_STORED_BYTES * MAP_ENTRY_BYTES)
}

/// Stores the blocks that changed.
pub(super) struct BlockConvert {
    /// None after the end.
    writer: Option<BlockWriter<Box<SuperBlockEncoders>>>,
    map_size: Shared<Option<u64>>,
    block_size: u64,
    /// Bytes of the file so far.
    bytes: u64,
    /// The memory of the map.
    map_growth: Growth,
}

impl BlockConvert {
    /// Returns the filter and where its result will be: the size of the map.
    ///
    /// # Errors
    /// [`ErrorCode::Format`] for sizes out of range and a map that is damaged.
    pub(super) fn new(filter: &BlockFilter<'_>, grown: &Grown) -> Result<(Self, Shared<Option<u64>>)> {
        let (block_size, checksum_size) = sizes(filter.block_size, filter.checksum_size)?;
        check_super_block_size(filter.super_block_size)?;
        let prior = filter.prior_map.map(|map| BlockMap::read(map, block_size, checksum_size)).transpose()?;
        let compression = filter.compression.as_ref().map_or(Ok(Compression::NONE), compression)?;
        let cipher = match &filter.cipher {
            None => Cipher::None,
            Some(filter) => match cipher(filter)? {
                (cipher, Framing::Raw) => cipher,
                (_, Framing::Full) => return Err(invalid("cipher header")),
            },
        };
        let layout = BlockLayout {
            block_size,
            checksum_size,
            super_block_size: filter.super_block_size,
            reference: filter.reference,
            bundle_id: filter.bundle_id,
            offset: filter.bundle_offset,
        };
        let encoders = Box::new(SuperBlockEncoders::new(compression, cipher, &Turn::FREE));
        let map_size = Shared::new(Mutex::new(None));
        let writer = BlockWriter::new(layout, prior, encoders)?;
        let convert = BlockConvert {
            writer: Some(writer),
            map_size: Shared::clone(&map_size),
            block_size: u64::from(block_size),
            bytes: 0,
            map_growth: Growth::new(grown),
        };
        Ok((convert, map_size))
    }
}

impl Convert for BlockConvert {
    fn push(&mut self, data: &[u8], out: &mut Vec<u8>) -> Result<()> {
        self.bytes = self.bytes.saturating_add(data.len() as u64);
        self.map_growth.grow_to((self.bytes / self.block_size).saturating_mul(MAP_ENTRY_BYTES))?;
        self.writer.as_mut().map_or(Ok(()), |writer| writer.push(data, out))
    }

    fn finish(&mut self, out: &mut Vec<u8>) -> Result<()> {
        if let Some(writer) = self.writer.take() {
            let size = writer.finish(out)?;
            *self.map_size.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(size);
        }
        Ok(())
    }
}

fn invalid(what: &str) -> Error {
    Error::new(ErrorCode::Format, format!("{what} of a block filter is not valid"))
}

/// Returns the size of a super block if it is in range.
///
/// # Errors
/// [`ErrorCode::Format`]
pub(super) fn check_super_block_size(size: u64) -> Result<u64> {
    if size > SUPER_BLOCK_BYTES_MAX { Err(invalid("super block size")) } else { Ok(size) }
}

/// Returns the sizes of blocks and checksums if they are in range.
///
/// # Errors
/// [`ErrorCode::Format`]
pub(super) fn sizes(block_size: u64, checksum_size: u64) -> Result<(u32, u8)> {
    let block =
        u32::try_from(block_size).ok().filter(|size| (BLOCK_BYTES_MIN..=BLOCK_BYTES_MAX).contains(&u64::from(*size)));
    let checksum = u8::try_from(checksum_size).ok();
    let checksum = checksum.filter(|size| (1..=BLOCK_CHECKSUM_SIZE_MAX).contains(&usize::from(*size)));
    block.zip(checksum).ok_or_else(|| invalid("block or checksum size"))
}

/// Computes the checksum of each block.
pub(super) struct BlockChecksums {
    block_size: usize,
    checksum_size: usize,
    partial: Vec<u8>,
    checksums: Vec<u8>,
    growth: Growth,
}

impl BlockChecksums {
    /// # Errors
    /// [`ErrorCode::Format`] for sizes out of range.
    pub(super) fn new(block_size: u64, checksum_size: u64, grown: &Grown) -> Result<Self> {
        let (block_size, checksum_size) = sizes(block_size, checksum_size)?;
        Ok(BlockChecksums {
            block_size: block_size as usize,
            checksum_size: usize::from(checksum_size),
            partial: Vec::new(),
            checksums: Vec::new(),
            growth: Growth::new(grown),
        })
    }

    fn block(&mut self) {
        if !self.partial.is_empty() {
            self.checksums.extend_from_slice(&block_checksum(&self.partial)[..self.checksum_size]);
            self.partial.clear();
        }
    }

    /// The checksums, one after the other.
    pub(super) fn result(&mut self) -> Vec<u8> {
        self.block();
        self.checksums.clone()
    }
}

impl Tap for BlockChecksums {
    fn push(&mut self, mut data: &[u8]) -> io::Result<()> {
        let blocks = data.len() / self.block_size + 1;
        // The result is a copy
        self.growth.grow_to(2 * (self.checksums.len() + blocks * self.checksum_size) as u64)?;
        while !data.is_empty() {
            let taken = data.len().min(self.block_size - self.partial.len());
            self.partial.extend_from_slice(&data[..taken]);
            data = &data[taken..];
            if self.partial.len() == self.block_size {
                self.block();
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_of_a_byte_is_refused() {
        let grown = Grown::default();
        for size in [0, 1, 512, BLOCK_BYTES_MIN - 1, BLOCK_BYTES_MAX + 1] {
            assert_eq!(
                BlockChecksums::new(size, 6, &grown).err().map(|error| error.code),
                Some(ErrorCode::Format),
                "{size}"
            );
        }
        assert!(BlockChecksums::new(BLOCK_BYTES_MIN, 6, &grown).is_ok());
        assert!(BlockChecksums::new(96 << 10, 11, &grown).is_ok());
    }

    #[test]
    fn map_of_a_file_without_end_is_refused_before_it_fills_the_memory() {
        let grown = Grown::default();
        let filter = BlockFilter {
            super_block_size: BLOCK_BYTES_MIN,
            block_size: BLOCK_BYTES_MIN,
            checksum_size: 6,
            reference: 0,
            bundle_id: 0,
            bundle_offset: 0,
            prior_map: None,
            compression: None,
            cipher: None,
        };
        let (mut convert, _) = BlockConvert::new(&filter, &grown).unwrap();
        let (block, mut out) = (vec![0; BLOCK_BYTES_MIN as usize], Vec::new());
        convert.push(&block, &mut out).unwrap();
        assert_eq!(grown.bytes(), MAP_ENTRY_BYTES);
        // As if so much had passed
        convert.bytes = 1 << 40;
        assert_eq!(convert.push(&block, &mut out).unwrap_err().code, ErrorCode::Memory);
        drop(convert);
        assert_eq!(grown.bytes(), 0);
    }
}
