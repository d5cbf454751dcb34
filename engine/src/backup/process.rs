//! The copy phase: workers copy files while the main thread owns the manifest, the log and the progress.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use repo_format::hash::Sha1;
use repo_format::layout::{self, FileForm, Stanza};
use repo_format::manifest::{Bundle, Manifest, ManifestFile, PageCheck, PageRange};
use repo_format::size::{format_percent, format_size};

use super::build::FileState;
use super::queue::{Queues, Total, worker_source};
use super::source::Hosts;
use crate::cancel::CancelToken;
use crate::lock::Lock;
use crate::pipeline::PageOutcome;
use crate::pipeline::backup::{Copied, Copier, CopyFrom, CopyJob, CopyOutcome, CopyResult, CopyRules};
use crate::progress::Progress;
use crate::repo::manifest_store::CopyProgress;
use crate::storage::RepoStorage;
use crate::storage::on_turn::OnTurn;
use crate::work::crew::{Crew, CrewSettings, Event};
use crate::{Error, ErrorCode, Result, detail, warn};

/// How often the main thread checks the server.
const TICK_INTERVAL: Duration = Duration::from_millis(500);

/// Settings of the copy phase.
pub(super) struct Process<'a> {
    pub(super) rules: &'a CopyRules,
    pub(super) storage: &'a dyn RepoStorage,
    pub(super) hosts: &'a Hosts,
    pub(super) stanza: &'a Stanza,
    pub(super) crew: CrewSettings,
    /// Bytes copied after which the manifest is saved.
    pub(super) save_bytes: u64,
    pub(super) total: Total,
    /// Whether an invalid page is an error.
    pub(super) checksum_page_error: bool,
    pub(super) repo_key: u32,
    pub(super) lock: &'a mut Lock,
    pub(super) progress: &'a dyn Progress,
    pub(super) cancel: &'a CancelToken,
}

/// What workers and the main thread share.
struct Shared {
    queues: Queues,
    manifest: Manifest,
    states: Vec<FileState>,
}

/// The progress of the copy.
struct Done {
    files: u64,
    bytes: u64,
    saved: u64,
    /// Whether the manifest was saved as that of a backup that does not run any more.
    ended: bool,
    /// Indices of files that no longer exist.
    removed: BTreeSet<usize>,
    /// Number of files with invalid pages.
    page_errors: u32,
}

/// The result of the copy phase.
pub(super) struct Processed {
    pub(super) manifest: Manifest,
    /// Number of files with invalid pages.
    pub(super) page_errors: u32,
}

impl Process<'_> {
    /// Copies all files of the queues. Returns the manifest with the copied files. Files that vanished are removed from
    /// it.
    ///
    /// `tick` is called often to check the server. `save` is called from time to time to save the manifest for a
    /// resume, and once more if the copy fails.
    ///
    /// # Errors
    /// The first error of a job, or of `tick` or `save`.
    pub(super) fn run(
        mut self,
        queues: Queues,
        manifest: Manifest,
        states: Vec<FileState>,
        mut tick: impl FnMut() -> Result<()>,
        mut save: impl FnMut(&Manifest, CopyProgress) -> Result<()>,
    ) -> Result<Processed> {
        self.lock.update_begin(self.repo_key, self.total.bytes);
        self.progress.start(self.total.files, self.total.bytes);
        let shared = Mutex::new(Shared { queues, manifest, states });
        let mut done = Done { files: 0, bytes: 0, saved: 0, ended: false, removed: BTreeSet::new(), page_errors: 0 };
        let mut last_tick = Instant::now();
        let crew = self.crew.clone();
        let (rules, storage, hosts, cancel) = (self.rules, self.storage, self.hosts, self.cancel);
        let result = Crew { settings: &crew, cancel }.run(
            |worker| {
                let mut shared = lock(&shared);
                let Shared { queues, manifest, states } = &mut *shared;
                queues.next(worker as usize - 1, manifest, states)
            },
            |worker, turn| {
                let from = worker_source(hosts.standby.is_some(), worker as usize - 1);
                let copies = hosts.of(from).copy_worker(rules, turn)?;
                Ok(Copier::new(rules, OnTurn::new(storage, turn), copies))
            },
            |copier, job: &CopyJob, cancel| copier.run(job, cancel),
            |event| {
                match event {
                    Event::Done { worker, job, result } => {
                        let result = result?;
                        let mut shared = lock(&shared);
                        shared.queues.done(&job);
                        self.report(&mut shared.manifest, worker, &job, result, &mut done)?;
                        if done.bytes - done.saved >= self.save_bytes {
                            save(&shared.manifest, CopyProgress::Runs)?;
                            (done.ended, done.saved) = (false, done.bytes);
                        }
                    }
                    // Jobs in progress may wait for a server that does not answer
                    // pgBackRest can resume it only then, even if nothing was copied since the last time
                    Event::Stopping if cancel.signal().is_some() && !(done.ended && done.bytes == done.saved) => {
                        // If this fails, it is retried at the end
                        if save(&lock(&shared).manifest, CopyProgress::Ended).is_ok() {
                            (done.ended, done.saved) = (true, done.bytes);
                        }
                        return Ok(());
                    }
                    Event::Stopping => return Ok(()),
                    Event::Idle => {}
                }
                if last_tick.elapsed() >= TICK_INTERVAL {
                    tick()?;
                    last_tick = Instant::now();
                }
                Ok(())
            },
        );
        self.progress.finish();
        let Shared { mut manifest, queues, .. } = shared.into_inner().unwrap_or_else(PoisonError::into_inner);
        let result = result.and_then(|()| check_all_done(self.total.files, done.files, queues.left()));
        if let Err(error) = result {
            // The next backup can use what was copied. A failure to save it does not matter beside the error.
            if done.bytes > done.saved || (cancel.signal().is_some() && !done.ended) {
                let _ = save(&manifest, CopyProgress::Ended);
            }
            return Err(error);
        }
        let mut index = 0;
        manifest.files.retain(|_| {
            index += 1;
            !done.removed.contains(&(index - 1))
        });
        Ok(Processed { manifest, page_errors: done.page_errors })
    }

    /// Applies the results of a job.
    fn report(
        &mut self,
        manifest: &mut Manifest,
        worker: u32,
        job: &CopyJob,
        results: Vec<CopyResult>,
        done: &mut Done,
    ) -> Result<()> {
        let before = done.bytes;
        let files = results.len() as u64;
        if !results.iter().map(|result| &result.name).eq(job.files.iter().map(|file| &file.name)) {
            let message = format!("files of '{}' and results do not match", job.path);
            return Err(Error::new(ErrorCode::Assert, message));
        }
        done.files += files;
        for result in results {
            let index = manifest.files.binary_search_by(|file| file.name.cmp(&result.name)).map_err(|_| {
                Error::new(ErrorCode::Assert, format!("copied file '{}' is not in the manifest", result.name))
            })?;
            let is_stored = matches!(result.outcome, CopyOutcome::Copied(_) | CopyOutcome::Resumed { .. });
            if result.outcome == CopyOutcome::Removed {
                done.removed.insert(index);
            }
            done.bytes += manifest.files[index].size_original;
            let context = ReportContext { worker, bundle_id: job.bundle_id, done: done.bytes, total: self.total.bytes };
            let page_error = self.apply(&mut manifest.files[index], job.from, &context, result.outcome)?;
            if is_stored {
                check_place(self.stanza, manifest, &manifest.files[index], job)?;
            }
            done.page_errors += u32::from(page_error);
        }
        self.progress.advance(files, done.bytes - before);
        self.lock.update(self.repo_key, done.bytes, self.total.bytes);
        Ok(())
    }

    /// Logs the outcome for a file and applies it to the manifest. Returns whether the file has invalid pages.
    fn apply(
        &self,
        file: &mut ManifestFile,
        from: CopyFrom,
        context: &ReportContext,
        outcome: CopyOutcome,
    ) -> Result<bool> {
        let path = self.hosts.file_path(from, &file.name);
        let path = path.display();
        let process = context.worker;
        let original = file.size_original;
        match outcome {
            CopyOutcome::Unchanged { size, checksum } => {
                let text = context.text(None, original, size, &checksum);
                detail!(process: process, "match file from prior backup {path} {text}");
            }
            CopyOutcome::Resumed { size, checksum } => {
                let text = context.text(None, original, size, &checksum);
                detail!(process: process, "checksum resumed file {path} {text}");
            }
            CopyOutcome::Removed => detail!(process: process, "skip file removed by database {path}"),
            CopyOutcome::Truncated => {
                let text = context.text(None, original, 0, &Sha1::EMPTY);
                detail!(process: process, "store truncated file {path} {text}");
                file.size = 0;
                file.size_repo = 0;
                file.checksum = Some(Sha1::EMPTY);
                file.checksum_repo = None;
                file.reference = None;
                file.bundle = None;
                file.block = None;
                if let Some(page_check) = &mut file.page_check {
                    *page_check = PageCheck::VALID;
                }
            }
            CopyOutcome::Copied(copied) => {
                let text = context.text(Some(copied.bundle_offset), original, copied.size, &copied.checksum);
                detail!(process: process, "backup file {path} {text}");
                if copied.repo_invalid {
                    let expected = file.checksum.map_or_else(String::new, |checksum| checksum.to_string());
                    warn!(
                        "resumed backup file {} did not have expected checksum {expected}. The file was recopied and \
                         backup will continue but this may be an issue unless the resumed backup path in the repository \
                         is known to be corrupted.\nNOTE: this does not indicate a problem with the PostgreSQL page \
                         checksums.",
                        file.name
                    );
                }
                file.page_check = match &copied.pages {
                    Some(pages) => Some(self.page_check(pages, &path, copied.size)?),
                    None => None,
                };
                store(file, copied, context.bundle_id);
                return Ok(file.page_check.as_ref().is_some_and(|check| !check.valid));
            }
        }
        Ok(false)
    }

    /// Warns about invalid pages, or fails if requested.
    fn page_check(&self, pages: &PageOutcome, path: &dyn std::fmt::Display, size: u64) -> Result<PageCheck> {
        let (check, text) = match pages {
            PageOutcome::Valid => return Ok(PageCheck::VALID),
            PageOutcome::Misaligned => (
                PageCheck::invalid(Vec::new()),
                format!(
                    "page misalignment in file {path}: file size {size} is not divisible by page size {}",
                    self.rules.page_size
                ),
            ),
            PageOutcome::Errors(errors) => {
                let texts: Vec<String> = errors
                    .iter()
                    .map(|PageRange { first, last }| match first == last {
                        true => first.to_string(),
                        false => format!("{first}-{last}"),
                    })
                    .collect();
                let plural =
                    if errors.len() > 1 || errors.iter().any(|range| range.first != range.last) { "s" } else { "" };
                (
                    PageCheck::invalid(errors.clone()),
                    format!("invalid page checksum{plural} found in file {path} at page{plural} {}", texts.join(", ")),
                )
            }
        };
        if self.checksum_page_error {
            return Err(Error::new(ErrorCode::Checksum, text));
        }
        warn!("{text}");
        Ok(check)
    }
}

/// What the log line of a file needs besides the file.
struct ReportContext {
    worker: u32,
    bundle_id: Option<u64>,
    done: u64,
    total: u64,
}

impl ReportContext {
    /// `([bundle N/offset, ][oldsize->]size, pct%)[ checksum sha1]`.
    fn text(&self, bundle_offset: Option<u64>, original: u64, size: u64, checksum: &Sha1) -> String {
        let mut text = String::from("(");
        if let (Some(id), Some(offset)) = (self.bundle_id, bundle_offset) {
            text.push_str(&format!("bundle {id}/{offset}, "));
        }
        if size != original {
            text.push_str(&format!("{}->", format_size(original)));
        }
        text.push_str(&format!("{}, {})", format_size(size), format_percent(self.done, self.total)));
        if size != 0 {
            text.push_str(&format!(" checksum {checksum}"));
        }
        text
    }
}

/// Checks that a file was stored where its entry says. Nothing else would detect a mismatch before a restore.
fn check_place(stanza: &Stanza, manifest: &Manifest, file: &ManifestFile, job: &CopyJob) -> Result<()> {
    let (data, name) = (&manifest.data, &file.name);
    let expected = match file.bundle {
        Some(bundle) => layout::bundle(stanza, &data.label, bundle.id),
        None => {
            let form = match file.block {
                Some(block) if block.map_size > 0 => FileForm::BlockIncr,
                _ => FileForm::Whole(data.options.compress_type),
            };
            layout::backup_file(stanza, &data.label, name, form)?
        }
    };
    if job.path == expected {
        return Ok(());
    }
    Err(Error::new(ErrorCode::Assert, format!("file '{name}' was stored as '{}'", job.path)))
}

/// Checks that every file was processed. An entry from the prior backup looks complete even if it was not.
fn check_all_done(total: u64, done: u64, left: usize) -> Result<()> {
    if done == total && left == 0 {
        return Ok(());
    }
    Err(Error::new(ErrorCode::Assert, format!("{} file(s) were not copied", total.saturating_sub(done))))
}

/// Applies a stored file to the manifest.
fn store(file: &mut ManifestFile, copied: Copied, bundle_id: Option<u64>) {
    file.size = copied.size;
    file.size_repo = copied.size_repo;
    file.checksum = Some(copied.checksum);
    file.checksum_repo = copied.checksum_repo;
    file.reference = None;
    file.bundle = bundle_id.map(|id| Bundle { id, offset: copied.bundle_offset });
    file.block = match (copied.map_size, file.block.take()) {
        (Some(map_size), Some(mut block)) => {
            block.map_size = map_size;
            Some(block)
        }
        // Stored as a whole, for example because blocks were disabled since the prior backup
        _ => None,
    };
}

/// A panic leaves the shared state valid, because changes are plain assignments.
fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use repo_format::compress::{CompressType, Compression};
    use repo_format::label::{BackupLabel, BackupType};
    use repo_format::layout::RepoPath;
    use repo_format::manifest::{BlockIncr, ManifestData, Target, TargetType};
    use repo_format::pg::PgVersion;

    use super::*;
    use crate::backup::queue::JobSettings;
    use crate::lock::{LockRequest, LockType};
    use crate::pg::{PgHost, PgSettings};
    use crate::progress::NoProgress;
    use crate::storage::WriteOptions;
    use crate::storage::memory::MemoryStorage;
    use crate::work::retry::RetryPolicy;

    fn label() -> BackupLabel {
        "20260101-000000F".parse().unwrap()
    }

    fn stanza() -> Stanza {
        "demo".parse().unwrap()
    }

    fn manifest(kind: CompressType) -> Manifest {
        let mut data = ManifestData::new(label(), BackupType::Full, 1_000, PgVersion::V15, 1);
        data.options.compress_type = kind;
        Manifest::new(data)
    }

    fn check(kind: CompressType, path: &str, bundle_id: Option<u64>, map_size: u64) -> Option<ErrorCode> {
        let path = RepoPath::new(format!("backup/demo/20260101-000000F/{path}")).unwrap();
        let job = CopyJob { from: CopyFrom::Primary, path, bundle_id, files: Vec::new(), threads: 1 };
        let file = ManifestFile {
            bundle: bundle_id.map(|id| Bundle { id, offset: 7 }),
            block: Some(BlockIncr { size: 8192, checksum_size: 6, map_size }),
            ..ManifestFile::new("pg_data/base/1/2", 3, 0)
        };
        check_place(&stanza(), &manifest(kind), &file, &job).err().map(|error| error.code)
    }

    #[test]
    fn file_under_another_name_is_an_error() {
        let names = ["2", "2.1", "2_fsm", "23", "12", "3", "2/2"];
        for kind in CompressType::ALL {
            let extension = kind.extension();
            for name in names {
                let expected = (name != "2").then_some(ErrorCode::Assert);
                assert_eq!(check(kind, &format!("pg_data/base/1/{name}{extension}"), None, 0), expected, "{name}");
                assert_eq!(check(kind, &format!("pg_data/base/1/{name}.pgbi"), None, 9), expected, "{name}");
            }
            for (path, map_size) in [("pg_data/base/1/2.pgbi", 0), ("pg_data/base/1/2.x", 0), ("bundle/1", 0)] {
                assert_eq!(check(kind, path, None, map_size), Some(ErrorCode::Assert), "{path}");
            }
            assert_eq!(check(kind, &format!("pg_data/base/1/2{extension}"), None, 9), Some(ErrorCode::Assert));
            assert_eq!(check(kind, "bundle/1", Some(1), 9), None);
            for wrong in ["bundle/11", "bundle/2", "pg_data/base/1/2"] {
                assert_eq!(check(kind, wrong, Some(1), 0), Some(ErrorCode::Assert), "{wrong}");
            }
        }
        assert_eq!(check(CompressType::None, "pg_data/base/1/2.zst", None, 0), Some(ErrorCode::Assert));
    }

    #[test]
    fn file_that_no_worker_takes_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let mut manifest = manifest(CompressType::None);
        manifest.targets = vec![Target {
            name: "pg_data".into(),
            target_type: TargetType::Path,
            path: "/x".into(),
            file: None,
            tablespace: None,
        }];
        for name in ["PG_VERSION", "base/1/2", "gone"] {
            std::fs::create_dir_all(dir.path().join("pg/base/1")).unwrap();
            if name != "gone" {
                std::fs::write(dir.path().join("pg").join(name), b"abc").unwrap();
            }
            manifest.files.push(ManifestFile::new(&format!("pg_data/{name}"), 3, 0));
        }
        manifest.sort();
        let states = vec![FileState { copy: true, ..FileState::default() }; manifest.files.len()];
        let host: Arc<dyn PgHost> = PgSettings::new(dir.path().join("pg")).into();
        let hosts = Hosts { primary: Arc::clone(&host), standby: Some(host) };
        let rules = CopyRules {
            compression: Compression::NONE,
            cipher: repo_format::cipher::Cipher::None,
            bundle_raw: false,
            reference: 0,
            page_size: 8192,
            page_header_check: true,
            compare_buffer_bytes: 1 << 20,
            write_options: WriteOptions::IN_PLACE,
        };
        let run = |workers| {
            let settings = JobSettings {
                stanza: stanza(),
                label: label(),
                compress_type: CompressType::None,
                bundle: None,
                super_block_size: None,
                xact_path: "pg_xact",
                standby: true,
                threads_max: 1,
                long_max: usize::MAX,
            };
            let (queues, total) = Queues::build(settings, &manifest, &states, false).unwrap();
            let locks = dir.path().join("lock");
            let process = Process {
                rules: &rules,
                storage: &MemoryStorage::new(),
                hosts: &hosts,
                stanza: &stanza(),
                crew: CrewSettings::new(workers, RetryPolicy::NONE),
                save_bytes: u64::MAX,
                total,
                checksum_page_error: false,
                repo_key: 1,
                lock: &mut Lock::acquire(LockRequest {
                    lock_path: &locks,
                    stanza: &stanza(),
                    kinds: &[LockType::Backup],
                    repo_keys: &[1],
                    exec_id: "1-x",
                })
                .unwrap(),
                progress: &NoProgress,
                cancel: &CancelToken::new(),
            };
            process.run(queues, manifest.clone(), states.clone(), || Ok(()), |_, _| Ok(()))
        };
        let names: Vec<Box<str>> = run(2).unwrap().manifest.files.into_iter().map(|file| file.name).collect();
        assert_eq!(names, ["pg_data/PG_VERSION".into(), "pg_data/base/1/2".into()]);
        // The only worker has what is on the primary
        let error = run(1).err().unwrap();
        assert_eq!((error.code, &*error.message), (ErrorCode::Assert, "1 file(s) were not copied"));
    }
}
