//! `archive-get`: fetches the WAL file that PostgreSQL asks for.

pub mod claim;
pub mod find;
pub mod foreground;
mod look;
pub mod prefetch;
pub mod segment;

use std::path::Path;

use engine::Result;

pub use find::WalCluster;

use self::claim::{Caller, DestinationClaim};
use self::segment::Decode;
use crate::repos::Repos;

/// Copies one file to its destination. Returns `false` if no repository has it. `repos` are tried in order.
///
/// # Errors
/// [`engine::ErrorCode::RepoInvalid`] without a usable repository, [`engine::ErrorCode::ArchiveDuplicate`] for a
/// segment that is stored with different contents, [`engine::ErrorCode::FileRead`] if no stored copy can be read, and
/// those of [`find::find`].
pub fn get(repos: &Repos, cluster: &WalCluster, wal_file: &str, destination: &Path) -> Result<bool> {
    let mut caller = Caller::now();
    loop {
        match get_into(DestinationClaim::new(destination), repos, cluster, wal_file) {
            Err(error) if claim::is_lost(&error) && caller.still_waits() => {}
            answer => return answer,
        }
    }
}

/// Like [`get`], but tries once, with a temporary file that already exists.
fn get_into(mut claim: DestinationClaim, repos: &Repos, cluster: &WalCluster, wal_file: &str) -> Result<bool> {
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use engine::ErrorCode;
    use engine::repo::{Repo, info_files};
    use engine::storage::memory::MemoryStorage;
    use engine::storage::{self, WriteOptions};
    use repo_format::archive_info::ArchiveInfo;
    use repo_format::cipher::Cipher;
    use repo_format::layout;

    use super::*;

    const CONTROL: &[u8] = include_bytes!("../../tests/fixtures/pg/pg_control_15");
    const HISTORY: &str = "00000002.history";

    #[test]
    fn empty_history_file_is_no_answer() {
        let dir = tempfile::tempdir().expect("dir");
        std::fs::create_dir_all(dir.path().join("global")).expect("data directory");
        std::fs::write(dir.path().join("global/pg_control"), CONTROL).expect("pg_control");
        let stanza: layout::Stanza = "demo".parse().expect("stanza");
        let control = engine::pg::control_file::read(dir.path(), None).expect("control");
        let repo = |key, history: &[u8]| {
            let repo = Repo { key, storage: Arc::new(MemoryStorage::new()), cipher: Cipher::None };
            let info = ArchiveInfo::new(control.version, control.system_id, None);
            info_files::save_archive_info(&repo, &stanza, &info).expect("info");
            let path = layout::archive_file(&stanza, "15-1".parse().expect("archive id"), HISTORY).expect("path");
            storage::put(&*repo.storage, &path, history, WriteOptions::ATOMIC).expect("put");
            repo
        };
        let cluster = WalCluster { stanza: stanza.clone(), pg_path: dir.path().to_owned(), version_force: None };
        let destination = dir.path().join("got");
        let empty = vec![repo(1, b"")].into();
        let error = get(&empty, &cluster, HISTORY, &destination).expect_err("empty");
        assert!(error.code == ErrorCode::FileRead && error.message.contains("is empty"), "{error}");
        assert!(!destination.exists());
        let both = vec![repo(1, b""), repo(2, b"1\t0/3000000\tno reason")].into();
        assert!(get(&both, &cluster, HISTORY, &destination).expect("second"));
        assert_eq!(std::fs::read(destination).expect("got"), b"1\t0/3000000\tno reason");
    }
}
