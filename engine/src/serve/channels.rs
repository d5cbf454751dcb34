//! Serves further connections over the streams of one, for a client that is rbr ([`protocol::channel`]).
//!
//! One thread reads frames. Each channel has a thread of its own, which serves like a process of its own would. What a channel has
//! not read yet is limited, because the client gets room only for what was read. What all of them use together is limited, too
//! ([`Usage::with_channels`]).

mod inbox;

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::Duration;

use protocol::AnswerMessage;
use protocol::channel::{CHANNELS_MAX, FRAME_BYTES_MAX, FrameHeader, FrameKind, HEADER_BYTES, WINDOW_BYTES};
use protocol::message::ErrorAnswer;

use self::inbox::{Inbox, copy};
use super::connection::{Server, send_error};
use super::handlers::Handlers;
use super::memory::Usage;
use super::{ServeMore, Served};
use crate::work::thread;
use crate::{CancelToken, Error, ErrorCode, Result};

/// Bytes that a channel reads before the client gets room for as many.
const GIVEN_BACK_AT: u32 = WINDOW_BYTES / 4;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A channel that is open, as the thread that reads sees it.
struct Open {
    inbox: Arc<Inbox>,
    cancel: CancelToken,
}

/// What is sent.
struct Sending<W> {
    /// `None` once nothing can be sent any more.
    stream: Option<W>,
    /// A part of a message of channel 0 was sent.
    is_within_first: bool,
    /// Nothing follows on channel 0.
    has_first_ended: bool,
}

impl<W: Write> Sending<W> {
    /// Sends a frame. Half a frame must not be continued, so nothing is sent after an error.
    fn write(&mut self, header: FrameHeader, data: &[IoSlice<'_>]) -> io::Result<()> {
        let Some(stream) = &mut self.stream else { return Err(ErrorKind::BrokenPipe.into()) };
        let header = header.encode();
        let mut slices = Vec::with_capacity(data.len() + 1);
        slices.push(IoSlice::new(&header));
        slices.extend_from_slice(data);
        write_all(stream, &mut slices).inspect_err(|_| self.stream = None)
    }
}

/// What all channels of a connection share.
struct ChannelsWay<W> {
    output: Mutex<Sending<W>>,
    open: Mutex<BTreeMap<u32, Open>>,
    /// Ends all channels.
    cancel: CancelToken,
    /// The first error that ended all channels.
    failure: Mutex<Option<Arc<Error>>>,
    /// What all channels use.
    usage: Usage,
    /// The longest time without a request on a channel.
    silence_max: Duration,
}

impl<W: Write> ChannelsWay<W> {
    fn new(output: W, cancel: CancelToken, usage: Usage, silence_max: Duration) -> Self {
        let (open, failure) = (Mutex::default(), Mutex::default());
        let output = Sending { stream: Some(output), is_within_first: false, has_first_ended: false };
        ChannelsWay { output: Mutex::new(output), open, cancel, failure, usage, silence_max }
    }

    /// Keeps the error that ends all channels. Returns the first one, which counts.
    fn set_failure(&self, error: &Error) -> Arc<Error> {
        Arc::clone(lock(&self.failure).get_or_insert_with(|| Arc::new(copy(error))))
    }

    /// The error of a channel that was told to stop: why all of them end, if they do. The token may have come first, and knows no
    /// reason.
    fn reason(&self, error: Error) -> Error {
        let failure = lock(&self.failure);
        failure.as_ref().filter(|_| error.code == ErrorCode::Term).map_or(error, |failure| copy(failure))
    }

    /// Ends all channels because of an error. The first one counts.
    fn fail(&self, error: &Error) {
        let error = self.set_failure(error);
        // Before the token, which knows no reason
        lock(&self.open).values().for_each(|open| open.inbox.fail(&error));
        self.cancel.cancel();
    }

    /// The client sends no more. Channel 0 does what it was asked for, because its last request says that the client ends.
    /// Nobody waits for the others.
    fn end_input(&self) {
        for (channel, open) in &*lock(&self.open) {
            open.inbox.end();
            if *channel != 0 {
                open.cancel.cancel();
            }
        }
    }

    /// Sends a frame. An error ends all channels.
    fn send(&self, header: FrameHeader, data: &[IoSlice<'_>]) -> io::Result<()> {
        let is_of_first = header.channel == 0 && matches!(header.kind, FrameKind::Data(_));
        let mut output = lock(&self.output);
        if output.stream.is_none() || (is_of_first && output.has_first_ended) {
            drop(output);
            let failure = lock(&self.failure).as_ref().map(|error| copy(error).into());
            return Err(failure.unwrap_or_else(|| ErrorKind::BrokenPipe.into()));
        }
        output.is_within_first |= is_of_first;
        let Err(error) = output.write(header, data) else { return Ok(()) };
        drop(output);
        let error = Error::from_io(ErrorCode::FileWrite, "unable to write frame", error);
        self.fail(&error);
        Err(error.into())
    }

    /// Tells the client why this process ends, although the thread of channel 0 is at work: it may be so for longer than the process
    /// has left. Others find out by themselves.
    fn tell_end(&self, error: &Error) {
        let message = AnswerMessage::encode_error(None, &ErrorAnswer::from(error)).to_vec();
        // The thread of channel 0 may find at once that nothing can be sent any more
        self.set_failure(error);
        let mut output = lock(&self.output);
        if output.is_within_first || output.has_first_ended || message.len() > FRAME_BYTES_MAX {
            return;
        }
        output.has_first_ended = true;
        let header = FrameHeader { kind: FrameKind::Data(message.len()), channel: 0 };
        // A client that is gone needs nothing
        let _ = output.write(header, &[IoSlice::new(&message)]);
    }

    /// Returns whether nothing can be sent any more.
    fn is_broken(&self) -> bool {
        lock(&self.output).stream.is_none()
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

    /// Answers on a channel with an error.
    fn refuse(&self, channel: u32, error: &Error) {
        // A client that is gone needs nothing
        let _ = send_error(&mut Output { way: self, channel }, error);
    }

    /// Forgets a channel, and tells the client.
    fn close(&self, channel: u32) {
        lock(&self.open).remove(&channel);
        lock(&self.output).has_first_ended |= channel == 0;
        // A client that is gone needs nothing
        let _ = self.send(FrameHeader { kind: FrameKind::End, channel }, &[]);
    }
}

/// Writes all of a frame.
fn write_all(output: &mut impl Write, slices: &mut [IoSlice<'_>]) -> io::Result<()> {
    let mut rest = slices;
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

/// What the client sends on a channel.
struct ChannelInput<'a, W> {
    way: &'a ChannelsWay<W>,
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
        let (silence_max, channel) = (self.way.silence_max, self.channel);
        let silent = || format!("timeout after {}ms waiting for read from channel {channel}", silence_max.as_millis());
        let frame = self.inbox.next(&self.cancel, silence_max, silent).map_err(|error| self.way.reason(error))?;
        let Some(frame) = frame else { return Ok(false) };
        self.read += u32::try_from(frame.len()).unwrap_or(u32::MAX);
        (self.frame, self.begin) = (frame, 0);
        if self.read < GIVEN_BACK_AT {
            return Ok(true);
        }
        let room = std::mem::take(&mut self.read);
        self.inbox.give_back(room);
        let header = FrameHeader { kind: FrameKind::Room(room), channel };
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
    way: &'a ChannelsWay<W>,
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
        // Each message ends with this
        if self.channel == 0 {
            lock(&self.way.output).is_within_first = false;
        }
        Ok(())
    }
}

/// Serves channel 0, whose connection has agreed on channels and goes on with these handlers, and those that the client opens.
/// Returns when the client has left or channel 0 has failed.
///
/// # Errors
/// The first error of channel 0, of reading and of sending: [`ErrorCode::Protocol`] and [`ErrorCode::Format`] for frames that
/// are not valid.
pub(super) fn serve<'w>(
    streams: (Box<dyn Read + 'w>, Box<dyn Write + Send + 'w>),
    handlers: Handlers,
    more: &ServeMore,
) -> Result<()> {
    let (input, output) = streams;
    let way = ChannelsWay::new(output, handlers.cancel().clone(), handlers.usage().clone(), more.silence_max);
    std::thread::scope(|scope| {
        let (way, inbox) = (&way, Arc::new(Inbox::default()));
        lock(&way.open).insert(0, Open { inbox: Arc::clone(&inbox), cancel: way.cancel.clone() });
        let first = start(scope, "channel-0", move || {
            let (input, output) = way.streams(0, &inbox, &way.cancel);
            let result = thread::caught(|| Server::of_channel(input, output).serve_all(handlers));
            // Ends this side's reading, and what other channels do
            result.as_ref().err().inspect(|error| way.fail(error));
            way.close(0);
            result
        });
        let first = first.inspect_err(|error| way.refuse(0, error))?;
        let read = Demux { way, input, last: 0, more }.run(scope);
        match &read {
            Ok(()) => way.end_input(),
            Err(error) => {
                if way.cancel.is_cancelled() {
                    way.tell_end(error);
                }
                way.fail(error);
            }
        }
        let first = first.join().map_err(|_| Error::new(ErrorCode::Assert, "thread of channel 0 panicked"))?;
        match (first, read) {
            // A client that has left in order needs no more answers
            (Ok(()), Err(_)) if way.is_broken() => Ok(()),
            (Ok(()), read) => read,
            // One of them failed because of the other
            (Err(error), _) => Err(lock(&way.failure).as_ref().map_or(error, |first| copy(first))),
        }
    })
}

fn start<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    body: impl FnOnce() -> T + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, T>> {
    let started = thread::start(scope, name, body);
    started.map_err(|e| Error::from_io(ErrorCode::Kernel, "unable to start a thread", e))
}

/// Serves a channel that the client has opened.
fn serve_channel<W: Write + Send>(
    streams: (Box<dyn Read + '_>, Box<dyn Write + Send + '_>),
    way: &ChannelsWay<W>,
    more: &ServeMore,
    cancel: &CancelToken,
) -> Result<()> {
    let _share = way.usage.channel();
    let served = thread::caught(|| (more.serve)(cancel));
    let mut server = Server::greet_channel(streams.0, streams.1)?;
    match served {
        Ok(served) => server.serve(Served { usage: way.usage.clone(), ..served }),
        Err(error) => {
            server.refuse(&error)?;
            Err(error)
        }
    }
}

/// Reads frames.
struct Demux<'env, R, W> {
    way: &'env ChannelsWay<W>,
    /// It has a buffer.
    input: R,
    /// The number of the newest channel.
    last: u32,
    more: &'env ServeMore,
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
            FrameKind::End => {
                open.inspect(|(inbox, _)| inbox.end());
                Ok(())
            }
            FrameKind::Abort => {
                if let Some((inbox, cancel)) = open {
                    cancel.cancel();
                    inbox.abort();
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
        let (inbox, cancel) = (Arc::new(Inbox::default()), self.way.cancel.child());
        {
            let mut open = lock(&self.way.open);
            if open.len() >= CHANNELS_MAX {
                return Err(Error::new(ErrorCode::Protocol, format!("more than {CHANNELS_MAX} channels")));
            }
            open.insert(channel, Open { inbox: Arc::clone(&inbox), cancel: cancel.clone() });
        }
        self.last = channel;
        let (way, more) = (self.way, self.more);
        let started = start(scope, &format!("channel-{channel}"), move || {
            let streams = way.streams(channel, &inbox, &cancel);
            match thread::caught(|| serve_channel(streams, way, more, &cancel)) {
                Ok(()) => {}
                // A client that has ended the channel waits for nothing more
                Err(error) if inbox.has_left() => crate::debug!("channel {channel}: {error}"),
                Err(error) => crate::error!(error.code, "channel {channel}: {error}"),
            }
            way.close(channel);
        });
        // The others go on. The client sees that this one ends before it greets
        started.map(drop).unwrap_or_else(|error| {
            crate::warn!("channel {channel} is refused: {error}");
            way.close(channel);
        });
        Ok(())
    }
}

fn read_error(error: io::Error) -> Error {
    match error.kind() {
        ErrorKind::UnexpectedEof => Error::new(ErrorCode::Format, "unexpected EOF"),
        _ => Error::from_io(ErrorCode::FileRead, "unable to read frame", error),
    }
}

#[cfg(test)]
mod tests;
