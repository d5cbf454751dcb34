//! zst: Zstandard frames without content size and checksum. There is no raw form.
//!
//! A stream may consist of several frames, which all readers, including pgBackRest's, accept as one. (In a debug build
//! of pgBackRest, an assertion of its reader does not expect the end of a frame before the end of the file.) Up to a
//! level, streams consist of several frames: compressing one frame at once, from one piece of memory, takes a fifth to
//! a quarter less time than the same part of an endless frame, for which the library keeps its window in a ring buffer.

use std::io::Cursor;
use std::sync::{Arc, Mutex, PoisonError};

use zstd::zstd_safe::{
    CCtx, CParameter, DCtx, InBuffer, OutBuffer, ResetDirective, compress_bound, get_error_name,
    zstd_sys::ZSTD_EndDirective,
};

use super::pieces::{EncodePiece, Join};
use super::windows::{Share, WaitAround, Windows};
use super::{DecodeStep, reserve_output};
use crate::{Error, ErrorCode, Result};

fn zst_error(code: usize) -> Error {
    // The library returns negative numbers in an unsigned type
    Error::new(ErrorCode::Format, format!("zst error: [{}] {}", code as isize, get_error_name(code)))
}

/// Up to this level, streams consist of frames of [`FRAME_BYTES`]. The windows of these levels are not larger than a
/// frame, so the streams do not grow: their size stays within 0.3 % for data files, WAL, programs and text, and is
/// mostly smaller. Higher levels find more matches at longer distances.
pub(super) const FRAMES_LEVEL_MAX: i32 = 6;
/// Plain bytes per frame.
const FRAME_BYTES: usize = 2 << 20;
/// Plain bytes per frame if several threads compress frames.
const FRAME_PARALLEL_BYTES: usize = 1 << 20;
/// Up to this level, the library's own threads compress one frame. Above it, the parts that overlap cost more than the
/// threads gain, and memory use is very high.
pub(super) const PARALLEL_LEVEL_MAX: i32 = 12;
/// Plain bytes that one of the library's threads compresses at a time. Larger jobs need several times as much memory
/// and do not make a WAL segment smaller.
const JOB_BYTES: u32 = 1 << 20;

fn new_context(level: i32) -> Result<CCtx<'static>> {
    let mut context = CCtx::try_create().ok_or_else(memory_error)?;
    context.set_parameter(CParameter::CompressionLevel(level)).map_err(zst_error)?;
    // pgBackRest's readers accept any frame, but its own frames have no content size even if it is known
    context.set_parameter(CParameter::ContentSizeFlag(false)).map_err(zst_error)?;
    Ok(context)
}

/// Compresses a complete frame.
fn encode_frame(context: &mut CCtx<'static>, plain: &[u8], out: &mut Vec<u8>) -> Result<()> {
    out.reserve(compress_bound(plain.len()));
    let end = out.len() as u64;
    let mut out = Cursor::new(out);
    out.set_position(end);
    context.compress2(&mut out, plain).map(drop).map_err(zst_error)
}

/// A reusable compression context.
pub(super) struct ZstEncoder {
    context: CCtx<'static>,
    /// The next frame, if the stream consists of frames.
    frame: Option<ZstFrame>,
}

/// A frame to come.
#[derive(Default)]
struct ZstFrame {
    plain: Vec<u8>,
    /// Whether the stream has an earlier frame.
    follows: bool,
}

impl ZstEncoder {
    /// Returns a memory error (094) if the context cannot be allocated.
    pub(super) fn new(level: i32) -> Result<Self> {
        Ok(ZstEncoder { context: new_context(level)?, frame: (level <= FRAMES_LEVEL_MAX).then(ZstFrame::default) })
    }

    /// Creates an encoder that compresses one frame with the library's own threads. Errors are those of
    /// [`ZstEncoder::new`].
    pub(super) fn parallel(level: i32, threads: usize) -> Result<Self> {
        let mut context = new_context(level)?;
        let threads = u32::try_from(threads).unwrap_or(u32::MAX);
        context.set_parameter(CParameter::NbWorkers(threads)).map_err(zst_error)?;
        context.set_parameter(CParameter::JobSize(JOB_BYTES)).map_err(zst_error)?;
        Ok(ZstEncoder { context, frame: None })
    }

    pub(super) fn push(&mut self, mut data: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let Some(frame) = &mut self.frame else { return self.push_on(data, out) };
        while !data.is_empty() {
            if frame.plain.len() == FRAME_BYTES {
                encode_frame(&mut self.context, &frame.plain, out)?;
                frame.plain.clear();
                frame.follows = true;
            }
            let (now, later) = data.split_at(data.len().min(FRAME_BYTES - frame.plain.len()));
            frame.plain.extend_from_slice(now);
            data = later;
        }
        Ok(())
    }

    /// Continues an endless frame.
    fn push_on(&mut self, data: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let mut input = InBuffer::around(data);
        while input.pos() < data.len() {
            reserve_output(out);
            let end = out.len();
            let mut output = OutBuffer::around_pos(out, end);
            self.context
                .compress_stream2(&mut output, &mut input, ZSTD_EndDirective::ZSTD_e_continue)
                .map_err(zst_error)?;
        }
        Ok(())
    }

    pub(super) fn finish(&mut self, out: &mut Vec<u8>) -> Result<()> {
        if let Some(frame) = &mut self.frame {
            if !frame.plain.is_empty() || !frame.follows {
                encode_frame(&mut self.context, &frame.plain, out)?;
            }
            return self.reset();
        }
        loop {
            reserve_output(out);
            let end = out.len();
            let mut output = OutBuffer::around_pos(out, end);
            let rest = self
                .context
                .compress_stream2(&mut output, &mut InBuffer::around(&[]), ZSTD_EndDirective::ZSTD_e_end)
                .map_err(zst_error)?;
            // The end of a frame also resets the session and keeps the level
            if rest == 0 {
                return Ok(());
            }
        }
    }

    pub(super) fn reset(&mut self) -> Result<()> {
        if let Some(frame) = &mut self.frame {
            frame.plain.clear();
            frame.follows = false;
            // Each frame starts from scratch
            return Ok(());
        }
        self.context.reset(ResetDirective::SessionOnly).map(drop).map_err(zst_error)
    }
}

/// Joins frames to one stream. Each frame is compressed by one thread.
pub(super) struct ZstPieces {
    level: i32,
    empty: bool,
}

impl ZstPieces {
    pub(super) fn new(level: i32) -> Self {
        ZstPieces { level, empty: true }
    }
}

impl Join for ZstPieces {
    fn piece_size(&self) -> usize {
        FRAME_PARALLEL_BYTES
    }

    fn context_size(&self) -> usize {
        0
    }

    fn encode(&self) -> EncodePiece {
        let level = self.level;
        // Contexts that no thread uses at the moment
        let contexts: Mutex<Vec<CCtx<'static>>> = Mutex::default();
        Arc::new(move |_context, plain, frame| {
            let idle = || contexts.lock().unwrap_or_else(PoisonError::into_inner);
            let kept = idle().pop();
            let mut context = match kept {
                Some(context) => context,
                None => new_context(level)?,
            };
            encode_frame(&mut context, plain, frame)?;
            idle().push(context);
            Ok(())
        })
    }

    fn begin(&mut self, _out: &mut Vec<u8>) {
        self.empty = true;
    }

    fn append(&mut self, _plain: &[u8], piece: &[u8], out: &mut Vec<u8>) -> Result<()> {
        self.empty = false;
        out.extend_from_slice(piece);
        Ok(())
    }

    fn end(&mut self, out: &mut Vec<u8>) -> Result<()> {
        // An empty stream has a frame, too
        if self.empty { encode_frame(&mut new_context(self.level)?, &[], out) } else { Ok(()) }
    }
}

fn memory_error() -> Error {
    Error::new(ErrorCode::Memory, "unable to allocate zst context")
}

/// A reusable decompression context. The library refuses windows above 128 MiB, which bounds its memory.
pub(super) struct ZstDecoder {
    // Declared first, so that it is dropped before the share
    context: DCtx<'static>,
    share: Share,
    frame_done: bool,
}

impl ZstDecoder {
    /// Creates a decoder. If `windows` is set, it shares them for large windows. Returns a memory error (094) if its
    /// context cannot be allocated.
    pub(super) fn new(windows: Option<(&'static Windows, WaitAround)>) -> Result<Self> {
        let share = windows.map(|(windows, around)| Share::of(windows, around)).unwrap_or_default();
        Ok(ZstDecoder { context: new_decoder()?, share, frame_done: false })
    }

    /// Declares that at most `bytes` bytes of the next stream are read.
    pub(super) fn limit(&mut self, bytes: u64) {
        self.share.limit(bytes);
    }

    /// Ends a stream and releases the memory of a large window.
    pub(super) fn reset(&mut self) -> Result<()> {
        self.frame_done = false;
        self.context.reset(ResetDirective::SessionOnly).map_err(zst_error)?;
        self.share.end(|| renew(&mut self.context))
    }

    /// Returns whether the input may end here: at least one frame was read and the last one is complete.
    pub(super) fn frame_done(&self) -> bool {
        self.frame_done
    }

    pub(super) fn decode(&mut self, input: &[u8], output: &mut [u8]) -> Result<DecodeStep> {
        // Without input, the library would treat a complete frame as the beginning of the next one
        if input.is_empty() && self.frame_done {
            return Ok(DecodeStep { consumed: 0, produced: 0 });
        }
        if self.frame_done {
            self.share.begin_frame();
        }
        self.share.look(input, || renew(&mut self.context))?;
        let mut source = InBuffer::around(input);
        let mut target = OutBuffer::around(output);
        self.frame_done = self.context.decompress_stream(&mut target, &mut source).map_err(zst_error)? == 0;
        Ok(DecodeStep { consumed: source.pos(), produced: target.pos() })
    }
}

fn new_decoder() -> Result<DCtx<'static>> {
    DCtx::try_create().ok_or_else(memory_error)
}

/// Creates a new context, because the library keeps the memory of the largest window for the next stream.
fn renew(context: &mut DCtx<'static>) -> Result<()> {
    *context = new_decoder()?;
    Ok(())
}
