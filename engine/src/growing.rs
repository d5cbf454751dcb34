//! Buffers that are no larger than what comes at once.
//!
//! A buffer of fixed size costs all of its memory for each connection: the allocator clears it, and so does
//! [`std::io::BufReader`] before its first read. Most connections carry little.

use std::fmt;
use std::io::{self, BufRead, Read};

/// The size at first.
const FIRST_BYTES: usize = 8 << 10;
/// By how much a buffer grows that a read has filled.
const FACTOR: usize = 4;

/// What was read last. It grows whenever a read fills it.
pub struct GrowingBuffer {
    bytes: Vec<u8>,
    bytes_max: usize,
    is_filled: bool,
}

impl GrowingBuffer {
    /// A buffer that grows up to this size.
    pub fn up_to(bytes_max: usize) -> Self {
        GrowingBuffer { bytes: vec![0; FIRST_BYTES.min(bytes_max)], bytes_max, is_filled: false }
    }

    /// Reads once. Returns the number of bytes, with which the buffer begins now.
    ///
    /// # Errors
    /// Those of the read.
    pub fn fill(&mut self, input: &mut (impl Read + ?Sized)) -> io::Result<usize> {
        if self.is_filled && self.bytes.len() < self.bytes_max {
            let size = self.bytes.len().saturating_mul(FACTOR).min(self.bytes_max);
            // The larger one may take the place of this one
            self.bytes = Vec::new();
            self.bytes = vec![0; size];
        }
        self.is_filled = false;
        let read = input.read(&mut self.bytes)?;
        self.is_filled = read == self.bytes.len();
        Ok(read)
    }

    /// The buffer.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Like [`std::io::BufReader`], with a buffer that grows.
pub struct GrowingReader<R> {
    input: R,
    buffer: GrowingBuffer,
    begin: usize,
    end: usize,
}

/// Without the bytes, which may be a secret.
impl fmt::Debug for GrowingBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrowingBuffer").field("size", &self.bytes.len()).finish_non_exhaustive()
    }
}

impl<R> fmt::Debug for GrowingReader<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let GrowingReader { buffer, begin, end, .. } = self;
        f.debug_struct("GrowingReader").field("buffer", buffer).field("left", &(end - begin)).finish_non_exhaustive()
    }
}

impl<R: Read> GrowingReader<R> {
    /// Reads through a buffer of at most this size.
    pub fn up_to(bytes_max: usize, input: R) -> Self {
        GrowingReader { input, buffer: GrowingBuffer::up_to(bytes_max), begin: 0, end: 0 }
    }

    /// What is read from. What is in the buffer was read already.
    pub fn get_mut(&mut self) -> &mut R {
        &mut self.input
    }
}

impl<R: Read> BufRead for GrowingReader<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.begin == self.end {
            (self.begin, self.end) = (0, 0);
            self.end = self.buffer.fill(&mut self.input)?;
        }
        Ok(&self.buffer.bytes()[self.begin..self.end])
    }

    fn consume(&mut self, count: usize) {
        self.begin = self.end.min(self.begin + count);
    }
}

impl<R: Read> Read for GrowingReader<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        // A caller with a buffer at least as large needs no other one
        if self.begin == self.end && into.len() >= self.buffer.bytes().len() {
            return self.input.read(into);
        }
        let read = self.fill_buf()?.read(into)?;
        self.consume(read);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives so many bytes at a time.
    struct Portions(Vec<usize>);

    impl Read for Portions {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let Some(portion) = self.0.first_mut() else { return Ok(0) };
            let size = into.len().min(*portion);
            into[..size].fill(7);
            *portion -= size;
            if *portion == 0 {
                self.0.remove(0);
            }
            Ok(size)
        }
    }

    #[test]
    fn connection_that_carries_little_had_a_buffer_of_full_size() {
        let mut buffer = GrowingBuffer::up_to(1 << 20);
        let mut input = Portions(vec![FIRST_BYTES - 1; 100]);
        while buffer.fill(&mut input).unwrap() > 0 {}
        assert_eq!(buffer.bytes().len(), FIRST_BYTES);
        assert_eq!(GrowingBuffer::up_to(10).bytes().len(), 10);
    }

    #[test]
    fn buffer_grows_with_what_comes_up_to_its_limit() {
        let max = 10 * FIRST_BYTES;
        let mut buffer = GrowingBuffer::up_to(max);
        let mut input = Portions(vec![100 * FIRST_BYTES]);
        let sizes: Vec<usize> = (0..4).map(|_| buffer.fill(&mut input).unwrap()).collect();
        assert_eq!(sizes, [FIRST_BYTES, FACTOR * FIRST_BYTES, max, max]);
        assert!(buffer.bytes().iter().all(|&byte| byte == 7));
    }

    #[test]
    fn reader_returns_every_byte_in_order_whatever_is_asked_for() {
        let text: Vec<u8> = (0..300_000_u32).map(|number| (number % 251) as u8).collect();
        for ask in [1, 100, FIRST_BYTES, 3 * FIRST_BYTES, 200_000] {
            let mut reader = GrowingReader::up_to(64 << 10, text.as_slice());
            let (mut read, mut part) = (Vec::new(), vec![0; ask]);
            loop {
                // By turns from the buffer and by a read
                let buffered = reader.fill_buf().unwrap();
                let taken = buffered.len().min(5);
                read.extend_from_slice(&buffered[..taken]);
                reader.consume(taken);
                match reader.read(&mut part).unwrap() {
                    0 => break,
                    size => read.extend_from_slice(&part[..size]),
                }
            }
            assert!(read == text, "asked for {ask}");
        }
    }

    #[test]
    fn error_of_a_read_loses_nothing() {
        struct Fails(bool);
        impl Read for Fails {
            fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
                self.0 = !self.0;
                into[0] = 1;
                if self.0 { Err(io::ErrorKind::Interrupted.into()) } else { Ok(1) }
            }
        }
        let mut reader = GrowingReader::up_to(100, Fails(false));
        assert!(reader.fill_buf().is_err());
        assert_eq!(reader.fill_buf().unwrap(), [1]);
        reader.consume(1);
        assert!(reader.fill_buf().is_err());
    }
}
