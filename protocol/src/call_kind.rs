//! The kinds of requests that a server accepts.

use crate::{Capability, StringId};

/// What a request is for. pgBackRest calls it a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallKind {
    /// Does nothing. The first one is answered when the server is ready; later ones keep the connection alive.
    Noop,
    /// Ends the server. It has no answer.
    Exit,
    /// Sets the server's command line; over TLS only, and first.
    Config,
    /// Asks for values of options.
    Options,
    /// Queries.
    Database,
    /// Asks what the storage is.
    StorageFeatures,
    /// Asks for information about a file.
    StorageInfo,
    /// Lists a directory.
    StorageList,
    /// Creates a link.
    StorageLink,
    /// Creates a directory.
    StoragePathCreate,
    /// Removes a directory.
    StoragePathRemove,
    /// Syncs a directory.
    StoragePathSync,
    /// Removes a file.
    StorageRemove,
    /// Reads a file.
    StorageRead,
    /// Reads parts of files.
    StorageReadMany,
    /// Writes a file.
    StorageWrite,
    /// Copies jobs of a backup. pgBackRest does not have it.
    Copy,
}

impl CallKind {
    /// Every command of pgBackRest.
    pub const ALL: [CallKind; 16] = [
        CallKind::Noop,
        CallKind::Exit,
        CallKind::Config,
        CallKind::Options,
        CallKind::Database,
        CallKind::StorageFeatures,
        CallKind::StorageInfo,
        CallKind::StorageList,
        CallKind::StorageLink,
        CallKind::StoragePathCreate,
        CallKind::StoragePathRemove,
        CallKind::StoragePathSync,
        CallKind::StorageRemove,
        CallKind::StorageRead,
        CallKind::StorageReadMany,
        CallKind::StorageWrite,
    ];

    /// The name on the wire.
    pub const fn id(self) -> StringId {
        StringId::known(match self {
            CallKind::Noop => "noop",
            CallKind::Exit => "exit",
            CallKind::Config => "config",
            CallKind::Options => "opt-g",
            CallKind::Database => "db",
            CallKind::StorageFeatures => "s-f",
            CallKind::StorageInfo => "s-i",
            CallKind::StorageList => "s-l",
            CallKind::StorageLink => "s-lc",
            CallKind::StoragePathCreate => "s-pc",
            CallKind::StoragePathRemove => "s-pr",
            CallKind::StoragePathSync => "s-ps",
            CallKind::StorageRemove => "s-r",
            CallKind::StorageRead => "s-rd",
            CallKind::StorageReadMany => "s-rdm",
            CallKind::StorageWrite => "s-wr",
            CallKind::Copy => "copy",
        })
    }

    /// Commands that pgBackRest does not have. They may be used if both sides have the capability.
    pub const OWN: [CallKind; 1] = [CallKind::Copy];

    /// The capability that both sides must have; `None` for a command of pgBackRest.
    pub fn capability(self) -> Option<Capability> {
        match self {
            CallKind::Copy => Some(Capability::CopyJobs),
            _ => None,
        }
    }

    /// Whether its requests belong to sessions.
    pub fn has_sessions(self) -> bool {
        matches!(
            self,
            CallKind::Database
                | CallKind::StorageRead
                | CallKind::StorageReadMany
                | CallKind::StorageWrite
                | CallKind::Copy
        )
    }
}
