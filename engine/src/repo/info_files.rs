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

use super::unreadable::LoadedBackups;
use super::{Repo, unreadable};
use crate::storage::{self, ReadRange, WriteOptions};
use crate::work::retry::{is_about_content, is_missing, made_of};
use crate::{Error, ErrorCode, Result};

/// The maximum size of an info file. A backup needs some hundred bytes, or some thousand with long lists of references
/// and annotations.
pub(crate) const SIZE_MAX: u64 = 64 << 20;
/// What helps against a damaged archive.info that is not replaced.
pub(crate) const DAMAGED_HINT: &str = "replace it with an intact one from elsewhere, or run verify with --repair, which keeps the damaged file beside it.";
/// Bytes at the start of a file that contain its format.
const HEAD_BYTES: u64 = 1024;
/// Bytes read from the storage at once.
const BUFFER_BYTES: usize = 32 * 1024;

/// Returns how files below the archive directory are encrypted. If a file names a key that `info` lacks, archive.info is
/// loaded anew: another process may have added the key since.
pub fn archive_cipher(repo: &Repo, stanza: &Stanza, info: &ArchiveInfo) -> Cipher {
    let (repo, stanza) = (repo.clone(), stanza.clone());
    info.cipher().with_newer_keys(move || Ok(load_archive_info(&repo, &stanza)?.keys))
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

/// What an info file is loaded for. It decides whether a copy of an older format can stand in for a damaged file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// Only to read. What the copy knows can still be read, as in pgBackRest.
    Read,
    /// To save it. A copy from before an upgrade lacks keys, which may still be in the damaged file.
    Save,
    /// The same for backup.info. It has one key, which stays for good, so its copy also serves if the file can't be read.
    SaveBackups,
}

/// Loads archive.info.
///
/// # Errors
/// Neither the file nor its copy can be used. Code and message cover both.
pub fn load_archive_info(repo: &Repo, stanza: &Stanza) -> Result<ArchiveInfo> {
    load_archive(repo, stanza, Purpose::Read)
}

/// Loads archive.info for a command that may save it.
///
/// # Errors
/// The same as [`load_archive_info`], the file can't be read at the moment, or it is damaged and has a newer format than
/// its copy.
pub(crate) fn load_archive_info_to_save(repo: &Repo, stanza: &Stanza) -> Result<ArchiveInfo> {
    load_archive(repo, stanza, Purpose::Save)
}

/// Loads archive.info for a command that saves it only to make it more recent; `None` if the file is damaged and may have
/// cipher keys that its copy lacks. Then it has to stay as it is.
///
/// # Errors
/// The same as [`load_archive_info`], and the file can't be read at the moment, which tells nothing about its content.
pub(crate) fn load_archive_info_to_refresh(repo: &Repo, stanza: &Stanza) -> Result<Option<ArchiveInfo>> {
    let path = layout::archive_info(stanza);
    let is_damaged = match load_file(repo, &path, |reader, origin| ArchiveInfo::read(reader, origin)) {
        Ok(info) => return Ok(Some(info)),
        Err(error) if !is_about_content(&error) => return Err(unread(repo, &path, error)),
        Err(error) => error.code != ErrorCode::FileMissing,
    };
    let info = load_archive_info(repo, stanza)?;
    Ok((!is_damaged || !has_rotating_keys(&info)).then_some(info))
}

/// The error for a file that can't be read at the moment.
fn unread(repo: &Repo, path: &RepoPath, error: Error) -> Error {
    error.context(format_args!("unable to load info file '{}'", repo.storage.display(path)))
}

/// Returns whether archive.info has cipher keys to which others are added.
pub(crate) fn has_rotating_keys(info: &ArchiveInfo) -> bool {
    info.format > RepoFormat::V5 && info.keys.is_some()
}

fn load_archive(repo: &Repo, stanza: &Stanza, purpose: Purpose) -> Result<ArchiveInfo> {
    let read = |reader: &mut dyn BufRead, origin| ArchiveInfo::read(reader, origin);
    repo.storage.opened()?;
    let loaded = load_pair(repo, &layout::archive_info(stanza), purpose, read, |info| info.format);
    loaded.map(|(info, _)| info).map_err(|error| {
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
    load_backup(repo, stanza, Purpose::Read).map(|loaded| loaded.info)
}

/// Loads backup.info for a command that may save it. If this system can't read it for good, its copy serves.
///
/// # Errors
/// The same as [`load_backup_info`], the file can't be read at the moment, or it is damaged and has a newer format than
/// its copy.
pub(crate) fn load_backup_info_to_save(repo: &Repo, stanza: &Stanza) -> Result<LoadedBackups> {
    load_backup(repo, stanza, Purpose::SaveBackups)
}

fn load_backup(repo: &Repo, stanza: &Stanza, purpose: Purpose) -> Result<LoadedBackups> {
    let read = |reader: &mut dyn BufRead, origin| BackupInfo::read(reader, origin);
    repo.storage.opened()?;
    let loaded = load_pair(repo, &layout::backup_info(stanza), purpose, read, |info| info.format);
    loaded.map(|(info, unreadable)| LoadedBackups { info, unreadable }).map_err(|error| {
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

/// Checks that an info file of an encrypted repository has a key. Otherwise new files would be written in plain
/// text into an encrypted repository.
///
/// # Errors
/// [`ErrorCode::Format`].
pub fn check_keys(repo: &Repo, path: &RepoPath, has_keys: bool) -> Result<()> {
    if has_keys || repo.cipher.is_none() {
        return Ok(());
    }
    let text = format!("'{}' has no cipher key, but the repository is encrypted", repo.storage.display(path));
    Err(Error::new(ErrorCode::Format, text))
}

/// Saves archive.info and its copy. Keys that one of the stored files has are never lost.
///
/// # Errors
/// One of the stored files can't be read, or one of them can't be written; [`ErrorCode::FileInvalid`] if a stored file
/// has another key with the same id, or a newer format, or if archive.info is damaged and may have keys that its copy
/// lacks.
pub fn save_archive_info(repo: &Repo, stanza: &Stanza, info: &ArchiveInfo) -> Result<()> {
    prepare_archive_info(repo, stanza, info)?.save(repo)
}

/// Prepares to save archive.info: reads the stored files. So an error of reading differs from one of writing.
///
/// # Errors
/// The same as [`save_archive_info`], except those of writing.
pub(crate) fn prepare_archive_info(repo: &Repo, stanza: &Stanza, info: &ArchiveInfo) -> Result<PreparedInfo> {
    let path = layout::archive_info(stanza);
    let (mut info, mut order) = (info.clone(), PutOrder::Any);
    match info.keys.take() {
        None => {}
        Some(keys) if info.format == RepoFormat::V5 => {
            refuse_upgraded(repo, &path, info.format)?;
            info.keys = Some(keys);
        }
        Some(keys) => {
            let merged = with_stored_keys(repo, stanza, keys)?;
            // Whoever reads the file must know a key before anybody takes it from the copy
            order = if merged.are_stored { PutOrder::Any } else { PutOrder::FileFirst };
            info.keys = Some(merged.keys);
        }
    }
    let text = Text { format: info.format, bytes: info.serialize()? };
    Ok(PreparedInfo { path, order, text })
}

/// An info file that only has to be written.
pub(crate) struct PreparedInfo {
    path: RepoPath,
    order: PutOrder,
    text: Text,
}

impl PreparedInfo {
    /// Saves the file and its copy.
    ///
    /// # Errors
    /// One of them can't be written.
    pub(crate) fn save(&self, repo: &Repo) -> Result<()> {
        save_pair(repo, &self.path, self.order, &self.text)
    }
}

/// Fails if another process has upgraded the stored file to a newer format since it was loaded. Its new keys would be lost.
fn refuse_upgraded(repo: &Repo, path: &RepoPath, format: RepoFormat) -> Result<()> {
    let stored = stored_format(repo, path)?;
    match stored.filter(|number| *number > u64::from(format.number())) {
        None => Ok(()),
        Some(number) => {
            let name = repo.storage.display(path);
            let text = format!("unable to save '{name}': it was upgraded to repository format {number} meanwhile");
            Err(Error::new(ErrorCode::FileInvalid, text).hint("run the command again."))
        }
    }
}

/// The keys to save in archive.info.
struct MergedKeys {
    keys: Keyring,
    /// Whether the stored file and its copy both have exactly these.
    are_stored: bool,
}

/// Adds the keys of the stored archive.info and of its copy. An interrupted rotation leaves the two with different keys,
/// and files may have been archived with any of them.
fn with_stored_keys(repo: &Repo, stanza: &Stanza, mut keys: Keyring) -> Result<MergedKeys> {
    let path = layout::archive_info(stanza);
    let load = || match load_file(repo, &path, |reader, origin| ArchiveInfo::read(reader, origin)) {
        Ok(info) => Ok(info.keys),
        Err(error) if is_missing(&error) => Ok(None),
        // It is written before its copy, and so may have the newest key alone
        Err(error) => Err(kept_damaged(repo, &path, error)),
    };
    let (file, copy) = repo.both(load, || load_archive_info_copy(repo, stanza));
    let stored = [file?, copy?.and_then(|copy| copy.keys)];
    for other in stored.iter().flatten() {
        keys.keep(other)
            .map_err(|error| error.context(format_args!("unable to save '{}'", repo.storage.display(&path))))?;
    }
    let are_stored = stored.iter().all(|stored| stored.as_ref() == Some(&keys));
    Ok(MergedKeys { keys, are_stored })
}

/// The error for a damaged archive.info that is not replaced. Other errors stay as they are.
fn kept_damaged(repo: &Repo, path: &RepoPath, error: Error) -> Error {
    if !is_about_content(&error) || format::is_unsupported(&error) {
        return error;
    }
    let name = repo.storage.display(path);
    let text = format!("unable to save '{name}': it is damaged, and may have cipher keys that its copy lacks");
    Error::new(ErrorCode::FileInvalid, text).cause(error).hint(DAMAGED_HINT)
}

/// Saves backup.info and its copy.
///
/// # Errors
/// One of them can't be written.
pub(crate) fn save_backup_info(repo: &Repo, stanza: &Stanza, info: &BackupInfo) -> Result<()> {
    let text = Text { format: info.format, bytes: info.serialize()? };
    save_pair(repo, &layout::backup_info(stanza), PutOrder::Any, &text)
}

/// Loads a file, or its copy. With the copy comes why the file can't be read, if that is the reason and will stay.
fn load_pair<T>(
    repo: &Repo,
    path: &RepoPath,
    purpose: Purpose,
    parse: impl Fn(&mut dyn BufRead, Origin) -> Result<T>,
    format_of: impl Fn(&T) -> RepoFormat,
) -> Result<(T, Option<Error>)> {
    let load = |path: &RepoPath| load_file(repo, path, &parse);
    let name = || repo.storage.display(path);
    let lasts = |error: &Error| purpose == Purpose::SaveBackups && unreadable::lasts(repo, error);
    let file = if purpose == Purpose::SaveBackups { unreadable::read_twice(repo, || load(path)) } else { load(path) };
    let first = match file {
        Ok(info) => return Ok((info, None)),
        // The copy may have the format from before an upgrade, and would replace the file when it is saved
        Err(error) if format::is_unsupported(&error) => return Err(unread(repo, path, error)),
        // Nor does it replace a file that may be intact
        Err(error) if purpose != Purpose::Read && !is_about_content(&error) && !lasts(&error) => {
            return Err(unread(repo, path, error));
        }
        Err(error) => error,
    };
    let copy = load(&layout::copy(path)).map_err(|second| {
        let name = name();
        let text = format!("unable to load info file '{name}' or '{name}.copy'");
        made_of(info::pair_error(&text, &first, &second), &[&first, &second])
    })?;
    // Its format can't be known. An upgrade writes archive.info first, so that tells whether the copy is too old
    if lasts(&first) {
        return Ok((copy, Some(first)));
    }
    // The same if the file is damaged besides. Its header still tells the format
    let is_older = |number| number > u64::from(format_of(&copy).number());
    if purpose != Purpose::Read && stored_format(repo, path)?.is_some_and(is_older) {
        let text = format!("unable to load info file '{}', whose copy has an older format", name());
        return Err(first.context(text).hint(
            "the copy lacks cipher keys of files that were archived since the upgrade. Replace the file with an intact one \
             from elsewhere.",
        ));
    }
    Ok((copy, None))
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

/// The order in which a file and its copy are written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum PutOrder {
    /// At the same time, if the store replaces files atomically.
    Any,
    /// The copy after the file.
    FileFirst,
}

/// The text of an info file.
struct Text {
    format: RepoFormat,
    bytes: Vec<u8>,
}

fn save_pair(repo: &Repo, path: &RepoPath, order: PutOrder, text: &Text) -> Result<()> {
    // The same bytes, salt included, for both
    let stored = cipher::encrypt(&repo.cipher.of_info_file(text.format), &text.bytes)?;
    let put = |path: &RepoPath| storage::put(&*repo.storage, path, &stored, WriteOptions::ATOMIC);
    // Object stores replace a file atomically, so the file and its copy can be written at the same time. Other stores
    // may need several steps, so the copy stays unchanged until the file is written
    let both = [path.clone(), layout::copy(path)];
    let is_serial = order == PutOrder::FileFirst || repo.storage.features().paths;
    if is_serial { both.iter().try_for_each(put) } else { repo.each(&both, put).map(drop) }
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
mod tests;
