//! Serves further connections over the streams of one, for a client that is rbr ([`protocol::channel`]).
//!
//! One thread reads frames. Each channel has a thread of its own, which serves like a process of its own would. What a channel has
//! not read yet is limited, because the client gets room only for what was read.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, BufReader, ErrorKind, IoSlice, Read, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, Scope};
use std::time::{Duration, Instant};

use protocol::Capabilities;
use protocol::channel::{CHANNELS_MAX, FRAME_BYTES_MAX, FrameHeader, FrameKind, HEADER_BYTES, WINDOW_BYTES};

use super::connection::Server;
use super::{ServeMore, Served};
use crate::{CancelToken, Error, ErrorCode, Result};

/// The size of the buffer between the streams and frames.
const BUFFER_BYTES: usize = 256 << 10;
/// Bytes that a channel reads before the client gets room for as many.
const GIVEN_BACK_AT: u32 = WINDOW_BYTES / 4;
/// How often a channel without requests looks whether it is to end.
const LOOK: Duration = Duration::from_millis(500);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a client has sent on a channel.
#[derive(Default)]
struct Inbox {
    state: Mutex<InboxState>,
    changed: Condvar,
}

#[derive(Default)]
struct InboxState {
    frames: VecDeque<Vec<u8>>,
    /// Bytes that the client has sent and that it was not given back.
    used: u32,
    has_ended: bool,
}

impl Inbox {
    /// Adds what came.
    ///
    /// # Errors
    /// [`ErrorCode::Protocol`] if the client had no room for it.
    fn push(&self, frame: Vec<u8>) -> Result<()> {
        let mut state = lock(&self.state);
        let size = u32::try_from(frame.len()).unwrap_or(u32::MAX);
        let used = state.used.checked_add(size).filter(|used| *used <= WINDOW_BYTES);
        state.used = used.ok_or_else(|| Error::new(ErrorCode::Protocol, "client sent more than there is room for"))?;
        if !state.has_ended {
            state.frames.push_back(frame);
        }
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    fn end(&self) {
        lock(&self.state).has_ended = true;
        self.changed.notify_all();
    }
}

/// A channel that is open, as the thread that reads sees it.
struct Open {
    inbox: Arc<Inbox>,
    cancel: CancelToken,
}

/// What all channels of a connection share.
struct Way<W> {
    output: Mutex<W>,
    open: Mutex<BTreeMap<u32, Open>>,
    /// The longest time without a request on a channel.
    silence_max: Duration,
}

impl<W: Write> Way<W> {
    /// Sends a frame.
    fn send(&self, header: FrameHeader, data: &[IoSlice<'_>]) -> io::Result<()> {
        let header = header.encode();
        let mut slices = Vec::with_capacity(data.len() + 1);
        slices.push(IoSlice::new(&header));
        slices.extend_from_slice(data);
        let mut output = lock(&self.output);
        let mut rest = &mut slices[..];
        while !rest.is_empty() {
            match output.write_vectored(rest) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => IoSlice::advance_slices(&mut rest, written),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        output.flush()
    }

    /// The streams of a channel.
    fn streams(
        &self,
        channel: u32,
        inbox: &Arc<Inbox>,
        cancel: &CancelToken,
    ) -> (Box<dyn Read + '_>, Box<dyn Write + Send + '_>)
    where
        W: Send,
    {
        let (inbox, cancel) = (Arc::clone(inbox), cancel.clone());
        let input = ChannelInput { way: self, channel, inbox, cancel, frame: Vec::new(), begin: 0, read: 0 };
        (Box::new(input), Box::new(Output { way: self, channel }))
    }

    /// Forgets a channel, and tells the client.
    fn close(&self, channel: u32) {
        lock(&self.open).remove(&channel);
        // A client that is gone needs nothing
        let _ = self.send(FrameHeader { kind: FrameKind::End, channel }, &[]);
    }
}

/// What the client sends on a channel.
struct ChannelInput<'a, W> {
    way: &'a Way<W>,
    channel: u32,
    inbox: Arc<Inbox>,
    cancel: CancelToken,
    frame: Vec<u8>,
    begin: usize,
    /// Bytes that were read and not given back.
    read: u32,
}

impl<W: Write> ChannelInput<'_, W> {
    /// Waits for the next frame. Returns whether there is one.
    fn next(&mut self) -> Result<bool> {
        let begun = Instant::now();
        let mut state = lock(&self.inbox.state);
        loop {
            if let Some(frame) = state.frames.pop_front() {
                self.read += u32::try_from(frame.len()).unwrap_or(u32::MAX);
                (self.frame, self.begin) = (frame, 0);
                break;
            }
            if state.has_ended {
                return Ok(false);
            }
            self.cancel.check()?;
            if begun.elapsed() >= self.way.silence_max {
                let limit = self.way.silence_max.as_millis();
                let text = format!("timeout after {limit}ms waiting for read from channel {}", self.channel);
                return Err(Error::new(ErrorCode::FileRead, text));
            }
            state = self.inbox.changed.wait_timeout(state, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
        if self.read < GIVEN_BACK_AT {
            return Ok(true);
        }
        let room = std::mem::take(&mut self.read);
        state.used -= room;
        drop(state);
        let header = FrameHeader { kind: FrameKind::Room(room), channel: self.channel };
        self.way.send(header, &[]).map_err(|e| Error::from_io(ErrorCode::FileWrite, "unable to write frame", e))?;
        Ok(true)
    }
}

impl<W: Write> Read for ChannelInput<'_, W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.begin == self.frame.len() && !self.next()? {
            return Ok(0);
        }
        let left = &self.frame[self.begin..];
        let size = left.len().min(buffer.len());
        buffer[..size].copy_from_slice(&left[..size]);
        self.begin += size;
        Ok(size)
    }
}

/// What the client gets on a channel.
struct Output<'a, W> {
    way: &'a Way<W>,
    channel: u32,
}

impl<W: Write> Write for Output<'_, W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(buffer)])
    }

    fn write_vectored(&mut self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut size = 0;
        let mut slices = Vec::with_capacity(buffers.len());
        for buffer in buffers {
            let taken = buffer.len().min(FRAME_BYTES_MAX - size);
            slices.push(IoSlice::new(&buffer[..taken]));
            size += taken;
        }
        if size > 0 {
            self.way.send(FrameHeader { kind: FrameKind::Data(size), channel: self.channel }, &slices)?;
        }
        Ok(size)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Serves channel 0, whose connection has agreed on channels, and those that the client opens. Returns when the client has left
/// or channel 0 has failed.
///
/// # Errors
/// Those of channel 0; [`ErrorCode::Protocol`] and [`ErrorCode::Format`] for frames that are not valid.
pub(super) fn serve<'w>(
    streams: (Box<dyn Read + 'w>, Box<dyn Write + Send + 'w>),
    served: Served,
    common: Capabilities,
    more: &ServeMore,
) -> Result<()> {
    let (input, output) = streams;
    let cancel = served.cancel.clone();
    let way = Way { output: Mutex::new(output), open: Mutex::default(), silence_max: more.silence_max };
    std::thread::scope(|scope| {
        let inbox = Arc::new(Inbox::default());
        lock(&way.open).insert(0, Open { inbox: Arc::clone(&inbox), cancel: cancel.clone() });
        let (way, stop) = (&way, &cancel);
        let first = start(scope, "channel-0", move || {
            let (input, output) = way.streams(0, &inbox, stop);
            let result = Server::over(input, output).serve_all(served, common);
            if result.is_err() {
                // Ends this side's reading, and what other channels do
                stop.cancel();
            }
            way.close(0);
            result
        })?;
        let input = BufReader::with_capacity(BUFFER_BYTES, input);
        let read = Demux { way, input, last: 0, more, cancel: stop }.run(scope);
        for open in lock(&way.open).values() {
            open.inbox.end();
            if read.is_err() {
                open.cancel.cancel();
            }
        }
        let first = first.join().map_err(|_| Error::new(ErrorCode::Assert, "thread of channel 0 panicked"))?;
        // The reading ends with an error because channel 0 has one
        first.and(read)
    })
}

fn start<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    body: impl FnOnce() -> T + Send + 'scope,
) -> Result<std::thread::ScopedJoinHandle<'scope, T>> {
    let started = Builder::new().name(name.to_owned()).spawn_scoped(scope, body);
    started.map_err(|e| Error::from_io(ErrorCode::Kernel, "unable to start a thread", e))
}

/// Reads frames.
struct Demux<'env, R, W> {
    way: &'env Way<W>,
    input: BufReader<R>,
    /// The number of the newest channel.
    last: u32,
    more: &'env ServeMore,
    cancel: &'env CancelToken,
}

impl<'env, R: Read, W: Write + Send> Demux<'env, R, W> {
    /// Reads until the end.
    fn run<'scope>(mut self, scope: &'scope Scope<'scope, 'env>) -> Result<()> {
        while let Some(header) = self.header()? {
            self.accept(header, scope)?;
        }
        Ok(())
    }

    /// Reads a header; `None` at the end.
    fn header(&mut self) -> Result<Option<FrameHeader>> {
        let mut header = [0; HEADER_BYTES];
        let read = loop {
            match self.input.read(&mut header) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => break read.map_err(read_error)?,
            }
        };
        if read == 0 {
            return Ok(None);
        }
        self.input.read_exact(&mut header[read..]).map_err(read_error)?;
        FrameHeader::decode(header).map(Some)
    }

    fn accept<'scope>(&mut self, header: FrameHeader, scope: &'scope Scope<'scope, 'env>) -> Result<()> {
        let channel = header.channel;
        if header.kind == FrameKind::Open {
            return self.open(channel, scope);
        }
        if channel > self.last {
            return Err(Error::new(ErrorCode::Protocol, format!("channel {channel} was not opened")));
        }
        let open = lock(&self.way.open).get(&channel).map(|open| (Arc::clone(&open.inbox), open.cancel.clone()));
        match header.kind {
            FrameKind::Data(size) => {
                let mut frame = vec![0; size];
                self.input.read_exact(&mut frame).map_err(read_error)?;
                // This side may have closed the channel
                open.map_or(Ok(()), |(inbox, _)| inbox.push(frame))
            }
            FrameKind::End | FrameKind::Abort => {
                if let Some((inbox, cancel)) = open {
                    if header.kind == FrameKind::Abort {
                        cancel.cancel();
                        lock(&inbox.state).frames.clear();
                    }
                    inbox.end();
                }
                Ok(())
            }
            FrameKind::Room(_) | FrameKind::Open => {
                Err(Error::new(ErrorCode::Protocol, format!("client sent {:?}", header.kind)))
            }
        }
    }

    fn open<'scope>(&mut self, channel: u32, scope: &'scope Scope<'scope, 'env>) -> Result<()> {
        if channel <= self.last {
            return Err(Error::new(ErrorCode::Protocol, format!("channel {channel} was opened before")));
        }
        let (inbox, cancel) = (Arc::new(Inbox::default()), self.cancel.child());
        {
            let mut open = lock(&self.way.open);
            if open.len() >= CHANNELS_MAX {
                return Err(Error::new(ErrorCode::Protocol, format!("more than {CHANNELS_MAX} channels")));
            }
            open.insert(channel, Open { inbox: Arc::clone(&inbox), cancel: cancel.clone() });
        }
        self.last = channel;
        let (way, more) = (self.way, self.more);
        start(scope, &format!("channel-{channel}"), move || {
            let (input, output) = way.streams(channel, &inbox, &cancel);
            let served = (more.serve)(&cancel);
            let result = served.and_then(|served| Server::greet(input, output)?.serve(served));
            if let Err(error) = result {
                crate::debug!("channel {channel}: {error}");
            }
            way.close(channel);
        })
        .map(drop)
    }
}

fn read_error(error: io::Error) -> Error {
    Error::from_io(ErrorCode::FileRead, "unable to read frame", error)
}

#[cfg(test)]
mod tests;
