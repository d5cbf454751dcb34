//! Repositories on other hosts, which a process there serves.
//!
//! The process is `pgbackrest COMMAND:remote`, or rbr in its place, started by an SSH client ([`mod@self::process`]). It
//! speaks the protocol of the crate `protocol`. All threads share one connection ([`mod@self::connection`]), whose
//! server answers requests in order. [`crate::storage::remote`] is the storage driver on top of it.

mod connection;
mod process;
mod reader;

use std::time::Duration;

pub(crate) use self::connection::{Answer, Connection, PendingAnswer};
pub(crate) use self::reader::RemoteReader;

/// How to reach the process on another host.
#[derive(Clone, Debug)]
pub struct RemoteSettings {
    /// The host, for messages.
    pub host: String,
    /// The number of the process, as on its command line, for messages. Number 0 is that of the command itself and
    /// takes the locks on the host. Workers have the others.
    pub process: u32,
    /// The SSH client.
    pub program: String,
    /// Its arguments. The last one is the command line of the process on the host.
    pub arguments: Vec<String>,
    /// The maximum time that an answer may take.
    pub timeout: Duration,
    /// The N of the options `repoN-...`, on that host as on this one.
    pub key: u32,
    /// Whether the host is asked for the passphrase, because this host has none.
    pub asks_passphrase: bool,
}
