//! lz4: LZ4 frames with linked blocks of 64 KiB and, unless raw, a checksum of the content.
//!
//! `lz4_flex` compresses levels 0 and 1. The C library compresses the levels from 2 on, which search more, and the
//! accelerated negative levels, because `lz4_flex` has neither. The reader is our own frame parser on top of `lz4_flex`
//! blocks. It accepts input in any pieces, distinguishes a truncated stream from a complete one, and is reusable. The
//! frame reader of the library does none of these.

mod decode;

use std::cell::Cell;
use std::hash::Hasher;
use std::io::{self, Write};
use std::ops::RangeInclusive;
use std::sync::Arc;

use lz4::{BlockMode as CBlockMode, BlockSize as CBlockSize, ContentChecksum, liblz4::BlockChecksum};
use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};

pub(super) use self::decode::Lz4Decoder;
use twox_hash::XxHash32;

use super::Framing;
use super::pieces::{EncodePiece, Join};
use crate::{Error, ErrorCode, Result};

/// The levels that `lz4_flex` compresses. It has one kind of search, which corresponds to the C library's levels up to
/// 1.
const FLEX_LEVELS: RangeInclusive<i32> = 0..=1;
/// A frame without content: magic, descriptor, end mark, checksum of nothing.
const EMPTY_FULL: [u8; 15] = [0x04, 0x22, 0x4d, 0x18, 0x44, 0x40, 0x5e, 0, 0, 0, 0, 0x05, 0x5d, 0xcc, 0x02];
/// The same without checksum.
const EMPTY_RAW: [u8; 11] = [0x04, 0x22, 0x4d, 0x18, 0x40, 0x40, 0xc0, 0, 0, 0, 0];

fn lz4_error(number: u32, name: &str) -> Error {
    Error::new(ErrorCode::Format, format!("lz4 error: [-{number}] {name}"))
}

fn encode_error(error: io::Error) -> Error {
    Error::new(ErrorCode::Format, "lz4 error: [-1] ERROR_GENERIC").cause(error)
}

/// A reusable encoder.
pub(super) struct Lz4Encoder {
    framing: Framing,
    library: Library,
}

enum Library {
    /// Keeps buffers and table from stream to stream. Its writer is the caller's buffer, which is moved in for each
    /// call.
    Flex { encoder: Box<FrameEncoder<Vec<u8>>>, open: bool },
    /// The C library's wrapper has one context per stream. It is `Some` while a stream with content is open.
    C { level: i32, encoder: Option<Box<lz4::Encoder<Lent>>> },
}

/// The caller's buffer, lent for one call. The wrapper of the C library returns its writer by shared reference only,
/// hence the cell.
#[derive(Default)]
struct Lent(Cell<Vec<u8>>);

impl Write for Lent {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.get_mut().extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Lz4Encoder {
    pub(super) fn new(level: i32, framing: Framing) -> Self {
        let library = if FLEX_LEVELS.contains(&level) {
            Library::Flex { encoder: flex_encoder(framing), open: false }
        } else {
            Library::C { level, encoder: None }
        };
        Lz4Encoder { framing, library }
    }

    pub(super) fn push(&mut self, data: &[u8], out: &mut Vec<u8>) -> Result<()> {
        if data.is_empty() {
            return Ok(());
        }
        match &mut self.library {
            Library::Flex { encoder, open } => {
                *open = true;
                std::mem::swap(encoder.get_mut(), out);
                let result = encoder.write_all(data);
                std::mem::swap(encoder.get_mut(), out);
                result.map_err(encode_error)
            }
            Library::C { level, encoder } => {
                let encoder = match encoder {
                    Some(encoder) => encoder,
                    None => {
                        // The frame's header is written at once.
                        let new = c_encoder(*level, self.framing).map_err(encode_error)?;
                        out.append(&mut new.writer().0.take());
                        encoder.insert(Box::new(new))
                    }
                };
                encoder.writer().0.set(std::mem::take(out));
                let result = encoder.write_all(data);
                *out = encoder.writer().0.take();
                result.map_err(encode_error)
            }
        }
    }

    pub(super) fn finish(&mut self, out: &mut Vec<u8>) -> Result<()> {
        match &mut self.library {
            Library::Flex { encoder, open: open @ true } => {
                *open = false;
                std::mem::swap(encoder.get_mut(), out);
                let result = encoder.try_finish();
                std::mem::swap(encoder.get_mut(), out);
                result.map_err(|error| encode_error(error.into()))
            }
            Library::C { encoder: encoder @ Some(_), .. } => {
                if let Some(encoder) = encoder.take() {
                    encoder.writer().0.set(std::mem::take(out));
                    let (lent, result) = encoder.finish();
                    *out = lent.0.into_inner();
                    result.map_err(encode_error)?;
                }
                Ok(())
            }
            Library::Flex { .. } | Library::C { .. } => {
                out.extend_from_slice(match self.framing {
                    Framing::Full => &EMPTY_FULL,
                    Framing::Raw => &EMPTY_RAW,
                });
                Ok(())
            }
        }
    }

    pub(super) fn reset(&mut self) {
        match &mut self.library {
            // A frame that is open can't be dropped otherwise.
            Library::Flex { encoder, open } if *open => (*encoder, *open) = (flex_encoder(self.framing), false),
            Library::Flex { .. } => {}
            Library::C { encoder, .. } => *encoder = None,
        }
    }
}

fn flex_encoder(framing: Framing) -> Box<FrameEncoder<Vec<u8>>> {
    let info = FrameInfo::new()
        .block_mode(BlockMode::Linked)
        .block_size(BlockSize::Max64KB)
        .content_checksum(framing == Framing::Full);
    Box::new(FrameEncoder::with_frame_info(info, Vec::new()))
}

fn c_encoder(level: i32, framing: Framing) -> io::Result<lz4::Encoder<Lent>> {
    lz4::EncoderBuilder::new()
        // The library's own type is signed; the wrapper passes the bits on
        .level(level.cast_unsigned())
        .block_mode(CBlockMode::Linked)
        .block_size(CBlockSize::Max64KB)
        .block_checksum(BlockChecksum::NoBlockChecksum)
        .checksum(match framing {
            Framing::Full => ContentChecksum::ChecksumEnabled,
            Framing::Raw => ContentChecksum::NoChecksum,
        })
        .build(Lent::default())
}

/// Joins pieces to one frame. The blocks of a piece do not refer to data before the piece.
pub(super) struct Lz4Pieces {
    level: i32,
    content: XxHash32,
}

/// Bytes of the magic number and the descriptor.
const HEADER_SIZE: usize = 7;
/// Follows the last block.
const END_MARK: [u8; 4] = [0; 4];

impl Lz4Pieces {
    pub(super) fn new(level: i32) -> Self {
        Lz4Pieces { level, content: XxHash32::with_seed(0) }
    }
}

impl Join for Lz4Pieces {
    fn piece_size(&self) -> usize {
        1 << 20
    }

    fn context_size(&self) -> usize {
        0
    }

    fn encode(&self) -> EncodePiece {
        let level = self.level;
        Arc::new(move |_context, plain, frame| {
            let mut encoder = Lz4Encoder::new(level, Framing::Raw);
            encoder.push(plain, frame)?;
            encoder.finish(frame)
        })
    }

    fn begin(&mut self, out: &mut Vec<u8>) {
        self.content = XxHash32::with_seed(0);
        out.extend_from_slice(&EMPTY_FULL[..HEADER_SIZE]);
    }

    fn append(&mut self, plain: &[u8], piece: &[u8], out: &mut Vec<u8>) -> Result<()> {
        self.content.write(plain);
        let blocks = piece.strip_prefix(&EMPTY_RAW[..HEADER_SIZE]).and_then(|rest| rest.strip_suffix(&END_MARK));
        out.extend_from_slice(blocks.ok_or_else(|| Error::new(ErrorCode::Assert, "lz4 frame of an unknown form"))?);
        Ok(())
    }

    fn end(&mut self, out: &mut Vec<u8>) -> Result<()> {
        out.extend_from_slice(&END_MARK);
        out.extend_from_slice(&self.content.finish_32().to_le_bytes());
        Ok(())
    }
}
