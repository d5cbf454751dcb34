//! The spool, through which the asynchronous archive commands and the commands that PostgreSQL calls communicate.
//!
//! A status file is `<name>.ok` or `<name>.error`, or `global.error` for all files. It is empty (ok without warnings),
//! or has a number on its first line and a message after it (source: pgBackRest `src/command/archive/common.c`).

use crate::layout::Stanza;
use crate::{Error, ErrorCode, Result};

/// The extension of a file that tells success.
pub const OK_EXTENSION: &str = ".ok";
/// The extension of a file that tells failure.
pub const ERROR_EXTENSION: &str = ".error";
/// The name of the file that reports a failure of the whole queue.
pub const GLOBAL_ERROR: &str = "global.error";
/// The most bytes of a status file that are worth reading.
pub const SIZE_MAX: usize = 1 << 20;

/// The two queues of the spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpoolQueue {
    /// Prefetched segments (archive-get).
    In,
    /// Status of pushed segments (archive-push).
    Out,
}

/// Returns the directory of a stanza's spool, relative to the spool path. A restore removes it.
pub fn stanza_dir(stanza: &Stanza) -> String {
    format!("archive/{stanza}")
}

/// The directory of a queue, relative to the spool path.
pub fn queue_dir(stanza: &Stanza, queue: SpoolQueue) -> String {
    let name = match queue {
        SpoolQueue::In => "in",
        SpoolQueue::Out => "out",
    };
    format!("{}/{name}", stanza_dir(stanza))
}

/// The name of the file that tells success for `wal_file`.
pub fn ok_name(wal_file: &str) -> String {
    format!("{wal_file}{OK_EXTENSION}")
}

/// Returns the name of the file that reports a failure of `wal_file`, or of the whole queue.
pub fn error_name(wal_file: Option<&str>) -> String {
    wal_file.map_or_else(|| GLOBAL_ERROR.to_owned(), |wal_file| format!("{wal_file}{ERROR_EXTENSION}"))
}

/// A status file's content when it is not empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The error number; 0 for warnings. An ok file with another number is an error file that an operator renamed in
    /// order to skip the segment.
    pub code: i32,
    /// The message, or warnings separated by line feeds, without surrounding white space.
    pub message: String,
}

impl Status {
    /// Parses a status file. Returns `None` for an empty file. `name` is used in messages.
    ///
    /// # Errors
    /// [`ErrorCode::Format`] if the content has no number on its first line, or no message.
    pub fn parse(name: &str, content: &[u8]) -> Result<Option<Self>> {
        if content.is_empty() {
            return Ok(None);
        }
        let text = String::from_utf8_lossy(content);
        let Some((code, message)) = text.split_once('\n') else {
            return Err(Error::new(ErrorCode::Format, format!("{name} content must have at least two lines")));
        };
        if message.is_empty() {
            return Err(Error::new(ErrorCode::Format, format!("{name} message must be > 0")));
        }
        let code = code.parse().map_err(|_| {
            Error::new(ErrorCode::Format, format!("{name} must start with a number, not '{}'", code.escape_debug()))
        })?;
        Ok(Some(Status { code, message: message.trim_matches([' ', '\t', '\r', '\n']).to_owned() }))
    }

    /// Converts an error file to its error. An unknown number becomes [`ErrorCode::Unknown`].
    pub fn to_error(&self) -> Error {
        let code = u8::try_from(self.code).ok().and_then(ErrorCode::from_number).unwrap_or(ErrorCode::Unknown);
        Error::new(code, self.message.clone())
    }
}

/// The content of an error file.
pub fn error_content(code: ErrorCode, message: &str) -> Vec<u8> {
    format!("{}\n{message}", code.number()).into_bytes()
}

/// The content of an ok file: empty without warnings.
pub fn ok_content(warnings: &[String]) -> Vec<u8> {
    if warnings.is_empty() { Vec::new() } else { format!("0\n{}", warnings.join("\n")).into_bytes() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn status_empty_file_is_none() -> Result<()> {
        assert_eq!(Status::parse("a.ok", b"")?, None);
        assert!(ok_content(&[]).is_empty());
        Ok(())
    }

    #[test]
    fn status_error_file_gives_code_and_message() -> Result<()> {
        let status = Status::parse("a.error", &error_content(ErrorCode::ArchiveDuplicate, "dup\nHINT: x"))?;
        let error = status.map(|status| status.to_error());
        assert_eq!(
            error.map(|error| (error.code, error.message)),
            Some((ErrorCode::ArchiveDuplicate, "dup\nHINT: x".to_owned()))
        );
        Ok(())
    }

    #[test]
    fn status_damaged_is_format_error() {
        for (content, message) in [
            (&b"25"[..], "a.ok content must have at least two lines"),
            (b"25\n", "a.ok message must be > 0"),
            (b"x\ny", "a.ok must start with a number, not 'x'"),
        ] {
            let error = Status::parse("a.ok", content).map_err(|error| (error.code, error.message));
            assert_eq!(error, Err((ErrorCode::Format, message.to_owned())));
        }
    }

    #[test]
    fn names_and_queues_are_pgbackrests() -> Result<()> {
        let stanza: Stanza = "demo".parse()?;
        assert_eq!(queue_dir(&stanza, SpoolQueue::In), "archive/demo/in");
        assert_eq!(queue_dir(&stanza, SpoolQueue::Out), "archive/demo/out");
        assert_eq!(ok_name("000000010000000000000001"), "000000010000000000000001.ok");
        assert_eq!(error_name(Some("x")), "x.error");
        assert_eq!(error_name(None), "global.error");
        Ok(())
    }

    proptest! {
        #[test]
        fn status_any_warning_round_trips(warnings in proptest::collection::vec("[!-~]{1,20}", 1..4)) {
            let status = Status::parse("x", &ok_content(&warnings)).ok().flatten();
            prop_assert_eq!(status, Some(Status { code: 0, message: warnings.join("\n") }));
        }

        #[test]
        fn status_any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = Status::parse("x", &bytes);
        }
    }
}
