//! Sessions with the server's PostgreSQL.

use std::io::{BufRead, Write};

use protocol::Call;
use protocol::call::CallKind;
use protocol::database::{QueryAnswer, QueryRequest};
use repo_format::Result;

use super::Client;

/// A connection of the server to its PostgreSQL.
#[derive(Debug)]
#[must_use = "the server keeps the connection"]
pub struct Database {
    session: u64,
}

impl<R: BufRead, W: Write> Client<R, W> {
    /// Connects the server to its PostgreSQL.
    ///
    /// # Errors
    /// As all methods.
    pub fn open_database(&mut self) -> Result<Database> {
        let session = self.link.send(&Call::DatabaseOpen)?;
        self.link.receive(session)?;
        Ok(Database { session })
    }

    /// Runs a statement. The connection remains usable after an error.
    ///
    /// # Errors
    /// As all methods.
    pub fn query(&mut self, database: &Database, request: QueryRequest<'_>) -> Result<QueryAnswer<'_>> {
        self.link.send_in(database.session, &Call::DatabaseQuery(request))?;
        let answer = self.link.receive(database.session)?;
        QueryAnswer::decode(answer.outcome.unwrap_or_default(), request.expected)
    }

    /// Ends the connection, as pgBackRest does.
    ///
    /// # Errors
    /// As all methods.
    pub fn close_database(&mut self, database: Database) -> Result<()> {
        self.link.send_in(database.session, &Call::Cancel(CallKind::Database))?;
        self.link.receive(database.session).map(drop)
    }
}
