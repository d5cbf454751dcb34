//! The parts of a chain of filters. Each reads from the one before it.
//!
//! A chain that writes a file gets its input block by block: its first part, a [`Feed`], answers with
//! [`ErrorKind::WouldBlock`] when it has nothing more for now, and every part passes that on and continues later.

use std::io::{self, ErrorKind, Read};
use std::sync::{Arc, Mutex, PoisonError};

use crate::Result;
use crate::growing::GrowingBuffer;

/// The most bytes that a part asks for at a time.
const INPUT_BYTES: usize = 128 << 10;

/// Bytes that are swallowed at a time.
const SINK_BYTES: usize = 16 << 20;

/// A part of a chain.
pub(super) type Stage = Box<dyn Read + Send>;

/// The input of a chain that writes.
#[derive(Clone, Debug, Default)]
pub(super) struct Feed(Arc<Mutex<FeedState>>);

#[derive(Debug, Default)]
struct FeedState {
    block: Vec<u8>,
    position: usize,
    has_ended: bool,
}

impl Feed {
    /// Gives the next block. The one before must have been read.
    pub(super) fn give(&self, block: &[u8]) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.block.clear();
        state.block.extend_from_slice(block);
        state.position = 0;
    }

    /// Frees the block once it has been read, because many files may wait for their next one.
    pub(super) fn release(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.position == state.block.len() {
            state.block = Vec::new();
            state.position = 0;
        }
    }

    /// Ends the input.
    pub(super) fn end(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).has_ended = true;
    }
}

impl Read for Feed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let left = &state.block[state.position..];
        let taken = left.len().min(buffer.len());
        if taken == 0 && !state.has_ended && !buffer.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        buffer[..taken].copy_from_slice(&left[..taken]);
        state.position += taken;
        Ok(taken)
    }
}

/// Looks at the bytes that pass.
pub(super) trait Tap: Send {
    /// The next bytes.
    ///
    /// # Errors
    /// They can't be checked.
    fn push(&mut self, data: &[u8]) -> io::Result<()>;
}

/// A part that looks at the bytes and does not change them.
pub(super) struct TapStage<T> {
    pub(super) input: Stage,
    pub(super) tap: Arc<Mutex<T>>,
}

impl<T: Tap> Read for TapStage<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let size = self.input.read(buffer)?;
        self.tap.lock().unwrap_or_else(PoisonError::into_inner).push(&buffer[..size])?;
        Ok(size)
    }
}

/// Converts bytes, with an output that is at most a little larger than its input.
pub(super) trait Convert: Send {
    /// Adds input, and appends what is ready.
    ///
    /// # Errors
    /// The codec's.
    fn push(&mut self, data: &[u8], out: &mut Vec<u8>) -> Result<()>;

    /// Ends the input, and appends the rest.
    ///
    /// # Errors
    /// The codec's.
    fn finish(&mut self, out: &mut Vec<u8>) -> Result<()>;
}

/// A part that converts.
pub(super) struct ConvertStage<C> {
    input: Stage,
    convert: C,
    buffer: GrowingBuffer,
    output: Vec<u8>,
    position: usize,
    has_ended: bool,
}

impl<C: Convert> ConvertStage<C> {
    pub(super) fn new(input: Stage, convert: C) -> Self {
        let buffer = GrowingBuffer::up_to(INPUT_BYTES);
        ConvertStage { input, convert, buffer, output: Vec::new(), position: 0, has_ended: false }
    }
}

impl<C: Convert> Read for ConvertStage<C> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.position == self.output.len() && !self.has_ended && !buffer.is_empty() {
            let size = self.buffer.fill(&mut self.input)?;
            self.output.clear();
            self.position = 0;
            if size == 0 {
                self.has_ended = true;
                self.convert.finish(&mut self.output)?;
            } else {
                self.convert.push(&self.buffer.bytes()[..size], &mut self.output)?;
            }
        }
        let left = &self.output[self.position..];
        let taken = left.len().min(buffer.len());
        buffer[..taken].copy_from_slice(&left[..taken]);
        self.position += taken;
        Ok(taken)
    }
}

/// A part that swallows everything.
pub(super) struct SinkStage {
    pub(super) input: Stage,
    pub(super) buffer: Vec<u8>,
}

impl SinkStage {
    pub(super) fn new(input: Stage) -> Self {
        SinkStage { input, buffer: vec![0; INPUT_BYTES] }
    }
}

impl Read for SinkStage {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        let mut swallowed = 0;
        loop {
            match self.input.read(&mut self.buffer)? {
                0 => return Ok(0),
                read => swallowed += read,
            }
            if swallowed >= SINK_BYTES {
                // Whoever reads looks whether the client is still there
                return Err(ErrorKind::Interrupted.into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use repo_format::cipher::{Cipher, Decryptor, Encryptor, Framing, Passphrase};
    use repo_format::compress::{CompressType, Compression, Compressor, Decompressor};

    use super::*;

    /// Gives a stream in small blocks, and returns what comes out.
    fn drive(stream: &[u8], chain: impl FnOnce(Stage) -> Stage, block: usize) -> Vec<u8> {
        let feed = Feed::default();
        let mut stage = chain(Box::new(feed.clone()));
        let mut out = Vec::new();
        let mut buffer = vec![0; 1000];
        let mut blocks = stream.chunks(block);
        loop {
            match stage.read(&mut buffer) {
                Ok(0) => return out,
                Ok(size) => out.extend_from_slice(&buffer[..size]),
                Err(e) if e.kind() == ErrorKind::WouldBlock => match blocks.next() {
                    Some(block) => feed.give(block),
                    None => feed.end(),
                },
                Err(e) => panic!("{e}"),
            }
        }
    }

    #[test]
    fn feed_that_was_read_keeps_no_block() {
        let feed = Feed::default();
        feed.give(&[1; 1000]);
        feed.clone().read_exact(&mut [0; 400]).unwrap();
        feed.release();
        assert_eq!(feed.0.lock().unwrap().block.len(), 1000);
        let mut rest = [0; 600];
        feed.clone().read_exact(&mut rest).unwrap();
        assert_eq!(rest, [1; 600]);
        feed.release();
        assert_eq!(feed.0.lock().unwrap().block.capacity(), 0);
        assert_eq!(feed.clone().read(&mut rest).unwrap_err().kind(), ErrorKind::WouldBlock);
    }

    #[test]
    fn stream_that_comes_in_small_blocks_is_decoded_whole() {
        let plain: Vec<u8> = (0..200_000u32).flat_map(|number| (number % 1000).to_le_bytes()).collect();
        for kind in [CompressType::Gz, CompressType::Bz2, CompressType::Lz4, CompressType::Zst] {
            let mut stored = Vec::new();
            let mut compressor = Compressor::new(Compression { kind, level: 1 }, Framing::Raw).unwrap();
            compressor.push(&plain, &mut stored).unwrap();
            compressor.finish(&mut stored).unwrap();
            for block in [1, 7, 10_000, 1_000_000] {
                if block == 1 && stored.len() > 50_000 {
                    continue;
                }
                let chain = |input| Box::new(Decompressor::new(kind, Framing::Raw, input).unwrap()) as Stage;
                assert!(drive(&stored, chain, block) == plain, "{kind} in blocks of {block}");
            }
        }
        let cipher = Cipher::Aes256Cbc(Passphrase::new("pass"));
        let mut stored = Vec::new();
        let mut encryptor = Encryptor::new(&cipher, Framing::Full);
        encryptor.push(&plain, &mut stored).unwrap();
        encryptor.finish(&mut stored).unwrap();
        for block in [3, 16, 100_000] {
            let chain = |input| Box::new(Decryptor::new(&cipher, Framing::Full, input)) as Stage;
            assert!(drive(&stored, chain, block) == plain, "cipher in blocks of {block}");
        }
    }
}
