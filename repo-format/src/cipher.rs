//! Encryption of repositories: AES-256-CBC in the form of `openssl enc -aes-256-cbc -md sha1`.
//!
//! A stream consists of `Salted__` (omitted in raw framing), 8 bytes of salt, and the ciphertext with PKCS#7 padding. At
//! repository format 6, info files and archived files have another header in its place (`header.rs`).
//! OpenSSL's `EVP_BytesToKey` with one iteration derives key and IV from the text of the passphrase (source: pgBackRest
//! `src/common/crypto/cipherBlock.c`), with SHA-1 for keys of format 5 and SHA-256 for those made at format 6. Streams
//! are not authenticated: checksums elsewhere detect changed bytes.

mod decryptor;
mod encryptor;
mod header;
mod keyring;
mod newer;

use std::fmt;
use std::sync::Arc;

use base64::Engine;
use secrecy::zeroize::{Zeroize, Zeroizing};
use secrecy::{ExposeSecret, SecretString};
use sha1::Digest;

pub use self::decryptor::Decryptor;
pub use self::encryptor::Encryptor;
pub(crate) use self::header::refuse as refuse_header;
pub use self::header::{ParsedHeader, StreamHeader, is_encrypted};
pub use self::keyring::{KeyId, Keyring};
use self::newer::NewerKeys;
use crate::format::RepoFormat;
use crate::{Error, ErrorCode, Result};

/// The first bytes of an encrypted stream in full framing without a header of format 6.
pub const MAGIC: &[u8; 8] = b"Salted__";
const SALT_SIZE: usize = 8;
const BLOCK_SIZE: usize = 16;
const KEY_SIZE: usize = 32;
/// Random bytes of a generated passphrase. 48 bytes yield exactly 64 base64 characters without padding.
const PASSPHRASE_RANDOM_BYTES: usize = 48;

/// The digest that derives a key from a passphrase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyDigest {
    /// SHA-1: every key of repository format 5.
    #[default]
    Sha1,
    /// SHA-256: keys that were made at repository format 6.
    Sha256,
}

impl KeyDigest {
    /// The digest of keys that are made at this format.
    pub fn of(format: RepoFormat) -> Self {
        match format {
            RepoFormat::V5 => KeyDigest::Sha1,
            RepoFormat::V6 => KeyDigest::Sha256,
        }
    }

    /// The name in files.
    pub fn name(self) -> &'static str {
        match self {
            KeyDigest::Sha1 => "sha1",
            KeyDigest::Sha256 => "sha256",
        }
    }

    /// Returns the digest with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        [KeyDigest::Sha1, KeyDigest::Sha256].into_iter().find(|digest| digest.name() == name)
    }
}

/// A passphrase, which `Debug` does not show, and the digest that derives its keys.
#[derive(Clone)]
pub struct Passphrase(SecretString, KeyDigest);

impl Passphrase {
    /// Creates a passphrase from its text. The text is used unchanged: the 64 characters of a generated passphrase are
    /// not decoded.
    pub fn new(text: impl Into<String>) -> Self {
        Self::with_digest(text, KeyDigest::default())
    }

    /// Creates a passphrase whose keys are derived with this digest.
    pub fn with_digest(text: impl Into<String>, digest: KeyDigest) -> Self {
        Passphrase(SecretString::from(text.into()), digest)
    }

    /// Generates a passphrase for a format: 48 random bytes of the system as 64 base64 characters. Returns a crypto error
    /// (095) if the system provides no randomness.
    pub fn generate(format: RepoFormat) -> Result<Self> {
        let mut random = Zeroizing::new([0; PASSPHRASE_RANDOM_BYTES]);
        fill_random(&mut *random)?;
        let text = base64::engine::general_purpose::STANDARD.encode(*random);
        Ok(Passphrase::with_digest(text, KeyDigest::of(format)))
    }

    /// The digest that derives its keys.
    pub fn digest(&self) -> KeyDigest {
        self.1
    }

    fn derived_with(&self, digest: KeyDigest) -> Self {
        Passphrase(self.0.clone(), digest)
    }

    /// Returns the text. Write it only into a file that is itself encrypted.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl PartialEq for Passphrase {
    fn eq(&self, other: &Self) -> bool {
        self.expose() == other.expose() && self.1 == other.1
    }
}

impl Eq for Passphrase {}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(<redacted>)")
    }
}

/// How a file or a part of it is encrypted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Cipher {
    /// No encryption; bytes pass unchanged.
    #[default]
    None,
    /// AES-256 in CBC mode with this passphrase.
    Aes256Cbc(Passphrase),
    /// AES-256 in CBC mode, for info files and archived files, whose header may name their format and key.
    Headed(Arc<HeadedCipher>),
}

/// The keys of files that may have a header with their format.
#[derive(Debug)]
pub struct HeadedCipher {
    keys: HeadedKeys,
    /// The format of what is written.
    format: RepoFormat,
    /// Where to look for a key that `keys` lacks.
    newer: Option<NewerKeys>,
}

impl PartialEq for HeadedCipher {
    fn eq(&self, other: &Self) -> bool {
        (&self.keys, self.format) == (&other.keys, other.format)
    }
}

impl Eq for HeadedCipher {}

#[derive(Clone, Debug, PartialEq, Eq)]
enum HeadedKeys {
    /// Any header leads to this passphrase, and its format to the digest.
    Main(Passphrase),
    /// The header names the key.
    Ring(Keyring),
}

impl HeadedCipher {
    /// The passphrase for a stream that was read with this header.
    fn for_reading(&self, header: &StreamHeader) -> Result<Passphrase> {
        match &self.keys {
            HeadedKeys::Main(_) if header.key_id() != KeyId::ZERO => {
                Err(Error::new(ErrorCode::Crypto, format!("unable to find cipher key '{}'", header.key_id())))
            }
            HeadedKeys::Main(passphrase) => Ok(passphrase.derived_with(KeyDigest::of(header.format()))),
            HeadedKeys::Ring(keys) => {
                let found = keys.find(header.key_id()).cloned();
                match &self.newer {
                    Some(newer) => found.or_else(|unknown| newer.find(header.key_id(), unknown)),
                    None => found,
                }
            }
        }
    }

    /// Header and passphrase of new streams.
    fn for_writing(&self) -> Result<(StreamHeader, Passphrase)> {
        match (&self.keys, self.format) {
            (HeadedKeys::Main(passphrase), RepoFormat::V5) => Ok((StreamHeader::Magic, passphrase.clone())),
            (HeadedKeys::Main(passphrase), format) => {
                Ok((StreamHeader::Format(format), passphrase.derived_with(KeyDigest::of(format))))
            }
            (HeadedKeys::Ring(keys), RepoFormat::V5) => Ok((StreamHeader::Magic, keys.find(KeyId::ZERO)?.clone())),
            (HeadedKeys::Ring(keys), format) => {
                let id = keys.current_id();
                Ok((StreamHeader::Key(format, id.clone()), keys.find(id.as_str())?.clone()))
            }
        }
    }
}

impl Cipher {
    /// The cipher for a passphrase that may be missing.
    pub fn from_passphrase(passphrase: Option<&Passphrase>) -> Self {
        passphrase.map_or(Cipher::None, |passphrase| Cipher::Aes256Cbc(passphrase.clone()))
    }

    /// How an info file is encrypted if this is the cipher of the repository's main passphrase. What is written has this
    /// format; a reader follows the header.
    #[must_use]
    pub fn of_info_file(&self, format: RepoFormat) -> Self {
        match self {
            Cipher::Aes256Cbc(main) => {
                Cipher::Headed(Arc::new(HeadedCipher { keys: HeadedKeys::Main(main.clone()), format, newer: None }))
            }
            other => other.clone(),
        }
    }

    /// How archived files are encrypted with the keys of an archive.info of this format.
    pub fn of_archive(keys: Option<&Keyring>, format: RepoFormat) -> Self {
        keys.map_or(Cipher::None, |keys| {
            Cipher::Headed(Arc::new(HeadedCipher { keys: HeadedKeys::Ring(keys.clone()), format, newer: None }))
        })
    }

    /// The same cipher of archived files, which asks `load` for the keys of now when a header names one that it lacks. A
    /// file may have a key that is newer than the keys that were loaded. Does nothing for other ciphers.
    #[must_use]
    pub fn with_newer_keys(self, load: impl Fn() -> Result<Option<Keyring>> + Send + Sync + 'static) -> Self {
        match self {
            Cipher::Headed(headed) if matches!(headed.keys, HeadedKeys::Ring(_)) => {
                let (keys, newer) = (headed.keys.clone(), Some(NewerKeys::new(load)));
                Cipher::Headed(Arc::new(HeadedCipher { keys, format: headed.format, newer }))
            }
            other => other,
        }
    }

    /// The passphrase of new streams without a header of format 6; `None` only without encryption.
    pub fn passphrase(&self) -> Option<&Passphrase> {
        match self {
            Cipher::None => None,
            Cipher::Aes256Cbc(passphrase) => Some(passphrase),
            Cipher::Headed(headed) => Some(match &headed.keys {
                HeadedKeys::Main(passphrase) => passphrase,
                HeadedKeys::Ring(keys) => keys.current(),
            }),
        }
    }

    /// The keys of archived files, one of which the header of each names; `None` for other ciphers.
    pub fn keyring(&self) -> Option<&Keyring> {
        match self {
            Cipher::Headed(headed) => match &headed.keys {
                HeadedKeys::Ring(keys) => Some(keys),
                HeadedKeys::Main(_) => None,
            },
            Cipher::None | Cipher::Aes256Cbc(_) => None,
        }
    }

    /// Returns whether bytes pass unchanged.
    pub fn is_none(&self) -> bool {
        matches!(self, Cipher::None)
    }

    /// The number of bytes that `size` bytes become in a stream without a header of format 6.
    pub fn encrypted_size(&self, framing: Framing, size: u64) -> u64 {
        match self {
            Cipher::None => size,
            Cipher::Aes256Cbc(_) | Cipher::Headed(_) => {
                framing.header_size() as u64 + (size / BLOCK_SIZE as u64 + 1) * BLOCK_SIZE as u64
            }
        }
    }

    /// The bytes before the salt of a new stream, and its passphrase; `None` without encryption.
    fn for_writing(&self, framing: Framing) -> Result<Option<(Vec<u8>, Passphrase)>> {
        let (header, passphrase) = match self {
            Cipher::None => return Ok(None),
            Cipher::Aes256Cbc(passphrase) => (StreamHeader::Magic, passphrase.clone()),
            Cipher::Headed(headed) => headed.for_writing()?,
        };
        let prefix = if framing == Framing::Raw { Vec::new() } else { header.to_bytes() };
        Ok(Some((prefix, passphrase)))
    }
}

/// Whether a stream has its complete header and trailer. Compression and encryption both have the two forms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Framing {
    /// A complete stream, readable by the field's common programs.
    #[default]
    Full,
    /// Omits what the manifest records anyway: gz is a zlib stream, lz4 has no content checksum, encryption has no
    /// magic. Used for block incremental parts and for members of raw bundles.
    Raw,
}

impl Framing {
    fn header_size(self) -> usize {
        match self {
            Framing::Full => MAGIC.len() + SALT_SIZE,
            Framing::Raw => SALT_SIZE,
        }
    }
}

fn fill_random(bytes: &mut [u8]) -> Result<()> {
    getrandom::fill(bytes).map_err(|error| Error::new(ErrorCode::Crypto, "unable to get random bytes").cause(error))
}

/// Key and IV of a stream. They are cleared from memory after use.
type KeyAndIv = (Zeroizing<[u8; KEY_SIZE]>, Zeroizing<[u8; BLOCK_SIZE]>);

/// `EVP_BytesToKey` with one iteration: hashes (previous hash, passphrase, salt) until 48 bytes are complete.
fn derive_key(passphrase: &Passphrase, salt: &[u8]) -> KeyAndIv {
    match passphrase.1 {
        KeyDigest::Sha1 => derive_key_with::<sha1::Sha1>(passphrase, salt),
        KeyDigest::Sha256 => derive_key_with::<sha2::Sha256>(passphrase, salt),
    }
}

fn derive_key_with<D: Digest>(passphrase: &Passphrase, salt: &[u8]) -> KeyAndIv {
    let mut material = Zeroizing::new(Vec::with_capacity(KEY_SIZE + BLOCK_SIZE + <D as Digest>::output_size()));
    let mut begin = 0;
    while material.len() < KEY_SIZE + BLOCK_SIZE {
        let mut hasher = D::new();
        hasher.update(&material[begin..]);
        hasher.update(passphrase.expose().as_bytes());
        hasher.update(salt);
        begin = material.len();
        let mut hash = hasher.finalize();
        material.extend_from_slice(&hash);
        hash.as_mut_slice().zeroize();
    }
    let mut key = Zeroizing::new([0; KEY_SIZE]);
    let mut iv = Zeroizing::new([0; BLOCK_SIZE]);
    key.copy_from_slice(&material[..KEY_SIZE]);
    iv.copy_from_slice(&material[KEY_SIZE..KEY_SIZE + BLOCK_SIZE]);
    (key, iv)
}

/// Encrypts a buffer in full framing, the form of info files. Returns a crypto error (095) if the system provides no
/// randomness.
pub fn encrypt(cipher: &Cipher, data: &[u8]) -> Result<Vec<u8>> {
    encrypt_framed(cipher, Framing::Full, data)
}

/// Encrypts a buffer.
pub fn encrypt_framed(cipher: &Cipher, framing: Framing, data: &[u8]) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(data.len() + framing.header_size() + BLOCK_SIZE);
    let mut encryptor = Encryptor::new(cipher, framing);
    encryptor.push(data, &mut out)?;
    encryptor.finish(&mut out)?;
    Ok(out)
}

/// Decrypts a buffer in full framing. Returns a crypto error (095) for a wrong header, length or padding.
pub fn decrypt(cipher: &Cipher, data: &[u8]) -> Result<Vec<u8>> {
    decrypt_framed(cipher, Framing::Full, data)
}

/// Decrypts a buffer. Returns a crypto error (095) for a wrong header, length or padding.
pub fn decrypt_framed(cipher: &Cipher, framing: Framing, data: &[u8]) -> Result<Vec<u8>> {
    if cipher.is_none() {
        return Ok(data.to_vec());
    }
    decryptor::decrypt_whole(cipher, framing, data)
}

#[cfg(test)]
mod tests;
