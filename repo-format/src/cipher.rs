//! Encryption of repositories: AES-256-CBC in the form of `openssl enc -aes-256-cbc -md sha1`.
//!
//! A stream is `Salted__` (left out in raw framing), 8 bytes of salt, then the ciphertext with PKCS#7 padding. Key and IV come
//! from OpenSSL's `EVP_BytesToKey` with SHA-1 and one iteration over the passphrase's text (source: pgBackRest
//! `src/common/crypto/cipherBlock.c`). There is no authentication: checksums elsewhere find changed bytes.

use std::fmt;
use std::io::{self, Read};

use aes::Aes256;
use aes::cipher::inout::InOutBuf;
use aes::cipher::{BlockModeDecrypt, BlockModeEncrypt, KeyIvInit};
use base64::Engine;
use secrecy::zeroize::{Zeroize, Zeroizing};
use secrecy::{ExposeSecret, SecretString};
use sha1::Digest;

use crate::{Error, ErrorCode, Result, format};

type CbcEncryptor = cbc::Encryptor<Aes256>;
type CbcDecryptor = cbc::Decryptor<Aes256>;

/// What a stream in full framing starts with.
const MAGIC: &[u8; 8] = b"Salted__";
const SALT_SIZE: usize = 8;
const BLOCK_SIZE: usize = 16;
const KEY_SIZE: usize = 32;
/// Random bytes of a generated passphrase; 48 give exactly 64 base64 characters without padding.
const PASSPHRASE_RANDOM_BYTES: usize = 48;
/// Ciphertext that a [`Decryptor`] reads at a time.
const DECRYPT_BUFFER_BYTES: usize = 64 * 1024;

/// A passphrase, which `Debug` does not show.
#[derive(Clone)]
pub struct Passphrase(SecretString);

impl Passphrase {
    /// A passphrase from its text, which is used as it is: the 64 characters of a generated one are not decoded.
    pub fn new(text: impl Into<String>) -> Self {
        Passphrase(SecretString::from(text.into()))
    }

    /// A new random passphrase: 48 bytes of the system's randomness as 64 base64 characters. Crypto error [095] if the system
    /// gives no randomness.
    pub fn generate() -> Result<Self> {
        let mut random = Zeroizing::new([0; PASSPHRASE_RANDOM_BYTES]);
        fill_random(&mut *random)?;
        Ok(Passphrase::new(base64::engine::general_purpose::STANDARD.encode(*random)))
    }

    /// The text, to be written into a file that is itself encrypted and nowhere else.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl PartialEq for Passphrase {
    fn eq(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}

impl Eq for Passphrase {}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(<redacted>)")
    }
}

/// How a file or a part of one is encrypted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Cipher {
    /// Not at all; bytes pass unchanged.
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

    /// Whether bytes pass unchanged.
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

/// Whether a stream has all of its header and trailer. Compression and encryption both have the two forms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Framing {
    /// A complete stream, readable by the field's common programs.
    #[default]
    Full,
    /// Without what the manifest records anyway: gz as a zlib stream, lz4 without content checksum, encryption without magic.
    /// Used for block incremental parts and for members of raw bundles.
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

/// What a stream is encrypted with. It does not stay in memory when it is not used any more.
type KeyAndIv = (Zeroizing<[u8; KEY_SIZE]>, Zeroizing<[u8; BLOCK_SIZE]>);

/// `EVP_BytesToKey` with SHA-1 and one iteration: hashes of (previous hash, passphrase, salt) until 48 bytes are there.
fn derive_key(passphrase: &Passphrase, salt: &[u8]) -> KeyAndIv {
    const HASH_SIZE: usize = 20;
    let mut material = Zeroizing::new([0u8; 3 * HASH_SIZE]);
    for begin in (0..material.len()).step_by(HASH_SIZE) {
        let mut hasher = sha1::Sha1::new();
        hasher.update(&material[begin.saturating_sub(HASH_SIZE)..begin]);
        hasher.update(passphrase.expose().as_bytes());
        hasher.update(salt);
        let hash = Zeroizing::new(<[u8; HASH_SIZE]>::from(hasher.finalize()));
        material[begin..begin + HASH_SIZE].copy_from_slice(&*hash);
    }
    let mut key = Zeroizing::new([0; KEY_SIZE]);
    let mut iv = Zeroizing::new([0; BLOCK_SIZE]);
    key.copy_from_slice(&material[..KEY_SIZE]);
    iv.copy_from_slice(&material[KEY_SIZE..KEY_SIZE + BLOCK_SIZE]);
    (key, iv)
}

/// Encrypts streams, one after the other, each with its own salt.
#[derive(Debug)]
pub struct Encryptor(Option<AesEncryptor>);

#[derive(Debug)]
struct AesEncryptor {
    passphrase: Passphrase,
    framing: Framing,
    /// Set from a stream's first byte, when salt and header have been written, to its end.
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
    /// An encryptor; with [`Cipher::None`] it passes bytes unchanged.
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

    /// Adds plain bytes and appends to `out` what can be encrypted. Crypto error [095] if the system gives no randomness.
    pub fn push(&mut self, data: &[u8], out: &mut Vec<u8>) -> Result<()> {
        match &mut self.0 {
            None => out.extend_from_slice(data),
            Some(aes) => aes.push(data, out)?,
        }
        Ok(())
    }

    /// Ends the stream, appending its last bytes to `out`; the next `push` begins a new stream. A stream without any byte has
    /// its header and a block of padding too.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Result<()> {
        match &mut self.0 {
            None => Ok(()),
            Some(aes) => aes.finish(out),
        }
    }

    /// Abandons a stream that was begun, so that the next `push` begins a new one.
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
        // While the partial block is not full all of the data has gone into it.
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

/// Decrypts one stream while it is read.
///
/// Errors are crypto errors [095] inside an `io::Error` ([`Error::from_io`] takes them out): a missing or wrong header,
/// ciphertext that is not whole blocks, wrong padding (which a wrong passphrase nearly always gives). A stream of a newer
/// repository format is a format error [029].
pub struct Decryptor<R> {
    reader: R,
    aes: Option<AesDecryptor>,
}

struct AesDecryptor {
    passphrase: Passphrase,
    framing: Framing,
    stream: Option<CbcDecryptor>,
    /// Plain bytes not given out yet at `start..end`, then ciphertext not decrypted yet up to `filled`: always the last block
    /// read, because only at the end of the input it is known to hold the padding.
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    filled: usize,
    /// The most bytes that the buffer has held.
    used: usize,
    done: bool,
}

impl Drop for AesDecryptor {
    /// What was decrypted may be the passphrase of other files.
    fn drop(&mut self) {
        self.buffer[..self.used].zeroize();
    }
}

impl<R: Read> Decryptor<R> {
    /// A decryptor of what `reader` gives up to its end; with [`Cipher::None`] it passes bytes unchanged.
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

    /// Begins a new stream from another reader, keeping buffer and passphrase; gives the old reader back.
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
    /// Reads on until plain bytes are there or the stream has ended.
    fn fill(&mut self, reader: &mut impl Read) -> io::Result<()> {
        // The undecrypted rest goes to the front.
        self.buffer.copy_within(self.end..self.filled, 0);
        self.filled -= self.end;
        (self.start, self.end) = (0, 0);
        while self.start == self.end && !self.done {
            let read = match reader.read(&mut self.buffer[self.filled..]) {
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
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

/// Decrypts the last blocks and checks the padding; gives the number of plain bytes.
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

/// Encrypts a whole buffer in full framing, as info files are stored. Crypto error [095] if the system gives no randomness.
pub fn encrypt(cipher: &Cipher, data: &[u8]) -> Result<Vec<u8>> {
    encrypt_framed(cipher, Framing::Full, data)
}

/// Encrypts a whole buffer.
pub fn encrypt_framed(cipher: &Cipher, framing: Framing, data: &[u8]) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(data.len() + framing.header_size() + BLOCK_SIZE);
    let mut encryptor = Encryptor::new(cipher, framing);
    encryptor.push(data, &mut out)?;
    encryptor.finish(&mut out)?;
    Ok(out)
}

/// Decrypts a whole buffer in full framing. Crypto error [095] for a wrong header, length or padding.
pub fn decrypt(cipher: &Cipher, data: &[u8]) -> Result<Vec<u8>> {
    decrypt_framed(cipher, Framing::Full, data)
}

/// Decrypts a whole buffer. Crypto error [095] for a wrong header, length or padding.
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
