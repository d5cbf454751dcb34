//! Messages that have come and are still in memory.

use std::io::{self, Read};
use std::ops::{Deref, Range, RangeInclusive};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::shared::lock;

/// The most bytes of answers that a connection keeps.
pub(super) const KEPT_BYTES_MAX: usize = 1 << 30;

/// Messages in buffers of this size are parts of a file, so more of them come. New memory for each would be cleared page by page.
const REUSED_BYTES: RangeInclusive<usize> = 256 << 10..=4 << 20;
/// A message in a buffer that is more times as large gets memory of its own size.
const LARGER_MAX: usize = 4;

/// The messages of a connection that are in memory.
#[derive(Clone, Debug, Default)]
pub(super) struct Kept(Arc<Counted>);

#[derive(Debug, Default)]
struct Counted {
    /// The memory of those that wait.
    bytes: AtomicUsize,
    /// The buffer of a message that was used.
    spare: Mutex<Vec<u8>>,
}

impl Kept {
    /// The most bytes that the next message may have.
    pub(super) fn bytes_left(&self) -> usize {
        KEPT_BYTES_MAX.saturating_sub(self.0.bytes.load(Ordering::Relaxed))
    }

    /// A buffer for the next message.
    pub(super) fn buffer(&self) -> Vec<u8> {
        std::mem::take(&mut lock(&self.0.spare))
    }

    /// Counts a message until it is dropped or used.
    pub(super) fn keep(&self, mut bytes: Vec<u8>) -> Received {
        if bytes.capacity() / LARGER_MAX > bytes.len() {
            let own = bytes.as_slice().to_vec();
            self.give_back(std::mem::replace(&mut bytes, own));
        }
        let counted = bytes.capacity();
        self.0.bytes.fetch_add(counted, Ordering::Relaxed);
        Received { bytes, counted, kept: self.clone() }
    }

    fn give_back(&self, buffer: Vec<u8>) {
        let mut spare = lock(&self.0.spare);
        if spare.capacity() == 0 && REUSED_BYTES.contains(&buffer.capacity()) {
            *spare = buffer;
        }
    }
}

/// A message that counts.
#[derive(Debug)]
pub(super) struct Received {
    bytes: Vec<u8>,
    counted: usize,
    kept: Kept,
}

impl Received {
    /// The message waits no more.
    fn is_used(&mut self) {
        self.kept.0.bytes.fetch_sub(std::mem::take(&mut self.counted), Ordering::Relaxed);
    }
}

impl Deref for Received {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        self.is_used();
        self.kept.give_back(std::mem::take(&mut self.bytes));
    }
}

/// A part of a message, which is read from its begin.
#[derive(Debug, Default)]
pub(crate) struct ReceivedPart {
    message: Option<Received>,
    left: Range<usize>,
}

impl ReceivedPart {
    /// Takes a message into use. What one file has in use does not count: the peer can't have more of it in memory, and the
    /// answer has a limit of its own.
    pub(super) fn new(mut message: Received, part: Range<usize>) -> Self {
        message.is_used();
        ReceivedPart { message: Some(message), left: part }
    }

    /// The bytes that were not read yet.
    pub(crate) fn len(&self) -> usize {
        self.left.len()
    }
}

impl Read for ReceivedPart {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.message.as_ref().and_then(|message| message.get(self.left.clone()));
        let read = left.unwrap_or_default().read(buffer)?;
        self.left.start += read;
        if self.left.is_empty() {
            self.message = None;
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Cursor};

    use protocol::AnswerMessage;
    use protocol::pack::PackWriter;

    use super::*;

    #[test]
    fn messages_count_until_they_are_dropped() {
        let kept = Kept::default();
        let first = kept.keep(vec![1; 1000]);
        let second = kept.keep(vec![2; 10]);
        assert_eq!((kept.bytes_left(), first[0], second.len()), (KEPT_BYTES_MAX - 1010, 1, 10));
        drop(first);
        assert_eq!(kept.bytes_left(), KEPT_BYTES_MAX - 10);
    }

    /// Reads messages of a session with data of these sizes, which come in pieces of 128 KiB. Each is dropped before the next.
    fn buffers(kept: &Kept, sizes: &[usize]) -> Vec<(*const u8, usize)> {
        let messages = sizes.iter().flat_map(|size| {
            let (mut data, content) = (PackWriter::new(), vec![7; *size]);
            data.binary(&*content);
            AnswerMessage::encode(1, false, Some(data)).to_vec()
        });
        let mut input = BufReader::with_capacity(128 << 10, Cursor::new(messages.collect::<Vec<_>>()));
        let read = |_: &usize| {
            let mut message = kept.buffer();
            AnswerMessage::read(&mut input, &mut message, KEPT_BYTES_MAX).unwrap();
            let received = kept.keep(message);
            (received.as_ptr(), received.counted)
        };
        sizes.iter().map(read).collect()
    }

    #[test]
    fn buffer_of_a_chunk_had_twice_its_size_and_was_not_used_again() {
        for chunk in [256 << 10, 1 << 20, 2 << 20] {
            let used = buffers(&Kept::default(), &[chunk; 3]);
            assert!(used.iter().all(|buffer| *buffer == used[0] && buffer.1 < chunk + 100), "{used:?}");
        }
        // Very large ones are given back
        let kept = Kept::default();
        buffers(&kept, &[5 << 20]);
        assert_eq!(kept.buffer().capacity(), 0);
    }

    #[test]
    fn small_answer_kept_the_buffer_of_a_large_one() {
        let kept = Kept::default();
        let used = buffers(&kept, &[1 << 20, 10, 1 << 20]);
        assert!(used[1].1 < 100 && used[0] == used[2], "{used:?}");
        assert_eq!(kept.bytes_left(), KEPT_BYTES_MAX);
    }

    #[test]
    fn part_of_a_message_that_is_used_counted_against_those_that_wait() {
        let kept = Kept::default();
        let mut part = ReceivedPart::new(kept.keep((0..10).collect()), 2..7);
        assert_eq!(kept.bytes_left(), KEPT_BYTES_MAX);
        let mut read = [0; 3];
        assert_eq!((part.read(&mut read).unwrap(), read, part.len()), (3, [2, 3, 4], 2));
        assert_eq!((part.read(&mut read).unwrap(), part.len()), (2, 0));
        assert_eq!(part.read(&mut read).unwrap(), 0);
        assert!(part.message.is_none() && kept.bytes_left() == KEPT_BYTES_MAX);
    }
}
