//! What is sent on a way: frames of several channels, one after the other.
//!
//! A frame is sent under a lock, and takes long if the network stalls. A channel that ends waits for neither: its last frame is
//! left to whoever sends, or to a thread of its own.

use std::io::{self, ErrorKind, IoSlice, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::Builder;
use std::time::{Duration, Instant};

use protocol::channel::FrameHeader;

use crate::remote::shared::lock;

/// How often a wait for a frame that another thread sends looks whether anything moves.
const LOOK: Duration = Duration::from_millis(100);

/// What is sent on a way.
pub(super) struct WayOutput {
    /// `None` once nothing can be sent any more.
    writer: Mutex<Option<Box<dyn Write + Send>>>,
    /// Something could not be sent in time, so nothing is sent any more.
    is_stalled: AtomicBool,
    last: Mutex<LastFrames>,
    /// Last frames were sent.
    sent: Condvar,
    begun: Instant,
    /// When bytes were last taken, in milliseconds after `begun`.
    moved_ms: AtomicU64,
}

/// Frames without data that go out after the one that is being sent.
#[derive(Default)]
struct LastFrames {
    waiting: Vec<FrameHeader>,
    /// The number of frames that were given, and of those that were sent, or that can't be sent.
    given: u64,
    done: u64,
}

impl WayOutput {
    pub(super) fn new(writer: Box<dyn Write + Send>) -> Self {
        WayOutput {
            writer: Mutex::new(Some(writer)),
            is_stalled: AtomicBool::new(false),
            last: Mutex::default(),
            sent: Condvar::new(),
            begun: Instant::now(),
            moved_ms: AtomicU64::new(0),
        }
    }

    /// Sends a frame.
    pub(super) fn send(&self, header: FrameHeader, data: &[IoSlice<'_>]) -> io::Result<()> {
        let sent = self.locked(&mut lock(&self.writer), |writer| self.write_frame(writer, header, data));
        self.send_last();
        sent
    }

    /// Writes bytes before there are frames. Returns how many were written.
    pub(super) fn write(&self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        self.locked(&mut lock(&self.writer), |writer| writer.write_vectored(buffers))
    }

    /// Has the last frame of a channel sent, and waits for nothing. Returns its number.
    pub(super) fn give(self: &Arc<Self>, header: FrameHeader) -> u64 {
        let number = {
            let mut last = lock(&self.last);
            last.waiting.push(header);
            last.given += 1;
            last.given
        };
        let output = Arc::clone(self);
        let started = Builder::new().name("remote-last".to_owned()).spawn(move || output.send_last());
        if started.is_err() {
            self.send_last();
        }
        number
    }

    /// Waits until the frame of this number was sent, or can't be. Returns `false` if nothing moves for so long.
    pub(super) fn wait(&self, number: u64, stalled: Duration) -> bool {
        let begun = Instant::now();
        let mut last = lock(&self.last);
        while last.done < number {
            let moved = self.begun + Duration::from_millis(self.moved_ms.load(Ordering::Relaxed));
            if moved.max(begun).elapsed() >= stalled {
                return false;
            }
            last = self.sent.wait_timeout(last, LOOK.min(stalled)).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Returns whether something could not be sent in time.
    pub(super) fn is_stalled(&self) -> bool {
        self.is_stalled.load(Ordering::Relaxed)
    }

    /// Nothing is sent any more.
    pub(super) fn close(&self) {
        *lock(&self.writer) = None;
    }

    /// Sends the frames that were left, unless another thread sends, which does it then.
    fn send_last(&self) {
        // A frame that comes while the lock is held is seen after it was released
        while !lock(&self.last).waiting.is_empty() {
            let mut writer = match self.writer.try_lock() {
                Ok(writer) => writer,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => return,
            };
            let frames = std::mem::take(&mut lock(&self.last).waiting);
            for header in &frames {
                // The server may have left
                let _ = self.locked(&mut writer, |writer| self.write_frame(writer, *header, &[]));
            }
            lock(&self.last).done += frames.len() as u64;
            self.sent.notify_all();
        }
    }

    /// Writes under the lock. Half a frame must not be continued, so nothing is sent after an error.
    fn locked<T>(
        &self,
        writer: &mut MutexGuard<'_, Option<Box<dyn Write + Send>>>,
        write: impl FnOnce(&mut dyn Write) -> io::Result<T>,
    ) -> io::Result<T> {
        let Some(open) = &mut **writer else { return Err(ErrorKind::BrokenPipe.into()) };
        self.moved();
        let written = write(open);
        if let Err(error) = &written
            && error.kind() != ErrorKind::Interrupted
        {
            **writer = None;
            self.is_stalled.store(error.kind() == ErrorKind::TimedOut, Ordering::Relaxed);
        }
        written
    }

    /// Writes all of a frame.
    fn write_frame(&self, writer: &mut dyn Write, header: FrameHeader, data: &[IoSlice<'_>]) -> io::Result<()> {
        let header = header.encode();
        let mut slices = Vec::with_capacity(data.len() + 1);
        slices.push(IoSlice::new(&header));
        slices.extend_from_slice(data);
        let mut rest = &mut slices[..];
        while !rest.is_empty() {
            match writer.write_vectored(rest) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => IoSlice::advance_slices(&mut rest, written),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            self.moved();
        }
        Ok(())
    }

    fn moved(&self) {
        let ms = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.moved_ms.store(ms, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use protocol::channel::FrameKind;

    use super::*;

    type Taken = Arc<Mutex<Vec<u8>>>;

    /// A way that takes a few bytes each time it is told to.
    struct Slow {
        told: Receiver<io::Result<usize>>,
        taken: Taken,
    }

    impl Write for Slow {
        fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
            let most = self.told.recv().unwrap_or(Ok(usize::MAX))?;
            let taken = most.min(buffer.len());
            lock(&self.taken).extend_from_slice(&buffer[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn slow() -> (Arc<WayOutput>, Sender<io::Result<usize>>, Taken) {
        let (sender, told) = channel();
        let taken = Taken::default();
        (Arc::new(WayOutput::new(Box::new(Slow { told, taken: Arc::clone(&taken) }))), sender, taken)
    }

    fn header(kind: FrameKind, channel: u32) -> FrameHeader {
        FrameHeader { kind, channel }
    }

    const STALLED: Duration = Duration::from_millis(300);

    #[test]
    fn last_frame_of_a_channel_waited_for_another_one_and_comes_after_its_frame() {
        let (output, sender, taken) = slow();
        let other = Arc::clone(&output);
        let sends = std::thread::spawn(move || other.send(header(FrameKind::Data(4), 1), &[IoSlice::new(b"data")]));
        sender.send(Ok(3)).unwrap();
        while lock(&taken).len() < 3 {
            std::thread::sleep(Duration::from_millis(1));
        }
        let number = output.give(header(FrameKind::Abort, 2));
        assert!(!output.wait(number, STALLED));
        assert_eq!(lock(&taken).len(), 3);
        drop(sender);
        assert!(output.wait(number, Duration::from_secs(20)));
        sends.join().unwrap().unwrap();
        let mut expected = header(FrameKind::Data(4), 1).encode().to_vec();
        expected.extend_from_slice(b"data");
        expected.extend_from_slice(&header(FrameKind::Abort, 2).encode());
        assert_eq!(*lock(&taken), expected);
    }

    #[test]
    fn last_frame_that_can_not_be_sent_holds_up_nobody() {
        let (output, sender, _) = slow();
        let number = output.give(header(FrameKind::Abort, 2));
        // Nobody else sends
        assert!(!output.wait(number, STALLED));
        sender.send(Err(ErrorKind::TimedOut.into())).unwrap();
        assert!(output.wait(number, Duration::from_secs(20)) && output.is_stalled());
    }

    #[test]
    fn frames_of_many_channels_are_sent_complete_and_once() {
        let (output, sender, taken) = slow();
        drop(sender);
        std::thread::scope(|scope| {
            for channel in 0..8 {
                let output = &output;
                scope.spawn(move || {
                    for _ in 0..100 {
                        output.send(header(FrameKind::Data(2), channel), &[IoSlice::new(&[9; 2])]).unwrap();
                        let number = output.give(header(FrameKind::End, channel));
                        assert!(output.wait(number, Duration::from_secs(20)));
                    }
                });
            }
        });
        let taken = lock(&taken);
        let mut rest = &taken[..];
        let mut found = [[0; 2]; 8];
        while let Some((first, others)) = rest.split_first_chunk() {
            let FrameHeader { kind, channel } = FrameHeader::decode(*first).unwrap();
            let (is_data, size) = if kind == FrameKind::End { (0, 0) } else { (1, 2) };
            found[channel as usize][is_data] += 1;
            rest = &others[size..];
        }
        assert!(rest.is_empty());
        assert_eq!(found, [[100; 2]; 8]);
    }

    #[test]
    fn nothing_follows_half_a_frame() {
        let (output, sender, taken) = slow();
        sender.send(Ok(5)).unwrap();
        sender.send(Err(ErrorKind::TimedOut.into())).unwrap();
        drop(sender);
        let error = output.send(header(FrameKind::Data(4), 1), &[IoSlice::new(b"data")]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(output.send(header(FrameKind::Data(4), 2), &[IoSlice::new(b"data")]).is_err());
        assert!(output.wait(output.give(header(FrameKind::End, 3)), Duration::from_secs(20)));
        assert_eq!(*lock(&taken), header(FrameKind::Data(4), 1).encode()[..5]);
    }
}
