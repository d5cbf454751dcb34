//! The far side of a connection between hosts: serves a repository or a data directory to a client on another host.
//!
//! The client is pgBackRest or rbr. It starts this process through SSH, or connects to a server by TLS. The messages are
//! those of the crate `protocol`; answers and errors are pgBackRest's.
//!
//! [`Server`] speaks over any pair of byte streams: it greets, reads a command line if the client sends one (TLS), and
//! then serves what [`Served`] describes until the client says that it ends. Requests are answered in order, one after
//! the other, so a client may send many before it reads the first answer.
//!
//! A client is not trusted. It reaches files of the repository of its stanza, or of one data directory, and nothing else
//! ([`mod@self::area`]). Its requests have limits in size and number.

mod area;
mod block;
mod channels;
mod codecs;
mod connection;
mod database;
mod entry;
mod files;
mod filters;
mod formats;
pub(crate) mod fuzzing;
mod handlers;
mod hashes;
mod last_words;
mod locks;
mod memory;
mod pipes;
mod read;
mod request_buffer;
mod stages;
mod statement;
mod worker;
mod write;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use protocol::options::OptionValue;

pub use self::connection::Server;
pub use self::last_words::LastWords;
pub use self::locks::ServedLocks;
pub use self::pipes::{StandardInput, StandardOutput, end_with_client};
use crate::pg::PgSettings;
use crate::storage::OpenStorage;
use crate::{CancelToken, Result, Stanza};

/// Values of options that a client may ask for: the cipher of its repository and `db-timeout`.
pub trait ServedOptions: Send {
    /// Returns the value of an option by its name with index, such as `repo1-cipher-type`.
    ///
    /// # Errors
    /// [`crate::ErrorCode::Assert`] for a name that no option has, [`crate::ErrorCode::OptionInvalid`] for an index that
    /// is not in use, [`crate::ErrorCode::Access`] for an option that is not for clients.
    fn value(&self, name: &str) -> Result<OptionValue>;
}

/// What a client gets.
pub struct Served {
    /// The files.
    pub storage: ServedStorage,
    /// The values of options.
    pub options: Box<dyn ServedOptions>,
    /// How to reach PostgreSQL, for a client that asks for its data directory.
    pub database: Option<PgSettings>,
    /// The locks to take before the first answer.
    pub locks: Option<ServedLocks>,
    /// The size of the blocks in which files are sent, in bytes.
    pub block_bytes: usize,
    /// Ends long work.
    pub cancel: CancelToken,
    /// How to serve further connections over the same streams; `None` if that is not possible.
    pub more: Option<ServeMore>,
    /// Tells the client of an end in the middle of a request.
    pub last_words: LastWords,
    /// What its sessions use.
    usage: memory::Usage,
}

/// Returns what a further connection gets, without locks. Its work ends with the token.
pub type ServeChannel = Box<dyn Fn(&CancelToken) -> Result<Served> + Send + Sync>;

/// Serves further connections over the streams of one.
pub struct ServeMore {
    /// What each of them gets.
    pub serve: ServeChannel,
    /// The longest time without a request on one of them.
    pub silence_max: Duration,
}

/// The files that a client gets.
pub enum ServedStorage {
    /// A repository, which the client may change.
    Repository(ServedRepository),
    /// The data directory of a cluster, which the client may read.
    DataDirectory(PathBuf),
}

/// A repository that a client gets.
pub struct ServedRepository {
    /// How to open it.
    pub storage: Box<dyn OpenStorage>,
    /// Its path, as clients see it.
    pub path: String,
    /// The type of storage.
    pub kind: RepositoryKind,
    /// The stanza to which the client is limited; `None` for all.
    pub stanza: Option<Stanza>,
}

/// What a client can see of the storage of a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RepositoryKind {
    /// A file system of this host.
    Posix,
    /// A mount of a CIFS server.
    Cifs,
    /// An SFTP server.
    Sftp,
    /// An object store.
    Objects,
}

impl Served {
    /// A description without a database and locks.
    pub fn new(storage: ServedStorage, options: Box<dyn ServedOptions>, cancel: CancelToken) -> Self {
        Served {
            storage,
            options,
            database: None,
            locks: None,
            block_bytes: BLOCK_BYTES_DEFAULT,
            cancel,
            more: None,
            last_words: LastWords::default(),
            usage: memory::Usage::of_connection(),
        }
    }
}

/// The default of pgBackRest's option `buffer-size`.
pub const BLOCK_BYTES_DEFAULT: usize = 1 << 20;

type Shared<T> = Arc<std::sync::Mutex<T>>;
