//! What a client has sent on a channel and nobody has read yet.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use protocol::channel::{FRAME_BYTES_MAX, WINDOW_BYTES};

use crate::{CancelToken, Error, ErrorCode, Result};

/// How often a channel without requests looks whether it is to end.
const LOOK: Duration = Duration::from_millis(500);

/// Returns an error for one more of those whom it concerns.
pub(super) fn copy(error: &Error) -> Error {
    error.hints.iter().fold(Error::new(error.code, error.message.clone()), Error::hint)
}

/// What a client has sent on a channel.
#[derive(Default)]
pub(super) struct Inbox {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    frames: VecDeque<Vec<u8>>,
    /// Bytes that the client has sent and that it was not given back.
    used: u32,
    end: Option<InputEnd>,
}

/// Why nothing more comes.
enum InputEnd {
    /// The client sends no more.
    Left,
    /// All channels end because of this.
    Failed(Arc<Error>),
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds what came. Small frames become one, so that the memory is that of the bytes.
    ///
    /// # Errors
    /// [`ErrorCode::Protocol`] if the client had no room for it.
    pub(super) fn push(&self, frame: Vec<u8>) -> Result<()> {
        let mut state = self.lock();
        let size = u32::try_from(frame.len()).unwrap_or(u32::MAX);
        let used = state.used.checked_add(size).filter(|used| *used <= WINDOW_BYTES);
        state.used = used.ok_or_else(|| Error::new(ErrorCode::Protocol, "client sent more than there is room for"))?;
        if state.end.is_none() {
            match state.frames.back_mut().filter(|last| last.len() + frame.len() <= FRAME_BYTES_MAX) {
                Some(last) => last.extend_from_slice(&frame),
                None => state.frames.push_back(frame),
            }
        }
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    /// The client sends no more. What it has sent is still read.
    pub(super) fn end(&self) {
        self.lock().end.get_or_insert(InputEnd::Left);
        self.changed.notify_all();
    }

    /// The client sends no more, and waits for nothing.
    pub(super) fn abort(&self) {
        self.lock().frames.clear();
        self.end();
    }

    /// All channels end because of an error. What the client has sent is no longer read.
    pub(super) fn fail(&self, error: &Arc<Error>) {
        self.lock().end.get_or_insert_with(|| InputEnd::Failed(Arc::clone(error)));
        self.changed.notify_all();
    }

    /// Returns whether the client has ended the channel.
    pub(super) fn has_left(&self) -> bool {
        matches!(self.lock().end, Some(InputEnd::Left))
    }

    /// Waits for the next frame; `None` if the client sends no more.
    ///
    /// # Errors
    /// The error that ends all channels; that of the token; [`ErrorCode::FileRead`] with this text if nothing comes for so long.
    pub(super) fn next(
        &self,
        cancel: &CancelToken,
        silence_max: Duration,
        text: impl FnOnce() -> String,
    ) -> Result<Option<Vec<u8>>> {
        let begun = Instant::now();
        let mut state = self.lock();
        loop {
            if let Some(InputEnd::Failed(error)) = &state.end {
                return Err(copy(error));
            }
            if let Some(frame) = state.frames.pop_front() {
                return Ok(Some(frame));
            }
            if state.end.is_some() {
                return Ok(None);
            }
            cancel.check()?;
            if begun.elapsed() >= silence_max {
                return Err(Error::new(ErrorCode::FileRead, text()));
            }
            state = self.changed.wait_timeout(state, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The client may send so many bytes more.
    pub(super) fn give_back(&self, bytes: u32) {
        let mut state = self.lock();
        state.used = state.used.saturating_sub(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAMES: usize = WINDOW_BYTES as usize / FRAME_BYTES_MAX;

    #[test]
    fn client_that_sends_more_than_it_has_room_for_is_refused() {
        let inbox = Inbox::default();
        for _ in 0..FRAMES {
            inbox.push(vec![0; FRAME_BYTES_MAX]).unwrap();
        }
        assert_eq!(inbox.push(vec![0]).unwrap_err().code, ErrorCode::Protocol);
        inbox.give_back(1);
        inbox.push(vec![0]).unwrap();
        // What comes after the end is not kept, and counts all the same
        let inbox = Inbox::default();
        inbox.end();
        for _ in 0..FRAMES {
            inbox.push(vec![0; FRAME_BYTES_MAX]).unwrap();
        }
        assert!(inbox.lock().frames.is_empty());
        assert!(inbox.push(vec![0]).is_err());
    }

    #[test]
    fn frames_of_a_byte_took_many_times_their_bytes() {
        let inbox = Inbox::default();
        for index in 0..WINDOW_BYTES {
            inbox.push(vec![index as u8]).unwrap();
        }
        assert_eq!(inbox.lock().frames.len(), FRAMES);
        assert!(inbox.lock().frames.iter().all(|frame| frame.capacity() <= 2 * FRAME_BYTES_MAX));
        let next = || inbox.next(&CancelToken::new(), Duration::ZERO, String::new);
        let all: Vec<u8> = std::iter::from_fn(|| next().ok().flatten()).flatten().collect();
        assert!(all.iter().copied().eq((0..WINDOW_BYTES).map(|index| index as u8)));
        // Neighbours of a large frame
        let inbox = Inbox::default();
        for size in std::iter::repeat_n([FRAME_BYTES_MAX, 1], FRAMES - 1).flatten() {
            inbox.push(vec![0; size]).unwrap();
        }
        assert!(inbox.lock().frames.len() <= 2 * FRAMES);
    }

    #[test]
    fn reason_why_all_channels_end_comes_before_what_was_sent_and_an_end_after_it() {
        let next = |inbox: &Inbox| inbox.next(&CancelToken::new(), Duration::ZERO, || "silent".to_owned());
        let inbox = Inbox::default();
        let error = next(&inbox).unwrap_err();
        assert_eq!((error.code, &*error.message), (ErrorCode::FileRead, "silent"));
        inbox.push(vec![1]).unwrap();
        inbox.end();
        assert!(inbox.has_left());
        assert_eq!(next(&inbox).unwrap(), Some(vec![1]));
        assert_eq!(next(&inbox).unwrap(), None);
        let inbox = Inbox::default();
        inbox.push(vec![1]).unwrap();
        inbox.fail(&Arc::new(Error::new(ErrorCode::Term, "terminated on signal SIGTERM").hint("x")));
        inbox.end();
        assert!(!inbox.has_left());
        let error = next(&inbox).unwrap_err();
        assert_eq!((error.code, &*error.to_string()), (ErrorCode::Term, "terminated on signal SIGTERM\nHINT: x"));
        let inbox = Inbox::default();
        inbox.push(vec![1]).unwrap();
        inbox.abort();
        assert_eq!(next(&inbox).unwrap(), None);
    }
}
