//! `archive-get`: fetching the WAL file that PostgreSQL asks for.

pub mod claim;
pub mod find;
pub mod foreground;
pub mod prefetch;
pub mod segment;

use std::path::Path;

use engine::Result;

pub use find::Cluster;

use self::claim::Claim;
use self::segment::Decode;
use crate::repos::Repos;

/// Copies one file to its destination; `false` when no repository has it. `repos` are those to look at, in order.
///
/// # Errors
/// [`engine::ErrorCode::RepoInvalid`] without a usable repository, [`engine::ErrorCode::ArchiveDuplicate`] for a segment that
/// is stored with different contents, [`engine::ErrorCode::FileRead`] when no stored copy can be read, and those of
/// [`find::find`].
pub fn get(repos: &Repos, cluster: &Cluster, wal_file: &str, destination: &Path) -> Result<bool> {
    get_into(Claim::new(destination), repos, cluster, wal_file)
}

/// As [`get`], into a file that is there already.
fn get_into(mut claim: Claim, repos: &Repos, cluster: &Cluster, wal_file: &str) -> Result<bool> {
    let findings = find::find(repos, cluster, &[wal_file.to_owned()])?;
    if let Some(failure) = findings.failure {
        return Err(failure.error);
    }
    let Some(answer) = findings.answers.first() else {
        engine::info!("unable to find {wal_file} in the archive");
        return Ok(false);
    };
    let (index, warnings) = segment::fetch(answer, &mut claim, Decode::Beside)?;
    claim.finish()?;
    for warning in warnings {
        engine::warn!("{warning}");
    }
    let candidate = &answer.candidates[index];
    engine::info!("found {wal_file} in the repo{}: {} archive", candidate.repo.key, candidate.archive_id);
    Ok(true)
}
