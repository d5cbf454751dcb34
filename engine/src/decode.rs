//! Decoders whose large windows together take no more than a fixed size of memory, however many of them there are.

use std::io::Read;

use repo_format::compress::{CompressType, DecompressContext, Decompressor, Framing, Windows};

use crate::{Result, slots};

/// What the windows above [`repo_format::compress::WINDOW_FREE_BYTES`] take together: as much as the largest one.
const WINDOWS_BYTES: u64 = 128 << 20;

static WINDOWS: Windows = Windows::new(WINDOWS_BYTES, |wait| slots::waiting(wait));

/// A context for one stream after the other.
///
/// # Errors
/// There is no memory for it.
pub fn context(kind: CompressType, framing: Framing) -> Result<DecompressContext> {
    DecompressContext::sharing(kind, framing, &WINDOWS)
}

/// Decodes one stream, of which the caller reads no more than `size_max` bytes.
///
/// # Errors
/// There is no memory for it.
pub fn decompressor<R: Read>(kind: CompressType, reader: R, size_max: u64) -> Result<Decompressor<R>> {
    Ok(Decompressor::with_context(context(kind, Framing::Full)?, reader).reading_at_most(size_max))
}
