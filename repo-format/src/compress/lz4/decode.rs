//! A reader of LZ4 frames that accepts pieces of any size (format: lz4's `doc/lz4_Frame_format.md`).

use lz4_flex::block::{decompress_into, decompress_into_with_dict};
use twox_hash::XxHash32;

use super::super::DecodeStep;
use super::lz4_error;
use crate::Result;

const FRAME_MAGIC: u32 = 0x184D_2204;
/// The first of 16 magic numbers of frames that contain data of other programs.
const SKIPPABLE_MAGIC: u32 = 0x184D_2A50;
/// The maximum distance to which a linked block may refer.
const WINDOW_SIZE: usize = 64 * 1024;
/// Set in a block's size if the block is not compressed.
const UNCOMPRESSED_FLAG: u32 = 0x8000_0000;

/// What the decoder expects next in the input.
#[derive(Clone, Copy, Debug)]
enum Expect {
    Magic,
    /// The flags and the block size of a frame.
    Descriptor,
    /// Optional fields and the header's checksum.
    DescriptorRest {
        descriptor: [u8; 2],
        size: usize,
    },
    SkippableSize,
    /// This many bytes of another program's data.
    Skippable(usize),
    BlockSize,
    Block {
        size: usize,
        compressed: bool,
    },
    ContentChecksum,
}

/// The header of the current frame.
#[derive(Clone, Copy, Debug, Default)]
struct Lz4Frame {
    linked: bool,
    block_checksum: bool,
    content_checksum: bool,
    content_size: Option<u64>,
    block_size_max: usize,
}

/// A reusable decoder. The format's largest block size, 4 MiB, bounds each of its buffers.
pub(in super::super) struct Lz4Decoder {
    expect: Expect,
    frame: Lz4Frame,
    /// A piece of input that was not complete yet.
    gathered: Vec<u8>,
    /// The last decoded block. `block[block_pos..block_len]` is not returned yet.
    block: Vec<u8>,
    block_pos: usize,
    block_len: usize,
    /// The bytes before `block`, to which a linked block may refer. Only the last [`WINDOW_SIZE`] of them count.
    window: Vec<u8>,
    hasher: XxHash32,
    content_size: u64,
    frame_done: bool,
}

impl Lz4Decoder {
    pub(in super::super) fn new() -> Self {
        Lz4Decoder {
            expect: Expect::Magic,
            frame: Lz4Frame::default(),
            gathered: Vec::new(),
            block: Vec::new(),
            block_pos: 0,
            block_len: 0,
            window: Vec::new(),
            hasher: XxHash32::with_seed(0),
            content_size: 0,
            frame_done: false,
        }
    }

    pub(in super::super) fn reset(&mut self) {
        self.expect = Expect::Magic;
        self.gathered.clear();
        (self.block_pos, self.block_len) = (0, 0);
        self.frame_done = false;
    }

    /// Returns whether the input may end here: at least one frame was read and the last one is complete.
    pub(in super::super) fn frame_done(&self) -> bool {
        self.frame_done
    }

    pub(in super::super) fn decode(&mut self, input: &[u8], output: &mut [u8]) -> Result<DecodeStep> {
        let mut rest = input;
        let mut produced = 0;
        loop {
            let copy = (self.block_len - self.block_pos).min(output.len() - produced);
            output[produced..produced + copy].copy_from_slice(&self.block[self.block_pos..self.block_pos + copy]);
            self.block_pos += copy;
            produced += copy;
            if self.block_pos < self.block_len || rest.is_empty() {
                return Ok(DecodeStep { consumed: input.len() - rest.len(), produced });
            }
            self.frame_done = false;
            if let Expect::Skippable(size) = self.expect {
                let skip = rest.len().min(size);
                rest = &rest[skip..];
                self.expect_skippable(size - skip);
                continue;
            }
            let wanted = self.wanted();
            if self.gathered.is_empty() && rest.len() >= wanted {
                let (piece, tail) = rest.split_at(wanted);
                rest = tail;
                self.take(piece)?;
            } else {
                let (part, tail) = rest.split_at(rest.len().min(wanted - self.gathered.len()));
                rest = tail;
                self.gathered.extend_from_slice(part);
                if self.gathered.len() == wanted {
                    let mut piece = std::mem::take(&mut self.gathered);
                    let result = self.take(&piece);
                    piece.clear();
                    self.gathered = piece;
                    result?;
                }
            }
        }
    }

    /// Returns the size of the next piece, which is never zero.
    fn wanted(&self) -> usize {
        match self.expect {
            Expect::Magic | Expect::SkippableSize | Expect::BlockSize | Expect::ContentChecksum => 4,
            Expect::Descriptor => 2,
            Expect::DescriptorRest { size, .. } | Expect::Skippable(size) => size,
            Expect::Block { size, .. } => size + if self.frame.block_checksum { 4 } else { 0 },
        }
    }

    /// Processes a complete piece.
    fn take(&mut self, piece: &[u8]) -> Result<()> {
        self.expect = match self.expect {
            Expect::Magic => match number(piece) {
                FRAME_MAGIC => Expect::Descriptor,
                magic if magic & !15 == SKIPPABLE_MAGIC => Expect::SkippableSize,
                _ => return Err(lz4_error(13, "ERROR_frameType_unknown")),
            },
            Expect::Descriptor => descriptor(piece)?,
            Expect::DescriptorRest { descriptor, .. } => {
                self.begin_frame(descriptor, piece)?;
                Expect::BlockSize
            }
            Expect::SkippableSize => {
                // `usize` has at least 32 bits here, so any u32 fits
                self.expect_skippable(number(piece) as usize);
                return Ok(());
            }
            Expect::Skippable(size) => Expect::Skippable(size),
            Expect::BlockSize => match number(piece) {
                0 if self.frame.content_checksum => Expect::ContentChecksum,
                0 => return self.end_frame(),
                field => {
                    let size = (field & !UNCOMPRESSED_FLAG) as usize;
                    if size > self.frame.block_size_max {
                        return Err(lz4_error(2, "ERROR_maxBlockSize_invalid"));
                    }
                    Expect::Block { size, compressed: field & UNCOMPRESSED_FLAG == 0 }
                }
            },
            Expect::Block { size, compressed } => {
                let (data, checksum) = piece.split_at(size);
                if self.frame.block_checksum && XxHash32::oneshot(0, data) != number(checksum) {
                    return Err(lz4_error(7, "ERROR_blockChecksum_invalid"));
                }
                self.take_block(data, compressed)?;
                Expect::BlockSize
            }
            Expect::ContentChecksum => {
                if self.hasher.finish_32() != number(piece) {
                    return Err(lz4_error(18, "ERROR_contentChecksum_invalid"));
                }
                return self.end_frame();
            }
        };
        // A stored block of no bytes has no piece to wait for.
        if self.wanted() == 0 { self.take(&[]) } else { Ok(()) }
    }

    fn expect_skippable(&mut self, rest: usize) {
        self.frame_done = rest == 0;
        self.expect = if rest == 0 { Expect::Magic } else { Expect::Skippable(rest) };
    }

    fn begin_frame(&mut self, descriptor: [u8; 2], rest: &[u8]) -> Result<()> {
        let [flags, block] = descriptor;
        let (fields, checksum) = rest.split_at(rest.len() - 1);
        let mut hasher = XxHash32::with_seed(0);
        std::hash::Hasher::write(&mut hasher, &descriptor);
        std::hash::Hasher::write(&mut hasher, fields);
        if checksum != [hasher.finish_32().to_le_bytes()[1]] {
            return Err(lz4_error(17, "ERROR_headerChecksum_invalid"));
        }
        self.frame = Lz4Frame {
            linked: flags & 0x20 == 0,
            block_checksum: flags & 0x10 != 0,
            // The content size comes first if it is present; a dictionary id after it changes nothing here
            content_size: if flags & 0x08 != 0 {
                fields.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
            } else {
                None
            },
            content_checksum: flags & 0x04 != 0,
            // 4 means 64 KiB, and each further number four times more; `descriptor` has checked the range
            block_size_max: 1 << (8 + 2 * (block >> 4)),
        };
        self.window.clear();
        (self.block_pos, self.block_len) = (0, 0);
        self.hasher = XxHash32::with_seed(0);
        self.content_size = 0;
        Ok(())
    }

    fn end_frame(&mut self) -> Result<()> {
        if self.frame.content_size.is_some_and(|size| size != self.content_size) {
            return Err(lz4_error(14, "ERROR_frameSize_wrong"));
        }
        self.frame_done = true;
        self.expect = Expect::Magic;
        Ok(())
    }

    fn take_block(&mut self, data: &[u8], compressed: bool) -> Result<()> {
        if self.frame.linked {
            self.slide_window();
        }
        if self.block.len() < self.frame.block_size_max {
            self.block.resize(self.frame.block_size_max, 0);
        }
        self.block_pos = 0;
        self.block_len = 0;
        let target = &mut self.block[..self.frame.block_size_max];
        self.block_len = if compressed {
            let window = &self.window[self.window.len().saturating_sub(WINDOW_SIZE)..];
            if window.is_empty() {
                decompress_into(data, target)
            } else {
                decompress_into_with_dict(data, target, window)
            }
            .map_err(|error| lz4_error(16, "ERROR_decompressionFailed").cause(error))?
        } else {
            target[..data.len()].copy_from_slice(data);
            data.len()
        };
        let block = &self.block[..self.block_len];
        if self.frame.content_checksum {
            std::hash::Hasher::write(&mut self.hasher, block);
        }
        self.content_size += block.len() as u64;
        Ok(())
    }

    /// Moves the last block into the window. A block of at least the window's size, which is the usual case, replaces
    /// it without a copy.
    fn slide_window(&mut self) {
        if self.block_len >= WINDOW_SIZE {
            std::mem::swap(&mut self.window, &mut self.block);
            self.window.truncate(self.block_len);
        } else {
            let drop = (self.window.len() + self.block_len).saturating_sub(WINDOW_SIZE);
            self.window.drain(..drop.min(self.window.len()));
            self.window.extend_from_slice(&self.block[..self.block_len]);
        }
    }
}

/// Reads the flags and the block size of a frame.
fn descriptor(piece: &[u8]) -> Result<Expect> {
    let descriptor = [piece[0], piece[1]];
    let [flags, block] = descriptor;
    if flags >> 6 != 1 {
        return Err(lz4_error(6, "ERROR_headerVersion_wrong"));
    }
    if flags & 0x02 != 0 || block & 0x8f != 0 {
        return Err(lz4_error(8, "ERROR_reservedFlag_set"));
    }
    if block >> 4 < 4 {
        return Err(lz4_error(2, "ERROR_maxBlockSize_invalid"));
    }
    let content_size = if flags & 0x08 != 0 { 8 } else { 0 };
    let dictionary_id = if flags & 0x01 != 0 { 4 } else { 0 };
    Ok(Expect::DescriptorRest { descriptor, size: content_size + dictionary_id + 1 })
}

/// Decodes a little-endian number. The caller passes 4 bytes.
fn number(piece: &[u8]) -> u32 {
    piece.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
}
