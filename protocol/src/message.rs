//! The frames of requests, answers and errors.
//!
//! | message | fields |
//! | --- | --- |
//! | request | 1 u32 = 1, 2 command, 3 step, 4 session (u64), 5 whether the session is open, 6 parameters (pack) |
//! | answer | 1 session, 2 u32: 0 answer, 1 request, 2 error, 3 whether the session ends, 4 data (pack), 5 array of warnings |
//! | data of an error | 1 code (i32), 2 message, 3 stack trace, 4 u32: 1 if the storage may have no space left, 2 if it has none |
//!
//! Only a server that agreed on [`Capability::Warnings`](crate::Capability::Warnings) sends warnings, and only one that agreed
//! on [`Capability::NoSpace`](crate::Capability::NoSpace) the last field of an error.
//!
//! The client numbers every call, from 1 on; a session keeps its number. An error of a handler leaves its session as it
//! was. An error without a session ends the server: whichever call waits gets it (source: pgBackRest
//! `src/protocol/client.c`, `server.c`).

use std::borrow::Cow;
use std::fmt;
use std::io::BufRead;

use crate::pack::{FieldType, MessageForm, PackReader, PackScanner, PackWriter, Packed, read_with};
use crate::{StringId, format_error};
use repo_format::{Error, ErrorCode, Result};

/// The number of a request in its first field. Answers have theirs in the second.
const TYPE_REQUEST: u32 = 1;
const TYPE_ANSWER: u32 = 0;
const TYPE_ERROR: u32 = 2;
/// The most warnings in an answer, and the most bytes of each that count.
const WARNINGS_MAX: usize = 1000;
const WARNING_BYTES_MAX: usize = 4096;

const REQUEST_FORM: MessageForm = MessageForm {
    fields: &[
        FieldType::U32,
        FieldType::StringId,
        FieldType::StringId,
        FieldType::U64,
        FieldType::Bool,
        FieldType::Pack,
    ],
    first: Some((TYPE_REQUEST as u64, "expected request message")),
};
const ANSWER_FORM: MessageForm = MessageForm {
    fields: &[FieldType::U64, FieldType::U32, FieldType::Bool, FieldType::Pack, FieldType::Array],
    first: None,
};

/// What a request does with its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Opens a session.
    Open,
    /// Processes a request of an open session, or one that needs no session.
    Process,
    /// Ends a session and asks for its result.
    Close,
    /// Drops a session.
    Cancel,
}

impl Step {
    const ALL: [Step; 4] = [Step::Open, Step::Process, Step::Close, Step::Cancel];

    /// The name on the wire.
    pub const fn id(self) -> StringId {
        match self {
            Step::Open => StringId::known("opn"),
            Step::Process => StringId::known("prc"),
            Step::Close => StringId::known("cls"),
            Step::Cancel => StringId::known("cnc"),
        }
    }
}

/// A request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RequestMessage<'a> {
    /// The command.
    pub command: StringId,
    /// What it does with its session.
    pub step: Step,
    /// The session's number.
    pub session: u64,
    /// Whether the session is open.
    pub is_open: bool,
    /// The parameters: a complete pack.
    pub parameters: Option<&'a [u8]>,
}

impl<'a> RequestMessage<'a> {
    /// Reads the bytes of a request of at most `size_max` bytes into `message`, and nothing after it.
    ///
    /// # Errors
    /// Those of [`read_message`](crate::pack::read_message). A peer that sends something else, maybe without end, is found out at
    /// the first field of a wrong type, as by pgBackRest.
    pub fn read(input: &mut impl BufRead, message: &mut Vec<u8>, size_max: usize) -> Result<()> {
        read_with(PackScanner::of_form(size_max, REQUEST_FORM), input, message)
    }

    /// Reads a request.
    ///
    /// # Errors
    /// [`ErrorCode::Format`] for another message, [`ErrorCode::Protocol`] for an unknown step.
    pub fn decode(message: &'a [u8]) -> Result<Self> {
        let mut reader = PackReader::new(message);
        if reader.u32()? != TYPE_REQUEST {
            return Err(format_error("expected request message"));
        }
        let command = reader.string_id()?.unwrap_or(StringId(0));
        let step = reader.string_id()?.unwrap_or(StringId(0));
        let session = reader.u64()?;
        let is_open = reader.bool()?;
        let parameters = reader.pack()?;
        reader.finish()?;
        if session == 0 {
            return Err(format_error("request has no session"));
        }
        let step = Step::ALL
            .into_iter()
            .find(|known| known.id() == step)
            .ok_or_else(|| Error::new(ErrorCode::Protocol, format!("unknown request type '{step}'")))?;
        Ok(RequestMessage { command, step, session, is_open, parameters })
    }

    /// Writes the request with `parameters` in place of its own.
    pub fn encode_with<'p>(&self, parameters: Option<PackWriter<'p>>) -> Packed<'p> {
        let mut writer = PackWriter::new();
        writer.u32_always(TYPE_REQUEST).string_id(self.command).string_id(self.step.id());
        writer.u64(self.session).bool(self.is_open).pack(parameters);
        writer.finish()
    }
}

impl fmt::Debug for RequestMessage<'_> {
    // Parameters contain passphrases
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{:?} session {}", self.command, self.step, self.session)
    }
}

/// An answer or an error.
#[derive(Clone, PartialEq, Eq)]
pub struct AnswerMessage<'a> {
    /// The session's number. None for an error that ends the server.
    pub session: Option<u64>,
    /// Whether the session has ended.
    pub is_closed: bool,
    /// The data, a complete pack, or the error.
    pub outcome: std::result::Result<Option<&'a [u8]>, ErrorAnswer<'a>>,
}

/// What went wrong in the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorAnswer<'a> {
    /// The number of the error. Unknown numbers are possible.
    pub code: i32,
    /// The message, with its hints on further lines.
    pub message: Cow<'a, str>,
    /// Where the server was. Only its own operators can use it.
    pub stack_trace: Cow<'a, str>,
    /// What it says about the space of the storage.
    pub no_space: Option<NoSpace>,
}

/// What an error says about the space of a storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoSpace {
    /// It may be the reason.
    Possible,
    /// It is the reason.
    Certain,
}

impl NoSpace {
    fn number(self) -> u32 {
        match self {
            NoSpace::Possible => 1,
            NoSpace::Certain => 2,
        }
    }

    /// Returns what this number means. Other numbers say nothing.
    fn of(number: u32) -> Option<Self> {
        [NoSpace::Possible, NoSpace::Certain].into_iter().find(|known| known.number() == number)
    }
}

impl<'a> AnswerMessage<'a> {
    /// Reads the bytes of an answer or error of at most `size_max` bytes into `message`, and nothing after it.
    ///
    /// # Errors
    /// Those of [`RequestMessage::read`].
    pub fn read(input: &mut impl BufRead, message: &mut Vec<u8>, size_max: usize) -> Result<()> {
        read_with(PackScanner::of_form(size_max, ANSWER_FORM), input, message)
    }

    /// Reads an answer or an error.
    ///
    /// # Errors
    /// [`ErrorCode::Format`] for another message.
    pub fn decode(message: &'a [u8]) -> Result<Self> {
        let mut reader = PackReader::new(message);
        let session = Some(reader.u64()?).filter(|session| *session != 0);
        let message_type = reader.u32()?;
        let is_closed = reader.bool()?;
        let data = reader.pack()?;
        reader.finish()?;
        let outcome = match message_type {
            TYPE_ERROR => Err(ErrorAnswer::decode(data)?),
            TYPE_ANSWER if session.is_some() => Ok(data),
            _ => return Err(format_error("expected response message")),
        };
        Ok(AnswerMessage { session, is_closed, outcome })
    }

    /// Reads the warnings of a message.
    ///
    /// # Errors
    /// [`ErrorCode::Format`] for another message.
    pub fn warnings(message: &[u8]) -> Result<Vec<String>> {
        let mut reader = PackReader::new(message);
        reader.u64()?;
        reader.u32()?;
        reader.bool()?;
        reader.pack()?;
        let Some(mut list) = reader.array()? else { return Ok(Vec::new()) };
        let mut warnings = Vec::new();
        while !list.at_end()? {
            let text = list.text_bytes()?.ok_or_else(|| format_error("warning is missing"))?;
            if warnings.len() == WARNINGS_MAX {
                return Err(format_error(format!("more than {WARNINGS_MAX} warnings")));
            }
            let text = text.get(..WARNING_BYTES_MAX).unwrap_or(text);
            warnings.push(String::from_utf8_lossy(text).into_owned());
        }
        Ok(warnings)
    }

    /// Writes an answer with `data`.
    pub fn encode(session: u64, is_closed: bool, data: Option<PackWriter<'a>>) -> Packed<'a> {
        Self::encode_type(Some(session), TYPE_ANSWER, is_closed, data).finish()
    }

    /// Writes an answer with `data` and warnings.
    pub fn encode_with_warnings(
        session: u64,
        is_closed: bool,
        data: Option<PackWriter<'a>>,
        warnings: &[String],
    ) -> Packed<'a> {
        with_warnings(Self::encode_type(Some(session), TYPE_ANSWER, is_closed, data), warnings)
    }

    /// Writes an error. One without a session ends the server.
    pub fn encode_error(session: Option<u64>, error: &ErrorAnswer<'_>) -> Packed<'static> {
        Self::encode_error_with_warnings(session, error, &[])
    }

    /// Writes an error with warnings.
    pub fn encode_error_with_warnings(
        session: Option<u64>,
        error: &ErrorAnswer<'_>,
        warnings: &[String],
    ) -> Packed<'static> {
        with_warnings(AnswerMessage::encode_type(session, TYPE_ERROR, false, Some(error.encode())), warnings)
    }

    fn encode_type<'p>(
        session: Option<u64>,
        message_type: u32,
        is_closed: bool,
        data: Option<PackWriter<'p>>,
    ) -> PackWriter<'p> {
        let mut writer = PackWriter::new();
        writer.u64(session.unwrap_or_default()).u32_always(message_type).bool(is_closed).pack(data);
        writer
    }
}

/// Completes a message. Without warnings it is that of pgBackRest.
fn with_warnings<'p>(mut writer: PackWriter<'p>, warnings: &[String]) -> Packed<'p> {
    if !warnings.is_empty() {
        writer.array(|list| {
            for warning in warnings.iter().take(WARNINGS_MAX) {
                list.text(warning.as_str());
            }
        });
    }
    writer.finish()
}

impl fmt::Debug for AnswerMessage<'_> {
    // Data may contain a passphrase
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let closed = if self.is_closed { ", closed" } else { "" };
        match &self.outcome {
            Ok(data) => {
                write!(f, "session {:?}{closed}: {} bytes", self.session, data.map_or(0, <[u8]>::len))
            }
            Err(error) => write!(f, "session {:?}{closed}: {error:?}", self.session),
        }
    }
}

impl<'a> ErrorAnswer<'a> {
    fn decode(data: Option<&'a [u8]>) -> Result<Self> {
        let mut reader = PackReader::new(data.ok_or_else(|| format_error("invalid error data"))?);
        let code = reader.i32()?;
        let (message, stack_trace) = (reader.text_bytes()?, reader.text_bytes()?);
        let no_space = NoSpace::of(reader.u32()?);
        reader.finish()?;
        let (Some(message), Some(stack_trace)) = (message, stack_trace) else {
            return Err(format_error("invalid error data"));
        };
        // Messages of the system and of PostgreSQL may be in any encoding
        let (message, stack_trace) = (String::from_utf8_lossy(message), String::from_utf8_lossy(stack_trace));
        Ok(ErrorAnswer { code, message, stack_trace, no_space })
    }

    fn encode(&self) -> PackWriter<'static> {
        let mut writer = PackWriter::new();
        writer.i32(self.code).text(&*self.message).text(&*self.stack_trace);
        writer.u32(self.no_space.map_or(0, NoSpace::number));
        writer
    }

    /// The error as the client reports it. `peer` names the server, such as `remote-0 ssh protocol on 'HOST'`.
    pub fn to_error(&self, peer: &str) -> Error {
        let code = u8::try_from(self.code).ok().and_then(ErrorCode::from_number).unwrap_or(ErrorCode::Unknown);
        Error::new(code, format!("raised from {peer}: {}", self.message))
    }
}

impl From<&Error> for ErrorAnswer<'static> {
    fn from(error: &Error) -> Self {
        // A client requires a stack trace. There is none here, and its text is free
        ErrorAnswer {
            code: error.code.number().into(),
            message: Cow::Owned(error.to_string()),
            stack_trace: Cow::Borrowed(""),
            no_space: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_matches_pgbackrest() {
        // Captured from pgBackRest 2.60.0
        let noop = [0x84, 0xa8, 0xe0, 0xbd, 0x8f, 0x04, 0xa8, 0x80, 0xca, 0x03, 0x94, 0x00];
        let message = RequestMessage::decode(&noop).unwrap();
        let expected = RequestMessage {
            command: StringId::known("noop"),
            step: Step::Process,
            session: 1,
            is_open: false,
            parameters: None,
        };
        assert_eq!(message, expected);
        assert_eq!(expected.encode_with(None).to_vec(), noop);
    }

    #[test]
    fn request_of_another_type_step_or_session_is_refused() {
        let noop = |message_type: u32, step: &str, session: u64| {
            let mut writer = PackWriter::new();
            writer.u32_always(message_type).string_id(StringId::known("noop")).string_id(StringId::known(step));
            writer.u64(session);
            RequestMessage::decode(&writer.finish().to_vec()).map(|_| ()).unwrap_err().to_string()
        };
        assert_eq!(noop(0, "prc", 1), "expected request message");
        assert_eq!(noop(1, "bad", 1), "unknown request type 'bad'");
        assert_eq!(noop(1, "prc", 0), "request has no session");
    }

    #[test]
    fn answer_without_session_is_refused_unless_it_is_an_error() {
        let answer = AnswerMessage::encode(0, false, None).to_vec();
        assert_eq!(AnswerMessage::decode(&answer).unwrap_err().to_string(), "expected response message");
        let error = ErrorAnswer::from(&Error::new(ErrorCode::Protocol, "invalid request").hint("update"));
        let message = AnswerMessage::encode_error(None, &error).to_vec();
        let decoded = AnswerMessage::decode(&message).unwrap();
        assert_eq!(decoded, AnswerMessage { session: None, is_closed: false, outcome: Err(error.clone()) });
        let reported = error.to_error("remote-0 ssh protocol on 'h'");
        assert_eq!(reported.code, ErrorCode::Protocol);
        assert_eq!(reported.to_string(), "raised from remote-0 ssh protocol on 'h': invalid request\nHINT: update");
    }

    #[test]
    fn warnings_of_an_answer_disturb_nothing_else() {
        let texts = ["first".to_owned(), "é\nsecond".to_owned()];
        let mut data = PackWriter::new();
        data.text("data");
        let answer = AnswerMessage::encode_with_warnings(7, true, Some(data.clone()), &texts).to_vec();
        let plain = AnswerMessage::encode(7, true, Some(data.clone())).to_vec();
        assert_eq!(AnswerMessage::decode(&answer).unwrap(), AnswerMessage::decode(&plain).unwrap());
        assert_eq!(AnswerMessage::warnings(&answer).unwrap(), texts);
        assert!(AnswerMessage::warnings(&plain).unwrap().is_empty());
        assert_eq!(AnswerMessage::encode_with_warnings(7, true, Some(data), &[]).to_vec(), plain);
        let error = ErrorAnswer { code: 25, message: "m".into(), stack_trace: "".into(), no_space: None };
        let message = AnswerMessage::encode_error_with_warnings(None, &error, &texts).to_vec();
        assert_eq!(AnswerMessage::decode(&message).unwrap().outcome, Err(error));
        assert_eq!(AnswerMessage::warnings(&message).unwrap(), texts);
        let many = vec!["x".repeat(5000); WARNINGS_MAX + 1];
        let message = AnswerMessage::encode_with_warnings(7, true, None, &many).to_vec();
        let warnings = AnswerMessage::warnings(&message).unwrap();
        assert!(warnings.len() == WARNINGS_MAX && warnings[0].len() == WARNING_BYTES_MAX);
    }

    /// Reads a message from this text, repeated without end.
    fn repeated(text: &[u8], read: impl Fn(&mut dyn BufRead, &mut Vec<u8>) -> Result<()>) -> String {
        /// A stream without an end.
        struct Endless<'a>(&'a [u8], usize);
        impl std::io::Read for Endless<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
                assert!(self.1 < 1 << 20, "it was read for too long");
                buffer.iter_mut().for_each(|byte| {
                    *byte = self.0[self.1 % self.0.len()];
                    self.1 += 1;
                });
                Ok(buffer.len())
            }
        }
        let mut input = std::io::BufReader::with_capacity(1000, Endless(text, 0));
        read(&mut input, &mut Vec::new()).unwrap_err().to_string()
    }

    #[test]
    fn stream_that_is_no_message_was_read_until_the_time_limit() {
        let answer =
            |text: &[u8]| repeated(text, |mut input, message| AnswerMessage::read(&mut input, message, 1 << 28));
        // As pgBackRest 2.60.0 says it
        assert_eq!(answer(b"y\n"), "field 2 is type 'str' but expected 'u32'");
        assert_eq!(answer(b"z\n"), "field 3 is type 'str' but expected 'bool'");
        assert_eq!(answer(b"A\n"), "field 2 is type 'i64' but expected 'u32'");
        assert_eq!(answer(b"0\n"), "field 1 is type 'i32' but expected 'u64'");
        assert_eq!(answer(b" \n"), "field 1 is type 'bool' but expected 'u64'");
        let request =
            |text: &[u8]| repeated(text, |mut input, message| RequestMessage::read(&mut input, message, 1 << 28));
        assert_eq!(request(b"y\n"), "expected request message");
        assert_eq!(request(b"L\n"), "expected request message");
        assert_eq!(request(b"0\n"), "field 1 is type 'i32' but expected 'u32'");
        // Whatever the program `yes` says
        for text in b' '..=b'~' {
            assert!(!answer(&[text, b'\n']).is_empty() && !request(&[text, b'\n']).is_empty());
        }
    }

    #[test]
    fn fields_that_a_later_version_may_add_are_passed_over() {
        let mut writer = AnswerMessage::encode_type(Some(7), TYPE_ANSWER, false, None);
        writer.array(|list| {
            list.text("warning");
        });
        writer.text("more").u64(1 << 40);
        let bytes = writer.finish().to_vec();
        let mut message = Vec::new();
        AnswerMessage::read(&mut &bytes[..], &mut message, 1000).unwrap();
        assert_eq!(message, bytes);
        assert_eq!(AnswerMessage::decode(&message).unwrap().session, Some(7));
    }

    #[test]
    fn space_of_the_storage_is_a_field_of_its_own_behind_those_of_pgbackrest() {
        let encode = |no_space| {
            let error = ErrorAnswer { code: 39, message: "m".into(), stack_trace: "".into(), no_space };
            let message = AnswerMessage::encode_error(Some(1), &error).to_vec();
            assert_eq!(AnswerMessage::decode(&message).unwrap().outcome, Err(error));
            message
        };
        let plain = encode(None);
        for (said, number) in [(NoSpace::Possible, 1), (NoSpace::Certain, 2)] {
            assert_ne!(encode(Some(said)), plain);
            assert_eq!(NoSpace::of(number), Some(said));
        }
        assert_eq!((NoSpace::of(0), NoSpace::of(3)), (None, None));
    }

    #[test]
    fn error_with_an_unknown_number_is_unknown() {
        for code in [0, -1, 24, 300] {
            let error = ErrorAnswer { code, message: "m".into(), stack_trace: "".into(), no_space: None };
            assert_eq!(error.to_error("x").code, ErrorCode::Unknown);
        }
    }

    #[test]
    fn error_without_its_data_is_refused() {
        for fill in [
            |_: &mut PackWriter| {},
            |writer: &mut PackWriter| {
                writer.i32(29).text("message");
            },
        ] {
            let mut data = PackWriter::new();
            fill(&mut data);
            let message = AnswerMessage::encode_type(Some(1), TYPE_ERROR, false, Some(data)).finish().to_vec();
            assert_eq!(AnswerMessage::decode(&message).unwrap_err().to_string(), "invalid error data");
        }
    }
}
