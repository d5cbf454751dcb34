//! Repairs an info file or manifest from its copy, or the copy from the file.

use std::io;

use jiff::Timestamp;
use repo_format::archive_info::ArchiveInfo;
use repo_format::backup_info::BackupInfo;
use repo_format::cipher::Cipher;
use repo_format::layout::{self, RepoPath, Stanza};
use repo_format::manifest::Manifest;

use super::info_file::{FilePair, LoadedPair, Repair, Retry};
use crate::claim::Claim;
use crate::lock::LockType;
use crate::repo::info_files::{self, limited};
use crate::session::Session;
use crate::storage::{self, ReadRange, WriteOptions};
use crate::work::retry::RetryPolicy;
use crate::{CancelToken, Error, ErrorCode, Repo, Result, info, warn};

/// The type of file, which determines how it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PairKind {
    ArchiveInfo,
    BackupInfo,
    Manifest,
}

/// A file that is kept twice and is whole only once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HalfWhole {
    pub kind: PairKind,
    /// The file. Its copy is next to it.
    pub path: RepoPath,
    pub repair: Repair,
}

impl HalfWhole {
    /// Returns the pair if one of the two is damaged.
    pub fn of(kind: PairKind, path: &RepoPath, repair: Option<Repair>) -> Option<Self> {
        Some(HalfWhole { kind, path: path.clone(), repair: repair? })
    }

    /// Returns whether the copy can replace the file. Without `backup.manifest` a backup is not complete, however good
    /// the copy is.
    fn can_repair(&self) -> bool {
        !(self.kind == PairKind::Manifest && self.repair.to == self.path && self.repair.why == Repair::MISSING)
    }

    /// Logs a warning.
    pub fn warn(&self, repo: &Repo) {
        let shown = |path| repo.storage.display(path);
        let Repair { from, to, why } = &self.repair;
        let hint = if self.can_repair() { "\nHINT: verify with --repair makes it whole again." } else { "" };
        warn!("'{}' is {why}, only '{}' is whole{hint}", shown(to), shown(from));
    }
}

impl Repair {
    /// Writes the whole one over the other.
    fn write(&self, repo: &Repo) -> Result<()> {
        let storage = &*repo.storage;
        let mut stored =
            storage.read(&self.from, ReadRange::default())?.ok_or_else(|| storage::missing(storage, &self.from))?;
        let mut writer = storage.write(&self.to, WriteOptions::ATOMIC)?;
        if let Err(error) = io::copy(&mut stored, &mut writer) {
            let text = format!("unable to copy '{}'", storage.display(&self.from));
            return Err(Error::from_io(ErrorCode::FileWrite, text, error));
        }
        writer.finish()
    }
}

/// What to repair.
#[derive(Clone, Copy)]
pub(super) struct Pairs<'a> {
    pub files: &'a [HalfWhole],
    /// How the manifests among them are encrypted.
    pub manifest_cipher: &'a Cipher,
}

/// Repairs half-damaged files, and returns how many remain. Holds the lock of all writers of these files, and checks
/// each file again first, because it may have been rewritten since.
///
/// # Errors
/// The lock is taken, the stanza is stopped, or a file can't be written.
pub(super) fn run(session: &Session, repo: &Repo, pairs: Pairs<'_>) -> Result<u32> {
    let (stanza, cancel) = (session.stanza(), session.cancel_token());
    session.locks().check_stop(Some(stanza))?;
    let _lock = session.locks().acquire(stanza, &[LockType::Backup], &[repo.key], session.exec_id())?;
    let claim = Claim::acquire(repo, stanza, session.claimant(), "verify", cancel)?;
    let repo = &claim.guard(repo);
    let mut left = 0;
    for file in pairs.files {
        cancel.check()?;
        if !file.can_repair() {
            left += 1;
            continue;
        }
        let cipher = if file.kind == PairKind::Manifest { pairs.manifest_cipher } else { &repo.info_cipher() };
        let Some(repair) = look_again(repo, file, cipher, cancel)? else { continue };
        if file.kind == PairKind::ArchiveInfo {
            keep_damaged(repo, stanza, &repair)?;
        }
        repair.write(repo)?;
        if look_again(repo, file, cipher, cancel)?.is_some() {
            let text = format!("'{}' is not intact after it was repaired", repo.storage.display(&repair.to));
            return Err(Error::new(ErrorCode::FileWrite, text));
        }
        info!("repaired '{}' from '{}'", repo.storage.display(&repair.to), repo.storage.display(&repair.from));
    }
    Ok(left)
}

/// Keeps the bytes of a damaged archive.info that may have cipher keys which its copy lacks.
fn keep_damaged(repo: &Repo, stanza: &Stanza, repair: &Repair) -> Result<()> {
    let storage = &*repo.storage;
    if repair.to != layout::archive_info(stanza)
        || !info_files::load_archive_info_copy(repo, stanza)?.is_some_and(|copy| info_files::has_rotating_keys(&copy))
    {
        return Ok(());
    }
    let Some(bytes) = storage::get(storage, &repair.to, info_files::SIZE_MAX)? else { return Ok(()) };
    let now = Timestamp::now().strftime("%Y%m%d-%H%M%S");
    let kept = layout::archive_stanza(stanza).join(&format!("{}.damaged-{now}", layout::ARCHIVE_INFO))?;
    storage::put(storage, &kept, &bytes, WriteOptions::ATOMIC)?;
    warn!(
        "damaged '{}' may have cipher keys that its copy lacks, it is kept as '{}'",
        storage.display(&repair.to),
        storage.display(&kept)
    );
    Ok(())
}

/// Returns what is still to be repaired, or an error if both are damaged by now.
fn look_again(repo: &Repo, file: &HalfWhole, cipher: &Cipher, cancel: &CancelToken) -> Result<Option<Repair>> {
    let shown = file.path.file_name().to_owned();
    let pair = FilePair {
        repo,
        path: file.path.clone(),
        shown,
        cipher: cipher.clone(),
        retry: Retry { policy: &RetryPolicy::NONE, cancel, repo },
    };
    let found = match file.kind {
        PairKind::ArchiveInfo => {
            pair.load(&|reader, origin| ArchiveInfo::read(limited(reader), origin)).map(LoadedPair::without_content)
        }
        PairKind::BackupInfo => {
            pair.load(&|reader, origin| BackupInfo::read(limited(reader), origin)).map(LoadedPair::without_content)
        }
        PairKind::Manifest => {
            pair.load(&|reader, origin| Manifest::read(reader, origin)).map(LoadedPair::without_content)
        }
    };
    match found {
        Ok(found) => Ok(found.repair),
        // It may have been removed meanwhile
        Err(unusable) if unusable.is_missing() => Ok(None),
        Err(unusable) => Err(unusable.file),
    }
}
