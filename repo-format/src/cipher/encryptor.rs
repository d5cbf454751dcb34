//! Encryption while bytes arrive.

use aes::Aes256;
use aes::cipher::inout::InOutBuf;
use aes::cipher::{BlockModeEncrypt, KeyIvInit};
use secrecy::zeroize::Zeroize;

use super::{BLOCK_SIZE, Cipher, Framing, Passphrase, SALT_SIZE, derive_key, fill_random};
use crate::{Error, ErrorCode, Result};

pub(super) type CbcEncryptor = cbc::Encryptor<Aes256>;

/// Encrypts consecutive streams, each with its own salt.
#[derive(Debug)]
pub struct Encryptor(Option<AesEncryptor>);

#[derive(Debug)]
struct AesEncryptor {
    cipher: Cipher,
    framing: Framing,
    /// The bytes before the salt, and the passphrase. Looked up once, because a stream may be short.
    prefix: Option<(Vec<u8>, Passphrase)>,
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
            cipher => Some(AesEncryptor {
                cipher: cipher.clone(),
                prefix: None,
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
        let no_cipher = || Error::new(ErrorCode::Assert, "an encryptor without a cipher");
        let (prefix, passphrase) = match &mut self.prefix {
            Some(prefix) => prefix,
            none => none.insert(self.cipher.for_writing(self.framing)?.ok_or_else(no_cipher)?),
        };
        let mut salt = [0; SALT_SIZE];
        fill_random(&mut salt)?;
        out.extend_from_slice(prefix);
        out.extend_from_slice(&salt);
        let (key, iv) = derive_key(passphrase, &salt);
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
