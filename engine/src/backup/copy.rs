//! The copy phase: workers copy files, the main thread owns the log and the progress, and another thread saves the
//! manifest.

use std::num::NonZero;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use repo_format::cipher::Cipher;
use repo_format::label::BackupType;
use repo_format::manifest::{Manifest, ManifestFile};

use super::Backup;
use super::draft::{BackupFile, Draft, FileState};
use super::queue::{JobSettings, Queues, worker_source};
use super::report::{Report, ReportSettings};
use super::saver::Saver;
use super::settings::BlockSettings;
use super::shared::Shared;
use super::source::BackupSource;
use crate::cancel::CancelToken;
use crate::host_locks::HeldLocks;
use crate::pipeline::backup::{CodecPool, Copier, CopyFrom, CopyJob, CopyResult, CopyRules};
use crate::progress::{BytesUnderWay, Progress};
use crate::repo::manifest_store::{CopyProgress, ManifestCopy};
use crate::storage::on_turn::OnTurn;
use crate::storage::{RepoStorage, WriteOptions};
use crate::throttle::{Ease, Pace};
use crate::work::crew::{Crew, CrewSettings, Event};
use crate::work::retry::{RetryPolicy, is_stop};
use crate::{Result, detail};

/// How often the main thread checks the server.
const TICK_INTERVAL: Duration = Duration::from_millis(500);

/// Settings of the copy phase.
pub(super) struct CopyPhase<'a> {
    pub(super) rules: &'a CopyRules,
    pub(super) storage: &'a dyn RepoStorage,
    pub(super) crew: CrewSettings,
    /// Bytes copied after which the manifest is saved.
    pub(super) save_bytes: u64,
    pub(super) report: ReportSettings<'a>,
    pub(super) repo_key: u32,
    pub(super) lock: &'a mut dyn HeldLocks,
    pub(super) progress: &'a dyn Progress,
    pub(super) pace: &'a Pace,
    pub(super) cancel: &'a CancelToken,
    /// What is shown of the bytes so far. It never goes back.
    pub(super) shown: Shown,
}

/// Bytes of the copy as others see them.
#[derive(Default)]
pub(super) struct Shown {
    /// Of jobs in progress, which large files are for long.
    under_way: BytesUnderWay,
    bytes: u64,
}

/// Saves the copy of the manifest.
pub(super) type Save<'a> = dyn Fn(ManifestCopy<'_, &mut dyn Iterator<Item = ManifestFile>>) -> Result<()> + Sync + 'a;

/// The result of the copy phase.
pub(super) struct Processed {
    /// The manifest with the copied files, without those that no longer exist.
    pub(super) manifest: Manifest,
    /// Number of files with invalid pages.
    pub(super) page_errors: u32,
}

impl CopyPhase<'_> {
    /// Copies all files of the queues.
    ///
    /// `tick` is called often to check the server. `save` is called on another thread from time to time to save the
    /// manifest for a resume, and once more if the copy fails.
    ///
    /// # Errors
    /// The first error of a job, or of `tick` or `save`.
    pub(super) fn run(
        mut self,
        queues: Queues,
        draft: Draft,
        tick: &mut dyn FnMut() -> Result<()>,
        save: &Save<'_>,
    ) -> Result<Processed> {
        let total = self.report.total;
        self.lock.update_begin(self.repo_key, total.bytes);
        self.progress.start(total.files, total.bytes);
        let Draft { manifest, files } = draft;
        let shared = Shared::new(queues, files);
        let save_now = |progress| save(ManifestCopy { manifest: &manifest, files: &mut shared.entries(), progress });
        let mut report = Report::new(self.report, &manifest.data, &shared);
        std::thread::scope(|scope| {
            let mut saver = Saver::new(scope, &save_now);
            let result = self.work(&shared, &mut report, &mut saver, tick);
            self.progress.finish();
            let (saved, last_save) = saver.close();
            let result = first_error(result, last_save).and_then(|()| shared.check_all_done());
            // The next backup can use what was copied. A failure to save it does not matter beside the error. After a
            // signal pgBackRest can use it too, but only if it is saved as ended.
            let ended = saved.progress == CopyProgress::Ended || self.cancel.signal().is_none();
            if result.is_err() && (report.bytes > saved.bytes || !ended) {
                let _ = save_now(CopyProgress::Ended);
            }
            result
        })?;
        let page_errors = report.page_errors;
        let manifest = Draft { files: shared.into_files(), manifest }.into_manifest();
        Ok(Processed { manifest, page_errors })
    }

    /// Runs the workers, and handles their results.
    fn work(
        &mut self,
        shared: &Shared,
        report: &mut Report<'_>,
        saver: &mut Saver<'_, '_>,
        tick: &mut dyn FnMut() -> Result<()>,
    ) -> Result<()> {
        let (rules, storage, hosts, pace) = (self.rules, self.storage, self.report.hosts, self.pace);
        let (crew, cancel) = (self.crew.clone(), self.cancel);
        let mut last_tick = Instant::now();
        let under_way = self.shown.under_way.clone();
        let on_event = |event| {
            match event {
                Event::Done { worker, job, result } => {
                    let result = result?;
                    self.report(report, worker, &job, result)?;
                    if saver.unsaved(report.bytes).is_some_and(|bytes| bytes >= self.save_bytes) {
                        saver.request(report.bytes, CopyProgress::Runs)?;
                    }
                }
                // Jobs in progress may wait for a server that does not answer
                Event::Stopping if cancel.signal().is_some() => {
                    return saver.request(report.bytes, CopyProgress::Ended);
                }
                Event::Stopping => return Ok(()),
                Event::Idle => self.show(0, report.bytes),
            }
            saver.poll()?;
            if last_tick.elapsed() >= TICK_INTERVAL {
                tick()?;
                last_tick = Instant::now();
            }
            Ok(())
        };
        Crew { settings: &crew, cancel }.run(
            |worker| shared.next(worker as usize - 1),
            |worker, turn| {
                let from = worker_source(hosts.standby.is_some(), worker as usize - 1);
                let copies = hosts.of(from).copy_worker(worker, rules, turn)?;
                let copier = Copier::new(rules, OnTurn::new(storage, turn), copies).with_pace(pace);
                Ok((worker as usize - 1, copier.telling(&under_way)))
            },
            |(worker, copier), job: &CopyJob, cancel| copier.run(job, cancel).inspect(|_| shared.done(*worker, job)),
            on_event,
        )
    }

    /// Applies the results of a job, and shows the progress.
    fn report(&mut self, report: &mut Report<'_>, worker: u32, job: &CopyJob, results: Vec<CopyResult>) -> Result<()> {
        let files = results.len() as u64;
        report.job(worker, job, results)?;
        self.show(files, report.bytes);
        Ok(())
    }

    /// Shows so many more files that are done, and the bytes of those files and of jobs in progress.
    fn show(&mut self, files: u64, done: u64) {
        let total = self.report.total.bytes;
        let bytes = done.saturating_add(self.shown.under_way.bytes()).min(total.max(done)).max(self.shown.bytes);
        self.progress.advance(files, bytes - self.shown.bytes);
        self.shown.bytes = bytes;
        self.lock.update(self.repo_key, bytes, total);
    }
}

/// What the copy phase shows to others, and what can end it.
pub(super) struct Running<'a> {
    pub(super) lock: &'a mut dyn HeldLocks,
    pub(super) progress: &'a dyn Progress,
    /// How fast files are copied.
    pub(super) pace: &'a Pace,
    pub(super) cancel: &'a CancelToken,
}

impl Backup<'_> {
    /// Copies all files.
    pub(super) fn copy_files(
        &self,
        source: &mut BackupSource,
        draft: Draft,
        write_options: WriteOptions,
        running: Running<'_>,
    ) -> Result<Processed> {
        let (settings, manifest) = (self.settings, &draft.manifest);
        if self.has_all_paths(manifest) {
            self.create_paths(manifest)?;
        }
        if manifest.data.bundle {
            let alone = |file: &&BackupFile| file.entry.size == 0 && file.state == FileState::Complete;
            for file in draft.files.iter().filter(alone) {
                detail!(
                    "store zero-length file {}",
                    source.hosts.file_path(CopyFrom::Primary, &file.entry.name).display()
                );
            }
        }
        let hosts = source.hosts.clone();
        // In a backup from a standby, the worker for the primary does not count
        let workers = settings.process_max + u32::from(source.has_standby());
        let (queues, total) = Queues::build(self.job_settings(source, manifest, workers), &draft, settings.online)?;
        let rules = self.copy_rules(source, manifest, write_options, workers);
        let phase = CopyPhase {
            rules: &rules,
            storage: &*self.repo.storage,
            crew: CrewSettings {
                jobs_per_worker: self.repo.storage.concurrency().jobs_per_worker.max(hosts.jobs_per_worker()),
                ..CrewSettings::new(workers, RetryPolicy::new(settings.job_retry, settings.job_retry_interval))
            },
            save_bytes: settings.manifest_save_threshold.max(total.bytes / 100),
            report: ReportSettings {
                stanza: self.stanza,
                hosts: &hosts,
                page_size: rules.page_size,
                checksum_page_error: settings.checksum_page_error,
                total,
            },
            repo_key: self.repo.key,
            lock: running.lock,
            progress: running.progress,
            pace: running.pace,
            cancel: running.cancel,
            shown: Shown::default(),
        };
        let mut ease = Ease::begin(settings.ease, running.pace);
        let mut look_after = || {
            // Its host held the claim, and no retry of a job brings that back
            self.repo.storage.connected()?;
            self.claim.glance(self.repo)?;
            source.ping(false)?;
            if let Some(ease) = &mut ease {
                ease.look(&mut || source.replica_lag());
            }
            Ok(())
        };
        phase.run(queues, draft, &mut look_after, &|copy| self.save_copy(copy))
    }

    fn job_settings(&self, source: &BackupSource, manifest: &Manifest, workers: u32) -> JobSettings {
        let settings = self.settings;
        let super_block_size = |block: &BlockSettings| match manifest.data.backup_type {
            BackupType::Full => block.super_full,
            BackupType::Diff | BackupType::Incr => block.super_other,
        };
        JobSettings {
            stanza: self.stanza.clone(),
            label: manifest.data.label.clone(),
            references: manifest.references.clone(),
            compress_type: settings.compression.kind,
            bundle: settings.bundle,
            super_block_size: settings.block.as_ref().map(super_block_size),
            xact_path: source.version().xact_dir(),
            standby: source.has_standby(),
            // Another host compresses each file with one thread
            threads_max: match settings.compression.gains_from_threads() && !source.hosts.are_elsewhere() {
                true => (settings.process_max as usize).min(available_parallelism().map_or(1, NonZero::get)),
                false => 1,
            },
            // While one job waits for a server or another host, others compute
            long_max: match self.repo.storage.concurrency().waits() || source.hosts.are_elsewhere() {
                true => settings.process_max as usize + 1,
                false => usize::MAX,
            },
            workers_apart: if source.hosts.are_elsewhere() { workers as usize } else { 0 },
        }
    }

    fn copy_rules(
        &self,
        source: &BackupSource,
        manifest: &Manifest,
        write_options: WriteOptions,
        workers: u32,
    ) -> CopyRules {
        let settings = self.settings;
        CopyRules {
            compression: settings.compression,
            cipher: Cipher::from_passphrase(manifest.cipher_pass.as_ref()),
            bundle_raw: manifest.data.bundle_raw,
            reference: u32::try_from(manifest.references.len().saturating_sub(1)).unwrap_or(u32::MAX),
            page_size: source.control.page_size,
            page_header_check: settings.page_header_check,
            compare_buffer_bytes: usize::try_from(settings.buffer_size).unwrap_or(usize::MAX),
            write_options,
            // Those of files that wait for a server, and of others meanwhile
            codecs: Arc::new(CodecPool::new(2 * workers as usize)),
        }
    }
}

/// Returns the first error that is not only a consequence of stopping.
fn first_error(work: Result<()>, save: Result<()>) -> Result<()> {
    match (work, save) {
        (Err(error), Err(save)) if is_stop(&error) => Err(save),
        (work, save) => work.and(save),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use repo_format::compress::{CompressType, Compression};
    use repo_format::hash::Sha1;
    use repo_format::manifest::{ManifestData, Target, TargetType};
    use repo_format::pg::PgVersion;

    use super::*;
    use crate::backup::draft::all_pending;
    use crate::backup::source::Hosts;
    use crate::lock::{Lock, LockRequest, LockType};
    use crate::pg::{PgHost, PgSettings};
    use crate::progress::NoProgress;
    use crate::storage::memory::MemoryStorage;
    use crate::{Error, ErrorCode};

    const LABEL: &str = "20260101-000000F";

    /// Copies files of three bytes, as if from a standby, and saves the manifest after each. The file `gone` does not
    /// exist.
    fn copy(names: &[&str], workers: u32, save: &Save<'_>) -> Result<Processed> {
        let dir = tempfile::tempdir().unwrap();
        let stanza = "demo".parse().unwrap();
        let data = ManifestData::new(LABEL.parse().unwrap(), BackupType::Full, 1_000, PgVersion::V15, 1);
        let mut manifest = Manifest::new(data);
        manifest.targets = vec![Target {
            name: "pg_data".into(),
            target_type: TargetType::Path,
            path: "/x".into(),
            file: None,
            tablespace: None,
        }];
        std::fs::create_dir_all(dir.path().join("pg/base/1")).unwrap();
        for name in names {
            if *name != "gone" {
                std::fs::write(dir.path().join("pg").join(name), b"abc").unwrap();
            }
            manifest.files.push(ManifestFile::new(&format!("pg_data/{name}"), 3, 0));
        }
        manifest.sort();
        let draft = all_pending(manifest);
        let host: Arc<dyn PgHost> = PgSettings::new(dir.path().join("pg")).into();
        let hosts = Hosts { primary: Arc::clone(&host), standby: Some(host) };
        let rules = CopyRules {
            compression: Compression::NONE,
            cipher: Cipher::None,
            bundle_raw: false,
            reference: 0,
            page_size: 8192,
            page_header_check: true,
            compare_buffer_bytes: 1 << 20,
            write_options: WriteOptions::IN_PLACE,
            codecs: Arc::new(CodecPool::new(2)),
        };
        let settings = JobSettings {
            stanza,
            label: LABEL.parse().unwrap(),
            references: vec![LABEL.parse().unwrap()],
            compress_type: CompressType::None,
            bundle: None,
            super_block_size: None,
            xact_path: "pg_xact",
            standby: true,
            threads_max: 1,
            long_max: usize::MAX,
            workers_apart: 0,
        };
        let (stanza, locks) = (settings.stanza.clone(), dir.path().join("lock"));
        let (queues, total) = Queues::build(settings, &draft, false).unwrap();
        let request = LockRequest {
            lock_path: &locks,
            stanza: &stanza,
            kinds: &[LockType::Backup],
            repo_keys: &[1],
            exec_id: "1-x",
        };
        let phase = CopyPhase {
            rules: &rules,
            storage: &MemoryStorage::new(),
            crew: CrewSettings::new(workers, RetryPolicy::NONE),
            save_bytes: 1,
            report: ReportSettings {
                stanza: &stanza,
                hosts: &hosts,
                page_size: 8192,
                checksum_page_error: false,
                total,
            },
            repo_key: 1,
            lock: &mut Lock::acquire(request).unwrap(),
            progress: &NoProgress,
            pace: &Pace::FREE,
            cancel: &CancelToken::new(),
            shown: Shown::default(),
        };
        phase.run(queues, draft, &mut || Ok(()), save)
    }

    #[test]
    fn file_that_no_worker_takes_is_an_error() {
        let copy = |workers| copy(&["PG_VERSION", "base/1/2", "gone"], workers, &|_| Ok(()));
        let names: Vec<Box<str>> = copy(2).unwrap().manifest.files.into_iter().map(|file| file.name).collect();
        assert_eq!(names, ["pg_data/PG_VERSION".into(), "pg_data/base/1/2".into()]);
        // The only worker has what is on the primary
        let error = copy(1).err().unwrap();
        assert_eq!((error.code, &*error.message), (ErrorCode::Assert, "1 file(s) were not copied"));
    }

    #[test]
    fn save_that_fails_ends_the_copy_with_its_error_and_is_followed_by_a_last_one() {
        let names: Vec<String> = (1..50).map(|number| format!("base/1/{number}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let saves = Mutex::new(Vec::new());
        let save: &Save<'_> = &|copy| {
            let copied = copy.files.filter(|file| file.checksum == Some(Sha1::of(b"abc"))).count();
            saves.lock().unwrap().push((copy.progress, copied));
            match copy.progress {
                CopyProgress::Runs => Err(Error::new(ErrorCode::FileWrite, "no space")),
                CopyProgress::Ended => Ok(()),
            }
        };
        let error = copy(&names, 2, save).err().unwrap();
        assert_eq!((error.code, &*error.message), (ErrorCode::FileWrite, "no space"));
        let saves = saves.into_inner().unwrap();
        assert_eq!(saves.iter().map(|save| save.0).collect::<Vec<_>>(), [CopyProgress::Runs, CopyProgress::Ended]);
        assert!(0 < saves[0].1 && saves[0].1 <= saves[1].1, "{saves:?}");
    }
}
