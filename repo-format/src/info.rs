//! What archive.info, backup.info and backup.manifest have in common: header, checksum, encryption and copies.
//!
//! Each is strict INI whose first section has format and version, and whose last has a SHA-1 over everything else, built as if
//! the file were one JSON object (source: pgBackRest `src/info/info.c`). Every file is kept twice, the second time with
//! `.copy` appended to its name and with the same bytes.

use std::io::{BufRead, Write};

use crate::cipher::{self, Cipher, Passphrase};
use crate::hash::{Sha1, Sha1Hasher};
use crate::ini::{self, Entry, StrictReader};
use crate::json::{Reader, write_string};
use crate::{BACKREST_VERSION, Error, ErrorCode, REPOSITORY_FORMAT, Result};

const SECTION_BACKREST: &str = "backrest";
const SECTION_CIPHER: &str = "cipher";
const KEY_FORMAT: &str = "backrest-format";
const KEY_VERSION: &str = "backrest-version";
const KEY_CHECKSUM: &str = "backrest-checksum";
const KEY_CIPHER_PASS: &str = "cipher-pass";

/// The values that every info file has.
#[derive(Clone, Debug)]
pub struct Header {
    /// The version that wrote the file.
    pub backrest_version: String,
    /// The passphrase of the files that depend on this one, in an encrypted repository.
    pub cipher_pass: Option<Passphrase>,
}

/// Reads an info file that is not (or no longer) encrypted. Every value outside of the sections `backrest` and `cipher` goes to
/// `on_value`, in the file's order.
///
/// # Errors
/// [`ErrorCode::Format`] for text that breaks the syntax or has another format number, [`ErrorCode::Checksum`] when the checksum
/// is missing or wrong, and what `on_value` returns.
pub fn read<R: BufRead>(input: R, mut on_value: impl FnMut(&Entry<'_>) -> Result<()>) -> Result<Header> {
    let mut reader = StrictReader::new(input);
    let mut checksum = ChecksumBuilder::new();
    let mut expected = None;
    let mut header = Header { backrest_version: BACKREST_VERSION.to_owned(), cipher_pass: None };
    while let Some(entry) = reader.next_entry()? {
        if entry.section == SECTION_BACKREST && entry.key == KEY_CHECKSUM {
            expected = Some(Reader::new(entry.value).string()?.into_owned());
            continue;
        }
        checksum.value(entry.section, entry.key, entry.value);
        match (entry.section, entry.key) {
            (SECTION_BACKREST, KEY_FORMAT) => {
                let found = Reader::new(entry.value).u64()?;
                if found != u64::from(REPOSITORY_FORMAT) {
                    let message = format!("expected format {REPOSITORY_FORMAT} but found {found}");
                    return Err(Error::new(ErrorCode::Format, message));
                }
            }
            (SECTION_BACKREST, KEY_VERSION) => {
                header.backrest_version = Reader::new(entry.value).string()?.into_owned();
            }
            (SECTION_CIPHER, KEY_CIPHER_PASS) => {
                header.cipher_pass = Some(Passphrase::new(Reader::new(entry.value).string()?));
            }
            (SECTION_BACKREST | SECTION_CIPHER, _) => {}
            _ => on_value(&entry)?,
        }
    }
    let actual = checksum.finish();
    match expected {
        None => {
            let message = format!("invalid checksum, actual '{actual}' but no checksum found");
            Err(Error::new(ErrorCode::Checksum, message))
        }
        Some(expected) if expected != actual.to_string() => {
            let message = format!("invalid checksum, actual '{actual}' but expected '{}'", expected.escape_debug());
            Err(Error::new(ErrorCode::Checksum, message))
        }
        Some(_) => Ok(header),
    }
}

/// Builds the checksum of an info file from its values.
struct ChecksumBuilder {
    hasher: Sha1Hasher,
    section: String,
    buffer: String,
}

impl ChecksumBuilder {
    fn new() -> Self {
        let mut hasher = Sha1Hasher::new();
        hasher.update(b"{");
        ChecksumBuilder { hasher, section: String::new(), buffer: String::new() }
    }

    fn value(&mut self, section: &str, key: &str, value: &str) {
        self.buffer.clear();
        if section == self.section {
            self.buffer.push(',');
        } else {
            if !self.section.is_empty() {
                self.buffer.push_str("},");
            }
            self.buffer.push('"');
            self.buffer.push_str(section);
            self.buffer.push_str("\":{");
            section.clone_into(&mut self.section);
        }
        write_string(&mut self.buffer, key);
        self.buffer.push(':');
        self.hasher.update(self.buffer.as_bytes());
        self.hasher.update(value.as_bytes());
    }

    fn finish(mut self) -> Sha1 {
        self.hasher.update(b"}}");
        self.hasher.finish()
    }
}

/// Writes an info file. The caller gives sections in ascending byte order of their names (`backrest`, first and last, is
/// written by itself) and keys in the order that the file has.
pub struct Writer<W> {
    out: W,
    checksum: ChecksumBuilder,
    section: String,
    line: String,
}

impl<W: Write> Writer<W> {
    /// Begins a file with this program's format and version.
    ///
    /// # Errors
    /// [`ErrorCode::FileWrite`] when `out` fails, here and below.
    pub fn new(out: W) -> Result<Self> {
        Self::with_version(out, BACKREST_VERSION)
    }

    /// Begins a file with this program's format and another version.
    ///
    /// # Errors
    /// As [`Writer::new`].
    pub fn with_version(out: W, version: &str) -> Result<Self> {
        let checksum = ChecksumBuilder::new();
        let mut writer = Writer { out, checksum, section: String::new(), line: String::new() };
        writer.value(SECTION_BACKREST, KEY_FORMAT, &REPOSITORY_FORMAT.to_string())?;
        writer.string(SECTION_BACKREST, KEY_VERSION, version)?;
        Ok(writer)
    }

    /// Writes a value that is JSON already and must not be an array, which could look like a section.
    ///
    /// # Errors
    /// [`ErrorCode::Format`] for a key that could not be read again.
    pub fn value(&mut self, section: &str, key: &str, json: &str) -> Result<()> {
        ini::check_key(key)?;
        self.line.clear();
        if section != self.section {
            if !self.section.is_empty() {
                self.line.push('\n');
            }
            self.line.push('[');
            self.line.push_str(section);
            self.line.push_str("]\n");
            section.clone_into(&mut self.section);
        }
        self.line.push_str(key);
        self.line.push('=');
        self.line.push_str(json);
        self.line.push('\n');
        self.checksum.value(section, key, json);
        self.out.write_all(self.line.as_bytes()).map_err(write_error)
    }

    /// Writes a string value.
    ///
    /// # Errors
    /// As [`Writer::value`].
    pub fn string(&mut self, section: &str, key: &str, value: &str) -> Result<()> {
        let mut json = String::new();
        write_string(&mut json, value);
        self.value(section, key, &json)
    }

    /// Writes the passphrase of dependent files, if there is one.
    ///
    /// # Errors
    /// As [`Writer::value`].
    pub fn cipher_pass(&mut self, passphrase: Option<&Passphrase>) -> Result<()> {
        match passphrase {
            Some(passphrase) => self.string(SECTION_CIPHER, KEY_CIPHER_PASS, passphrase.expose()),
            None => Ok(()),
        }
    }

    /// Writes the checksum and gives the output back.
    ///
    /// # Errors
    /// [`ErrorCode::FileWrite`].
    pub fn finish(mut self) -> Result<W> {
        let checksum = self.checksum.finish();
        write!(self.out, "\n[{SECTION_BACKREST}]\n{KEY_CHECKSUM}=\"{checksum}\"\n").map_err(write_error)?;
        self.out.flush().map_err(write_error)?;
        Ok(self.out)
    }
}

fn write_error(error: std::io::Error) -> Error {
    Error::from_io(ErrorCode::FileWrite, "unable to write", error)
}

/// Decrypts a stored info file.
///
/// # Errors
/// [`ErrorCode::Crypto`], with the hint that the repository may or may not be encrypted.
pub fn decrypt(cipher: &Cipher, stored: &[u8]) -> Result<Vec<u8>> {
    cipher::decrypt(cipher, stored).map_err(crypto_hint)
}

/// Adds to a failed decryption the hint that pgBackRest gives for info files.
#[must_use]
pub fn crypto_hint(error: Error) -> Error {
    if error.code == ErrorCode::Crypto && error.hints.is_empty() {
        error.hint("is or was the repo encrypted?")
    } else {
        error
    }
}

/// The error when neither a file nor its copy can be loaded. `message` says what was to be loaded; both causes are listed.
///
/// The code is the causes' own when they agree; when one of them is that the file is missing, the other one's; otherwise
/// [`ErrorCode::FileOpen`].
pub fn pair_error(message: &str, first: &Error, second: &Error) -> Error {
    let code = match (first.code, second.code) {
        (first, second) if first == second => first,
        (ErrorCode::FileMissing, other) | (other, ErrorCode::FileMissing) => other,
        _ => ErrorCode::FileOpen,
    };
    Error::new(code, format!("{message}:\n{}: {first}\n{}: {second}", first.code, second.code))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_VALUES: &str = "[backrest]\nbackrest-format=5\nbackrest-version=\"2.60.0\"\n";

    fn load(text: &str) -> Result<Header> {
        read(text.as_bytes(), |_| Ok(()))
    }

    #[test]
    fn writer_output_reads_back() -> Result<()> {
        let mut writer = Writer::new(Vec::new())?;
        writer.cipher_pass(Some(&Passphrase::new("a\"b")))?;
        writer.value("db", "x=y", "{\"a\":1}")?;
        let text = writer.finish()?;
        let mut values = Vec::new();
        let header = read(text.as_slice(), |entry| {
            values.push((entry.key.to_owned(), entry.value.to_owned()));
            Ok(())
        })?;
        assert_eq!(header.backrest_version, "2.60.0");
        assert_eq!(header.cipher_pass, Some(Passphrase::new("a\"b")));
        assert_eq!(values, [("x=y".to_owned(), "{\"a\":1}".to_owned())]);
        Ok(())
    }

    #[test]
    fn writer_key_with_line_feed_is_refused() -> Result<()> {
        let error = Writer::new(Vec::new())?.value("s", "a\nb", "1").map_err(|error| error.code);
        assert_eq!(error, Err(ErrorCode::Format));
        Ok(())
    }

    #[test]
    fn read_without_checksum_is_checksum_error() {
        let error = load(NO_VALUES).map(drop).map_err(|error| (error.code, error.message));
        let actual = Sha1::of(br#"{"backrest":{"backrest-format":5,"backrest-version":"2.60.0"}}"#);
        let message = format!("invalid checksum, actual '{actual}' but no checksum found");
        assert_eq!(error, Err((ErrorCode::Checksum, message)));
    }

    #[test]
    fn read_changed_value_is_checksum_error() -> Result<()> {
        let mut writer = Writer::new(Vec::new())?;
        writer.value("db", "db-id", "1")?;
        let text = String::from_utf8_lossy(&writer.finish()?).replace("db-id=1", "db-id=2");
        assert_eq!(load(&text).map(drop).map_err(|error| error.code), Err(ErrorCode::Checksum));
        Ok(())
    }

    #[test]
    fn read_other_format_is_format_error() {
        let error = load("[backrest]\nbackrest-format=4\n").map(drop).map_err(|error| error.message);
        assert_eq!(error, Err("expected format 5 but found 4".to_owned()));
    }

    #[test]
    fn read_encrypted_text_is_format_error() {
        let error = read(&b"Salted__\xff\xfe\x00"[..], |_| Ok(())).map(drop).map_err(|error| error.code);
        assert_eq!(error, Err(ErrorCode::Format));
    }

    #[test]
    fn decrypt_plain_text_hints_at_encryption() {
        let cipher = Cipher::Aes256Cbc(Passphrase::new("x"));
        let error = decrypt(&cipher, NO_VALUES.as_bytes()).map_err(|error| (error.code, error.hints));
        assert_eq!(error, Err((ErrorCode::Crypto, vec!["is or was the repo encrypted?".to_owned()])));
    }

    #[test]
    fn pair_error_code_follows_both_causes() {
        let error = |code| Error::new(code, "x");
        for (first, second, expected) in [
            (ErrorCode::Checksum, ErrorCode::Checksum, ErrorCode::Checksum),
            (ErrorCode::FileMissing, ErrorCode::Crypto, ErrorCode::Crypto),
            (ErrorCode::Crypto, ErrorCode::FileMissing, ErrorCode::Crypto),
            (ErrorCode::Crypto, ErrorCode::Format, ErrorCode::FileOpen),
        ] {
            assert_eq!(pair_error("m", &error(first), &error(second)).code, expected);
        }
        let text = pair_error("m", &error(ErrorCode::FileMissing), &error(ErrorCode::Crypto)).message;
        assert_eq!(text, "m:\nFileMissingError: x\nCryptoError: x");
    }
}
