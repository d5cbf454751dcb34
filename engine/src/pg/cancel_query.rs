//! Cancels a query, and waits until the server has done so.
//!
//! The server sends two signals for a request to cancel, one to the process and one to its group, and then closes the
//! connection of the request (PostgreSQL `src/backend/postmaster`, `processCancelRequest`). On a busy host the first one
//! may end the query long before the second one is sent, which would cancel the next query. So the client waits for the
//! end of that connection, as libpq's `PQcancel` does. `tokio-postgres` does not.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::{TcpStream, UnixStream};
use tokio_postgres::{Client, NoTls};

use super::target::Place;
use super::tls::PgConnector;

/// How a session is cancelled.
pub(super) enum Canceller {
    /// Through this socket.
    Socket(PathBuf),
    /// At the address of the session, with its encryption.
    Network { address: SocketAddr, host: String, tls: PgConnector },
}

impl Canceller {
    /// For a session at this place. The server's certificate is for `host`.
    pub(super) fn new(place: &Place, port: u16, host: &str, tls: PgConnector) -> Self {
        match place {
            Place::Socket(directory) => Canceller::Socket(Path::new(directory).join(format!(".s.PGSQL.{port}"))),
            Place::Network(address) => Canceller::Network { address: *address, host: host.to_owned(), tls },
        }
    }

    /// Cancels the query that runs in this session.
    ///
    /// # Errors
    /// The server can't be reached.
    pub(super) async fn cancel(&self, client: &Client) -> io::Result<()> {
        let token = client.cancel_token();
        match self {
            Canceller::Socket(path) => {
                let mut stream = UnixStream::connect(path).await?;
                token.cancel_query_raw(&mut stream, NoTls).await.map_err(io::Error::other)?;
                ended(&mut stream).await;
            }
            Canceller::Network { address, host, tls } => {
                let stream = TcpStream::connect(address).await?.into_std()?;
                // The encryption takes the stream and drops it
                let mut same = TcpStream::from_std(stream.try_clone()?)?;
                let stream = TcpStream::from_std(stream)?;
                token.cancel_query_raw(stream, tls.handshake(host)).await.map_err(io::Error::other)?;
                ended(&mut same).await;
            }
        }
        Ok(())
    }
}

/// Waits until the server has closed a connection. However it does, it has dealt with the request then. What it sends before
/// belongs to the encryption.
async fn ended(stream: &mut (impl AsyncRead + Unpin)) {
    let mut buffer = [0; 1024];
    while stream.read(&mut buffer).await.is_ok_and(|size| size > 0) {}
}

#[cfg(test)]
mod tests {
    use std::io::{self, ErrorKind, Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::time::Duration;

    use crate::CancelToken;
    use crate::pg::PgSettings;
    use crate::pg::client::PgClient;
    use crate::pg::environment::PgEnvironment;

    /// A connection of the server.
    trait Stream: Read + Write {
        fn set_patience(&self, time: Option<Duration>) -> io::Result<()>;
    }

    impl Stream for UnixStream {
        fn set_patience(&self, time: Option<Duration>) -> io::Result<()> {
            self.set_read_timeout(time)
        }
    }

    impl Stream for TcpStream {
        fn set_patience(&self, time: Option<Duration>) -> io::Result<()> {
            self.set_read_timeout(time)
        }
    }

    /// Appends a message of the server.
    fn message(bytes: &mut Vec<u8>, kind: u8, body: &[u8]) {
        bytes.push(kind);
        bytes.extend((body.len() as u32 + 4).to_be_bytes());
        bytes.extend(body);
    }

    fn read_query(stream: &mut impl Read) -> std::io::Result<Vec<u8>> {
        let mut head = [0; 5];
        stream.read_exact(&mut head)?;
        let mut body = vec![0; u32::from_be_bytes(head[1..].try_into().unwrap()) as usize - 4];
        stream.read_exact(&mut body).map(|()| body)
    }

    /// A server that ends a cancelled query at once, and sends the second signal, after which it closes the connection of
    /// the request, some time later.
    fn serve<S: Stream>(accept: impl Fn() -> S) {
        let mut session = accept();
        let mut size = [0; 4];
        session.read_exact(&mut size).unwrap();
        session.read_exact(&mut vec![0; u32::from_be_bytes(size) as usize - 4]).unwrap();
        let mut answer = Vec::new();
        message(&mut answer, b'R', &[0; 4]);
        message(&mut answer, b'K', &[1; 8]);
        message(&mut answer, b'Z', b"I");
        session.write_all(&answer).unwrap();
        assert_eq!(read_query(&mut session).unwrap(), b"too slow\0");
        let mut request = accept();
        request.read_exact(&mut [0; 16]).unwrap();
        answer.clear();
        message(&mut answer, b'E', b"SERROR\0C57014\0Mcanceled\0\0");
        message(&mut answer, b'Z', b"I");
        session.write_all(&answer).unwrap();
        session.set_patience(Some(Duration::from_millis(300))).unwrap();
        let early = read_query(&mut session).expect_err("a query that the second signal would cancel");
        assert_eq!(early.kind(), ErrorKind::WouldBlock);
        drop(request);
        session.set_patience(None).unwrap();
        assert_eq!(read_query(&mut session).unwrap(), b"next\0");
        answer.clear();
        message(&mut answer, b'I', b"");
        message(&mut answer, b'Z', b"I");
        session.write_all(&answer).unwrap();
    }

    /// Runs a query that takes too long, and another one, in this environment.
    fn query_twice(variables: &[(&str, &str)], settings: PgSettings) {
        let value =
            |name: &str| variables.iter().find(|(other, _)| *other == name).map(|(_, value)| (*value).to_owned());
        let environment = PgEnvironment::from(value, || None).unwrap();
        let settings = PgSettings { user: Some("tester".to_owned()), db_timeout: Duration::from_secs(2), ..settings };
        let mut client = PgClient::connect_in(&environment, &settings, &CancelToken::new()).unwrap();
        let error = client.rows("too slow").unwrap_err();
        assert!(error.message.contains("timed out"), "{error}");
        assert!(client.rows("next").unwrap().is_empty());
    }

    #[test]
    fn query_after_a_cancelled_one_waits_for_the_second_signal() {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join(".s.PGSQL.5432")).unwrap();
        let server = std::thread::spawn(move || serve(|| listener.accept().unwrap().0));
        query_twice(&[], PgSettings { socket_path: Some(dir.path().to_owned()), ..PgSettings::new("/pg") });
        server.join().unwrap();
    }

    #[test]
    fn query_after_one_that_was_cancelled_through_a_network_waits_for_the_second_signal() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = std::thread::spawn(move || serve(|| listener.accept().unwrap().0));
        // Of several addresses of a name, the session has the one that answers
        query_twice(
            &[("PGHOST", "localhost"), ("PGSSLMODE", "disable")],
            PgSettings { port, ..PgSettings::new("/pg") },
        );
        server.join().unwrap();
    }
}
