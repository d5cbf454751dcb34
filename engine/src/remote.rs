//! Repositories and clusters on other hosts, which a process there serves.
//!
//! The process is `pgbackrest COMMAND:remote`, or rbr in its place. An SSH client starts it ([`mod@self::process`]), or a
//! server that is reached by TLS ([`mod@self::tls`]). It speaks the protocol of the crate `protocol`. All threads share one
//! connection ([`mod@self::connection`]), whose server answers requests in order. [`crate::storage::remote`] is the storage
//! driver on top of it, [`crate::pg::RemoteHost`] the host of a cluster.

mod answers;
mod carriers;
mod channels;
mod connection;
mod failure;
pub(crate) mod filters;
pub(crate) mod fuzzing;
mod lanes;
mod link;
mod patience;
mod ping;
mod process;
mod reader;
mod received;
mod shared;
mod tls;

use std::time::Duration;

pub(crate) use self::carriers::Carriers;
pub(crate) use self::connection::{Answer, Connection, PendingAnswer, cipher_options};
pub(crate) use self::lanes::{LaneUse, Lanes};
pub use self::patience::TOO_MANY_SESSIONS;
pub use self::ping::ping;
pub use self::process::SshSettings;
pub(crate) use self::reader::{RemoteOpening, RemoteReader};
pub(crate) use self::received::ReceivedPart;
use crate::CancelToken;
use crate::tls::ClientSettings;

/// How to reach the process on another host.
#[derive(Clone, Debug)]
pub struct RemoteSettings {
    /// The host, for messages.
    pub host: String,
    /// The number of the process, as in its arguments, for messages. Number 0 is that of the command itself and takes
    /// the locks on the host. Workers have the others.
    pub process: u32,
    /// The way there.
    pub way: Way,
    /// The maximum time that an answer may take.
    pub timeout: Duration,
    /// The N of the options `repoN-...`, on that host as on this one.
    pub key: u32,
    /// Whether the host is asked for the passphrase, because this host has none.
    pub asks_passphrase: bool,
    /// The time as of which a repository is read (`repo-target-time`), in seconds since the epoch; `None` for now.
    pub target_time: Option<i64>,
    /// The level of the compression between the hosts of what is neither compressed nor encrypted; `None` if there is none.
    pub network_level: Option<i32>,
    /// Ends a wait for a session of the host.
    pub cancel: CancelToken,
}

/// The way to another host.
#[derive(Clone, Debug)]
pub enum Way {
    /// A process that an SSH client starts.
    Ssh(SshSettings),
    /// A server.
    Tls {
        /// How to reach it.
        client: Box<ClientSettings>,
        /// The arguments of the process, with the command last.
        arguments: Vec<String>,
    },
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
