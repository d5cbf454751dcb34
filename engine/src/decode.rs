//! Decoders whose large windows share a fixed amount of memory, however many decoders there are.

use std::io::Read;
use std::sync::Arc;

use repo_format::compress::{CompressType, DecompressContext, Decompressor, Framing, Windows};

use crate::Result;
use crate::work::turn::Turn;

/// The total memory for windows above [`repo_format::compress::WINDOW_FREE_BYTES`]: the size of the largest window.
const WINDOWS_BYTES: u64 = 128 << 20;

static WINDOWS: Windows = Windows::new(WINDOWS_BYTES);

/// Creates a context that decodes one stream after the other, for the thread that has this turn.
///
/// # Errors
/// There is no memory for it.
pub fn context(kind: CompressType, framing: Framing, turn: &Turn) -> Result<DecompressContext> {
    let turn = turn.clone();
    // Who has the memory may need the slot to return it
    DecompressContext::sharing(kind, framing, &WINDOWS, Arc::new(move |wait| turn.waiting(wait)))
}

/// Creates a decoder of one stream for the thread that has this turn. The caller reads at most `size_max` bytes from it.
///
/// # Errors
/// There is no memory for it.
pub fn decompressor<R: Read>(kind: CompressType, reader: R, size_max: u64, turn: &Turn) -> Result<Decompressor<R>> {
    Ok(Decompressor::with_context(context(kind, Framing::Full, turn)?, reader).reading_at_most(size_max))
}
