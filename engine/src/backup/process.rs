//! The copy phase: workers copy files while the main thread keeps the manifest, the log and the progress.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use repo_format::hash::Sha1;
use repo_format::manifest::{Bundle, Manifest, ManifestFile, PageCheck, PageRange};
use repo_format::size::{format_percent, format_size};

use super::build::FileState;
use super::queue::{Queues, Total};
use crate::cancel::CancelToken;
use crate::job_queue::{self, Event, QueueSettings};
use crate::lock::Lock;
use crate::pipeline::PageOutcome;
use crate::pipeline::backup::{Copied, Copier, CopyJob, CopySettings, FileOutcome, FileResult};
use crate::progress::Progress;
use crate::{Error, ErrorCode, Result, detail, warn};

/// How often the main thread looks after the server.
const TICK_INTERVAL: Duration = Duration::from_millis(500);

/// What the copy phase works with.
pub(super) struct Process<'a> {
    pub(super) copy: &'a CopySettings,
    pub(super) queue: QueueSettings,
    /// Bytes copied after which the manifest is saved.
    pub(super) save_bytes: u64,
    pub(super) total: Total,
    /// Wrong pages are an error.
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

/// How far the copy is.
struct Done {
    bytes: u64,
    saved: u64,
    /// Indices of files that are gone.
    removed: BTreeSet<usize>,
    /// Files with wrong pages.
    page_errors: u32,
}

/// What the copy phase leaves.
pub(super) struct Processed {
    pub(super) manifest: Manifest,
    /// Files with wrong pages.
    pub(super) page_errors: u32,
}

impl Process<'_> {
    /// Copies all files of the queues. Returns the manifest with what was copied; files that vanished are taken out of it.
    ///
    /// `tick` is called often, to look after the server; `save` from time to time, to save the manifest for resume, and once
    /// more when the copy fails.
    ///
    /// # Errors
    /// The first error of a job, or of `tick` or `save`.
    pub(super) fn run(
        mut self,
        queues: Queues,
        manifest: Manifest,
        states: Vec<FileState>,
        mut tick: impl FnMut() -> Result<()>,
        mut save: impl FnMut(&Manifest) -> Result<()>,
    ) -> Result<Processed> {
        self.lock.update_begin(self.repo_key, self.total.bytes)?;
        self.progress.start(self.total.files, self.total.bytes);
        let shared = Mutex::new(Shared { queues, manifest, states });
        let mut done = Done { bytes: 0, saved: 0, removed: BTreeSet::new(), page_errors: 0 };
        let mut last_tick = Instant::now();
        let queue = self.queue.clone();
        let (copy, cancel) = (self.copy, self.cancel);
        let result = job_queue::run_from(
            &queue,
            cancel,
            |worker| {
                let mut shared = lock(&shared);
                let Shared { queues, manifest, states } = &mut *shared;
                queues.next(worker as usize - 1, manifest, states)
            },
            |_| Copier::new(copy),
            |copier, job: &CopyJob, cancel| copier.run(job, cancel),
            |event| {
                if let Event::Done { worker, job, result } = event {
                    let mut shared = lock(&shared);
                    shared.queues.done(&job);
                    self.report(&mut shared.manifest, worker, &job, result, &mut done)?;
                    if done.bytes - done.saved >= self.save_bytes {
                        save(&shared.manifest)?;
                        done.saved = done.bytes;
                    }
                }
                if last_tick.elapsed() >= TICK_INTERVAL {
                    tick()?;
                    last_tick = Instant::now();
                }
                Ok(())
            },
        );
        self.progress.finish();
        let Shared { mut manifest, .. } = shared.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = result {
            // What was copied can be used by the next backup. That it could not be saved is no news beside the error.
            let _ = save(&manifest);
            return Err(error);
        }
        let mut index = 0;
        manifest.files.retain(|_| {
            index += 1;
            !done.removed.contains(&(index - 1))
        });
        Ok(Processed { manifest, page_errors: done.page_errors })
    }

    /// Takes over what a job did.
    fn report(
        &mut self,
        manifest: &mut Manifest,
        worker: u32,
        job: &CopyJob,
        results: Vec<FileResult>,
        done: &mut Done,
    ) -> Result<()> {
        let before = done.bytes;
        let files = results.len() as u64;
        for result in results {
            check_place(job, &manifest.files[result.index].name)?;
            if result.outcome == FileOutcome::Removed {
                done.removed.insert(result.index);
            }
            done.bytes += manifest.files[result.index].size_original;
            let context = ReportContext { worker, bundle_id: job.bundle_id, done: done.bytes, total: self.total.bytes };
            let page_error = self.apply(manifest, job.data_dir, &context, result)?;
            done.page_errors += u32::from(page_error);
        }
        self.progress.advance(files, done.bytes - before);
        self.lock.update(self.repo_key, done.bytes, self.total.bytes)
    }

    /// Logs what became of one file and takes it into the manifest. Says whether it has wrong pages.
    fn apply(
        &self,
        manifest: &mut Manifest,
        data_dir: usize,
        context: &ReportContext,
        result: FileResult,
    ) -> Result<bool> {
        let file = &mut manifest.files[result.index];
        let path = self.copy.data_dirs[data_dir].file_path(&file.name);
        let path = path.display();
        let process = context.worker;
        let original = file.size_original;
        match result.outcome {
            FileOutcome::Unchanged { size, checksum } => {
                let text = context.text(None, original, size, &checksum);
                detail!(process: process, "match file from prior backup {path} {text}");
            }
            FileOutcome::Resumed { size, checksum } => {
                let text = context.text(None, original, size, &checksum);
                detail!(process: process, "checksum resumed file {path} {text}");
            }
            FileOutcome::Removed => detail!(process: process, "skip file removed by database {path}"),
            FileOutcome::Truncated => {
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
            FileOutcome::Copied(copied) => {
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

    /// Warns of wrong pages, or fails if asked to.
    fn page_check(&self, pages: &PageOutcome, path: &dyn std::fmt::Display, size: u64) -> Result<PageCheck> {
        let (check, text) = match pages {
            PageOutcome::Valid => return Ok(PageCheck::VALID),
            PageOutcome::Misaligned => (
                PageCheck::invalid(Vec::new()),
                format!(
                    "page misalignment in file {path}: file size {size} is not divisible by page size {}",
                    self.copy.page_size
                ),
            ),
            PageOutcome::Errors(errors) => {
                let texts: Vec<String> = errors
                    .iter()
                    .map(|(first, last)| if first == last { first.to_string() } else { format!("{first}-{last}") })
                    .collect();
                let plural =
                    if errors.len() > 1 || errors.iter().any(|(first, last)| first != last) { "s" } else { "" };
                (
                    PageCheck::invalid(errors.iter().map(|&(first, last)| PageRange { first, last }).collect()),
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

/// What the line about a file needs besides the file.
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

/// Makes sure that a file of its own was stored under its own name: nothing else would notice before it is missed.
fn check_place(job: &CopyJob, name: &str) -> Result<()> {
    let path = job.path.as_str();
    let is_right = |at: usize| path[..at].ends_with('/') && !path[at + name.len()..].contains('/');
    if job.bundle_id.is_some() || path.rfind(name).is_some_and(is_right) {
        return Ok(());
    }
    Err(Error::new(ErrorCode::Assert, format!("file '{name}' was stored as '{path}'")))
}

/// Takes a stored file into the manifest.
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
        // Stored whole, for example because blocks are switched off since the prior backup
        _ => None,
    };
}

/// No worker leaves the shared state half changed: changes are plain assignments.
fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use repo_format::layout::RepoPath;

    use super::*;

    #[test]
    fn file_under_another_name_is_an_error() {
        let check = |path: &str, bundle_id| {
            let path = RepoPath::new(path).unwrap();
            let job = CopyJob { path, bundle_id, data_dir: 0, files: Vec::new(), threads: 1 };
            check_place(&job, "pg_data/base/1/2").map_err(|error| error.code)
        };
        for right in ["pg_data/base/1/2", "pg_data/base/1/2.zst", "pg_data/base/1/2.pgbi"] {
            assert_eq!(check(&format!("backup/demo/20260101-000000F/{right}"), None), Ok(()));
        }
        assert_eq!(check("backup/demo/20260101-000000F/bundle/1", Some(1)), Ok(()));
        for wrong in ["pg_data/base/1/3.zst", "pg_data/base/1/2/x", "bundle/1"] {
            assert_eq!(
                check(&format!("backup/demo/20260101-000000F/{wrong}"), None),
                Err(ErrorCode::Assert),
                "{wrong}"
            );
        }
    }
}
