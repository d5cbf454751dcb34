//! The user's SQL file with expected results, as pure functions.
//!
//! Comment lines of three forms separate the file into queries:
//!
//! ```sql
//! -- database: shop
//! select count(*) > 1000 from orders;
//! -- expect: t
//! select state, count(*) from jobs group by state order by state;
//! -- expect: done|17
//! -- expect: open|3
//! ```
//!
//! The rows of all statements before a block of `expect` lines must be exactly those lines, in this order. Columns are
//! separated by `|`, and a null is the empty text, as `psql -At` writes them. Statements without `expect` lines after
//! them must only succeed.

use crate::pg::connection::Row;
use crate::{Error, ErrorCode, Result};

/// The most rows of a query that a message shows.
const ROWS_SHOWN_MAX: usize = 5;

/// One query of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpectedQuery {
    /// The database; `None` is `postgres`.
    pub database: Option<String>,
    /// The line where its statements begin, from 1.
    pub line: usize,
    /// The statements.
    pub sql: String,
    /// The expected rows; `None` if any result is right.
    pub expected: Option<Vec<String>>,
}

/// Reads an SQL file.
///
/// # Errors
/// [`ErrorCode::Format`] if an `expect` line has no statement before it, a comment only looks like such a line, or the
/// file has no statement.
pub fn parse(text: &str) -> Result<Vec<ExpectedQuery>> {
    let (mut queries, mut current) = (Vec::new(), ExpectedQuery::empty(None));
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        if let Some(name) = directive(line, "database:") {
            let next = ExpectedQuery::empty(Some(name.trim().to_owned()));
            finish(&mut queries, std::mem::replace(&mut current, next));
        } else if let Some(row) = directive(line, "expect:") {
            if !current.has_statement() {
                let text = format!("line {number} has an expected row without a statement before it");
                return Err(Error::new(ErrorCode::Format, text));
            }
            // One blank separates the row from the colon. Further blanks belong to it
            let row = row.strip_prefix(' ').unwrap_or(row).to_owned();
            current.expected.get_or_insert_default().push(row);
        } else if let Some(word) = lookalike(line) {
            let text = format!("line {number} has '{word}:', which is neither 'expect:' nor 'database:'");
            return Err(Error::new(ErrorCode::Format, text).hint(
                "as a comment, it would leave the query without expected rows: write '-- expect:' or '-- database:'.",
            ));
        } else {
            if current.expected.is_some() && !line.trim().is_empty() {
                let next = ExpectedQuery::empty(current.database.clone());
                finish(&mut queries, std::mem::replace(&mut current, next));
            }
            if !current.has_statement() {
                current.line = number;
            }
            current.sql += line;
            current.sql.push('\n');
        }
    }
    finish(&mut queries, current);
    if queries.is_empty() {
        return Err(Error::new(ErrorCode::Format, "the file has no statement"));
    }
    Ok(queries)
}

impl ExpectedQuery {
    fn empty(database: Option<String>) -> Self {
        ExpectedQuery { database, line: 1, sql: String::new(), expected: None }
    }

    /// Returns whether there is anything but blanks and comment lines.
    fn has_statement(&self) -> bool {
        self.sql.lines().map(str::trim).any(|line| !line.is_empty() && !line.starts_with("--"))
    }
}

fn finish(queries: &mut Vec<ExpectedQuery>, query: ExpectedQuery) {
    if query.has_statement() {
        queries.push(query);
    }
}

fn directive<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    line.trim_start().strip_prefix("--")?.trim_start().strip_prefix(name)
}

/// Returns the word before the colon of a comment line that looks like a directive but is none.
fn lookalike(line: &str) -> Option<&str> {
    const WORDS: [&str; 5] = ["expect", "expected", "expects", "database", "databases"];
    let comment = line.trim_start().strip_prefix("--")?;
    let (word, _) = comment.split_once(':')?;
    let word = word.trim_start_matches('-').trim();
    WORDS.iter().any(|known| word.eq_ignore_ascii_case(known)).then_some(word)
}

/// Compares the rows of a query with the expected ones. Returns what differs.
pub fn difference(query: &ExpectedQuery, rows: &[Row]) -> Option<String> {
    let expected = query.expected.as_ref()?;
    let rows: Vec<String> = rows.iter().map(row_text).collect();
    if *expected == rows {
        return None;
    }
    let place = format!("the query at line {}", query.line);
    if expected.len() != rows.len() {
        let shown = shown(&rows);
        return Some(format!("{place} returned {} row(s) instead of {}: {shown}", rows.len(), expected.len()));
    }
    let differs = expected.iter().zip(&rows).position(|(expected, row)| expected != row).unwrap_or(0);
    let (expected, row) = (expected.get(differs)?, rows.get(differs)?);
    Some(format!("{place} returned '{row}' instead of '{expected}' as row {}", differs + 1))
}

fn row_text(row: &Row) -> String {
    row.iter().map(|value| value.as_deref().unwrap_or("")).collect::<Vec<_>>().join("|")
}

fn shown(rows: &[String]) -> String {
    let mut text = rows.iter().take(ROWS_SHOWN_MAX).map(|row| format!("'{row}'")).collect::<Vec<_>>().join(", ");
    if rows.len() > ROWS_SHOWN_MAX {
        text += ", ...";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(values: &[Option<&str>]) -> Row {
        values.iter().map(|value| value.map(ToOwned::to_owned)).collect()
    }

    #[test]
    fn file_with_databases_and_expected_rows_is_split_into_queries() {
        let text = "-- a comment\nselect 1;\nselect 2;\n-- expect: 1\n-- expect: 2\n\n-- database: shop\n\
                    select ' -- expect: x'\n--expect:  b|\nvacuum;\n";
        let queries = parse(text).unwrap();
        assert_eq!(queries.len(), 3);
        assert_eq!(queries[0].expected.as_deref().unwrap(), ["1", "2"]);
        assert_eq!((queries[0].line, queries[0].database.as_deref()), (2, None));
        assert_eq!(queries[1].expected.as_deref().unwrap(), [" b|"]);
        assert_eq!((queries[1].line, queries[1].database.as_deref()), (8, Some("shop")));
        assert_eq!((queries[2].sql.as_str(), &queries[2].expected), ("vacuum;\n", &None));
        assert_eq!(queries[2].database.as_deref(), Some("shop"));
    }

    #[test]
    fn file_that_checks_nothing_is_refused() {
        for text in ["", "\n-- only a comment\n", "-- expect: 1\nselect 1", "-- database: x\n"] {
            assert_eq!(parse(text).unwrap_err().code, ErrorCode::Format, "{text}");
        }
    }

    #[test]
    fn comment_that_looks_like_an_expected_row_is_refused_instead_of_leaving_the_query_unchecked() {
        for line in ["-- Expect: 1", "-- expected: 1", "--EXPECT:1", "-- expect : 1", "--- expect: 1", "-- Database: x"]
        {
            let error = parse(&format!("select 1;\n{line}\n")).unwrap_err();
            assert_eq!(error.code, ErrorCode::Format, "{line}");
            assert!(error.message.contains("line 2"), "{error}");
        }
        assert!(parse("-- what to expect: all\n-- expect nothing\nselect 1;\n").is_ok());
    }

    #[test]
    fn rows_must_be_exactly_those_expected() {
        let query = &parse("select\n-- expect: a|\n-- expect: b|2").unwrap()[0];
        let rows = [row(&[Some("a"), None]), row(&[Some("b"), Some("2")])];
        assert_eq!(difference(query, &rows), None);
        let fewer = difference(query, &rows[..1]).unwrap();
        assert!(fewer.contains("1 row(s) instead of 2: 'a|'"), "{fewer}");
        let other = difference(query, &[rows[0].clone(), row(&[Some("b"), Some("3")])]).unwrap();
        assert_eq!(other, "the query at line 1 returned 'b|3' instead of 'b|2' as row 2");
        assert_eq!(difference(&parse("select").unwrap()[0], &rows), None);
    }
}
