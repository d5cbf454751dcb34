//! Cancels a query, and waits until the server has done so.
//!
//! The server sends two signals for a request to cancel, one to the process and one to its group, and then closes the
//! connection of the request (PostgreSQL `src/backend/postmaster`, `processCancelRequest`). On a busy host the first one
//! may end the query long before the second one is sent, which would cancel the next query. So the client waits for the
//! end of that connection, as libpq's `PQcancel` does. `tokio-postgres` does not.

use std::io;
use std::path::{Path, PathBuf};

use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio_postgres::{Client, NoTls};

use super::tls::PgConnector;

/// A query that takes the second signal where the server is reached through a network, and so which of several addresses
/// the session has is not known.
const SECOND_SIGNAL_QUERY: &str = "select pg_catalog.pg_sleep(0.05)";

/// How a session is cancelled.
pub(super) enum Canceller {
    /// Through this socket.
    Socket(PathBuf),
    /// Through a network, with this encryption.
    Network(PgConnector),
}

impl Canceller {
    /// For a session through a socket in this directory.
    pub(super) fn of_socket(directory: &Path, port: u16) -> Self {
        Canceller::Socket(directory.join(format!(".s.PGSQL.{port}")))
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
                // The server sends nothing. However it ends the connection, it has dealt with the request
                let _ = stream.read(&mut [0]).await;
                Ok(())
            }
            Canceller::Network(tls) => token.cancel_query(tls.clone()).await.map_err(io::Error::other),
        }
    }

    /// Makes sure that the session is not cancelled any more, once the query has ended.
    pub(super) async fn settle(&self, client: &Client) {
        if let Canceller::Network(_) = self {
            let _ = client.simple_query(SECOND_SIGNAL_QUERY).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read, Write};
    use std::os::unix::net::UnixListener;
    use std::time::Duration;

    use crate::CancelToken;
    use crate::pg::PgSettings;
    use crate::pg::client::PgClient;

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
    fn serve(listener: &UnixListener) {
        let mut session = listener.accept().unwrap().0;
        let mut size = [0; 4];
        session.read_exact(&mut size).unwrap();
        session.read_exact(&mut vec![0; u32::from_be_bytes(size) as usize - 4]).unwrap();
        let mut answer = Vec::new();
        message(&mut answer, b'R', &[0; 4]);
        message(&mut answer, b'K', &[1; 8]);
        message(&mut answer, b'Z', b"I");
        session.write_all(&answer).unwrap();
        assert_eq!(read_query(&mut session).unwrap(), b"too slow\0");
        let mut request = listener.accept().unwrap().0;
        request.read_exact(&mut [0; 16]).unwrap();
        answer.clear();
        message(&mut answer, b'E', b"SERROR\0C57014\0Mcanceled\0\0");
        message(&mut answer, b'Z', b"I");
        session.write_all(&answer).unwrap();
        session.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let early = read_query(&mut session).expect_err("a query that the second signal would cancel");
        assert_eq!(early.kind(), ErrorKind::WouldBlock);
        drop(request);
        session.set_read_timeout(None).unwrap();
        assert_eq!(read_query(&mut session).unwrap(), b"next\0");
        answer.clear();
        message(&mut answer, b'I', b"");
        message(&mut answer, b'Z', b"I");
        session.write_all(&answer).unwrap();
    }

    #[test]
    fn query_after_a_cancelled_one_waits_for_the_second_signal() {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join(".s.PGSQL.5432")).unwrap();
        let server = std::thread::spawn(move || serve(&listener));
        let settings = PgSettings {
            socket_path: Some(dir.path().to_owned()),
            user: Some("tester".to_owned()),
            db_timeout: Duration::from_millis(500),
            ..PgSettings::new("/pg")
        };
        let mut client = PgClient::connect(&settings, &CancelToken::new()).unwrap();
        let error = client.rows("too slow").unwrap_err();
        assert!(error.message.contains("timed out"), "{error}");
        assert!(client.rows("next").unwrap().is_empty());
        server.join().unwrap();
    }
}
