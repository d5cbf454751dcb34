//! Errors for answers that are not the store's, and how much of an answer errors show.

use crate::{Error, ErrorCode};

/// The maximum size of a shown server message.
pub(crate) const MESSAGE_SIZE_MAX_BYTES: usize = 2048;

/// The error for an answer that can't be the store's.
pub(crate) fn foreign(why: &str) -> Error {
    Error::new(ErrorCode::Format, format!("the answer is not the store's: {why}"))
        .hint("does a gateway or a proxy answer instead of the store, or is the endpoint wrong?")
}

/// As much of a message as is shown.
pub(crate) fn shown(text: &str) -> &str {
    let fits = |end: &usize| *end <= MESSAGE_SIZE_MAX_BYTES;
    let ends = text.char_indices().map(|(start, char)| start + char.len_utf8());
    &text[..ends.take_while(fits).last().unwrap_or(0)]
}
