//! One stream that several threads compress.
//!
//! Readers of gz and bz2 stop at the end of the first stream, pgBackRest's without a word, so that streams one after the other
//! would lose all but the first. Here the pieces become one stream: whoever reads it can't tell how it was made.

use rayon::iter::{IntoParallelIterator, ParallelIterator};
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::{Error, ErrorCode, Result};

/// Pieces that each thread compresses before the stream goes on: more of them even out that not all take the same time.
const PIECES_PER_THREAD: usize = 2;

/// How pieces, compressed on their own, are joined to a stream of one format.
pub(super) trait Join: Send + Sync {
    /// Plain bytes of a piece.
    fn piece_size(&self) -> usize;

    /// Plain bytes before a piece to which it may refer.
    fn context_size(&self) -> usize;

    /// Compresses one piece.
    fn encode(&self, context: &[u8], plain: &[u8]) -> Result<Vec<u8>>;

    /// Begins a stream.
    fn begin(&mut self, out: &mut Vec<u8>);

    /// Adds the next piece, with the bytes that it was made from.
    fn append(&mut self, plain: &[u8], piece: &[u8], out: &mut Vec<u8>) -> Result<()>;

    /// Ends the stream.
    fn end(&mut self, out: &mut Vec<u8>);
}

/// An encoder with threads of its own. Besides the output it holds some plain and compressed pieces for each of them.
pub(super) struct Encoder {
    join: Box<dyn Join>,
    threads: ThreadPool,
    /// The context of the next piece, then bytes that are not compressed yet.
    buffer: Vec<u8>,
    context: usize,
    begun: bool,
}

impl Encoder {
    /// Kernel error [120] if there can't be that many threads.
    pub(super) fn new(join: Box<dyn Join>, threads: usize) -> Result<Self> {
        let threads = ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .map_err(|error| Error::new(ErrorCode::Kernel, "unable to start threads for compression").cause(error))?;
        Ok(Encoder { join, threads, buffer: Vec::new(), context: 0, begun: false })
    }

    pub(super) fn push(&mut self, mut data: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let batch = self.threads.current_num_threads() * PIECES_PER_THREAD * self.join.piece_size();
        while !data.is_empty() {
            let (now, later) = data.split_at(data.len().min(batch + self.context - self.buffer.len()));
            self.buffer.extend_from_slice(now);
            data = later;
            if self.buffer.len() == batch + self.context {
                self.encode(out)?;
            }
        }
        Ok(())
    }

    pub(super) fn finish(&mut self, out: &mut Vec<u8>) -> Result<()> {
        self.encode(out)?;
        self.join.end(out);
        self.reset();
        Ok(())
    }

    pub(super) fn reset(&mut self) {
        self.buffer.clear();
        (self.context, self.begun) = (0, false);
    }

    /// Compresses all that waits.
    fn encode(&mut self, out: &mut Vec<u8>) -> Result<()> {
        if !self.begun {
            self.join.begin(out);
            self.begun = true;
        }
        let (join, buffer) = (&*self.join, &self.buffer);
        let context_size = join.context_size();
        let starts: Vec<usize> = (self.context..buffer.len()).step_by(join.piece_size()).collect();
        let plain = |start: usize| &buffer[start..buffer.len().min(start + join.piece_size())];
        let encode = |&start: &usize| join.encode(&buffer[start.saturating_sub(context_size)..start], plain(start));
        let pieces = match starts.as_slice() {
            [] => return Ok(()),
            // Nothing to share
            [start] => vec![encode(start)?],
            starts => self.threads.install(|| starts.into_par_iter().map(encode).collect::<Result<Vec<_>>>())?,
        };
        for (start, piece) in starts.into_iter().zip(pieces) {
            let plain = &self.buffer[start..self.buffer.len().min(start + self.join.piece_size())];
            self.join.append(plain, &piece, out)?;
        }
        self.context = context_size.min(self.buffer.len());
        self.buffer.drain(..self.buffer.len() - self.context);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
