//! bz2: a bzip2 stream. There is no raw form.

use std::sync::Arc;

use bzip2::{Action, Compress, Compression as Level, Decompress, Status};

use super::pieces::{EncodePiece, Join};
use super::{DecodeStep, reserve_output};
use crate::{Error, ErrorCode, Result};

/// Returns how many bytes are certain to fit into one block of a level. The library first shortens runs of equal bytes,
/// which turns four of them into five, and then fills blocks of 100,000 bytes times the level, minus 19.
fn one_block_size(level: u32) -> usize {
    (level as usize * 100_000).saturating_sub(19) / 5 * 4
}

/// A bzip2 encoder. The library's state serves a single stream, so each stream gets a new one.
///
/// The size of a state depends on its level (7.6 MB at level 9), and clearing it is most of the work for a file of one
/// page. The level only determines the block size. So a stream that fits into one block of a lower level is compressed
/// at that level. The encoder holds the beginning of each stream until it knows.
pub(super) struct Bz2Encoder {
    level: u32,
    held: Vec<u8>,
    state: Option<Compress>,
}

impl Bz2Encoder {
    pub(super) fn new(level: i32) -> Self {
        // The level was checked to be 1 to 9.
        Bz2Encoder { level: level.unsigned_abs(), held: Vec::new(), state: None }
    }

    pub(super) fn push(&mut self, data: &[u8], out: &mut Vec<u8>) -> Result<()> {
        if let Some(state) = &mut self.state {
            return run(state, data, out);
        }
        if self.held.len() + data.len() <= one_block_size(self.level - 1) {
            self.held.extend_from_slice(data);
            return Ok(());
        }
        let state = self.state.insert(Compress::new(Level::new(self.level), 0));
        run(state, &self.held, out)?;
        self.held.clear();
        run(state, data, out)
    }

    pub(super) fn finish(&mut self, out: &mut Vec<u8>) -> Result<()> {
        let mut state = match self.state.take() {
            Some(state) => state,
            None => {
                let fits = |&level: &u32| self.held.len() <= one_block_size(level);
                let level = (1..self.level).find(fits).unwrap_or(self.level);
                let mut state = Compress::new(Level::new(level), 0);
                run(&mut state, &self.held, out)?;
                state
            }
        };
        loop {
            reserve_output(out);
            if state.compress_vec(&[], out, Action::Finish).map_err(bz2_error)? == Status::StreamEnd {
                break;
            }
        }
        self.reset();
        Ok(())
    }

    pub(super) fn reset(&mut self) {
        self.held.clear();
        self.state = None;
    }
}

fn run(state: &mut Compress, mut data: &[u8], out: &mut Vec<u8>) -> Result<()> {
    while !data.is_empty() {
        reserve_output(out);
        let before = state.total_in();
        state.compress_vec(data, out, Action::Run).map_err(bz2_error)?;
        // The state cannot consume more than it was given, so the difference fits
        data = &data[(state.total_in() - before) as usize..];
    }
    Ok(())
}

/// Joins pieces to one stream; each piece is a single block. Blocks begin at any bit, so they are shifted into place.
pub(super) struct Bz2Pieces {
    level: i32,
    /// The checksums of all blocks so far.
    checksum: u32,
    /// Bits at the end that do not fill a byte yet, from the highest bit on.
    last: u8,
    last_bits: usize,
}

/// Bytes before the first block: magic and level.
const HEADER_SIZE: usize = 4;
/// Follows the last block. The checksum of the stream follows it: 80 bits in total, then bits that fill the byte.
const END_MAGIC: u128 = 0x1772_4538_5090;
const END_BITS: usize = 80;
/// The position of the first block's checksum: after the header and the block's magic.
const BLOCK_CHECKSUM: std::ops::Range<usize> = 10..14;

impl Bz2Pieces {
    pub(super) fn new(level: i32) -> Self {
        Bz2Pieces { level, checksum: 0, last: 0, last_bits: 0 }
    }

    /// Appends the first `count` bits of `bits`.
    fn append_bits(&mut self, bits: &[u8], count: usize, out: &mut Vec<u8>) {
        let whole = count / 8;
        out.reserve(whole + 1);
        for &byte in &bits[..whole] {
            out.push(self.last | byte >> self.last_bits);
            self.last = ((u16::from(byte) << 8) >> self.last_bits) as u8;
        }
        let rest = count % 8;
        if rest == 0 {
            return;
        }
        let wide = (u16::from(bits[whole] & (0xff00_u16 >> rest) as u8) << 8) >> self.last_bits;
        self.last |= (wide >> 8) as u8;
        self.last_bits += rest;
        if self.last_bits >= 8 {
            out.push(self.last);
            self.last = wide as u8;
            self.last_bits -= 8;
        }
    }
}

/// Returns the checksum of a stream's only block, and how many bits of the stream precede the end of that block.
fn only_block(stream: &[u8]) -> Option<(u32, usize)> {
    let checksum = u32::from_be_bytes(stream.get(BLOCK_CHECKSUM)?.try_into().ok()?);
    // With one block, its checksum is also that of the stream
    let end = END_MAGIC << 32 | u128::from(checksum);
    let tail = stream.last_chunk::<16>().map(|tail| u128::from_be_bytes(*tail))?;
    let fill = (0..8).find(|fill| tail >> fill & ((1 << END_BITS) - 1) == end)?;
    Some((checksum, stream.len() * 8 - fill - END_BITS))
}

impl Join for Bz2Pieces {
    fn piece_size(&self) -> usize {
        one_block_size(self.level.unsigned_abs())
    }

    fn context_size(&self) -> usize {
        0
    }

    fn encode(&self) -> EncodePiece {
        let level = self.level;
        Arc::new(move |_context, plain, stream| {
            let mut encoder = Bz2Encoder::new(level);
            encoder.push(plain, stream)?;
            encoder.finish(stream)
        })
    }

    fn begin(&mut self, out: &mut Vec<u8>) {
        *self = Self::new(self.level);
        out.extend_from_slice(format!("BZh{}", self.level).as_bytes());
    }

    fn append(&mut self, _plain: &[u8], piece: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let block = only_block(piece).ok_or_else(|| Error::new(ErrorCode::Assert, "bz2 stream of more than one block"));
        let (checksum, end) = block?;
        self.append_bits(&piece[HEADER_SIZE..], end - HEADER_SIZE * 8, out);
        self.checksum = self.checksum.rotate_left(1) ^ checksum;
        Ok(())
    }

    fn end(&mut self, out: &mut Vec<u8>) -> Result<()> {
        let end = (END_MAGIC << 32 | u128::from(self.checksum)).to_be_bytes();
        self.append_bits(&end[end.len() - END_BITS / 8..], END_BITS, out);
        if self.last_bits > 0 {
            out.push(self.last);
        }
        Ok(())
    }
}

/// Converts a library error to pgBackRest's message and code.
fn bz2_error(error: bzip2::Error) -> Error {
    let (code, text) = match error {
        bzip2::Error::Data => (ErrorCode::Format, "[-4] data error"),
        bzip2::Error::DataMagic => (ErrorCode::Format, "[-5] data error magic"),
        bzip2::Error::Sequence => (ErrorCode::Assert, "[-1] sequence error"),
        bzip2::Error::Param => (ErrorCode::Assert, "[-2] parameter error"),
    };
    Error::new(code, format!("bz2 error: {text}")).cause(error)
}

/// A bzip2 decoder.
pub(super) struct Bz2Decoder {
    state: Decompress,
    used: bool,
    done: bool,
}

impl Bz2Decoder {
    pub(super) fn new() -> Self {
        Bz2Decoder { state: Decompress::new(false), used: false, done: false }
    }

    pub(super) fn reset(&mut self) {
        // The library can't reset a state.
        if self.used {
            *self = Self::new();
        }
    }

    /// Returns whether the end of the stream was read. As in pgBackRest, what follows it is not read.
    pub(super) fn done(&self) -> bool {
        self.done
    }

    pub(super) fn decode(&mut self, input: &[u8], output: &mut [u8]) -> Result<DecodeStep> {
        self.used = true;
        let (total_in, total_out) = (self.state.total_in(), self.state.total_out());
        self.done = self.state.decompress(input, output).map_err(bz2_error)? == Status::StreamEnd;
        Ok(DecodeStep {
            consumed: (self.state.total_in() - total_in) as usize,
            produced: (self.state.total_out() - total_out) as usize,
        })
    }
}
