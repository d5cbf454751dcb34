//! Queries. A session is a connection of the server to its PostgreSQL.
//!
//! The types of PostgreSQL that pgBackRest's statements return are the only ones: bool, int4 (i32), int8 (i64), oid
//! (u32), and text, name and char (text). Values are always written, NULLs are left out (source: pgBackRest
//! `src/db/protocol.c`, `src/postgres/client.c`).

use crate::pack::{PackReader, PackValue, PackWriter};
use crate::{StringId, format_error};
use repo_format::{Error, ErrorCode, Result};

/// What a statement returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Nothing.
    None,
    /// One row with one column.
    Column,
    /// One row.
    Row,
    /// Any number of rows.
    Any,
}

impl Expected {
    /// Every variant.
    pub const ALL: [Expected; 4] = [Expected::None, Expected::Column, Expected::Row, Expected::Any];

    /// The name on the wire.
    pub const fn id(self) -> StringId {
        match self {
            Expected::None => StringId::known("none"),
            Expected::Column => StringId::known("column"),
            Expected::Row => StringId::known("row"),
            Expected::Any => StringId::known("any"),
        }
    }
}

/// A statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueryRequest<'a> {
    /// What it returns.
    pub expected: Expected,
    /// The statement.
    pub sql: &'a str,
}

impl<'a> QueryRequest<'a> {
    pub(crate) fn write(&self, writer: &mut PackWriter<'a>) {
        writer.string_id(self.expected.id()).text(self.sql);
    }

    pub(crate) fn read(reader: &mut PackReader<'a>) -> Result<Self> {
        let id = reader.string_id()?.unwrap_or(StringId(0));
        let expected = Expected::ALL.into_iter().find(|known| known.id() == id);
        let expected =
            expected.ok_or_else(|| Error::new(ErrorCode::Protocol, format!("unknown query result '{id}'")))?;
        Ok(QueryRequest { expected, sql: reader.text_required("query")? })
    }
}

/// A value of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column<'a> {
    /// NULL.
    Null,
    /// bool.
    Bool(bool),
    /// int4.
    I32(i32),
    /// int8.
    I64(i64),
    /// oid.
    U32(u32),
    /// text, name or char.
    Text(&'a str),
}

/// The result of a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueryAnswer<'a> {
    expected: Expected,
    result: Option<&'a [u8]>,
}

impl<'a> QueryAnswer<'a> {
    /// The data of the answer with `rows`.
    pub fn encode(expected: Expected, rows: &[Vec<Column<'_>>]) -> PackWriter<'a> {
        let mut result = PackWriter::new();
        for row in rows {
            match expected {
                Expected::Any => {
                    result.array(|columns| write_row(columns, row));
                }
                _ => write_row(&mut result, row),
            }
        }
        let mut writer = PackWriter::new();
        writer.pack(if expected == Expected::None { None } else { Some(result) });
        writer
    }

    /// Reads the answer to a statement. The rows are decoded later.
    ///
    /// # Errors
    /// [`ErrorCode::Format`] if it is damaged, or lacks a result that the statement must have.
    pub fn decode(data: Option<&'a [u8]>, expected: Expected) -> Result<Self> {
        let mut reader = PackReader::new(data.unwrap_or(crate::pack::EMPTY));
        let result = reader.pack()?;
        reader.finish()?;
        match (expected, result) {
            (Expected::None, Some(_)) => Err(format_error("query must not have a result")),
            // A statement that is no query has no result, even where rows could be returned
            (Expected::Column | Expected::Row, None) => Err(format_error("query must have a result")),
            _ => Ok(QueryAnswer { expected, result }),
        }
    }

    /// The rows, each of which is read column by column with [`columns`].
    pub fn rows(&self) -> impl Iterator<Item = Result<PackReader<'a>>> + use<'a> {
        let mut reader = PackReader::new(self.result.unwrap_or(crate::pack::EMPTY));
        let (expected, mut done) = (self.expected, self.result.is_none());
        std::iter::from_fn(move || {
            if done {
                return None;
            }
            if expected != Expected::Any {
                done = true;
                return Some(Ok(reader.clone()));
            }
            let row = next_row(&mut reader).transpose();
            done = !matches!(row, Some(Ok(_)));
            row
        })
    }
}

fn next_row<'a>(rows: &mut PackReader<'a>) -> Result<Option<PackReader<'a>>> {
    if rows.at_end()? {
        rows.clone().finish()?;
        return Ok(None);
    }
    rows.array()?.ok_or_else(|| format_error("row is missing")).map(Some)
}

fn write_row(writer: &mut PackWriter<'_>, row: &[Column<'_>]) {
    for column in row {
        match *column {
            Column::Null => writer.null(),
            Column::Bool(value) => writer.bool_always(value),
            Column::I32(value) => writer.i32_always(value),
            Column::I64(value) => writer.i64_always(value),
            Column::U32(value) => writer.u32_always(value),
            Column::Text(value) => writer.text(value),
        };
    }
}

/// The first `count` columns of a row. NULLs at the end of a row have no trace, so the caller knows the count.
///
/// # Errors
/// [`ErrorCode::Format`] for a value that no column has, or a further column.
pub fn columns<'a>(row: &PackReader<'a>, count: usize) -> Result<Vec<Column<'a>>> {
    let mut row = row.clone();
    let mut columns = vec![Column::Null; count];
    while let Some((id, value)) = row.value()? {
        let column = columns.get_mut(id as usize - 1);
        let column = column.ok_or_else(|| format_error(format!("row has column {id} but {count} are expected")))?;
        *column = match value {
            PackValue::Bool(value) => Column::Bool(value),
            PackValue::I32(value) => Column::I32(value),
            PackValue::I64(value) => Column::I64(value),
            PackValue::U32(value) => Column::U32(value),
            PackValue::Text(value) => Column::Text(value),
            _ => return Err(format_error(format!("column {id} has an unexpected type"))),
        };
    }
    row.finish()?;
    Ok(columns)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(expected: Expected, sent: &[Vec<Column<'_>>], count: usize) -> Vec<Vec<String>> {
        let data = QueryAnswer::encode(expected, sent).finish().to_vec();
        let answer = QueryAnswer::decode(Some(&data), expected).unwrap();
        let row = |row: Result<PackReader<'_>>| {
            columns(&row.unwrap(), count).unwrap().iter().map(|column| format!("{column:?}")).collect()
        };
        answer.rows().map(row).collect()
    }

    #[test]
    fn rows_round_trip() {
        let row = vec![
            Column::Bool(false),
            Column::Null,
            Column::I32(-7),
            Column::I64(1 << 40),
            Column::U32(0),
            Column::Text(""),
            Column::Null,
        ];
        let expected: Vec<String> = row.iter().map(|column| format!("{column:?}")).collect();
        assert_eq!(rows(Expected::Row, std::slice::from_ref(&row), 7), std::slice::from_ref(&expected));
        assert_eq!(rows(Expected::Any, &[row.clone(), row], 7), [expected.clone(), expected]);
        assert!(rows(Expected::Any, &[], 1).is_empty());
        assert!(rows(Expected::None, &[], 1).is_empty());
    }

    #[test]
    fn answer_without_the_expected_result_is_refused() {
        let column = QueryAnswer::encode(Expected::Column, &[vec![Column::U32(1)]]).finish().to_vec();
        assert!(QueryAnswer::decode(Some(&column), Expected::None).is_err());
        assert!(QueryAnswer::decode(None, Expected::Column).is_err());
        let answer = QueryAnswer::decode(Some(&column), Expected::Column).unwrap();
        let row = answer.rows().next().unwrap().unwrap();
        assert_eq!(columns(&row, 0).unwrap_err().to_string(), "row has column 1 but 0 are expected");
    }
}
