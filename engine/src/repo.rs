//! A repository and its main files.

pub mod archive_find;
pub mod browse;
pub mod encode;
pub mod formats;
pub mod info_files;
pub(crate) mod manifest_store;
pub(crate) mod reconstruct;
pub mod remove;
#[cfg(test)]
mod secret_tests;
pub(crate) mod unreadable;
pub(crate) mod wal_header;

use std::sync::Arc;

use repo_format::cipher::{Cipher, Passphrase};
use repo_format::format::RepoFormat;

use crate::storage::on_turn::OnTurn;
use crate::storage::paced::Paced;
use crate::storage::unreachable::Unreachable;
use crate::storage::{OpenStorage, RepoStorage};
use crate::throttle::Pace;
use crate::work::turn::Turn;
use crate::{CancelToken, Error, Result};

/// How to open a repository.
#[derive(Debug)]
pub struct RepoSettings {
    /// The N of the options `repoN-...`.
    pub key: u32,
    /// Where it is stored.
    pub storage: Box<dyn OpenStorage>,
    /// The main passphrase, if this host's configuration has one.
    pub cipher_pass: Option<Passphrase>,
}

impl RepoSettings {
    /// The first repository, not encrypted.
    pub fn new(storage: impl OpenStorage + 'static) -> Self {
        RepoSettings { key: 1, storage: Box::new(storage), cipher_pass: None }
    }

    /// The same, encrypted with this passphrase.
    #[must_use]
    pub fn encrypted(self, passphrase: Passphrase) -> Self {
        RepoSettings { cipher_pass: Some(passphrase), ..self }
    }
}

/// An open repository. Clones share the storage.
#[derive(Clone)]
pub struct Repo {
    /// The N of the options `repoN-...`, which identifies it in messages and lock files.
    pub key: u32,
    /// Where it is stored.
    pub storage: Arc<dyn RepoStorage>,
    /// The cipher of the main passphrase, which encrypts the info files ([`Repo::info_cipher`]). All other files have their
    /// own passphrases, which the info files contain.
    pub cipher: Cipher,
}

impl Repo {
    /// Opens a repository, which need not exist yet. If this host's configuration has no passphrase, that of the
    /// repository's host applies.
    ///
    /// # Errors
    /// The same as [`OpenStorage::open`].
    pub fn open(settings: &RepoSettings) -> Result<Self> {
        let opened = settings.storage.open()?;
        let passphrase = settings.cipher_pass.as_ref().or(opened.passphrase.as_ref());
        Ok(Repo { key: settings.key, storage: opened.storage, cipher: Cipher::from_passphrase(passphrase) })
    }

    /// How info files are read: what precedes them names their format.
    pub fn info_cipher(&self) -> Cipher {
        self.cipher.of_info_file(RepoFormat::default())
    }

    /// Returns the repository for the thread that has this turn to compute: calls that wait for a server release it.
    #[must_use]
    pub fn on_turn(&self, turn: &Turn) -> Self {
        Repo { storage: Arc::new(OnTurn::new(Arc::clone(&self.storage), turn)), ..self.clone() }
    }

    /// Returns a repository from which no more is read than the pace allows.
    #[must_use]
    pub fn paced(self, pace: &Pace, cancel: &CancelToken) -> Self {
        Repo { storage: Paced::wrap(Arc::clone(&self.storage), pace, cancel), ..self }
    }

    /// A repository that `error` made impossible to open. Each use of it gives the error, so that a command on several
    /// repositories handles it like other errors of one of them.
    pub fn unreachable(key: u32, error: Error) -> Self {
        Repo { key, storage: Arc::new(Unreachable::new(error)), cipher: Cipher::None }
    }

    /// Runs two independent requests, at the same time if the storage waits for a server.
    pub fn both<A, B: Send>(
        &self,
        first: impl FnOnce() -> Result<A>,
        second: impl FnOnce() -> Result<B> + Send,
    ) -> (Result<A>, Result<B>) {
        self.storage.concurrency().both(first, second)
    }

    /// Runs a request, and meanwhile another one whose result will probably be needed next: see
    /// [`with_ahead`](crate::storage::Concurrency::with_ahead).
    pub fn with_ahead<A, B: Send>(
        &self,
        needed: impl FnOnce() -> Result<A>,
        ahead: impl FnOnce() -> Result<B> + Send,
    ) -> (Result<A>, Option<Result<B>>) {
        self.storage.concurrency().with_ahead(needed, ahead)
    }

    /// Runs the same request for every item, several at a time if the storage waits for a server. The results have the
    /// order of the items.
    ///
    /// # Errors
    /// The error of the first item that fails. Later items may or may not have run.
    pub fn each<'a, T: Sync, R: Send>(
        &self,
        items: &'a [T],
        work: impl Fn(&'a T) -> Result<R> + Sync,
    ) -> Result<Vec<R>> {
        self.storage.concurrency().each(items, work)
    }

    /// The name in messages, e.g. `repo1`.
    pub fn name(&self) -> String {
        format!("repo{}", self.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::OpenedStorage;
    use crate::storage::memory::MemoryStorage;

    /// A repository on a host whose configuration has this passphrase.
    #[derive(Debug)]
    struct Elsewhere(Option<&'static str>);

    impl OpenStorage for Elsewhere {
        fn open(&self) -> Result<OpenedStorage> {
            let passphrase = self.0.map(Passphrase::new);
            Ok(OpenedStorage { passphrase, ..MemoryStorage::new().into() })
        }
    }

    #[test]
    fn passphrase_of_the_repository_host_applies_if_there_is_none_here() {
        let text = |here: Option<&str>, there| {
            let cipher_pass = here.map(Passphrase::new);
            let repo = Repo::open(&RepoSettings { key: 1, storage: Box::new(Elsewhere(there)), cipher_pass }).unwrap();
            match repo.cipher {
                Cipher::Aes256Cbc(passphrase) => Some(passphrase.expose().to_owned()),
                _ => None,
            }
        };
        assert_eq!(text(None, None), None);
        assert_eq!(text(None, Some("there")).as_deref(), Some("there"));
        assert_eq!(text(Some("here"), Some("there")).as_deref(), Some("here"));
        assert_eq!(text(Some("here"), None).as_deref(), Some("here"));
    }
}
