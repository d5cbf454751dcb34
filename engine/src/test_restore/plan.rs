//! What a test restores: the backup, its manifest, and the WAL that the archive has now.

use std::io::{BufReader, Read};
use std::path::{Component, Path, PathBuf};

use aws_lc_rs::digest::{Context, SHA256};
use repo_format::cipher::{Cipher, Decryptor, Framing};
use repo_format::label::BackupLabel;
use repo_format::layout::{self, ArchiveId, Stanza};
use repo_format::manifest::Manifest;
use repo_format::size::format_size;
use repo_format::wal_name::WalSegment;

use super::choose::{self, BackupPick};
use super::wal_reach::{self, NewestSegments, WalPlace};
use super::{TestRestoreContext, TestRestoreRequest};
use crate::proof::BackupFacts;
use crate::repo::{info_files, manifest_store};
use crate::restore::RecoveryType;
use crate::restore::backup_set::read_target_time;
use crate::restore::set_select::{self, Candidate, Criterion};
use crate::storage::{self, ReadRange};
use crate::system_text;
use crate::{Error, ErrorCode, Repo, Result, warn};

/// Bytes read from the storage at once.
const BUFFER_BYTES: usize = 256 * 1024;
/// Segments of a backup that are read again.
const SEGMENTS_MAX: usize = 1000;
/// What a server writes beside the restored files, at least, in bytes: WAL up to its limit, and logs.
const SERVER_SPACE_BYTES: u64 = 1 << 30;

/// What a test restores.
pub(super) struct TestPlan<'a> {
    /// The repository.
    pub repo: &'a Repo,
    /// The backup.
    pub label: BackupLabel,
    /// Its manifest, without its passphrase.
    pub manifest: Manifest,
    /// The facts for the report.
    pub facts: BackupFacts,
    /// The newest WAL segments when the test began.
    pub newest: NewestSegments,
}

impl TestPlan<'_> {
    /// The archive of the backup's cluster.
    pub fn wal_place<'s>(&'s self, stanza: &'s Stanza) -> WalPlace<'s> {
        let data = &self.manifest.data;
        WalPlace { repo: self.repo, stanza, id: ArchiveId { version: data.pg_version, id: data.pg_id } }
    }
}

impl TestPlan<'_> {
    /// The segments without which the backup is not consistent.
    ///
    /// # Errors
    /// The positions in the manifest contradict each other.
    pub fn wal_of_backup(&self, segment_size: u32) -> Result<Vec<WalSegment>> {
        let data = &self.manifest.data;
        let (Some(first), Some(last)) = (data.archive_start, data.archive_stop) else { return Ok(Vec::new()) };
        let (start, stop) = (first.start_lsn(segment_size), last.start_lsn(segment_size));
        Ok(WalSegment::range(first.timeline, start, stop, segment_size)?.take(SEGMENTS_MAX).collect())
    }
}

/// Chooses the backup and reads what the test needs to know about it.
///
/// # Errors
/// [`ErrorCode::BackupSetInvalid`] if no repository has a suitable backup; its manifest or the archive can't be read.
pub(super) fn make<'a>(request: &TestRestoreRequest, context: &TestRestoreContext<'a>) -> Result<TestPlan<'a>> {
    let (repo, label, cipher) = choose_backup(request, context)?;
    let stanza = context.stanza;
    let mut manifest = manifest_store::load(repo, stanza, &label, &cipher)?;
    manifest.cipher_pass = None;
    let facts = BackupFacts {
        label: label.to_string(),
        stop: manifest.data.timestamp_stop,
        size: manifest.files.iter().map(|file| file.size).fold(0, u64::saturating_add),
        files: u64::try_from(manifest.files.len()).unwrap_or(u64::MAX),
        manifest_sha256: manifest_sha256(repo, stanza, &label, &cipher)?,
    };
    let mut plan = TestPlan { repo, label, manifest, facts, newest: NewestSegments::new() };
    if let Some(start) = plan.manifest.data.archive_start {
        let newest = wal_reach::newest_segments(&plan.wal_place(stanza), start.timeline)?;
        plan.newest = newest;
    }
    Ok(plan)
}

fn choose_backup<'a>(
    request: &TestRestoreRequest,
    context: &TestRestoreContext<'a>,
) -> Result<(&'a Repo, BackupLabel, Cipher)> {
    let (criterion, target) = match &request.recovery.kind {
        RecoveryType::Time(text) => (Criterion::StoppedBefore(read_target_time(text)?.seconds), text.as_str()),
        RecoveryType::Lsn(text) => (Criterion::StoppedAt(text.parse()?), text.as_str()),
        _ => (Criterion::Newest, ""),
    };
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(|error| {
        Error::new(ErrorCode::Kernel, format!("unable to get random bytes: {}", system_text(&error)))
    })?;
    let chance = u64::from_le_bytes(random);
    for repo in context.repos {
        let info = match info_files::load_backup_info(repo, context.stanza) {
            Ok(info) => info,
            Err(error) if context.repos.len() == 1 => return Err(error),
            Err(error) => {
                warn!("{}: [{}] {error}", repo.name(), error.code);
                continue;
            }
        };
        let candidates = Candidate::all(&info);
        if let Some(label) = choose::choose(&request.pick, &criterion, &candidates, info.current().id, chance)? {
            return Ok((repo, label, info_files::manifest_cipher(&info)));
        }
    }
    Err(match &request.pick {
        BackupPick::Label(label) => set_select::not_found(&Criterion::Label(label.clone()), ""),
        _ => set_select::not_found(&criterion, target),
    })
}

/// Returns the SHA-256 of a manifest's plain text, or of its copy if the manifest is missing, in hexadecimal digits.
///
/// # Errors
/// Both are missing, or what is there can't be read.
pub(crate) fn manifest_sha256(repo: &Repo, stanza: &Stanza, label: &BackupLabel, cipher: &Cipher) -> Result<String> {
    let path = layout::manifest(stanza, label);
    let storage = &*repo.storage;
    let stored = match storage.read(&path, ReadRange::default())? {
        Some(stored) => stored,
        None => {
            storage.read(&layout::copy(&path), ReadRange::default())?.ok_or_else(|| storage::missing(storage, &path))?
        }
    };
    let mut plain = Decryptor::new(cipher, Framing::Full, BufReader::with_capacity(BUFFER_BYTES, stored));
    let (mut context, mut buffer) = (Context::new(&SHA256), vec![0; BUFFER_BYTES]);
    loop {
        let read = plain.read(&mut buffer).map_err(|error| {
            Error::from_io(ErrorCode::FileRead, format!("unable to read '{}'", storage.display(&path)), error)
        })?;
        if read == 0 {
            break;
        }
        context.update(&buffer[..read]);
    }
    Ok(hex(context.finish().as_ref()))
}

/// Returns bytes as lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Checks that nothing of the original cluster and no other directory of this program contains the scratch path.
///
/// # Errors
/// [`ErrorCode::OptionInvalidValue`]
pub(super) fn check_place(request: &TestRestoreRequest, manifest: &Manifest) -> Result<()> {
    let scratch = real(&request.scratch_path);
    let data = manifest.base_target().map(|target| target.path.clone()).unwrap_or_default();
    let targets = manifest.targets.iter().map(|target| {
        let path = Path::new(&target.path);
        // The destination of a link may be relative to the directory of the link
        let base = target.name.strip_prefix("pg_data/").and_then(|name| Path::new(name).parent());
        let absolute =
            if path.is_absolute() { path.to_owned() } else { Path::new(&data).join(base.unwrap_or(path)).join(path) };
        ("original cluster", absolute)
    });
    let others = request.keep_out.iter().map(|place| (place.what, place.path.clone()));
    for (what, path) in targets.chain(others) {
        if scratch.starts_with(real(&path)) {
            let text = format!(
                "scratch path '{}' is in '{}', which belongs to the {what}",
                request.scratch_path.display(),
                path.display()
            );
            return Err(Error::new(ErrorCode::OptionInvalidValue, text));
        }
    }
    Ok(())
}

/// Returns the path without links, as far as it exists.
fn real(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(normal.pop()),
            Component::CurDir => {}
            part => normal.push(part),
        }
        if let Ok(real) = normal.canonicalize() {
            normal = real;
        }
    }
    normal
}

/// Checks that the scratch path has room for the files and for what the server writes.
///
/// # Errors
/// [`ErrorCode::FileWrite`] with the numbers.
pub(super) fn check_space(scratch_path: &Path, size: u64) -> Result<()> {
    let failed = |error: rustix::io::Errno| {
        let text = format!("unable to get the free space of '{}'", scratch_path.display());
        Error::from_io(ErrorCode::FileInfo, text, error.into())
    };
    let room = rustix::fs::statvfs(scratch_path).map_err(failed)?;
    let free = room.f_bavail.saturating_mul(room.f_frsize);
    let needed = size.saturating_add(size / 20).saturating_add(SERVER_SPACE_BYTES);
    if needed <= free {
        return Ok(());
    }
    let text = format!(
        "not enough space for a test-restore: {} needed in '{}', which has {} free",
        format_size(needed),
        scratch_path.display(),
        format_size(free)
    );
    Err(Error::new(ErrorCode::FileWrite, text).hint("a test needs the size of the backup, a twentieth more, and 1GB."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_without_links_is_found_even_if_its_end_does_not_exist() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        std::fs::create_dir(root.join("real")).unwrap();
        std::os::unix::fs::symlink(root.join("real"), root.join("link")).unwrap();
        assert_eq!(real(&root.join("link/./a/../b")), root.join("real/b"));
    }

    #[test]
    fn space_that_is_missing_is_an_error_with_the_numbers() {
        let dir = tempfile::tempdir().unwrap();
        let error = check_space(dir.path(), u64::MAX / 2).unwrap_err();
        assert_eq!(error.code, ErrorCode::FileWrite);
        assert!(error.message.contains("needed in"), "{error}");
    }
}
