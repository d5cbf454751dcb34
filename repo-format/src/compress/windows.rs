//! Memory for the windows of zst streams, which all streams of a process share.
//!
//! A decoder keeps as many plain bytes as the window of its frame requires. The levels up to 19 have windows of at most
//! 8 MiB. The levels 20, 21 and 22 have 32, 64 and 128 MiB, and whoever can write to a repository can give any file
//! such a window. Decoders with large windows wait for each other, so that the memory of a process does not grow with
//! the number of its decoders.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// The largest window that a stream uses without waiting.
pub const WINDOW_FREE_BYTES: u64 = 8 << 20;

/// The size of the longest frame header.
const HEADER_BYTES_MAX: usize = 18;
const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// The shared memory for large windows.
#[derive(Debug)]
pub struct Windows {
    total: u64,
    free: Mutex<u64>,
    given_back: Condvar,
}

/// Runs the function that waits for memory, once. What the thread holds meanwhile is the caller's concern.
pub type WaitAround = Arc<dyn Fn(&mut dyn FnMut()) + Send + Sync>;

impl Windows {
    /// Creates shared windows with `total` bytes.
    pub const fn new(total: u64) -> Self {
        Windows { total, free: Mutex::new(total), given_back: Condvar::new() }
    }

    /// Waits for that many bytes, or for all of them if it is more, and takes them.
    fn take(&'static self, bytes: u64, around: &WaitAround) -> WindowShare {
        let bytes = bytes.min(self.total);
        if !self.try_take(bytes) {
            around(&mut || {
                let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
                let mut free =
                    self.given_back.wait_while(free, |free| *free < bytes).unwrap_or_else(PoisonError::into_inner);
                *free -= bytes;
            });
        }
        WindowShare { windows: self, bytes }
    }

    fn try_take(&self, bytes: u64) -> bool {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = *free >= bytes;
        if fits {
            *free -= bytes;
        }
        fits
    }
}

/// Bytes taken from [`Windows`]. Dropping it returns them.
#[derive(Debug)]
struct WindowShare {
    windows: &'static Windows,
    bytes: u64,
}

impl Drop for WindowShare {
    fn drop(&mut self) {
        *self.windows.free.lock().unwrap_or_else(PoisonError::into_inner) += self.bytes;
        self.windows.given_back.notify_all();
    }
}

/// The share of one decoder.
#[derive(Default)]
pub(super) struct Share {
    windows: Option<(&'static Windows, WaitAround)>,
    lease: Option<WindowShare>,
    /// The maximum number of bytes that are read from the stream.
    limit: Option<u64>,
    header: Vec<u8>,
    /// Whether the frame header is complete.
    known: bool,
}

impl Share {
    pub(super) fn of(windows: &'static Windows, around: WaitAround) -> Self {
        Share { windows: Some((windows, around)), ..Share::default() }
    }

    /// Declares that at most `bytes` bytes of the stream are read. Its window needs no more memory than that.
    pub(super) fn limit(&mut self, bytes: u64) {
        self.limit = Some(bytes);
    }

    /// Starts a new frame.
    pub(super) fn begin_frame(&mut self) {
        self.header.clear();
        self.known = false;
    }

    /// Examines the next bytes of a frame before the decoder does, and waits for memory. `forget` makes the decoder
    /// release its memory. It is called only between frames.
    pub(super) fn look<E>(&mut self, input: &[u8], forget: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
        let Some((windows, around)) = self.windows.as_ref().filter(|_| !self.known) else { return Ok(()) };
        let more = input.len().min(HEADER_BYTES_MAX - self.header.len());
        self.header.extend_from_slice(&input[..more]);
        let window = match window(&self.header) {
            WindowHeader::Incomplete => return Ok(()),
            WindowHeader::Window(bytes) => bytes.min(self.limit.unwrap_or(u64::MAX)),
        };
        self.known = true;
        if window > WINDOW_FREE_BYTES && self.lease.as_ref().is_none_or(|lease| lease.bytes < window.min(windows.total))
        {
            // A stream that waits must not hold memory that others wait for
            if self.lease.is_some() {
                forget()?;
                self.lease = None;
            }
            self.lease = Some(windows.take(window, around));
        }
        Ok(())
    }

    /// Ends the stream, complete or not. Returns its memory after the decoder has released it.
    pub(super) fn end<E>(&mut self, forget: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
        self.begin_frame();
        self.limit = None;
        if self.lease.is_some() {
            forget()?;
            self.lease = None;
        }
        Ok(())
    }
}

#[derive(Debug, PartialEq, Eq)]
enum WindowHeader {
    Incomplete,
    /// The number of bytes that a decoder keeps of the frame, or 0 for something that is not a frame.
    Window(u64),
}

/// Reads the size of a window from the beginning of a frame (RFC 8878, 3.1.1).
fn window(frame: &[u8]) -> WindowHeader {
    let [magic @ .., descriptor] = frame.get(..5).unwrap_or_default() else { return WindowHeader::Incomplete };
    if magic != MAGIC {
        return WindowHeader::Window(0);
    }
    let is_single = descriptor & 0x20 != 0;
    let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let content = match descriptor >> 6 {
        0 => usize::from(is_single),
        1 => 2,
        2 => 4,
        _ => 8,
    };
    let content_start = 5 + usize::from(!is_single) + dictionary;
    let Some(content) = frame.get(content_start..content_start + content) else { return WindowHeader::Incomplete };
    let number = content.iter().rev().fold(0u64, |number, byte| number << 8 | u64::from(*byte));
    let size = match content.len() {
        0 => u64::MAX,
        2 => number + 256,
        _ => number,
    };
    let window = match frame.get(5) {
        _ if is_single => u64::MAX,
        None => return WindowHeader::Incomplete,
        Some(byte) => {
            let base = 1u64 << (10 + (byte >> 3));
            base + (base >> 3) * u64::from(byte & 7)
        }
    };
    WindowHeader::Window(window.min(size))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn share(windows: &'static Windows) -> Share {
        Share::of(windows, Arc::new(|wait: &mut dyn FnMut()| wait()))
    }

    fn frame(window_log: u8) -> Vec<u8> {
        [&MAGIC[..], &[0, (window_log - 10) << 3]].concat()
    }

    fn look(share: &mut Share, input: &[u8]) {
        share.look::<()>(input, || Ok(())).unwrap();
    }

    #[test]
    fn window_of_each_form_of_header_is_read() {
        for (header, expected) in [
            (vec![0, 0x58], 1 << 21),
            (vec![0, 0x59], (1 << 21) + (1 << 18)),
            // Content sizes of one, two, four and eight bytes
            (vec![0x20, 200], 200),
            (vec![0x60, 1, 1], 257 + 256),
            (vec![0x80, 0x58, 1, 0, 0, 1], 1 << 21),
            (vec![0x80, 0x58, 1, 1, 0, 0], 257),
            (vec![0xe0, 0, 0, 0, 0, 1, 0, 0, 0], 1 << 32),
            // With the id of a dictionary before the size
            (vec![0x22, 9, 9, 200], 200),
        ] {
            let bytes = [&MAGIC[..], &header].concat();
            assert_eq!(window(&bytes), WindowHeader::Window(expected), "{header:?}");
            assert_eq!(window(&bytes[..bytes.len() - 1]), WindowHeader::Incomplete, "{header:?}");
        }
        assert_eq!(window(b"abcde"), WindowHeader::Window(0));
    }

    #[test]
    fn large_windows_wait_for_each_other_and_small_ones_do_not() {
        static WINDOWS: Windows = Windows::new(64 << 20);
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| {
                    let mut share = share(&WINDOWS);
                    look(&mut share, &frame(25)[..3]);
                    look(&mut share, &frame(25)[3..]);
                    most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    std::thread::sleep(std::time::Duration::from_millis(5));
                    now.fetch_sub(1, Ordering::SeqCst);
                    share.end::<()>(|| Ok(())).unwrap();
                });
            }
        });
        assert!(most.into_inner() <= 2);
        let shares: Vec<Share> = (0..100)
            .map(|index| {
                let mut share = share(&WINDOWS);
                // Windows of the levels up to 19, and streams that are not read to their end
                let window_log = if index % 2 == 0 { 23 } else { 27 };
                share.limit(1 << 20);
                look(&mut share, &frame(window_log));
                share
            })
            .collect();
        assert!(shares.iter().all(|share| share.known && share.lease.is_none()));
    }

    #[test]
    fn larger_window_than_there_is_memory_takes_all_of_it() {
        static WINDOWS: Windows = Windows::new(64 << 20);
        let mut share = share(&WINDOWS);
        look(&mut share, &frame(25));
        share.begin_frame();
        // A later frame with a larger window releases the first one. Otherwise two streams could wait for each other
        let mut forgotten = 0;
        let mut next = |share: &mut Share| {
            share.look::<()>(&frame(27), || {
                forgotten += 1;
                Ok(())
            })
        };
        next(&mut share).unwrap();
        share.begin_frame();
        next(&mut share).unwrap();
        assert_eq!((forgotten, *WINDOWS.free.lock().unwrap()), (1, 0));
        drop(share);
        assert_eq!(*WINDOWS.free.lock().unwrap(), 64 << 20);
    }
}
