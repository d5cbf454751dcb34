//! One stream that several threads compress, while the caller prepares the next data.
//!
//! Readers of gz and bz2 stop at the end of the first stream, and pgBackRest's do so silently, so concatenated streams
//! would lose all but the first. Here the pieces form a single stream. Readers cannot tell how it was made.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::{Error, ErrorCode, Result};

/// Pieces in progress or waiting, in addition to one per thread, so that no thread waits for the caller.
const PIECES_MORE: usize = 1;

/// Compresses one piece into an empty buffer. The arguments are the plain bytes before the piece, to which it may
/// refer, and the plain bytes of the piece.
pub(super) type EncodePiece = Arc<dyn Fn(&[u8], &[u8], &mut Vec<u8>) -> Result<()> + Send + Sync>;

/// How separately compressed pieces are joined to a stream of one format.
pub(super) trait Join: Send {
    /// Plain bytes per piece.
    fn piece_size(&self) -> usize;

    /// Plain bytes before a piece to which the piece may refer.
    fn context_size(&self) -> usize;

    /// Returns the function that compresses a piece on any thread.
    fn encode(&self) -> EncodePiece;

    /// Begins a stream.
    fn begin(&mut self, out: &mut Vec<u8>);

    /// Adds the next piece, with the bytes that it was made from.
    fn append(&mut self, plain: &[u8], piece: &[u8], out: &mut Vec<u8>) -> Result<()>;

    /// Ends the stream.
    fn end(&mut self, out: &mut Vec<u8>) -> Result<()>;
}

/// An encoder with threads of its own. In addition to the output it holds a plain and a compressed piece per thread,
/// and two more.
pub(super) struct PieceEncoder {
    join: Box<dyn Join>,
    encode: EncodePiece,
    threads: ThreadPool,
    /// The context of the next piece, then bytes of it.
    buffer: Vec<u8>,
    context: usize,
    in_flight: VecDeque<Receiver<Piece>>,
    /// Reusable buffers. They are so large that the system would have to map new memory for each.
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
        // The missing answer reports the panic
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

impl PieceEncoder {
    /// Creates an encoder with this many threads, or fewer if the system provides no more. Returns a kernel error (120)
    /// if it provides none.
    pub(super) fn new(join: Box<dyn Join>, threads: usize) -> Result<Self> {
        let threads = start_threads(threads)?;
        let encode = join.encode();
        let (in_flight, spare) = (VecDeque::new(), Vec::new());
        Ok(PieceEncoder { join, encode, threads, buffer: Vec::new(), context: 0, in_flight, spare, begun: false })
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

    /// Sends the content of the buffer to a thread.
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
            // The receiver may be gone
            let _ = sender.send(Piece { buffers, start, result });
        });
        self.in_flight.push_back(piece);
    }

    /// Waits for the oldest piece and adds it to the stream.
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
