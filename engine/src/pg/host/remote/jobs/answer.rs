//! The results of a job, and whether they fit it. The other host is not trusted.

use protocol::copy::{CheckedPages, CopiedFile, JobEnd, JobFileResult};
use repo_format::hash::Sha1;
use repo_format::manifest::PageRange;
use repo_format::pg::control::CONTROL_FILE_SIZE;

use crate::pg::data_dir::PG_CONTROL;
use crate::pg::host::remote::filters::{pages_fit, transforms};
use crate::pipeline::PageOutcome;
use crate::pipeline::backup::{Copied, CopyFile, CopyJob, CopyOutcome, CopyResult, CopyRules};
use crate::{Error, ErrorCode, Result};

/// The end of a job, with its own data.
pub(super) struct OwnedEnd {
    size: u64,
    checksum: Sha1,
    outcomes: Vec<CopyOutcome>,
}

impl OwnedEnd {
    /// # Errors
    /// [`ErrorCode::Protocol`] for a checksum of another size.
    pub(super) fn new(end: JobEnd<'_>) -> Result<Self> {
        let outcomes = end.results.into_iter().map(outcome).collect::<Result<_>>()?;
        Ok(OwnedEnd { size: end.size, checksum: sha1(end.checksum)?, outcomes })
    }

    /// Returns the results of a job of which these bytes came, by size and checksum.
    ///
    /// # Errors
    /// [`ErrorCode::FileRead`] if something else came, or the results do not fit the job.
    pub(super) fn results(&self, rules: &CopyRules, job: &CopyJob, came: (u64, Sha1)) -> Result<Vec<CopyResult>> {
        if came != (self.size, self.checksum) {
            let text = format!(
                "{} byte(s) with checksum {} came but the host sent {} with checksum {}",
                came.0, came.1, self.size, self.checksum
            );
            return Err(Error::new(ErrorCode::FileRead, text));
        }
        if self.outcomes.len() != job.files.len() {
            return refuse(&format!("{} result(s) came for {} file(s)", self.outcomes.len(), job.files.len()));
        }
        if let [CopyOutcome::Copied(copied)] = &*self.outcomes
            && copied.checksum_repo.unwrap_or(copied.checksum) != self.checksum
        {
            return refuse("what came has another checksum than what was stored");
        }
        let mut offset = 0u64;
        for (file, outcome) in job.files.iter().zip(&self.outcomes) {
            check(rules, job, file, outcome).map_err(|error| error.context(format!("'{}'", file.name)))?;
            if let CopyOutcome::Copied(copied) = outcome {
                if copied.bundle_offset != offset {
                    return refuse(&format!("'{}' begins at {} instead of {offset}", file.name, copied.bundle_offset));
                }
                offset = offset.saturating_add(copied.size_repo);
            }
        }
        if offset != self.size {
            return refuse(&format!("files have {offset} byte(s) but {} came", self.size));
        }
        let result = |(file, outcome): (&CopyFile, &CopyOutcome)| CopyResult {
            name: file.name.clone(),
            outcome: outcome.clone(),
        };
        Ok(job.files.iter().zip(&self.outcomes).map(result).collect())
    }
}

fn refuse<T>(text: &str) -> Result<T> {
    Err(Error::new(ErrorCode::FileRead, text))
}

/// Checks that the file can have this result.
fn check(rules: &CopyRules, job: &CopyJob, file: &CopyFile, outcome: &CopyOutcome) -> Result<()> {
    let is_control = &*file.name == PG_CONTROL;
    match outcome {
        CopyOutcome::Copied(copied) if is_control && copied.size != CONTROL_FILE_SIZE as u64 => {
            refuse(&format!("it has {} byte(s) instead of {CONTROL_FILE_SIZE}", copied.size))
        }
        CopyOutcome::Removed | CopyOutcome::Truncated if is_control => refuse("it is missing or empty"),
        CopyOutcome::Copied(copied) => check_copied(rules, file, copied),
        CopyOutcome::Unchanged { size, checksum } => {
            let is_recorded = file.has_reference && *size == file.size && Some(*checksum) == file.checksum;
            if is_recorded { Ok(()) } else { refuse("it has changed but was not stored") }
        }
        CopyOutcome::Truncated if job.bundle_id.is_none() && file.block.is_none() => refuse("nothing of it was stored"),
        CopyOutcome::Resumed { .. } => refuse("it was not stored"),
        CopyOutcome::Truncated | CopyOutcome::Removed => Ok(()),
    }
}

fn check_copied(rules: &CopyRules, file: &CopyFile, copied: &Copied) -> Result<()> {
    let Copied { size, size_repo, map_size, .. } = *copied;
    if file.exact_size && size > file.size_original {
        return refuse(&format!("the host read {size} byte(s) but was asked for {}", file.size_original));
    }
    if map_size.is_some() != file.block.is_some() || copied.pages.is_some() != file.page_check {
        return refuse("the result lacks a block map or a page check");
    }
    if map_size.is_some_and(|map_size| map_size == 0 || map_size > size_repo) {
        return refuse(&format!("block map of {map_size:?} byte(s) does not fit {size_repo} byte(s)"));
    }
    if !pages_fit(copied.pages.as_ref(), size, rules.page_size) {
        return refuse("the ranges of damaged pages do not fit the file");
    }
    match (transforms(rules, file), copied.checksum_repo) {
        (true, Some(_)) => Ok(()),
        (false, None) if size == size_repo => Ok(()),
        _ => refuse("size or checksum of what was stored is not right"),
    }
}

fn outcome(result: JobFileResult<'_>) -> Result<CopyOutcome> {
    Ok(match result {
        JobFileResult::Copied(copied) => CopyOutcome::Copied(stored(copied)?),
        JobFileResult::Unchanged { size, checksum } => CopyOutcome::Unchanged { size, checksum: sha1(checksum)? },
        JobFileResult::Truncated => CopyOutcome::Truncated,
        JobFileResult::Removed => CopyOutcome::Removed,
    })
}

fn stored(copied: CopiedFile<'_>) -> Result<Copied> {
    Ok(Copied {
        size: copied.size,
        checksum: sha1(copied.checksum)?,
        size_repo: copied.size_repo,
        checksum_repo: copied.checksum_repo.map(sha1).transpose()?,
        bundle_offset: copied.offset,
        map_size: copied.map_size,
        pages: copied.pages.map(pages),
        repo_invalid: false,
    })
}

fn pages(pages: CheckedPages) -> PageOutcome {
    match pages {
        CheckedPages::Valid => PageOutcome::Valid,
        CheckedPages::Misaligned => PageOutcome::Misaligned,
        CheckedPages::Damaged(ranges) => {
            PageOutcome::Errors(ranges.into_iter().map(|[first, last]| PageRange { first, last }).collect())
        }
    }
}

fn sha1(bytes: &[u8]) -> Result<Sha1> {
    let bytes = bytes.try_into().map_err(|_| Error::new(ErrorCode::Protocol, "checksum has another size"))?;
    Ok(Sha1(bytes))
}
