//! The order in which files are restored, and how they form jobs.

use std::cmp::Reverse;
use std::collections::HashMap;

use repo_format::label::BackupLabel;
use repo_format::manifest::{Manifest, PG_DATA};

use crate::{Error, ErrorCode, Result};

/// Files that one worker restores one after another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RestoreJob {
    /// Indices into the manifest's files: one file, or adjacent files of one bundle in the order of their offsets.
    pub files: Vec<u32>,
    /// Bytes of these files when restored.
    pub size: u64,
}

/// The jobs of a restore.
#[derive(Clone, Debug)]
pub(crate) struct RestoreQueues {
    /// One queue for the data directory and one per tablespace, so that workers spread over file systems.
    pub queues: Vec<Vec<RestoreJob>>,
    /// Bytes of all files when restored.
    pub size: u64,
}

/// The position of a file in its queue.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct SortKey<'a> {
    is_empty: bool,
    bundle_id: u64,
    place: QueuePosition<'a>,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum QueuePosition<'a> {
    /// A file on its own: large files first, so that the last ones are small and workers end at the same time.
    Alone(Reverse<u64>, Reverse<&'a str>),
    /// A file in a bundle: those of other backups first, then by offset.
    Bundled { is_own: bool, reference: Option<&'a BackupLabel>, offset: u64 },
}

/// The maximum number of files per job, so that cancelling and progress do not wait for a huge bundle.
const JOB_FILES_MAX: usize = 16 * 1024;

/// Creates the queues (pgBackRest `restoreProcessQueue` and `restoreJobCallback` in
/// `src/command/restore/process.c.inc`).
///
/// # Errors
/// [`ErrorCode::Format`] for a file that belongs to no target.
pub(crate) fn queues(manifest: &Manifest) -> Result<RestoreQueues> {
    let tablespaces = manifest.targets.iter().filter(|target| target.tablespace.is_some());
    let numbers: HashMap<&str, usize> = tablespaces.map(|target| target.name.as_str()).zip(1..).collect();
    let mut files: Vec<Vec<u32>> = vec![Vec::new(); numbers.len() + 1];
    let mut size = 0u64;
    for (index, file) in (0u32..).zip(&manifest.files) {
        let number = match target_name(&file.name) {
            Some(PG_DATA) => Some(0),
            Some(name) => numbers.get(name).copied(),
            None => None,
        };
        let queue = number.and_then(|number| files.get_mut(number));
        queue.ok_or_else(|| Error::new(ErrorCode::Format, "backup target not found"))?.push(index);
        size = size.saturating_add(file.size);
    }
    let queues = files.into_iter().map(|files| queue(manifest, files)).collect();
    Ok(RestoreQueues { queues, size })
}

/// Returns the part of a file's name that identifies its target: `pg_data`, or `pg_tblspc/` and a number.
fn target_name(file: &str) -> Option<&str> {
    let (first, rest) = file.split_once('/')?;
    if first == PG_DATA {
        return Some(first);
    }
    let (second, _) = rest.split_once('/')?;
    file.get(..first.len() + 1 + second.len())
}

fn queue(manifest: &Manifest, mut files: Vec<u32>) -> Vec<RestoreJob> {
    let file = |index: u32| &manifest.files[index as usize];
    let reference =
        |index: u32| file(index).reference.and_then(|reference| manifest.references.get(reference as usize));
    files.sort_by(|&a, &b| {
        let key = |index: u32| {
            let file = file(index);
            SortKey {
                is_empty: file.size == 0,
                bundle_id: file.bundle.map_or(0, |bundle| bundle.id()),
                place: match file.bundle {
                    None => QueuePosition::Alone(Reverse(file.size), Reverse(&file.name)),
                    Some(bundle) => QueuePosition::Bundled {
                        is_own: file.reference.is_none(),
                        reference: reference(index),
                        offset: bundle.offset,
                    },
                },
            }
        };
        key(a).cmp(&key(b))
    });

    let mut jobs: Vec<RestoreJob> = Vec::new();
    let mut last: Option<(u64, Option<u32>)> = None;
    // Empty files read nothing, so any number of them may share a job
    let mut last_empty = false;
    for index in files {
        let file = file(index);
        let place = file.bundle.map(|bundle| (bundle.id(), file.reference));
        let is_empty = file.size == 0;
        match jobs.last_mut() {
            Some(job)
                if job.files.len() < JOB_FILES_MAX
                    && last_empty == is_empty
                    && (is_empty || (place.is_some() && place == last)) =>
            {
                job.files.push(index);
                job.size = job.size.saturating_add(file.size);
            }
            _ => jobs.push(RestoreJob { files: vec![index], size: file.size }),
        }
        (last, last_empty) = (place, is_empty);
    }
    jobs
}

#[cfg(test)]
mod tests {
    use repo_format::manifest::Bundle;

    use super::super::fixture::{file, manifest};
    use super::*;

    fn names(manifest: &Manifest, queue: &[RestoreJob]) -> Vec<Vec<String>> {
        let name = |index: &u32| manifest.files[*index as usize].name.rsplit('/').next().unwrap().to_owned();
        queue.iter().map(|job| job.files.iter().map(name).collect()).collect()
    }

    #[test]
    fn queues_are_one_per_tablespace_and_the_largest_file_comes_first() {
        let manifest = manifest();
        let queues = queues(&manifest).unwrap();
        assert_eq!(
            names(&manifest, &queues.queues[0]),
            [
                vec!["pg_hba.conf"],
                vec!["postgresql.auto.conf"],
                vec!["pg_control"],
                vec!["1259"],
                vec!["PG_VERSION"],
                vec!["2600"]
            ]
        );
        assert_eq!(names(&manifest, &queues.queues[1]), [vec!["3000"]]);
        assert_eq!(queues.size, manifest.files.iter().map(|file| file.size).sum::<u64>());
    }

    #[test]
    fn queues_of_bundles_are_jobs_by_backup_in_order_of_offset() {
        let mut manifest = manifest();
        manifest.references = vec!["20250101-000000F".parse().unwrap(), manifest.data.label.clone()];
        manifest.files =
            [("a", 1, 5, None), ("b", 1, 0, None), ("c", 1, 9, Some(0)), ("d", 2, 0, Some(0)), ("e", 0, 0, None)]
                .map(|(name, id, offset, reference)| {
                    let mut file = file(&format!("pg_data/{name}"), b"x");
                    file.bundle = Bundle::new(id, offset);
                    file.reference = reference;
                    file
                })
                .to_vec();
        manifest.files.push(file("pg_data/f", b""));
        manifest.files.push(file("pg_data/g", b""));
        let queues = queues(&manifest).unwrap();
        assert_eq!(
            names(&manifest, &queues.queues[0]),
            [vec!["e"], vec!["c"], vec!["b", "a"], vec!["d"], vec!["g", "f"]]
        );
    }

    #[test]
    fn queues_of_a_file_without_target_are_refused() {
        let mut manifest = manifest();
        manifest.files.push(file("pg_tblspc/5/PG_15_1/1/1", b""));
        assert_eq!(queues(&manifest).unwrap_err().code, ErrorCode::Format);
    }
}
