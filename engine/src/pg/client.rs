//! A blocking connection to a PostgreSQL server, with the connection rules of libpq and the error texts of pgBackRest
//! (`src/postgres/client.c`).

use std::io;
use std::pin::{Pin, pin};
use std::time::{Duration, Instant};

use rustix::net::sockopt;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, SimpleQueryMessage};

use super::cancel_query::Canceller;
use super::connection::{Expect, PgConnection, Row};
use super::environment::PgEnvironment;
use super::error_text::{db_error_text, root_cause, words};
use super::settings::PgSettings;
use super::target::{Encryption, Place, Target};
use super::tls::{Handshake, PgConnector};
use crate::system_text;
use crate::{CancelToken, Error, ErrorCode, Result};

/// How long a cancelled query may take to end before the connection is given up.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long closing the connection may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// How often a wait for the server checks for a signal.
const SIGNAL_INTERVAL: Duration = Duration::from_millis(100);

/// An open connection.
pub struct PgClient {
    /// Only `drop` takes it, because the client must be gone before it waits for the connection to end.
    client: Option<Client>,
    connection: Option<JoinHandle<()>>,
    canceller: Canceller,
    runtime: Runtime,
    timeout: Duration,
    cancel: CancelToken,
}

impl PgClient {
    /// Connects.
    ///
    /// # Errors
    /// [`ErrorCode::DbConnect`], [`ErrorCode::Term`] after a signal.
    pub fn connect(settings: &PgSettings, cancel: &CancelToken) -> Result<Self> {
        Self::connect_in(&PgEnvironment::read()?, settings, cancel)
    }

    /// Connects in an environment.
    ///
    /// # Errors
    /// The same as [`PgClient::connect`].
    pub(super) fn connect_in(environment: &PgEnvironment, settings: &PgSettings, cancel: &CancelToken) -> Result<Self> {
        let mut texts = Vec::new();
        for &kind in environment.session.passes() {
            texts.clear();
            for target in Target::all(settings, environment) {
                let attempt = Attempt { target: &target, settings, environment, cancel };
                match attempt.connect()? {
                    Ok((mut client, failure)) => match kind.mismatch(&mut client)? {
                        None => return Ok(client),
                        Some(text) => texts.push(format!("{failure}: {text}")),
                    },
                    Err(failures) => texts.extend(failures),
                }
            }
        }
        Err(not_connected(settings, &texts.join("\n")))
    }
}

/// An attempt to connect to a target.
struct Attempt<'a> {
    target: &'a Target,
    settings: &'a PgSettings,
    environment: &'a PgEnvironment,
    cancel: &'a CancelToken,
}

/// What failed in an attempt, one text for each try.
type Tried<T> = std::result::Result<T, Vec<String>>;

/// A session, and what makes progress for it.
type Opened = (Client, Pin<Box<dyn Future<Output = ()> + Send>>);

/// Why there is no session.
enum NotOpened {
    /// The place can't be reached.
    Way(io::Error),
    Server(tokio_postgres::Error),
}

impl Attempt<'_> {
    /// Connects to the first place that is suitable. Also returns how a failure there is called.
    fn connect(&self) -> Result<Tried<(PgClient, String)>> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| Error::from_io(ErrorCode::Kernel, "unable to start the PostgreSQL client", e))?;
        let places = match runtime.block_on(self.within(self.target.places()))? {
            Some(Ok(places)) => places,
            Some(Err(text)) => return Ok(Err(vec![text])),
            None => return Ok(Err(vec![self.timed_out()])),
        };
        let mut texts = Vec::new();
        for place in &places {
            let (client, connection, canceller) = match self.connect_at(&runtime, place)? {
                Ok(session) => session,
                Err(failures) => {
                    texts.extend(failures);
                    continue;
                }
            };
            let client = PgClient {
                client: Some(client),
                connection: Some(connection),
                canceller,
                runtime,
                timeout: self.settings.db_timeout,
                cancel: self.cancel.clone(),
            };
            return Ok(Ok((client, self.target.failure_at(place))));
        }
        Ok(Err(texts))
    }

    /// Connects to a place, with each suitable encryption.
    fn connect_at(&self, runtime: &Runtime, place: &Place) -> Result<Tried<(Client, JoinHandle<()>, Canceller)>> {
        let Attempt { target, settings, environment, .. } = *self;
        let failure = target.failure_at(place);
        let mut texts = Vec::new();
        for &encryption in target.encryptions(environment.ssl_mode) {
            let tls = match encryption {
                Encryption::Never => Ok(PgConnector::plain()),
                _ => PgConnector::new(environment.ssl_mode, &environment.ssl),
            };
            let tls = tls.map_err(|e| not_connected(settings, &format!("{failure}: {e}")))?;
            let config = target.config(settings, environment, encryption);
            match runtime.block_on(self.within(open(&config, place, tls.handshake(target.host()))))? {
                // The connection makes progress only while the runtime runs, that is, during a query; nothing is expected
                // in between
                Some(Ok((client, connection))) => {
                    let canceller = Canceller::new(place, settings.port, target.host(), tls);
                    return Ok(Ok((client, runtime.spawn(connection), canceller)));
                }
                Some(Err(error)) => {
                    texts.push(format!("{failure}: {}", error.text(place)));
                    if !error.may_differ_otherwise() {
                        break;
                    }
                }
                None => {
                    texts.push(self.timed_out());
                    break;
                }
            }
        }
        Ok(Err(texts))
    }

    async fn within<T>(&self, running: impl Future<Output = T>) -> Result<Option<T>> {
        within(self.settings.db_timeout, self.cancel, pin!(running)).await
    }

    fn timed_out(&self) -> String {
        format!("timed out after {}ms", self.settings.db_timeout.as_millis())
    }
}

fn not_connected(settings: &PgSettings, text: &str) -> Error {
    Error::new(ErrorCode::DbConnect, format!("unable to connect to '{}': {text}", conninfo(settings)))
}

/// Begins a session at a place.
async fn open(config: &Config, place: &Place, tls: Handshake) -> std::result::Result<Opened, NotOpened> {
    match place {
        Place::Socket(_) => {
            let (client, connection) = config.connect(PgConnector::plain()).await.map_err(NotOpened::Server)?;
            // The query that is running reports the error
            Ok((client, Box::pin(async move { drop(connection.await) })))
        }
        Place::Network(address) => {
            let stream = TcpStream::connect(address).await.map_err(NotOpened::Way)?;
            stream.set_nodelay(true).map_err(NotOpened::Way)?;
            // As libpq
            sockopt::set_socket_keepalive(&stream, true).map_err(|errno| NotOpened::Way(errno.into()))?;
            let (client, connection) = config.connect_raw(stream, tls).await.map_err(NotOpened::Server)?;
            Ok((client, Box::pin(async move { drop(connection.await) })))
        }
    }
}

impl NotOpened {
    /// Returns whether the same server may accept a session with other encryption.
    fn may_differ_otherwise(&self) -> bool {
        match self {
            NotOpened::Way(_) => false,
            NotOpened::Server(error) => match error.as_db_error() {
                // A line of pg_hba.conf is only for sessions of one kind
                Some(db) => *db.code() == SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
                None => true,
            },
        }
    }

    /// The failure in libpq's words.
    fn text(&self, place: &Place) -> String {
        let (text, is_missing) = match self {
            NotOpened::Way(error) => (words(error), error.kind() == io::ErrorKind::ConnectionRefused),
            NotOpened::Server(error) => match error.as_db_error() {
                Some(db) => return db_error_text(db),
                None => root_cause(error),
            },
        };
        let question = match (is_missing, place) {
            (true, Place::Socket(_)) => "\n\tIs the server running locally and accepting connections on that socket?",
            (true, Place::Network(_)) => "\n\tIs the server running on that host and accepting TCP/IP connections?",
            (false, _) => "",
        };
        format!("{text}{question}")
    }
}

/// The result of a statement with the types of its columns.
pub(crate) struct TypedRows {
    /// The numbers of the types; `None` if the statement returns nothing.
    pub(crate) types: Option<Vec<u32>>,
    /// The rows as text.
    pub(crate) rows: Vec<Row>,
}

impl PgClient {
    /// Runs a single statement and returns its rows with the types of the columns.
    ///
    /// # Errors
    /// The same as [`PgConnection::query`].
    pub(crate) fn query_typed(&mut self, query: &str) -> Result<TypedRows> {
        let Some(client) = &self.client else { return Err(invalid_connection()) };
        // Rows of simple queries have no types
        let statement = self.run(client, query, client.prepare(query))?;
        let types: Vec<u32> = statement.columns().iter().map(|column| column.type_().oid()).collect();
        drop(statement);
        let rows = rows_of(self.run(client, query, client.simple_query(query))?);
        Ok(TypedRows { types: (!types.is_empty()).then_some(types), rows })
    }

    /// Waits for the server. A call that takes too long is cancelled there.
    fn run<T>(
        &self,
        client: &Client,
        query: &str,
        call: impl Future<Output = std::result::Result<T, tokio_postgres::Error>>,
    ) -> Result<T> {
        let timeout = self.timeout;
        self.runtime.block_on(async {
            let mut running = pin!(call);
            let reason = match within(timeout, &self.cancel, running.as_mut()).await {
                Ok(Some(done)) => return done.map_err(|e| query_error(query, &e).cause(e)),
                Ok(None) => {
                    let text = format!("query '{query}' timed out after {}ms", timeout.as_millis());
                    Error::new(ErrorCode::DbQuery, text)
                }
                Err(error) => error,
            };
            // The connection stays usable only if the query has really ended
            let cancelling = async {
                if let Err(e) = self.canceller.cancel(client).await {
                    crate::warn!("unable to cancel query '{query}': {}", system_text(&e));
                }
                let _ = running.await;
            };
            let _ = tokio::time::timeout(CANCEL_TIMEOUT, cancelling).await;
            Err(reason)
        })
    }
}

fn invalid_connection() -> Error {
    Error::new(ErrorCode::Assert, "invalid connection")
}

fn rows_of(messages: Vec<SimpleQueryMessage>) -> Vec<Row> {
    messages
        .into_iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect())
            }
            _ => None,
        })
        .collect()
}

impl PgClient {
    /// Runs a query and returns its rows, with whatever columns they have.
    ///
    /// # Errors
    /// The same as [`PgConnection::query`].
    pub fn rows(&mut self, query: &str) -> Result<Vec<Row>> {
        let Some(client) = &self.client else { return Err(invalid_connection()) };
        Ok(rows_of(self.run(client, query, client.simple_query(query))?))
    }
}

impl PgConnection for PgClient {
    fn query(&mut self, query: &str, _: Expect) -> Result<Vec<Row>> {
        self.rows(query)
    }

    fn timeout(&self) -> Duration {
        self.timeout
    }
}

/// Waits for a future; returns `None` if it takes longer than `timeout`.
///
/// # Errors
/// [`ErrorCode::Term`] after a signal.
async fn within<T>(
    timeout: Duration,
    cancel: &CancelToken,
    mut running: Pin<&mut impl Future<Output = T>>,
) -> Result<Option<T>> {
    let begin = Instant::now();
    loop {
        match tokio::time::timeout(SIGNAL_INTERVAL.min(timeout), running.as_mut()).await {
            Ok(done) => return Ok(Some(done)),
            Err(_) if begin.elapsed() >= timeout => return Ok(None),
            Err(_) => cancel.check()?,
        }
    }
}

impl Drop for PgClient {
    fn drop(&mut self) {
        // Without its client the connection closes and ends
        self.client = None;
        if let Some(connection) = self.connection.take() {
            let _ = self.runtime.block_on(async { tokio::time::timeout(CLOSE_TIMEOUT, connection).await });
        }
    }
}

/// Returns libpq's connection string, for messages.
fn conninfo(settings: &PgSettings) -> String {
    let quote = |text: &str| format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"));
    let mut info = format!("dbname={} port={}", quote(&settings.database), settings.port);
    if let Some(user) = &settings.user {
        info += &format!(" user={}", quote(user));
    }
    if let Some(path) = &settings.socket_path {
        info += &format!(" host={}", quote(&path.to_string_lossy()));
    }
    info
}

fn query_error(query: &str, error: &tokio_postgres::Error) -> Error {
    match error.as_db_error() {
        Some(db) => Error::new(ErrorCode::DbQuery, format!("unable to execute query '{query}': {}", db_error_text(db))),
        None => {
            let text = format!("unable to complete query '{query}': {}", root_cause(error).0);
            Error::new(ErrorCode::DbQuery, text)
                .hint("this is usually caused by the connection to PostgreSQL being lost while the query was running.")
                .hint("check idle_session_timeout and idle_in_transaction_session_timeout for aggressive settings.")
                .hint("check the PostgreSQL log and network for a crash, restart, or timeout.")
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn settings(socket_path: &str) -> PgSettings {
        PgSettings {
            socket_path: Some(PathBuf::from(socket_path)),
            user: Some("o'brien".to_owned()),
            db_timeout: Duration::from_secs(5),
            ..PgSettings::new("/pg")
        }
    }

    #[test]
    fn connect_without_server_names_the_socket() {
        let error = PgClient::connect(&settings("/no/such/dir"), &CancelToken::new()).err().unwrap();
        assert_eq!(error.code, ErrorCode::DbConnect);
        assert_eq!(
            error.message,
            "unable to connect to 'dbname='postgres' port=5432 user='o\\'brien' host='/no/such/dir'': connection to \
             server on socket \"/no/such/dir/.s.PGSQL.5432\" failed: No such file or directory\n\tIs the server running \
             locally and accepting connections on that socket?"
        );
    }
}
