//! INI text: the strict form of info files and manifests, and the lenient form of configuration files.
//!
//! Strict: lines end with LF only and nothing is trimmed. Empty lines are skipped, a line from `[` to `]` starts a
//! section, and every other line is `key=value` with a JSON value. Keys are raw text and may contain `=`: the line is
//! split at the first `=` that leaves valid JSON (source: pgBackRest `src/common/ini.c`).

use std::io::BufRead;

use crate::{Error, ErrorCode, Result, cipher, json};

/// The default limit of a line in bytes.
pub const LINE_SIZE_MAX: usize = 1 << 20;

/// The number of characters of a line that an error message shows.
const CONTEXT_CHARS: usize = 120;

/// One `key=value` line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IniEntry<'a> {
    /// The section that the line is in.
    pub section: &'a str,
    /// The text before the split.
    pub key: &'a str,
    /// The text after the split: valid JSON in strict text.
    pub value: &'a str,
    /// The line's number, from 1.
    pub line: u64,
}

fn shown(line: &str) -> String {
    line.chars().take(CONTEXT_CHARS).collect()
}

/// Creates the error about a line, and quotes the line if `quotes` is set.
fn format_error(message: &str, number: u64, line: &str, quotes: bool) -> Error {
    let quote = if quotes { format!(": {}", shown(line)) } else { String::new() };
    Error::new(ErrorCode::Format, format!("{message} at line {number}{quote}"))
}

/// Reads strict INI line by line, holding one line in memory.
pub struct StrictReader<R> {
    input: R,
    buffer: Vec<u8>,
    section: String,
    /// The section's name if it is not UTF-8.
    damaged_section: Option<Vec<u8>>,
    line: u64,
    line_size_max: usize,
    quotes: bool,
}

impl<R> std::fmt::Debug for StrictReader<R> {
    /// Omits the line, which may contain a passphrase.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StrictReader").field("line", &self.line).finish_non_exhaustive()
    }
}

impl<R: BufRead> StrictReader<R> {
    /// A reader at the start of `input`.
    pub fn new(input: R) -> Self {
        StrictReader {
            input,
            buffer: Vec::new(),
            section: String::new(),
            damaged_section: None,
            line: 0,
            line_size_max: LINE_SIZE_MAX,
            quotes: true,
        }
    }

    /// Reads lines of up to `bytes`.
    #[must_use]
    pub fn with_line_size_max(mut self, bytes: usize) -> Self {
        self.line_size_max = bytes;
        self
    }

    /// Stops quoting lines in error messages.
    pub fn stop_quotes(&mut self) {
        self.quotes = false;
    }

    /// Returns whether error messages may quote lines.
    pub fn quotes(&self) -> bool {
        self.quotes
    }

    /// Reads one line without its LF into the buffer. Returns false at the end of the input.
    fn read_line(&mut self) -> Result<bool> {
        self.buffer.clear();
        loop {
            let available = match self.input.fill_buf() {
                Ok(available) => available,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Error::from_io(ErrorCode::FileRead, "unable to read", error)),
            };
            if available.is_empty() {
                if self.buffer.is_empty() {
                    return Ok(false);
                }
                break;
            }
            let end = memchr::memchr(b'\n', available);
            let taken = end.unwrap_or(available.len());
            if self.buffer.len() + taken > self.line_size_max {
                let message = format!("line {} is longer than {} bytes", self.line + 1, self.line_size_max);
                return Err(Error::new(ErrorCode::Format, message));
            }
            self.buffer.extend_from_slice(&available[..taken]);
            self.input.consume(taken + usize::from(end.is_some()));
            if end.is_some() {
                break;
            }
        }
        self.line += 1;
        Ok(true)
    }

    /// Returns the last line if [`StrictReader::next_entry`] failed only because it is not UTF-8. The reader can go on
    /// after it, so that the checksum of a damaged file can be computed.
    pub fn damaged_entry(&self) -> Option<DamagedEntry<'_>> {
        let line = self.buffer.as_slice();
        if self.section.is_empty() || (self.damaged_section.is_none() && std::str::from_utf8(line).is_ok()) {
            return None;
        }
        // What replaces the invalid bytes contains no equals sign, so both texts have the same ones
        let text = String::from_utf8_lossy(line);
        let splits = memchr::memchr_iter(b'=', line).zip(text.match_indices('=')).take(SPLIT_TRIES_MAX);
        let is_json = |(_, (shown, _)): &(usize, (usize, &str))| json::validate(&text[shown + 1..]).is_ok();
        let (position, _) = splits.filter(|(position, _)| *position > 0).find(is_json)?;
        Some(DamagedEntry {
            section: self.damaged_section.as_deref().unwrap_or(self.section.as_bytes()),
            key: &line[..position],
            value: &line[position + 1..],
        })
    }

    /// Returns the next `key=value` line; `None` at the end.
    ///
    /// # Errors
    /// [`ErrorCode::Format`] for a line that matches no rule, names that are not UTF-8, lines that are too long, and a
    /// file of another format; the input's own error if reading fails.
    pub fn next_entry(&mut self) -> Result<Option<IniEntry<'_>>> {
        loop {
            if !self.read_line()? {
                return Ok(None);
            }
            if self.line == 1 {
                cipher::refuse_header(&self.buffer, || Error::new(ErrorCode::Format, "file is encrypted"))?;
            }
            match self.buffer.as_slice() {
                [] => {}
                [b'[', name @ .., b']'] => {
                    if name.is_empty() {
                        return Err(format_error("invalid empty section", self.line, "[]", true));
                    }
                    let (section, damaged) = match std::str::from_utf8(name) {
                        Ok(name) => (name.to_owned(), None),
                        Err(_) => (String::from_utf8_lossy(name).into_owned(), Some(name.to_vec())),
                    };
                    (self.section, self.damaged_section) = (section, damaged);
                }
                _ => break,
            }
        }
        let number = self.line;
        let error = |message| {
            let line = String::from_utf8_lossy(&self.buffer);
            Err(format_error(message, number, &line, self.quotes && is_harmless(&self.section, &line)))
        };
        if self.section.is_empty() {
            return error("key/value found outside of section");
        }
        if self.damaged_section.is_some() {
            return Err(Error::new(ErrorCode::Format, format!("section name is not UTF-8 at line {number}")));
        }
        let Ok(line) = std::str::from_utf8(&self.buffer) else { return error("text that is not UTF-8") };
        let (key, value) = split_strict(line, number, self.quotes && is_harmless(&self.section, line))?;
        Ok(Some(IniEntry { section: &self.section, key, value, line: number }))
    }
}

/// A `key=value` line that is not UTF-8, or whose section is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DamagedEntry<'a> {
    /// The name of the section.
    pub section: &'a [u8],
    /// The bytes before the split.
    pub key: &'a [u8],
    /// The bytes after the split.
    pub value: &'a [u8],
}

/// How many `=` of a line are tried as the split. Each try scans the rest of the line, so without a limit the cost of a
/// hostile line would be quadratic.
const SPLIT_TRIES_MAX: usize = 4096;

/// Returns whether a message may quote a line of a file that is not encrypted, that is, whether the line cannot be the
/// passphrase.
fn is_harmless(section: &str, line: &str) -> bool {
    !section.contains("cipher") && !line.contains("cipher")
}

/// Splits a line at the first `=` that leaves valid JSON.
fn split_strict(line: &str, number: u64, quotes: bool) -> Result<(&str, &str)> {
    let mut first_error = None;
    for (position, _) in line.match_indices('=').take(SPLIT_TRIES_MAX) {
        let (key, value) = (&line[..position], &line[position + 1..]);
        match json::validate(value) {
            Ok(()) if key.is_empty() => return Err(format_error("key is zero-length", number, line, quotes)),
            Ok(()) => return Ok((key, value)),
            Err(error) => {
                first_error.get_or_insert(error);
            }
        }
    }
    Err(match first_error {
        None => format_error("missing '=' in key/value", number, line, quotes),
        Some(error) if quotes => Error::new(
            ErrorCode::Format,
            format!("invalid JSON value at line {number} '{}': {}", shown(line), error.message),
        ),
        Some(_) => Error::new(ErrorCode::Format, format!("invalid JSON value at line {number}")),
    })
}

/// Checks that `key` can precede the `=` of a strict line and be read back.
///
/// A key must not be empty or contain a line feed or a NUL byte. pgBackRest writes such names without a check, and no
/// program can read the file afterwards.
///
/// # Errors
/// [`ErrorCode::Format`].
pub fn check_key(key: &str) -> Result<()> {
    if key.is_empty() || key.bytes().any(|byte| byte == b'\n' || byte == 0) {
        let message =
            format!("name '{}' can't be stored: it is empty or contains a line feed or NUL", key.escape_debug());
        return Err(Error::new(ErrorCode::Format, message));
    }
    Ok(())
}

/// Reads a configuration file: lines, keys and values are trimmed, lines that start with `#` are comments, and lines
/// are split at the first `=`. Entries keep the order of the file. A repeated key yields several entries.
///
/// # Errors
/// [`ErrorCode::Format`] for a section without `]` or without a name, a key before any section, a line without `=` or
/// with an empty key. Messages contain the number of the line but not its text, because a line that lacks its `=` may
/// contain a passphrase.
pub fn read_config(text: &str) -> Result<Vec<IniEntry<'_>>> {
    const BLANK: [char; 4] = [' ', '\t', '\r', '\n'];
    let mut entries = Vec::new();
    let mut section = "";
    for (number, line) in (1u64..).zip(text.split('\n')) {
        let line = line.trim_matches(BLANK);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(rest) = line.strip_prefix('[') {
            section = rest
                .strip_suffix(']')
                .ok_or_else(|| format_error("ini section should end with ]", number, line, false))?;
            if section.is_empty() {
                return Err(format_error("invalid empty section", number, line, true));
            }
            continue;
        }
        if section.is_empty() {
            return Err(format_error("key/value found outside of section", number, line, false));
        }
        let (key, value) =
            line.split_once('=').ok_or_else(|| format_error("missing '=' in key/value", number, line, false))?;
        let (key, value) = (key.trim_matches(BLANK), value.trim_matches(BLANK));
        if key.is_empty() {
            return Err(format_error("key is zero-length", number, line, false));
        }
        entries.push(IniEntry { section, key, value, line: number });
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn strict(text: &[u8]) -> Result<Vec<(String, String, String)>> {
        let mut reader = StrictReader::new(text);
        let mut entries = Vec::new();
        while let Some(entry) = reader.next_entry()? {
            entries.push((entry.section.to_owned(), entry.key.to_owned(), entry.value.to_owned()));
        }
        Ok(entries)
    }

    #[test]
    fn strict_key_with_equals_splits_where_json_starts() -> Result<()> {
        let entries = strict(b"[a]\nx=1=y={\"k\":\"=\"}\n\n[b]\n[z=1\nlast=[1]=2")?;
        let flat: Vec<_> = entries.iter().map(|(s, k, v)| (s.as_str(), k.as_str(), v.as_str())).collect();
        assert_eq!(flat, [("a", "x=1=y", "{\"k\":\"=\"}"), ("b", "[z", "1"), ("b", "last=[1]", "2")]);
        Ok(())
    }

    #[test]
    fn strict_broken_lines_are_format_errors() {
        for (text, message) in [
            ("x=1", "key/value found outside of section at line 1: x=1"),
            ("[]", "invalid empty section at line 1: []"),
            ("[a]\n\nx", "missing '=' in key/value at line 3: x"),
            ("[a]\n=1", "key is zero-length at line 2: =1"),
            ("[a]\nx= y", "invalid JSON value at line 2 'x= y': invalid type at:  y"),
            ("[a]\nx=1\r", ""),
        ] {
            match strict(text.as_bytes()) {
                Err(error) => assert_eq!((error.code, error.message.as_str()), (ErrorCode::Format, message)),
                // A carriage return is white space in JSON, and therefore part of the value
                Ok(entries) => assert_eq!(entries[0].2, "1\r"),
            }
        }
    }

    #[test]
    fn strict_name_not_utf8_is_format_error() {
        let error = strict(b"[a]\nx\xff=1\n").map_err(|error| error.code);
        assert_eq!(error, Err(ErrorCode::Format));
    }

    #[test]
    fn strict_line_that_may_hold_a_passphrase_is_not_quoted() {
        for text in ["[cipher]\ncipher-pass\"topsecret\"", "[cipher]\nx=topsecret", "[a]\ncipher-pass=\"topsecret"] {
            let message = strict(text.as_bytes()).unwrap_err().message;
            assert!(!message.contains("tops"), "{message}");
        }
        let mut reader = StrictReader::new(&b"[a]\nx=topsecret\n"[..]);
        reader.stop_quotes();
        assert_eq!(reader.next_entry().unwrap_err().message, "invalid JSON value at line 2");
        assert!(!format!("{reader:?}").contains("topsecret"));
    }

    #[test]
    fn strict_zeros_of_a_sparse_file_are_not_held_in_memory() {
        let zeros = std::io::BufReader::new(std::io::Read::take(std::io::repeat(0), 1 << 30));
        let mut reader = StrictReader::new(zeros);
        assert_eq!(reader.next_entry().unwrap_err().message, "line 1 is longer than 1048576 bytes");
        assert!(reader.buffer.capacity() <= LINE_SIZE_MAX * 2);
    }

    #[test]
    fn config_trims_and_keeps_duplicates() -> Result<()> {
        let entries = read_config("# c\r\n [global] \r\n  a = b=c \n#x=1\na=d\n[demo]\nb=\n")?;
        let flat: Vec<_> = entries.iter().map(|entry| (entry.section, entry.key, entry.value, entry.line)).collect();
        assert_eq!(flat, [("global", "a", "b=c", 3), ("global", "a", "d", 5), ("demo", "b", "", 7)]);
        Ok(())
    }

    #[test]
    fn config_broken_lines_are_format_errors() {
        for (text, message) in [
            ("a=1", "key/value found outside of section at line 1"),
            ("[a", "ini section should end with ] at line 1"),
            ("[a]\nb", "missing '=' in key/value at line 2"),
            ("[a]\n = 1", "key is zero-length at line 2"),
        ] {
            let error = read_config(text).map_err(|error| error.message);
            assert_eq!(error, Err(message.to_owned()));
        }
    }

    proptest! {
        #[test]
        fn strict_any_storable_key_round_trips(key in "[^\n\0]{1,20}", empty in any::<bool>()) {
            prop_assume!(check_key(&key).is_ok());
            let value = if empty { "{}" } else { "{\"size\":3,\"user\":\"a=b\"}" };
            let entries = strict(format!("[s]\n{key}={value}\n").as_bytes())
                .map_err(|error| TestCaseError::fail(error.to_string()))?;
            prop_assert_eq!(entries, [("s".to_owned(), key, value.to_owned())]);
        }

        #[test]
        fn readers_any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = strict(&bytes);
            let _ = read_config(&String::from_utf8_lossy(&bytes));
        }
    }
}
