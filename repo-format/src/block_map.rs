//! Block maps: where the blocks of a file of a block incremental backup are stored.
//!
//! A map has one item per block of the file, in order. The stored form groups items by reference, then by super block,
//! and omits everything that can be derived (source: pgBackRest `src/command/backup/blockMap.c`).

use std::collections::HashMap;
use std::io::{self, BufRead};

use crate::hash::{BLOCK_CHECKSUM_SIZE_MAX, BLOCK_CHECKSUM_SIZE_MIN};
use crate::{Error, ErrorCode, Result};

// Flags of a reference. Two of them have another meaning if the reference occurred in the map before.
const REFERENCE_LAST: u64 = 1;
const REFERENCE_BUNDLE_ID: u64 = 2;
const REFERENCE_CONTINUE: u64 = 2;
const REFERENCE_OFFSET: u64 = 4;
const REFERENCE_CONTINUE_LAST: u64 = 4;
const REFERENCE_SHIFT: u32 = 3;

// Flags of a super block.
const SUPER_BLOCK_LAST: u64 = 1;
const SUPER_BLOCK_CHANGE: u64 = 2;
const SUPER_BLOCK_TOTAL: u64 = 4;
const SUPER_BLOCK_SHIFT: u32 = 3;

/// A super block's size is not a whole number of blocks.
const SIZE_REMAINDER: u64 = 1;
/// A block total is followed by a number of blocks to skip.
const TOTAL_SKIP: u64 = 1;

/// The largest super block that `repo-block-size-super` and `repo-block-size-super-full` allow, if it is a multiple of
/// the block size.
pub const SUPER_BLOCK_SIZE_MAX: u64 = 16 * 1024 * 1024;

/// Limit of consecutive blocks whose checksums are zero. A random checksum is never zero in practice, but a sparse file
/// yields any number of zeros.
const ZERO_CHECKSUMS_MAX: u32 = 16;

/// Bytes of the longest number: ten groups of seven bits hold 64 bits.
const VARINT_BYTES_MAX: usize = 10;

/// Where one block of a file is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockRef {
    /// The backup that contains it, as an index into the manifest's list of references.
    pub reference: u32,
    /// The bundle that holds it, 0 if the file is not in a bundle.
    pub bundle_id: u64,
    /// The offset of the super block in the bundle or file, in bytes.
    pub offset: u64,
    /// The super block's stored size in bytes.
    pub size: u64,
    /// The size of the super block before compression and encryption, in bytes.
    pub super_block_size: u64,
    /// The block's index in the super block.
    pub block: u64,
    /// XXH3-128 in canonical form. Only as many bytes count as the file's checksum size says; the others may be 0.
    pub checksum: [u8; BLOCK_CHECKSUM_SIZE_MAX],
}

/// The blocks of a file, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockMap(pub Vec<BlockRef>);

/// What reader and writer track per reference.
#[derive(Clone, Copy)]
struct ReferenceState {
    super_block_size: u64,
    bundle_id: u64,
    /// Offset of the last super block.
    offset: u64,
    /// Size of the last super block.
    size: u64,
    /// The block of the last super block that would come next.
    block: u64,
}

fn format_error(what: &str) -> Error {
    Error::new(ErrorCode::Format, format!("block map is invalid: {what}"))
}

fn check_sizes(block_size: u32, checksum_size: u8) -> Result<()> {
    if block_size == 0 {
        return Err(format_error("block size is zero"));
    }
    if !(BLOCK_CHECKSUM_SIZE_MIN..=BLOCK_CHECKSUM_SIZE_MAX as u8).contains(&checksum_size) {
        return Err(format_error("checksum size is out of range"));
    }
    Ok(())
}

impl BlockMap {
    /// Reads a map. `block_size` and `checksum_size` are in bytes and come from the manifest.
    ///
    /// Returns a format error (029) for anything that pgBackRest does not write, with a file-read error (042) if the
    /// map ends too early. Memory use is proportional to `data`.
    pub fn read(data: &[u8], block_size: u32, checksum_size: u8) -> Result<Self> {
        Self::read_from(data, block_size, checksum_size, u64::MAX)
    }

    /// Reads the map of a file that has at most `block_total_max` blocks, without holding its stored form in memory.
    /// `input` must end with the map. Errors are those of [`BlockMap::read`] and of the input.
    pub fn read_from(input: impl BufRead, block_size: u32, checksum_size: u8, block_total_max: u64) -> Result<Self> {
        check_sizes(block_size, checksum_size)?;
        let mut reader = MapReader {
            input,
            block_size: u64::from(block_size),
            checksum_size: usize::from(checksum_size),
            block_total_max,
            blocks: Vec::new(),
            zero_checksums: 0,
            references: HashMap::new(),
            size_last: 0,
        };
        if reader.number()? & 1 != 0 {
            return Err(Error::new(ErrorCode::Format, "block map version must be zero"));
        }
        while !reader.group()? {}
        if !reader.input.fill_buf().map_err(read_error)?.is_empty() {
            return Err(format_error("bytes after the last reference"));
        }
        Ok(BlockMap(reader.blocks))
    }

    /// Appends the stored form to `out`. Sizes are in bytes. Returns an assert error (025) if the form cannot represent
    /// the map: it has no blocks, or the super blocks of a reference are not in stored order.
    pub fn write(&self, block_size: u32, checksum_size: u8, out: &mut Vec<u8>) -> Result<()> {
        check_sizes(block_size, checksum_size)?;
        if self.0.is_empty() {
            return Err(Error::new(ErrorCode::Assert, "block map has no blocks"));
        }
        let mut writer = MapWriter {
            out,
            block_size: u64::from(block_size),
            checksum_size: usize::from(checksum_size),
            references: HashMap::new(),
            size_last: 0,
        };
        writer.number(0);
        let mut groups = self.0.chunk_by(|one, next| one.reference == next.reference).peekable();
        while let Some(group) = groups.next() {
            writer.group(group, groups.peek().is_none())?;
        }
        Ok(())
    }
}

struct MapReader<R> {
    input: R,
    block_size: u64,
    checksum_size: usize,
    block_total_max: u64,
    blocks: Vec<BlockRef>,
    /// Number of zero checksums read in a row.
    zero_checksums: u32,
    references: HashMap<u32, ReferenceState>,
    /// The stored size of the last super block, of any reference.
    size_last: u64,
}

fn read_error(error: io::Error) -> Error {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return Error::new(ErrorCode::FileRead, "unexpected eof");
    }
    Error::from_io(ErrorCode::FileRead, "unable to read block map", error)
}

impl<R: BufRead> MapReader<R> {
    fn number(&mut self) -> Result<u64> {
        let mut result = 0u64;
        for index in 0..VARINT_BYTES_MAX {
            let mut byte = [0];
            self.input.read_exact(&mut byte).map_err(read_error)?;
            let [byte] = byte;
            let bits = u64::from(byte & 0x7f);
            let shift = 7 * index as u32;
            if bits << shift >> shift != bits {
                return Err(format_error("a number is too large"));
            }
            result |= bits << shift;
            if byte < 0x80 {
                return Ok(result);
            }
        }
        Err(Error::new(ErrorCode::Format, "unterminated base-128 integer"))
    }

    fn add(one: u64, other: u64) -> Result<u64> {
        one.checked_add(other).ok_or_else(|| format_error("an offset is too large"))
    }

    /// Reads the super blocks of one reference. Returns whether it was the last group.
    fn group(&mut self) -> Result<bool> {
        let encoded = self.number()?;
        let reference =
            u32::try_from(encoded >> REFERENCE_SHIFT).map_err(|_| format_error("a reference is too large"))?;
        let (mut state, mut continued) = match self.references.get(&reference) {
            None => {
                let bundle_id = if encoded & REFERENCE_BUNDLE_ID != 0 { self.number()? } else { 0 };
                let offset = if encoded & REFERENCE_OFFSET != 0 { self.number()? } else { 0 };
                (ReferenceState { super_block_size: self.block_size, bundle_id, offset, size: 0, block: 0 }, false)
            }
            Some(&state) if encoded & REFERENCE_CONTINUE != 0 => (state, true),
            Some(&(mut state)) => {
                state.offset = Self::add(state.offset, state.size)?;
                if encoded & REFERENCE_OFFSET != 0 {
                    state.offset = Self::add(state.offset, self.number()?)?;
                }
                (state, false)
            }
        };
        let mut first = true;
        loop {
            let flags = if continued {
                continued = false;
                SUPER_BLOCK_TOTAL | if encoded & REFERENCE_CONTINUE_LAST != 0 { SUPER_BLOCK_LAST } else { 0 }
            } else {
                self.super_block(&mut state, first)?
            };
            first = false;
            self.size_last = state.size;
            self.blocks(reference, &mut state, flags & SUPER_BLOCK_TOTAL != 0)?;
            if flags & SUPER_BLOCK_LAST != 0 {
                break;
            }
        }
        self.references.insert(reference, state);
        Ok(encoded & REFERENCE_LAST != 0)
    }

    /// Reads the header of a super block that did not occur in the map before. Returns its flags.
    fn super_block(&mut self, state: &mut ReferenceState, first: bool) -> Result<u64> {
        let encoded = self.number()?;
        if !first {
            state.offset = Self::add(state.offset, state.size)?;
        }
        let size = encoded >> SUPER_BLOCK_SHIFT;
        state.size = if self.size_last == 0 {
            size
        } else {
            // Zigzag encoding: the sign is the lowest bit
            let difference = (size >> 1).cast_signed() ^ -(size & 1).cast_signed();
            self.size_last.checked_add_signed(difference).ok_or_else(|| format_error("a size is out of range"))?
        };
        // A super block has at least one byte. A size of zero would also make the next offset equal, which has another
        // meaning.
        if state.size == 0 {
            return Err(format_error("a size is zero"));
        }
        if encoded & SUPER_BLOCK_CHANGE != 0 {
            let encoded = self.number()?;
            let blocks =
                (encoded >> 1).checked_mul(self.block_size).ok_or_else(|| format_error("a size is too large"))?;
            state.super_block_size =
                if encoded & SIZE_REMAINDER != 0 { Self::add(blocks, self.number()?)? } else { blocks };
            if state.super_block_size == 0 {
                return Err(format_error("a super block size is zero"));
            }
            if state.super_block_size > SUPER_BLOCK_SIZE_MAX.max(self.block_size).saturating_add(self.block_size) {
                return Err(format_error("a super block size is too large"));
            }
        }
        state.block = 0;
        Ok(encoded & SUPER_BLOCK_LAST | encoded & SUPER_BLOCK_TOTAL)
    }

    /// Reads the checksums of a super block.
    fn blocks(&mut self, reference: u32, state: &mut ReferenceState, has_total: bool) -> Result<()> {
        let block_max = state.super_block_size.div_ceil(self.block_size);
        let total = if has_total {
            let encoded = self.number()?;
            if encoded & TOTAL_SKIP != 0 {
                state.block = Self::add(state.block, self.number()?)?;
            }
            (encoded >> 1) + 1
        } else {
            block_max
        };
        if Self::add(state.block, total)? > block_max {
            return Err(format_error("a super block has more blocks than its size allows"));
        }
        // Allocate only as the bytes arrive, whatever the map claims
        if total > self.block_total_max.saturating_sub(self.blocks.len() as u64) {
            return Err(format_error("it has more blocks than the file"));
        }
        for _ in 0..total {
            let mut checksum = [0; BLOCK_CHECKSUM_SIZE_MAX];
            self.input.read_exact(&mut checksum[..self.checksum_size]).map_err(read_error)?;
            self.zero_checksums = if checksum == [0; BLOCK_CHECKSUM_SIZE_MAX] { self.zero_checksums + 1 } else { 0 };
            if self.zero_checksums > ZERO_CHECKSUMS_MAX {
                return Err(format_error("checksums are missing"));
            }
            self.blocks.push(BlockRef {
                reference,
                bundle_id: state.bundle_id,
                offset: state.offset,
                size: state.size,
                super_block_size: state.super_block_size,
                block: state.block,
                checksum,
            });
            state.block += 1;
        }
        Ok(())
    }
}

struct MapWriter<'a> {
    out: &'a mut Vec<u8>,
    block_size: u64,
    checksum_size: usize,
    references: HashMap<u32, ReferenceState>,
    size_last: u64,
}

impl MapWriter<'_> {
    fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.out.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.out.push(value as u8);
    }

    fn shifted(value: u64, shift: u32, flags: u64) -> Result<u64> {
        if value << shift >> shift != value {
            return Err(Error::new(ErrorCode::Assert, "block map has a number that is too large"));
        }
        Ok(value << shift | flags)
    }

    fn order_error(block: &BlockRef) -> Error {
        Error::new(
            ErrorCode::Assert,
            format!(
                "block map is not in the order of storage at reference {}, offset {}",
                block.reference, block.offset
            ),
        )
    }

    /// Writes a run of blocks with one reference.
    fn group(&mut self, group: &[BlockRef], last: bool) -> Result<()> {
        let begin = &group[0];
        let flags = if last { REFERENCE_LAST } else { 0 };
        let mut super_blocks = group.chunk_by(|one, next| one.offset == next.offset).peekable();
        let mut state = match self.references.get(&begin.reference) {
            Some(&(mut state)) if begin.offset == state.offset => {
                let first = super_blocks.next().unwrap_or(&[]);
                let only = if super_blocks.peek().is_none() { REFERENCE_CONTINUE_LAST } else { 0 };
                self.number(Self::shifted(
                    u64::from(begin.reference),
                    REFERENCE_SHIFT,
                    flags | REFERENCE_CONTINUE | only,
                )?);
                if begin.size != state.size || begin.super_block_size != state.super_block_size {
                    return Err(Self::order_error(begin));
                }
                self.size_last = state.size;
                self.blocks(first, &mut state, true)?;
                state
            }
            known => {
                let known = known.copied();
                self.begin_reference(begin, known, flags)?
            }
        };
        while let Some(blocks) = super_blocks.next() {
            self.super_block(blocks, &mut state, super_blocks.peek().is_none())?;
        }
        self.references.insert(begin.reference, state);
        Ok(())
    }

    /// Writes where the first super block of a run is, in a repository file that is new or was written up to `known`.
    fn begin_reference(
        &mut self,
        begin: &BlockRef,
        known: Option<ReferenceState>,
        mut flags: u64,
    ) -> Result<ReferenceState> {
        let (bundle_id, gap, state) = match known {
            None => {
                let (bundle_id, offset) = (begin.bundle_id, begin.offset);
                let super_block_size = self.block_size;
                (bundle_id, offset, ReferenceState { super_block_size, bundle_id, offset, size: 0, block: 0 })
            }
            Some(state) => {
                // The reader adds the last super block's size and the gap.
                let next = state.offset.saturating_add(state.size);
                let gap = begin.offset.checked_sub(next).ok_or_else(|| Self::order_error(begin))?;
                (0, gap, ReferenceState { offset: begin.offset, size: 0, ..state })
            }
        };
        flags |= if bundle_id > 0 { REFERENCE_BUNDLE_ID } else { 0 };
        flags |= if gap > 0 { REFERENCE_OFFSET } else { 0 };
        self.number(Self::shifted(u64::from(begin.reference), REFERENCE_SHIFT, flags)?);
        for number in [bundle_id, gap].into_iter().filter(|number| *number > 0) {
            self.number(number);
        }
        Ok(state)
    }

    /// Writes a super block and its blocks.
    fn super_block(&mut self, blocks: &[BlockRef], state: &mut ReferenceState, last: bool) -> Result<()> {
        let block = &blocks[0];
        // Inside a group, and after its continued super block, super blocks are contiguous
        let follows = state.size == 0 || state.offset.checked_add(state.size) == Some(block.offset);
        if !follows || block.size == 0 || block.super_block_size == 0 || block.bundle_id != state.bundle_id {
            return Err(Self::order_error(block));
        }
        let changed = block.super_block_size != state.super_block_size;
        let whole = block.block == 0 && blocks.len() as u64 == block.super_block_size.div_ceil(self.block_size);
        (state.offset, state.size, state.super_block_size, state.block) =
            (block.offset, block.size, block.super_block_size, 0);
        let flags = if last { SUPER_BLOCK_LAST } else { 0 }
            | if changed { SUPER_BLOCK_CHANGE } else { 0 }
            | if whole { 0 } else { SUPER_BLOCK_TOTAL };
        let size = match self.size_last {
            0 => block.size,
            last => {
                let difference = block.size.wrapping_sub(last).cast_signed();
                (difference << 1 ^ difference >> 63).cast_unsigned()
            }
        };
        self.number(Self::shifted(size, SUPER_BLOCK_SHIFT, flags)?);
        if changed {
            let (blocks, remainder) =
                (block.super_block_size / self.block_size, block.super_block_size % self.block_size);
            self.number(Self::shifted(blocks, 1, if remainder > 0 { SIZE_REMAINDER } else { 0 })?);
            if remainder > 0 {
                self.number(remainder);
            }
        }
        self.size_last = block.size;
        self.blocks(blocks, state, !whole)
    }

    /// Writes the checksums of a run of blocks in one super block.
    fn blocks(&mut self, blocks: &[BlockRef], state: &mut ReferenceState, with_total: bool) -> Result<()> {
        let Some(begin) = blocks.first() else { return Ok(()) };
        if with_total {
            let skip = begin.block.checked_sub(state.block).ok_or_else(|| Self::order_error(begin))?;
            self.number((blocks.len() as u64 - 1) << 1 | if skip > 0 { TOTAL_SKIP } else { 0 });
            if skip > 0 {
                self.number(skip);
            }
        }
        state.block = begin.block;
        for block in blocks {
            let same = block.bundle_id == state.bundle_id
                && block.size == state.size
                && block.super_block_size == state.super_block_size
                && block.block == state.block;
            if !same || block.block >= state.super_block_size.div_ceil(self.block_size) {
                return Err(Self::order_error(block));
            }
            self.out.extend_from_slice(&block.checksum[..self.checksum_size]);
            state.block += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
