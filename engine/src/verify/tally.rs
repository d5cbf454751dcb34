//! Counts results: which archives and backups each of them concerns, and what the report says about them.

use std::collections::BTreeSet;
use std::sync::Arc;

use repo_format::label::BackupLabel;

use super::file::{Checked, FileCheck, FileFault, StoredPart};
use super::memory::{FileKey, StateMark, Unseen};
use super::parts::{OpenMap, PartResults, Standing};
use super::plan::{BackupState, CheckStep, NamedCheck, Segments, segment_part};
use super::report::{ArchiveResult, BackupResult, BackupStatus};
use super::unread::Unread;
use crate::{Error, Result, detail, info, warn};

/// The number of invalid files that the error of the command names.
const FIRST_FAULTS_MAX: usize = 5;

/// A file to check, and what its result belongs to.
#[derive(Debug)]
pub(super) struct VerifyJob {
    subject: Subject,
    /// The path in messages.
    name: String,
    /// What to check.
    pub check: FileCheck,
    /// The record to make of the result.
    pub record: Option<PendingRecord>,
    /// The file is known to be good. Read only its block map, for what it needs.
    pub only_map: bool,
}

/// What will be recorded of a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct PendingRecord {
    pub key: FileKey,
    /// When the check began, in seconds since the epoch.
    pub time: u32,
    /// What the repository showed of the file; `None` if that is not known.
    pub state: Option<StateMark>,
}

/// An archive or backup, by its index among the results.
#[derive(Clone, Copy, Debug)]
enum Subject {
    Archive(usize),
    Backup(usize),
}

/// A file whose result follows from those of other files.
struct Deferred {
    /// Index of the backup that it belongs to.
    backup: usize,
    /// The parts that it needs. All of them have been handed out to be checked.
    needs: Vec<StoredPart>,
    /// The part that it is itself, if others may need it.
    own: Option<StoredPart>,
}

/// The block maps of a backup that were not followed, because the files are remembered as good.
#[derive(Default)]
struct BackupMaps {
    /// The backups that they may refer to.
    references: Arc<Vec<BackupLabel>>,
    /// Their number.
    open: u32,
}

/// The results so far.
#[derive(Default)]
pub(super) struct Tally {
    parts: PartResults,
    /// What the files of each backup may need of others.
    maps: Vec<BackupMaps>,
    /// Whether an earlier pass has told what every pass finds.
    is_told: bool,
    /// What becomes of the records of files that no manifest names.
    pub unseen: Unseen,
    /// Files that depend on others whose results are not known yet, in the order in which they were found.
    deferred: Vec<Deferred>,
    pub archives: Vec<ArchiveResult>,
    pub backups: Vec<BackupResult>,
    /// Number of faults.
    pub errors: u32,
    /// Those of the errors that say nothing about the content.
    pub unread: Unread,
    /// The first few invalid files, as they were logged.
    pub first_faults: Vec<String>,
}

impl Tally {
    /// Begins another pass, which counts everything again. What could not be read and the first faults were told already.
    pub fn after(earlier: Tally) -> Self {
        let unread = earlier.unread.begin_pass();
        Tally {
            unread,
            first_faults: earlier.first_faults,
            is_told: !earlier.archives.is_empty() || !earlier.backups.is_empty(),
            ..Tally::default()
        }
    }

    /// Number of faults that are certain.
    pub fn known_faults(&self) -> u32 {
        self.errors.saturating_sub(self.unread.total)
    }

    /// Records a step, and returns the file to check if it is about one.
    pub fn take(&mut self, step: CheckStep) -> Option<VerifyJob> {
        match step {
            CheckStep::Archive(id) => self.archives.push(ArchiveResult::new(id)),
            CheckStep::Segments(segments) => self.add_segments(&segments),
            CheckStep::BadSegment { file, error } => {
                if !self.is_told {
                    info!("{} {}: [{}] {error}", FileFault::Other.text(), file.name, error.code.number());
                }
                self.errors += 1;
                if let Some(archive) = self.archives.last_mut() {
                    archive.add_fault(&file.segment, FileFault::Other);
                    archive.bad.push(file.segment);
                }
            }
            CheckStep::CheckSegment(NamedCheck { name, check }) => {
                let subject = Subject::Archive(self.archives.len().saturating_sub(1));
                return Some(VerifyJob { subject, name, check, record: None, only_map: false });
            }
            CheckStep::Backup(label, state) => self.begin_backup(label, state),
            CheckStep::CheckFile(NamedCheck { name, check }) => {
                self.parts.begin(&check.part(), check.block.is_some());
                let subject = Subject::Backup(self.count_file());
                return Some(VerifyJob { subject, name, check, record: None, only_map: false });
            }
            CheckStep::Follow(part) => {
                let backup = self.count_file();
                self.follow(Deferred { backup, needs: vec![part], own: None });
            }
            CheckStep::Nowhere => {
                let backup = self.count_file();
                self.settle_file(backup, None);
            }
        }
        None
    }

    /// Records a result: a fault and the other parts that the file needs, or why it could not be checked.
    pub fn add_result(&mut self, worker: u32, job: &VerifyJob, result: Result<Checked>) {
        let (fault, needs) = match result {
            Ok(Checked { fault, needs }) => {
                if let Some(fault) = fault {
                    self.log_fault(worker, job, fault);
                }
                (fault, needs)
            }
            Err(error) => {
                self.log_error(worker, job, &error);
                (Some(FileFault::Other), Vec::new())
            }
        };
        self.settle_job(job, fault, needs);
    }

    /// Records a result that is known without reading the file now.
    pub fn add_known(&mut self, job: &VerifyJob, fault: Option<FileFault>) {
        if let Some(fault) = fault
            && !(fault == FileFault::Missing && matches!(job.subject, Subject::Archive(_)))
        {
            self.errors += 1;
        }
        if let (None, Subject::Backup(backup), Some(_)) = (fault, job.subject, &job.check.block) {
            self.parts.set_open_map(&job.check.part(), OpenMap::NotRead);
            self.add_open_map(backup, OpenMap::NotRead);
        }
        self.settle_job(job, fault, Vec::new());
    }

    /// Records that nothing is known about a file.
    pub fn add_left(&mut self, job: &VerifyJob) {
        match job.subject {
            Subject::Archive(index) => {
                if let Some(archive) = self.archives.get_mut(index) {
                    archive.leave(segment_of(&job.name));
                }
            }
            Subject::Backup(index) => {
                self.parts.leave(&job.check.part());
                self.settle_left(index);
            }
        }
    }

    /// Records that something that allows to recover can't be used, which pgBackRest does not look at.
    pub fn add_unusable(&mut self, name: &str, error: &Error) {
        self.errors += 1;
        if !self.unread.add(name, error) {
            warn!("{name} can't be used: {error}");
        }
    }

    /// Records that something could not be read, which is neither a file of an archive nor of a backup.
    pub fn add_unread(&mut self, name: &str, error: &Error) {
        self.errors += 1;
        self.unread.count(name, error);
    }

    fn settle_job(&mut self, job: &VerifyJob, fault: Option<FileFault>, needs: Vec<StoredPart>) {
        match (job.subject, fault) {
            (Subject::Archive(index), fault) => self.settle_segment(index, &job.name, fault),
            (Subject::Backup(backup), None) => {
                self.follow(Deferred { backup, needs, own: Some(job.check.part()) });
            }
            (Subject::Backup(backup), fault) => {
                self.parts.settle(&job.check.part(), fault);
                self.settle_file(backup, fault);
            }
        }
    }

    /// Applies results that had to wait for other files. Call it when all results are known.
    pub fn settle(&mut self) {
        // A result may be that of a file that waits itself
        loop {
            let items = std::mem::take(&mut self.deferred);
            let before = items.len();
            for item in items {
                self.follow(item);
            }
            if self.deferred.len() == before {
                break;
            }
        }
        // Block maps that refer to each other in a circle
        for item in std::mem::take(&mut self.deferred) {
            self.conclude(&item, None);
        }
        self.settle_open_maps();
    }

    /// Files whose block maps were not followed may need blocks of any backup that their own one refers to.
    fn settle_open_maps(&mut self) {
        let is_read = |backup: &&BackupResult| backup.total > 0 && backup.left == 0;
        let read: BTreeSet<BackupLabel> = self.backups.iter().filter(is_read).map(|it| it.label.clone()).collect();
        for (backup, maps) in self.backups.iter_mut().zip(&self.maps) {
            let is_open = |label: &BackupLabel| *label != backup.label && !read.contains(label);
            if maps.references.iter().any(is_open) {
                backup.unproven = backup.unproven.saturating_add(maps.open);
            }
        }
    }

    fn add_open_map(&mut self, backup: usize, open: OpenMap) {
        match (open, self.maps.get_mut(backup), self.backups.get_mut(backup)) {
            (OpenMap::NotRead, Some(maps), _) => maps.open += 1,
            (OpenMap::Unchecked, _, Some(backup)) => backup.unproven += 1,
            _ => {}
        }
    }

    /// Gives the backups of which not all was read a status of their own.
    pub fn mark_unproven(&mut self) {
        let is_open = |backup: &&mut BackupResult| backup.left > 0 || backup.unproven > 0;
        for backup in self.backups.iter_mut().filter(is_open).filter(|backup| backup.status == BackupStatus::Valid) {
            backup.status = BackupStatus::NotAllRead;
        }
    }

    /// Returns the backups that hold a bad file, so that others that need a part of it are bad, too.
    pub fn bad_holders(&self) -> BTreeSet<BackupLabel> {
        let label = |path: &str| path.split('/').nth(2)?.parse().ok();
        self.parts.faulty_paths().filter_map(label).collect()
    }

    /// Begins a directory of segments.
    fn add_segments(&mut self, segments: &Segments) {
        let Some(archive) = self.archives.last_mut() else { return };
        for segment in &segments.duplicate {
            if !self.is_told {
                info!("duplicate WAL '{segment}' for '{}' exists, skipping", archive.id);
            }
            self.errors += 1;
        }
        if segments.single.is_empty() {
            detail!("path '{}' does not contain any valid WAL to be processed", segments.dir);
        }
        archive.segment_size = segments.segment_size;
        archive.total = archive.total.saturating_add(u32::try_from(segments.total).unwrap_or(u32::MAX));
        for segment in &segments.single {
            archive.add_segment(segment);
        }
    }

    fn begin_backup(&mut self, label: BackupLabel, state: BackupState) {
        let mut maps = BackupMaps::default();
        let mut unseen = Unseen::KeepBad;
        let status = match state {
            BackupState::Checked(references) => {
                (maps.references, unseen) = (references, Unseen::Forget);
                BackupStatus::Valid
            }
            BackupState::InProgress => {
                unseen = Unseen::Forget;
                self.tell(&format!("backup '{label}' appears to be in progress, skipping"));
                BackupStatus::InProgress
            }
            BackupState::ManifestMissing => {
                detail!("manifest missing for '{label}' - backup may have expired");
                BackupStatus::ManifestMissing
            }
            BackupState::Unusable { shown, unusable } => {
                if self.unread.add_pair(&shown, &unusable) {
                    unseen = Unseen::KeepAll;
                }
                BackupStatus::Invalid
            }
            BackupState::Foreign { pg_id, pg_version, pg_system_id } => {
                self.tell(&format!(
                    "'{label}' may not be recoverable - PG data (id {pg_id}, version {pg_version}, system-id \
                     {pg_system_id}) is not in the backup.info history, skipping"
                ));
                BackupStatus::Invalid
            }
            BackupState::NoFiles => {
                self.tell(&format!("backup '{label}' manifest does not contain any target files to verify"));
                BackupStatus::Invalid
            }
        };
        self.unseen = self.unseen.max(unseen);
        self.maps.push(maps);
        self.errors += u32::from(status == BackupStatus::Invalid);
        self.backups.push(BackupResult { status, ..BackupResult::new(label) });
    }

    /// Logs what every pass finds, once.
    fn tell(&self, text: &str) {
        if !self.is_told {
            info!("{text}");
        }
    }

    /// Counts a file of the latest backup, and returns the backup's index.
    fn count_file(&mut self) -> usize {
        if let Some(backup) = self.backups.last_mut() {
            backup.total += 1;
        }
        self.backups.len().saturating_sub(1)
    }

    /// Gives a file the result that follows from the files that it needs, now or when their results are known.
    fn follow(&mut self, item: Deferred) {
        match self.parts.standing(&item.needs) {
            Standing::Waiting => self.deferred.push(item),
            Standing::Fault(fault) => self.conclude(&item, Some(fault)),
            Standing::Valid => {
                self.find_open_map(&item);
                self.conclude(&item, None);
            }
            Standing::Left => {
                if let Some(own) = &item.own {
                    self.parts.leave(own);
                }
                self.settle_left(item.backup);
            }
        }
    }

    fn settle_left(&mut self, backup: usize) {
        if let Some(backup) = self.backups.get_mut(backup) {
            backup.left += 1;
        }
    }

    /// Finds out whether all is known that the map of a good file refers to: of the file itself, or of the one that it is in
    /// another backup.
    fn find_open_map(&mut self, item: &Deferred) {
        let open = match &item.own {
            Some(own) if !self.parts.knows_blocks(&item.needs) => {
                self.parts.set_open_map(own, OpenMap::Unchecked);
                Some(OpenMap::Unchecked)
            }
            Some(_) => None,
            None => item.needs.iter().find_map(|part| self.parts.open_map(part)),
        };
        if let Some(open) = open {
            self.add_open_map(item.backup, open);
        }
    }

    fn conclude(&mut self, item: &Deferred, fault: Option<FileFault>) {
        if let Some(own) = &item.own {
            self.parts.settle(own, fault);
        }
        self.settle_file(item.backup, fault);
    }

    fn settle_file(&mut self, backup: usize, fault: Option<FileFault>) {
        let Some(backup) = self.backups.get_mut(backup) else { return };
        match fault {
            None => backup.valid += 1,
            Some(fault) => backup.add_fault(fault),
        }
    }

    fn settle_segment(&mut self, archive: usize, name: &str, fault: Option<FileFault>) {
        let Some(archive) = self.archives.get_mut(archive) else { return };
        match fault {
            None => archive.valid += 1,
            Some(fault) => {
                let segment = segment_of(name);
                archive.add_fault(segment, fault);
                archive.bad.push(segment.to_owned());
            }
        }
    }

    fn log_fault(&mut self, worker: u32, job: &VerifyJob, fault: FileFault) {
        let text = format!("{} '{}'", fault.text(), job.name);
        // Expire may just have removed a segment, so this is not an error
        if fault == FileFault::Missing && matches!(job.subject, Subject::Archive(_)) {
            warn!(process: worker, "{text}");
        } else {
            self.count_error(worker, text);
        }
    }

    fn log_error(&mut self, worker: u32, job: &VerifyJob, error: &Error) {
        self.unread.add(&job.name, error);
        let text = format!("{} {}: [{}] {error}", FileFault::Other.text(), job.name, error.code.number());
        self.count_error(worker, text);
    }

    fn count_error(&mut self, worker: u32, text: String) {
        info!(process: worker, "{text}");
        self.errors += 1;
        if self.first_faults.len() < FIRST_FAULTS_MAX && !self.first_faults.contains(&text) {
            self.first_faults.push(text);
        }
    }
}

/// The segment that a file is named after.
fn segment_of(name: &str) -> &str {
    segment_part(name.rsplit('/').next().unwrap_or_default())
}

#[cfg(test)]
mod tests;
