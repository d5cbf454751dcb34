//! A connection to a PostgreSQL server, which may be made on another host.

use std::time::Duration;

use crate::{Error, ErrorCode, Result};

/// One row as text, as the server sends it.
pub type Row = Vec<Option<String>>;

/// What a query is to return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// No rows.
    Nothing,
    /// Exactly one row with this number of columns.
    OneRow(usize),
    /// Any number of rows with this number of columns.
    Rows(usize),
}

/// An open connection. Columns of queries have the types boolean, integer, oid or text: pgBackRest passes no others
/// between hosts.
pub trait PgConnection: Send {
    /// Runs a query and returns its rows. The caller checks the numbers of rows and columns. A connection through
    /// another host needs to know them before.
    ///
    /// # Errors
    /// [`ErrorCode::DbQuery`] if it fails or takes too long, [`ErrorCode::Term`] after a signal.
    fn query(&mut self, query: &str, expect: Expect) -> Result<Vec<Row>>;

    /// Runs queries one after the other and returns the rows of each. A connection through another host sends all of them
    /// before it waits for the first result, so a query that fails does not keep the following ones from being run.
    ///
    /// # Errors
    /// The same as [`PgConnection::query`], for the first query that fails.
    fn queries(&mut self, queries: &[(&str, Expect)]) -> Result<Vec<Vec<Row>>> {
        queries.iter().map(|(query, expect)| self.query(query, *expect)).collect()
    }

    /// Returns the longest that one query may take.
    fn timeout(&self) -> Duration;
}

impl dyn PgConnection + '_ {
    /// Runs a query and returns its rows, each with this number of columns.
    ///
    /// # Errors
    /// The same as [`PgConnection::query`], and [`ErrorCode::DbQuery`] for another number of columns.
    pub fn rows<const COLUMNS: usize>(&mut self, query: &str) -> Result<Vec<[Option<String>; COLUMNS]>> {
        self.query(query, Expect::Rows(COLUMNS))?.into_iter().map(|row| columns(row, query)).collect()
    }

    /// Runs a statement that returns nothing.
    ///
    /// # Errors
    /// The same as [`PgConnection::query`].
    pub fn exec(&mut self, statement: &str) -> Result<()> {
        nothing(&self.query(statement, Expect::Nothing)?, statement)
    }

    /// Runs a query that returns exactly one row with this number of columns.
    ///
    /// # Errors
    /// The same as [`PgConnection::query`], and [`ErrorCode::DbQuery`] for any other result.
    pub fn row<const COLUMNS: usize>(&mut self, query: &str) -> Result<[Option<String>; COLUMNS]> {
        one_row(self.query(query, Expect::OneRow(COLUMNS))?, query)
    }

    /// Runs a query that returns exactly one value.
    ///
    /// # Errors
    /// The same as [`PgConnection::query`], and [`ErrorCode::DbQuery`] for any other result or a null.
    pub fn value(&mut self, query: &str) -> Result<String> {
        one_value(self.query(query, Expect::OneRow(1))?, query)
    }
}

/// Checks that a statement returned nothing.
///
/// # Errors
/// [`ErrorCode::DbQuery`] if it returned rows.
pub(super) fn nothing(rows: &[Row], statement: &str) -> Result<()> {
    match rows.is_empty() {
        true => Ok(()),
        false => Err(Error::new(ErrorCode::DbQuery, format!("no result expected from '{statement}'"))),
    }
}

/// Returns the only row of a result, with this number of columns.
///
/// # Errors
/// [`ErrorCode::DbQuery`] for any other result.
pub(super) fn one_row<const COLUMNS: usize>(rows: Vec<Row>, query: &str) -> Result<[Option<String>; COLUMNS]> {
    let rows: [Row; 1] =
        rows.try_into().map_err(|_| Error::new(ErrorCode::DbQuery, format!("expected one row from '{query}'")))?;
    let [row] = rows;
    columns(row, query)
}

/// Returns the only value of a result.
///
/// # Errors
/// [`ErrorCode::DbQuery`] for any other result or a null.
pub(super) fn one_value(rows: Vec<Row>, query: &str) -> Result<String> {
    let [value] = one_row(rows, query)?;
    value.ok_or_else(|| Error::new(ErrorCode::DbQuery, format!("unexpected null from '{query}'")))
}

/// Returns a row with this number of columns.
///
/// # Errors
/// [`ErrorCode::DbQuery`] for another number.
pub(super) fn columns<const COLUMNS: usize>(row: Row, query: &str) -> Result<[Option<String>; COLUMNS]> {
    row.try_into().map_err(|_| {
        let columns = if COLUMNS == 1 { "one column".to_owned() } else { format!("{COLUMNS} columns") };
        Error::new(ErrorCode::DbQuery, format!("expected {columns} from '{query}'"))
    })
}
