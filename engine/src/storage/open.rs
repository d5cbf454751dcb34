//! Opens a storage from its settings.

use std::fmt::Debug;
use std::sync::Arc;

use repo_format::cipher::Passphrase;

use super::RepoStorage;
use crate::Result;

/// The settings of a storage. Each driver implements this for its own, so that nobody else knows the drivers.
pub trait OpenStorage: Debug + Send + Sync {
    /// Opens the storage. The repository need not exist yet.
    ///
    /// # Errors
    /// The storage can't be used at all. An unreadable directory causes errors only later.
    fn open(&self) -> Result<OpenedStorage>;
}

/// An open storage, and what the host of the repository says about it. [`RepoStorage::display`] knows the path.
pub struct OpenedStorage {
    /// The storage.
    pub storage: Arc<dyn RepoStorage>,
    /// The main passphrase, if the repository is on a host with a configuration of its own that has one.
    pub passphrase: Option<Passphrase>,
}

/// A storage that this host alone configures.
impl<S: RepoStorage + 'static> From<S> for OpenedStorage {
    fn from(storage: S) -> Self {
        OpenedStorage { storage: Arc::new(storage), passphrase: None }
    }
}
