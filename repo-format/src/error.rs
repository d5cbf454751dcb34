//! Errors with pgBackRest's numbers.
//!
//! The numbers are part of the interface: they are exit statuses, appear in log lines as `[NNN]`, and are written to
//! the spool's `.error` files (source: pgBackRest `src/build/error/error.yaml`).

use std::fmt;

macro_rules! error_codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal,)*) => {
        /// A pgBackRest error number. A command that fails with it uses it as its exit status.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum ErrorCode { $($(#[$doc])* $name = $number,)* }

        impl ErrorCode {
            /// Every code, in ascending order.
            pub const ALL: &'static [ErrorCode] = &[$(ErrorCode::$name,)*];

            /// The name as messages print it, e.g. `FileMissingError`.
            pub fn name(self) -> &'static str {
                match self { $(ErrorCode::$name => concat!(stringify!($name), "Error"),)* }
            }
        }
    };
}

error_codes! {
    /// A broken invariant of the program itself.
    Assert = 25,
    /// A checksum differs from the recorded one.
    Checksum = 26,
    /// Configuration that contradicts itself.
    Config = 27,
    /// A file whose content contradicts another file.
    FileInvalid = 28,
    /// Input that violates its format.
    Format = 29,
    /// No command was given.
    CommandRequired = 30,
    /// An option is unknown or not allowed here.
    OptionInvalid = 31,
    /// An option has a value that is not allowed.
    OptionInvalidValue = 32,
    /// A required option is missing.
    OptionRequired = 37,
    /// PostgreSQL is running but must not.
    PgRunning = 38,
    /// A peer does not follow the protocol.
    Protocol = 39,
    /// A directory that must be empty is not.
    PathNotEmpty = 40,
    /// A file can't be opened.
    FileOpen = 41,
    /// A file can't be read.
    FileRead = 42,
    /// A required parameter is missing.
    ParamRequired = 43,
    /// A WAL segment belongs to another cluster.
    ArchiveMismatch = 44,
    /// A WAL segment is in the archive with other content.
    ArchiveDuplicate = 45,
    /// A PostgreSQL version that is not known.
    VersionNotSupported = 46,
    /// A directory can't be created.
    PathCreate = 47,
    /// An unknown command.
    CommandInvalid = 48,
    /// A host can't be reached.
    HostConnect = 49,
    /// A lock is held by another process.
    LockAcquire = 50,
    /// The cluster is not the one that the stanza was made for.
    BackupMismatch = 51,
    /// A file can't be synced.
    FileSync = 52,
    /// A directory can't be opened, or restore refuses its owner or mode.
    PathOpen = 53,
    /// A directory can't be synced.
    PathSync = 54,
    /// A file is missing.
    FileMissing = 55,
    /// The PostgreSQL server can't be reached.
    DbConnect = 56,
    /// A query failed.
    DbQuery = 57,
    /// The PostgreSQL server is not in the expected state.
    DbMismatch = 58,
    /// A file can't be removed.
    FileRemove = 60,
    /// A directory can't be removed.
    PathRemove = 61,
    /// A stop file is present.
    Stop = 62,
    /// A signal ended the command.
    Term = 63,
    /// A file can't be written.
    FileWrite = 64,
    /// A feature that is not supported.
    FeatureNotSupported = 67,
    /// `archive_command` does not call this program.
    ArchiveCommandInvalid = 68,
    /// Something that has to be a link is not.
    LinkExpected = 69,
    /// A link whose destination is not allowed.
    LinkDestination = 70,
    /// A host that is not allowed here.
    HostInvalid = 72,
    /// A directory is missing.
    PathMissing = 73,
    /// A file can't be renamed.
    FileMove = 74,
    /// No backup set matches the request.
    BackupSetInvalid = 75,
    /// A tablespace mapping that does not fit the backup.
    TablespaceMap = 76,
    /// A link mapping that does not fit the backup.
    LinkMap = 78,
    /// A file can't be closed.
    FileClose = 79,
    /// A database that was named is missing.
    DbMissing = 80,
    /// A database that can't be chosen.
    DbInvalid = 81,
    /// A WAL segment did not arrive in time.
    ArchiveTimeout = 82,
    /// A file's mode can't be set.
    FileMode = 83,
    /// `archive_mode` is off.
    ArchiveDisabled = 87,
    /// A file's owner can't be set.
    FileOwner = 88,
    /// A user is missing.
    UserMissing = 89,
    /// A file is there already.
    FileExists = 93,
    /// Out of memory.
    Memory = 94,
    /// Encryption or decryption failed.
    Crypto = 95,
    /// A parameter that is not allowed.
    ParamInvalid = 96,
    /// A directory can't be closed.
    PathClose = 97,
    /// A file's attributes can't be read.
    FileInfo = 98,
    /// JSON that does not have the expected form.
    JsonFormat = 99,
    /// The system misbehaves.
    Kernel = 100,
    /// A server answered with a passing fault.
    Service = 101,
    /// A program that was started failed.
    Execute = 102,
    /// No repository is usable.
    RepoInvalid = 103,
    /// A command met one or more errors.
    Command = 104,
    /// Access denied.
    Access = 105,
    /// The clock went back or the time zone changed.
    Clock = 106,
    /// A fault at run time without a narrower code.
    Runtime = 122,
    /// A fault that nothing handled.
    Unhandled = 124,
    /// A fault of a kind that was not expected.
    Unknown = 125,
}

impl ErrorCode {
    /// The number: exit status, log prefix and spool content.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// The code with this number, if pgBackRest has one.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.number() == number)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An error with its number, message, hints for the operator, and cause.
#[derive(Debug, thiserror::Error)]
pub struct Error {
    /// The number.
    pub code: ErrorCode,
    /// What happened, including the path, label or option concerned. May have several lines.
    pub message: String,
    /// What the operator can do. Each hint is printed on a line `HINT: ...`.
    pub hints: Vec<String>,
    /// The cause, when it is another error.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The result of everything that can fail here.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error without hints or cause.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Error { code, message: message.into(), hints: Vec::new(), source: None }
    }

    /// Adds a hint (without the prefix `HINT: `).
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// The same error with its cause kept.
    #[must_use]
    pub fn cause(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Prefixes the message with `context` and a colon.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }

    /// Creates an error for a failed system call, in pgBackRest's form `message: [errno] text`. If the `io::Error`
    /// carries one of our own errors (from a decoder behind `Read`), that error is returned with its own code.
    pub fn from_io(code: ErrorCode, message: impl fmt::Display, error: std::io::Error) -> Self {
        match error.downcast::<Error>() {
            Ok(inner) => inner,
            Err(error) => Error::new(code, format!("{message}: {}", system_text(&error))).cause(error),
        }
    }
}

/// Returns the text of an error of the system in pgBackRest's form, `[2] No such file or directory` instead of
/// `No such file or directory (os error 2)`. The error may be one of a library that shows what the system said. The address of
/// the library's documentation is left out: it is for programmers.
pub fn system_text(error: &(impl fmt::Display + ?Sized)) -> String {
    let text = without_documentation(error.to_string());
    let form = |text: &str| {
        let (before, rest) = text.rsplit_once(" (os error ")?;
        let (number, after) = rest.split_once(')')?;
        number.parse::<i32>().ok()?;
        let (context, words) = before.rsplit_once(": ").map_or(("", before), |(context, words)| (context, words));
        let colon = if context.is_empty() { "" } else { ": " };
        Some(format!("{context}{colon}[{number}] {words}{after}"))
    };
    form(&text).unwrap_or(text)
}

/// Where the documentation of libraries is.
const DOCUMENTATION: &str = ": https://docs.rs/";

/// Returns the text of a library's error without the address of its documentation.
pub fn without_documentation(mut text: String) -> String {
    while let Some(begin) = text.find(DOCUMENTATION) {
        let address = begin + ": ".len();
        let rest = text[address..].find(|c: char| c.is_whitespace() || matches!(c, ')' | ',' | ';' | '"' | '\''));
        let end = rest.map_or(text.len(), |rest| address + rest);
        // What follows after a colon is another error's text
        let end = if text[..end].ends_with(':') { end - 1 } else { end };
        text.replace_range(begin..end, "");
    }
    text
}

impl From<Error> for std::io::Error {
    /// Wraps the error so that it passes through `Read` and `Write`. [`Error::from_io`] unwraps it.
    fn from(error: Error) -> Self {
        std::io::Error::other(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        for hint in &self.hints {
            write!(f, "\nHINT: {hint}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_number_round_trips() {
        for &code in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_number(code.number()), Some(code));
        }
        assert_eq!(ErrorCode::from_number(0), None);
    }

    #[test]
    fn from_io_with_errno_prints_errno_first() {
        let error = Error::from_io(ErrorCode::FileOpen, "unable to open '/x'", std::io::Error::from_raw_os_error(13));
        assert_eq!(error.to_string(), "unable to open '/x': [13] Permission denied");
    }

    #[test]
    fn error_of_a_library_has_the_number_of_the_system_in_front_of_its_words() {
        let system = std::io::Error::from_raw_os_error(111);
        assert_eq!(system_text(&system), "[111] Connection refused");
        assert_eq!(system_text(&format!("connect: tcp: {system}")), "connect: tcp: [111] Connection refused");
        assert_eq!(system_text(&format!("{system}: a hint")), "[111] Connection refused: a hint");
        for other in ["x (os error y)", "x (os error 1", "timed out"] {
            assert_eq!(system_text(other), other);
        }
    }

    #[test]
    fn error_of_a_library_has_no_address_of_its_documentation() {
        let said = "peer closed connection without sending TLS close_notify";
        let address = ": https://docs.rs/rustls/latest/rustls/manual/_03_howto/index.html#unexpected-eof";
        assert_eq!(system_text(&format!("{said}{address}")), said);
        assert_eq!(
            system_text(&format!("read: {said}{address}: {said}{address}: end")),
            format!("read: {said}: {said}: end")
        );
        assert_eq!(system_text(&format!("x ({said}{address})")), format!("x ({said})"));
        for other in ["see https://docs.rs/x", "unable to reach: https://example.com/x"] {
            assert_eq!(system_text(other), other);
        }
    }

    #[test]
    fn from_io_with_own_error_keeps_its_code() {
        let io: std::io::Error = Error::new(ErrorCode::Crypto, "bad padding").into();
        assert_eq!(Error::from_io(ErrorCode::FileRead, "x", io).code, ErrorCode::Crypto);
    }
}
