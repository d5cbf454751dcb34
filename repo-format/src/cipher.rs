//! Encryption of repositories: AES-256-CBC in the form of `openssl enc -aes-256-cbc -md sha1`.
//!
//! A stream consists of `Salted__` (omitted in raw framing), 8 bytes of salt, and the ciphertext with PKCS#7 padding.
//! OpenSSL's `EVP_BytesToKey` with SHA-1 and one iteration derives key and IV from the text of the passphrase (source:
//! pgBackRest `src/common/crypto/cipherBlock.c`). Streams are not authenticated: checksums elsewhere detect changed
//! bytes.

use std::fmt;
use std::io::{self, Read};

use aes::Aes256;
use aes::cipher::inout::InOutBuf;
use aes::cipher::{BlockModeDecrypt, BlockModeEncrypt, KeyIvInit};
use base64::Engine;
use secrecy::zeroize::{Zeroize, Zeroizing};
use secrecy::{ExposeSecret, SecretString};
use sha1::Digest;

use crate::read::read_some;
use crate::{Error, ErrorCode, Result, format};

type CbcEncryptor = cbc::Encryptor<Aes256>;
type CbcDecryptor = cbc::Decryptor<Aes256>;

/// The first bytes of a stream in full framing.
/// The first bytes of an encrypted file.
pub const MAGIC: &[u8; 8] = b"Salted__";
const SALT_SIZE: usize = 8;
const BLOCK_SIZE: usize = 16;
const KEY_SIZE: usize = 32;
/// Random bytes of a generated passphrase. 48 bytes yield exactly 64 base64 characters without padding.
const PASSPHRASE_RANDOM_BYTES: usize = 48;
/// Bytes of ciphertext that a [`Decryptor`] reads at a time.
const DECRYPT_BUFFER_BYTES: usize = 64 * 1024;

/// The digest that derives a key from a passphrase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyDigest {
    /// SHA-1: every key of repository format 5.
    #[default]
    Sha1,
    /// SHA-256: keys that were made at repository format 6.
    Sha256,
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

    /// Generates a passphrase: 48 random bytes of the system as 64 base64 characters. Returns a crypto error (095) if
    /// the system provides no randomness.
    pub fn generate() -> Result<Self> {
        let mut random = Zeroizing::new([0; PASSPHRASE_RANDOM_BYTES]);
        fill_random(&mut *random)?;
        Ok(Passphrase::new(base64::engine::general_purpose::STANDARD.encode(*random)))
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
}

impl Cipher {
    /// The cipher for a passphrase that may be missing.
    pub fn from_passphrase(passphrase: Option<&Passphrase>) -> Self {
        passphrase.map_or(Cipher::None, |passphrase| Cipher::Aes256Cbc(passphrase.clone()))
    }

    /// Returns whether bytes pass unchanged.
    pub fn is_none(&self) -> bool {
        matches!(self, Cipher::None)
    }

    /// The number of bytes that `size` bytes become.
    pub fn encrypted_size(&self, framing: Framing, size: u64) -> u64 {
        match self {
            Cipher::None => size,
            Cipher::Aes256Cbc(_) => framing.header_size() as u64 + (size / BLOCK_SIZE as u64 + 1) * BLOCK_SIZE as u64,
        }
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

/// Encrypts consecutive streams, each with its own salt.
#[derive(Debug)]
pub struct Encryptor(Option<AesEncryptor>);

#[derive(Debug)]
struct AesEncryptor {
    passphrase: Passphrase,
    framing: Framing,
    /// `Some` from a stream's first byte, after salt and header were written, to its end.
    stream: Option<CbcEncryptor>,
    /// Plain bytes that do not fill a block yet.
    partial: [u8; BLOCK_SIZE],
    partial_len: usize,
}

impl Drop for AesEncryptor {
    fn drop(&mut self) {
        self.partial.zeroize();
    }
}

impl Encryptor {
    /// Creates an encryptor. With [`Cipher::None`] it passes bytes unchanged.
    pub fn new(cipher: &Cipher, framing: Framing) -> Self {
        Encryptor(match cipher {
            Cipher::None => None,
            Cipher::Aes256Cbc(passphrase) => Some(AesEncryptor {
                passphrase: passphrase.clone(),
                framing,
                stream: None,
                partial: [0; BLOCK_SIZE],
                partial_len: 0,
            }),
        })
    }

    /// Adds plain bytes and appends to `out` what can be encrypted. Returns a crypto error (095) if the system provides
    /// no randomness.
    pub fn push(&mut self, data: &[u8], out: &mut Vec<u8>) -> Result<()> {
        match &mut self.0 {
            None => out.extend_from_slice(data),
            Some(aes) => aes.push(data, out)?,
        }
        Ok(())
    }

    /// Ends the stream and appends its last bytes to `out`. The next `push` begins a new stream. An empty stream
    /// consists of the header and a block of padding.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Result<()> {
        match &mut self.0 {
            None => Ok(()),
            Some(aes) => aes.finish(out),
        }
    }

    /// Abandons the current stream, so that the next `push` begins a new one.
    pub fn reset(&mut self) {
        if let Some(aes) = &mut self.0 {
            aes.stream = None;
            aes.partial_len = 0;
        }
    }
}

impl AesEncryptor {
    fn start(&mut self, out: &mut Vec<u8>) -> Result<CbcEncryptor> {
        let mut salt = [0; SALT_SIZE];
        fill_random(&mut salt)?;
        if self.framing == Framing::Full {
            out.extend_from_slice(MAGIC);
        }
        out.extend_from_slice(&salt);
        let (key, iv) = derive_key(&self.passphrase, &salt);
        self.partial_len = 0;
        Ok(CbcEncryptor::new((&*key).into(), (&*iv).into()))
    }

    fn push(&mut self, mut data: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.start(out)?,
        };
        out.reserve(data.len() + BLOCK_SIZE);
        let begin = out.len();
        if self.partial_len != 0 {
            let take = data.len().min(BLOCK_SIZE - self.partial_len);
            self.partial[self.partial_len..self.partial_len + take].copy_from_slice(&data[..take]);
            self.partial_len += take;
            data = &data[take..];
            if self.partial_len == BLOCK_SIZE {
                out.extend_from_slice(&self.partial);
                self.partial_len = 0;
            }
        }
        // If the partial block is not full, it took all of the data
        let (blocks, rest) = data.split_at(data.len() - data.len() % BLOCK_SIZE);
        out.extend_from_slice(blocks);
        if !rest.is_empty() {
            self.partial[..rest.len()].copy_from_slice(rest);
            self.partial_len = rest.len();
        }
        let (blocks, _) = InOutBuf::from(&mut out[begin..]).into_chunks();
        stream.encrypt_blocks_inout(blocks);
        self.stream = Some(stream);
        Ok(())
    }

    fn finish(&mut self, out: &mut Vec<u8>) -> Result<()> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.start(out)?,
        };
        let padding = BLOCK_SIZE - self.partial_len;
        // At most a block of 16, so it fits a byte.
        self.partial[self.partial_len..].fill(padding as u8);
        stream.encrypt_block((&mut self.partial).into());
        out.extend_from_slice(&self.partial);
        self.partial_len = 0;
        Ok(())
    }
}

/// Decrypts a stream while it is read.
///
/// Errors are crypto errors (095) inside an `io::Error`, which [`Error::from_io`] unwraps: a missing or wrong header,
/// ciphertext that is not a multiple of the block size, or wrong padding (the usual result of a wrong passphrase). A
/// stream of a newer repository format is a format error (029).
pub struct Decryptor<R> {
    reader: R,
    aes: Option<AesDecryptor>,
}

struct AesDecryptor {
    passphrase: Passphrase,
    framing: Framing,
    stream: Option<CbcDecryptor>,
    /// Plain bytes not returned yet at `start..end`, then ciphertext not decrypted yet up to `filled`. The last block
    /// read always stays encrypted, because only the end of the input shows that it contains the padding.
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    filled: usize,
    /// The most bytes that the buffer has held.
    used: usize,
    done: bool,
}

impl Drop for AesDecryptor {
    /// The decrypted bytes may contain the passphrase of other files.
    fn drop(&mut self) {
        self.buffer[..self.used].zeroize();
    }
}

impl<R: Read> Decryptor<R> {
    /// Creates a decryptor of everything that `reader` returns. With [`Cipher::None`] it passes bytes unchanged.
    pub fn new(cipher: &Cipher, framing: Framing, reader: R) -> Self {
        let aes = match cipher {
            Cipher::None => None,
            Cipher::Aes256Cbc(passphrase) => Some(AesDecryptor {
                passphrase: passphrase.clone(),
                framing,
                stream: None,
                buffer: vec![0; DECRYPT_BUFFER_BYTES].into_boxed_slice(),
                start: 0,
                end: 0,
                filled: 0,
                used: 0,
                done: false,
            }),
        };
        Decryptor { reader, aes }
    }

    /// Begins a new stream from another reader, keeping buffer and passphrase. Returns the old reader.
    pub fn reset(&mut self, reader: R) -> R {
        if let Some(aes) = &mut self.aes {
            aes.stream = None;
            (aes.start, aes.end, aes.filled, aes.done) = (0, 0, 0, false);
        }
        std::mem::replace(&mut self.reader, reader)
    }

    /// The reader, which has been read to its end if this one has.
    pub fn into_inner(self) -> R {
        self.reader
    }
}

impl AesDecryptor {
    /// Reads until plain bytes are available or the stream has ended.
    fn fill(&mut self, reader: &mut impl Read) -> io::Result<()> {
        // The undecrypted rest goes to the front.
        self.buffer.copy_within(self.end..self.filled, 0);
        self.filled -= self.end;
        (self.start, self.end) = (0, 0);
        while self.start == self.end && !self.done {
            let read = read_some(reader, &mut self.buffer[self.filled..])?;
            self.filled += read;
            self.used = self.used.max(self.filled);
            if self.stream.is_none() {
                let header_size = self.framing.header_size();
                if self.filled >= header_size {
                    self.start_stream()?;
                    self.buffer.copy_within(header_size..self.filled, 0);
                    self.filled -= header_size;
                } else if read == 0 {
                    return Err(Error::new(ErrorCode::Crypto, "cipher header missing").into());
                }
            }
            if let Some(stream) = &mut self.stream {
                if read == 0 {
                    self.done = true;
                    self.end = finish_blocks(stream, &mut self.buffer[..self.filled])?;
                    self.filled = self.end;
                } else {
                    let end = self.filled.saturating_sub(1) / BLOCK_SIZE * BLOCK_SIZE;
                    decrypt_blocks(stream, &mut self.buffer[..end]);
                    self.end = end;
                }
            }
        }
        Ok(())
    }

    fn start_stream(&mut self) -> Result<()> {
        let header = &self.buffer[..self.framing.header_size()];
        let salt = salt_of(self.framing, header)?;
        let (key, iv) = derive_key(&self.passphrase, salt);
        self.stream = Some(CbcDecryptor::new((&*key).into(), (&*iv).into()));
        Ok(())
    }
}

/// The salt in a stream's header.
fn salt_of(framing: Framing, header: &[u8]) -> Result<&[u8]> {
    match framing {
        Framing::Raw => Ok(header),
        Framing::Full => {
            format::check_header(header)?;
            header.strip_prefix(MAGIC.as_slice()).ok_or_else(|| Error::new(ErrorCode::Crypto, "cipher header invalid"))
        }
    }
}

/// Decrypts whole blocks in place, several at a time.
fn decrypt_blocks(stream: &mut CbcDecryptor, data: &mut [u8]) {
    let (blocks, _) = InOutBuf::from(data).into_chunks();
    stream.decrypt_blocks_inout(blocks);
}

/// Decrypts the last blocks and checks the padding. Returns the number of plain bytes.
fn finish_blocks(stream: &mut CbcDecryptor, data: &mut [u8]) -> Result<usize> {
    let flush_error = || Error::new(ErrorCode::Crypto, "unable to flush");
    if data.is_empty() || !data.len().is_multiple_of(BLOCK_SIZE) {
        return Err(flush_error());
    }
    decrypt_blocks(stream, data);
    let padding = usize::from(data[data.len() - 1]);
    if padding == 0 || padding > BLOCK_SIZE {
        return Err(flush_error());
    }
    let (plain, pad) = data.split_at(data.len() - padding);
    if pad.iter().any(|&byte| usize::from(byte) != padding) {
        return Err(flush_error());
    }
    Ok(plain.len())
}

impl<R: Read> Read for Decryptor<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let Some(aes) = &mut self.aes else { return self.reader.read(out) };
        if out.is_empty() {
            return Ok(0);
        }
        if aes.start == aes.end {
            aes.fill(&mut self.reader)?;
        }
        let take = out.len().min(aes.end - aes.start);
        out[..take].copy_from_slice(&aes.buffer[aes.start..aes.start + take]);
        aes.start += take;
        Ok(take)
    }
}

impl<R> fmt::Debug for Decryptor<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decryptor").field("encrypted", &self.aes.is_some()).finish_non_exhaustive()
    }
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
    let Cipher::Aes256Cbc(passphrase) = cipher else { return Ok(data.to_vec()) };
    let Some((header, ciphertext)) = data.split_at_checked(framing.header_size()) else {
        return Err(Error::new(ErrorCode::Crypto, "cipher header missing"));
    };
    let salt = salt_of(framing, header)?;
    let (key, iv) = derive_key(passphrase, salt);
    let mut plain = ciphertext.to_vec();
    let len = finish_blocks(&mut CbcDecryptor::new((&*key).into(), (&*iv).into()), &mut plain)?;
    plain.truncate(len);
    Ok(plain)
}

#[cfg(test)]
mod tests;
