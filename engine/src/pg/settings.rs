//! How to reach a cluster.

use std::path::PathBuf;
use std::time::Duration;

use repo_format::pg::version::PgVersion;

/// The default port of a server.
const PORT_DEFAULT: u16 = 5432;
/// How long a query may take by default.
const DB_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30 * 60);

/// How to reach one cluster.
#[derive(Clone, Debug)]
pub struct PgSettings {
    /// The N of the options `pgN-...`, for messages.
    pub key: u32,
    /// The data directory.
    pub path: PathBuf,
    /// The server's port, which is also part of the socket's name.
    pub port: u16,
    /// The directory of the server's socket; by default `PGHOST` or the usual directory.
    pub socket_path: Option<PathBuf>,
    /// The database user; by default `PGUSER` or the user of the process.
    pub user: Option<String>,
    /// The database to connect to.
    pub database: String,
    /// The longest that one query may take.
    pub db_timeout: Duration,
    /// The version to assume instead of the one in `pg_control`.
    pub version_force: Option<PgVersion>,
    /// The command, which the server shows as `pgBackRest [command]`.
    pub command: String,
}

impl PgSettings {
    /// The first cluster, at the default port, in the database `postgres`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        PgSettings {
            key: 1,
            path: path.into(),
            port: PORT_DEFAULT,
            socket_path: None,
            user: None,
            database: "postgres".to_owned(),
            db_timeout: DB_TIMEOUT_DEFAULT,
            version_force: None,
            command: "backup".to_owned(),
        }
    }
}
