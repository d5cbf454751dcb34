//! The first queries of a session.

use crate::pg::connection::{Expect, PgConnection, nothing, one_row, one_value};
use crate::pg::statements::NO_TIMEOUTS;
use crate::{Error, ErrorCode, Result};

/// Reads the settings that all commands need.
const SETTINGS: &str = "select (select setting from pg_catalog.pg_settings where name = 'server_version_num')::int4, \
    (select setting from pg_catalog.pg_settings where name = 'data_directory')::text, \
    (select setting from pg_catalog.pg_settings where name = 'archive_mode')::text, \
    (select setting from pg_catalog.pg_settings where name = 'archive_command')::text, \
    (select setting from pg_catalog.pg_settings where name = 'checkpoint_timeout')::int4";
/// Asks whether the cluster is in recovery.
pub(super) const IS_IN_RECOVERY: &str = "select pg_catalog.pg_is_in_recovery()";

/// What the first queries of a session tell.
pub(super) struct Beginning {
    /// The values of [`SETTINGS`].
    pub(super) settings: [Option<String>; 5],
    /// Whether the cluster is in recovery.
    pub(super) is_standby: bool,
}

/// Configures a session and asks for what all commands need, in one way to the server and back.
///
/// # Errors
/// [`ErrorCode::DbQuery`], and the error that ended the connection.
pub(super) fn begin(client: &mut (dyn PgConnection + '_), command: &str) -> Result<Beginning> {
    // Prevents functions of the database's owner from replacing the ones that later queries call
    let search_path = "set search_path = 'pg_catalog'";
    let encoding = "set client_encoding = 'UTF8'";
    let name = format!("set application_name = 'pgBackRest [{}]'", command.replace('\'', "''"));
    // 9.6 allows pg_stop_backup() to run in a parallel worker, where it then fails
    let no_workers = "set max_parallel_workers_per_gather = 0";
    let queries = [
        (search_path, Expect::Nothing),
        (encoding, Expect::Nothing),
        (SETTINGS, Expect::OneRow(5)),
        (name.as_str(), Expect::Nothing),
        (NO_TIMEOUTS, Expect::Rows(1)),
        (no_workers, Expect::Nothing),
        (IS_IN_RECOVERY, Expect::OneRow(1)),
    ];
    let results: [_; 7] = client
        .queries(&queries)?
        .try_into()
        .map_err(|_| Error::new(ErrorCode::Assert, "unexpected number of results"))?;
    let [no_path, no_encoding, settings, no_name, _, no_limit, standby] = results;
    for (rows, statement) in
        [(no_path, search_path), (no_encoding, encoding), (no_name, name.as_str()), (no_limit, no_workers)]
    {
        nothing(&rows, statement)?;
    }
    Ok(Beginning { settings: one_row(settings, SETTINGS)?, is_standby: one_value(standby, IS_IN_RECOVERY)? == "t" })
}
