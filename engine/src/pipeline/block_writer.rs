//! Block incremental storage of a file: only the blocks that the prior backup's map does not have.
//!
//! Source of the form: pgBackRest `src/command/backup/blockIncr.c`. Changed blocks are gathered, in the order of the
//! file, into super blocks, each an independent compressed and encrypted stream. The block map follows the last one.

use std::ops::DerefMut;
use std::sync::OnceLock;

use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};
use repo_format::Result;
use repo_format::block_map::{BlockMap, BlockRef};
use repo_format::cipher::{Cipher, Encryptor, Framing};
use repo_format::compress::Compression;
use repo_format::hash::{BLOCK_CHECKSUM_SIZE_MAX, block_checksum};

use super::encode::StreamEncoder;
use crate::work::turn::Turn;

/// The threads that encode super blocks in parallel, started with the first call; `None` if the system provides no
/// more.
fn threads() -> Option<&'static ThreadPool> {
    static THREADS: OnceLock<Option<ThreadPool>> = OnceLock::new();
    THREADS.get_or_init(|| ThreadPoolBuilder::new().build().ok()).as_ref()
}

/// The maximum number of super blocks of a file that are encoded at a time, which bounds its memory.
const LANES_MAX: usize = 8;

/// How a file is divided into blocks, and where its bytes go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlockLayout {
    /// Bytes of a block.
    pub(crate) block_size: u32,
    /// Bytes of a checksum in the map.
    pub(crate) checksum_size: u8,
    /// Minimum plain bytes per super block. A multiple of the block size is used.
    pub(crate) super_block_size: u64,
    /// The index of this backup in the list of references.
    pub(crate) reference: u32,
    /// The bundle of the file; 0 for a file on its own.
    pub(crate) bundle_id: u64,
    /// The offset of the first byte in that file.
    pub(crate) offset: u64,
}

/// Encodes super blocks, several at a time while compute slots are free.
pub(crate) struct SuperBlockEncoders {
    compression: Compression,
    cipher: Cipher,
    /// The turn to compute of the thread that gathers the blocks.
    turn: Turn,
    lanes: Vec<Lane>,
}

struct Lane {
    encoder: StreamEncoder,
    plain: Vec<u8>,
    stored: Vec<u8>,
    /// Items of the output map whose blocks are in here.
    items: Vec<usize>,
}

impl SuperBlockEncoders {
    pub(crate) fn new(compression: Compression, cipher: Cipher, turn: &Turn) -> Self {
        SuperBlockEncoders { compression, cipher, turn: turn.clone(), lanes: Vec::new() }
    }

    /// Returns whether super blocks are compressed and encrypted like this.
    pub(crate) fn is_of(&self, compression: Compression, cipher: &Cipher) -> bool {
        self.compression == compression && self.cipher == *cipher
    }

    /// Tells whose turn to compute it is.
    pub(crate) fn compute_in(&mut self, turn: &Turn) {
        self.turn = turn.clone();
    }

    /// Gives the memory of the codecs back.
    pub(crate) fn clear(&mut self) {
        self.lanes.clear();
    }

    /// Ensures that there are this many lanes, and empties all.
    fn prepare(&mut self, count: usize) -> Result<()> {
        while self.lanes.len() < count {
            self.lanes.push(Lane {
                encoder: StreamEncoder::new(self.compression, &self.cipher, Framing::Raw)?,
                plain: Vec::new(),
                stored: Vec::new(),
                items: Vec::new(),
            });
        }
        for lane in &mut self.lanes {
            lane.plain.clear();
            lane.stored.clear();
            lane.items.clear();
        }
        Ok(())
    }
}

impl Lane {
    fn encode(&mut self) -> Result<()> {
        self.stored.clear();
        self.encoder.push(&self.plain, &mut self.stored)?;
        self.encoder.finish(&mut self.stored)
    }
}

/// A file on its way into block incremental form. It borrows or owns its encoders.
pub(crate) struct BlockWriter<E> {
    layout: BlockLayout,
    super_block_size: usize,
    checksum_size: usize,
    encoders: E,
    /// The lane that takes the next block.
    current: usize,
    prior: Option<BlockMap>,
    map: BlockMap,
    /// Bytes of a block that is not complete yet.
    partial: Vec<u8>,
    offset: u64,
    changed: bool,
}

impl<E: DerefMut<Target = SuperBlockEncoders>> BlockWriter<E> {
    /// Begins a file. `prior` is the map of the same file in the prior backup, with equal block and checksum size.
    pub(crate) fn new(layout: BlockLayout, prior: Option<BlockMap>, mut encoders: E) -> Result<Self> {
        encoders.prepare(1)?;
        let blocks = layout.super_block_size.div_ceil(u64::from(layout.block_size)).max(1);
        Ok(BlockWriter {
            super_block_size: blocks as usize * layout.block_size as usize,
            checksum_size: usize::from(layout.checksum_size).min(BLOCK_CHECKSUM_SIZE_MAX),
            encoders,
            current: 0,
            prior,
            map: BlockMap(Vec::new()),
            partial: Vec::new(),
            offset: layout.offset,
            changed: false,
            layout,
        })
    }

    /// Adds plain bytes and appends complete super blocks to `out`.
    pub(crate) fn push(&mut self, mut data: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let size = self.layout.block_size as usize;
        if !self.partial.is_empty() {
            let take = data.len().min(size - self.partial.len());
            self.partial.extend_from_slice(&data[..take]);
            data = &data[take..];
            if self.partial.len() < size {
                return Ok(());
            }
            let block = std::mem::take(&mut self.partial);
            self.block(&block, out)?;
            self.partial = block;
            self.partial.clear();
        }
        let blocks = data.chunks_exact(size);
        self.partial.extend_from_slice(blocks.remainder());
        for block in blocks {
            self.block(block, out)?;
        }
        Ok(())
    }

    /// Ends the file: appends the last super blocks and, if anything is new or the file became shorter, the map.
    /// Returns the map's stored size, 0 for a file that did not change or is empty.
    pub(crate) fn finish(mut self, out: &mut Vec<u8>) -> Result<u64> {
        if !self.partial.is_empty() {
            let block = std::mem::take(&mut self.partial);
            self.block(&block, out)?;
        }
        self.flush(out)?;
        let truncated = self.prior.as_ref().is_some_and(|prior| self.map.0.len() < prior.0.len());
        // There is no map without blocks
        if self.map.0.is_empty() || (!self.changed && !truncated) {
            return Ok(0);
        }
        let mut map = Vec::new();
        self.map.write(self.layout.block_size, self.layout.checksum_size, &mut map)?;
        let begin = out.len();
        // A separate stream; maps are never compressed
        let mut encryptor = Encryptor::new(&self.encoders.cipher, Framing::Raw);
        encryptor.push(&map, out)?;
        encryptor.finish(out)?;
        Ok((out.len() - begin) as u64)
    }

    /// Adds a block. The last block of the file may be short.
    fn block(&mut self, block: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let mut checksum = block_checksum(block);
        // Only the prefix is kept, in memory as in the map
        checksum[self.checksum_size..].fill(0);
        let index = self.map.0.len();
        if let Some(known) = self.prior.as_ref().and_then(|prior| prior.0.get(index))
            && known.checksum[..self.checksum_size] == checksum[..self.checksum_size]
        {
            let known = *known;
            self.map.0.push(known);
            return Ok(());
        }
        self.changed = true;
        let lane = &mut self.encoders.lanes[self.current];
        self.map.0.push(BlockRef {
            reference: self.layout.reference,
            bundle_id: self.layout.bundle_id,
            // The next three are known when the super block is complete
            offset: 0,
            size: 0,
            super_block_size: 0,
            block: lane.items.len() as u64,
            checksum,
        });
        lane.items.push(index);
        lane.plain.extend_from_slice(block);
        if lane.plain.len() >= self.super_block_size {
            self.super_block_complete(out)?;
        }
        Ok(())
    }

    /// Continues in another lane while helpers are available, and otherwise encodes what is there.
    fn super_block_complete(&mut self, out: &mut Vec<u8>) -> Result<()> {
        let filled = self.current + 1;
        let encoders = &mut *self.encoders;
        if filled < LANES_MAX && encoders.turn.borrow(filled).taken() == filled {
            if encoders.lanes.len() == filled {
                encoders.lanes.push(Lane {
                    encoder: StreamEncoder::new(encoders.compression, &encoders.cipher, Framing::Raw)?,
                    plain: Vec::with_capacity(self.super_block_size),
                    stored: Vec::new(),
                    items: Vec::new(),
                });
            }
            self.current = filled;
            return Ok(());
        }
        self.flush(out)
    }

    /// Encodes all gathered super blocks and appends them in order.
    fn flush(&mut self, out: &mut Vec<u8>) -> Result<()> {
        let used = self.current + usize::from(!self.encoders.lanes[self.current].items.is_empty());
        self.current = 0;
        let encoders = &mut *self.encoders;
        let turn = encoders.turn.clone();
        let lanes = &mut encoders.lanes[..used];
        match lanes {
            [] => return Ok(()),
            [lane] => lane.encode()?,
            lanes => {
                let _helpers = turn.borrow(lanes.len() - 1);
                match threads() {
                    Some(threads) => threads.install(|| lanes.par_iter_mut().try_for_each(Lane::encode))?,
                    None => lanes.iter_mut().try_for_each(Lane::encode)?,
                }
            }
        }
        for lane in &mut self.encoders.lanes[..used] {
            for &item in &lane.items {
                let entry = &mut self.map.0[item];
                entry.offset = self.offset;
                entry.size = lane.stored.len() as u64;
                entry.super_block_size = lane.plain.len() as u64;
            }
            self.offset += lane.stored.len() as u64;
            out.extend_from_slice(&lane.stored);
            lane.plain.clear();
            lane.stored.clear();
            lane.items.clear();
        }
        Ok(())
    }
}
