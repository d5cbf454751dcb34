//! Compression of repository files: gz, bz2, lz4 and zst, as streams that pgBackRest reads and writes.
//!
//! Source of the formats: pgBackRest `src/common/compress`. The exact compressed bytes are not part of the format, but
//! the properties of the frames are (no content size, no zst checksum, linked lz4 blocks of 64 KiB, ...).

mod bz2;
mod gz;
mod kind;
mod lz4;
mod pieces;
mod windows;
mod zst;

use std::fmt;
use std::io::{self, Read};

pub use self::kind::{CompressType, EXTENSIONS};
pub use self::windows::{WINDOW_FREE_BYTES, WaitAround, Windows};
pub use crate::cipher::Framing;
use crate::{Error, ErrorCode, Result};

/// A type and its level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compression {
    /// The type.
    pub kind: CompressType,
    /// The level, within [`CompressType::level_range`].
    pub level: i32,
}

impl Default for Compression {
    /// gz at its default level.
    fn default() -> Self {
        let kind = CompressType::default();
        Compression { kind, level: kind.default_level() }
    }
}

impl Compression {
    /// Not compressed.
    pub const NONE: Compression = Compression { kind: CompressType::None, level: 0 };

    /// Creates a type with a level, or with its default level for `None`. Returns an option-invalid-value error (032)
    /// if the level is out of range.
    pub fn new(kind: CompressType, level: Option<i32>) -> Result<Self> {
        let level = level.unwrap_or(kind.default_level());
        // The level has no meaning without compression, so any is accepted
        if kind != CompressType::None && !kind.level_range().contains(&level) {
            return Err(Error::new(
                ErrorCode::OptionInvalidValue,
                format!("'{level}' is out of range for 'compress-level' option when 'compress-type' option = '{kind}'"),
            ));
        }
        Ok(Compression { kind, level })
    }

    /// Returns whether [`Compressor::parallel`] uses several threads.
    pub fn gains_from_threads(self) -> bool {
        match self.kind {
            CompressType::None => false,
            CompressType::Zst => self.level <= zst::PARALLEL_LEVEL_MAX,
            CompressType::Bz2 | CompressType::Gz | CompressType::Lz4 => true,
        }
    }

    /// An upper bound of the memory in bytes that one [`Compressor`] uses besides its output, for jobs that reserve
    /// memory before they begin. The values are measured, not promised by the libraries. The highest zst levels need
    /// far more than the others.
    pub fn memory_bytes_max(self) -> u64 {
        const MIB: u64 = 1024 * 1024;
        match (self.kind, self.level) {
            (CompressType::None, _) => 0,
            (CompressType::Gz | CompressType::Lz4, _) => MIB,
            // About eight times the block size, which is 100,000 bytes times the level
            (CompressType::Bz2, _) => 8 * MIB,
            (CompressType::Zst, ..=4) => 6 * MIB,
            (CompressType::Zst, ..=9) => 16 * MIB,
            (CompressType::Zst, ..=18) => 72 * MIB,
            (CompressType::Zst, 19) => 96 * MIB,
            (CompressType::Zst, 20) => 208 * MIB,
            (CompressType::Zst, 21) => 400 * MIB,
            (CompressType::Zst, _) => 864 * MIB,
        }
    }
}

/// What one step of a decoder consumed and produced, in bytes.
struct DecodeStep {
    consumed: usize,
    produced: usize,
}

/// Minimum free space in a compressor's output for one step.
const OUTPUT_STEP_BYTES: usize = 16 * 1024;

/// Makes room for one step of a library that writes only into spare capacity.
fn reserve_output(out: &mut Vec<u8>) {
    // `reserve` doubles the capacity when it grows, so a large output needs few copies
    if out.capacity() - out.len() < OUTPUT_STEP_BYTES / 4 {
        out.reserve(OUTPUT_STEP_BYTES);
    }
}

/// Compresses consecutive streams and keeps its contexts, because a backup has a million small files.
pub struct Compressor(Encoder);

enum Encoder {
    None,
    Bz2(bz2::Bz2Encoder),
    Gz(gz::GzEncoder),
    Lz4(lz4::Lz4Encoder),
    Zst(zst::ZstEncoder),
    Pieces(pieces::PieceEncoder),
}

impl Compressor {
    /// Creates a compressor. Without compression it passes bytes unchanged. Returns a memory error (094) if its context
    /// cannot be allocated.
    pub fn new(compression: Compression, framing: Framing) -> Result<Self> {
        let Compression { kind, level } = Compression::new(compression.kind, Some(compression.level))?;
        Ok(Compressor(match kind {
            CompressType::None => Encoder::None,
            CompressType::Bz2 => Encoder::Bz2(bz2::Bz2Encoder::new(level)),
            CompressType::Gz => Encoder::Gz(gz::GzEncoder::new(level, framing)),
            CompressType::Lz4 => Encoder::Lz4(lz4::Lz4Encoder::new(level, framing)),
            CompressType::Zst => Encoder::Zst(zst::ZstEncoder::new(level)?),
        }))
    }

    /// Creates a compressor of full streams that uses several threads, if the type and level gain from them. Readers
    /// cannot tell the difference. It uses some MiB per thread in addition to the memory of that many compressors.
    /// Returns a memory error (094) or a kernel error (120) if memory or threads are not available.
    pub fn parallel(compression: Compression, threads: usize) -> Result<Self> {
        let Compression { kind, level } = Compression::new(compression.kind, Some(compression.level))?;
        let join: Box<dyn pieces::Join> = match kind {
            _ if threads <= 1 || !compression.gains_from_threads() => return Self::new(compression, Framing::Full),
            CompressType::Zst if level <= zst::FRAMES_LEVEL_MAX => Box::new(zst::ZstPieces::new(level)),
            CompressType::Zst => {
                return Ok(Compressor(Encoder::Zst(zst::ZstEncoder::parallel(level, threads)?)));
            }
            CompressType::None => return Self::new(compression, Framing::Full),
            CompressType::Bz2 => Box::new(bz2::Bz2Pieces::new(level)),
            CompressType::Gz => Box::new(gz::GzPieces::new(level)),
            CompressType::Lz4 => Box::new(lz4::Lz4Pieces::new(level)),
        };
        Ok(Compressor(Encoder::Pieces(pieces::PieceEncoder::new(join, threads)?)))
    }

    /// Adds plain bytes and appends to `out` what is compressed so far, which may be nothing.
    pub fn push(&mut self, data: &[u8], out: &mut Vec<u8>) -> Result<()> {
        match &mut self.0 {
            Encoder::None => {
                out.extend_from_slice(data);
                Ok(())
            }
            Encoder::Bz2(encoder) => encoder.push(data, out),
            Encoder::Gz(encoder) => encoder.push(data, out),
            Encoder::Lz4(encoder) => encoder.push(data, out),
            Encoder::Zst(encoder) => encoder.push(data, out),
            Encoder::Pieces(encoder) => encoder.push(data, out),
        }
    }

    /// Ends the stream and appends the rest of it to `out`. The next `push` begins a new stream. An empty stream
    /// consists of header and trailer.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Result<()> {
        match &mut self.0 {
            Encoder::None => Ok(()),
            Encoder::Bz2(encoder) => encoder.finish(out),
            Encoder::Gz(encoder) => encoder.finish(out),
            Encoder::Lz4(encoder) => encoder.finish(out),
            Encoder::Zst(encoder) => encoder.finish(out),
            Encoder::Pieces(encoder) => encoder.finish(out),
        }
    }

    /// Abandons the current stream, so that the next `push` begins a new one.
    pub fn reset(&mut self) -> Result<()> {
        match &mut self.0 {
            Encoder::None => {}
            Encoder::Bz2(encoder) => encoder.reset(),
            Encoder::Gz(encoder) => encoder.reset(),
            Encoder::Lz4(encoder) => encoder.reset(),
            Encoder::Zst(encoder) => encoder.reset()?,
            Encoder::Pieces(encoder) => encoder.reset(),
        }
        Ok(())
    }
}

impl fmt::Debug for Compressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Compressor")
    }
}

/// Compressed bytes that a [`Decompressor`] reads at a time.
const DECOMPRESS_BUFFER_BYTES: usize = 64 * 1024;

/// The contexts and the buffer of a [`Decompressor`], reusable for consecutive streams.
pub struct DecompressContext {
    decoder: Decoder,
    buffer: Box<[u8]>,
}

enum Decoder {
    None,
    // The library states of bz2 and gz are pointers; those of lz4 and zst are boxed or nearly as small
    Bz2(bz2::Bz2Decoder),
    Gz(gz::GzDecoder),
    Lz4(Box<lz4::Lz4Decoder>),
    Zst(zst::ZstDecoder),
}

impl DecompressContext {
    /// Creates a context. Returns a memory error (094) if it cannot be allocated.
    pub fn new(kind: CompressType, framing: Framing) -> Result<Self> {
        Self::with_windows(kind, framing, None)
    }

    /// Creates a context that shares the memory for large windows with other contexts, and waits for it inside `around`.
    /// Returns the same errors as [`DecompressContext::new`].
    pub fn sharing(
        kind: CompressType,
        framing: Framing,
        windows: &'static Windows,
        around: WaitAround,
    ) -> Result<Self> {
        Self::with_windows(kind, framing, Some((windows, around)))
    }

    fn with_windows(
        kind: CompressType,
        framing: Framing,
        windows: Option<(&'static Windows, WaitAround)>,
    ) -> Result<Self> {
        let decoder = match kind {
            CompressType::None => Decoder::None,
            CompressType::Bz2 => Decoder::Bz2(bz2::Bz2Decoder::new()),
            CompressType::Gz => Decoder::Gz(gz::GzDecoder::new(framing)),
            CompressType::Lz4 => Decoder::Lz4(Box::new(lz4::Lz4Decoder::new())),
            CompressType::Zst => Decoder::Zst(zst::ZstDecoder::new(windows)?),
        };
        let size = if kind == CompressType::None { 0 } else { DECOMPRESS_BUFFER_BYTES };
        Ok(DecompressContext { decoder, buffer: vec![0; size].into_boxed_slice() })
    }

    fn reset(&mut self) -> Result<()> {
        match &mut self.decoder {
            Decoder::None => {}
            Decoder::Bz2(decoder) => decoder.reset(),
            Decoder::Gz(decoder) => decoder.reset(),
            Decoder::Lz4(decoder) => decoder.reset(),
            Decoder::Zst(decoder) => decoder.reset()?,
        }
        Ok(())
    }
}

impl fmt::Debug for DecompressContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DecompressContext")
    }
}

/// Decompresses a stream while it is read.
///
/// Errors are inside an `io::Error`, which [`Error::from_io`] unwraps: a format error (029) for damaged data and for a
/// stream that ends too early. As in pgBackRest, bytes after the end of a gz or bz2 stream are ignored, while lz4 and
/// zst streams may have several frames and anything else after a frame is an error.
pub struct Decompressor<R> {
    context: DecompressContext,
    reader: R,
    /// Unused compressed bytes: `buffer[start..end]`.
    start: usize,
    end: usize,
    reader_done: bool,
}

impl<R: Read> Decompressor<R> {
    /// Creates a decompressor of what `reader` returns. Returns a memory error (094) if its context cannot be
    /// allocated.
    pub fn new(kind: CompressType, framing: Framing, reader: R) -> Result<Self> {
        Ok(Self::start(DecompressContext::new(kind, framing)?, reader))
    }

    /// A decompressor with the context of an earlier one ([`Decompressor::into_context`]).
    pub fn with_context(context: DecompressContext, reader: R) -> Self {
        Self::start(context, reader)
    }

    fn start(context: DecompressContext, reader: R) -> Self {
        Decompressor { context, reader, start: 0, end: 0, reader_done: false }
    }

    /// Declares that at most this many bytes of the stream are read, so that it need not wait for a large window.
    #[must_use]
    pub fn reading_at_most(mut self, bytes: u64) -> Self {
        if let Decoder::Zst(decoder) = &mut self.context.decoder {
            decoder.limit(bytes);
        }
        self
    }

    /// Returns the context for the next stream, and releases the memory of a large window. Returns a memory error (094)
    /// if a new context cannot be allocated.
    pub fn into_context(mut self) -> Result<DecompressContext> {
        self.context.reset()?;
        Ok(self.context)
    }

    /// Returns the reader. The decompressor may have read past the end of the stream.
    pub fn get_ref(&self) -> &R {
        &self.reader
    }

    /// Ends here and returns the reader. The decompressor may have read past the end of the stream.
    pub fn into_inner(self) -> R {
        self.reader
    }
}

impl<R: Read> Read for Decompressor<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if let Decoder::None = self.context.decoder {
            return self.reader.read(out);
        }
        if out.is_empty() {
            return Ok(0);
        }
        loop {
            if self.start == self.end && !self.reader_done && !self.context.decoder.ended() {
                self.end = self.reader.read(&mut self.context.buffer)?;
                self.start = 0;
                self.reader_done = self.end == 0;
            }
            let input = &self.context.buffer[self.start..self.end];
            let progress = self.context.decoder.decode(input, out)?;
            self.start += progress.consumed;
            if progress.produced > 0 {
                return Ok(progress.produced);
            }
            if self.context.decoder.ended() {
                return Ok(0);
            }
            if self.start == self.end && self.reader_done {
                return if self.context.decoder.may_end() {
                    Ok(0)
                } else {
                    Err(Error::new(ErrorCode::Format, "unexpected eof in compressed data").into())
                };
            }
        }
    }
}

impl Decoder {
    /// Returns whether nothing more will be read.
    fn ended(&self) -> bool {
        match self {
            Decoder::None | Decoder::Lz4(_) | Decoder::Zst(_) => false,
            Decoder::Bz2(decoder) => decoder.done(),
            Decoder::Gz(decoder) => decoder.done(),
        }
    }

    /// Returns whether the stream is complete if no more input comes.
    fn may_end(&self) -> bool {
        match self {
            Decoder::None => true,
            Decoder::Bz2(decoder) => decoder.done(),
            Decoder::Gz(decoder) => decoder.done(),
            Decoder::Lz4(decoder) => decoder.frame_done(),
            Decoder::Zst(decoder) => decoder.frame_done(),
        }
    }

    fn decode(&mut self, input: &[u8], output: &mut [u8]) -> Result<DecodeStep> {
        match self {
            // The caller handles it and reads past the buffer
            Decoder::None => Ok(DecodeStep { consumed: 0, produced: 0 }),
            _ if self.ended() => Ok(DecodeStep { consumed: 0, produced: 0 }),
            Decoder::Bz2(decoder) => decoder.decode(input, output),
            Decoder::Gz(decoder) => decoder.decode(input, output),
            Decoder::Lz4(decoder) => decoder.decode(input, output),
            Decoder::Zst(decoder) => decoder.decode(input, output),
        }
    }
}

impl<R> fmt::Debug for Decompressor<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Decompressor")
    }
}

#[cfg(test)]
mod tests;
