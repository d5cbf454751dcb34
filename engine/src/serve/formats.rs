//! Decrypts files that may have a header with the format of their repository.
//!
//! pgBackRest 2.60 reads info files and archived files like this, whatever their format.

use std::io::{self, Read};
use std::sync::{Mutex, PoisonError};

use protocol::filter::{CipherKey, Digest};
use repo_format::cipher::{Cipher, Decryptor, Framing, KeyDigest, ParsedHeader, Passphrase, StreamHeader};

use super::Shared;
use super::stages::Stage;
use crate::{Error, ErrorCode, Result};

/// Bytes of a header that are read at a time.
const HEADER_PART_BYTES: usize = 256;

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
    fn cipher(&self, header: &StreamHeader) -> Result<Cipher> {
        let format = header.format();
        if self.expected != 0 && self.expected != format.number() {
            let text = format!("expected repository format {} but found {format}", self.expected);
            return Err(Error::new(ErrorCode::Format, text));
        }
        let name = self.key.as_deref().unwrap_or_else(|| header.key_id());
        let missing = || Error::new(ErrorCode::Crypto, format!("unable to find cipher key '{name}'"));
        let key = self.keys.iter().find(|key| key.name == name).ok_or_else(missing)?;
        *self.format.lock().unwrap_or_else(PoisonError::into_inner) = format.number();
        let digest = key.digest.unwrap_or_else(|| KeyDigest::of(format));
        Ok(Cipher::Aes256Cbc(Passphrase::with_digest(key.passphrase.as_str(), digest)))
    }

    /// Decrypts what follows the header, once it has been read. `rest` is what was read behind it.
    fn begin(&mut self, header: &StreamHeader, rest: Vec<u8>) -> Result<()> {
        let cipher = self.cipher(header)?;
        if let State::Header { input, .. } = std::mem::replace(&mut self.state, State::Failed) {
            let input: Stage = Box::new(io::Cursor::new(rest).chain(input));
            self.state = State::Body(Box::new(Decryptor::new(&cipher, Framing::Raw, input)));
        }
        Ok(())
    }
}

impl Read for FormatStage {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let (input, bytes) = match &mut self.state {
                State::Header { input, bytes } => (input, bytes),
                State::Body(decryptor) => return decryptor.read(buffer),
                State::Failed => return Err(Error::new(ErrorCode::Format, "invalid cipher header").into()),
            };
            match StreamHeader::parse(bytes)? {
                ParsedHeader::Needs(size) => {
                    let mut part = [0; HEADER_PART_BYTES];
                    let missing = size.saturating_sub(bytes.len()).min(HEADER_PART_BYTES);
                    let read = input.read(&mut part[..missing])?;
                    if read == 0 {
                        return Err(Error::new(ErrorCode::Crypto, "cipher header missing").into());
                    }
                    bytes.extend_from_slice(&part[..read]);
                }
                ParsedHeader::Header(header, end) => {
                    let rest = bytes.split_off(end);
                    self.begin(&header, rest)?;
                }
            }
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
        for file in [b"PGBR007_".as_slice(), b"PGBR007K\x05"] {
            assert!(failure(file).starts_with("repository format 7 requires a newer version of pgBackRest\n"));
        }
        let file = stored(b"Salted__", KeyDigest::Sha1);
        assert_eq!(read(&file, None, None, 6).unwrap_err(), "expected repository format 6 but found 5");
    }
}
