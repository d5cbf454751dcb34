//! Texts from outside, which may contain bytes that are not UTF-8.
//!
//! Such bytes do not matter unless a used value contains them. They may be in a comment, in another stanza or in an
//! option of another command. So they are kept as a mark, and the user of a text checks whether it is valid.

use std::ffi::OsStr;

use engine::{Error, ErrorCode};

/// Replaces bytes that are not UTF-8. Unicode assigns no character to it, so it never occurs in text.
const MARK: char = '\u{10FFFF}';

/// Decodes the text and replaces each sequence that is not UTF-8 by a mark.
pub(super) fn decode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        if !chunk.invalid().is_empty() {
            text.push(MARK);
        }
    }
    text
}

/// Like [`decode`], for text of the system.
pub(super) fn decode_os(text: &OsStr) -> String {
    decode(text.as_encoded_bytes())
}

/// Returns whether the text has no mark.
pub(super) fn is_whole(text: &str) -> bool {
    !text.contains(MARK)
}

/// The error for an option whose value has a mark.
pub(super) fn not_whole(option: &str) -> Error {
    Error::new(ErrorCode::OptionInvalidValue, format!("value of option '{option}' is not valid UTF-8"))
}

/// The text for a message.
pub(super) fn show(text: &str) -> String {
    text.replace(MARK, "\u{FFFD}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_text_are_marked_and_the_rest_is_kept() {
        assert_eq!(decode("grün".as_bytes()), "grün");
        let marked = decode(b"/pg\xff/a\xc3");
        assert!(!is_whole(&marked) && is_whole("/pg\u{FFFD}"));
        assert_eq!(show(&marked), "/pg\u{FFFD}/a\u{FFFD}");
    }
}
