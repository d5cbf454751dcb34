//! Goes through archives and backups, gives out one file after the other to check, and takes in the results.

use std::collections::{BTreeMap, VecDeque};

use repo_format::archive_info::PgHistory;
use repo_format::cipher::{Cipher, Decryptor, Framing};
use repo_format::compress::{CompressType, Decompressor};
use repo_format::hash::Sha1;
use repo_format::info::crypto_hint;
use repo_format::label::BackupLabel;
use repo_format::layout::{self, FileForm, RepoPath, Stanza};
use repo_format::manifest::{Manifest, ManifestFile};
use repo_format::pg::{PgVersion, WalHeader};
use repo_format::wal_name::{SEGMENT_DIR_LEN, SEGMENT_NAME_LEN, WalSegment};

use super::file::{Fault, FileCheck};
use super::info_file;
use super::report::{ArchiveResult, BackupResult, BackupStatus, WalRange};
use crate::storage::{self, ReadRange};
use crate::{Error, ErrorCode, Repo, Result, detail, info, warn};

/// Bytes of a segment that tell its size.
const WAL_HEADER_BYTES: u64 = 512;

/// A file to check and whom it belongs to.
#[derive(Clone, Debug)]
pub(super) struct VerifyJob {
    owner: Owner,
    /// The path that messages show: below the stanza's archive or backups.
    name: String,
    /// What to check.
    pub check: FileCheck,
}

/// Whose result a job's result is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    Archive(usize),
    Backup(usize),
}

/// The segments that a single backup needs: its first and last. Without them none is checked.
pub(super) type WalFilter = Option<(String, String)>;

/// What is checked.
pub(super) struct PlanSettings<'a> {
    pub repo: &'a Repo,
    pub stanza: &'a Stanza,
    pub archive_cipher: Cipher,
    pub manifest_cipher: Cipher,
    pub history: &'a [PgHistory],
    pub version_force: Option<PgVersion>,
    pub process_max: u32,
    /// The newest backup, when backup.info does not have it: it may be one that is being made.
    pub current_backup: Option<BackupLabel>,
    /// Check only this part of the archive.
    pub wal_filter: Option<WalFilter>,
}

/// A file whose result is that of another backup's file.
struct Deferred {
    /// Index of the backup that refers to it.
    backup: usize,
    /// Index of the backup that holds it.
    holder: usize,
    /// The name that a fault of it is listed under.
    name: String,
}

/// The work that is left, and what was found.
pub(super) struct Plan<'a> {
    settings: PlanSettings<'a>,
    archive_ids: VecDeque<String>,
    wal_dirs: VecDeque<String>,
    wal_files: VecDeque<String>,
    labels: VecDeque<BackupLabel>,
    manifest: Option<(Manifest, usize)>,
    /// Backups whose files are not checked again for the backups that refer to them.
    checked: BTreeMap<BackupLabel, usize>,
    /// Files that are as good as the same file of an earlier backup, whose result may not be in yet.
    deferred: Vec<Deferred>,
    pub archives: Vec<ArchiveResult>,
    pub backups: Vec<BackupResult>,
    pub errors: u32,
    /// What ended the work early.
    pub failure: Option<Error>,
}

impl<'a> Plan<'a> {
    pub fn new(settings: PlanSettings<'a>, archive_ids: Vec<String>, labels: Vec<BackupLabel>) -> Self {
        Plan {
            settings,
            archive_ids: archive_ids.into(),
            wal_dirs: VecDeque::new(),
            wal_files: VecDeque::new(),
            labels: labels.into(),
            manifest: None,
            checked: BTreeMap::new(),
            deferred: Vec::new(),
            archives: Vec::new(),
            backups: Vec::new(),
            errors: 0,
            failure: None,
        }
    }

    /// The next file to check: first those of the archives, then those of the backups.
    pub fn next(&mut self) -> Option<VerifyJob> {
        if self.failure.is_some() {
            return None;
        }
        let job = match self.next_wal() {
            Ok(None) => self.next_backup_file(),
            result => result,
        };
        job.unwrap_or_else(|error| {
            self.failure = Some(error);
            None
        })
    }

    /// Takes in what was found; `error` says why a file could not be checked.
    pub fn add_result(&mut self, worker: u32, job: &VerifyJob, fault: Option<Fault>, error: Option<&Error>) {
        match (fault, error) {
            (None, None) => {}
            (_, Some(error)) => {
                let code = error.code.number();
                info!(process: worker, "{} {}: [{code}] {error}", Fault::Other.text(), job.name);
                self.errors += 1;
            }
            // Expire may just have removed it, so it is no error
            (Some(Fault::Missing), None) if matches!(job.owner, Owner::Archive(_)) => {
                warn!(process: worker, "{} '{}'", Fault::Missing.text(), job.name);
            }
            (Some(fault), None) => {
                info!(process: worker, "{} '{}'", fault.text(), job.name);
                self.errors += 1;
            }
        }
        let fault = if error.is_some() { Some(Fault::Other) } else { fault };
        match job.owner {
            Owner::Archive(index) => {
                let Some(archive) = self.archives.get_mut(index) else { return };
                match fault {
                    None => archive.valid += 1,
                    Some(fault) => {
                        let file = job.name.rsplit('/').next().unwrap_or_default();
                        archive.add_fault(segment_part(file), fault);
                    }
                }
            }
            Owner::Backup(index) => {
                let Some(backup) = self.backups.get_mut(index) else { return };
                backup.waiting -= 1;
                match fault {
                    None => backup.valid += 1,
                    Some(fault) => backup.add_fault(job.name.clone(), fault),
                }
            }
        }
    }

    fn list(&self, path: &RepoPath, wanted: impl Fn(&str) -> bool) -> Result<VecDeque<String>> {
        let entries = self.settings.repo.storage.list(path)?.unwrap_or_default();
        Ok(entries.into_iter().map(|entry| entry.name).filter(|name| wanted(name)).collect())
    }

    fn next_wal(&mut self) -> Result<Option<VerifyJob>> {
        let archive_root = layout::archive_stanza(self.settings.stanza);
        while let Some(id) = self.archive_ids.front().cloned() {
            if self.archives.last().is_none_or(|archive| archive.id != id) {
                self.wal_dirs = self.list(&archive_root.join(&id)?, is_wal_dir)?;
                self.archives.push(ArchiveResult::new(id.clone()));
                if self.wal_dirs.is_empty() {
                    detail!("archive path '{id}' is empty");
                }
            }
            while let Some(dir) = self.wal_dirs.front().cloned() {
                let path = archive_root.join(&id)?.join(&dir)?;
                if self.wal_files.is_empty() {
                    self.start_wal_dir(&path)?;
                }
                let file = self.wal_files.pop_front();
                if self.wal_files.is_empty() {
                    self.wal_dirs.pop_front();
                }
                match file {
                    Some(file) => return self.wal_job(&path, &format!("{id}/{dir}"), &file).map(Some),
                    None => detail!("path '{id}/{dir}' does not contain any valid WAL to be processed"),
                }
            }
            self.archive_ids.pop_front();
        }
        Ok(None)
    }

    /// Lists the segments of one directory and notes which ranges they make.
    fn start_wal_dir(&mut self, path: &RepoPath) -> Result<()> {
        let mut files = self.list(path, is_wal_file)?;
        if let Some(filter) = &self.settings.wal_filter {
            files.retain(|file| {
                let segment = segment_part(file);
                filter.as_ref().is_some_and(|(start, stop)| segment >= start.as_str() && segment <= stop.as_str())
            });
        }
        let Some(first) = files.front() else { return Ok(()) };
        let segment_size = match self.archives.last() {
            Some(archive) if archive.segment_size != 0 => archive.segment_size,
            _ => self.segment_size(&path.join(first)?)?,
        };
        if let Some(archive) = self.archives.last_mut() {
            archive.segment_size = segment_size;
            archive.total = archive.total.saturating_add(u32::try_from(files.len()).unwrap_or(u32::MAX));
            self.errors += add_ranges(archive, &mut files);
        }
        self.wal_files = files;
        Ok(())
    }

    fn segment_size(&self, path: &RepoPath) -> Result<u32> {
        let storage = &*self.settings.repo.storage;
        let stored = storage.read(path, ReadRange::default())?.ok_or_else(|| storage::missing(storage, path))?;
        let plain = Decryptor::new(&self.settings.archive_cipher, Framing::Full, stored);
        let kind = CompressType::from_file_name(path.file_name())?;
        let mut header = Vec::new();
        std::io::Read::read_to_end(
            &mut std::io::Read::take(Decompressor::new(kind, Framing::Full, plain)?, WAL_HEADER_BYTES),
            &mut header,
        )
        .map_err(|error| {
            Error::from_io(ErrorCode::FileRead, format!("unable to read '{}'", storage.display(path)), error)
        })?;
        Ok(WalHeader::parse(&header, self.settings.version_force)?.segment_size)
    }

    fn wal_job(&self, path: &RepoPath, dir: &str, file: &str) -> Result<VerifyJob> {
        let index = self.archives.len().saturating_sub(1);
        let checksum = file.get(SEGMENT_NAME_LEN + 1..SEGMENT_NAME_LEN + 41).unwrap_or_default();
        let segment_size = self.archives.get(index).map_or(0, |archive| archive.segment_size);
        Ok(VerifyJob {
            owner: Owner::Archive(index),
            name: format!("{dir}/{file}"),
            check: FileCheck {
                path: path.join(file)?,
                range: ReadRange::default(),
                cipher: self.settings.archive_cipher.clone(),
                compress_type: CompressType::from_file_name(file)?,
                // A name whose checksum is none fails like a wrong one
                checksum: Sha1::from_hex(checksum.as_bytes()).unwrap_or(Sha1([0; 20])),
                size: u64::from(segment_size),
            },
        })
    }

    fn next_backup_file(&mut self) -> Result<Option<VerifyJob>> {
        loop {
            let Some((manifest, next)) = self.manifest.take() else {
                let Some(label) = self.labels.pop_front() else { return Ok(None) };
                self.start_backup(label);
                continue;
            };
            let index = self.backups.len().saturating_sub(1);
            let Some(file) = manifest.files.get(next) else { continue };
            let job = self.backup_file(index, &manifest, file);
            self.manifest = Some((manifest, next + 1));
            if let Some(job) = job? {
                return Ok(Some(job));
            }
        }
    }

    fn start_backup(&mut self, label: BackupLabel) {
        let mut result = BackupResult::new(label.clone());
        let mut result_counts = false;
        let manifest = self.load_manifest(&mut result);
        match manifest {
            None => {}
            Some(manifest) if manifest.files.is_empty() => {
                info!("backup '{label}' manifest does not contain any target files to verify");
                self.errors += 1;
                result.status = BackupStatus::Invalid;
            }
            Some(manifest) => {
                result_counts = self.counts_for_later(&manifest);
                self.manifest = Some((manifest, 0));
            }
        }
        if result_counts {
            self.checked.insert(label, self.backups.len());
        }
        self.backups.push(result);
    }

    /// A backup's manifest, if it can be used; otherwise the result says why not.
    fn load_manifest(&mut self, result: &mut BackupResult) -> Option<Manifest> {
        let (repo, cipher) = (self.settings.repo, &self.settings.manifest_cipher);
        let label = &result.label;
        let path = layout::manifest(self.settings.stanza, label);
        let copy = layout::copy(&path);
        let shown = format!("<REPO:BACKUP>/{label}/{}", layout::BACKUP_MANIFEST);
        let shown_copy = format!("{shown}{}", layout::COPY_SUFFIX);
        let manifest =
            match info_file::load(repo, &path, &shown, cipher, |reader| Manifest::read(reader).map_err(crypto_hint)) {
                Ok((manifest, checksum)) => {
                    let copied = info_file::load(repo, &copy, &shown_copy, cipher, info_file::drain);
                    if copied.is_ok_and(|((), copied)| copied != checksum) {
                        detail!("backup '{label}' manifest.copy does not match manifest");
                    }
                    Some(manifest)
                }
                Err(ErrorCode::FileMissing) if self.settings.current_backup.as_ref() == Some(label) => {
                    info!("backup '{label}' appears to be in progress, skipping");
                    result.status = BackupStatus::InProgress;
                    return None;
                }
                Err(code) => match info_file::load(repo, &copy, &shown_copy, cipher, |reader| {
                    Manifest::read(reader).map_err(crypto_hint)
                }) {
                    Ok((manifest, _)) => {
                        detail!("{label}/backup.manifest is missing or unusable, using copy");
                        Some(manifest)
                    }
                    Err(ErrorCode::FileMissing) if code == ErrorCode::FileMissing => {
                        detail!("manifest missing for '{label}' - backup may have expired");
                        result.status = BackupStatus::ManifestMissing;
                        return None;
                    }
                    Err(_) => None,
                },
            };
        let manifest = manifest.filter(|manifest| {
            let data = &manifest.data;
            let known = self.settings.history.iter().any(|pg| {
                pg.id == data.pg_id && pg.system_id == data.pg_system_id && pg.version == data.pg_version
            });
            if !known {
                info!(
                    "'{label}' may not be recoverable - PG data (id {}, version {}, system-id {}) is not in the backup.info \
                     history, skipping",
                    data.pg_id, data.pg_version, data.pg_system_id
                );
            }
            known
        });
        if manifest.is_none() {
            result.status = BackupStatus::Invalid;
            self.errors += 1;
        }
        manifest
    }

    /// Whether the result of this backup's files will do for backups that refer to them.
    ///
    /// pgBackRest takes a backup as checked when a result arrives after all files were looked at. With one worker that is so
    /// only if the very last file had to be read; with more, practically always.
    fn counts_for_later(&self, manifest: &Manifest) -> bool {
        let is_read = |file: &ManifestFile| {
            (file.size != 0 || !manifest.data.bundle)
                && (file.reference.is_none() || !self.checked.contains_key(manifest.holder(file)))
        };
        self.settings.process_max > 1 || manifest.files.last().is_some_and(is_read)
    }

    /// Takes over what had to wait for the results of other backups. Call it when all results are in.
    pub fn settle(&mut self) {
        for item in std::mem::take(&mut self.deferred) {
            self.take_over(&item);
        }
    }

    /// Gives a file the result of the backup that holds it.
    fn take_over(&mut self, item: &Deferred) {
        let fault = self.backups.get(item.holder).and_then(|holder| holder.fault_of(&item.name));
        let Some(backup) = self.backups.get_mut(item.backup) else { return };
        match fault {
            None => backup.valid += 1,
            Some(fault) => backup.add_fault(item.name.clone(), fault),
        }
    }

    /// The check of one file of a backup, unless it needs none.
    fn backup_file(&mut self, index: usize, manifest: &Manifest, file: &ManifestFile) -> Result<Option<VerifyJob>> {
        let Some(backup) = self.backups.get_mut(index) else { return Ok(None) };
        backup.total += 1;
        // Empty files are not stored in bundles
        if file.size == 0 && manifest.data.bundle {
            backup.valid += 1;
            return Ok(None);
        }
        // The directory's name counts, even if the manifest should have another one
        let holder = if file.reference.is_some() { manifest.holder(file).clone() } else { backup.label.clone() };
        if file.reference.is_some()
            && let Some(&checked) = self.checked.get(&holder)
        {
            // As in pgBackRest, only files that are stored alone are found again by this name: a fault in a bundle shows with the
            // backup that the bundle belongs to
            let name = format!("{holder}/{}{}", file.name, manifest.data.options.compress_type.extension());
            if self.backups.get(checked).is_some_and(|holder| holder.waiting == 0) {
                self.take_over(&Deferred { backup: index, holder: checked, name });
            } else {
                self.deferred.push(Deferred { backup: index, holder: checked, name });
            }
            return Ok(None);
        }

        let stanza = self.settings.stanza;
        let compress_type = manifest.data.options.compress_type;
        let (path, range) = match file.bundle {
            Some(bundle) => (
                layout::bundle(stanza, &holder, bundle.id),
                ReadRange { offset: bundle.offset, limit: Some(file.size_repo) },
            ),
            None => {
                let is_block = file.block.is_some_and(|block| block.map_size != 0);
                let form = if is_block { FileForm::BlockIncr } else { FileForm::Whole(compress_type) };
                (layout::backup_file(stanza, &holder, &file.name, form)?, ReadRange::default())
            }
        };
        let root = layout::backup_stanza(stanza);
        let name =
            path.as_str().strip_prefix(root.as_str()).unwrap_or(path.as_str()).trim_start_matches('/').to_owned();
        let check = match file.checksum_repo {
            Some(checksum) => FileCheck {
                path,
                range,
                cipher: Cipher::None,
                compress_type: CompressType::None,
                checksum,
                size: file.size_repo,
            },
            None => FileCheck {
                path,
                range,
                cipher: Cipher::from_passphrase(manifest.cipher_pass.as_ref()),
                compress_type,
                // A file without checksum is in no finished manifest; it fails like a wrong one
                checksum: file.checksum.unwrap_or(Sha1([0; 20])),
                size: file.size,
            },
        };
        if let Some(backup) = self.backups.get_mut(index) {
            backup.waiting += 1;
        }
        Ok(Some(VerifyJob { owner: Owner::Backup(index), name, check }))
    }
}

/// The segment that a file of the archive is named after.
fn segment_part(file: &str) -> &str {
    file.get(..SEGMENT_NAME_LEN).unwrap_or(file)
}

fn is_wal_dir(name: &str) -> bool {
    name.len() == SEGMENT_DIR_LEN && name.bytes().all(is_loose_hex)
}

/// pgBackRest's character range, which lets in some more than hex digits.
fn is_loose_hex(byte: u8) -> bool {
    (b'0'..=b'F').contains(&byte)
}

fn is_wal_file(name: &str) -> bool {
    let bytes = name.as_bytes();
    let Some((segment, rest)) = bytes.split_at_checked(SEGMENT_NAME_LEN) else { return false };
    let Some((checksum, extension)) = rest.strip_prefix(b"-").and_then(|rest| rest.split_at_checked(40)) else {
        return false;
    };
    segment.iter().copied().all(is_loose_hex)
        && checksum.iter().all(|byte| (b'0'..=b'f').contains(byte))
        && matches!(extension, b"" | b".gz" | b".lz4" | b".zst" | b".xz" | b".bz2")
}

/// Adds the segments of one directory to the ranges and takes out duplicates, of which none can be trusted. Returns the number
/// of segments that there were several of.
fn add_ranges(archive: &mut ArchiveResult, files: &mut VecDeque<String>) -> u32 {
    let timeline = |segment: &str| segment.get(..8).map(str::to_owned);
    // A gap between directories of one timeline is a gap; another timeline begins anew
    let mut continues =
        files.front().zip(archive.ranges.last()).is_some_and(|(first, last)| timeline(first) == timeline(&last.stop));
    let mut duplicates = 0;
    let mut kept = VecDeque::with_capacity(files.len());
    while let Some(file) = files.pop_front() {
        let segment = segment_part(&file).to_owned();
        if files.front().is_some_and(|next| segment_part(next) == segment) {
            info!("duplicate WAL '{segment}' for '{}' exists, skipping", archive.id);
            duplicates += 1;
            while files.front().is_some_and(|next| segment_part(next) == segment) {
                files.pop_front();
            }
            continue;
        }
        let size = archive.segment_size;
        match archive.ranges.last_mut() {
            Some(range) if continues && follows(&range.stop, &segment, size) => range.stop = segment,
            _ => archive.ranges.push(WalRange { start: segment.clone(), stop: segment, faults: Vec::new() }),
        }
        continues = true;
        kept.push_back(file);
    }
    *files = kept;
    duplicates
}

fn follows(before: &str, segment: &str, segment_size: u32) -> bool {
    let next = before.parse::<WalSegment>().ok().map(|before| before.next(segment_size));
    next.is_some_and(|next| next.to_string() == segment)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUM: &str = "da39a3ee5e6b4b0d3255bfef95601890afd80709";

    fn ranges(archive: &ArchiveResult) -> Vec<(&str, &str)> {
        archive.ranges.iter().map(|range| (&range.start[8..], &range.stop[8..])).collect()
    }

    fn files(segments: &[&str]) -> VecDeque<String> {
        segments.iter().map(|segment| format!("{segment}-{SUM}.zst")).collect()
    }

    fn archive() -> ArchiveResult {
        ArchiveResult { segment_size: 16 << 20, ..ArchiveResult::new("15-1".into()) }
    }

    #[test]
    fn add_ranges_splits_at_gaps_and_goes_on_in_the_next_directory() {
        let mut archive = archive();
        let mut first = files(&["0000000100000000000000FD", "0000000100000000000000FE", "0000000100000000000000FF"]);
        let mut second = files(&["000000010000000100000000", "000000010000000100000002"]);
        assert_eq!(add_ranges(&mut archive, &mut first) + add_ranges(&mut archive, &mut second), 0);
        assert_eq!(
            ranges(&archive),
            [("00000000000000FD", "0000000100000000"), ("0000000100000002", "0000000100000002")]
        );
        assert_eq!(first.len() + second.len(), 5);
    }

    #[test]
    fn add_ranges_takes_all_duplicates_out() {
        let mut archive = archive();
        let mut list = files(&["000000010000000000000001", "000000010000000000000002"]);
        list.insert(1, format!("000000010000000000000001-{SUM}"));
        list.push_back(format!("000000010000000000000002-{SUM}.gz"));
        list.push_back(format!("000000010000000000000003-{SUM}.gz"));
        assert_eq!(add_ranges(&mut archive, &mut list), 2);
        assert_eq!(list.len(), 1);
        assert_eq!(ranges(&archive), [("0000000000000003", "0000000000000003")]);
    }

    #[test]
    fn add_ranges_of_a_new_timeline_begin_anew() {
        let mut archive = archive();
        add_ranges(&mut archive, &mut files(&["000000010000000000000001"]));
        add_ranges(&mut archive, &mut files(&["000000020000000000000002"]));
        assert_eq!(archive.ranges.len(), 2);
    }

    #[test]
    fn is_wal_file_takes_whole_segments_only() {
        assert!(is_wal_file(&format!("000000010000000000000001-{SUM}")));
        assert!(is_wal_file(&format!("000000010000000000000001-{SUM}.xz")));
        for name in [
            "000000010000000000000001",
            "000000010000000000000001.00000028.backup",
            &format!("000000010000000000000001.partial-{SUM}"),
            &format!("000000010000000000000001-{SUM}.tmp"),
            &format!("00000001000000000000000g-{SUM}"),
            "é",
        ] {
            assert!(!is_wal_file(name), "{name}");
        }
        assert!(is_wal_dir("0000000100000000") && !is_wal_dir("000000010000000"));
    }
}
