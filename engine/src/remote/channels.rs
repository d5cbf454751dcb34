//! Further connections over the way of one, to a server that is rbr ([`protocol::channel`]).
//!
//! The thread that reads the answers of the first connection, which is channel 0, also gives the others their data. Nobody
//! holds it up: the thread that reads the answers of a channel waits for nothing but them.

mod output;

use std::collections::BTreeMap;
use std::io::{self, BufRead, Cursor, ErrorKind, IoSlice, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use protocol::channel::{CHANNELS_MAX, FRAME_BYTES_MAX, FrameHeader, FrameKind, HEADER_BYTES, WINDOW_BYTES};

use self::output::WayOutput;
use super::shared::lock;
use crate::growing::GrowingReader;
use crate::{Error, ErrorCode, Result};

/// The largest size of the buffer between the way and frames.
const BUFFER_BYTES: usize = 256 << 10;
/// Frames of a channel that its thread has not read yet.
const FRAMES_WAITING_MAX: usize = 16;
/// How often a wait for room looks for the end of the way.
const LOOK: Duration = Duration::from_secs(1);
/// A way on which nothing moves for this time is dead for a channel that must end.
const STALLED_MAX: Duration = Duration::from_secs(5);

/// A channel on this side. It counts until both sides have ended it, as on the server.
struct Open {
    /// Bytes that may be sent.
    room: u32,
    /// Where its data goes; `None` for channel 0 and after the end.
    data: Option<SyncSender<Vec<u8>>>,
    /// Nothing is sent any more.
    is_closed: bool,
    /// Nothing comes any more.
    has_ended: bool,
    /// Something has come.
    has_come: bool,
    server_end: ServerEnd,
}

impl Open {
    fn new(data: Option<SyncSender<Vec<u8>>>) -> Self {
        let (room, server_end) = (WINDOW_BYTES, ServerEnd::default());
        Open { room, data, is_closed: false, has_ended: false, has_come: false, server_end }
    }
}

/// How the server has ended a channel, if it did so in order and before this side. Clones are the same.
#[derive(Clone, Default)]
pub(super) struct ServerEnd(Arc<OnceLock<Ended>>);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// Before it greeted.
    Refused,
    /// It has dropped what was open.
    Served,
}

impl ServerEnd {
    /// Returns whether the server can't serve this channel, as long as the way has not ended.
    pub(super) fn is_refused(&self) -> bool {
        self.0.get() == Some(&Ended::Refused)
    }
}

#[derive(Default)]
struct Table {
    open: BTreeMap<u32, Open>,
    last: u32,
    has_ended: bool,
}

/// The channels of a way, and what is sent on it.
pub(super) struct Channels {
    output: Arc<WayOutput>,
    /// Frames are sent and come. Before that, everything belongs to the first connection.
    is_framed: AtomicBool,
    table: Mutex<Table>,
    /// Channels are opened in the order of their numbers.
    opening: Mutex<()>,
    /// Room came, or the end.
    changed: Condvar,
}

impl Channels {
    /// The way that ends in this output.
    pub(super) fn new(output: Box<dyn Write + Send>) -> Arc<Self> {
        Arc::new(Channels {
            output: Arc::new(WayOutput::new(output)),
            is_framed: AtomicBool::new(false),
            table: Mutex::default(),
            opening: Mutex::default(),
            changed: Condvar::new(),
        })
    }

    /// Both sides send frames from now on. The thread that reads says so, after the last answer without a frame.
    pub(super) fn begin(&self) {
        lock(&self.table).open.insert(0, Open::new(None));
        self.is_framed.store(true, Ordering::SeqCst);
    }

    fn is_framed(&self) -> bool {
        self.is_framed.load(Ordering::SeqCst)
    }

    /// Opens a channel; `None` if there are too many, or the way has none. On a way that has ended, it has ended, too.
    ///
    /// # Errors
    /// [`ErrorCode::FileWrite`] if nothing could be sent for too long. That is for everybody on the way.
    pub(super) fn open(self: &Arc<Self>, timeout: Duration) -> Result<Option<(ChannelInput, ChannelOutput)>> {
        if !self.is_framed() {
            return Ok(None);
        }
        let (sender, frames) = sync_channel(FRAMES_WAITING_MAX);
        let _order = lock(&self.opening);
        let (number, server_end) = {
            let mut table = lock(&self.table);
            if table.open.len() >= CHANNELS_MAX {
                return Ok(None);
            }
            table.last += 1;
            let number = table.last;
            // Without a sender, its thread reads the end
            let data = Some(sender).filter(|_| !table.has_ended);
            let open = Open::new(data);
            let server_end = open.server_end.clone();
            table.open.insert(number, open);
            (number, server_end)
        };
        let output = ChannelOutput { channels: Arc::clone(self), number, timeout };
        let opened = self.output.send(FrameHeader { kind: FrameKind::Open, channel: number }, &[]);
        match opened {
            Err(e) if e.kind() == ErrorKind::TimedOut => {
                return Err(Error::from_io(ErrorCode::FileWrite, "unable to open a channel", e));
            }
            // The thread that reads finds out why the way has ended
            Ok(()) | Err(_) => {}
        }
        Ok(Some((ChannelInput { frames, frame: Cursor::default(), server_end }, output)))
    }

    /// Takes at most so many bytes of the room of a channel, and waits until there is some.
    fn take_room(&self, number: u32, most: usize, timeout: Duration) -> io::Result<usize> {
        let begin = Instant::now();
        let mut table = lock(&self.table);
        loop {
            let has_ended = table.has_ended;
            let open = table.open.get_mut(&number);
            let Some(open) = open.filter(|open| !has_ended && !open.is_closed && !open.has_ended) else {
                return Err(ErrorKind::BrokenPipe.into());
            };
            if open.room > 0 {
                let taken = u32::try_from(most).unwrap_or(u32::MAX).min(open.room);
                open.room -= taken;
                return Ok(taken as usize);
            }
            if begin.elapsed() >= timeout {
                let text = format!("timeout after {}ms waiting for write to channel {number}", timeout.as_millis());
                return Err(io::Error::new(ErrorKind::TimedOut, text));
            }
            table = self.changed.wait_timeout(table, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Ends a channel whose server has nothing more to do. Waits for nothing.
    pub(super) fn finish(&self, number: u32) {
        self.close(number, FrameKind::End);
    }

    /// Ends a channel, and what the server does for it. Returns whether the way is dead: the server can't be told within some
    /// time.
    pub(super) fn abort(&self, number: u32) -> bool {
        let told = self.close(number, FrameKind::Abort);
        // The thread that reads finds out about other ends, and says why. A process that is killed can't
        told.is_some_and(|frame| !self.output.wait(frame, STALLED_MAX)) || self.output.is_stalled()
    }

    /// Ends a channel on this side, and has the server told so. Returns the number of the frame; `None` for
    /// a channel that was ended before.
    fn close(&self, number: u32, kind: FrameKind) -> Option<u64> {
        let mut table = lock(&self.table);
        let open = table.open.get_mut(&number).filter(|open| !open.is_closed)?;
        (open.is_closed, open.data) = (true, None);
        if open.has_ended {
            table.open.remove(&number);
        }
        drop(table);
        self.changed.notify_all();
        Some(self.output.give(FrameHeader { kind, channel: number }))
    }

    /// Waits until the server has ended a channel. Returns `false` if it does not within the limit, or if this side or the end of
    /// the way was first: then the server may still be at work.
    pub(super) fn was_ended_by_server(&self, number: u32, server_end: &ServerEnd, limit: Duration) -> bool {
        let may_come = |table: &mut Table| {
            let is_open = table.open.get(&number).is_some_and(|open| !open.is_closed);
            server_end.0.get().is_none() && is_open && !table.has_ended
        };
        drop(self.changed.wait_timeout_while(lock(&self.table), limit, may_come));
        server_end.0.get().is_some()
    }

    /// The way has ended, and with it all channels.
    pub(super) fn end(&self) {
        let mut table = lock(&self.table);
        table.has_ended = true;
        table.open.values_mut().for_each(|open| open.data = None);
        drop(table);
        self.changed.notify_all();
    }

    /// Takes the header of a frame. Returns what is to be read.
    fn accept(&self, header: FrameHeader) -> Result<Accepted> {
        let refuse = |text: String| Err(Error::new(ErrorCode::Protocol, text));
        let mut table = lock(&self.table);
        // The last frames of a channel that this side has closed are on their way
        if header.channel > table.last {
            return refuse(format!("frame for channel {} that was not opened", header.channel));
        }
        let open = table.open.get_mut(&header.channel);
        match header.kind {
            FrameKind::Data(size) if header.channel == 0 => Ok(Accepted::Own(size)),
            FrameKind::Data(size) => {
                let to = open.and_then(|open| {
                    open.has_come = true;
                    open.data.clone()
                });
                Ok(Accepted::Data(size, to))
            }
            FrameKind::Room(bytes) => {
                if let Some(open) = open {
                    let room = open.room.checked_add(bytes).filter(|room| *room <= WINDOW_BYTES);
                    let Some(room) = room else {
                        return refuse(format!("server gives channel {} too much room", header.channel));
                    };
                    open.room = room;
                }
                drop(table);
                self.changed.notify_all();
                Ok(Accepted::Nothing)
            }
            FrameKind::End => {
                // That of channel 0 comes before the end of the way, which has the reason
                if let Some(open) = open {
                    if !open.is_closed {
                        // It is set once, because a channel ends once
                        let _ = open.server_end.0.set(if open.has_come { Ended::Served } else { Ended::Refused });
                    }
                    (open.has_ended, open.data) = (true, None);
                    if open.is_closed {
                        table.open.remove(&header.channel);
                    }
                }
                drop(table);
                self.changed.notify_all();
                Ok(Accepted::Nothing)
            }
            FrameKind::Open | FrameKind::Abort => refuse(format!("server sent {:?}", header.kind)),
        }
    }
}

/// What follows a header.
enum Accepted {
    /// So many bytes for channel 0, which has the thread that reads.
    Own(usize),
    /// So many bytes for another channel; `None` if nobody waits for them.
    Data(usize, Option<SyncSender<Vec<u8>>>),
    Nothing,
}

/// What comes from the server. Reading it returns what is for the first connection, and gives the other channels their data.
pub(super) struct WayInput {
    way: GrowingReader<Box<dyn Read + Send>>,
    channels: Arc<Channels>,
    /// Bytes that are left of a frame of channel 0.
    left: usize,
    /// The way has ended.
    has_ended: bool,
}

impl WayInput {
    pub(super) fn new(way: Box<dyn Read + Send>, channels: Arc<Channels>) -> Self {
        WayInput { way: GrowingReader::up_to(BUFFER_BYTES, way), channels, left: 0, has_ended: false }
    }

    /// Reads the header of a frame; `None` at the end.
    fn header(&mut self) -> io::Result<Option<FrameHeader>> {
        let mut header = [0; HEADER_BYTES];
        let read = loop {
            match self.way.read(&mut header) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        if read == 0 {
            return Ok(None);
        }
        self.way.read_exact(&mut header[read..])?;
        Ok(Some(FrameHeader::decode(header)?))
    }

    /// Takes frames until there is something for the first connection, or the end.
    fn advance(&mut self) -> io::Result<()> {
        while self.left == 0 && !self.has_ended {
            if !self.channels.is_framed() {
                return Ok(());
            }
            let Some(header) = self.header()? else {
                self.has_ended = true;
                return Ok(());
            };
            match self.channels.accept(header)? {
                Accepted::Own(size) => self.left = size,
                Accepted::Data(size, to) => {
                    let mut frame = vec![0; size];
                    self.way.read_exact(&mut frame)?;
                    // A thread that no longer reads needs no data
                    to.map_or(Ok(()), |to| to.send(frame)).unwrap_or_default();
                }
                Accepted::Nothing => {}
            }
        }
        Ok(())
    }
}

impl BufRead for WayInput {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let advanced = self.advance();
        self.has_ended |= advanced.as_ref().is_err_and(|error| error.kind() == ErrorKind::UnexpectedEof);
        advanced?;
        if self.has_ended {
            return Ok(&[]);
        }
        let is_framed = self.left > 0;
        let come = self.way.fill_buf()?;
        if is_framed && come.is_empty() {
            self.has_ended = true;
        }
        let most = if is_framed { self.left.min(come.len()) } else { come.len() };
        Ok(&come[..most])
    }

    fn consume(&mut self, count: usize) {
        self.way.consume(count);
        self.left = self.left.saturating_sub(count);
    }
}

impl Read for WayInput {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        read_buffered(self, buffer)
    }
}

/// Reads what is in the buffer, or comes next.
fn read_buffered(input: &mut impl BufRead, buffer: &mut [u8]) -> io::Result<usize> {
    let read = input.fill_buf()?.read(buffer)?;
    input.consume(read);
    Ok(read)
}

/// What a channel sends.
pub(super) struct ChannelOutput {
    channels: Arc<Channels>,
    pub(super) number: u32,
    timeout: Duration,
}

impl ChannelOutput {
    /// What the first connection sends. Dropping it closes the way.
    pub(super) fn first(channels: &Arc<Channels>, timeout: Duration) -> Self {
        ChannelOutput { channels: Arc::clone(channels), number: 0, timeout }
    }
}

impl Write for ChannelOutput {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(buffer)])
    }

    fn write_vectored(&mut self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        if !self.channels.is_framed() {
            return self.channels.output.write(buffers);
        }
        let wanted: usize = buffers.iter().map(|buffer| buffer.len()).sum();
        if wanted == 0 {
            return Ok(0);
        }
        let size = self.channels.take_room(self.number, wanted.min(FRAME_BYTES_MAX), self.timeout)?;
        let mut left = size;
        let mut slices = Vec::with_capacity(buffers.len());
        for buffer in buffers {
            let taken = left.min(buffer.len());
            slices.push(IoSlice::new(&buffer[..taken]));
            left -= taken;
            if left == 0 {
                break;
            }
        }
        self.channels.output.send(FrameHeader { kind: FrameKind::Data(size), channel: self.number }, &slices)?;
        Ok(size)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for ChannelOutput {
    fn drop(&mut self) {
        if self.number == 0 {
            self.channels.output.close();
        }
    }
}

/// What a channel gets.
pub(super) struct ChannelInput {
    frames: Receiver<Vec<u8>>,
    frame: Cursor<Vec<u8>>,
    pub(super) server_end: ServerEnd,
}

impl BufRead for ChannelInput {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.frame.position() == self.frame.get_ref().len() as u64 {
            match self.frames.recv() {
                Ok(frame) => self.frame = Cursor::new(frame),
                Err(_) => return Ok(&[]),
            }
        }
        self.frame.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.frame.consume(count);
    }
}

impl Read for ChannelInput {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        read_buffered(self, buffer)
    }
}

#[cfg(test)]
mod tests;
