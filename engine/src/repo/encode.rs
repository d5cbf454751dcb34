//! A writer that compresses and encrypts what passes.

use std::io::{self, Write};

use repo_format::cipher::{Cipher, Encryptor, Framing};
use repo_format::compress::{Compression, Compressor};

use crate::{Error, ErrorCode, Result};

/// Bytes gathered before they go on.
const BUFFER_SIZE: usize = 256 * 1024;

/// Compresses, encrypts and writes. Only [`EncodeWriter::finish`] completes the result.
pub(crate) struct EncodeWriter<W> {
    compressor: Compressor,
    encryptor: Encryptor,
    plain: Vec<u8>,
    compressed: Vec<u8>,
    stored: Vec<u8>,
    out: W,
}

impl<W: Write> EncodeWriter<W> {
    /// Creates a writer in front of `out`.
    ///
    /// # Errors
    /// The compression level is invalid.
    pub fn new(out: W, compression: Compression, cipher: &Cipher) -> Result<Self> {
        Ok(EncodeWriter {
            compressor: Compressor::new(compression, Framing::Full)?,
            encryptor: Encryptor::new(cipher, Framing::Full),
            plain: Vec::with_capacity(BUFFER_SIZE),
            compressed: Vec::new(),
            stored: Vec::new(),
            out,
        })
    }

    fn pass_on(&mut self, last: bool) -> Result<()> {
        self.compressor.push(&self.plain, &mut self.compressed)?;
        self.plain.clear();
        if last {
            self.compressor.finish(&mut self.compressed)?;
        }
        self.encryptor.push(&self.compressed, &mut self.stored)?;
        self.compressed.clear();
        if last {
            self.encryptor.finish(&mut self.stored)?;
        }
        self.out.write_all(&self.stored).map_err(|e| Error::from_io(ErrorCode::FileWrite, "unable to write", e))?;
        self.stored.clear();
        Ok(())
    }

    /// Ends the streams and returns the output.
    ///
    /// # Errors
    /// [`ErrorCode::FileWrite`], or errors of the codecs.
    pub fn finish(mut self) -> Result<W> {
        self.pass_on(true)?;
        Ok(self.out)
    }
}

impl<W: Write> Write for EncodeWriter<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.plain.extend_from_slice(buffer);
        if self.plain.len() >= BUFFER_SIZE {
            self.pass_on(false)?;
        }
        Ok(buffer.len())
    }

    /// Does nothing: gathered data is written when there is enough, and at the end.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use repo_format::cipher::{Decryptor, Passphrase};
    use repo_format::compress::{CompressType, Decompressor};

    use super::*;

    #[test]
    fn encoded_text_decodes_again() {
        let cipher = Cipher::from_passphrase(Some(&Passphrase::new("secret")));
        let compression = Compression::new(CompressType::Gz, Some(9)).unwrap();
        let text = "some text that repeats ".repeat(100_000);
        let mut writer = EncodeWriter::new(Vec::new(), compression, &cipher).unwrap();
        for part in text.as_bytes().chunks(1000) {
            writer.write_all(part).unwrap();
        }
        let stored = writer.finish().unwrap();
        assert!(stored.len() < text.len() / 10);
        let plain = Decryptor::new(&cipher, Framing::Full, stored.as_slice());
        let mut back = String::new();
        Decompressor::new(CompressType::Gz, Framing::Full, plain).unwrap().read_to_string(&mut back).unwrap();
        assert_eq!(back, text);
    }
}
