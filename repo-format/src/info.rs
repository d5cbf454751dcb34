//! The common parts of archive.info, backup.info and backup.manifest: header, checksum, encryption and copies.
//!
//! Each file is strict INI. Its first section contains format and version, and its last section a SHA-1 over everything
//! else, computed as if the file were one JSON object (source: pgBackRest `src/info/info.c`). Every file is stored
//! twice: the second has `.copy` appended to its name, and the same bytes.

use std::io::{BufRead, Write};

use crate::cipher::{Cipher, Keyring, StreamHeader};
use crate::format::RepoFormat;
use crate::hash::{Sha1, Sha1Hasher};
use crate::ini::{self, DamagedEntry, IniEntry, StrictReader};
use crate::json::{Reader, write_string};
use crate::{BACKREST_VERSION, Error, ErrorCode, Result, format};

pub(crate) const SECTION_BACKREST: &str = "backrest";
const SECTION_CIPHER: &str = "cipher";
pub(crate) const KEY_FORMAT: &str = "backrest-format";
const KEY_VERSION: &str = "backrest-version";
const KEY_CHECKSUM: &str = "backrest-checksum";
const KEY_CIPHER_PASS: &str = "cipher-pass";
const KEY_CIPHER_PASS_CURRENT: &str = "cipher-pass-current";
const KEY_CIPHER_PASS_ROTATE: &str = "cipher-pass-rotate";

/// The values that every info file has.
#[derive(Clone, Debug)]
pub struct Header {
    /// The format of the file, which it keeps when it is saved.
    pub format: RepoFormat,
    /// The version that wrote the file.
    pub backrest_version: String,
    /// The keys of the files that depend on this one, if the repository is encrypted.
    pub keys: Option<Keyring>,
}

/// The origin of an info file's text, which determines what an error message may show of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The stored text is not encrypted. Messages quote it as pgBackRest's do.
    Plain,
    /// The text was decrypted. A damaged line may contain a passphrase, so messages contain only its number.
    Decrypted,
    /// The text of an info file was decrypted, in front of which was a header of this format. The content must have the
    /// same format.
    Headed(RepoFormat),
}

impl Origin {
    /// The origin of a file that is stored with this cipher and that began with this header.
    pub fn of(cipher: &Cipher, header: Option<&StreamHeader>) -> Self {
        match (cipher, header) {
            (Cipher::None, _) => Origin::Plain,
            (Cipher::Headed(_), Some(header)) => Origin::Headed(header.format()),
            _ => Origin::Decrypted,
        }
    }

    /// Returns whether messages must not quote the text.
    fn is_secret(self) -> bool {
        self != Origin::Plain
    }

    /// Returns the error as it may be shown. `place` replaces the message if the file was decrypted.
    pub(crate) fn conceal(self, error: Error, place: impl std::fmt::Display) -> Error {
        match self {
            Origin::Plain => error,
            Origin::Decrypted | Origin::Headed(_) => Error::new(error.code, format!("invalid value {place}")),
        }
    }
}

/// Returns the number in the first lines of a decrypted info file or manifest of any format; `None` if there is no
/// number. The rest of the file may be missing.
///
/// # Errors
/// The text in front of the number violates the syntax, or can't be read.
pub fn find_format<R: BufRead>(input: R) -> Result<Option<u64>> {
    let mut reader = StrictReader::new(input);
    loop {
        match reader.next_entry() {
            Ok(Some(entry)) if entry.section == SECTION_BACKREST && entry.key == KEY_FORMAT => {
                return Ok(entry.value.parse().ok());
            }
            Ok(Some(_)) => {}
            Ok(None) => return Ok(None),
            Err(error) => return format::unsupported_number(&error).map(Some).ok_or(error),
        }
    }
}

/// Reads an info file that is not (or no longer) encrypted, with lines of up to `line_size_max` bytes. Passes every
/// value outside the sections `backrest` and `cipher` to `on_value`, in the order of the file.
///
/// # Errors
/// [`ErrorCode::Format`] if the text violates the syntax or has another format number ([`format::is_unsupported`]) or
/// none, [`ErrorCode::Checksum`] if the checksum is missing or wrong, and the errors of `on_value`. Text that is not
/// UTF-8 is usually damage, so it is an error of its own only if the checksum is right.
pub fn read<R: BufRead>(
    input: R,
    origin: Origin,
    line_size_max: usize,
    mut on_value: impl FnMut(&IniEntry<'_>) -> Result<()>,
) -> Result<Header> {
    let mut reader = StrictReader::new(input).with_line_size_max(line_size_max);
    if origin.is_secret() {
        reader.stop_quotes();
    }
    let mut content = InfoContent::new(origin);
    let mut damage = None;
    loop {
        let is_secret = !reader.quotes();
        let entry = match reader.next_entry() {
            Ok(Some(entry)) => entry,
            Ok(None) => break,
            Err(error) => {
                let Some(entry) = reader.damaged_entry() else { return Err(error) };
                content.checksum.damaged_value(&entry);
                damage.get_or_insert(error);
                continue;
            }
        };
        // The content of a file with a passphrase was decrypted at some point
        let is_key = entry.section == SECTION_CIPHER;
        let origin = if is_secret || is_key { Origin::Decrypted } else { origin };
        let line = entry.line;
        content.value(&entry, &mut on_value).map_err(|error| {
            match format::is_unsupported(&error) || is_key && error.code == ErrorCode::Format {
                true => error,
                false => origin.conceal(error, format_args!("at line {line}")),
            }
        })?;
        if origin.is_secret() {
            reader.stop_quotes();
        }
    }
    let header = content.finish()?;
    damage.map_or(Ok(header), Err)
}

/// What was read from an info file.
struct InfoContent {
    checksum: ChecksumBuilder,
    expected: Option<String>,
    origin: Origin,
    has_format: bool,
    header: Header,
}

impl InfoContent {
    fn new(origin: Origin) -> Self {
        let backrest_version = BACKREST_VERSION.to_owned();
        let header = Header { format: RepoFormat::default(), backrest_version, keys: None };
        InfoContent { checksum: ChecksumBuilder::new(), expected: None, origin, has_format: false, header }
    }

    fn value(&mut self, entry: &IniEntry<'_>, on_value: &mut impl FnMut(&IniEntry<'_>) -> Result<()>) -> Result<()> {
        let mut json = Reader::new(entry.value);
        if entry.section == SECTION_BACKREST && entry.key == KEY_CHECKSUM {
            self.expected = Some(json.string()?.into_owned());
            return Ok(());
        }
        self.checksum.value(entry.section, entry.key, entry.value);
        match (entry.section, entry.key) {
            (SECTION_BACKREST, KEY_FORMAT) => {
                // Checked at once, because the values that follow may have another form in another format
                let format = RepoFormat::from_number(json.u64()?)?;
                if let Origin::Headed(header) = self.origin
                    && header != format
                {
                    return Err(format::mismatch(format, header));
                }
                (self.header.format, self.has_format) = (format, true);
            }
            (SECTION_BACKREST, KEY_VERSION) => self.header.backrest_version = json.string()?.into_owned(),
            (SECTION_CIPHER, key) => self.cipher(key, &mut json)?,
            (SECTION_BACKREST, _) => {}
            _ => on_value(entry)?,
        }
        Ok(())
    }

    /// Reads a value of the section of keys. `cipher-pass` comes first, as in the order of the keys of the section.
    fn cipher(&mut self, key: &str, json: &mut Reader<'_>) -> Result<()> {
        if !self.has_format {
            return Err(format_not_found());
        }
        match (self.header.format, key) {
            (RepoFormat::V5, KEY_CIPHER_PASS) => self.header.keys = Some(Keyring::read_single(json)?),
            (RepoFormat::V6, KEY_CIPHER_PASS) => self.header.keys = Some(Keyring::read_keys(json)?),
            (RepoFormat::V6, KEY_CIPHER_PASS_CURRENT) => self.keys()?.read_current(json)?,
            (RepoFormat::V6, KEY_CIPHER_PASS_ROTATE) => self.keys()?.read_rotated(json)?,
            _ => {}
        }
        Ok(())
    }

    fn keys(&mut self) -> Result<&mut Keyring> {
        let missing = || Error::new(ErrorCode::Format, "file has no cipher key");
        self.header.keys.as_mut().ok_or_else(missing)
    }

    fn finish(self) -> Result<Header> {
        let actual = self.checksum.finish().to_string();
        let error = |message| Err(Error::new(ErrorCode::Checksum, message));
        match self.expected {
            None => error(format!("invalid checksum, actual '{actual}' but no checksum found")),
            Some(expected) if expected != actual => {
                // Damage may have put anything in its place
                let is_sum = Sha1::from_hex(expected.as_bytes()).is_some();
                let shown = if is_sum { format!("'{expected}'") } else { "one that is not valid".to_owned() };
                error(format!("invalid checksum, actual '{actual}' but expected {shown}"))
            }
            Some(_) if !self.has_format => Err(format_not_found()),
            Some(_) => Ok(self.header),
        }
    }
}

fn format_not_found() -> Error {
    Error::new(ErrorCode::Format, "repository format not found").hint("is this a valid pgBackRest info file?")
}

/// Computes the checksum of an info file from its values.
struct ChecksumBuilder {
    hasher: Sha1Hasher,
    section: Vec<u8>,
    buffer: String,
}

impl ChecksumBuilder {
    fn new() -> Self {
        let mut hasher = Sha1Hasher::new();
        hasher.update(b"{");
        ChecksumBuilder { hasher, section: Vec::new(), buffer: String::new() }
    }

    fn value(&mut self, section: &str, key: &str, value: &str) {
        self.section(section.as_bytes());
        self.buffer.clear();
        write_string(&mut self.buffer, key);
        self.buffer.push(':');
        self.hasher.update(self.buffer.as_bytes());
        self.hasher.update(value.as_bytes());
    }

    /// Begins the next value: in the section of the last one, or in another.
    fn section(&mut self, section: &[u8]) {
        if section == self.section {
            self.hasher.update(b",");
            return;
        }
        if !self.section.is_empty() {
            self.hasher.update(b"},");
        }
        self.hasher.update(b"\"");
        self.hasher.update(section);
        self.hasher.update(b"\":{");
        section.clone_into(&mut self.section);
    }

    /// Adds a value that is not UTF-8, by the rules for one that is: the key is escaped and all else is not.
    fn damaged_value(&mut self, entry: &DamagedEntry<'_>) {
        self.section(entry.section);
        // Escapes concern only ASCII, so the other bytes can pass as the characters of these numbers
        let mut key = String::new();
        write_string(&mut key, &entry.key.iter().copied().map(char::from).collect::<String>());
        let key: Vec<u8> = key.chars().filter_map(|char| u8::try_from(char).ok()).collect();
        self.hasher.update(&key);
        self.hasher.update(b":");
        self.hasher.update(entry.value);
    }

    fn finish(mut self) -> Sha1 {
        self.hasher.update(b"}}");
        self.hasher.finish()
    }
}

/// Writes an info file. The caller passes sections in ascending byte order of their names, and keys in the order of the
/// file. The section `backrest`, first and last, is written automatically.
pub struct Writer<W> {
    out: W,
    format: RepoFormat,
    checksum: ChecksumBuilder,
    section: String,
    line: String,
}

impl<W: Write> Writer<W> {
    /// Begins a file of this format with this program's version.
    ///
    /// # Errors
    /// [`ErrorCode::FileWrite`] if `out` fails. This applies to all methods.
    pub fn new(out: W, format: RepoFormat) -> Result<Self> {
        Self::with_version(out, format, BACKREST_VERSION)
    }

    /// Begins a file of this format with another version.
    ///
    /// # Errors
    /// The same as [`Writer::new`].
    pub fn with_version(out: W, format: RepoFormat, version: &str) -> Result<Self> {
        let checksum = ChecksumBuilder::new();
        let mut writer = Writer { out, format, checksum, section: String::new(), line: String::new() };
        writer.value(SECTION_BACKREST, KEY_FORMAT, &format.to_string())?;
        writer.string(SECTION_BACKREST, KEY_VERSION, version)?;
        Ok(writer)
    }

    /// Writes a JSON value. It must not be an array, which could look like a section.
    ///
    /// # Errors
    /// [`ErrorCode::Format`] if the key could not be read back.
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
    /// The same as [`Writer::value`].
    pub fn string(&mut self, section: &str, key: &str, value: &str) -> Result<()> {
        let mut json = String::new();
        write_string(&mut json, value);
        self.value(section, key, &json)
    }

    /// Writes the keys of dependent files, if there are any, in the form of the file's format.
    ///
    /// # Errors
    /// The same as [`Writer::value`]; [`ErrorCode::Format`] if the format can't hold the keys.
    pub fn keys(&mut self, keys: Option<&Keyring>) -> Result<()> {
        let Some(keys) = keys else { return Ok(()) };
        if self.format == RepoFormat::V5 {
            return self.string(SECTION_CIPHER, KEY_CIPHER_PASS, keys.to_single()?.expose());
        }
        let mut json = String::new();
        keys.write_keys(&mut json);
        self.value(SECTION_CIPHER, KEY_CIPHER_PASS, &json)?;
        // Without it, the last other key would count as the current one
        if keys.has_others() {
            self.string(SECTION_CIPHER, KEY_CIPHER_PASS_CURRENT, keys.current_id().as_str())?;
        }
        if keys.rotated() != 0 {
            self.value(SECTION_CIPHER, KEY_CIPHER_PASS_ROTATE, &keys.rotated().to_string())?;
        }
        Ok(())
    }

    /// Writes the checksum and returns the output.
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

/// Adds pgBackRest's hint for info files to a decryption error.
#[must_use]
pub fn crypto_hint(error: Error) -> Error {
    if error.code == ErrorCode::Crypto && error.hints.is_empty() {
        error.hint("is or was the repo encrypted?")
    } else {
        error
    }
}

/// Creates the error for a file of which neither the file nor its copy can be loaded. `message` names what could not be
/// loaded; both causes are listed.
///
/// The code is the causes' code if they agree, the other cause's code if one of them is a missing file, and
/// [`ErrorCode::FileOpen`] otherwise.
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
    use crate::cipher::Passphrase;

    const NO_VALUES: &str = "[backrest]\nbackrest-format=5\nbackrest-version=\"2.60.0\"\n";

    fn load(text: &str) -> Result<Header> {
        read(text.as_bytes(), Origin::Plain, ini::LINE_SIZE_MAX, |_| Ok(()))
    }

    #[test]
    fn writer_output_reads_back() -> Result<()> {
        let mut writer = Writer::new(Vec::new(), RepoFormat::V5)?;
        writer.keys(Some(&Keyring::single(Passphrase::new("a\"b"))))?;
        writer.value("db", "x=y", "{\"a\":1}")?;
        let text = writer.finish()?;
        let mut values = Vec::new();
        let header = read(text.as_slice(), Origin::Plain, ini::LINE_SIZE_MAX, |entry| {
            values.push((entry.key.to_owned(), entry.value.to_owned()));
            Ok(())
        })?;
        assert_eq!(header.backrest_version, "2.60.0");
        assert_eq!(header.keys, Some(Keyring::single(Passphrase::new("a\"b"))));
        assert_eq!(values, [("x=y".to_owned(), "{\"a\":1}".to_owned())]);
        Ok(())
    }

    #[test]
    fn writer_key_with_line_feed_is_refused() -> Result<()> {
        let error = Writer::new(Vec::new(), RepoFormat::V5)?.value("s", "a\nb", "1").map_err(|error| error.code);
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
        let mut writer = Writer::new(Vec::new(), RepoFormat::V5)?;
        writer.value("db", "db-id", "1")?;
        let text = String::from_utf8_lossy(&writer.finish()?).replace("db-id=1", "db-id=2");
        assert_eq!(load(&text).map(drop).map_err(|error| error.code), Err(ErrorCode::Checksum));
        Ok(())
    }

    #[test]
    fn read_other_format_is_format_error() {
        for (text, message) in [
            ("[backrest]\nbackrest-format=4\n", "repository format 4 is no longer supported by pgBackRest"),
            ("[backrest]\nbackrest-format=7\n[cipher]\n", "repository format 7 requires a newer version of pgBackRest"),
            ("PGBR007_abcdefgh", "repository format 7 requires a newer version of pgBackRest"),
        ] {
            let error = load(text).unwrap_err();
            assert_eq!((error.code, error.message.as_str()), (ErrorCode::Format, message));
            assert!(format::is_unsupported(&error));
        }
    }

    #[test]
    fn read_without_format_number_is_format_error() {
        let sum = Sha1::of(br#"{"backrest":{"backrest-version":"2.60.0"}}"#);
        let text = format!("[backrest]\nbackrest-version=\"2.60.0\"\nbackrest-checksum=\"{sum}\"\n");
        let error = load(&text).unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (ErrorCode::Format, "repository format not found"));
        assert_eq!(error.hints, ["is this a valid pgBackRest info file?"]);
    }

    #[test]
    fn read_decrypted_file_with_wrong_value_tells_its_line_alone() {
        let text = format!("{NO_VALUES}[db]\nkey=\"topsecret\"\n");
        let fails = |entry: &IniEntry<'_>| Err(Error::new(ErrorCode::JsonFormat, format!("bad {}", entry.value)));
        for (origin, message) in [(Origin::Plain, "bad \"topsecret\""), (Origin::Decrypted, "invalid value at line 5")]
        {
            let error = read(text.as_bytes(), origin, ini::LINE_SIZE_MAX, fails).unwrap_err();
            assert_eq!((error.code, error.message.as_str()), (ErrorCode::JsonFormat, message));
        }
    }

    #[test]
    fn read_damage_that_is_not_utf8_is_checksum_error() {
        let mut writer = Writer::new(Vec::new(), RepoFormat::V5).unwrap();
        writer.value("backup:current", "label", "{\"a\":\"b\"}").unwrap();
        writer.value("db", "db-id", "1").unwrap();
        let bytes = writer.finish().unwrap();
        let actual = |section: &[u8], key: &[u8], value: &[u8]| {
            let head = br#"{"backrest":{"backrest-format":5,"backrest-version":"2.60.0"},"#.as_slice();
            let tail = br#"},"db":{"db-id":1}}"#.as_slice();
            let parts = [head, b"\"", section, b"\":{\"", key, b"\":", value, tail];
            Sha1::of(&parts.concat())
        };
        let cases: [(&[u8], Sha1); 3] = [
            (b"backup:curr", actual(b"backup:\xffurrent", b"label", b"{\"a\":\"b\"}")),
            (b"label", actual(b"backup:current", b"\xffabel", b"{\"a\":\"b\"}")),
            (b"b\"}", actual(b"backup:current", b"label", b"{\"a\":\"\xff\"}")),
        ];
        for (place, actual) in cases {
            let mut damaged = bytes.clone();
            let start = damaged.windows(place.len()).position(|window| window == place).unwrap();
            damaged[start + if place.starts_with(b"backup") { 7 } else { 0 }] = 0xff;
            let error = read(damaged.as_slice(), Origin::Plain, ini::LINE_SIZE_MAX, |_| Ok(())).unwrap_err();
            assert_eq!(error.code, ErrorCode::Checksum);
            assert!(
                error.message.starts_with(&format!("invalid checksum, actual '{actual}' but expected '")),
                "{error}"
            );
        }
    }

    #[test]
    fn read_text_that_is_not_utf8_with_its_checksum_is_format_error() {
        let sum = Sha1::of(b"{\"backrest\":{\"backrest-format\":5},\"db\":{\"a\":\"\xff\"}}");
        let start = b"[backrest]\nbackrest-format=5\n[db]\na=\"\xff\"\n[backrest]\nbackrest-checksum=\"".as_slice();
        let bytes = [start, sum.to_string().as_bytes(), b"\"\n"].concat();
        let error = read(bytes.as_slice(), Origin::Decrypted, ini::LINE_SIZE_MAX, |_| Ok(())).unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (ErrorCode::Format, "text that is not UTF-8 at line 4"));
    }

    #[test]
    fn read_wrong_checksum_that_is_no_sum_is_not_shown() {
        let error = load(&format!("{NO_VALUES}backrest-checksum=\"topsecret\"\n")).unwrap_err();
        assert_eq!(error.code, ErrorCode::Checksum);
        assert!(!error.message.contains("topsecret"), "{error}");
    }

    #[test]
    fn read_encrypted_text_is_format_error() {
        let error =
            read(&b"Salted__\xff\xfe\x00"[..], Origin::Plain, 99, |_| Ok(())).map(drop).map_err(|error| error.code);
        assert_eq!(error, Err(ErrorCode::Format));
    }

    #[test]
    fn crypto_hint_is_for_failed_decryption_alone() {
        let hints = |code| crypto_hint(Error::new(code, "x")).hints;
        assert_eq!(hints(ErrorCode::Crypto), ["is or was the repo encrypted?"]);
        assert!(hints(ErrorCode::Format).is_empty());
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
