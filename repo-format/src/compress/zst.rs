//! zst: one Zstandard frame without content size and checksum; there is no raw form.

use zstd::zstd_safe::{
    CCtx, CParameter, DCtx, InBuffer, OutBuffer, ResetDirective, get_error_name, zstd_sys::ZSTD_EndDirective,
};

use super::{Progress, reserve_output};
use crate::{Error, ErrorCode, Result};

fn zst_error(code: usize) -> Error {
    // The library's results are negative numbers in an unsigned type.
    Error::new(ErrorCode::Format, format!("zst error: [{}] {}", code as isize, get_error_name(code)))
}

/// Up to this level the library's own threads are used: above it, what they look at again of each other's bytes costs more than
/// they gain, and they take very much memory.
pub(super) const PARALLEL_LEVEL_MAX: i32 = 12;
/// Plain bytes that one of the library's threads compresses at a time. Larger ones cost memory several times over, and a WAL segment
/// gets no smaller by them.
const JOB_BYTES: u32 = 1 << 20;

/// A reusable compression context.
pub(super) struct Encoder(CCtx<'static>);

impl Encoder {
    /// Memory error [094] if there is no memory for the context.
    pub(super) fn new(level: i32) -> Result<Self> {
        let mut context = CCtx::try_create().ok_or_else(memory_error)?;
        context.set_parameter(CParameter::CompressionLevel(level)).map_err(zst_error)?;
        // pgBackRest's readers take any frame, but its own frames have no content size even where it is known.
        context.set_parameter(CParameter::ContentSizeFlag(false)).map_err(zst_error)?;
        Ok(Encoder(context))
    }

    /// An encoder in which the library's own threads compress; there is one frame all the same. Errors as for [`Encoder::new`].
    pub(super) fn parallel(level: i32, threads: usize) -> Result<Self> {
        let mut encoder = Self::new(level)?;
        let threads = u32::try_from(threads).unwrap_or(u32::MAX);
        encoder.0.set_parameter(CParameter::NbWorkers(threads)).map_err(zst_error)?;
        encoder.0.set_parameter(CParameter::JobSize(JOB_BYTES)).map_err(zst_error)?;
        Ok(encoder)
    }

    pub(super) fn push(&mut self, data: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let mut input = InBuffer::around(data);
        while input.pos() < data.len() {
            reserve_output(out);
            let end = out.len();
            let mut output = OutBuffer::around_pos(out, end);
            self.0.compress_stream2(&mut output, &mut input, ZSTD_EndDirective::ZSTD_e_continue).map_err(zst_error)?;
        }
        Ok(())
    }

    pub(super) fn finish(&mut self, out: &mut Vec<u8>) -> Result<()> {
        loop {
            reserve_output(out);
            let end = out.len();
            let mut output = OutBuffer::around_pos(out, end);
            let rest = self
                .0
                .compress_stream2(&mut output, &mut InBuffer::around(&[]), ZSTD_EndDirective::ZSTD_e_end)
                .map_err(zst_error)?;
            // The end of a frame also resets the session, keeping the level.
            if rest == 0 {
                return Ok(());
            }
        }
    }

    pub(super) fn reset(&mut self) -> Result<()> {
        self.0.reset(ResetDirective::SessionOnly).map(drop).map_err(zst_error)
    }
}

fn memory_error() -> Error {
    Error::new(ErrorCode::Memory, "unable to allocate zst context")
}

/// A reusable decompression context. The library refuses windows above 128 MiB, which bounds its memory.
pub(super) struct Decoder {
    context: DCtx<'static>,
    frame_done: bool,
}

impl Decoder {
    /// Memory error [094] if there is no memory for the context.
    pub(super) fn new() -> Result<Self> {
        Ok(Decoder { context: DCtx::try_create().ok_or_else(memory_error)?, frame_done: false })
    }

    pub(super) fn reset(&mut self) -> Result<()> {
        self.frame_done = false;
        self.context.reset(ResetDirective::SessionOnly).map(drop).map_err(zst_error)
    }

    /// Whether input may end here: at least one frame was read and the last one is complete.
    pub(super) fn frame_done(&self) -> bool {
        self.frame_done
    }

    pub(super) fn decode(&mut self, input: &[u8], output: &mut [u8]) -> Result<Progress> {
        // Without input a complete frame would be taken for the begin of a next one.
        if input.is_empty() && self.frame_done {
            return Ok(Progress { consumed: 0, produced: 0 });
        }
        let mut source = InBuffer::around(input);
        let mut target = OutBuffer::around(output);
        self.frame_done = self.context.decompress_stream(&mut target, &mut source).map_err(zst_error)? == 0;
        Ok(Progress { consumed: source.pos(), produced: target.pos() })
    }
}
