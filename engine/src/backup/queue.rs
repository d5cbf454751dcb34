//! Which worker copies which file when, and into which bundle.
//!
//! Source of the order: pgBackRest `src/command/backup/process.c.inc` (`backupProcessQueueComparator`, `backupJobCallback`)
//! and `protocol.c` (`backupFileComparator`). Files keep the order that they had in the prior backup, so that its block maps
//! are read in sequence.

use std::cmp::Ordering;
use std::collections::VecDeque;

use repo_format::compress::CompressType;
use repo_format::label::BackupLabel;
use repo_format::layout::{self, FileForm, Stanza};
use repo_format::manifest::{Manifest, ManifestFile};

use super::build::FileState;
use super::settings::BundleSettings;
use crate::pg::data_dir::{PG_CONTROL, from_standby};
use crate::pipeline::backup::{BlockJob, CopyJob, FileJob, PriorMap};
use crate::{Error, ErrorCode, Result};

/// What turns a manifest entry into a job.
pub(super) struct JobSettings {
    pub(super) stanza: Stanza,
    pub(super) label: BackupLabel,
    pub(super) compress_type: CompressType,
    pub(super) bundle: Option<BundleSettings>,
    /// Bytes of a super block when this backup stores blocks.
    pub(super) super_block_size: Option<u64>,
    /// Name of the directory with the transaction status.
    pub(super) xact_path: &'static str,
    /// The second data directory is a standby's, and worker 0 alone copies what must come from the primary.
    pub(super) standby: bool,
}

/// Files that are not handed out yet.
pub(super) struct Queues {
    settings: JobSettings,
    /// Indices of files; with a standby the first queue is for the primary, then one for `pg_data` and each tablespace.
    queues: Vec<VecDeque<usize>>,
    next_bundle_id: u64,
}

/// What there is to copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Total {
    pub(super) files: u64,
    pub(super) bytes: u64,
}

impl Queues {
    /// Sorts the files that are to be copied into queues.
    ///
    /// # Errors
    /// [`ErrorCode::FileMissing`] for an online backup without `pg_control`, or when there is nothing to copy at all.
    pub(super) fn build(
        settings: JobSettings,
        manifest: &Manifest,
        states: &[FileState],
        online: bool,
    ) -> Result<(Self, Total)> {
        let mut prefixes = vec!["pg_data/".to_owned()];
        prefixes.extend(
            manifest
                .targets
                .iter()
                .filter(|target| target.tablespace.is_some())
                .map(|target| format!("{}/", target.name)),
        );
        let offset = usize::from(settings.standby);
        let mut queues = vec![Vec::new(); prefixes.len() + offset];
        let mut total = Total::default();
        let mut has_control = false;
        for (index, (file, state)) in manifest.files.iter().zip(states).enumerate() {
            if !state.copy {
                continue;
            }
            has_control |= &*file.name == PG_CONTROL;
            let queue = if settings.standby && !from_standby(&file.name, settings.xact_path) {
                0
            } else {
                let target = prefixes.iter().position(|prefix| file.name.starts_with(prefix.as_str()));
                let Some(target) = target else {
                    let message = format!("backup target not found for '{}'", file.name);
                    return Err(Error::new(ErrorCode::Assert, message));
                };
                target + offset
            };
            queues[queue].push(index);
            total.files += 1;
            total.bytes += file.size_original;
        }
        if !has_control && online {
            return Err(Error::new(ErrorCode::FileMissing, "pg_control must be present in all online backups")
                .hint("is something wrong with the clock or filesystem timestamps?"));
        }
        if total.files == 0 {
            return Err(Error::new(
                ErrorCode::FileMissing,
                "no files have changed since the last backup - this seems unlikely",
            ));
        }
        let limit = settings.bundle.map(|bundle| bundle.limit);
        for queue in &mut queues {
            queue.sort_unstable_by(|&a, &b| compare(manifest, &manifest.files[a], &manifest.files[b], limit));
        }
        Ok((Queues { settings, queues: queues.into_iter().map(VecDeque::from).collect(), next_bundle_id: 1 }, total))
    }

    /// The next job for a worker; `None` when nothing is left for it.
    ///
    /// # Errors
    /// A name in the manifest can't be a path in the repository.
    pub(super) fn next(&mut self, worker: usize, manifest: &Manifest, states: &[FileState]) -> Result<Option<CopyJob>> {
        if self.settings.standby && worker == 0 {
            return self.take(0, 0, manifest, states);
        }
        let offset = usize::from(self.settings.standby);
        let count = self.queues.len() - offset;
        // Workers begin at different queues, which lie on different devices, and go on in different directions
        let mut queue = worker % count;
        for _ in 0..count {
            if let Some(job) = self.take(queue + offset, offset, manifest, states)? {
                return Ok(Some(job));
            }
            queue = if worker.is_multiple_of(2) { (queue + 1) % count } else { (queue + count - 1) % count };
        }
        Ok(None)
    }

    /// Takes a job from the head of one queue.
    fn take(
        &mut self,
        queue: usize,
        data_dir: usize,
        manifest: &Manifest,
        states: &[FileState],
    ) -> Result<Option<CopyJob>> {
        let Some(&first) = self.queues[queue].front() else { return Ok(None) };
        let file = &manifest.files[first];
        let bundle = self.settings.bundle.filter(|bundle| file.size <= bundle.limit);
        let mut files = Vec::new();
        let mut size = 0;
        while let Some(index) = self.queues[queue].pop_front() {
            files.push(self.file_job(index, manifest, &states[index])?);
            size += manifest.files[index].size_original;
            if bundle.is_none_or(|bundle| size >= bundle.size) {
                break;
            }
        }
        files.sort_by(compare_in_job);
        let (path, bundle_id) = if bundle.is_some() {
            let id = self.next_bundle_id;
            self.next_bundle_id += 1;
            (layout::bundle(&self.settings.stanza, &self.settings.label, id), Some(id))
        } else {
            let form = match files.first().and_then(|file: &FileJob| file.block.as_ref()) {
                Some(_) => FileForm::BlockIncr,
                None => FileForm::Whole(self.settings.compress_type),
            };
            (layout::backup_file(&self.settings.stanza, &self.settings.label, &file.name, form)?, None)
        };
        Ok(Some(CopyJob { path, bundle_id, data_dir, files }))
    }

    fn file_job(&self, index: usize, manifest: &Manifest, state: &FileState) -> Result<FileJob> {
        let file = &manifest.files[index];
        let block = match (self.settings.super_block_size, &file.block) {
            (Some(super_block_size), Some(block)) => {
                let prior = match (block.map_size, state.resume) {
                    (0, _) | (_, true) => None,
                    (map_size, false) => Some(PriorMap {
                        path: self.reference_path(manifest, file)?,
                        offset: (file.bundle.map_or(0, |bundle| bundle.offset) + file.size_repo)
                            .checked_sub(map_size)
                            .ok_or_else(|| {
                                let message = format!("block map of '{}' is larger than the stored file", file.name);
                                Error::new(ErrorCode::Format, message)
                            })?,
                        size: map_size,
                    }),
                };
                Some(BlockJob { block_size: block.size, checksum_size: block.checksum_size, super_block_size, prior })
            }
            _ => None,
        };
        Ok(FileJob {
            index,
            name: file.name.clone(),
            size: file.size,
            size_original: file.size_original,
            exact_size: from_standby(&file.name, self.settings.xact_path),
            delta: state.delta,
            resume: state.resume,
            has_reference: file.reference.is_some(),
            checksum: file.checksum,
            checksum_repo: file.checksum_repo,
            size_repo: file.size_repo,
            page_check: file.page_check.is_some(),
            block,
        })
    }

    /// Where the prior backup has a block incremental file.
    fn reference_path(&self, manifest: &Manifest, file: &ManifestFile) -> Result<layout::RepoPath> {
        let label = reference(manifest, file).ok_or_else(|| {
            Error::new(ErrorCode::Assert, format!("file '{}' has a block map but no reference", file.name))
        })?;
        match file.bundle {
            Some(bundle) => Ok(layout::bundle(&self.settings.stanza, label, bundle.id)),
            None => layout::backup_file(&self.settings.stanza, label, &file.name, FileForm::BlockIncr),
        }
    }
}

/// The backup that holds the file, unless it is this one.
fn reference<'a>(manifest: &'a Manifest, file: &ManifestFile) -> Option<&'a BackupLabel> {
    file.reference.map(|_| manifest.holder(file))
}

/// The order of a queue: large files first, so that no worker is left with one at the end; then small ones as in the prior
/// backup, new ones by age.
fn compare(manifest: &Manifest, a: &ManifestFile, b: &ManifestFile, bundle_limit: Option<u64>) -> Ordering {
    let bundled = |file: &ManifestFile| bundle_limit.is_some_and(|limit| file.size <= limit);
    match (bundled(a), bundled(b)) {
        (false, true) => return Ordering::Less,
        (true, false) => return Ordering::Greater,
        (false, false) => return b.size.cmp(&a.size).then_with(|| a.name.cmp(&b.name)),
        (true, true) => {}
    }
    let by_place = match (reference(manifest, a), reference(manifest, b)) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Greater,
        (Some(_), None) => Ordering::Less,
        (Some(label_a), Some(label_b)) => {
            let place = |file: &ManifestFile| file.bundle.map_or((0, 0), |bundle| (bundle.id, bundle.offset));
            label_a.cmp(label_b).then_with(|| place(a).cmp(&place(b)))
        }
    };
    by_place.then_with(|| a.timestamp.cmp(&b.timestamp)).then_with(|| a.name.cmp(&b.name))
}

/// The order of files in one bundle: block incremental files by the place of their prior maps, then whole files by size.
fn compare_in_job(a: &FileJob, b: &FileJob) -> Ordering {
    fn map(file: &FileJob) -> Option<(&str, u64)> {
        file.block.as_ref()?.prior.as_ref().map(|prior| (prior.path.as_str(), prior.offset))
    }
    b.block
        .is_some()
        .cmp(&a.block.is_some())
        .then_with(|| map(a).cmp(&map(b)))
        .then_with(|| a.size.cmp(&b.size))
        .then_with(|| a.name.cmp(&b.name))
}
