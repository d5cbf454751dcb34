//! The repositories that WAL goes to or comes from.

use engine::Error;
use engine::repo::Repo;
use engine::storage::Concurrency;

/// The repositories of a command. One that can't be opened does not prevent the use of the others.
#[derive(Default)]
pub struct Repos {
    /// The repositories that could be opened, in the order of their numbers.
    pub open: Vec<Repo>,
    /// The numbers of the others, and why they can't be opened.
    pub broken: Vec<(u32, Error)>,
}

impl Repos {
    /// Returns the problems of repositories that can't be opened, each with its number.
    pub(crate) fn trouble(&self) -> Vec<(u32, String)> {
        self.broken.iter().map(|(key, error)| (*key, repo_error(*key, error))).collect()
    }
}

impl From<Vec<Repo>> for Repos {
    fn from(open: Vec<Repo>) -> Self {
        Repos { open, broken: Vec::new() }
    }
}

/// Returns how many calls of several repositories are best in progress at a time.
pub(crate) fn concurrency<'a>(repos: impl IntoIterator<Item = &'a Repo>) -> Concurrency {
    let all = repos.into_iter().map(|repo| repo.storage.concurrency());
    all.max_by_key(|concurrency| concurrency.requests).unwrap_or(Concurrency::LOCAL)
}

/// Formats a problem of one of several repositories.
pub(crate) fn repo_error(repo_key: u32, error: &Error) -> String {
    format!("repo{repo_key}: [{}] {error}", error.code)
}

/// Returns messages about repositories in the order of their numbers.
pub(crate) fn in_order(mut trouble: Vec<(u32, String)>) -> Vec<String> {
    trouble.sort_by_key(|(key, _)| *key);
    trouble.into_iter().map(|(_, message)| message).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use engine::ErrorCode;
    use engine::repo::info_files;
    use engine::storage::memory::MemoryStorage;
    use repo_format::archive_info::ArchiveInfo;
    use repo_format::cipher::Cipher;
    use repo_format::compress::Compression;
    use repo_format::layout::Stanza;
    use repo_format::pg::PgVersion;

    use super::*;
    use crate::get::find::{self, WalCluster};
    use crate::push::{PushSettings, check};

    const BROKEN: &str = "repo2: [FileMissingError] no key file";

    /// Repositories of which the second can't be opened. The first and the third exist only if requested.
    fn repos(stanza: &Stanza, version: PgVersion, system_id: u64, keys: &[u32]) -> Repos {
        let open = |&key| {
            let repo = Repo { key, storage: Arc::new(MemoryStorage::new()), cipher: Cipher::None };
            if key == 1 {
                let info = ArchiveInfo::new(version, system_id, None);
                info_files::save_archive_info(&repo, stanza, &info).expect("info");
            }
            repo
        };
        let broken = vec![(2, Error::new(ErrorCode::FileMissing, "no key file"))];
        Repos { open: keys.iter().map(open).collect(), broken }
    }

    #[test]
    fn push_goes_to_those_that_can_be_opened_and_tells_of_the_others_in_their_order() {
        let settings = PushSettings::of_tests(Compression::NONE);
        let check = |keys: &[u32]| {
            let repos = repos(&settings.stanza, PgVersion::V15, 1, keys);
            check::check(&repos, &settings, None).map(|targets| (targets.repos.len(), targets.errors))
        };
        let (usable, errors) = check(&[1, 3]).expect("usable");
        assert_eq!((usable, errors.len(), errors[0].as_str()), (1, 2, BROKEN));
        assert!(errors[1].starts_with("repo3: [FileMissingError]"), "{errors:?}");
        let error = check(&[]).expect_err("none");
        let text = format!("unable to find a valid repository:\n{BROKEN}");
        assert_eq!((error.code, error.message), (ErrorCode::RepoInvalid, text));
    }

    #[test]
    fn get_looks_into_those_that_can_be_opened() {
        const CONTROL: &[u8] = include_bytes!("../../tests/fixtures/pg/pg_control_15");
        let dir = tempfile::tempdir().expect("dir");
        std::fs::create_dir_all(dir.path().join("global")).expect("data directory");
        std::fs::write(dir.path().join("global/pg_control"), CONTROL).expect("pg_control");
        let stanza: Stanza = "demo".parse().expect("stanza");
        let cluster = WalCluster { stanza: stanza.clone(), pg_path: dir.path().to_owned(), version_force: None };
        let control = engine::pg::control_file::read(dir.path(), None).expect("control");
        let requests = ["000000010000000000000001".to_owned()];

        let usable = repos(&stanza, control.version, control.system_id, &[1, 3]);
        let findings = find::find(&usable, &cluster, &requests).expect("usable");
        assert!(findings.failure.is_none() && findings.answers.is_empty());
        assert_eq!((findings.warnings.len(), findings.warnings[0].as_str()), (2, BROKEN));

        let none = repos(&stanza, control.version, control.system_id, &[]);
        let failure = find::find(&none, &cluster, &requests).expect("none").failure.expect("failure");
        assert_eq!((failure.error.code, failure.warnings), (ErrorCode::RepoInvalid, vec![BROKEN.to_owned()]));
    }
}
