//! A connection to the server of another host, which a process there makes.
//!
//! Source: pgBackRest `src/db/db.c` (`dbOpen`, `dbQuery`), `src/db/protocol.c`.

use std::sync::Arc;
use std::time::Duration;

use protocol::Call;
use protocol::call::CallKind;
use protocol::database::{Column, Expected, QueryAnswer, QueryRequest, columns};
use protocol::options::{OptionValue, OptionsAnswer, OptionsRequest};

use crate::pg::connection::{Expect, PgConnection, Row};
use crate::remote::{Connection, PendingAnswer};
use crate::{CancelToken, Error, ErrorCode, Result};

/// An open connection.
pub(super) struct RemoteConnection {
    connection: Arc<Connection>,
    session: u64,
    /// The `db-timeout` of that host.
    timeout: Duration,
    cancel: CancelToken,
}

impl RemoteConnection {
    /// Has the process connect.
    ///
    /// # Errors
    /// [`ErrorCode::DbConnect`], the error that ended the connection to the process, [`ErrorCode::Term`] after a signal.
    pub(super) fn open(connection: &Arc<Connection>, cancel: &CancelToken) -> Result<Self> {
        const OPTION: &str = "db-timeout";
        let opened = connection.send(&Call::DatabaseOpen, None);
        let asked = connection.send(&Call::Options(OptionsRequest { names: vec![OPTION] }), None);
        let session = opened.session;
        opened.wait_or_stop(cancel)?;
        // From here on the session is closed
        let (connection, cancel) = (Arc::clone(connection), cancel.clone());
        let mut opened = RemoteConnection { connection, session, timeout: Duration::ZERO, cancel };
        let values = asked.wait()?.read(|data| OptionsAnswer::decode(data, 1))?.values;
        let [OptionValue::Number(timeout_ms)] = values.as_slice() else {
            return Err(Error::new(ErrorCode::Protocol, format!("unknown value of option '{OPTION}'")));
        };
        opened.timeout = Duration::from_millis(*timeout_ms);
        Ok(opened)
    }

    fn send(&self, query: &str, expect: Expect) -> PendingAnswer {
        let request = QueryRequest { expected: shape(expect).0, sql: query };
        self.connection.send(&Call::DatabaseQuery(request), Some(self.session))
    }

    fn receive(&self, sent: PendingAnswer, expect: Expect) -> Result<Vec<Row>> {
        let (expected, count) = shape(expect);
        // The server may work on it for long
        let answer = sent.wait_or_stop(&self.cancel)?;
        let rows = answer.read(|data| QueryAnswer::decode(data, expected))?;
        let columns = |row| Ok(columns(&answer.read(|_| row)?, count)?.into_iter().map(text).collect());
        rows.rows().map(columns).collect()
    }
}

/// How the protocol names what a query is to return, and the number of columns.
fn shape(expect: Expect) -> (Expected, usize) {
    match expect {
        Expect::Nothing => (Expected::None, 0),
        Expect::OneRow(1) => (Expected::Column, 1),
        Expect::OneRow(count) => (Expected::Row, count),
        Expect::Rows(count) => (Expected::Any, count),
    }
}

impl PgConnection for RemoteConnection {
    fn query(&mut self, query: &str, expect: Expect) -> Result<Vec<Row>> {
        self.receive(self.send(query, expect), expect)
    }

    fn queries(&mut self, queries: &[(&str, Expect)]) -> Result<Vec<Vec<Row>>> {
        let sent: Vec<_> = queries.iter().map(|(query, expect)| (self.send(query, *expect), *expect)).collect();
        sent.into_iter().map(|(sent, expect)| self.receive(sent, expect)).collect()
    }

    fn timeout(&self) -> Duration {
        self.timeout
    }
}

impl Drop for RemoteConnection {
    fn drop(&mut self) {
        // The answer is empty. If the connection to the process has ended, the process ends this one
        drop(self.connection.send(&Call::Cancel(CallKind::Database), Some(self.session)));
    }
}

/// Returns a value as the server prints it.
fn text(column: Column<'_>) -> Option<String> {
    match column {
        Column::Null => None,
        Column::Bool(value) => Some(if value { "t" } else { "f" }.to_owned()),
        Column::I32(value) => Some(value.to_string()),
        Column::I64(value) => Some(value.to_string()),
        Column::U32(value) => Some(value.to_string()),
        Column::Text(value) => Some(value.to_owned()),
    }
}
