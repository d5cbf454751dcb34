//! One stream that several threads compress, while the caller prepares what comes next.
//!
//! Readers of gz and bz2 stop at the end of the first stream, pgBackRest's without a word, so that streams one after the other
//! would lose all but the first. Here the pieces become one stream: whoever reads it can't tell how it was made.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::{Error, ErrorCode, Result};

/// Pieces that are being compressed or wait for it, besides one for each thread: so that no thread waits for the caller.
const PIECES_MORE: usize = 1;

/// Compresses one piece, given the plain bytes before it to which it may refer, and its own, into an empty buffer.
pub(super) type EncodePiece = Arc<dyn Fn(&[u8], &[u8], &mut Vec<u8>) -> Result<()> + Send + Sync>;

/// How pieces, compressed on their own, are joined to a stream of one format.
pub(super) trait Join: Send {
    /// Plain bytes of a piece.
    fn piece_size(&self) -> usize;

    /// Plain bytes before a piece to which it may refer.
    fn context_size(&self) -> usize;

    /// What compresses a piece, on any thread.
    fn encode(&self) -> EncodePiece;

    /// Begins a stream.
    fn begin(&mut self, out: &mut Vec<u8>);

    /// Adds the next piece, with the bytes that it was made from.
    fn append(&mut self, plain: &[u8], piece: &[u8], out: &mut Vec<u8>) -> Result<()>;

    /// Ends the stream.
    fn end(&mut self, out: &mut Vec<u8>) -> Result<()>;
}

/// An encoder with threads of its own. Besides the output it holds a plain and a compressed piece for each of them, and two more.
pub(super) struct Encoder {
    join: Box<dyn Join>,
    encode: EncodePiece,
    threads: ThreadPool,
    /// The context of the next piece, then bytes of it.
    buffer: Vec<u8>,
    context: usize,
    in_flight: VecDeque<Receiver<Piece>>,
    /// Buffers to be used again: they are large enough that the system would have to make each anew.
    spare: Vec<Buffers>,
    begun: bool,
}

/// A piece that was compressed.
struct Piece {
    buffers: Buffers,
    start: usize,
    result: Result<()>,
}

#[derive(Default)]
struct Buffers {
    /// The context, then the plain bytes.
    plain: Vec<u8>,
    encoded: Vec<u8>,
}

fn start_threads(wanted: usize) -> Result<ThreadPool> {
    let mut count = wanted;
    loop {
        // Told by the answer that does not come
        match ThreadPoolBuilder::new().num_threads(count).panic_handler(|_| {}).build() {
            Ok(threads) => return Ok(threads),
            Err(_) if count > 1 => count /= 2,
            Err(error) => {
                return Err(Error::new(ErrorCode::Kernel, "unable to start threads for compression").cause(error));
            }
        }
    }
}

fn panicked() -> Error {
    Error::new(ErrorCode::Assert, "a thread that compresses panicked")
}

impl Encoder {
    /// With so many threads, or fewer where the system gives no more. Kernel error [120] if there can't be any.
    pub(super) fn new(join: Box<dyn Join>, threads: usize) -> Result<Self> {
        let threads = start_threads(threads)?;
        let encode = join.encode();
        let (in_flight, spare) = (VecDeque::new(), Vec::new());
        Ok(Encoder { join, encode, threads, buffer: Vec::new(), context: 0, in_flight, spare, begun: false })
    }

    pub(super) fn push(&mut self, mut data: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let piece_size = self.join.piece_size();
        while !data.is_empty() {
            if self.buffer.len() == self.context + piece_size {
                self.send();
                if self.in_flight.len() > self.threads.current_num_threads() + PIECES_MORE {
                    self.take(out)?;
                }
            }
            let (now, later) = data.split_at(data.len().min(self.context + piece_size - self.buffer.len()));
            self.buffer.reserve_exact(self.context + piece_size - self.buffer.len());
            self.buffer.extend_from_slice(now);
            data = later;
        }
        Ok(())
    }

    pub(super) fn finish(&mut self, out: &mut Vec<u8>) -> Result<()> {
        if self.buffer.len() > self.context {
            self.send();
        }
        while !self.in_flight.is_empty() {
            self.take(out)?;
        }
        self.begin(out);
        self.join.end(out)?;
        self.reset();
        Ok(())
    }

    pub(super) fn reset(&mut self) {
        self.buffer.clear();
        self.in_flight.clear();
        (self.context, self.begun) = (0, false);
    }

    /// Has a thread compress what is in the buffer.
    fn send(&mut self) {
        let start = self.context;
        let context = self.join.context_size().min(self.buffer.len());
        let mut buffers = self.spare.pop().unwrap_or_default();
        buffers.plain.clear();
        buffers.plain.extend_from_slice(&self.buffer[self.buffer.len() - context..]);
        std::mem::swap(&mut self.buffer, &mut buffers.plain);
        self.context = context;
        let (sender, piece) = mpsc::sync_channel(1);
        let encode = Arc::clone(&self.encode);
        self.threads.spawn(move || {
            let (context, plain) = buffers.plain.split_at(start);
            buffers.encoded.clear();
            let result = encode(context, plain, &mut buffers.encoded);
            // Nobody may want it any more
            let _ = sender.send(Piece { buffers, start, result });
        });
        self.in_flight.push_back(piece);
    }

    /// Waits for the piece that was sent first and adds it to the stream.
    fn take(&mut self, out: &mut Vec<u8>) -> Result<()> {
        let Some(piece) = self.in_flight.pop_front() else { return Ok(()) };
        let Piece { buffers, start, result } = piece.recv().map_err(|_| panicked())?;
        result?;
        self.begin(out);
        self.join.append(&buffers.plain[start..], &buffers.encoded, out)?;
        self.spare.push(buffers);
        Ok(())
    }

    fn begin(&mut self, out: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.begun, true) {
            self.join.begin(out);
        }
    }
}

#[cfg(test)]
mod tests;
