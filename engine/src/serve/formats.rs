//! Decrypts files that may have a header with the format of their repository.
//!
//! | first bytes | format | key |
//! | --- | --- | --- |
//! | `Salted__` | 5 | the only one, `0` |
//! | `PGBR`, three digits, `_` | the number | the only one, `0` |
//! | `PGBR`, three digits, `K`, a size, a name | the number | the one of this name |
//!
//! Salt and ciphertext follow. pgBackRest 2.60 reads info files and archived files like this, whatever their format.

use std::io::{self, Read};
use std::sync::{Mutex, PoisonError};

use protocol::filter::{CipherKey, Digest};
use repo_format::cipher::{Cipher, Decryptor, Framing, KeyDigest, MAGIC, Passphrase};

use super::Shared;
use super::stages::Stage;
use crate::{Error, ErrorCode, Result};

/// The first and the last format that has such a file.
const FORMATS: std::ops::RangeInclusive<u32> = 5..=6;
/// The size of the header without the name of a key.
const HEADER_BYTES: usize = MAGIC.len();
const PREFIX: &[u8] = b"PGBR";
/// The name of the only key.
const ONLY_KEY: &str = "0";

/// A key of a repository.
struct Key {
    name: String,
    digest: Option<KeyDigest>,
    passphrase: String,
}

/// The digest of a key.
///
/// # Errors
/// [`ErrorCode::FeatureNotSupported`] for MD5, which no repository has.
pub(super) fn key_digest(digest: Digest) -> Result<KeyDigest> {
    match digest {
        Digest::Sha1 => Ok(KeyDigest::Sha1),
        Digest::Sha256 => Ok(KeyDigest::Sha256),
        Digest::Md5 => Err(Error::new(ErrorCode::FeatureNotSupported, "keys derived with MD5 are not supported")),
    }
}

/// The passphrase of a filter as text.
///
/// # Errors
/// [`ErrorCode::Format`] if it is not UTF-8.
pub(super) fn passphrase_text(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes).map_err(|_| Error::new(ErrorCode::Format, "passphrase is not valid UTF-8"))
}

/// Decrypts a file, once its header has been read.
pub(super) struct FormatStage {
    state: State,
    keys: Vec<Key>,
    /// The key to use instead of the file's.
    key: Option<String>,
    /// The format that the file must have; 0 for any.
    expected: u32,
    format: Shared<u32>,
}

enum State {
    Header { input: Stage, bytes: Vec<u8> },
    Body(Box<Decryptor<Stage>>),
    Failed,
}

impl FormatStage {
    /// Returns the stage, and where the format will be.
    ///
    /// # Errors
    /// Those of [`key_digest`] and [`passphrase_text`].
    pub(super) fn new(
        input: Stage,
        keys: &[CipherKey<'_>],
        key: Option<&str>,
        expected: u32,
    ) -> Result<(Self, Shared<u32>)> {
        let owned = |key: &CipherKey<'_>| {
            Ok(Key {
                name: key.name.to_owned(),
                digest: key.digest.map(key_digest).transpose()?,
                passphrase: passphrase_text(key.passphrase.0)?.to_owned(),
            })
        };
        let keys = keys.iter().map(owned).collect::<Result<Vec<_>>>()?;
        let format = Shared::new(Mutex::new(0));
        let state = State::Header { input, bytes: Vec::new() };
        let stage = FormatStage { state, keys, key: key.map(str::to_owned), expected, format: Shared::clone(&format) };
        Ok((stage, format))
    }

    /// Returns the cipher for a file with this header.
    fn cipher(&self, header: &[u8]) -> Result<Cipher> {
        let (format, name) = parse(header)?;
        if self.expected != 0 && self.expected != format {
            let text = format!("expected repository format {} but found {format}", self.expected);
            return Err(Error::new(ErrorCode::Format, text));
        }
        let name = self.key.as_deref().unwrap_or(name);
        let missing = || Error::new(ErrorCode::Crypto, format!("unable to find cipher key '{name}'"));
        let key = self.keys.iter().find(|key| key.name == name).ok_or_else(missing)?;
        let of_format = if format > *FORMATS.start() { KeyDigest::Sha256 } else { KeyDigest::Sha1 };
        *self.format.lock().unwrap_or_else(PoisonError::into_inner) = format;
        let digest = key.digest.unwrap_or(of_format);
        Ok(Cipher::Aes256Cbc(Passphrase::with_digest(key.passphrase.as_str(), digest)))
    }
}

fn invalid() -> Error {
    Error::new(ErrorCode::Format, "invalid cipher header")
}

/// Returns how many bytes of the header are missing.
fn missing_bytes(header: &[u8]) -> usize {
    let size = match header {
        [b'P', b'G', b'B', b'R', _, _, _, b'K', size, ..] => HEADER_BYTES + 1 + usize::from(*size),
        [b'P', b'G', b'B', b'R', _, _, _, b'K'] => HEADER_BYTES + 1,
        _ => HEADER_BYTES,
    };
    size.saturating_sub(header.len())
}

/// Returns the format and the name of the key.
fn parse(header: &[u8]) -> Result<(u32, &str)> {
    if header == MAGIC {
        return Ok((*FORMATS.start(), ONLY_KEY));
    }
    let rest = header.strip_prefix(PREFIX).ok_or_else(|| Error::new(ErrorCode::Crypto, "cipher header invalid"))?;
    let (digits, rest) = rest.split_at_checked(3).ok_or_else(invalid)?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return Err(invalid());
    }
    let format = digits.iter().fold(0, |number, digit| number * 10 + u32::from(digit - b'0'));
    if !FORMATS.contains(&format) {
        let what = match format > *FORMATS.end() {
            true => "requires a newer version of pgBackRest",
            false => "is no longer supported by pgBackRest",
        };
        return Err(Error::new(ErrorCode::Format, format!("repository format {format} {what}"))
            .hint("pgBackRest 2.60.0 supports repository format 5 to 6."));
    }
    match rest {
        [b'_'] => Ok((format, ONLY_KEY)),
        [b'K', size, name @ ..] if *size > 0 && name.len() == usize::from(*size) => {
            Ok((format, std::str::from_utf8(name).map_err(|_| invalid())?))
        }
        _ => Err(invalid()),
    }
}

impl Read for FormatStage {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let State::Header { input, bytes } = &mut self.state {
            let missing = missing_bytes(bytes);
            if missing > 0 {
                // Nothing is read past the header
                let mut part = [0; 256];
                let read = input.read(&mut part[..missing.min(256)])?;
                if read == 0 {
                    return Err(Error::new(ErrorCode::Crypto, "cipher header missing").into());
                }
                bytes.extend_from_slice(&part[..read]);
                continue;
            }
            let State::Header { input, bytes } = std::mem::replace(&mut self.state, State::Failed) else { break };
            let cipher = self.cipher(&bytes)?;
            self.state = State::Body(Box::new(Decryptor::new(&cipher, Framing::Raw, input)));
        }
        match &mut self.state {
            State::Body(decryptor) => decryptor.read(buffer),
            _ => Err(invalid().into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use repo_format::cipher::Encryptor;

    use super::*;

    fn stored(header: &[u8], digest: KeyDigest) -> Vec<u8> {
        let mut stored = header.to_vec();
        let mut encryptor = Encryptor::new(&Cipher::Aes256Cbc(Passphrase::with_digest("secret", digest)), Framing::Raw);
        encryptor.push(b"plain", &mut stored).unwrap();
        encryptor.finish(&mut stored).unwrap();
        stored
    }

    fn read(file: &[u8], key: Option<&str>, digest: Option<Digest>, expected: u32) -> std::result::Result<u32, String> {
        let passphrase = protocol::filter::PassphraseBytes(b"secret");
        let keys = ["0", "12"].map(|name| CipherKey { name, digest, passphrase });
        let (mut stage, format) =
            FormatStage::new(Box::new(io::Cursor::new(file.to_vec())), &keys, key, expected).unwrap();
        let mut plain = Vec::new();
        match stage.read_to_end(&mut plain) {
            Ok(_) => {
                assert_eq!(plain, b"plain");
                Ok(*format.lock().unwrap())
            }
            Err(error) => Err(Error::from_io(ErrorCode::Unknown, "", error).to_string()),
        }
    }

    #[test]
    fn file_of_each_format_is_decrypted() {
        assert_eq!(read(&stored(b"Salted__", KeyDigest::Sha1), None, None, 0), Ok(5));
        assert_eq!(read(&stored(b"PGBR006_", KeyDigest::Sha256), None, None, 6), Ok(6));
        let named = stored(b"PGBR006K\x0212", KeyDigest::Sha1);
        assert_eq!(read(&named, None, Some(Digest::Sha1), 0), Ok(6));
    }

    #[test]
    fn header_that_is_not_valid_fails_as_in_pgbackrest() {
        let failure = |file: &[u8]| read(file, None, None, 0).unwrap_err();
        assert_eq!(failure(b""), "cipher header missing");
        assert_eq!(failure(b"PGBR006K\x05ab"), "cipher header missing");
        assert_eq!(failure(b"backup:current"), "cipher header invalid");
        assert_eq!(failure(b"PGBR0x6_________"), "invalid cipher header");
        assert_eq!(failure(b"PGBR006K\x00__"), "invalid cipher header");
        assert_eq!(failure(b"PGBR006K\x019........"), "unable to find cipher key '9'");
        assert!(failure(b"PGBR007_").starts_with("repository format 7 requires a newer version of pgBackRest\n"));
        let file = stored(b"Salted__", KeyDigest::Sha1);
        assert_eq!(read(&file, None, None, 6).unwrap_err(), "expected repository format 6 but found 5");
    }
}
