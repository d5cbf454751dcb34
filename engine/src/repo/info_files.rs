//! Loads and saves archive.info and backup.info (pgBackRest `src/info/{info,infoArchive,infoBackup}.c`).
//!
//! Each file has a copy with the same bytes, encrypted with the repository's main passphrase. A load uses the copy if
//! the file itself can't be used. While a file is saved, at least one of the two is complete.

use std::io::{self, BufRead, BufReader, Read};

use repo_format::archive_info::ArchiveInfo;
use repo_format::backup_info::BackupInfo;
use repo_format::cipher::{self, Cipher, Decryptor, Framing, Keyring, Passphrase, StreamHeader};
use repo_format::format::{self, RepoFormat};
use repo_format::info::{self, Origin};
use repo_format::layout::{self, RepoPath, Stanza};

use super::Repo;
use crate::storage::{self, ReadRange, WriteOptions};
use crate::work::retry::is_about_content;
use crate::{Error, ErrorCode, Result};

/// The maximum size of an info file. A backup needs some hundred bytes, or some thousand with long lists of references
/// and annotations.
const SIZE_MAX: u64 = 64 << 20;
/// Bytes at the start of a file that contain its format.
const HEAD_BYTES: u64 = 1024;
/// Bytes read from the storage at once.
const BUFFER_BYTES: usize = 32 * 1024;

/// Returns how files below the archive directory are encrypted.
pub fn archive_cipher(info: &ArchiveInfo) -> Cipher {
    info.cipher()
}

/// Returns how manifests are encrypted.
pub(crate) fn manifest_cipher(info: &BackupInfo) -> Cipher {
    Cipher::from_passphrase(info.cipher_pass.as_ref())
}

/// Generates a passphrase of this format for the files that depend on an info file or manifest, if the repository is
/// encrypted.
///
/// # Errors
/// The system provides no random bytes.
pub(crate) fn generate_passphrase(repo: &Repo, format: RepoFormat) -> Result<Option<Passphrase>> {
    if repo.cipher.is_none() { Ok(None) } else { Passphrase::generate(format).map(Some) }
}

/// Loads archive.info.
///
/// # Errors
/// Neither the file nor its copy can be used. Code and message cover both.
pub fn load_archive_info(repo: &Repo, stanza: &Stanza) -> Result<ArchiveInfo> {
    let read = |reader: &mut dyn BufRead, origin| ArchiveInfo::read(reader, origin);
    load_pair(repo, &layout::archive_info(stanza), read, |info| info.format).map_err(|error| {
        error
            .hint("archive.info cannot be opened but is required to push/get WAL segments.")
            .hint("is archive_command configured correctly in postgresql.conf?")
            .hint("has a stanza-create been performed?")
            .hint("use --no-archive-check to disable archive checks during backup if you have an alternate archiving scheme.")
    })
}

/// Loads backup.info as it is.
///
/// # Errors
/// Neither the file nor its copy can be used. Code and message cover both.
pub(crate) fn load_backup_info(repo: &Repo, stanza: &Stanza) -> Result<BackupInfo> {
    let read = |reader: &mut dyn BufRead, origin| BackupInfo::read(reader, origin);
    load_pair(repo, &layout::backup_info(stanza), read, |info| info.format).map_err(|error| {
        error
            .hint("backup.info cannot be opened and is required to perform a backup.")
            .hint("has a stanza-create been performed?")
    })
}

/// Loads the copy of archive.info; `None` if it is missing or damaged.
///
/// # Errors
/// It can't be read now, or has a format that can't be read.
pub(crate) fn load_archive_info_copy(repo: &Repo, stanza: &Stanza) -> Result<Option<ArchiveInfo>> {
    let path = layout::copy(&layout::archive_info(stanza));
    unless_damaged(load_file(repo, &path, |reader, origin| ArchiveInfo::read(reader, origin)))
}

/// Loads the copy of backup.info; `None` if it is missing or damaged.
///
/// # Errors
/// It can't be read now, or has a format that can't be read.
pub(crate) fn load_backup_info_copy(repo: &Repo, stanza: &Stanza) -> Result<Option<BackupInfo>> {
    let path = layout::copy(&layout::backup_info(stanza));
    unless_damaged(load_file(repo, &path, |reader, origin| BackupInfo::read(reader, origin)))
}

fn unless_damaged<T>(loaded: Result<T>) -> Result<Option<T>> {
    match loaded {
        Ok(info) => Ok(Some(info)),
        Err(error) if is_about_content(&error) && !format::is_unsupported(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Saves archive.info and its copy. At format 6, keys that one of the stored files has are never lost.
///
/// # Errors
/// One of them can't be written; [`ErrorCode::FileInvalid`] if a stored file has another key with the same id.
pub fn save_archive_info(repo: &Repo, stanza: &Stanza, info: &ArchiveInfo) -> Result<()> {
    let mut info = info.clone();
    if info.format > RepoFormat::V5 {
        info.keys = info.keys.map(|keys| with_stored_keys(repo, stanza, keys)).transpose()?;
    }
    save_pair(repo, &layout::archive_info(stanza), info.format, &info.serialize()?)
}

/// Adds the keys of the stored archive.info and of its copy. An interrupted rotation leaves the two with different keys,
/// and files may have been archived with any of them.
fn with_stored_keys(repo: &Repo, stanza: &Stanza, mut keys: Keyring) -> Result<Keyring> {
    let path = layout::archive_info(stanza);
    for path in [layout::copy(&path), path] {
        let stored = unless_damaged(load_file(repo, &path, |reader, origin| ArchiveInfo::read(reader, origin)))?;
        let Some(stored) = stored.and_then(|stored| stored.keys) else { continue };
        keys.keep(&stored).map_err(|error| {
            error.context(format_args!("unable to save '{}'", repo.storage.display(&layout::archive_info(stanza))))
        })?;
    }
    Ok(keys)
}

/// Saves backup.info and its copy.
///
/// # Errors
/// One of them can't be written.
pub(crate) fn save_backup_info(repo: &Repo, stanza: &Stanza, info: &BackupInfo) -> Result<()> {
    save_pair(repo, &layout::backup_info(stanza), info.format, &info.serialize()?)
}

fn load_pair<T>(
    repo: &Repo,
    path: &RepoPath,
    parse: impl Fn(&mut dyn BufRead, Origin) -> Result<T>,
    format_of: impl Fn(&T) -> RepoFormat,
) -> Result<T> {
    let load = |path: &RepoPath| load_file(repo, path, &parse);
    load(path).or_else(|first| match format::is_unsupported(&first) {
        // The copy may have the format from before an upgrade, and would replace the file when it is saved
        true => Err(first.context(format_args!("unable to load info file '{}'", repo.storage.display(path)))),
        false => {
            let copy = load(&layout::copy(path)).map_err(|second| {
                let name = repo.storage.display(path);
                info::pair_error(&format!("unable to load info file '{name}' or '{name}.copy'"), &first, &second)
            })?;
            // The same if the file is damaged besides
            match stored_format(repo, path) {
                Ok(Some(number)) if number > u64::from(format_of(&copy).number()) => {
                    let name = repo.storage.display(path);
                    Err(first
                        .context(format_args!("unable to load info file '{name}', whose copy has an older format")))
                }
                _ => Ok(copy),
            }
        }
    })
}

/// Returns the format of a file; `None` if it is missing or too damaged.
///
/// # Errors
/// It can't be read.
pub(super) fn stored_format(repo: &Repo, path: &RepoPath) -> Result<Option<u64>> {
    let range = ReadRange { offset: 0, limit: Some(HEAD_BYTES) };
    let Some(stored) = repo.storage.read(path, range)? else { return Ok(None) };
    let mut plain = BufReader::new(Decryptor::new(&repo.info_cipher(), Framing::Full, stored));
    let found = info::find_format(&mut plain);
    // The header tells it even if what follows is damaged
    let header = plain.get_ref().header().filter(|header| **header != StreamHeader::Magic);
    Ok(header.map(|header| header.format().number().into()).or(found))
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

fn save_pair(repo: &Repo, path: &RepoPath, format: RepoFormat, text: &[u8]) -> Result<()> {
    // The same bytes, salt included, for both
    let stored = cipher::encrypt(&repo.cipher.of_info_file(format), text)?;
    let put = |path: &RepoPath| storage::put(&*repo.storage, path, &stored, WriteOptions::ATOMIC);
    // Object stores replace a file atomically, so the file and its copy can be written at the same time. Other stores
    // may need several steps, so the copy stays unchanged until the file is written
    let both = [path.clone(), layout::copy(path)];
    if repo.storage.features().paths { both.iter().try_for_each(put) } else { repo.each(&both, put).map(drop) }
}

/// Creates the missing one of file and copy from the other, byte for byte. Returns whether it did.
pub(crate) fn copy_if_missing(repo: &Repo, path: &RepoPath) -> Result<bool> {
    let copy = layout::copy(path);
    let (from, to) = match (exists(repo, path)?, exists(repo, &copy)?) {
        (true, false) => (path, &copy),
        (false, true) => (&copy, path),
        _ => return Ok(false),
    };
    let bytes = storage::get(&*repo.storage, from, SIZE_MAX)?.ok_or_else(|| storage::missing(&*repo.storage, from))?;
    storage::put(&*repo.storage, to, &bytes, WriteOptions::ATOMIC)?;
    Ok(true)
}

pub(crate) fn exists(repo: &Repo, path: &RepoPath) -> Result<bool> {
    storage::exists(&*repo.storage, path)
}

/// Returns whether the file or its copy exists.
pub(crate) fn exists_any(repo: &Repo, path: &RepoPath) -> Result<bool> {
    Ok(exists(repo, path)? || exists(repo, &layout::copy(path))?)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use repo_format::pg::version::PgVersion;

    use super::*;
    use crate::ErrorCode;
    use crate::storage::faulty::{FaultyStorage, Op};
    use crate::storage::memory::MemoryStorage;

    fn stanza() -> Stanza {
        "main".parse().unwrap()
    }

    fn repo(pass: Option<&str>, storage: &MemoryStorage) -> Repo {
        let pass = pass.map(Passphrase::new);
        Repo { key: 1, storage: Arc::new(storage.clone()), cipher: Cipher::from_passphrase(pass.as_ref()) }
    }

    fn saved(pass: Option<&str>) -> (MemoryStorage, ArchiveInfo) {
        let storage = MemoryStorage::new();
        let info = ArchiveInfo::new(PgVersion::V15, 7, pass.map(|_| Keyring::single(Passphrase::new("sub"))));
        save_archive_info(&repo(pass, &storage), &stanza(), &info).unwrap();
        (storage, info)
    }

    #[test]
    fn archive_info_is_saved_without_losing_a_key_of_a_stored_file() {
        let storage = MemoryStorage::new();
        let repo = repo(Some("secret"), &storage);
        let stanza: Stanza = "main".parse().unwrap();
        let sha256 = || Passphrase::generate(RepoFormat::V6).unwrap();
        let keys = Keyring::rotatable(sha256(), 10);
        let older = ArchiveInfo::with_format(RepoFormat::V6, PgVersion::V15, 7, Some(keys));
        let mut newer = older.clone();
        newer.keys.as_mut().unwrap().rotate(sha256(), 20).unwrap();
        let path = layout::archive_info(&stanza);
        for rotated in [path.clone(), layout::copy(&path)] {
            save_archive_info(&repo, &stanza, &older).unwrap();
            let text = newer.serialize().unwrap();
            let stored = cipher::encrypt(&repo.cipher.of_info_file(RepoFormat::V6), &text).unwrap();
            storage::put(&storage, &rotated, &stored, WriteOptions::ATOMIC).unwrap();
            // Loaded before the rotation
            save_archive_info(&repo, &stanza, &older).unwrap();
            assert_eq!(load_archive_info(&repo, &stanza).unwrap().keys, newer.keys);
            assert_eq!(load_archive_info_copy(&repo, &stanza).unwrap().unwrap().keys, newer.keys);
            repo.storage.remove_all(&RepoPath::new("archive").unwrap()).unwrap();
        }
    }

    #[test]
    fn load_gives_what_was_saved() {
        for pass in [None, Some("secret")] {
            let (storage, info) = saved(pass);
            assert_eq!(load_archive_info(&repo(pass, &storage), &stanza()).unwrap(), info);
        }
    }

    #[test]
    fn load_with_missing_or_damaged_file_takes_the_copy() {
        let (storage, info) = saved(None);
        let path = layout::archive_info(&stanza());
        storage::put(&storage, &path, b"[broken", WriteOptions::ATOMIC).unwrap();
        assert_eq!(load_archive_info(&repo(None, &storage), &stanza()).unwrap(), info);
        storage::RepoStorage::remove(&storage, &path).unwrap();
        assert_eq!(load_archive_info(&repo(None, &storage), &stanza()).unwrap(), info);
    }

    #[test]
    fn load_without_any_file_lists_both_causes_and_hints() {
        let error = load_archive_info(&repo(None, &MemoryStorage::new()), &stanza()).unwrap_err();
        assert_eq!(error.code, ErrorCode::FileMissing);
        assert_eq!(
            error.to_string(),
            "unable to load info file '/archive/main/archive.info' or '/archive/main/archive.info.copy':\n\
             FileMissingError: unable to open missing file '/archive/main/archive.info' for read\n\
             FileMissingError: unable to open missing file '/archive/main/archive.info.copy' for read\n\
             HINT: archive.info cannot be opened but is required to push/get WAL segments.\n\
             HINT: is archive_command configured correctly in postgresql.conf?\n\
             HINT: has a stanza-create been performed?\n\
             HINT: use --no-archive-check to disable archive checks during backup if you have an alternate archiving scheme."
        );
    }

    /// Stores this text, encrypted, as archive.info and as its copy, and loads that.
    fn load_of_text(text: &[u8]) -> Error {
        let storage = MemoryStorage::new();
        let cipher = Cipher::Aes256Cbc(Passphrase::new("secret"));
        let bytes = cipher::encrypt_framed(&cipher, Framing::Full, text).unwrap();
        for path in [layout::archive_info(&stanza()), layout::copy(&layout::archive_info(&stanza()))] {
            storage::put(&storage, &path, &bytes, WriteOptions::ATOMIC).unwrap();
        }
        load_archive_info(&repo(Some("secret"), &storage), &stanza()).unwrap_err()
    }

    #[test]
    fn load_with_wrong_passphrase_asks_for_it_whatever_the_bytes_become() {
        let (storage, _) = saved(Some("secret"));
        let wrong = load_archive_info(&repo(Some("other"), &storage), &stanza()).unwrap_err();
        // The end of meaningless bytes can look like a padding
        for error in [wrong, load_of_text(b"\xf0\x9f\n[x]\n\xff=\xff"), load_of_text(b"x=1\n")] {
            assert_eq!(error.code, ErrorCode::Crypto, "{error}");
            let hint = "is the passphrase (repo1-cipher-pass) the one the repository was created with?";
            assert_eq!(cipher_option_hint(&error), Some(hint), "{error}");
        }
    }

    #[test]
    fn load_of_damaged_text_does_not_ask_for_the_passphrase() {
        let error = load_of_text(b"[backrest]\nbackrest-format=5\nx");
        assert_eq!((error.code, cipher_option_hint(&error)), (ErrorCode::Format, None), "{error}");
    }

    #[test]
    fn load_of_encrypted_file_without_cipher_asks_for_the_type_and_shows_no_byte_of_it() {
        let (storage, _) = saved(Some("secret"));
        let error = load_archive_info(&repo(None, &storage), &stanza()).unwrap_err();
        assert_eq!(error.code, ErrorCode::Format);
        assert_eq!(cipher_option_hint(&error), Some("is repo1-cipher-type right?"));
        assert!(error.message.contains("FormatError: file is encrypted\n"), "{error}");
        assert!(!error.message.contains("Salted__"), "{error}");
    }

    #[test]
    fn save_cut_short_leaves_a_loadable_stanza() {
        let (memory, old) = saved(None);
        let mut new = old.clone();
        new.upgrade(PgVersion::V16, 8).unwrap();
        for (op, n) in [(Op::Write, 1), (Op::Finish, 1), (Op::Write, 2), (Op::Finish, 2)] {
            let faulty = FaultyStorage::new(Arc::new(memory.clone())).fail(op, n);
            let failing = Repo { key: 1, storage: Arc::new(faulty), cipher: Cipher::None };
            assert!(save_archive_info(&failing, &stanza(), &new).is_err());
            let loaded = load_archive_info(&repo(None, &memory), &stanza()).unwrap();
            assert!(loaded == old || loaded == new);
        }
    }

    #[test]
    fn generated_passphrase_only_with_encryption() {
        let storage = MemoryStorage::new();
        assert_eq!(generate_passphrase(&repo(None, &storage), RepoFormat::V5).unwrap(), None);
        assert_eq!(
            generate_passphrase(&repo(Some("x"), &storage), RepoFormat::V5).unwrap().unwrap().expose().len(),
            64
        );
    }
}
