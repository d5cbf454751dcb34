//! Manifests in a repository.
//!
//! A backup is complete if `backup.manifest` exists. `backup.manifest.copy` is written before the first file is copied,
//! and again at the end, just before the manifest itself.

use std::borrow::Borrow;
use std::io::{self, BufReader, Write};

use repo_format::BACKREST_VERSION;
use repo_format::cipher::{Cipher, Decryptor, Framing};
use repo_format::claim::RUNNING_SUFFIX;
use repo_format::compress::{CompressType, Compression};
use repo_format::format;
use repo_format::info;
use repo_format::label::BackupLabel;
use repo_format::layout::{self, RepoPath, Stanza};
use repo_format::manifest::{Manifest, ManifestFile};

use super::encode::EncodeWriter;
use super::{Repo, info_files};
use crate::storage::{self, ReadRange, RepoWriter, WriteOptions};
use crate::work::retry::made_of;
use crate::{Error, Result, ending};

/// Bytes read from the storage at once.
const BUFFER_SIZE: usize = 256 * 1024;
/// The compression level of manifests in the history, the only compressed ones. pgBackRest uses 9, but with this
/// library a manifest of 20,000 files is a tenth larger at 9 and takes twice as long. At 7 it is smaller than
/// pgBackRest's.
const HISTORY_LEVEL: i32 = 7;

/// Loads a backup's manifest, or its copy if the manifest can't be used. `cipher` is that of backup.info's passphrase
/// ([`super::info_files::manifest_cipher`]).
///
/// # Errors
/// Neither can be used. Code and message cover both.
pub fn load(repo: &Repo, stanza: &Stanza, label: &BackupLabel, cipher: &Cipher) -> Result<Manifest> {
    load_from(repo, &layout::manifest(stanza, label), cipher)
}

/// Like [`load`], for the manifest with this path.
///
/// # Errors
/// The same as [`load`].
pub(crate) fn load_from(repo: &Repo, path: &RepoPath, cipher: &Cipher) -> Result<Manifest> {
    load_file(repo, path, cipher).or_else(|first| match format::is_unsupported(&first) {
        true => {
            Err(first.context(format_args!("unable to load backup manifest file '{}'", repo.storage.display(path))))
        }
        false => load_file(repo, &layout::copy(path), cipher).map_err(|second| {
            let name = repo.storage.display(path);
            let message = format!("unable to load backup manifest file '{name}' or '{name}.copy'");
            made_of(info::pair_error(&message, &first, &second), &[&first, &second])
        }),
    })
}

/// Loads only the copy, which is all that an interrupted backup has.
///
/// # Errors
/// [`crate::ErrorCode::FileMissing`] if there is none, and errors of a damaged copy.
pub(crate) fn load_copy(repo: &Repo, stanza: &Stanza, label: &BackupLabel, cipher: &Cipher) -> Result<Manifest> {
    load_file(repo, &layout::manifest_copy(stanza, label), cipher)
}

fn load_file(repo: &Repo, path: &RepoPath, cipher: &Cipher) -> Result<Manifest> {
    let stored =
        repo.storage.read(path, ReadRange::default())?.ok_or_else(|| storage::missing(&*repo.storage, path))?;
    let plain = Decryptor::new(cipher, Framing::Full, BufReader::with_capacity(BUFFER_SIZE, stored));
    let mut reader = BufReader::with_capacity(BUFFER_SIZE, plain);
    info_files::parse_stored(repo, cipher, &mut reader, |reader, origin| Manifest::read(reader, origin))
}

/// Returns whether the backup is complete.
///
/// # Errors
/// The storage can't be read.
pub(crate) fn is_complete(repo: &Repo, stanza: &Stanza, label: &BackupLabel) -> Result<bool> {
    storage::exists(&*repo.storage, &layout::manifest(stanza, label))
}

/// The manifest of a backup in progress.
pub struct ManifestCopy<'a, F> {
    /// Everything except the files.
    pub manifest: &'a Manifest,
    /// The files, taken one by one while the copy is written.
    pub files: F,
    /// How far the backup is.
    pub progress: CopyProgress,
}

/// Writes the copy, which marks a backup as in progress.
///
/// # Errors
/// It can't be written.
pub(crate) fn save_copy<F: IntoIterator<Item: Borrow<ManifestFile>>>(
    repo: &Repo,
    stanza: &Stanza,
    cipher: &Cipher,
    copy: ManifestCopy<'_, F>,
) -> Result<()> {
    let _saving = ending::saving();
    let ManifestCopy { manifest, files, progress } = copy;
    let path = layout::manifest_copy(stanza, &manifest.data.label);
    let version = match progress {
        CopyProgress::Runs => format!("{BACKREST_VERSION}{RUNNING_SUFFIX}"),
        CopyProgress::Ended => BACKREST_VERSION.to_owned(),
    };
    let mut out = EncodeWriter::new(repo.storage.write(&path, WriteOptions::ATOMIC)?, Compression::NONE, cipher)?;
    let done = manifest.write_with_files(&mut out, &version, files).and_then(|()| out.finish());
    done.map_err(|error| write_error(repo, &path, error))?.finish()
}

/// Whether files are still being copied when the copy of the manifest is saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CopyProgress {
    /// They are: pgBackRest must not go on with this backup.
    Runs,
    /// They are not, and never will be by this process.
    Ended,
}

/// Completes the backup: writes the final copy, and the manifest with the same bytes, which appears after it.
///
/// # Errors
/// One of them can't be written. Unless it was the manifest, the backup is not complete.
pub fn save(repo: &Repo, stanza: &Stanza, manifest: &Manifest, cipher: &Cipher) -> Result<()> {
    let path = layout::manifest(stanza, &manifest.data.label);
    let copy = repo.storage.write(&layout::copy(&path), WriteOptions::ATOMIC)?;
    let both = Both { copy, manifest: repo.storage.write(&path, WriteOptions::ATOMIC)? };
    let Both { copy, manifest } =
        encode(both, manifest, Compression::NONE, cipher).map_err(|error| write_error(repo, &path, error))?;
    copy.finish()?;
    manifest.finish()
}

/// Two files with the same bytes.
struct Both {
    copy: Box<dyn RepoWriter>,
    manifest: Box<dyn RepoWriter>,
}

impl Write for Both {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.copy.write_all(data)?;
        self.manifest.write_all(data)?;
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes the manifest into the history, which outlives the backup, and makes the history's directory durable.
///
/// # Errors
/// It can't be written.
pub(crate) fn save_history(repo: &Repo, stanza: &Stanza, manifest: &Manifest, cipher: &Cipher) -> Result<()> {
    let path = layout::history_manifest(stanza, &manifest.data.label);
    write(repo, &path, manifest, Compression::new(CompressType::Gz, Some(HISTORY_LEVEL))?, cipher)?;
    repo.storage.sync_path(&layout::history(stanza))
}

fn write(repo: &Repo, path: &RepoPath, manifest: &Manifest, compression: Compression, cipher: &Cipher) -> Result<()> {
    let file = repo.storage.write(path, WriteOptions::ATOMIC)?;
    encode(file, manifest, compression, cipher).map_err(|error| write_error(repo, path, error))?.finish()
}

fn write_error(repo: &Repo, path: &RepoPath, error: Error) -> Error {
    error.context(format!("unable to write '{}'", repo.storage.display(path)))
}

/// Writes a manifest, and gives the file back to be finished.
fn encode<W: Write>(file: W, manifest: &Manifest, compression: Compression, cipher: &Cipher) -> Result<W> {
    let mut out = EncodeWriter::new(file, compression, cipher)?;
    manifest.write(&mut out)?;
    out.finish()
}

/// Returns the smallest manifest that can be read again, for tests: its data directory is `/pg` and of an unknown owner.
#[cfg(test)]
pub(crate) fn smallest(data: repo_format::manifest::ManifestData) -> Manifest {
    use repo_format::manifest::{ManifestPath, OwnerId, PG_DATA, Target, TargetType};

    let mut manifest = Manifest::new(data);
    manifest.targets.push(Target {
        name: PG_DATA.to_owned(),
        target_type: TargetType::Path,
        path: "/pg".to_owned(),
        file: None,
        tablespace: None,
    });
    let (user, group) = (OwnerId::UNKNOWN, OwnerId::UNKNOWN);
    manifest.paths.push(ManifestPath { name: PG_DATA.to_owned(), mode: 0o700, user, group });
    manifest
}
