//! Codecs, ciphers and results of filters that run on another host.

use protocol::filter::{
    CIPHER_KEYS_MAX, CipherFilter, CipherHeader, CipherKey, Codec, Digest, Direction, Filter, PassphraseBytes,
};
use repo_format::cipher::{Cipher, KeyDigest, Keyring, Passphrase};
use repo_format::compress::CompressType;

/// The header of an encrypted stream in [`repo_format::cipher::Framing::Full`].
pub(crate) const HEADER_FULL: CipherHeader = CipherHeader(0);
/// The header of an encrypted stream in [`repo_format::cipher::Framing::Raw`].
pub(crate) const HEADER_RAW: CipherHeader = CipherHeader(1);

/// The digest that derives keys from a passphrase.
pub(crate) fn digest(passphrase: &Passphrase) -> Digest {
    match passphrase.digest() {
        KeyDigest::Sha1 => Digest::Sha1,
        KeyDigest::Sha256 => Digest::Sha256,
    }
}

/// The codec of a type of compression; `None` for none.
pub(crate) fn codec(kind: CompressType) -> Option<Codec> {
    match kind {
        CompressType::None => None,
        CompressType::Bz2 => Some(Codec::Bz2),
        CompressType::Gz => Some(Codec::Gz),
        CompressType::Lz4 => Some(Codec::Lz4),
        CompressType::Zst => Some(Codec::Zst),
    }
}

/// The filters that find out checksum and size of what a stored file decodes to; `None` if pgBackRest has none for its keys.
pub(crate) fn content_sum(cipher: &Cipher, compress_type: CompressType) -> Option<Vec<Filter<'_>>> {
    let decrypt = match cipher {
        Cipher::None => None,
        Cipher::Aes256Cbc(passphrase) => Some(Filter::Cipher(CipherFilter {
            direction: Direction::Decrypt,
            digest: Some(digest(passphrase)),
            passphrase: PassphraseBytes(passphrase.expose().as_bytes()),
            header: HEADER_FULL,
        })),
        // The header of each file names its format and key
        Cipher::Headed(_) => Some(Filter::CipherFormat { keys: keys(cipher.keyring()?)?, key: None, format: 0 }),
    };
    let decompress = codec(compress_type).map(|codec| Filter::Decompress { codec, is_raw: false });
    let sums = [Filter::Hash(Digest::Sha1), Filter::Size, Filter::Sink];
    Some(decrypt.into_iter().chain(decompress).chain(sums).collect())
}

fn keys(ring: &Keyring) -> Option<Vec<CipherKey<'_>>> {
    let keys: Vec<CipherKey<'_>> = ring
        .keys()
        .map(|(id, passphrase)| CipherKey {
            name: id.as_str(),
            digest: Some(digest(passphrase)),
            passphrase: PassphraseBytes(passphrase.expose().as_bytes()),
        })
        .collect();
    (keys.len() <= CIPHER_KEYS_MAX).then_some(keys)
}
