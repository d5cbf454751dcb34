//! Logs the results of copy jobs and applies them to the manifest.

use std::fmt::{self, Display};

use repo_format::hash::Sha1;
use repo_format::layout::{self, FileForm, Stanza};
use repo_format::manifest::{BlockIncr, Bundle, ManifestData, ManifestFile, PageCheck, PageRange};
use repo_format::size::{format_percent, format_size};

use super::draft::{BackupFile, FileState};
use super::queue::Total;
use super::shared::Shared;
use super::source::Hosts;
use crate::pipeline::PageOutcome;
use crate::pipeline::backup::{Copied, CopyJob, CopyOutcome, CopyResult};
use crate::{Error, ErrorCode, Result, detail, warn};

/// What a report needs besides the results.
#[derive(Clone, Copy)]
pub(super) struct ReportSettings<'a> {
    pub(super) stanza: &'a Stanza,
    pub(super) hosts: &'a Hosts,
    /// Bytes of a page.
    pub(super) page_size: u32,
    /// Whether an invalid page is an error.
    pub(super) checksum_page_error: bool,
    pub(super) total: Total,
}

/// The results so far.
pub(super) struct Report<'a> {
    settings: ReportSettings<'a>,
    data: &'a ManifestData,
    shared: &'a Shared,
    /// Bytes of the files that are done.
    pub(super) bytes: u64,
    /// Number of files with invalid pages.
    pub(super) page_errors: u32,
}

impl<'a> Report<'a> {
    pub(super) fn new(settings: ReportSettings<'a>, data: &'a ManifestData, shared: &'a Shared) -> Self {
        Report { settings, data, shared, bytes: 0, page_errors: 0 }
    }

    /// Logs the results of a job and applies them.
    ///
    /// # Errors
    /// [`ErrorCode::Assert`] if the results are not those of the job, and [`ErrorCode::Checksum`] for an invalid page if
    /// that is an error.
    pub(super) fn job(&mut self, worker: u32, job: &CopyJob, results: Vec<CopyResult>) -> Result<()> {
        if !results.iter().map(|result| &result.name).eq(job.files.iter().map(|file| &file.name)) {
            let message = format!("files of '{}' and results do not match", job.path);
            return Err(Error::new(ErrorCode::Assert, message));
        }
        for result in results {
            self.file(worker, job, result)?;
        }
        Ok(())
    }

    fn file(&mut self, worker: u32, job: &CopyJob, result: CopyResult) -> Result<()> {
        let CopyResult { name, outcome } = result;
        let (original, checksum) =
            self.shared.with_file(&name, |file| (file.entry.size_original, file.entry.checksum))?;
        self.bytes += original;
        self.log(worker, job, &Known { name: &name, original, checksum }, &outcome);
        let pages = match &outcome {
            CopyOutcome::Copied(Copied { pages: Some(pages), size, .. }) => {
                Some(self.page_check(pages, &self.path(job, &name), *size)?)
            }
            _ => None,
        };
        self.page_errors += u32::from(pages.as_ref().is_some_and(|check| !check.valid));
        let is_stored = matches!(outcome, CopyOutcome::Copied(_) | CopyOutcome::Resumed { .. });
        self.shared.with_file(&name, |file| {
            apply(file, outcome, pages, job.bundle_id);
            if is_stored { check_place(self.settings.stanza, self.data, &file.entry, job) } else { Ok(()) }
        })?
    }

    fn path(&self, job: &CopyJob, name: &str) -> String {
        self.settings.hosts.file_place(job.from, name)
    }

    /// Logs what was done with a file.
    fn log(&self, worker: u32, job: &CopyJob, before: &Known<'_>, outcome: &CopyOutcome) {
        let path = self.path(job, before.name);
        let facts = |place, size, checksum| Facts {
            place,
            original: before.original,
            size,
            percent: (self.bytes, self.settings.total.bytes),
            checksum,
        };
        match outcome {
            CopyOutcome::Unchanged { size, checksum } => {
                detail!(process: worker, "match file from prior backup {path} {}", facts(None, *size, *checksum));
            }
            CopyOutcome::Resumed { size, checksum } => {
                detail!(process: worker, "checksum resumed file {path} {}", facts(None, *size, *checksum));
            }
            CopyOutcome::Removed => detail!(process: worker, "skip file removed by database {path}"),
            CopyOutcome::Truncated => {
                detail!(process: worker, "store truncated file {path} {}", facts(None, 0, Sha1::EMPTY));
            }
            CopyOutcome::Copied(copied) => {
                let place = job.bundle_id.and_then(|id| Bundle::new(id, copied.bundle_offset));
                detail!(process: worker, "backup file {path} {}", facts(place, copied.size, copied.checksum));
                if copied.repo_invalid {
                    let expected = before.checksum.map_or_else(String::new, |checksum| checksum.to_string());
                    warn!(
                        "resumed backup file {} did not have expected checksum {expected}. The file was recopied and \
                         backup will continue but this may be an issue unless the resumed backup path in the repository \
                         is known to be corrupted.\nNOTE: this does not indicate a problem with the PostgreSQL page \
                         checksums.",
                        before.name
                    );
                }
            }
        }
    }

    /// Warns about invalid pages, or fails if requested.
    fn page_check(&self, pages: &PageOutcome, path: &dyn Display, size: u64) -> Result<PageCheck> {
        let (check, text) = match pages {
            PageOutcome::Valid => return Ok(PageCheck::VALID),
            PageOutcome::Misaligned => (
                PageCheck::invalid(Vec::new()),
                format!(
                    "page misalignment in file {path}: file size {size} is not divisible by page size {}",
                    self.settings.page_size
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
        if self.settings.checksum_page_error {
            return Err(Error::new(ErrorCode::Checksum, text));
        }
        warn!("{text}");
        Ok(check)
    }
}

/// What was known about a file before it was copied.
struct Known<'a> {
    name: &'a str,
    /// Size at the scan.
    original: u64,
    checksum: Option<Sha1>,
}

/// `([bundle N/offset, ][oldsize->]size, pct%)[ checksum sha1]`.
struct Facts {
    place: Option<Bundle>,
    original: u64,
    size: u64,
    /// Bytes done and in total.
    percent: (u64, u64),
    checksum: Sha1,
}

impl Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(")?;
        if let Some(place) = self.place {
            write!(f, "bundle {}/{}, ", place.id(), place.offset)?;
        }
        if self.size != self.original {
            write!(f, "{}->", format_size(self.original))?;
        }
        let (done, total) = self.percent;
        write!(f, "{}, {})", format_size(self.size), format_percent(done, total))?;
        if self.size != 0 {
            write!(f, " checksum {}", self.checksum)?;
        }
        Ok(())
    }
}

/// Applies what was done with a file.
fn apply(file: &mut BackupFile, outcome: CopyOutcome, pages: Option<PageCheck>, bundle_id: Option<u64>) {
    let entry = &mut file.entry;
    file.state = FileState::Complete;
    match outcome {
        CopyOutcome::Unchanged { .. } | CopyOutcome::Resumed { .. } => {}
        CopyOutcome::Removed => file.state = FileState::Removed,
        CopyOutcome::Truncated => {
            entry.size = 0;
            entry.size_repo = 0;
            entry.checksum = Some(Sha1::EMPTY);
            entry.checksum_repo = None;
            entry.reference = None;
            entry.bundle = None;
            entry.block = None;
            if let Some(page_check) = &mut entry.page_check {
                *page_check = PageCheck::VALID;
            }
        }
        CopyOutcome::Copied(copied) => {
            entry.page_check = pages;
            store(entry, copied, bundle_id);
        }
    }
}

/// Applies a stored file.
fn store(entry: &mut ManifestFile, copied: Copied, bundle_id: Option<u64>) {
    entry.size = copied.size;
    entry.size_repo = copied.size_repo;
    entry.checksum = Some(copied.checksum);
    entry.checksum_repo = copied.checksum_repo;
    entry.reference = None;
    entry.bundle = bundle_id.and_then(|id| Bundle::new(id, copied.bundle_offset));
    entry.block = match (copied.map_size, entry.block.take()) {
        (Some(map_size), Some(block)) => Some(BlockIncr { map_size, ..block }),
        // Stored as a whole, for example because blocks were disabled since the prior backup
        _ => None,
    };
}

/// Checks that a file was stored where its entry says. Nothing else would detect a mismatch before a restore.
fn check_place(stanza: &Stanza, data: &ManifestData, file: &ManifestFile, job: &CopyJob) -> Result<()> {
    let name = &file.name;
    let expected = match file.bundle {
        Some(bundle) => layout::bundle(stanza, &data.label, bundle.id()),
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

#[cfg(test)]
mod tests {
    use repo_format::compress::CompressType;
    use repo_format::label::BackupType;
    use repo_format::layout::RepoPath;
    use repo_format::pg::PgVersion;

    use super::*;
    use crate::pipeline::backup::CopyFrom;

    fn check(kind: CompressType, path: &str, bundle_id: Option<u64>, map_size: u64) -> Option<ErrorCode> {
        let path = RepoPath::new(format!("backup/demo/20260101-000000F/{path}")).unwrap();
        let job = CopyJob { from: CopyFrom::Primary, path, bundle_id, files: Vec::new(), threads: 1 };
        let file = ManifestFile {
            bundle: bundle_id.and_then(|id| Bundle::new(id, 7)),
            block: Some(BlockIncr { size: 8192, checksum_size: 6, map_size }),
            ..ManifestFile::new("pg_data/base/1/2", 3, 0)
        };
        let mut data = ManifestData::new("20260101-000000F".parse().unwrap(), BackupType::Full, 1, PgVersion::V15, 1);
        data.options.compress_type = kind;
        check_place(&"demo".parse().unwrap(), &data, &file, &job).err().map(|error| error.code)
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
}
