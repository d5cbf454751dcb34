//! Finds out which files in blocks have not changed before their block maps are read.
//!
//! A map is a request to the repository, and the maps of a large cluster are many. Most files of a backup that compares
//! checksums have not changed.

use crate::pg::host::remote::worker::RemoteWorker;
use crate::pipeline::backup::{Compared, CopyFile, CopyJob, CopyMethod, CopyResult, JobStore, OpenJob};
use crate::{CancelToken, Result};

/// Whether the map of the prior backup would be read in vain if the file has not changed.
fn is_asked(file: &CopyFile) -> bool {
    file.method.compares() && file.block.is_some()
}

/// Compares the files whose maps would be read. Returns what is known of each file of the job; nothing if there are none.
///
/// # Errors
/// A file can't be read.
pub(super) fn look(
    worker: &RemoteWorker<'_>,
    job: &CopyJob,
    store: &mut dyn JobStore,
    cancel: &CancelToken,
) -> Result<Vec<Option<Compared>>> {
    let files: Vec<_> = job.files.iter().filter(|file| is_asked(file)).cloned().collect();
    if files.is_empty() {
        return Ok(Vec::new());
    }
    let asked = CopyJob { files, ..job.clone() };
    let mut compared = worker.compare(&mut OpenJob::new(&asked, store, cancel))?.into_iter();
    Ok(job.files.iter().map(|file| if is_asked(file) { compared.next() } else { None }).collect())
}

/// Returns what is left of the job; `None` if nothing is known.
pub(super) fn rest(job: &CopyJob, known: &[Option<Compared>]) -> Option<CopyJob> {
    if known.is_empty() {
        return None;
    }
    let files = job.files.iter().zip(known).filter_map(|(file, known)| match known {
        Some(Compared::Done(_)) => None,
        // Not again
        Some(Compared::Differs { .. }) => Some(CopyFile { method: CopyMethod::Copy, ..file.clone() }),
        None => Some(file.clone()),
    });
    Some(CopyJob { files: files.collect(), ..job.clone() })
}

/// The results of the whole job, with those of what was left.
pub(super) fn all_results(job: &CopyJob, known: Vec<Option<Compared>>, rest: Vec<CopyResult>) -> Vec<CopyResult> {
    let mut rest = rest.into_iter();
    let result = |(file, known): (&CopyFile, Option<Compared>)| match known {
        Some(Compared::Done(outcome)) => Some(CopyResult { name: file.name.clone(), outcome }),
        _ => rest.next(),
    };
    job.files.iter().zip(known).filter_map(result).collect()
}
