//! The codecs and ciphers that a client's filters name.

use protocol::filter::{CipherFilter, Codec, CompressFilter};
use repo_format::cipher::{Cipher, Framing, KeyDigest, Passphrase};
use repo_format::compress::{CompressType, Compression};

use super::formats::{key_digest, passphrase_text};
use crate::Result;

/// The form of a stream.
pub(super) fn framing(is_raw: bool) -> Framing {
    if is_raw { Framing::Raw } else { Framing::Full }
}

/// The type of a codec.
pub(super) fn kind(codec: Codec) -> CompressType {
    match codec {
        Codec::Gz => CompressType::Gz,
        Codec::Bz2 => CompressType::Bz2,
        Codec::Lz4 => CompressType::Lz4,
        Codec::Zst => CompressType::Zst,
    }
}

/// The compression that a client asks for.
///
/// # Errors
/// [`ErrorCode::OptionInvalidValue`] for a level that the codec does not have.
pub(super) fn compression(filter: &CompressFilter) -> Result<Compression> {
    Compression::new(kind(filter.codec), Some(filter.level))
}

/// The key of a cipher, and how its streams begin.
///
/// # Errors
/// Those of [`key_digest`] and [`passphrase_text`].
pub(super) fn cipher(filter: &CipherFilter<'_>) -> Result<(Cipher, Framing)> {
    // As in pgBackRest 2.60.0, which reads it as a boolean
    let framing = framing(filter.header.0 == 1);
    let digest = filter.digest.map_or(Ok(KeyDigest::Sha1), key_digest)?;
    let text = passphrase_text(filter.passphrase.0)?;
    Ok((Cipher::Aes256Cbc(Passphrase::with_digest(text, digest)), framing))
}
