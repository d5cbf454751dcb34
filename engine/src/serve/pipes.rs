//! Standard input and output of a process that serves, with a time limit.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::LastWords;
use crate::{CancelToken, Error, ErrorCode, Result};

/// How often a wait looks for a signal. The process has a second from the signal on.
const LOOK: Duration = Duration::from_millis(200);

/// Waits until the file is ready, at most `timeout`. Returns whether it is.
fn wait(file: impl AsFd, flags: PollFlags, timeout: Duration, cancel: &CancelToken) -> io::Result<bool> {
    let begin = Instant::now();
    loop {
        let left = timeout.saturating_sub(begin.elapsed()).min(LOOK);
        let pause = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::new(&file, flags)], Some(&pause)) {
            Ok(0) | Err(Errno::INTR) => cancel.check()?,
            Ok(_) => return Ok(true),
            Err(e) => return Err(e.into()),
        }
        if begin.elapsed() >= timeout {
            return Ok(false);
        }
    }
}

/// Standard input. A read fails if nothing comes for too long.
pub struct StandardInput {
    name: String,
    timeout: Duration,
    cancel: CancelToken,
}

impl StandardInput {
    /// `name` is that of the server in messages, such as `remote-0`.
    pub fn new(name: &str, timeout: Duration, cancel: CancelToken) -> Self {
        StandardInput { name: name.to_owned(), timeout, cancel }
    }
}

impl Read for StandardInput {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let stdin = io::stdin();
        if !wait(&stdin, PollFlags::IN, self.timeout, &self.cancel)? {
            let limit = self.timeout.as_millis();
            let text = format!("timeout after {limit}ms waiting for read from '{} read'", self.name);
            return Err(Error::new(ErrorCode::FileRead, text).into());
        }
        // Not the buffered handle: a byte in its buffer would not wake the wait
        loop {
            match rustix::io::read(&stdin, &mut *buffer) {
                Err(Errno::INTR) => {}
                result => return Ok(result?),
            }
        }
    }
}

/// How long a process goes on after its client is gone. A client that has sent its last request waits as long.
const LEFT_ALONE_MAX: Duration = Duration::from_secs(10);

/// Cancels the token some time after the other side of standard input is gone. Otherwise a process that waits for
/// PostgreSQL would keep its locks.
///
/// # Errors
/// [`ErrorCode::Kernel`] if no thread can be started.
pub fn end_with_client(cancel: CancelToken) -> Result<()> {
    let watch = move || {
        // The end of a pipe is reported whatever is asked for
        while matches!(poll(&mut [PollFd::new(&io::stdin(), PollFlags::RDHUP)], None), Ok(0) | Err(Errno::INTR)) {}
        std::thread::sleep(LEFT_ALONE_MAX);
        crate::warn!("client is gone: process ends");
        cancel.cancel();
    };
    let started = std::thread::Builder::new().name("client-end".to_owned()).stack_size(128 << 10).spawn(watch);
    started.map(drop).map_err(|e| Error::from_io(ErrorCode::Kernel, "unable to start a thread", e))
}

/// Standard output. A write fails if nothing can be written for too long.
pub struct StandardOutput {
    name: String,
    timeout: Duration,
    cancel: CancelToken,
    last_words: LastWords,
}

impl StandardOutput {
    /// `name` is that of the server in messages, such as `remote-0`.
    ///
    /// # Errors
    /// [`ErrorCode::Kernel`] if the output can't be made non-blocking.
    pub fn new(name: &str, timeout: Duration, cancel: CancelToken) -> Result<Self> {
        rustix::io::ioctl_fionbio(io::stdout(), true)
            .map_err(|e| Error::from_io(ErrorCode::Kernel, "unable to set up standard output", e.into()))?;
        Ok(StandardOutput { name: name.to_owned(), timeout, cancel, last_words: LastWords::default() })
    }

    /// Tells the client by which error the process ends, at any time.
    pub fn last_words(&self) -> LastWords {
        self.last_words.clone()
    }

    /// Repeats a write that would block until something can be written.
    fn repeat(&self, mut write: impl FnMut() -> rustix::io::Result<usize>) -> io::Result<usize> {
        self.last_words.begin()?;
        loop {
            match write() {
                Err(Errno::AGAIN) => {}
                Err(Errno::INTR) => continue,
                result => return Ok(result?),
            }
            if !wait(io::stdout(), PollFlags::OUT, self.timeout, &self.cancel)? {
                let limit = self.timeout.as_millis();
                let text = format!("timeout after {limit}ms waiting for write to '{} write'", self.name);
                return Err(io::Error::new(ErrorKind::TimedOut, Error::new(ErrorCode::FileWrite, text)));
            }
        }
    }
}

impl Write for StandardOutput {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.repeat(|| rustix::io::write(io::stdout(), buffer))
    }

    fn write_vectored(&mut self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        self.repeat(|| rustix::io::writev(io::stdout(), buffers))
    }

    /// Every message ends with this.
    fn flush(&mut self) -> io::Result<()> {
        self.last_words.complete();
        Ok(())
    }
}
