//! Decryption while a stream is read.

use std::fmt;
use std::io::{self, Read};
use std::sync::Arc;

use aes::Aes256;
use aes::cipher::inout::InOutBuf;
use aes::cipher::{BlockModeDecrypt, KeyIvInit};
use secrecy::zeroize::Zeroize;

use super::header::{self, Parsed, StreamHeader};
use super::{BLOCK_SIZE, Cipher, Framing, HeadedCipher, MAGIC, Passphrase, SALT_SIZE, derive_key};
use crate::read::read_some;
use crate::{Error, ErrorCode, Result};

pub(super) type CbcDecryptor = cbc::Decryptor<Aes256>;

/// Bytes of ciphertext that a [`Decryptor`] reads at a time.
const DECRYPT_BUFFER_BYTES: usize = 64 * 1024;

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
    keys: Keys,
    stream: Option<CbcDecryptor>,
    /// The header of the current stream, once it has been read.
    header: Option<StreamHeader>,
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
        let aes = Keys::new(cipher, framing).map(|keys| AesDecryptor {
            keys,
            stream: None,
            header: None,
            buffer: vec![0; DECRYPT_BUFFER_BYTES].into_boxed_slice(),
            start: 0,
            end: 0,
            filled: 0,
            used: 0,
            done: false,
        });
        Decryptor { reader, aes }
    }

    /// The header of the stream; `None` as long as nothing was read, and without a header or encryption.
    pub fn header(&self) -> Option<&StreamHeader> {
        self.aes.as_ref()?.header.as_ref()
    }

    /// Begins a new stream from another reader, keeping buffer and passphrase. Returns the old reader.
    pub fn reset(&mut self, reader: R) -> R {
        if let Some(aes) = &mut self.aes {
            (aes.stream, aes.header) = (None, None);
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
                match self.keys.begin(&self.buffer[..self.filled])? {
                    Some(Begun { stream, header, header_size }) => {
                        (self.stream, self.header) = (Some(stream), header);
                        self.buffer.copy_within(header_size..self.filled, 0);
                        self.filled -= header_size;
                    }
                    // The buffer is larger than any header, so that it can't be full
                    None if read == 0 => return Err(header_missing().into()),
                    None => {}
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
}

/// How streams are decrypted.
#[derive(Clone)]
enum Keys {
    /// Only the salt precedes the ciphertext.
    Raw(Passphrase),
    /// `Salted__` and the salt precede the ciphertext.
    Magic(Passphrase),
    /// Any header.
    Headed(Arc<HeadedCipher>),
}

impl Keys {
    /// Returns the keys of a cipher; `None` without encryption.
    fn new(cipher: &Cipher, framing: Framing) -> Option<Self> {
        match (cipher, framing) {
            (Cipher::None, _) => None,
            (Cipher::Aes256Cbc(passphrase), Framing::Raw) => Some(Keys::Raw(passphrase.clone())),
            (Cipher::Aes256Cbc(passphrase), Framing::Full) => Some(Keys::Magic(passphrase.clone())),
            (Cipher::Headed(headed), _) => Some(Keys::Headed(Arc::clone(headed))),
        }
    }

    /// Begins a stream with these first bytes; `None` if more of them are needed.
    fn begin(&self, start: &[u8]) -> Result<Option<Begun>> {
        let (header, size) = match self {
            Keys::Raw(_) if start.len() < SALT_SIZE => return Ok(None),
            Keys::Raw(passphrase) => return Ok(Some(Begun::new(passphrase, None, start, 0))),
            Keys::Magic(_) if !start.starts_with(MAGIC) => {
                let invalid = || Error::new(ErrorCode::Crypto, "cipher header invalid");
                if start.len() < MAGIC.len() + SALT_SIZE {
                    return Ok(None);
                }
                header::refuse(start, invalid)?;
                return Err(invalid());
            }
            _ => match header::parse(start)? {
                Parsed::Needs(_) => return Ok(None),
                Parsed::Header(header, size) => (header, size),
            },
        };
        let passphrase = match self {
            Keys::Raw(passphrase) | Keys::Magic(passphrase) => passphrase,
            Keys::Headed(headed) => &headed.for_reading(&header)?,
        };
        Ok(Some(Begun::new(passphrase, Some(header), start, size)))
    }
}

/// A stream whose header has been read.
struct Begun {
    stream: CbcDecryptor,
    header: Option<StreamHeader>,
    /// The bytes before the ciphertext.
    header_size: usize,
}

impl Begun {
    fn new(passphrase: &Passphrase, header: Option<StreamHeader>, start: &[u8], size: usize) -> Self {
        let header_size = size + SALT_SIZE;
        let (key, iv) = derive_key(passphrase, &start[size..header_size]);
        Begun { stream: CbcDecryptor::new((&*key).into(), (&*iv).into()), header, header_size }
    }
}

fn header_missing() -> Error {
    Error::new(ErrorCode::Crypto, "cipher header missing")
}

/// Decrypts a buffer.
pub(super) fn decrypt_whole(cipher: &Cipher, framing: Framing, data: &[u8]) -> Result<Vec<u8>> {
    let Some(keys) = Keys::new(cipher, framing) else { return Ok(data.to_vec()) };
    let Some(mut begun) = keys.begin(data)? else { return Err(header_missing()) };
    let mut plain = data[begun.header_size..].to_vec();
    let len = finish_blocks(&mut begun.stream, &mut plain)?;
    plain.truncate(len);
    Ok(plain)
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
