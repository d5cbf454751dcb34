//! Puts together what was collected of one stanza in several repositories, each by itself.

use super::{BackupFact, StanzaFact, StatusCode};

impl StanzaFact {
    /// Returns the facts of a stanza over all repositories, from the facts of each: what [`Session::info`] returns for a
    /// session with all of them. `None` if there are none.
    ///
    /// [`Session::info`]: crate::Session::info
    pub fn merged(facts: impl IntoIterator<Item = StanzaFact>) -> Option<StanzaFact> {
        let mut facts = facts.into_iter();
        let mut merged = facts.next()?;
        let mut queues = vec![std::mem::take(&mut merged.backups)];
        for mut fact in facts {
            merged.current = merged.current.or(fact.current);
            merged.status = match (merged.status, fact.status) {
                (StatusCode::PgMismatch, _) => StatusCode::PgMismatch,
                _ if fact.current.is_some_and(|current| Some(current) != merged.current) => StatusCode::PgMismatch,
                (before, status) if before == status => before,
                _ => StatusCode::Mixed,
            };
            queues.push(std::mem::take(&mut fact.backups));
            merged.repos.append(&mut fact.repos);
            merged.restore_lock.add(fact.restore_lock);
            merged.databases.append(&mut fact.databases);
            merged.archives.append(&mut fact.archives);
        }
        merged.backups = by_end(queues);
        Some(merged)
    }
}

/// Merges the backups of several repositories by their end. Within a repository, the order stays.
fn by_end(queues: Vec<Vec<BackupFact>>) -> Vec<BackupFact> {
    let mut queues: Vec<_> = queues.into_iter().map(|queue| queue.into_iter().peekable()).collect();
    let mut merged = Vec::new();
    loop {
        let heads = queues.iter_mut().enumerate();
        let heads = heads.filter_map(|(index, queue)| Some((queue.peek()?.entry.timestamp_stop, index)));
        let Some((_, index)) = heads.min() else { return merged };
        merged.extend(queues[index].next());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use repo_format::cipher::Cipher;
    use repo_format::layout::{self, Stanza};
    use repo_format::pg::PgVersion;

    use super::*;
    use crate::info::InfoRequest;
    use crate::repo::info_files;
    use crate::session::RepoSource;
    use crate::storage::memory::MemoryStorage;
    use crate::storage::{WriteOptions, put};
    use crate::{Error, ErrorCode, Repo, Session};

    fn stanza() -> Stanza {
        "demo".parse().unwrap()
    }

    /// A repository with the info files of a fixture, or of an empty stanza of this cluster.
    fn repo(key: u32, fixture: Option<(&[u8], &[u8])>, system_id: u64) -> Repo {
        let storage = Arc::new(MemoryStorage::new());
        let repo = Repo { key, storage: storage.clone(), cipher: Cipher::None };
        let Some((backup, archive)) = fixture else {
            let version = PgVersion::V15;
            let catalog = version.catalog_version().unwrap();
            let backup = repo_format::backup_info::BackupInfo::new(version, system_id, catalog, None).unwrap();
            info_files::save_backup_info(&repo, &stanza(), &backup).unwrap();
            let archive = repo_format::archive_info::ArchiveInfo::new(version, system_id, None);
            info_files::save_archive_info(&repo, &stanza(), &archive).unwrap();
            return repo;
        };
        for (path, bytes) in [(layout::backup_info(&stanza()), backup), (layout::archive_info(&stanza()), archive)] {
            put(&*storage, &path, bytes, WriteOptions::ATOMIC).unwrap();
            put(&*storage, &layout::copy(&path), bytes, WriteOptions::ATOMIC).unwrap();
        }
        repo
    }

    #[test]
    fn merged_facts_are_those_of_all_repositories_asked_at_once() {
        macro_rules! fixture {
            ($name:literal) => {
                Some((
                    include_bytes!(concat!("../../../tests/fixtures/info/", $name, "/backup.info")).as_slice(),
                    include_bytes!(concat!("../../../tests/fixtures/info/", $name, "/archive.info")).as_slice(),
                ))
            };
        }
        let kinds: [fn(u32) -> Repo; 5] = [
            |key| repo(key, fixture!("online"), 0),
            |key| repo(key, fixture!("plain"), 0),
            |key| repo(key, None, 7),
            |key| Repo { key, storage: Arc::new(MemoryStorage::new()), cipher: Cipher::None },
            |key| Repo::unreachable(key, Error::new(ErrorCode::HostConnect, "no answer")),
        ];
        let dir = tempfile::tempdir().unwrap();
        let info = |repos: &[Repo]| {
            let session = Session::new(stanza(), repos.iter().cloned().map(RepoSource::Open)).unwrap();
            session.with_lock_path(dir.path()).info(&InfoRequest::default()).unwrap()
        };
        let mut statuses = std::collections::BTreeSet::new();
        for kind in 0..125 {
            let repos = [kinds[kind / 25](1), kinds[kind / 5 % 5](2), kinds[kind % 5](3)];
            let all = info(&repos);
            let merged = StanzaFact::merged(repos.iter().map(|repo| info(std::slice::from_ref(repo)))).unwrap();
            assert_eq!(format!("{merged:?}"), format!("{all:?}"), "{kind}");
            statuses.insert(merged.status.number());
        }
        assert_eq!(Vec::from_iter(statuses), [0, 1, 2, 4, 5, 99]);
        assert!(StanzaFact::merged([]).is_none());
    }
}
