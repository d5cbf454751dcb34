//! Converts plain bytes to stored bytes: compressed, then encrypted.

use repo_format::cipher::{Cipher, Encryptor, Framing};
use repo_format::compress::{CompressType, Compression, Compressor};
use repo_format::{ErrorCode, Result};

/// Encodes consecutive streams, keeping the codec's memory.
pub(crate) struct StreamEncoder {
    compressor: Option<Compressor>,
    encryptor: Option<Encryptor>,
    /// Compressed bytes on their way to the encryptor.
    compressed: Vec<u8>,
}

impl StreamEncoder {
    pub(crate) fn new(compression: Compression, cipher: &Cipher, framing: Framing) -> Result<Self> {
        Ok(StreamEncoder {
            compressor: match compression.kind {
                CompressType::None => None,
                _ => Some(Compressor::new(compression, framing)?),
            },
            encryptor: (!cipher.is_none()).then(|| Encryptor::new(cipher, framing)),
            compressed: Vec::new(),
        })
    }

    /// Creates an encoder of full streams that compresses with several threads.
    pub(crate) fn parallel(compression: Compression, cipher: &Cipher, threads: usize) -> Result<Self> {
        let mut encoder = Self::new(compression, cipher, Framing::Full)?;
        match Compressor::parallel(compression, threads) {
            _ if encoder.compressor.is_none() => {}
            // If no threads are available, one thread takes longer
            Err(error) if error.code == ErrorCode::Kernel => {
                crate::debug!("{}: going on with one thread", error.message)
            }
            compressor => encoder.compressor = Some(compressor?),
        }
        Ok(encoder)
    }

    /// Returns whether stored bytes differ from plain bytes.
    pub(crate) fn transforms(&self) -> bool {
        self.compressor.is_some() || self.encryptor.is_some()
    }

    /// Adds plain bytes and appends available stored bytes to `out`.
    pub(crate) fn push(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<()> {
        match (&mut self.compressor, &mut self.encryptor) {
            (None, None) => out.extend_from_slice(plain),
            (Some(compressor), None) => compressor.push(plain, out)?,
            (None, Some(encryptor)) => encryptor.push(plain, out)?,
            (Some(compressor), Some(encryptor)) => {
                self.compressed.clear();
                compressor.push(plain, &mut self.compressed)?;
                if !self.compressed.is_empty() {
                    encryptor.push(&self.compressed, out)?;
                }
            }
        }
        Ok(())
    }

    /// Ends the stream. The next `push` begins another one.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) -> Result<()> {
        match (&mut self.compressor, &mut self.encryptor) {
            (None, None) => {}
            (Some(compressor), None) => compressor.finish(out)?,
            (None, Some(encryptor)) => encryptor.finish(out)?,
            (Some(compressor), Some(encryptor)) => {
                self.compressed.clear();
                compressor.finish(&mut self.compressed)?;
                encryptor.push(&self.compressed, out)?;
                encryptor.finish(out)?;
            }
        }
        Ok(())
    }
}
