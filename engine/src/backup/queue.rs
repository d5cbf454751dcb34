//! Assigns files to workers and bundles, and decides their order.
//!
//! Source of the order: pgBackRest `src/command/backup/process.c.inc` (`backupProcessQueueComparator`,
//! `backupJobCallback`) and `protocol.c` (`backupFileComparator`). Files keep their order in the prior backup, so that
//! its block maps are read sequentially.

use std::cmp::Ordering;
use std::collections::VecDeque;

use repo_format::compress::CompressType;
use repo_format::label::BackupLabel;
use repo_format::layout::{self, FileForm, RepoPath, Stanza};
use repo_format::manifest::ManifestFile;

use super::draft::{BackupFile, Draft};
use super::settings::BundleSettings;
use crate::pg::data_dir::{PG_CONTROL, from_standby};
use crate::pipeline::LONG_MIN_BYTES;
use crate::pipeline::backup::{BlockJob, CopyFile, CopyFrom, CopyJob, PriorMap};
use crate::{Error, ErrorCode, Result};

/// A smaller file is compressed by one thread.
const PARALLEL_MIN_BYTES: u64 = 16 << 20;

/// Settings for converting manifest entries to jobs.
pub(super) struct JobSettings {
    pub(super) stanza: Stanza,
    pub(super) label: BackupLabel,
    /// The references of the manifest.
    pub(super) references: Vec<BackupLabel>,
    pub(super) compress_type: CompressType,
    pub(super) bundle: Option<BundleSettings>,
    /// Bytes of a super block when this backup stores blocks.
    pub(super) super_block_size: Option<u64>,
    /// Name of the directory with the transaction status.
    pub(super) xact_path: &'static str,
    /// Whether files are copied from a standby. Then only worker 0 copies what must come from the primary.
    pub(super) standby: bool,
    /// Maximum number of threads that compress at the same time.
    pub(super) threads_max: usize,
    /// Maximum number of long jobs while there are short ones.
    pub(super) long_max: usize,
    /// The number of workers, if they may be in different processes of another host, which do not share their right to compute.
    /// Otherwise 0.
    pub(super) workers_apart: usize,
}

/// The jobs of a worker in progress.
#[derive(Clone, Copy, Default)]
struct Load {
    long: usize,
    short: usize,
    has_asked: bool,
}

/// Files that no worker has taken yet.
pub(super) struct Queues {
    settings: JobSettings,
    /// Indices of files. With a standby, the first queue is for the primary. Then there is one for `pg_data` and one
    /// for each tablespace.
    queues: Vec<VecDeque<u32>>,
    next_bundle_id: u64,
    /// Bytes of the files that are not handed out yet.
    bytes_left: u64,
    /// Threads that are compressing large files.
    threads_used: usize,
    /// Long jobs in progress.
    long_running: usize,
    /// What workers do that are apart.
    loads: Vec<Load>,
}

/// The total to copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Total {
    pub(super) files: u64,
    pub(super) bytes: u64,
}

/// Returns where a worker, counted from 0, copies from. With a standby, only the first one copies from the primary.
pub(super) fn worker_source(standby: bool, worker: usize) -> CopyFrom {
    if standby && worker > 0 { CopyFrom::Standby } else { CopyFrom::Primary }
}

impl Load {
    /// The number of jobs like this one.
    fn count(&mut self, job: &CopyJob) -> &mut usize {
        if job.is_long() { &mut self.long } else { &mut self.short }
    }
}

impl Queues {
    /// Sorts the files to copy into queues.
    ///
    /// # Errors
    /// [`ErrorCode::FileMissing`] for an online backup without `pg_control`, or if there is nothing to copy.
    pub(super) fn build(settings: JobSettings, draft: &Draft, online: bool) -> Result<(Self, Total)> {
        let tablespaces = draft.manifest.targets.iter().filter(|target| target.tablespace.is_some());
        let mut prefixes = vec!["pg_data/".to_owned()];
        prefixes.extend(tablespaces.map(|target| format!("{}/", target.name)));
        let mut queues = vec![Vec::new(); prefixes.len() + usize::from(settings.standby)];
        let mut total = Total::default();
        let mut has_control = false;
        for (index, file) in (0u32..).zip(&draft.files).filter(|(_, file)| file.pending().is_some()) {
            has_control |= &*file.entry.name == PG_CONTROL;
            queues[settings.queue_of(&file.entry.name, &prefixes)?].push(index);
            total.files += 1;
            total.bytes += file.entry.size_original;
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
        for queue in &mut queues {
            let entry = |index: &u32| &draft.files[*index as usize].entry;
            queue.sort_unstable_by(|a, b| settings.compare(entry(a), entry(b)));
        }
        let loads = vec![Load::default(); settings.workers_apart];
        let queues = Queues {
            settings,
            loads,
            queues: queues.into_iter().map(VecDeque::from).collect(),
            next_bundle_id: 1,
            bytes_left: total.bytes,
            threads_used: 0,
            long_running: 0,
        };
        Ok((queues, total))
    }

    /// Records that a worker, counted from 0, has done a job. Its thread asks for the next one after that.
    pub(super) fn done(&mut self, worker: usize, job: &CopyJob) {
        if job.threads > 1 {
            self.threads_used -= job.threads;
        }
        if job.is_long() {
            self.long_running -= 1;
        }
        if let Some(load) = self.loads.get_mut(worker) {
            *load.count(job) -= 1;
        }
    }

    /// Returns whether a long job is better left to another worker: one that does fewer, and will surely ask for a job soon. In one
    /// process two would compute one after the other, while another process has nothing to do.
    fn leaves_long(&self, worker: usize) -> bool {
        // With a standby, the first one has files that nobody else copies
        let from = usize::from(self.settings.standby);
        let Some(own) = self.loads.get(worker).filter(|_| worker >= from && self.settings.bundle.is_none()) else {
            return false;
        };
        self.loads[from..].iter().any(|other| other.long < own.long && (other.short > 0 || !other.has_asked))
    }

    /// Returns the next file of a queue. While enough threads compute for long, the others take short files, which
    /// mostly wait for the server. `leaves_long` tells to take a short file, or none if only the last long ones are left.
    fn pop<'f>(&mut self, queue: usize, leaves_long: bool, files: &'f [BackupFile]) -> Option<&'f BackupFile> {
        let is_one_of_last = self.queues.iter().map(VecDeque::len).sum::<usize>() <= self.loads.len();
        let long = self.long_running >= self.settings.long_max && self.settings.bundle.is_none();
        let queue = &mut self.queues[queue];
        let file = |index: &u32| &files[*index as usize];
        let is_short = |index: &u32| file(index).entry.size_original < LONG_MIN_BYTES;
        let index = match queue.back().is_some_and(is_short) {
            true if long || leaves_long => queue.pop_back(),
            false if leaves_long && is_one_of_last => None,
            _ => queue.pop_front(),
        };
        index.as_ref().map(file)
    }

    /// Returns how many threads compress a file of this size. If it is larger than a worker's share of the remaining
    /// bytes, the other workers would have nothing to do at the end.
    fn threads(&mut self, size: u64) -> usize {
        if size < PARALLEL_MIN_BYTES {
            return 1;
        }
        let all = self.settings.threads_max as u64;
        // Rounded, so that a file slightly larger than a share is not split
        let share = (size.saturating_mul(all * 2) / self.bytes_left.max(1)).div_ceil(2).min(all) as usize;
        let threads = share.min(self.settings.threads_max.saturating_sub(self.threads_used));
        if threads <= 1 {
            return 1;
        }
        self.threads_used += threads;
        threads
    }

    /// Returns the next job for a worker; `None` if nothing is left for it.
    ///
    /// # Errors
    /// A name in the manifest can't be a path in the repository.
    pub(super) fn next(&mut self, worker: usize, files: &[BackupFile]) -> Result<Option<CopyJob>> {
        let job = self.next_of(worker, files)?;
        if let Some(load) = self.loads.get_mut(worker) {
            load.has_asked = true;
            job.iter().for_each(|job| *load.count(job) += 1);
        }
        Ok(job)
    }

    fn next_of(&mut self, worker: usize, files: &[BackupFile]) -> Result<Option<CopyJob>> {
        let leaves_long = self.leaves_long(worker);
        let standby = self.settings.standby;
        let from = worker_source(standby, worker);
        if standby && from == CopyFrom::Primary {
            return self.take((0, from), leaves_long, files);
        }
        let offset = usize::from(standby);
        let count = self.queues.len() - offset;
        // Workers begin with different queues, which are on different devices, and continue in different directions
        let mut queue = worker % count;
        for _ in 0..count {
            if let Some(job) = self.take((queue + offset, from), leaves_long, files)? {
                return Ok(Some(job));
            }
            queue = if worker.is_multiple_of(2) { (queue + 1) % count } else { (queue + count - 1) % count };
        }
        Ok(None)
    }

    /// Takes a job from a queue whose files are copied from there.
    fn take(
        &mut self,
        (queue, from): (usize, CopyFrom),
        leaves_long: bool,
        files: &[BackupFile],
    ) -> Result<Option<CopyJob>> {
        let Some(first) = self.pop(queue, leaves_long, files) else { return Ok(None) };
        let bundle = self.settings.bundle.filter(|bundle| first.entry.size <= bundle.limit);
        let mut taken = Vec::new();
        let mut size = 0;
        let mut next = Some(first);
        while let Some(file) = next {
            taken.push(self.settings.copy_file(file)?);
            size += file.entry.size_original;
            let is_full = bundle.is_none_or(|bundle| size >= bundle.size);
            next = if is_full { None } else { self.pop(queue, false, files) };
        }
        taken.sort_by(compare_in_job);
        // Blocks are encoded in parallel in another way
        let threads = match taken.as_slice() {
            [file] if bundle.is_none() && file.block.is_none() => self.threads(size),
            _ => 1,
        };
        self.bytes_left = self.bytes_left.saturating_sub(size);
        let (path, bundle_id) = match bundle {
            Some(_) => {
                let id = self.next_bundle_id;
                self.next_bundle_id += 1;
                (layout::bundle(&self.settings.stanza, &self.settings.label, id), Some(id))
            }
            None => (self.settings.path_alone(first, &taken)?, None),
        };
        let job = CopyJob { from, path, bundle_id, files: taken, threads };
        self.long_running += usize::from(job.is_long());
        Ok(Some(job))
    }
}

impl JobSettings {
    /// Returns the queue of a file. The prefixes are those of the names in each data directory.
    fn queue_of(&self, name: &str, prefixes: &[String]) -> Result<usize> {
        if self.standby && !from_standby(name, self.xact_path) {
            return Ok(0);
        }
        match prefixes.iter().position(|prefix| name.starts_with(prefix.as_str())) {
            Some(target) => Ok(target + usize::from(self.standby)),
            None => Err(Error::new(ErrorCode::Assert, format!("backup target not found for '{name}'"))),
        }
    }

    /// Returns where a file on its own is stored.
    fn path_alone(&self, file: &BackupFile, job: &[CopyFile]) -> Result<RepoPath> {
        let form = match job.first().and_then(|file| file.block.as_ref()) {
            Some(_) => FileForm::BlockIncr,
            None => FileForm::Whole(self.compress_type),
        };
        layout::backup_file(&self.stanza, &self.label, &file.entry.name, form)
    }

    fn copy_file(&self, file: &BackupFile) -> Result<CopyFile> {
        let (Some(method), file) = (file.pending(), &file.entry) else {
            return Err(Error::new(ErrorCode::Assert, format!("file '{}' is not to be copied", file.entry.name)));
        };
        let block = match (self.super_block_size, &file.block) {
            (Some(super_block_size), Some(block)) => {
                let prior = match block.map_size {
                    size if size > 0 && !method.resumes() => Some(self.prior_map(file, size)?),
                    _ => None,
                };
                Some(BlockJob { block_size: block.size, checksum_size: block.checksum_size, super_block_size, prior })
            }
            _ => None,
        };
        Ok(CopyFile {
            name: file.name.clone(),
            method,
            size: file.size,
            size_original: file.size_original,
            exact_size: from_standby(&file.name, self.xact_path),
            has_reference: file.reference.is_some(),
            checksum: file.checksum,
            checksum_repo: file.checksum_repo,
            size_repo: file.size_repo,
            page_check: file.page_check.is_some(),
            block,
        })
    }

    /// Returns where the prior backup has the block map of a file.
    fn prior_map(&self, file: &ManifestFile, map_size: u64) -> Result<PriorMap> {
        let begin = file.bundle.map_or(0, |bundle| bundle.offset);
        let offset = file.size_repo.checked_sub(map_size).and_then(|at| at.checked_add(begin)).ok_or_else(|| {
            let message = format!("block map of '{}' is larger than the stored file", file.name);
            Error::new(ErrorCode::Format, message)
        })?;
        Ok(PriorMap { path: self.reference_path(file)?, offset, size: map_size })
    }

    /// Returns the path of the prior backup's block incremental file.
    fn reference_path(&self, file: &ManifestFile) -> Result<RepoPath> {
        let label = self.reference(file).ok_or_else(|| {
            Error::new(ErrorCode::Assert, format!("file '{}' has a block map but no reference", file.name))
        })?;
        match file.bundle {
            Some(bundle) => Ok(layout::bundle(&self.stanza, label, bundle.id())),
            None => layout::backup_file(&self.stanza, label, &file.name, FileForm::BlockIncr),
        }
    }

    /// Returns the backup that holds the file, unless it is this one.
    fn reference(&self, file: &ManifestFile) -> Option<&BackupLabel> {
        file.reference.map(|index| self.references.get(index as usize).unwrap_or(&self.label))
    }

    /// The order of a queue: large files first, so that no worker is left with one at the end. Then small files in the
    /// order of the prior backup, new files by age.
    fn compare(&self, a: &ManifestFile, b: &ManifestFile) -> Ordering {
        let bundled = |file: &ManifestFile| self.bundle.is_some_and(|bundle| file.size <= bundle.limit);
        match (bundled(a), bundled(b)) {
            (false, true) => return Ordering::Less,
            (true, false) => return Ordering::Greater,
            (false, false) => return b.size.cmp(&a.size).then_with(|| a.name.cmp(&b.name)),
            (true, true) => {}
        }
        let by_place = match (self.reference(a), self.reference(b)) {
            (None, None) => Ordering::Equal,
            (None, Some(_)) => Ordering::Greater,
            (Some(_), None) => Ordering::Less,
            (Some(label_a), Some(label_b)) => {
                let place = |file: &ManifestFile| file.bundle.map_or((0, 0), |bundle| (bundle.id(), bundle.offset));
                label_a.cmp(label_b).then_with(|| place(a).cmp(&place(b)))
            }
        };
        by_place.then_with(|| a.timestamp.cmp(&b.timestamp)).then_with(|| a.name.cmp(&b.name))
    }
}

/// The order of files in a bundle: block incremental files by the position of their prior maps, then whole files by
/// size.
fn compare_in_job(a: &CopyFile, b: &CopyFile) -> Ordering {
    fn map(file: &CopyFile) -> Option<(&str, u64)> {
        file.block.as_ref()?.prior.as_ref().map(|prior| (prior.path.as_str(), prior.offset))
    }
    b.block
        .is_some()
        .cmp(&a.block.is_some())
        .then_with(|| map(a).cmp(&map(b)))
        .then_with(|| a.size.cmp(&b.size))
        .then_with(|| a.name.cmp(&b.name))
}

#[cfg(test)]
mod tests {
    use repo_format::label::{BackupType, CivilTime};
    use repo_format::manifest::{BlockIncr, Bundle, Manifest, ManifestData, Tablespace, Target, TargetType};
    use repo_format::pg::PgVersion;

    use super::*;
    use crate::backup::draft::{FileState, all_pending};

    fn label(day: u8) -> BackupLabel {
        let time = CivilTime { year: 2026, month: 1, day, hour: 0, minute: 0, second: 0 };
        BackupLabel::format(BackupType::Full, None, &time).unwrap()
    }

    /// Creates the draft of a backup of these files (name, size, time) that refers to two earlier backups and itself.
    fn draft(files: &[(&str, u64, i64)]) -> Draft {
        let data = ManifestData::new(label(3), BackupType::Full, 1_000, PgVersion::V15, 1);
        let mut manifest = Manifest::new(data);
        manifest.references = vec![label(1), label(2), label(3)];
        let target = |name: &str, tablespace| Target {
            name: name.into(),
            target_type: TargetType::Link,
            path: "/x".into(),
            file: None,
            tablespace,
        };
        manifest.targets = vec![
            target("pg_data", None),
            target("pg_data/link", None),
            target("pg_tblspc/1", Some(Tablespace { id: 1, name: "a".into() })),
        ];
        manifest.files = files.iter().map(|(name, size, time)| ManifestFile::new(name, *size, *time)).collect();
        manifest.sort();
        all_pending(manifest)
    }

    fn settings(bundle: Option<BundleSettings>) -> JobSettings {
        JobSettings {
            stanza: "demo".parse().unwrap(),
            label: label(3),
            references: vec![label(1), label(2), label(3)],
            compress_type: CompressType::Zst,
            bundle,
            super_block_size: Some(1 << 20),
            xact_path: "pg_xact",
            standby: false,
            threads_max: 4,
            long_max: 3,
            workers_apart: 0,
        }
    }

    /// Returns the names in each job, in the order in which these workers take them.
    fn jobs(settings: JobSettings, draft: &Draft, workers: &[usize]) -> Vec<(CopyFrom, Vec<String>)> {
        let (mut queues, _) = Queues::build(settings, draft, false).unwrap();
        let mut jobs = Vec::new();
        for worker in workers.iter().cycle().take(100) {
            if let Some(job) = queues.next(*worker, &draft.files).unwrap() {
                let name = |file: &CopyFile| file.name.trim_start_matches("pg_data/").to_owned();
                jobs.push((job.from, job.files.iter().map(name).collect()));
            }
        }
        jobs
    }

    const BUNDLE: BundleSettings = BundleSettings { size: 100, limit: 60 };

    #[test]
    fn files_alone_are_copied_by_size() {
        let draft = draft(&[("pg_data/a", 1, 0), ("pg_data/b", 3, 0), ("pg_data/c", 3, 9), ("pg_data/d", 2, 0)]);
        let names: Vec<String> = jobs(settings(None), &draft, &[0]).into_iter().flat_map(|(_, names)| names).collect();
        assert_eq!(names, ["b", "c", "d", "a"]);
    }

    #[test]
    fn file_larger_than_a_share_gets_threads_that_others_do_not_use() {
        let draft = draft(&[
            ("pg_data/a", 600 << 20, 0),
            ("pg_data/b", 200 << 20, 0),
            ("pg_data/c", 200 << 20, 0),
            ("pg_data/d", 15 << 20, 0),
        ]);
        let (mut queues, _) = Queues::build(settings(None), &draft, false).unwrap();
        let next = |queues: &mut Queues| queues.next(0, &draft.files).unwrap().unwrap();
        let first = next(&mut queues);
        let second = next(&mut queues);
        assert_eq!((first.threads, second.threads), (2, 2), "2.4 and 1.9 of 4");
        queues.done(0, &first);
        let third = next(&mut queues);
        assert_eq!(
            (third.threads, next(&mut queues).threads),
            (2, 1),
            "no more than are free, and none for a small one"
        );
    }

    #[test]
    fn short_files_are_taken_while_enough_long_ones_run() {
        let long = LONG_MIN_BYTES;
        let draft = draft(&[
            ("pg_data/a", long + 3, 0),
            ("pg_data/b", long + 2, 0),
            ("pg_data/c", long + 1, 0),
            ("pg_data/d", long, 0),
            ("pg_data/e", 2, 0),
            ("pg_data/f", 1, 0),
        ]);
        let (mut queues, _) = Queues::build(settings(None), &draft, false).unwrap();
        let mut taken = Vec::new();
        for number in 0..6 {
            let job = queues.next(0, &draft.files).unwrap().unwrap();
            let name = &*job.files[0].name;
            assert_eq!(job.path.as_str(), format!("backup/demo/20260103-000000F/{name}.zst"));
            taken.push(name.trim_start_matches("pg_data/").to_owned());
            // One of the long jobs ends before the fifth is taken
            if number == 3 {
                queues.long_running -= 1;
            }
        }
        assert_eq!(taken, ["a", "b", "c", "f", "d", "e"]);
    }

    /// Settings of two workers in two processes.
    fn apart() -> JobSettings {
        JobSettings { workers_apart: 2, ..settings(None) }
    }

    /// Long files from `a` on, then short ones.
    fn long_and_short(long: u64, short: u64) -> Draft {
        long_and_short_in(&["pg_data"], long, short)
    }

    /// The same in these directories in turn.
    fn long_and_short_in(directories: &[&str], long: u64, short: u64) -> Draft {
        let names: Vec<String> =
            directories.iter().cycle().zip('a'..='z').map(|(directory, name)| format!("{directory}/{name}")).collect();
        let sizes = (0..long).map(|index| LONG_MIN_BYTES + long - index).chain((0..short).map(|index| short - index));
        let files: Vec<_> = names.iter().zip(sizes).map(|(name, size)| (name.as_str(), size, 0)).collect();
        draft(&files)
    }

    #[test]
    fn long_jobs_of_a_far_cluster_came_to_one_process_while_another_had_none() {
        let draft = long_and_short(4, 2);
        let (mut queues, _) = Queues::build(apart(), &draft, false).unwrap();
        let mut next = |worker| {
            let job = queues.next(worker, &draft.files).unwrap();
            job.map_or(String::new(), |job| job.files[0].name.trim_start_matches("pg_data/").to_owned())
        };
        // The threads of the first worker were faster
        assert_eq!([0, 0, 1, 1, 0, 0, 0, 1].map(&mut next), ["a", "f", "b", "c", "e", "d", "", ""]);
    }

    #[test]
    fn last_long_job_is_left_to_a_worker_with_fewer_that_will_ask_for_it() {
        let draft = long_and_short(2, 1);
        let begin = || Queues::build(apart(), &draft, false).unwrap().0;
        let mut queues = begin();
        let mut next = |worker| queues.next(worker, &draft.files).unwrap();
        assert!(next(0).unwrap().is_long());
        let short = next(0).unwrap();
        assert!(next(0).is_none(), "the second worker is about to ask");
        assert!(next(1).unwrap().is_long());
        assert!(!short.is_long() && next(1).is_none());
        // One whose threads have nothing to do is not waited for
        let mut queues = begin();
        queues.loads[1].has_asked = true;
        for _ in 0..2 {
            assert!(queues.next(0, &draft.files).unwrap().unwrap().is_long());
        }
        // One that does something short is
        let mut queues = begin();
        queues.next(0, &draft.files).unwrap();
        let short = queues.next(1, &draft.files).unwrap();
        assert!(short.is_some_and(|job| job.is_long()));
        let short = queues.next(1, &draft.files).unwrap().unwrap();
        assert!(!short.is_long());
        queues.queues[0].push_back(0);
        queues.loads[1].long = 0;
        assert!(queues.next(0, &draft.files).unwrap().is_none());
        queues.done(1, &short);
        assert!(queues.next(1, &draft.files).unwrap().unwrap().is_long());
    }

    #[test]
    fn every_file_is_taken_whatever_the_order_in_which_threads_ask() {
        let mut state = 1u64;
        let mut random = move |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        };
        for round in 0..3000 {
            let (long, short) = (random(8) as u64, random(8) as u64 + 1);
            let standby = round % 3 == 0;
            // With a standby, one of three files is only the first worker's, and somebody has to take the others
            let draft = long_and_short_in(&["pg_data", "pg_data/base/1", "pg_data/base/2"], long, short);
            let workers = 1 + usize::from(standby) + random(4);
            let bundle = (round % 5 == 0).then_some(BUNDLE);
            let settings = JobSettings { workers_apart: workers, standby, ..settings(bundle) };
            let (mut queues, total) = Queues::build(settings, &draft, false).unwrap();
            // Threads of workers, each with its job
            let mut threads: Vec<(usize, Option<CopyJob>)> =
                (0..workers * (1 + random(3))).map(|thread| (thread % workers, None)).collect();
            let mut taken = 0;
            while !threads.is_empty() {
                let index = random(threads.len());
                let (worker, job) = &mut threads[index];
                job.take().inspect(|job| queues.done(*worker, job));
                match queues.next(*worker, &draft.files).unwrap() {
                    Some(next) => {
                        taken += next.files.len() as u64;
                        *job = Some(next);
                    }
                    None => drop(threads.swap_remove(index)),
                }
            }
            let left: usize = queues.queues.iter().map(VecDeque::len).sum();
            assert_eq!((left, taken), (0, total.files), "round {round}");
            assert!(queues.loads.iter().all(|load| (load.long, load.short) == (0, 0)));
        }
    }

    #[test]
    fn bundles_take_small_files_by_age_until_they_are_full() {
        let draft = draft(&[
            ("pg_data/big", 61, 0),
            ("pg_data/new", 50, 9),
            ("pg_data/old", 60, 1),
            ("pg_data/mid", 40, 5),
            ("pg_data/tiny", 1, 8),
        ]);
        let jobs: Vec<Vec<String>> =
            jobs(settings(Some(BUNDLE)), &draft, &[0]).into_iter().map(|(_, names)| names).collect();
        // Within a bundle files are stored by size
        assert_eq!(jobs, [vec!["big"], vec!["mid", "old"], vec!["tiny", "new"]]);
    }

    #[test]
    fn bundled_files_keep_the_order_of_the_prior_backups() {
        let mut draft = draft(&[("pg_data/a", 1, 0), ("pg_data/b", 1, 0), ("pg_data/c", 1, 0), ("pg_data/d", 1, 0)]);
        let places = [(None, 0, 0), (Some(1), 1, 0), (Some(0), 2, 5), (Some(0), 2, 4)];
        for (BackupFile { entry: file, .. }, (reference, id, offset)) in draft.files.iter_mut().zip(places) {
            file.reference = reference;
            file.bundle = reference.and_then(|_| Bundle::new(id, offset));
            file.size_repo = 10;
            file.block = reference.map(|_| BlockIncr { size: 8192, checksum_size: 6, map_size: 4 });
        }
        let (mut queues, total) = Queues::build(settings(Some(BUNDLE)), &draft, false).unwrap();
        assert_eq!(total, Total { files: 4, bytes: 4 });
        let job = queues.next(0, &draft.files).unwrap().unwrap();
        let names: Vec<&str> = job.files.iter().map(|file| &*file.name).collect();
        assert_eq!(names, ["pg_data/d", "pg_data/c", "pg_data/b", "pg_data/a"]);
        let prior = job.files[0].block.as_ref().unwrap().prior.as_ref().unwrap();
        assert_eq!((prior.path.as_str(), prior.offset, prior.size), ("backup/demo/20260101-000000F/bundle/2", 10, 4));
        assert_eq!(job.path.as_str(), "backup/demo/20260103-000000F/bundle/1");
        assert!(queues.next(0, &draft.files).unwrap().is_none());
    }

    #[test]
    fn workers_begin_at_different_tablespaces_and_bundles_do_not_mix_them() {
        let draft = draft(&[("pg_data/a", 1, 0), ("pg_tblspc/1/PG_15_1/5/1", 1, 0)]);
        let jobs = jobs(settings(Some(BUNDLE)), &draft, &[1, 0]);
        assert_eq!(
            jobs,
            [
                (CopyFrom::Primary, vec!["pg_tblspc/1/PG_15_1/5/1".to_owned()]),
                (CopyFrom::Primary, vec!["a".to_owned()]),
            ]
        );
    }

    #[test]
    fn standby_gives_the_first_worker_only_what_the_primary_has() {
        let draft = draft(&[
            ("pg_data/PG_VERSION", 3, 0),
            ("pg_data/base/1/1", 1, 0),
            ("pg_data/global/pg_control", 8192, 0),
            ("pg_data/pg_xact/0000", 2, 0),
        ]);
        let jobs = jobs(JobSettings { standby: true, ..settings(None) }, &draft, &[0, 1]);
        let of = |from| -> Vec<&str> {
            jobs.iter().filter(|job| job.0 == from).flat_map(|job| job.1.iter().map(String::as_str)).collect()
        };
        assert_eq!(of(CopyFrom::Primary), ["global/pg_control", "PG_VERSION"]);
        assert_eq!(of(CopyFrom::Standby), ["pg_xact/0000", "base/1/1"]);
    }

    #[test]
    fn nothing_to_copy_and_a_missing_pg_control_are_errors() {
        let mut draft = draft(&[("pg_data/a", 1, 0)]);
        let build = |draft: &Draft, online| Queues::build(settings(None), draft, online).err();
        let error = build(&draft, true).unwrap();
        assert!(error.message.starts_with("pg_control must be present"), "{error}");
        assert!(build(&draft, false).is_none());
        draft.files[0].state = FileState::Complete;
        assert_eq!(build(&draft, false).unwrap().code, ErrorCode::FileMissing);
    }

    #[test]
    fn block_map_larger_than_the_stored_file_is_an_error() {
        let mut draft = draft(&[("pg_data/a", 1, 0)]);
        draft.files[0].entry.reference = Some(0);
        draft.files[0].entry.size_repo = 3;
        draft.files[0].entry.block = Some(BlockIncr { size: 8192, checksum_size: 6, map_size: 4 });
        let (mut queues, _) = Queues::build(settings(None), &draft, false).unwrap();
        assert_eq!(queues.next(0, &draft.files).unwrap_err().code, ErrorCode::Format);
    }
}
