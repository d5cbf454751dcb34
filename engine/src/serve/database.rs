//! Sessions with PostgreSQL.
//!
//! Source of types and errors: pgBackRest `src/postgres/client.c`.

use protocol::database::{Column, Expected, QueryAnswer, QueryRequest};
use protocol::pack::PackWriter;

use super::memory::{Seat, Usage};
use super::statement::is_for_clients;
use crate::pg::PgSettings;
use crate::pg::client::{PgClient, TypedRows};
use crate::{CancelToken, Error, ErrorCode, Result};

/// The most connections to PostgreSQL.
const SESSIONS_MAX: usize = 8;
/// The largest result of a statement, in bytes.
const RESULT_BYTES_MAX: usize = 64 << 20;

/// The types of PostgreSQL that can be sent.
mod oid {
    pub(super) const BOOL: u32 = 16;
    pub(super) const CHAR: u32 = 18;
    pub(super) const NAME: u32 = 19;
    pub(super) const INT8: u32 = 20;
    pub(super) const INT4: u32 = 23;
    pub(super) const TEXT: u32 = 25;
    pub(super) const OID: u32 = 26;
}

/// A connection to PostgreSQL for a client.
pub(super) struct DatabaseSession {
    client: PgClient,
    _seat: Seat,
}

impl DatabaseSession {
    /// Connects.
    ///
    /// # Errors
    /// [`ErrorCode::DbConnect`], and [`ErrorCode::Access`] if the server serves no data directory, or there are too many.
    pub(super) fn open(settings: Option<&PgSettings>, usage: &Usage, cancel: &CancelToken) -> Result<Self> {
        let seat = usage.databases.take(SESSIONS_MAX, "sessions with PostgreSQL")?;
        let settings = settings.ok_or_else(|| {
            crate::error!(ErrorCode::Access, "connection to PostgreSQL denied: the client asked for a repository");
            Error::new(ErrorCode::Access, "connection to PostgreSQL denied: the client asked for a repository")
        })?;
        let mut client = PgClient::connect(settings, cancel)?;
        // A function of a database's owner must not run in the place of one that a client may call
        client.rows("set search_path = 'pg_catalog'")?;
        Ok(DatabaseSession { client, _seat: seat })
    }

    /// Runs a statement, and returns the data of the answer.
    ///
    /// # Errors
    /// [`ErrorCode::DbQuery`]; [`ErrorCode::Format`] for a column of another type; [`ErrorCode::Access`] for a
    /// statement that is not for clients.
    pub(super) fn query(&mut self, request: &QueryRequest<'_>) -> Result<PackWriter<'static>> {
        let sql = request.sql;
        if !is_for_clients(sql) {
            crate::error!(ErrorCode::Access, "statement denied: {sql}");
            return Err(Error::new(ErrorCode::Access, format!("statement '{sql}' denied")));
        }
        answer(&self.client.query_typed(sql)?, request)
    }
}

fn answer(result: &TypedRows, request: &QueryRequest<'_>) -> Result<PackWriter<'static>> {
    let QueryRequest { expected, sql } = *request;
    let failed = |text: String| Err(Error::new(ErrorCode::DbQuery, text));
    let Some(types) = &result.types else {
        return match expected {
            Expected::None | Expected::Any => Ok(PackWriter::new()),
            Expected::Column | Expected::Row => failed(format!("result expected from '{sql}'")),
        };
    };
    let size: usize = result.rows.iter().flatten().flatten().map(String::len).sum();
    if size > RESULT_BYTES_MAX {
        return failed(format!("result of '{sql}' exceeds {RESULT_BYTES_MAX} bytes"));
    }
    match expected {
        Expected::None => return failed(format!("no result expected from '{sql}'")),
        Expected::Column | Expected::Row if result.rows.len() != 1 => {
            return failed(format!("expected one row from '{sql}'"));
        }
        Expected::Column if types.len() != 1 => return failed(format!("expected one column from '{sql}'")),
        _ => {}
    }
    let mut rows = Vec::with_capacity(result.rows.len());
    for row in &result.rows {
        let columns = row.iter().zip(types).enumerate();
        let columns = columns.map(|(index, (value, kind))| column(value.as_deref(), *kind, index, sql));
        rows.push(columns.collect::<Result<Vec<_>>>()?);
    }
    Ok(QueryAnswer::encode(expected, &rows))
}

fn column<'a>(value: Option<&'a str>, kind: u32, index: usize, sql: &str) -> Result<Column<'a>> {
    let Some(value) = value else { return Ok(Column::Null) };
    let invalid = || Error::new(ErrorCode::Format, format!("unable to convert '{value}' from query '{sql}'"));
    Ok(match kind {
        oid::BOOL => Column::Bool(value == "t"),
        oid::CHAR | oid::NAME | oid::TEXT => Column::Text(value),
        oid::INT8 => Column::I64(value.parse().map_err(|_| invalid())?),
        oid::INT4 => Column::I32(value.parse().map_err(|_| invalid())?),
        oid::OID => Column::U32(value.parse().map_err(|_| invalid())?),
        other => {
            let text = format!("unable to parse type {other} in column {index} for query '{sql}'");
            return Err(Error::new(ErrorCode::Format, text));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(types: Option<&[u32]>, rows: &[&[Option<&str>]], expected: Expected) -> (u8, String) {
        let rows = rows.iter().map(|row| row.iter().map(|value| value.map(str::to_owned)).collect()).collect();
        let result = TypedRows { types: types.map(<[u32]>::to_vec), rows };
        match answer(&result, &QueryRequest { expected, sql: "select 1" }) {
            Ok(data) => (0, format!("{:02x?}", data.finish().to_vec())),
            Err(error) => (error.code.number(), error.to_string()),
        }
    }

    #[test]
    fn result_of_another_shape_fails_as_in_pgbackrest() {
        let text = |text: &str| (57, format!("{text} from 'select 1'"));
        let row: &[Option<&str>] = &[Some("1")];
        assert_eq!(outcome(None, &[], Expected::Row), text("result expected"));
        assert_eq!(outcome(Some(&[23]), &[row], Expected::None), text("no result expected"));
        assert_eq!(outcome(Some(&[23]), &[], Expected::Row), text("expected one row"));
        assert_eq!(outcome(Some(&[23]), &[row, row], Expected::Column), text("expected one row"));
        assert_eq!(outcome(Some(&[23, 23]), &[&[None, None]], Expected::Column), text("expected one column"));
        assert_eq!(
            outcome(Some(&[1700]), &[row], Expected::Row),
            (29, "unable to parse type 1700 in column 0 for query 'select 1'".to_owned())
        );
        // A null has no type
        assert_eq!(outcome(Some(&[1700]), &[&[None]], Expected::Row).0, 0);
        assert_eq!(outcome(None, &[], Expected::None), (0, "[00]".to_owned()));
        // Captured from pgBackRest 2.60.0
        let is_in_recovery = outcome(Some(&[16]), &[&[Some("f")]], Expected::Column);
        assert_eq!(is_in_recovery, (0, "[f0, 02, 02, 20, 00, 00]".to_owned()));
    }
}
