//! The request that a connection reads and answers. Its bytes count while they are in memory.

use std::io::{self, BufRead, Read};

use protocol::message::RequestMessage;

use super::memory::{Grown, Growth};
use crate::Result;

/// The memory that a request leaves behind for the next one, in bytes. A block of the default `buffer-size` fits.
const BUFFER_BYTES_MAX: usize = 4 << 20;

/// The latest request.
#[derive(Debug, Default)]
pub(super) struct RequestBuffer {
    bytes: Vec<u8>,
}

/// A request that counts until it is answered.
#[derive(Debug)]
pub(super) struct CountedRequest(#[expect(dead_code, reason = "counts until it is dropped")] Growth);

impl RequestBuffer {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Reads a request of at most `bytes_max` bytes from a client that is not known yet.
    ///
    /// # Errors
    /// Those of [`RequestMessage::read`].
    pub(super) fn read_first(&mut self, input: &mut impl BufRead, bytes_max: usize) -> Result<()> {
        RequestMessage::read(input, &mut self.bytes, bytes_max)
    }

    /// Reads a request of at most `bytes_max` bytes. It counts as one of these while its bytes come, and until what is returned is
    /// dropped.
    ///
    /// # Errors
    /// Those of [`RequestMessage::read`], and [`crate::ErrorCode::Memory`] if all requests together are too large.
    pub(super) fn read(&mut self, input: &mut impl BufRead, bytes_max: usize, all: &Grown) -> Result<CountedRequest> {
        if self.bytes.capacity() > BUFFER_BYTES_MAX {
            self.bytes = Vec::new();
        }
        let mut counting = CountingInput { input, bytes: 0, growth: Growth::new(all) };
        RequestMessage::read(&mut counting, &mut self.bytes, bytes_max)?;
        Ok(CountedRequest(counting.growth))
    }
}

/// Counts what is read through it.
struct CountingInput<'a, R> {
    input: &'a mut R,
    bytes: u64,
    growth: Growth,
}

impl<R: BufRead> Read for CountingInput<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        self.bytes += read as u64;
        self.growth.grow_to(self.bytes)?;
        Ok(read)
    }
}

impl<R: BufRead> BufRead for CountingInput<'_, R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.input.fill_buf()
    }

    /// These are as few as the input's own buffer holds.
    fn consume(&mut self, count: usize) {
        self.bytes += count as u64;
        self.input.consume(count);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Cursor};

    use protocol::channel::CHANNELS_MAX;
    use protocol::{Call, Dialect};

    use super::super::memory::Usage;
    use super::*;
    use crate::ErrorCode;

    const MIB: usize = 1 << 20;

    fn requests(size: usize, count: usize) -> BufReader<Cursor<Vec<u8>>> {
        let block = vec![0; size];
        let one = Call::WriteBlock(&block).encode(1, Dialect::NEWEST).to_vec();
        BufReader::with_capacity(8 << 10, Cursor::new(one.repeat(count)))
    }

    #[test]
    fn requests_of_all_channels_could_take_a_gibibyte() {
        let all = Grown::up_to(5 * MIB as u64);
        let read = |buffer: &mut RequestBuffer| buffer.read(&mut requests(2 * MIB, 1), 64 * MIB, &all);
        let mut buffers = [(); 3].map(|()| RequestBuffer::default());
        let held = [read(&mut buffers[0]).unwrap(), read(&mut buffers[1]).unwrap()];
        let error = read(&mut buffers[2]).unwrap_err();
        assert_eq!(
            (error.code, &*error.message),
            (ErrorCode::Memory, "sessions of this connection need too much memory")
        );
        drop(held);
        read(&mut buffers[2]).unwrap();
        assert_eq!(all.bytes(), 0);
    }

    #[test]
    fn blocks_of_the_largest_buffer_fit_on_all_channels_at_once() {
        let usage = Usage::of_connection().with_channels();
        let mut growths = [(); CHANNELS_MAX].map(|()| Growth::new(&usage.requests));
        growths.iter_mut().for_each(|growth| growth.grow_to(16 * MIB as u64 + 4096).unwrap());
        assert!(growths[0].grow_to(512 * MIB as u64).is_err());
    }

    #[test]
    fn memory_of_a_large_request_is_given_back_and_that_of_a_block_is_used_again() {
        let all = Grown::default();
        let mut buffer = RequestBuffer::default();
        let mut input = requests(MIB, 3);
        drop(buffer.read(&mut input, 64 * MIB, &all).unwrap());
        let first = buffer.bytes().as_ptr();
        drop(buffer.read(&mut input, 64 * MIB, &all).unwrap());
        assert_eq!(buffer.bytes().as_ptr(), first);
        drop(buffer.read(&mut requests(9 * MIB, 1), 64 * MIB, &all).unwrap());
        assert!(buffer.bytes.capacity() > BUFFER_BYTES_MAX);
        drop(buffer.read(&mut input, 64 * MIB, &all).unwrap());
        assert!(buffer.bytes.capacity() <= BUFFER_BYTES_MAX);
    }
}
