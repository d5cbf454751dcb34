//! The databases and tablespaces of a cluster.

use super::{number, required};
use crate::Result;
use crate::pg::connection::{Row, columns};

/// Finds the databases.
pub(super) const DATABASES: &str = "select oid::oid, datname::text, (select oid::oid from pg_catalog.pg_database where datname = \
                         'template0') as datlastsysoid from pg_catalog.pg_database";
/// Finds the tablespaces.
pub(super) const TABLESPACES: &str = "select oid::oid, spcname::text from pg_catalog.pg_tablespace";

/// A database of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseRow {
    /// Its object id.
    pub oid: u32,
    /// Its name.
    pub name: String,
    /// The object id of `template0`, which is the last of the system databases; 0 if there is no such database.
    pub last_system_oid: u32,
}

/// A tablespace of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TablespaceRow {
    /// Its object id.
    pub oid: u32,
    /// Its name.
    pub name: String,
}

/// Reads the rows of [`DATABASES`].
///
/// # Errors
/// [`ErrorCode::DbQuery`] for rows of another shape.
pub(super) fn database_rows(rows: Vec<Row>) -> Result<Vec<DatabaseRow>> {
    let row = |row| {
        let [oid, name, last] = columns(row, DATABASES)?;
        let last_system_oid = last.map_or(Ok(0), |last| number(&last))?;
        Ok(DatabaseRow { oid: number(&required(oid, DATABASES)?)?, name: required(name, DATABASES)?, last_system_oid })
    };
    rows.into_iter().map(row).collect()
}

/// Reads the rows of [`TABLESPACES`].
///
/// # Errors
/// [`ErrorCode::DbQuery`] for rows of another shape.
pub(super) fn tablespace_rows(rows: Vec<Row>) -> Result<Vec<TablespaceRow>> {
    let row = |row| {
        let [oid, name] = columns(row, TABLESPACES)?;
        Ok(TablespaceRow { oid: number(&required(oid, TABLESPACES)?)?, name: required(name, TABLESPACES)? })
    };
    rows.into_iter().map(row).collect()
}
