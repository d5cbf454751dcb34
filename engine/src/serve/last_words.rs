//! What a process tells its client if it has to end while it works on a request.

use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use protocol::message::{AnswerMessage, ErrorAnswer};

use crate::{Error, ErrorCode};

/// The most bytes that a pipe takes as a whole or not at all.
const WHOLE_BYTES_MAX: usize = 4096;

/// Where the output of a process is.
#[derive(Debug, Default, PartialEq, Eq)]
enum Place {
    /// Between two messages.
    #[default]
    Between,
    /// Within a message.
    Within,
    /// After the last one.
    Ended,
}

#[derive(Debug, Default)]
struct State {
    /// Messages are sent as they are, without frames around them.
    is_plain: bool,
    place: Place,
}

/// Tells a client by which error a process ends, if the output is between two messages. Clones are of the same output.
#[derive(Clone, Debug, Default)]
pub struct LastWords(Arc<Mutex<State>>);

impl LastWords {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on the client understands a message that follows the last one.
    pub(super) fn allow(&self) {
        self.state().is_plain = true;
    }

    /// Something is about to be written.
    ///
    /// # Errors
    /// The last message was sent.
    pub(super) fn begin(&self) -> io::Result<()> {
        let mut state = self.state();
        if state.place == Place::Ended {
            return Err(Error::new(ErrorCode::Term, "process ends").into());
        }
        state.place = Place::Within;
        Ok(())
    }

    /// A message is complete.
    pub(super) fn complete(&self) {
        let mut state = self.state();
        if state.place == Place::Within {
            state.place = Place::Between;
        }
    }

    /// Tells the client, unless that would have to wait, or would be within a message. Nothing else is sent afterwards. The
    /// output must not block.
    pub fn say(&self, output: impl AsFd, error: &Error) {
        let mut state = self.state();
        if !state.is_plain || state.place != Place::Between {
            return;
        }
        let message = AnswerMessage::encode_error(None, &ErrorAnswer::from(error)).to_vec();
        if message.len() <= WHOLE_BYTES_MAX {
            state.place = Place::Ended;
            // A client that reads nothing gets nothing
            let _ = rustix::io::write(output, &message);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    /// What a client reads after the process has ended.
    fn heard(prepare: impl FnOnce(&LastWords)) -> Vec<u8> {
        let (mut input, output) = std::io::pipe().unwrap();
        rustix::io::ioctl_fionbio(&output, true).unwrap();
        let words = LastWords::default();
        prepare(&words);
        words.say(&output, &Error::new(ErrorCode::Term, "terminated on signal SIGTERM"));
        drop(output);
        let mut heard = Vec::new();
        input.read_to_end(&mut heard).unwrap();
        heard
    }

    #[test]
    fn client_of_a_process_that_was_busy_at_its_end_was_told_nothing() {
        let message = heard(|words| {
            words.allow();
            words.begin().unwrap();
            words.complete();
        });
        let answer = AnswerMessage::decode(&message).unwrap();
        let error = answer.outcome.unwrap_err();
        assert_eq!((answer.session, error.code), (None, i32::from(ErrorCode::Term.number())));
        assert_eq!(error.message, "terminated on signal SIGTERM");
    }

    #[test]
    fn nothing_is_said_within_a_message_or_to_a_client_that_expects_frames() {
        assert!(heard(|_| {}).is_empty());
        let within = |words: &LastWords| {
            words.allow();
            words.begin().unwrap();
        };
        assert!(heard(within).is_empty());
    }

    #[test]
    fn nothing_follows_the_last_words() {
        let (input, output) = std::io::pipe().unwrap();
        let words = LastWords::default();
        words.allow();
        words.say(&output, &Error::new(ErrorCode::Term, "end"));
        assert!(words.begin().is_err());
        words.complete();
        assert!(words.begin().is_err());
        drop(input);
    }
}
