//! The threads of a connection: one reads the answers, one keeps the connection alive.

use std::io::{self, BufRead, Read};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use protocol::greeting::{self, GREETING_SIZE_MAX, Service};
use protocol::pack::TooLarge;
use protocol::{AnswerMessage, Call, Dialect};

use super::connection::FirstFrame;
use super::failure::FarEnd;
use super::received::{KEPT_BYTES_MAX, Kept};
use super::shared::{ANSWER_BYTES_MAX, End, Shared, Waiting, lock};
use crate::{Error, ErrorCode, Result};

/// A connection on which nothing was sent for this time gets a request, so that nothing between the hosts takes it for
/// dead.
pub(super) const IDLE: Duration = Duration::from_secs(30);
/// The most warnings of a server that are logged.
pub(super) const WARNINGS_MAX: usize = 1000;
/// How long the server may take to end after the connection was closed.
pub(super) const EXIT_WAIT: Duration = Duration::from_secs(10);

/// Reads the greeting and all answers. `far` is the server, for its errors and warnings. `first_frame` is for the connection that
/// may have channels.
pub(super) fn read(
    input: Box<dyn BufRead + Send>,
    greeted: &Sender<std::result::Result<&'static Dialect, End>>,
    shared: &Shared,
    far: &FarEnd,
    first_frame: Option<FirstFrame>,
) {
    let mut input = Input { reader: input, has_ended: false };
    let mut has_greeted = false;
    let error = match read_greeting(&mut input) {
        Ok(dialect) => {
            has_greeted = true;
            // The thread that opens the connection may have given up
            let _ = greeted.send(Ok(dialect));
            far.in_answer(read_answers(&mut input, shared, &far.name, first_frame))
        }
        Err(error) => far.in_greeting(error),
    };
    // A process that has ended says why, and a session that was closed has no other error
    let end = End::of(if input.has_ended { lock(&shared.link).ended(EXIT_WAIT, has_greeted) } else { error });
    shared.fail(&end);
    let _ = greeted.send(Err(end));
}

/// What the server sends.
struct Input {
    reader: Box<dyn BufRead + Send>,
    has_ended: bool,
}

impl BufRead for Input {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let come = self.reader.fill_buf();
        self.has_ended |= match &come {
            Ok(come) => come.is_empty(),
            Err(error) => error.kind() == io::ErrorKind::UnexpectedEof,
        };
        come
    }

    fn consume(&mut self, count: usize) {
        self.reader.consume(count);
    }
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}

pub(super) fn read_greeting(input: &mut impl BufRead) -> Result<&'static Dialect> {
    let mut line = Vec::new();
    input
        .by_ref()
        .take(GREETING_SIZE_MAX as u64)
        .read_until(b'\n', &mut line)
        .map_err(|e| Error::from_io(ErrorCode::FileRead, "unable to read greeting", e))?;
    greeting::check(line.strip_suffix(b"\n").unwrap_or(&line), Service::Remote)
}

/// Gives each answer to the thread that waits for it. Returns the error that ended the connection.
fn read_answers(input: &mut impl BufRead, shared: &Shared, name: &str, mut first_frame: Option<FirstFrame>) -> Error {
    let mut warnings_left = WARNINGS_MAX;
    let kept = Kept::default();
    loop {
        let message = match read_message(input, shared, &kept) {
            Ok(message) => message,
            Err(error) => return error,
        };
        let answer = match AnswerMessage::decode(&message) {
            Ok(answer) => answer,
            Err(error) => return error,
        };
        if let Some(first_frame) = &mut first_frame {
            first_frame.pass(&answer);
        }
        let (session, fault) = (answer.session, answer.outcome.err().map(|fault| fault.to_error(name)));
        if shared.has_warnings.load(Ordering::Relaxed) {
            match pass_on_warnings(&message, warnings_left, name) {
                Ok(passed) => warnings_left = warnings_left.saturating_sub(passed),
                Err(error) => return error,
            }
        }
        let fault = match fault {
            // A server that gives up says so, also unasked. That is for everybody: it answers nobody any more
            Some(fault) if session.is_none() => return fault,
            fault => fault,
        };
        let waiting = match next_waiting(shared, session) {
            Ok(Some(waiting)) => waiting,
            Ok(None) => return fault.unwrap_or_else(|| Error::new(ErrorCode::Protocol, "answer without a request")),
            Err(error) => return error,
        };
        let since_begin = u64::try_from(shared.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        shared.answered_ms.store(since_begin, Ordering::Relaxed);
        let took = u64::try_from(waiting.sent.elapsed().as_micros()).unwrap_or(u64::MAX);
        shared.round_trip_us.fetch_min(took, Ordering::Relaxed);
        // A thread that no longer waits needs no answer
        let _ = waiting.sender.send(Ok(kept.keep(message)));
    }
}

/// Waits for the next message and reads it, as far as it may be as large as it is.
fn read_message(input: &mut impl BufRead, shared: &Shared, kept: &Kept) -> Result<Vec<u8>> {
    let begun = input.fill_buf().map_err(|e| Error::from_io(ErrorCode::FileRead, "unable to read message", e))?;
    if begun.is_empty() {
        return Err(Error::new(ErrorCode::Format, "unexpected EOF"));
    }
    // A request is entered before it is sent. An error that nobody has asked for is small
    let of_call = lock(&shared.queue).waiting.front().map_or(Some(ANSWER_BYTES_MAX), |waiting| waiting.bytes_max);
    let (of_call, left) = (of_call.unwrap_or(usize::MAX), kept.bytes_left());
    let mut message = kept.buffer();
    match AnswerMessage::read(input, &mut message, of_call.min(left)) {
        Ok(()) => Ok(message),
        Err(error) if !TooLarge::caused(&error) => Err(error),
        Err(_) if of_call <= left => {
            Err(Error::new(ErrorCode::Format, format!("message exceeds {of_call} bytes, the limit of one answer")))
        }
        Err(_) => {
            let text = format!(
                "messages that wait exceed {KEPT_BYTES_MAX} bytes, the limit of all answers of a connection together"
            );
            Err(Error::new(ErrorCode::Format, text)
                .hint("smaller values of process-max or buffer-size need less memory."))
        }
    }
}

/// Takes the thread that waits for the next answer, which is for this session; `None` if nobody waits. A thread whose answer did not
/// come stays, so that it gets the error that ends the connection.
fn next_waiting(shared: &Shared, session: Option<u64>) -> Result<Option<Waiting>> {
    let waiting = &mut lock(&shared.queue).waiting;
    let Some(expected) = waiting.front().map(|waiting| waiting.session) else { return Ok(None) };
    match session.filter(|session| *session != expected) {
        Some(session) => {
            let text = format!("answer for session {session} instead of {expected}");
            Err(Error::new(ErrorCode::Protocol, text))
        }
        None => Ok(waiting.pop_front()),
    }
}

/// Logs up to `max` warnings of an answer. Returns their number.
pub(super) fn pass_on_warnings(message: &[u8], max: usize, name: &str) -> Result<usize> {
    let warnings = AnswerMessage::warnings(message)?;
    warnings.iter().take(max).for_each(|text| crate::warn!("raised from {name}: {text}"));
    Ok(warnings.len())
}

/// Sends a request from time to time while there is nothing else to send.
pub(super) fn keep_alive(shared: &Shared, dialect: &Dialect, idle: Duration) {
    let (stop, changed) = &shared.stop;
    loop {
        let left = idle.saturating_sub(lock(&shared.output).sent_last.elapsed());
        let waited = changed.wait_timeout_while(lock(stop), left, |stop| !*stop);
        if *waited.unwrap_or_else(PoisonError::into_inner).0 {
            return;
        }
        if lock(&shared.output).sent_last.elapsed() >= idle {
            let (sender, _) = channel();
            shared.send(&Call::Noop, None, dialect, sender);
            if lock(&shared.queue).end.is_some() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;
    use std::sync::mpsc::TryRecvError;

    use protocol::pack::PackWriter;
    use protocol::storage::{InfoLevel, ListRequest};

    use super::super::link::Link;
    use super::*;

    struct NoLink;

    impl Link for NoLink {
        fn read_name(&self) -> String {
            String::new()
        }

        fn ended(&mut self, _: Duration, _: bool) -> Error {
            Error::new(ErrorCode::Format, "unexpected EOF")
        }

        fn finish(&mut self, _: Duration) {}

        fn kill(&mut self) {}
    }

    /// The beginning of an answer whose data has this size.
    fn begin_of_answer(session: u64, mut size: usize) -> Vec<u8> {
        let mut message = AnswerMessage::encode(session, false, Some(PackWriter::new())).to_vec();
        // The size of the data, its end, and that of the message
        assert_eq!(message.split_off(message.len() - 3), [1, 0, 0]);
        while size > 0x7f {
            message.push((size & 0x7f) as u8 | 0x80);
            size >>= 7;
        }
        message.push(size as u8);
        message
    }

    #[test]
    fn part_of_a_file_could_be_as_large_as_all_answers_together() {
        let received = |call: &Call<'_>, answer: &dyn Fn(u64) -> Vec<u8>| {
            let shared = Shared::new(Box::new(NoLink), Box::new(Vec::new()));
            let (sender, reply) = channel();
            let session = shared.send(call, None, Dialect::NEWEST, sender);
            let error = read_answers(&mut Cursor::new(answer(session)), &shared, "far", None);
            (reply.try_recv().ok().map(|reply| reply.unwrap().len()), error)
        };
        let whole = |size: usize| {
            move |session| {
                let (mut data, content) = (PackWriter::new(), vec![7; size]);
                data.binary(&*content);
                AnswerMessage::encode(session, false, Some(data)).to_vec()
            }
        };
        let text = "message exceeds 67108864 bytes, the limit of one answer";
        for call in [Call::ReadNext, Call::JobNext, Call::Noop] {
            // The limit is known before the message has come
            let (size, error) = received(&call, &|session| begin_of_answer(session, 64 << 20));
            assert_eq!((size, error.code, &*error.message), (None, ErrorCode::Format, text));
            // A chunk of the largest buffer with the results of filters
            assert!(received(&call, &whole((64 << 20) - 100)).0.is_some());
        }
        let list = Call::List(ListRequest { path: "/", level: InfoLevel::Detail, target_time: 0 });
        assert!(received(&list, &whole(65 << 20)).0.is_some_and(|bytes| bytes > 65 << 20));
        let (size, error) = received(&list, &|session| begin_of_answer(session, 1 << 30));
        assert!(size.is_none() && error.message.starts_with("messages that wait exceed 1073741824 bytes"), "{error}");
    }

    #[test]
    fn thread_whose_answer_was_for_another_session_was_told_before_the_reason_was_known() {
        let shared = Shared::new(Box::new(NoLink), Box::new(Vec::new()));
        let (sender, reply) = channel();
        let session = shared.send(&Call::Noop, None, Dialect::NEWEST, sender);
        let answer = AnswerMessage::encode(session + 1, false, None).to_vec();
        let error = read_answers(&mut Cursor::new(answer), &shared, "far", None);
        assert_eq!((error.code, &*error.message), (ErrorCode::Protocol, "answer for session 2 instead of 1"));
        // Whoever reads the answers passes on that error after this
        assert!(matches!(reply.try_recv(), Err(TryRecvError::Empty)));
        shared.fail(&End::of(error));
        assert_eq!(reply.try_recv().unwrap().err().map(|end| end.code), Some(ErrorCode::Protocol));
    }
}
