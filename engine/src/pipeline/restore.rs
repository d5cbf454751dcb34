//! The data path of a restore: stored bytes are decrypted, decompressed, hashed and written, in one thread and with
//! buffers that are kept from file to file.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;

use repo_format::cipher::{Cipher, Decryptor};
use repo_format::compress::{CompressType, DecompressContext, Decompressor, Framing};
use repo_format::hash::{Sha1, Sha1Hasher, block_checksum};
use repo_format::read::read_full;

use super::block_delta::BlockRead;
use crate::work::turn::Turn;
use crate::{CancelToken, Error, ErrorCode, Result, decode};

/// Plain bytes that are hashed and written at a time.
const BUFFER_BYTES: usize = 256 * 1024;

/// Decodes files of one backup. One per worker.
pub struct RestorePipeline {
    /// The turn to compute of the thread that restores.
    turn: Turn,
    /// Stops the job.
    cancel: CancelToken,
    cipher: Cipher,
    compress_type: CompressType,
    /// Decompression states, created when first needed: full and raw framing.
    full: Option<DecompressContext>,
    raw: Option<DecompressContext>,
    buffer: Box<[u8]>,
    hasher: Sha1Hasher,
}

/// What is known about a file after reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hashed {
    /// Checksum of the whole file.
    pub sha1: Sha1,
    /// The checksums of its blocks, concatenated, if they were requested.
    pub blocks: Vec<u8>,
}

/// The geometry of block checksums.
#[derive(Clone, Copy, Debug)]
pub struct BlockGeometry {
    /// Size of a block in bytes.
    pub block_size: usize,
    /// Number of bytes kept of a block's checksum.
    pub checksum_size: usize,
}

/// A file that is written.
#[derive(Clone, Copy, Debug)]
pub struct OutFile<'a> {
    /// The open file.
    pub file: &'a File,
    /// Its name in messages.
    pub name: &'a str,
}

impl RestorePipeline {
    /// Creates a pipeline for files that are encrypted and compressed this way.
    pub fn new(cipher: Cipher, compress_type: CompressType, turn: &Turn) -> Self {
        RestorePipeline {
            turn: turn.clone(),
            cancel: CancelToken::new(),
            cipher,
            compress_type,
            full: None,
            raw: None,
            buffer: vec![0; BUFFER_BYTES].into_boxed_slice(),
            hasher: Sha1Hasher::new(),
        }
    }

    /// Begins a job, which this token stops.
    pub fn begin_job(&mut self, cancel: &CancelToken) {
        self.cancel = cancel.clone();
    }

    /// Fails if the job is to stop.
    ///
    /// # Errors
    /// [`ErrorCode::Term`].
    pub fn check_cancel(&self) -> Result<()> {
        self.cancel.check()
    }

    /// Returns the turn to compute of the thread that restores.
    pub fn turn(&self) -> &Turn {
        &self.turn
    }

    /// Decodes `stored` to its end into `out` and returns the checksum and number of the plain bytes. Writes at most
    /// `size` bytes, whatever the stream contains. Returns `None` if it contains more.
    ///
    /// # Errors
    /// The stored bytes can't be read or decoded, or the file can't be written.
    pub fn copy(
        &mut self,
        stored: &mut dyn Read,
        framing: Framing,
        size: u64,
        out: OutFile<'_>,
    ) -> Result<Option<(Sha1, u64)>> {
        let OutFile { mut file, name } = out;
        self.hasher.finish_reset();
        let context = self.context(framing)?;
        let decryptor = Decryptor::new(&self.cipher, framing, stored);
        let mut reader = Decompressor::with_context(context, decryptor).reading_at_most(size);
        let mut left = size;
        let fits = loop {
            let read = read_full(&mut reader, &mut self.buffer).map_err(|error| read_error(name, error))?;
            if read as u64 > left {
                break false;
            }
            left -= read as u64;
            let plain = &self.buffer[..read];
            self.hasher.update(plain);
            file.write_all(plain).map_err(|error| write_error(name, error))?;
            // A short read means the end was seen
            if read < self.buffer.len() {
                break true;
            }
            self.cancel.check()?;
            self.turn.give_way();
        };
        self.keep(framing, reader.into_context()?);
        let sha1 = self.hasher.finish_reset();
        Ok(fits.then_some((sha1, size - left)))
    }

    /// Decodes the super blocks of one ranged read and writes the wanted blocks. With `hash`, the blocks are hashed in
    /// this order, and [`RestorePipeline::finish_hash`] returns the result.
    ///
    /// # Errors
    /// The same as [`RestorePipeline::copy`]; also [`ErrorCode::Format`] if a super block is shorter than the map says.
    pub fn copy_blocks(&mut self, stored: &mut dyn Read, read: &BlockRead, hash: bool, out: OutFile<'_>) -> Result<()> {
        let OutFile { file, name } = out;
        for super_block in &read.super_blocks {
            self.cancel.check()?;
            self.turn.give_way();
            io::copy(&mut (&mut *stored).take(super_block.skip), &mut io::sink())
                .map_err(|error| read_error(name, error))?;
            let mut stored = stored.take(super_block.size);
            let context = self.context(Framing::Raw)?;
            let decryptor = Decryptor::new(&self.cipher, Framing::Raw, &mut stored);
            let mut reader = Decompressor::with_context(context, decryptor).reading_at_most(super_block.decoded_size);
            let mut position = 0u64;
            for block in &super_block.blocks {
                // Blocks are planned in ascending order
                let mut skip = block.super_block_offset.saturating_sub(position);
                while skip > 0 {
                    skip -= self.read_some(&mut reader, skip, name)? as u64;
                }
                let mut done = 0u64;
                while done < block.size {
                    let read = self.read_some(&mut reader, block.size - done, name)?;
                    let plain = &self.buffer[..read];
                    if hash {
                        self.hasher.update(plain);
                    }
                    file.write_all_at(plain, block.file_offset + done).map_err(|error| write_error(name, error))?;
                    done += read as u64;
                }
                position = block.super_block_offset + block.size;
            }
            // If all of it was wanted, its end is checked too; otherwise the rest does not matter
            if position == super_block.decoded_size
                && reader.read(&mut [0]).map_err(|error| read_error(name, error))? != 0
            {
                return Err(Error::new(ErrorCode::Format, format!("super block of '{name}' is too long")));
            }
            self.keep(Framing::Raw, reader.into_context()?);
            // The next super block begins where the stored bytes of this one end
            io::copy(&mut stored, &mut io::sink()).map_err(|error| read_error(name, error))?;
            if stored.limit() != 0 {
                return Err(Error::new(ErrorCode::Format, format!("super block of '{name}' is too short")));
            }
        }
        Ok(())
    }

    /// Begins a checksum over the following blocks.
    pub fn start_hash(&mut self) {
        self.hasher.finish_reset();
    }

    /// Returns the checksum of the blocks since [`RestorePipeline::start_hash`].
    pub fn finish_hash(&mut self) -> Sha1 {
        self.hasher.finish_reset()
    }

    /// Decrypts data in raw framing that is not compressed: a block map.
    pub fn decrypt_raw<R: Read>(&self, stored: R) -> Decryptor<R> {
        Decryptor::new(&self.cipher, Framing::Raw, stored)
    }

    /// Reads a file from its first byte and hashes it, and its blocks if their geometry is given.
    ///
    /// # Errors
    /// [`ErrorCode::FileRead`]. `name` is the file's name in messages.
    pub fn hash_file(&mut self, file: &File, name: &str, geometry: Option<BlockGeometry>) -> Result<Hashed> {
        self.hasher.finish_reset();
        let mut blocks = Vec::new();
        // Whole blocks at a time; a block larger than the buffer gets its own buffer, but never more than the file
        // needs
        let mut own_buffer = Vec::new();
        let buffer: &mut [u8] = match geometry {
            Some(geometry) if geometry.block_size > self.buffer.len() => {
                let size = file.metadata().map_err(|error| read_error(name, error))?.len().saturating_add(1);
                own_buffer.resize(geometry.block_size.min(usize::try_from(size).unwrap_or(usize::MAX)), 0);
                &mut own_buffer
            }
            Some(geometry) => {
                let whole = self.buffer.len() / geometry.block_size * geometry.block_size;
                &mut self.buffer[..whole]
            }
            None => &mut self.buffer,
        };
        let mut offset = 0;
        loop {
            self.cancel.check()?;
            let mut filled = 0;
            while filled < buffer.len() {
                match file.read_at(&mut buffer[filled..], offset + filled as u64) {
                    Ok(0) => break,
                    Ok(read) => filled += read,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(read_error(name, error)),
                }
            }
            let plain = &buffer[..filled];
            self.hasher.update(plain);
            if let Some(geometry) = geometry {
                for block in plain.chunks(geometry.block_size) {
                    let checksum = block_checksum(block);
                    blocks.extend_from_slice(&checksum[..geometry.checksum_size.min(checksum.len())]);
                }
            }
            offset += filled as u64;
            if filled < buffer.len() {
                return Ok(Hashed { sha1: self.hasher.finish_reset(), blocks });
            }
        }
    }

    /// Reads up to `limit` bytes into the buffer. The end of the stream is an error here.
    fn read_some(&mut self, reader: &mut dyn Read, limit: u64, name: &str) -> Result<usize> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX).min(self.buffer.len());
        match read_full(reader, &mut self.buffer[..limit]).map_err(|error| read_error(name, error))? {
            0 => Err(Error::new(ErrorCode::Format, format!("super block of '{name}' is too short"))),
            read => Ok(read),
        }
    }

    fn context(&mut self, framing: Framing) -> Result<DecompressContext> {
        match self.slot(framing).take() {
            Some(context) => Ok(context),
            None => decode::context(self.compress_type, framing, &self.turn),
        }
    }

    fn keep(&mut self, framing: Framing, context: DecompressContext) {
        *self.slot(framing) = Some(context);
    }

    fn slot(&mut self, framing: Framing) -> &mut Option<DecompressContext> {
        match framing {
            Framing::Full => &mut self.full,
            Framing::Raw => &mut self.raw,
        }
    }
}

fn read_error(name: &str, error: io::Error) -> Error {
    let mut error = Error::from_io(ErrorCode::FileRead, "unable to read", error);
    error.message = format!("unable to restore '{name}': {}", error.message);
    error
}

fn write_error(name: &str, error: io::Error) -> Error {
    Error::from_io(ErrorCode::FileWrite, format!("unable to write '{name}'"), error)
}
