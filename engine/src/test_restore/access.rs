//! Sessions in the scratch server.

use std::path::PathBuf;
use std::time::Duration;

use crate::pg::PgSettings;
use crate::pg::client::PgClient;
use crate::pg::connection::{PgConnection, Row};
use crate::users::Users;
use crate::work::retry::is_stop;
use crate::{CancelToken, Error, ErrorCode, Result};

/// How long a single query may take. Reading a large table takes many hours.
const QUERY_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// The databases that every cluster has, unless somebody dropped the first.
const ANY_DATABASE: [&str; 2] = ["postgres", "template1"];
/// The superuser of most clusters.
const SUPERUSER_DEFAULT: &str = "postgres";

/// How to connect to the scratch server.
#[derive(Clone, Debug)]
pub struct PgAccess {
    /// The directory of its socket.
    pub socket: PathBuf,
    /// A superuser.
    pub user: String,
    /// A database that can be connected to.
    pub database: String,
    cancel: CancelToken,
}

impl PgAccess {
    /// Finds a superuser and a database. Without a given user, tries the user of this process and `postgres`.
    ///
    /// # Errors
    /// [`ErrorCode::DbConnect`] if none can connect, [`ErrorCode::Access`] if those that can are no superusers.
    pub fn find(socket: PathBuf, given: Option<&str>, cancel: &CancelToken) -> Result<Self> {
        let users = match given {
            Some(user) => vec![user.to_owned()],
            None => Users::new().current_user().into_iter().chain([SUPERUSER_DEFAULT.to_owned()]).collect(),
        };
        let mut failure = Error::new(ErrorCode::Access, format!("'{}' is no superuser", users.join("' and '")));
        for user in users {
            for database in ANY_DATABASE {
                let access = PgAccess {
                    socket: socket.clone(),
                    user: user.clone(),
                    database: database.to_owned(),
                    cancel: cancel.clone(),
                };
                let is_super = access.rows(database, "select rolsuper from pg_roles where rolname = current_user");
                match is_super {
                    Ok(rows) if rows.first().and_then(|row| row.first()?.as_deref()) == Some("t") => return Ok(access),
                    Ok(_) => break,
                    Err(error) if is_stop(&error) => return Err(error),
                    Err(error) => failure = error,
                }
            }
        }
        Err(failure.hint("the checks need a superuser of the cluster: set it with --superuser."))
    }

    /// Connects to a database.
    ///
    /// # Errors
    /// The same as [`PgClient::connect`].
    pub fn connect(&self, database: &str) -> Result<PgClient> {
        let settings = PgSettings {
            socket_path: Some(self.socket.clone()),
            user: Some(self.user.clone()),
            database: database.to_owned(),
            db_timeout: QUERY_MAX,
            command: "test-restore".to_owned(),
            ..PgSettings::new(self.socket.clone())
        };
        PgClient::connect(&settings, &self.cancel)
    }

    /// Runs a query in a session of its own.
    ///
    /// # Errors
    /// The same as [`PgClient::connect`] and [`PgConnection::query`].
    pub fn rows(&self, database: &str, query: &str) -> Result<Vec<Row>> {
        self.connect(database)?.rows(query)
    }

    /// Runs a query that returns one row of this number of columns.
    ///
    /// # Errors
    /// The same as [`PgAccess::rows`].
    pub fn row<const COLUMNS: usize>(&self, query: &str) -> Result<[Option<String>; COLUMNS]> {
        let mut client = self.connect(&self.database)?;
        let connection: &mut dyn PgConnection = &mut client;
        connection.row(query)
    }
}
