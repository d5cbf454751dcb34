//! Reads one info file or manifest: decrypts its text, limits its size, and says so if the options of the encryption are wrong.

use std::io::{self, BufRead, BufReader, Read};

use repo_format::cipher::{self, Cipher, Decryptor, Framing, StreamHeader};
use repo_format::format;
use repo_format::info::{self, Origin};
use repo_format::layout::RepoPath;

use crate::storage::{self, ReadRange};
use crate::work::retry::is_about_content;
use crate::{Error, ErrorCode, Repo, Result};

/// The maximum size of an info file. A backup needs some hundred bytes, or some thousand with long lists of references
/// and annotations.
pub(crate) const SIZE_MAX: u64 = 64 << 20;

/// Bytes at the start of a file that contain its format.
const HEAD_BYTES: u64 = 1024;

/// Bytes read from the storage at once.
const BUFFER_BYTES: usize = 32 * 1024;

/// Returns the format of a file; `None` if it is missing or too damaged.
///
/// # Errors
/// It can't be read.
pub(crate) fn stored_format(repo: &Repo, path: &RepoPath) -> Result<Option<u64>> {
    let range = ReadRange { offset: 0, limit: Some(HEAD_BYTES) };
    let Some(stored) = repo.storage.read(path, range)? else { return Ok(None) };
    let mut plain = BufReader::new(Decryptor::new(&repo.info_cipher(), Framing::Full, stored));
    let found = info::find_format(&mut plain);
    // The header tells it even if what follows is damaged
    let header = plain.get_ref().header().filter(|header| **header != StreamHeader::Magic);
    if let Some(header) = header {
        return Ok(Some(header.format().number().into()));
    }
    match found {
        // What can't be read may be intact
        Err(error) if !is_about_content(&error) => {
            Err(error.context(format_args!("unable to read the format of '{}'", repo.storage.display(path))))
        }
        found => Ok(found.unwrap_or_default()),
    }
}

/// Loads one file without its copy.
///
/// # Errors
/// It is missing, damaged, too large or of another format.
pub(crate) fn load_file<T>(
    repo: &Repo,
    path: &RepoPath,
    parse: impl FnOnce(&mut dyn BufRead, Origin) -> Result<T>,
) -> Result<T> {
    let stored =
        repo.storage.read(path, ReadRange::default())?.ok_or_else(|| storage::missing(&*repo.storage, path))?;
    let limited = SizeLimit { inner: stored, left: SIZE_MAX };
    let cipher = repo.info_cipher();
    let plain = Decryptor::new(&cipher, Framing::Full, BufReader::with_capacity(BUFFER_BYTES, limited));
    parse_stored(repo, &cipher, &mut BufReader::with_capacity(BUFFER_BYTES, plain), parse)
}

/// The text of an info file or manifest while it is read.
pub(crate) trait StoredText: BufRead {
    /// What was in front of it, once it has been read from.
    fn header(&self) -> Option<&StreamHeader>;
}

impl<R: Read> StoredText for BufReader<Decryptor<R>> {
    fn header(&self) -> Option<&StreamHeader> {
        self.get_ref().header()
    }
}

/// Parses the decrypted text of an info file or manifest. If it can't be parsed because the options of the repository's
/// encryption are wrong, the error says so, whatever meaningless bytes were read.
///
/// # Errors
/// The errors of `parse`; [`ErrorCode::Crypto`] if the passphrase is wrong.
pub(crate) fn parse_stored<T>(
    repo: &Repo,
    cipher: &Cipher,
    reader: &mut impl StoredText,
    parse: impl FnOnce(&mut dyn BufRead, Origin) -> Result<T>,
) -> Result<T> {
    let start = loop {
        match reader.fill_buf() {
            Ok(start) => break TextStart::of(start),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                let error = Error::from_io(ErrorCode::FileRead, "unable to read", error);
                return Err(with_cipher_hint(repo, cipher, error));
            }
        }
    };
    let origin = Origin::of(cipher, reader.header());
    parse(reader, origin).map_err(|error| match start {
        TextStart::Encrypted if cipher.is_none() => {
            Error::new(ErrorCode::Format, "file is encrypted").hint(format!("is {}{TYPE_HINT_END}", repo.name()))
        }
        TextStart::Other if !cipher.is_none() && error.code != ErrorCode::FileRead => {
            let error = match with_rest(error, reader) {
                error if error.code == ErrorCode::Format && !format::is_unsupported(&error) => {
                    info::crypto_hint(Error::new(ErrorCode::Crypto, "decrypted text is not an info file"))
                }
                error => error,
            };
            with_cipher_hint(repo, cipher, error)
        }
        _ => with_rest(error, reader),
    })
}

/// What the first bytes of a text tell.
#[derive(Clone, Copy, PartialEq, Eq)]
enum TextStart {
    /// An info file or manifest.
    Info,
    /// An encrypted file.
    Encrypted,
    Other,
}

impl TextStart {
    fn of(bytes: &[u8]) -> Self {
        match bytes {
            [b'[', b'b', b'a', b'c', b'k', ..] => TextStart::Info,
            bytes if cipher::is_encrypted(bytes) => TextStart::Encrypted,
            _ => TextStart::Other,
        }
    }
}

/// The ends of the hints about options of the encryption, after the name of the option.
const PASSPHRASE_HINT_END: &str = "-cipher-pass) the one the repository was created with?";

const TYPE_HINT_END: &str = "-cipher-type right?";

/// Adds the question for the passphrase to a decryption error of a file that is encrypted with the one of the options.
fn with_cipher_hint(repo: &Repo, cipher: &Cipher, error: Error) -> Error {
    if error.code != ErrorCode::Crypto {
        return error;
    }
    let error = info::crypto_hint(error);
    if *cipher != repo.info_cipher() {
        return error;
    }
    error.hint(format!("is the passphrase ({}{PASSPHRASE_HINT_END}", repo.name()))
}

/// Returns the hint that an option of the encryption is probably wrong, from the error of an info file or of a pair.
pub(crate) fn cipher_option_hint(error: &Error) -> Option<&str> {
    let lines = error.message.lines().filter_map(|line| line.strip_prefix("HINT: "));
    let mut hints = lines.chain(error.hints.iter().map(String::as_str));
    hints.find(|hint| hint.ends_with(PASSPHRASE_HINT_END) || hint.ends_with(TYPE_HINT_END))
}

/// Returns the error of a partly read file, or the decryption error that appears only at its end. A wrong passphrase
/// yields meaningless text, and the padding then shows the reason.
fn with_rest<R: Read + ?Sized>(error: Error, reader: &mut R) -> Error {
    if error.code != ErrorCode::Format || format::is_unsupported(&error) {
        return info::crypto_hint(error);
    }
    match io::copy(reader, &mut io::sink()).map_err(|rest| Error::from_io(ErrorCode::FileRead, "unable to read", rest))
    {
        Err(rest) if rest.code == ErrorCode::Crypto => info::crypto_hint(rest),
        _ => error,
    }
}

/// Fails instead of reading more bytes than an info file may have.
struct SizeLimit<R> {
    inner: R,
    left: u64,
}

/// Limits the text of an info file to the maximum size.
pub(crate) fn limited(text: impl Read) -> impl BufRead {
    BufReader::with_capacity(BUFFER_BYTES, SizeLimit { inner: text, left: SIZE_MAX })
}

impl<R: Read> Read for SizeLimit<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.left = self
            .left
            .checked_sub(read as u64)
            .ok_or_else(|| Error::new(ErrorCode::Format, format!("info file has more than {SIZE_MAX} bytes")))?;
        Ok(read)
    }
}
