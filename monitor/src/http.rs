//! The server of metrics, the status page and the API.
//!
//! It serves files that the collector writes, under fixed paths, so no request decides what is read. Everything runs in
//! one thread, which sleeps while nobody asks.

mod access;
mod answer;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use engine::system_text;
use engine::{Error, ErrorCode, Result};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::{Semaphore, oneshot};
use tokio_rustls::TlsAcceptor;

pub use access::{Access, check_protected};
pub use answer::AGE;

/// How many connections are served at once. Others wait.
const CONNECTIONS_MAX: usize = 32;
/// The largest request line and headers together, in bytes.
const HEAD_MAX: usize = 16 << 10;
/// The largest number of headers.
const HEADERS_MAX: usize = 64;
/// How long a client may take for the negotiation of TLS, or to send its request.
const HEAD_TIME_MAX: Duration = Duration::from_secs(10);
/// How long a connection may last.
const CONNECTION_MAX: Duration = Duration::from_secs(60);
/// The pause after the system could not accept a connection, as without free file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);
/// The stack of the server's thread.
const STACK: usize = 512 << 10;

/// What is served, and to whom.
#[derive(Clone)]
pub struct Rules {
    /// Who may ask.
    pub access: Access,
    /// The directory of the collector's files.
    pub directory: PathBuf,
    /// From which age on the files show that the collector does not work.
    pub age_max: Duration,
}

/// A server that is running. Dropping it ends it.
pub struct Server {
    address: SocketAddr,
    rules: Arc<RwLock<Arc<Rules>>>,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Returns the address of a text such as `127.0.0.1:9855`. Names are not looked up, except `localhost`: that may take long,
/// and give another address later.
///
/// # Errors
/// [`ErrorCode::OptionInvalidValue`] if it is no address.
pub fn address(text: &str) -> Result<SocketAddr> {
    let numeric = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    numeric.as_deref().unwrap_or(text).parse().map_err(|_| {
        Error::new(ErrorCode::OptionInvalidValue, format!("'{text}' is not valid for 'monitor-address' option"))
            .hint("an address and a port, such as 127.0.0.1:9855, [::1]:9855 or 0.0.0.0:9855, or 'off'.")
    })
}

impl Server {
    /// Starts to listen. No other thread waits for it.
    ///
    /// # Errors
    /// [`ErrorCode::HostConnect`] if the address can't be used, [`ErrorCode::Kernel`] without a thread.
    pub fn start(address: SocketAddr, rules: Rules) -> Result<Self> {
        let failed =
            |error: io::Error| Error::from_io(ErrorCode::HostConnect, format!("unable to listen on {address}"), error);
        let listener = TcpListener::bind(address).map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let rules = Arc::new(RwLock::new(Arc::new(rules)));
        let (end, ended) = oneshot::channel();
        let shared = Arc::clone(&rules);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let serve = move || {
            let served = runtime.block_on(serve_all(listener, shared, ended));
            if let Err(error) = served {
                engine::warn!("the server of metrics and the status page has ended: {}", system_text(&error));
            }
        };
        let thread = std::thread::Builder::new()
            .name("http".to_owned())
            .stack_size(STACK)
            .spawn(serve)
            .map_err(|error| Error::from_io(ErrorCode::Kernel, "unable to start a thread", error))?;
        Ok(Server { address: bound, rules, end: Some(end), thread: Some(thread) })
    }

    /// The address on which it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves new connections by other rules.
    pub fn set_rules(&self, rules: Rules) {
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Connections end with the runtime
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

type SharedRules = Arc<RwLock<Arc<Rules>>>;

/// Serves until the other end of `ended` is dropped.
async fn serve_all(listener: TcpListener, rules: SharedRules, ended: oneshot::Receiver<()>) -> io::Result<()> {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let listener = tokio::net::TcpListener::from_std(listener)?;
    tokio::spawn(accept(listener, rules, places));
    let _ = ended.await;
    Ok(())
}

async fn accept(listener: tokio::net::TcpListener, rules: SharedRules, places: Arc<Semaphore>) {
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(_) => {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let rules = Arc::clone(&rules.read().unwrap_or_else(PoisonError::into_inner));
        tokio::spawn(async move {
            let _place = place;
            // A client that fails or goes away is no concern of ours
            let _ = tokio::time::timeout(CONNECTION_MAX, serve(stream, rules)).await;
        });
    }
}

async fn serve(stream: tokio::net::TcpStream, rules: Arc<Rules>) {
    match rules.access.tls() {
        None => connection(TokioIo::new(stream), rules).await,
        Some(config) => {
            let acceptor = TlsAcceptor::from(Arc::clone(config));
            if let Ok(Ok(stream)) = tokio::time::timeout(HEAD_TIME_MAX, acceptor.accept(stream)).await {
                connection(TokioIo::new(stream), rules).await;
            }
        }
    }
}

async fn connection(stream: impl hyper::rt::Read + hyper::rt::Write + Unpin, rules: Arc<Rules>) {
    let answer = service_fn(move |request| {
        let answer = answer::answer(&request, &rules);
        async move { Ok::<_, std::convert::Infallible>(answer) }
    });
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME_MAX)
        .max_buf_size(HEAD_MAX)
        .max_headers(HEADERS_MAX)
        .keep_alive(false)
        .serve_connection(stream, answer)
        .await;
}

#[cfg(test)]
mod tests;
