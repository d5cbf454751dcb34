//! Object stores with old versions, as of times that a test chooses. Emulators of Azure keep no versions, and emulators
//! of GCS list them in another order than Google documents.
//!
//! The stores are read-only: they take the versions from a folder whenever the test says so. Listings come in small
//! pages. No authentication is required.

mod azure;
mod gcs;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use percent_encoding::percent_decode_str;

use super::network::certificates;
use super::proxy::http::{Head, Wire};
use super::proxy::{Proxy, ProxyOptions};
use super::space::Space;

/// Entries per page, small in order to have many pages.
const PAGE_SIZE: usize = 7;

/// The emulated service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    Azure,
    Gcs,
}

/// One state of an object.
struct Version {
    /// Seconds since the epoch.
    time: i64,
    /// The version's name. Later versions have greater numbers.
    number: usize,
    /// `None` if the object was deleted.
    content: Option<Arc<Vec<u8>>>,
}

/// All versions of all objects, oldest first.
type Objects = BTreeMap<String, Vec<Version>>;

/// A running server.
pub struct History {
    /// The proxy that clients connect to, with TLS.
    pub proxy: Proxy,
    service: Service,
    space: Space,
    shared: Arc<Shared>,
    address: SocketAddr,
    accepting: Option<JoinHandle<()>>,
}

struct Shared {
    service: Service,
    objects: Mutex<Objects>,
    stopping: AtomicBool,
}

impl History {
    /// Starts an empty server.
    pub fn start(service: Service) -> Self {
        let space = Space::new();
        certificates(&space);
        let listener = TcpListener::bind("127.0.0.1:0").expect("port of the server");
        let address = listener.local_addr().expect("address of the server");
        let proxy = Proxy::start(ProxyOptions {
            target: format!("http://{address}"),
            certificate: Some((space.path("tls/s.crt"), space.path("tls/s.key"))),
            ..ProxyOptions::default()
        });
        let shared = Arc::new(Shared { service, objects: Mutex::default(), stopping: AtomicBool::new(false) });
        let accepting = {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || shared.accept(&listener))
        };
        Self { proxy, service, space, shared, address, accepting: Some(accepting) }
    }

    /// Records what changed in a folder since the last call as written, or deleted, at this time.
    pub fn record(&self, folder: &Path, time: i64) {
        let mut objects = self.shared.objects.lock().unwrap_or_else(PoisonError::into_inner);
        let mut number: usize = objects.values().map(Vec::len).sum();
        let mut found = BTreeSet::new();
        for file in files_below(folder) {
            let name = format!("demo/{}", file.strip_prefix(folder).expect("below it").display());
            let content = fs::read(&file).expect("file of the repository");
            let versions = objects.entry(name.clone()).or_default();
            let last = versions.last().and_then(|version| version.content.as_deref());
            if last != Some(&content) {
                number += 1;
                versions.push(Version { time, number, content: Some(Arc::new(content)) });
            }
            found.insert(name);
        }
        for (name, versions) in objects.iter_mut() {
            if !found.contains(name) && versions.last().is_some_and(|version| version.content.is_some()) {
                number += 1;
                versions.push(Version { time, number, content: None });
            }
        }
    }

    /// The server without TLS, for another proxy.
    pub fn http(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A file of the server's folder, as `tls/ca.crt`.
    pub fn file(&self, name: &str) -> PathBuf {
        self.space.path(name)
    }

    /// Returns the configuration lines for a repository on this server.
    pub fn options(&self) -> Vec<String> {
        let port = self.proxy.port();
        let mut lines = match self.service {
            Service::Azure => azure::options(port),
            Service::Gcs => gcs::options(port),
        };
        lines.extend([
            "repo1-path=/demo".to_owned(),
            format!("repo1-storage-ca-file={}", self.space.text("tls/ca.crt")),
        ]);
        lines
    }
}

/// The regular files in a folder and all below it.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("folder of the repository") {
        let entry = entry.expect("entry of the repository");
        let kind = entry.file_type().expect("its kind");
        if kind.is_dir() {
            found.extend(files_below(&entry.path()));
        } else if kind.is_file() {
            found.push(entry.path());
        }
    }
    found
}

impl Drop for History {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        // Wakes the accepting thread
        let _ = TcpStream::connect(self.address);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

impl Shared {
    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        while let Ok((socket, _)) = listener.accept() {
            if self.stopping.load(Ordering::SeqCst) {
                return;
            }
            let shared = Arc::clone(self);
            // Ends with the connection, which is the proxy's
            std::thread::spawn(move || shared.serve(socket));
        }
    }

    fn serve(&self, socket: TcpStream) -> io::Result<()> {
        socket.set_nodelay(true)?;
        let mut wire: Wire = BufReader::new(Box::new(socket));
        while let Some(head) = Head::read(&mut wire)? {
            let request = Request::read(&head);
            let answer = match self.service {
                Service::Azure => azure::answer(self, &request),
                Service::Gcs => gcs::answer(self, &request),
            };
            answer.write(wire.get_mut(), request.method == "HEAD")?;
        }
        Ok(())
    }

    /// Returns the requested version of an object, or the current one.
    fn find(&self, name: &str, number: Option<&str>) -> Option<Found> {
        let objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        let versions = objects.get(name)?;
        let version = match number {
            None => versions.last()?,
            Some(number) => versions.iter().find(|version| version.number.to_string() == number)?,
        };
        Some(Found { time: version.time, number: version.number, content: Arc::clone(version.content.as_ref()?) })
    }

    /// Returns a page of the entries directly below the prefix of a request. A token is a number of entries.
    fn page(&self, request: &Request, with_versions: bool, token: &str) -> Page {
        let prefix = request.parameter("prefix").unwrap_or_default();
        let by_folder = request.parameter("delimiter").is_some();
        let objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        let mut entries: Vec<Entry> = Vec::new();
        for (name, versions) in objects.iter().filter(|(name, _)| name.starts_with(prefix)) {
            if let Some((folder, _)) = name[prefix.len()..].split_once('/').filter(|_| by_folder) {
                let folder = Entry::Folder(format!("{prefix}{folder}/"));
                if entries.last() != Some(&folder) {
                    entries.push(folder);
                }
                continue;
            }
            for (at, version) in versions.iter().enumerate() {
                let is_current = at + 1 == versions.len();
                if let Some(content) = version.content.as_ref().filter(|_| with_versions || is_current) {
                    let (name, size) = (name.clone(), content.len());
                    entries.push(Entry::Object { name, size, time: version.time, number: version.number, is_current });
                }
            }
        }
        let begin = request.parameter(token).map_or(0, |token| token.parse().expect("token of ours"));
        let next = (begin + PAGE_SIZE < entries.len()).then(|| (begin + PAGE_SIZE).to_string());
        Page { entries: entries.into_iter().skip(begin).take(PAGE_SIZE).collect(), next }
    }
}

/// What to send of an object.
struct Found {
    time: i64,
    /// The number of the version.
    number: usize,
    content: Arc<Vec<u8>>,
}

#[derive(Debug, PartialEq, Eq)]
enum Entry {
    Folder(String),
    Object { name: String, size: usize, time: i64, number: usize, is_current: bool },
}

struct Page {
    entries: Vec<Entry>,
    next: Option<String>,
}

/// A request of a client.
struct Request {
    method: String,
    path: String,
    query: BTreeMap<String, String>,
    range: Option<(usize, Option<usize>)>,
}

impl Request {
    fn read(head: &Head) -> Self {
        let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let mut words = head.line.split(' ');
        let method = words.next().unwrap_or_default().to_owned();
        let target = words.next().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let query = pairs.map(|(key, value)| (decode(key), decode(value))).collect();
        let range = head.header("range").and_then(|range| {
            let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
            Some((first.parse().ok()?, last.parse().ok()))
        });
        Self { method, path: decode(path), query, range }
    }

    fn parameter(&self, name: &str) -> Option<&str> {
        self.query.get(name).map(String::as_str)
    }
}

struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Answer {
    fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into() }
    }

    /// Responds with the content of an object, or the requested part of it.
    fn content(request: &Request, found: &Found) -> Self {
        let size = found.content.len();
        let Some((first, last)) = request.range else { return Self::new(200, found.content.to_vec()) };
        if first >= size {
            return Self::new(416, "no such range");
        }
        let end = last.map_or(size, |last| size.min(last + 1));
        let mut answer = Self::new(206, &found.content[first..end]);
        answer.headers.push(("content-range", format!("bytes {first}-{}/{size}", end - 1)));
        answer
    }

    fn write(&self, to: &mut dyn Write, head_only: bool) -> io::Result<()> {
        let headers: String = self.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let size = self.body.len();
        write!(to, "HTTP/1.1 {} Status\r\n{headers}content-length: {size}\r\n\r\n", self.status)?;
        if !head_only {
            to.write_all(&self.body)?;
        }
        to.flush()
    }
}
