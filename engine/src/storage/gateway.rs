//! A server in place of an object store. It is correct, or plays one of the tricks of gateways, portals and proxies.
//! Every HTTP driver has to detect them.

mod certificates;
mod stores;
mod tests;
mod uploads;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use self::certificates::ServerKeys;

/// A request as the server sees it.
pub(crate) struct Asked {
    pub(crate) method: String,
    /// Decoded.
    pub(crate) path: String,
    /// As it was sent.
    pub(crate) query: String,
    /// The headers, with names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// A parameter of the query, decoded.
    pub(crate) fn parameter(&self, name: &str) -> Option<String> {
        let value = self.query.split('&').find_map(|pair| {
            let (found, value) = pair.split_once('=').unwrap_or((pair, ""));
            (found == name).then_some(value)
        })?;
        Some(percent_encoding::percent_decode_str(value).decode_utf8_lossy().into_owned())
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
    /// This many bytes of the body are announced but never sent.
    pub(crate) missing: usize,
}

impl Reply {
    pub(crate) fn new(status: u16, headers: &[(&'static str, &str)], body: impl Into<Vec<u8>>) -> Self {
        let headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        Reply { status, headers, body: body.into(), missing: 0 }
    }

    fn write(&self, connection: &mut impl Write, head_only: bool) -> std::io::Result<()> {
        let mut head = format!("HTTP/1.1 {} X\r\nconnection: close\r\n", self.status);
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        if !self.headers.iter().any(|(name, _)| *name == "content-length") {
            head += &format!("content-length: {}\r\n", self.body.len() + self.missing);
        }
        connection.write_all(format!("{head}\r\n").as_bytes())?;
        if head_only { Ok(()) } else { connection.write_all(&self.body) }
    }
}

/// A running server. It ends with the tests' process.
pub(crate) struct Gateway {
    pub(crate) url: String,
    lines: Arc<Mutex<Vec<String>>>,
    connections: Arc<AtomicUsize>,
}

impl Gateway {
    /// Starts a server with these answers.
    pub(crate) fn start(answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_with(None, answer)
    }

    /// Starts a server that speaks TLS.
    fn start_tls(identity: ServerKeys, answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_with(Some(identity), answer)
    }

    fn start_with(identity: Option<ServerKeys>, answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let scheme = if identity.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}", listener.local_addr().unwrap());
        let (lines, answer) = (Arc::new(Mutex::new(Vec::new())), Arc::new(answer));
        let connections = Arc::new(AtomicUsize::new(0));
        let (kept, counted) = (Arc::clone(&lines), Arc::clone(&connections));
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                counted.fetch_add(1, Ordering::Relaxed);
                let (answer, kept) = (Arc::clone(&answer), Arc::clone(&kept));
                let connection = connection.unwrap();
                std::thread::spawn(move || match identity {
                    Some(identity) => serve(identity.accept(connection), &*answer, &kept),
                    None => serve(connection, &*answer, &kept),
                });
            }
        });
        Gateway { url, lines, connections }
    }

    /// Returns the number of connections since the last call.
    fn take_connections(&self) -> usize {
        self.connections.swap(0, Ordering::Relaxed)
    }

    /// Returns methods and paths of the requests since the last call.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.lines.lock().unwrap())
    }
}

fn serve(connection: impl Read + Write, answer: &dyn Fn(&Asked) -> Reply, lines: &Mutex<Vec<String>>) {
    let mut reader = BufReader::new(connection);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        // A client that disconnects ends only its connection
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        if line.trim().is_empty() {
            break;
        }
        head.push(line.trim().to_owned());
    }
    let first = head.remove(0);
    let mut words = first.split(' ');
    let (method, target) = (words.next().unwrap().to_owned(), words.next().unwrap());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let headers: Vec<(String, String)> = head
        .iter()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
        .collect();
    let path = percent_encoding::percent_decode_str(path).decode_utf8_lossy().into_owned();
    let mut asked = Asked { method, path, query: query.to_owned(), headers, body: Vec::new() };
    let size = asked.header("content-length").map_or(0, |size| size.parse().unwrap());
    asked.body.resize(size, 0);
    if reader.read_exact(&mut asked.body).is_err() {
        return;
    }
    lines.lock().unwrap().push(format!("{} {}", asked.method, asked.path));
    let _ = answer(&asked).write(reader.get_mut(), asked.method == "HEAD");
}
