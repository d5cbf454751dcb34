//! Iterates over archives and backups, hands out one file after another to check, and collects the results.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use repo_format::archive_info::PgHistory;
use repo_format::cipher::{Cipher, Decryptor, Framing};
use repo_format::compress::CompressType;
use repo_format::hash::Sha1;
use repo_format::label::BackupLabel;
use repo_format::layout::{self, FileForm, RepoPath, Stanza};
use repo_format::manifest::{Manifest, ManifestFile};
use repo_format::pg::{PgVersion, WalHeader};
use repo_format::wal_name::{SEGMENT_DIR_LEN, SEGMENT_NAME_LEN, WalSegment};

use super::file::{BlockCheck, Checked, Fault, FileCheck, Part};
use super::info_file::{Pair, Retry};
use super::known::{Known, Outcome};
use super::repair::{HalfWhole, Kind};
use super::report::{ArchiveResult, BackupResult, BackupStatus, WalRange};
use super::unread::Unread;
use crate::storage::{self, ReadRange};
use crate::{Error, ErrorCode, Repo, Result, decode, detail, info, warn};

/// Bytes of a segment that tell its size.
const WAL_HEADER_BYTES: u64 = 512;

/// The number of invalid files that the error of the command names.
const FIRST_FAULTS_MAX: usize = 5;

/// A file to check and whom it belongs to.
#[derive(Clone, Debug)]
pub(super) struct VerifyJob {
    owner: Owner,
    /// The path in messages: below the stanza's archive or backups.
    name: String,
    /// What to check.
    pub check: FileCheck,
}

/// Whose result a job's result belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    Archive(usize),
    Backup(usize),
}

/// The segments that a single backup needs.
pub(super) struct WalFilter {
    /// The archive that has them.
    pub archive_id: String,
    pub first: String,
    pub last: String,
}

/// Which part of the archives is checked.
pub(super) enum WalScope {
    All,
    /// The WAL of one backup; `None` checks no WAL.
    Backup(Option<WalFilter>),
}

impl WalScope {
    fn has(&self, archive_id: &str, segment: &str) -> bool {
        match self {
            WalScope::All => true,
            WalScope::Backup(None) => false,
            WalScope::Backup(Some(filter)) => {
                filter.archive_id == archive_id && segment >= filter.first.as_str() && segment <= filter.last.as_str()
            }
        }
    }
}

/// What is checked.
pub(super) struct PlanSettings<'a> {
    pub repo: &'a Repo,
    pub stanza: &'a Stanza,
    pub archive_cipher: Cipher,
    pub manifest_cipher: Cipher,
    pub history: &'a [PgHistory],
    pub version_force: Option<PgVersion>,
    /// How to retry reads in this module.
    pub retry: Retry<'a>,
    /// The newest backup, if it is not in backup.info: it may be in progress.
    pub current_backup: Option<BackupLabel>,
    /// Check only this part of the archives.
    pub wal: WalScope,
}

/// A file whose result follows from those of other files.
struct Deferred {
    /// Index of the backup that it belongs to.
    backup: usize,
    /// The parts that it needs. All of them have been handed out to be checked.
    needs: Vec<Part>,
    /// The part that it is itself, where others may need it.
    own: Option<Part>,
}

/// The work that is left, and what was found.
pub(super) struct Plan<'a> {
    settings: PlanSettings<'a>,
    archive_ids: VecDeque<String>,
    wal_dirs: VecDeque<String>,
    wal_files: VecDeque<String>,
    labels: VecDeque<BackupLabel>,
    manifest: Option<(Manifest, usize)>,
    /// The references of the manifest.
    references: Arc<Vec<BackupLabel>>,
    /// Backups without bundles among those that were started. Their handed-out files need not be checked again for the
    /// backups that refer to them.
    plain: BTreeSet<BackupLabel>,
    known: Known,
    /// Files that depend on others whose results are not known yet, in the order in which they were found.
    deferred: Vec<Deferred>,
    /// Manifests of which either the file or the copy is damaged.
    pub half_whole: Vec<HalfWhole>,
    pub archives: Vec<ArchiveResult>,
    pub backups: Vec<BackupResult>,
    pub errors: u32,
    /// Those of the errors that say nothing about the content.
    pub unread: Unread,
    /// The first few invalid files, as they were logged.
    pub first_faults: Vec<String>,
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
            references: Arc::default(),
            plain: BTreeSet::new(),
            known: Known::default(),
            deferred: Vec::new(),
            half_whole: Vec::new(),
            archives: Vec::new(),
            backups: Vec::new(),
            errors: 0,
            unread: Unread::default(),
            first_faults: Vec::new(),
            failure: None,
        }
    }

    /// Returns the next file to check: first those of the archives, then those of the backups.
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

    /// Records a result: a fault and the other parts that the file needs, or why it could not be checked.
    pub fn add_result(&mut self, worker: u32, job: &VerifyJob, result: Result<Checked>) {
        let (checked, error) = match result {
            Ok(checked) => (checked, None),
            Err(error) => (Checked::default(), Some(error)),
        };
        let fault = checked.fault;
        match (fault, &error) {
            (None, None) => {}
            (_, Some(error)) => {
                let code = error.code.number();
                self.unread.add(&job.name, error);
                let text = format!("{} {}: [{code}] {error}", Fault::Other.text(), job.name);
                info!(process: worker, "{text}");
                self.note_fault(text);
                self.errors += 1;
            }
            // Expire may just have removed it, so this is not an error
            (Some(Fault::Missing), None) if matches!(job.owner, Owner::Archive(_)) => {
                warn!(process: worker, "{} '{}'", Fault::Missing.text(), job.name);
            }
            (Some(fault), None) => {
                let text = format!("{} '{}'", fault.text(), job.name);
                info!(process: worker, "{text}");
                self.note_fault(text);
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
                let part = job.check.part();
                match fault {
                    Some(fault) => {
                        self.known.settle(&part, Some(fault));
                        self.add_file(index, Some(fault));
                    }
                    None => self.follow(Deferred { backup: index, needs: checked.needs, own: Some(part) }),
                }
            }
        }
    }

    fn note_fault(&mut self, text: String) {
        if self.first_faults.len() < FIRST_FAULTS_MAX && !self.first_faults.contains(&text) {
            self.first_faults.push(text);
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
                    self.start_wal_dir(&id, &path)?;
                }
                let file = self.wal_files.pop_front();
                if self.wal_files.is_empty() {
                    self.wal_dirs.pop_front();
                }
                let Some(file) = file else {
                    detail!("path '{id}/{dir}' does not contain any valid WAL to be processed");
                    continue;
                };
                match self.wal_job(&path, &format!("{id}/{dir}"), &file) {
                    Ok(job) => return Ok(Some(job)),
                    // A name that no current program writes, such as one with another compression
                    Err(error) => {
                        let code = error.code.number();
                        info!("{} {id}/{dir}/{file}: [{code}] {error}", Fault::Other.text());
                        self.errors += 1;
                        if let Some(archive) = self.archives.last_mut() {
                            archive.add_fault(segment_part(&file), Fault::Other);
                        }
                    }
                }
            }
            self.archive_ids.pop_front();
        }
        Ok(None)
    }

    /// Lists the segments of one directory and records their ranges.
    fn start_wal_dir(&mut self, id: &str, path: &RepoPath) -> Result<()> {
        let mut files = self.list(path, is_wal_file)?;
        files.retain(|file| self.settings.wal.has(id, segment_part(file)));
        if files.is_empty() {
            return Ok(());
        }
        let segment_size = match self.archives.last() {
            Some(archive) if archive.segment_size != 0 => archive.segment_size,
            _ => self.first_segment_size(path, &files),
        };
        if let Some(archive) = self.archives.last_mut() {
            archive.segment_size = segment_size;
            archive.total = archive.total.saturating_add(u32::try_from(files.len()).unwrap_or(u32::MAX));
            self.errors += add_ranges(archive, &mut files);
        }
        self.wal_files = files;
        Ok(())
    }

    /// Returns the segment size from the first readable segment; 0 if none is readable, each of which is then a fault
    /// of its own. pgBackRest gives up at the first one.
    fn first_segment_size(&self, path: &RepoPath, files: &VecDeque<String>) -> u32 {
        for file in files {
            let size = path.join(file).and_then(|path| self.settings.retry.run(|| self.segment_size(&path)));
            match size {
                Ok(size) => return size,
                Err(error) => detail!("unable to get the segment size from '{file}': {error}"),
            }
        }
        0
    }

    fn segment_size(&self, path: &RepoPath) -> Result<u32> {
        let storage = &*self.settings.repo.storage;
        let stored = storage.read(path, ReadRange::default())?.ok_or_else(|| storage::missing(storage, path))?;
        let plain = Decryptor::new(&self.settings.archive_cipher, Framing::Full, stored);
        let kind = CompressType::from_file_name(path.file_name())?;
        let mut header = Vec::new();
        std::io::Read::read_to_end(
            &mut std::io::Read::take(decode::decompressor(kind, plain, WAL_HEADER_BYTES)?, WAL_HEADER_BYTES),
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
                size: (segment_size != 0).then_some(u64::from(segment_size)),
                block: None,
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
        match self.load_manifest(&mut result) {
            None => {}
            Some(manifest) if manifest.files.is_empty() => {
                info!("backup '{label}' manifest does not contain any target files to verify");
                self.errors += 1;
                result.status = BackupStatus::Invalid;
            }
            Some(manifest) => {
                self.references = Arc::new(manifest.references.clone());
                if !manifest.data.bundle {
                    self.plain.insert(label);
                }
                self.manifest = Some((manifest, 0));
            }
        }
        self.backups.push(result);
    }

    /// Returns a backup's manifest if it can be used. Otherwise the result contains the reason.
    fn load_manifest(&mut self, result: &mut BackupResult) -> Option<Manifest> {
        let label = &result.label;
        let pair = Pair {
            repo: self.settings.repo,
            path: layout::manifest(self.settings.stanza, label),
            shown: format!("<REPO:BACKUP>/{label}/{}", layout::BACKUP_MANIFEST),
            cipher: &self.settings.manifest_cipher,
            retry: self.settings.retry,
        };
        let file = pair.load_file(&|reader, origin| Manifest::read(reader, origin));
        if self.settings.current_backup.as_ref() == Some(label)
            && file.as_ref().is_err_and(|error| error.code == ErrorCode::FileMissing)
        {
            info!("backup '{label}' appears to be in progress, skipping");
            result.status = BackupStatus::InProgress;
            return None;
        }
        let manifest = match pair.with_copy(file, &|reader, origin| Manifest::read(reader, origin)) {
            Ok(found) => {
                if found.from_copy {
                    detail!("{label}/backup.manifest is missing or unusable, using copy");
                } else if found.repair.is_some() {
                    detail!("backup '{label}' manifest.copy does not match manifest");
                }
                if let Some(repair) = found.repair {
                    self.half_whole.push(HalfWhole { kind: Kind::Manifest, path: pair.path.clone(), repair });
                }
                Some(found.content)
            }
            Err(unusable) if unusable.is_missing() => {
                detail!("manifest missing for '{label}' - backup may have expired");
                result.status = BackupStatus::ManifestMissing;
                return None;
            }
            Err(unusable) => {
                self.unread.add_pair(&pair.shown, &unusable);
                None
            }
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

    /// Applies results that had to wait for other files. Call it when all results are known.
    pub fn settle(&mut self) {
        for item in std::mem::take(&mut self.deferred) {
            match self.known.outcome(&item.needs) {
                Outcome::Fault(fault) => self.conclude(&item, Some(fault)),
                // No result is pending any more
                Outcome::Valid | Outcome::Waiting => self.conclude(&item, None),
            }
        }
    }

    /// Gives a file the result that follows from the files that it needs, now or when their results are known.
    fn follow(&mut self, item: Deferred) {
        match self.known.outcome(&item.needs) {
            Outcome::Waiting => self.deferred.push(item),
            Outcome::Fault(fault) => self.conclude(&item, Some(fault)),
            Outcome::Valid => self.conclude(&item, None),
        }
    }

    fn conclude(&mut self, item: &Deferred, fault: Option<Fault>) {
        if let Some(own) = &item.own {
            self.known.settle(own, fault);
        }
        self.add_file(item.backup, fault);
    }

    /// Counts a file of a backup.
    fn add_file(&mut self, backup: usize, fault: Option<Fault>) {
        let Some(backup) = self.backups.get_mut(backup) else { return };
        match fault {
            None => backup.valid += 1,
            Some(fault) => backup.add_fault(fault),
        }
    }

    /// The check of one file of a backup, unless it needs none.
    fn backup_file(&mut self, index: usize, manifest: &Manifest, file: &ManifestFile) -> Result<Option<VerifyJob>> {
        let Some(backup) = self.backups.get_mut(index) else { return Ok(None) };
        backup.total += 1;
        // The directory's name counts, even if the manifest has another one
        let holder = if file.reference.is_some() { manifest.holder(file).clone() } else { backup.label.clone() };
        // A bundled backup stores no empty files, and a later plain backup refers to them nevertheless
        let is_nowhere = manifest.data.bundle || (file.reference.is_some() && !self.plain.contains(&holder));
        if file.size == 0 && is_nowhere {
            backup.valid += 1;
            return Ok(None);
        }
        let check = self.file_check(manifest, file, &holder)?;
        let part = check.part();
        if !self.known.add(&part, check.checksum, check.size) {
            self.follow(Deferred { backup: index, needs: vec![part], own: None });
            return Ok(None);
        }
        let root = layout::backup_stanza(self.settings.stanza);
        let path = check.path.as_str();
        let name = path.strip_prefix(root.as_str()).unwrap_or(path).trim_start_matches('/').to_owned();
        Ok(Some(VerifyJob { owner: Owner::Backup(index), name, check }))
    }

    fn file_check(&self, manifest: &Manifest, file: &ManifestFile, holder: &BackupLabel) -> Result<FileCheck> {
        let stanza = self.settings.stanza;
        let compress_type = manifest.data.options.compress_type;
        let cipher = Cipher::from_passphrase(manifest.cipher_pass.as_ref());
        let (path, range) = match file.bundle {
            Some(bundle) => (
                layout::bundle(stanza, holder, bundle.id),
                ReadRange { offset: bundle.offset, limit: Some(file.size_repo) },
            ),
            None => {
                let form = match file.stored_blocks() {
                    Some(_) => FileForm::BlockIncr,
                    None => FileForm::Whole(compress_type),
                };
                (layout::backup_file(stanza, holder, &file.name, form)?, ReadRange::default())
            }
        };
        let block = file.stored_blocks().map(|block| BlockCheck {
            block,
            file_size: file.size,
            cipher: cipher.clone(),
            stanza: stanza.clone(),
            holder: holder.clone(),
            name: file.name.clone(),
            references: Arc::clone(&self.references),
        });
        Ok(match file.checksum_repo {
            Some(checksum) => FileCheck {
                path,
                range,
                cipher: Cipher::None,
                compress_type: CompressType::None,
                checksum,
                size: Some(stored_size(manifest, file)),
                block,
            },
            None => FileCheck {
                path,
                range,
                cipher,
                compress_type,
                // No finished manifest contains a file without a checksum; it fails like a wrong one
                checksum: file.checksum.unwrap_or(Sha1([0; 20])),
                size: Some(file.size),
                block: None,
            },
        })
    }
}

/// Returns the stored size of a file. If it follows from the size of the content, that counts, so that a manifest with
/// inconsistent sizes is a fault.
fn stored_size(manifest: &Manifest, file: &ManifestFile) -> u64 {
    let data = &manifest.data;
    if data.options.compress_type != CompressType::None || file.stored_blocks().is_some() {
        return file.size_repo;
    }
    let framing = if data.bundle_raw && file.bundle.is_some() { Framing::Raw } else { Framing::Full };
    Cipher::from_passphrase(manifest.cipher_pass.as_ref()).encrypted_size(framing, file.size)
}

/// The segment that a file of the archive is named after.
fn segment_part(file: &str) -> &str {
    file.get(..SEGMENT_NAME_LEN).unwrap_or(file)
}

fn is_wal_dir(name: &str) -> bool {
    name.len() == SEGMENT_DIR_LEN && name.bytes().all(is_loose_hex)
}

/// Checks pgBackRest's character range, which includes more than hex digits.
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

/// Adds the segments of one directory to the ranges and removes duplicates, of which none can be trusted. Returns the
/// number of segments with duplicates.
fn add_ranges(archive: &mut ArchiveResult, files: &mut VecDeque<String>) -> u32 {
    let timeline = |segment: &str| segment.get(..8).map(str::to_owned);
    // A gap between directories of one timeline is a gap; another timeline starts a new range
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
