//! gz: a gzip stream, or a zlib stream (RFC 1950) in raw framing.

use std::sync::Arc;

use flate2::{Compress, Compression as Level, Crc, Decompress, FlushCompress, FlushDecompress, Status};

use super::pieces::{EncodePiece, Join};
use super::{DecodeStep, Framing, OUTPUT_STEP_BYTES, reserve_output};
use crate::{Error, ErrorCode, Result};

/// zlib's largest window, which pgBackRest uses.
const WINDOW_BITS: u8 = 15;
/// The level that zlib uses for -1.
const DEFAULT_LEVEL: u32 = 6;

/// A reusable deflate state.
pub(super) struct GzEncoder(Compress);

fn library_level(level: i32) -> Level {
    Level::new(u32::try_from(level).unwrap_or(DEFAULT_LEVEL))
}

impl GzEncoder {
    pub(super) fn new(level: i32, framing: Framing) -> Self {
        let level = library_level(level);
        GzEncoder(match framing {
            Framing::Full => Compress::new_gzip(level, WINDOW_BITS),
            Framing::Raw => Compress::new(level, true),
        })
    }

    pub(super) fn push(&mut self, mut data: &[u8], out: &mut Vec<u8>) -> Result<()> {
        while !data.is_empty() {
            reserve_output(out);
            let before = self.0.total_in();
            self.0.compress_vec(data, out, FlushCompress::None).map_err(compress_error)?;
            // The state cannot consume more than it was given, so the difference fits
            data = &data[(self.0.total_in() - before) as usize..];
        }
        Ok(())
    }

    pub(super) fn finish(&mut self, out: &mut Vec<u8>) -> Result<()> {
        loop {
            reserve_output(out);
            if self.0.compress_vec(&[], out, FlushCompress::Finish).map_err(compress_error)? == Status::StreamEnd {
                break;
            }
        }
        self.reset();
        Ok(())
    }

    pub(super) fn reset(&mut self) {
        self.0.reset();
    }
}

fn compress_error(error: flate2::CompressError) -> Error {
    Error::new(ErrorCode::Format, "zlib threw error: [-2] stream error").cause(error)
}

/// Joins pieces to one gzip stream. Each piece ends on a byte boundary with a flush, and uses the bytes before it as
/// its dictionary.
pub(super) struct GzPieces {
    level: i32,
    content: Crc,
}

impl GzPieces {
    pub(super) fn new(level: i32) -> Self {
        GzPieces { level, content: Crc::new() }
    }
}

/// An empty block that is the last one.
const LAST_BLOCK: [u8; 2] = [0x03, 0x00];

impl Join for GzPieces {
    fn piece_size(&self) -> usize {
        1 << 20
    }

    fn context_size(&self) -> usize {
        1 << WINDOW_BITS
    }

    fn encode(&self) -> EncodePiece {
        let level = library_level(self.level);
        Arc::new(move |context, plain, out| encode_piece(level, context, plain, out))
    }

    fn begin(&mut self, out: &mut Vec<u8>) {
        self.content.reset();
        // What zlib records about the level, and that the system is Unix
        let effort = match self.level {
            9 => 2,
            1 => 4,
            _ => 0,
        };
        out.extend_from_slice(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, effort, 3]);
    }

    fn append(&mut self, plain: &[u8], piece: &[u8], out: &mut Vec<u8>) -> Result<()> {
        self.content.update(plain);
        out.extend_from_slice(piece);
        Ok(())
    }

    fn end(&mut self, out: &mut Vec<u8>) -> Result<()> {
        out.extend_from_slice(&LAST_BLOCK);
        out.extend_from_slice(&self.content.sum().to_le_bytes());
        out.extend_from_slice(&self.content.amount().to_le_bytes());
        Ok(())
    }
}

fn encode_piece(level: Level, context: &[u8], mut plain: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let mut state = Compress::new(level, false);
    if !context.is_empty() {
        state.set_dictionary(context).map_err(compress_error)?;
    }
    // Reserve enough for incompressible data, so that one call suffices and the same piece always yields the same bytes
    out.reserve(plain.len() + plain.len() / 8 + OUTPUT_STEP_BYTES);
    loop {
        reserve_output(out);
        let before = state.total_in();
        state.compress_vec(plain, out, FlushCompress::Sync).map_err(compress_error)?;
        plain = &plain[(state.total_in() - before) as usize..];
        // A full output may mean that there is more of the flush
        if plain.is_empty() && out.len() < out.capacity() {
            return Ok(());
        }
    }
}

/// A reusable inflate state.
pub(super) struct GzDecoder {
    state: Decompress,
    done: bool,
}

impl GzDecoder {
    pub(super) fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::Full => Decompress::new_gzip(WINDOW_BITS),
            Framing::Raw => Decompress::new(true),
        };
        GzDecoder { state, done: false }
    }

    pub(super) fn reset(&mut self) {
        self.state.reset(true);
        self.done = false;
    }

    /// Returns whether the end of the stream was read. As in pgBackRest, what follows it is not read.
    pub(super) fn done(&self) -> bool {
        self.done
    }

    pub(super) fn decode(&mut self, input: &[u8], output: &mut [u8]) -> Result<DecodeStep> {
        let (total_in, total_out) = (self.state.total_in(), self.state.total_out());
        let status = self.state.decompress(input, output, FlushDecompress::None).map_err(|error| {
            if error.needs_dictionary().is_some() {
                Error::new(ErrorCode::Assert, "zlib threw error: [2] need dictionary").cause(error)
            } else {
                Error::new(ErrorCode::Format, "zlib threw error: [-3] data error").cause(error)
            }
        })?;
        self.done = status == Status::StreamEnd;
        Ok(DecodeStep {
            consumed: (self.state.total_in() - total_in) as usize,
            produced: (self.state.total_out() - total_out) as usize,
        })
    }
}
