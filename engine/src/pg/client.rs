//! A blocking connection to a PostgreSQL server, with the connection rules of libpq and the error texts of pgBackRest
//! (`src/postgres/client.c`).

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::time::{Duration, Instant};

use repo_format::pg::version::PgVersion;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_postgres::config::{SslMode as DriverSslMode, SslNegotiation};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, SimpleQueryMessage};

use super::cancel_query::Canceller;
use super::connection::{Expect, PgConnection, Row};
use super::environment::{PgEnvironment, SslMode};
use super::passfile;
use super::tls::PgConnector;
use crate::system_text;
use crate::users::Users;
use crate::{CancelToken, Error, ErrorCode, Result};

/// The default socket directory.
const SOCKET_PATH_DEFAULT: &str = "/var/run/postgresql";
/// The default port of a server.
const PORT_DEFAULT: u16 = 5432;
/// How long a query may take by default.
const DB_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30 * 60);
/// How long a cancelled query may take to end before the connection is given up.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long closing the connection may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// How often a wait for the server checks for a signal.
const SIGNAL_INTERVAL: Duration = Duration::from_millis(100);

/// How to reach one cluster.
#[derive(Clone, Debug)]
pub struct PgSettings {
    /// The N of the options `pgN-...`, for messages.
    pub key: u32,
    /// The data directory.
    pub path: PathBuf,
    /// The server's port, which is also part of the socket's name.
    pub port: u16,
    /// The directory of the server's socket; by default `PGHOST` or the usual directory.
    pub socket_path: Option<PathBuf>,
    /// The database user; by default `PGUSER` or the user of the process.
    pub user: Option<String>,
    /// The database to connect to.
    pub database: String,
    /// The longest that one query may take.
    pub db_timeout: Duration,
    /// The version to assume instead of the one in `pg_control`.
    pub version_force: Option<PgVersion>,
    /// The command, which the server shows as `pgBackRest [command]`.
    pub command: String,
}

impl PgSettings {
    /// The first cluster, at the default port, in the database `postgres`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        PgSettings {
            key: 1,
            path: path.into(),
            port: PORT_DEFAULT,
            socket_path: None,
            user: None,
            database: "postgres".to_owned(),
            db_timeout: DB_TIMEOUT_DEFAULT,
            version_force: None,
            command: "backup".to_owned(),
        }
    }
}

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
        let failed = |text: String| {
            Error::new(ErrorCode::DbConnect, format!("unable to connect to '{}': {text}", conninfo(settings)))
        };
        let environment = PgEnvironment::read()?;
        let mut texts = Vec::new();
        for &kind in environment.session.passes() {
            texts.clear();
            for target in Target::all(settings, &environment) {
                match Self::connect_to(&target, settings, &environment, cancel)? {
                    Ok(mut client) => match kind.mismatch(&mut client)? {
                        None => return Ok(client),
                        Some(text) => texts.push(format!("{}: {text}", target.place())),
                    },
                    Err(failures) => texts.extend(failures),
                }
            }
        }
        Err(failed(texts.join("\n")))
    }

    /// Connects to one target. The inner error is what failed there, one text for each attempt.
    fn connect_to(
        target: &Target,
        settings: &PgSettings,
        environment: &PgEnvironment,
        cancel: &CancelToken,
    ) -> Result<std::result::Result<Self, Vec<String>>> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| Error::from_io(ErrorCode::Kernel, "unable to start the PostgreSQL client", e))?;
        let mut texts = Vec::new();
        for &encryption in target.encryptions(environment.ssl_mode) {
            let tls = match encryption {
                Encryption::Never => Ok(PgConnector::plain()),
                _ => PgConnector::new(environment.ssl_mode, &environment.ssl),
            };
            let tls = tls.map_err(|e| {
                let text = format!("unable to connect to '{}': {}: {e}", conninfo(settings), target.place());
                Error::new(ErrorCode::DbConnect, text)
            })?;
            let config = target.config(settings, environment, encryption);
            let connecting = async { within(settings.db_timeout, cancel, pin!(config.connect(tls.clone()))).await };
            match runtime.block_on(connecting)? {
                Some(Ok((client, connection))) => {
                    // The connection makes progress only while the runtime runs, that is, during a query; nothing is
                    // expected in between
                    let connection = runtime.spawn(async move {
                        // The query that is running reports the error
                        let _ = connection.await;
                    });
                    return Ok(Ok(PgClient {
                        client: Some(client),
                        connection: Some(connection),
                        canceller: target.canceller(tls),
                        runtime,
                        timeout: settings.db_timeout,
                        cancel: cancel.clone(),
                    }));
                }
                Some(Err(e)) => {
                    texts.push(target.connect_error(&e));
                    if !may_differ_otherwise(&e) {
                        break;
                    }
                }
                None => {
                    texts.push(format!("timed out after {}ms", settings.db_timeout.as_millis()));
                    break;
                }
            }
        }
        Ok(Err(texts))
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
                self.canceller.settle(client).await;
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

/// Returns whether the same server may accept a session with other encryption.
fn may_differ_otherwise(error: &tokio_postgres::Error) -> bool {
    match error.as_db_error() {
        // A line of pg_hba.conf is only for sessions of one kind
        Some(db) => *db.code() == SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
        None => true,
    }
}

/// The encryption of one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encryption {
    Never,
    IfOffered,
    Always,
}

/// Where and as whom to connect, after libpq's defaults.
struct Target {
    /// A socket directory, or a host name if it does not begin with a slash.
    host: String,
    /// The address of the host, instead of what its name resolves to.
    address: Option<IpAddr>,
    port: u16,
    user: String,
}

impl Target {
    /// All of them, to be tried one after the other.
    fn all(settings: &PgSettings, environment: &PgEnvironment) -> Vec<Self> {
        let hosts = match &settings.socket_path {
            Some(path) => vec![path.to_string_lossy().into_owned()],
            None if environment.hosts.is_empty() => match environment.addresses.as_slice() {
                [] => vec![SOCKET_PATH_DEFAULT.to_owned()],
                addresses => addresses.iter().map(IpAddr::to_string).collect(),
            },
            // An empty one in a list is the usual place
            None => environment
                .hosts
                .iter()
                .map(|host| if host.is_empty() { SOCKET_PATH_DEFAULT } else { host }.to_owned())
                .collect(),
        };
        let user = settings
            .user
            .clone()
            .or_else(|| environment.user.clone())
            .or_else(|| Users::new().current_user())
            // Without a name, use the number; the server then reports that there is no such role
            .unwrap_or_else(|| rustix::process::geteuid().as_raw().to_string());
        // A configured socket determines the server, whatever the environment says
        let addresses = if settings.socket_path.is_some() { &[][..] } else { &environment.addresses[..] };
        let target = |(index, host)| Target {
            host,
            address: addresses.get(index).copied(),
            port: settings.port,
            user: user.clone(),
        };
        hosts.into_iter().enumerate().map(target).collect()
    }

    /// The directory of the socket. An @ begins the name of an abstract one, which has no file.
    fn socket_directory(&self) -> String {
        match self.host.strip_prefix('@') {
            Some(name) => format!("\0{name}"),
            None => self.host.clone(),
        }
    }

    fn canceller(&self, tls: PgConnector) -> Canceller {
        match self.is_socket() {
            true => Canceller::of_socket(Path::new(&self.socket_directory()), self.port),
            false => Canceller::Network(tls),
        }
    }

    fn is_socket(&self) -> bool {
        self.address.is_none() && self.host.starts_with(['/', '@'])
    }

    /// Returns the encryptions to try, in order.
    fn encryptions(&self, mode: SslMode) -> &'static [Encryption] {
        match mode {
            // libpq never encrypts local sockets
            _ if self.is_socket() => &[Encryption::Never],
            SslMode::Disable => &[Encryption::Never],
            SslMode::Allow => &[Encryption::Never, Encryption::Always],
            SslMode::Prefer => &[Encryption::IfOffered, Encryption::Never],
            SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => &[Encryption::Always],
        }
    }

    fn config(&self, settings: &PgSettings, environment: &PgEnvironment, encryption: Encryption) -> Config {
        let mut config = Config::new();
        if self.is_socket() {
            config.host_path(self.socket_directory());
        } else {
            config.host(&self.host);
        }
        if let Some(address) = self.address {
            config.hostaddr(address);
        }
        config.port(self.port).user(&self.user).dbname(&settings.database);
        config.ssl_mode(match encryption {
            Encryption::Never => DriverSslMode::Disable,
            Encryption::IfOffered => DriverSslMode::Prefer,
            Encryption::Always => DriverSslMode::Require,
        });
        config.channel_binding(environment.channel_binding);
        if environment.ssl.direct && encryption == Encryption::Always {
            config.ssl_negotiation(SslNegotiation::Direct);
        }
        if let Some(options) = &environment.options {
            config.options(options);
        }
        // Sent only if the server asks for it
        if let Some(password) = self.password(settings, environment) {
            config.password(password);
        }
        config
    }

    fn password(&self, settings: &PgSettings, environment: &PgEnvironment) -> Option<String> {
        if let Some(password) = &environment.password {
            return Some(password.clone());
        }
        let path = environment.passfile.as_ref()?;
        let host = if self.host == SOCKET_PATH_DEFAULT { "localhost" } else { &self.host };
        let target = passfile::PasswordTarget { host, port: self.port, database: &settings.database, user: &self.user };
        passfile::lookup(path, target)
    }

    fn place(&self) -> String {
        if self.is_socket() {
            format!("connection to server on socket \"{}/.s.PGSQL.{}\" failed", self.host, self.port)
        } else {
            format!("connection to server at \"{}\", port {} failed", self.host, self.port)
        }
    }

    /// The failure in libpq's words, which operators know.
    fn connect_error(&self, error: &tokio_postgres::Error) -> String {
        let place = self.place();
        if let Some(db) = error.as_db_error() {
            return format!("{place}: {}", db_error_text(db));
        }
        let (text, missing) = root_cause(error);
        let question = match missing {
            true if self.is_socket() => "\n\tIs the server running locally and accepting connections on that socket?",
            true => "\n\tIs the server running on that host and accepting TCP/IP connections?",
            false => "",
        };
        format!("{place}: {text}{question}")
    }
}

/// Returns the innermost error's text, and whether it means that nobody listens there.
fn root_cause(error: &tokio_postgres::Error) -> (String, bool) {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    match cause.downcast_ref::<std::io::Error>() {
        Some(io) => {
            let full = io.to_string();
            let text = full.rsplit_once(" (os error").map_or(full.as_str(), |(text, _)| text).to_owned();
            let nobody = [std::io::ErrorKind::NotFound, std::io::ErrorKind::ConnectionRefused];
            (text, nobody.contains(&io.kind()))
        }
        None => (cause.to_string(), false),
    }
}

/// A server's error as libpq shows it.
fn db_error_text(error: &tokio_postgres::error::DbError) -> String {
    let mut text = format!("{}:  {}", error.severity(), error.message());
    for (name, more) in [("DETAIL", error.detail()), ("HINT", error.hint()), ("CONTEXT", error.where_())] {
        if let Some(more) = more {
            text += &format!("\n{name}:  {more}");
        }
    }
    text
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
