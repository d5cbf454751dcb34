//! A repository and its main files.

pub mod archive_find;
pub mod browse;
pub mod encode;
pub mod formats;
pub mod info_files;
pub mod manifest_store;
pub mod reconstruct;
#[cfg(test)]
mod secret_tests;

use std::path::PathBuf;
use std::sync::Arc;

use repo_format::cipher::{Cipher, Passphrase};

use crate::Result;
use crate::storage::azure::{self, AzureSettings};
use crate::storage::gcs::{self, GcsSettings};
use crate::storage::posix::PosixStorage;
use crate::storage::s3::{self, S3Settings};
use crate::storage::sftp::{SftpSettings, SftpStorage};
use crate::storage::{ReadAhead, RepoStorage};

/// Where a repository is stored.
#[derive(Clone, Debug)]
pub enum StorageSettings {
    /// In a directory of this host.
    Posix {
        /// The repository's root.
        path: PathBuf,
        /// Create symbolic links, which are only for people and for copies of a backup's directory.
        symlinks: bool,
    },
    /// In a directory on a CIFS mount.
    Cifs {
        /// The repository's root.
        path: PathBuf,
    },
    /// In an S3 bucket.
    S3(Box<S3Settings>),
    /// In an Azure container.
    Azure(Box<AzureSettings>),
    /// In a GCS bucket.
    Gcs(Box<GcsSettings>),
    /// On an SFTP server.
    Sftp(Box<SftpSettings>),
}

/// How to open a repository.
#[derive(Clone, Debug)]
pub struct RepoSettings {
    /// The N of the options `repoN-...`.
    pub key: u32,
    /// Where it is stored.
    pub storage: StorageSettings,
    /// The main passphrase, if it is encrypted.
    pub cipher_pass: Option<Passphrase>,
    /// How to read object stores.
    pub read_ahead: ReadAhead,
}

impl RepoSettings {
    /// The first repository, in a directory of this host, not encrypted.
    pub fn posix(path: impl Into<PathBuf>) -> Self {
        RepoSettings {
            key: 1,
            storage: StorageSettings::Posix { path: path.into(), symlinks: true },
            cipher_pass: None,
            read_ahead: ReadAhead::NEAR,
        }
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
    /// How the info files are encrypted. All other files have their own passphrases, which the info files contain.
    pub cipher: Cipher,
}

impl Repo {
    /// Opens a repository, which need not exist yet.
    ///
    /// # Errors
    /// The storage can't be used at all. An unreadable directory causes errors only later.
    pub fn open(settings: &RepoSettings) -> Result<Self> {
        let read_ahead = settings.read_ahead;
        let storage: Arc<dyn RepoStorage> = match &settings.storage {
            StorageSettings::Posix { path, symlinks } => Arc::new(PosixStorage::new(path).with_symlinks(*symlinks)),
            StorageSettings::Cifs { path } => Arc::new(PosixStorage::cifs(path)),
            StorageSettings::S3(settings) => Arc::new(s3::open(settings)?.with_read_ahead(read_ahead)),
            StorageSettings::Azure(settings) => Arc::new(azure::open(settings)?.with_read_ahead(read_ahead)),
            StorageSettings::Gcs(settings) => Arc::new(gcs::open(settings)?.with_read_ahead(read_ahead)),
            StorageSettings::Sftp(settings) => Arc::new(SftpStorage::new(SftpSettings::clone(settings))?),
        };
        Ok(Repo { key: settings.key, storage, cipher: Cipher::from_passphrase(settings.cipher_pass.as_ref()) })
    }

    /// The name in messages, e.g. `repo1`.
    pub fn name(&self) -> String {
        format!("repo{}", self.key)
    }
}
