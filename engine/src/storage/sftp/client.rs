//! Requests to one SFTP server over one connection, any number of them in flight.
//!
//! One task sends, and another receives and passes each response to whoever waits for it. So requests of all threads
//! share the connection, and none waits for another's answer. Servers process requests on the same file in order
//! (draft-ietf-secsh-filexfer-02, section 6.1), so writes, a sync and a close can be sent together.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use ::protocol::message::NoSpace;
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use super::protocol::{self, PACKET_SIZE_MAX_BYTES, Request, Response, SftpAttributes, kind, status};
use crate::storage::network;

/// Packets that may wait for the connection. A sender waits if there are more.
const PACKETS_WAITING_MAX: usize = 64;

const FSYNC: &str = "fsync@openssh.com";
const POSIX_RENAME: &str = "posix-rename@openssh.com";
const STATVFS: &str = "statvfs@openssh.com";

/// Why a request failed.
#[derive(Clone, Debug)]
pub(super) enum SftpFailure {
    /// The server refused it.
    Status {
        /// The protocol's number.
        code: u32,
        /// The server's words.
        message: String,
    },
    /// The connection is gone, or the answer did not arrive in time. The outcome of the request is unknown.
    Lost(String),
    /// The server broke the protocol.
    Protocol,
    /// There could be no connection, or none that may be used.
    Connect(Arc<crate::Error>),
}

impl SftpFailure {
    /// Returns whether a file or directory was missing.
    pub(super) fn is_missing(&self) -> bool {
        matches!(self, SftpFailure::Status { code: status::NO_SUCH_FILE | status::NO_SUCH_PATH, .. })
    }

    /// Returns what this says about the space of the server if a write failed with it. Servers of OpenSSH have no other
    /// status for a full disk than for anything else.
    pub(super) fn no_space(&self) -> Option<NoSpace> {
        match self {
            SftpFailure::Status { code: status::NO_SPACE | status::QUOTA_EXCEEDED, .. } => Some(NoSpace::Certain),
            SftpFailure::Status { code: status::FAILURE, .. } => Some(NoSpace::Possible),
            _ => None,
        }
    }

    /// Returns whether this may mean that the target already exists: most servers only say "failure" for it.
    pub(super) fn may_exist(&self) -> bool {
        matches!(self, SftpFailure::Status { code: status::FAILURE | status::FILE_ALREADY_EXISTS, .. })
    }
}

type Done<T> = std::result::Result<T, SftpFailure>;

/// The transport of a connection, kept as long as the connection is used.
pub(super) trait Transport: Send + Sync {
    /// Ends the connection at once. Data that was sent but has not left this host must not reach the server any more.
    fn cut(&self);
}

/// What the requests and the tasks of a connection share.
struct Line {
    lost: AtomicBool,
    /// The receivers of responses; `None` once the connection is gone.
    waiting: Mutex<Option<HashMap<u32, oneshot::Sender<Response>>>>,
    transport: Box<dyn Transport>,
    /// The sending and receiving tasks, once they run.
    tasks: OnceLock<[AbortHandle; 2]>,
}

impl Line {
    fn waiting(&self) -> MutexGuard<'_, Option<HashMap<u32, oneshot::Sender<Response>>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// Gives up the connection. Its requests may be repeated over another connection, so requests in flight must not
    /// arrive later: a write would reach the file of the second attempt.
    fn lose(&self) {
        if self.lost.swap(true, Ordering::Relaxed) {
            return;
        }
        self.transport.cut();
        // Dropping the senders notifies the receivers
        self.waiting().take();
        // Otherwise sending could wait forever for a dead connection, and others for it
        self.tasks.get().into_iter().flatten().for_each(AbortHandle::abort);
    }
}

/// A request that was sent.
pub(super) struct Pending {
    response: oneshot::Receiver<Response>,
    time_out: Duration,
    line: Arc<Line>,
}

impl Pending {
    /// Waits for the response.
    pub(super) async fn response(self) -> Done<Response> {
        match tokio::time::timeout(self.time_out, self.response).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(_)) => Err(SftpFailure::Lost("connection lost".into())),
            Err(_) => {
                // Whatever is wrong with this connection, the next request gets a new one
                self.line.lose();
                Err(SftpFailure::Lost(format!("no answer within {} seconds", self.time_out.as_secs())))
            }
        }
    }

    /// Waits for the request's success.
    pub(super) async fn done(self) -> Done<()> {
        match self.response().await? {
            Response::Status { code: status::OK, .. } | Response::Extended(_) => Ok(()),
            other => Err(unexpected(other)),
        }
    }
}

/// The failure that a response means where another was wanted.
pub(super) fn unexpected(response: Response) -> SftpFailure {
    match response {
        Response::Status { code, message } if code != status::OK => SftpFailure::Status { code, message },
        _ => SftpFailure::Protocol,
    }
}

/// A connection to a server.
pub(super) struct Client {
    outgoing: mpsc::Sender<Bytes>,
    line: Arc<Line>,
    id_next: AtomicU32,
    time_out: Duration,
    fsync: bool,
    posix_rename: bool,
    statvfs: bool,
}

impl Client {
    /// Starts the protocol on a stream over a transport.
    pub(super) async fn start<S>(stream: S, time_out: Duration, transport: Box<dyn Transport>) -> Done<Self>
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (mut receiver, mut sender) = tokio::io::split(stream);
        let hello = Bytes::copy_from_slice(&[0, 0, 0, 5, kind::INIT, 0, 0, 0, protocol::VERSION as u8]);
        let answer = async {
            sender.write_all(&hello).await.ok()?;
            sender.flush().await.ok()?;
            receive(&mut receiver).await
        };
        let packet = match tokio::time::timeout(time_out, answer).await {
            Ok(Some(packet)) => packet,
            Ok(None) => return Err(SftpFailure::Lost("the server does not speak SFTP".into())),
            Err(_) => return Err(SftpFailure::Lost(format!("no answer within {} seconds", time_out.as_secs()))),
        };
        let (version, extensions) = protocol::version(packet).map_err(|_| SftpFailure::Protocol)?;
        if version != protocol::VERSION {
            return Err(SftpFailure::Protocol);
        }
        let offered = |name: &str| extensions.iter().any(|extension| extension == name);
        let (outgoing, packets) = mpsc::channel(PACKETS_WAITING_MAX);
        let line = Arc::new(Line {
            lost: AtomicBool::new(false),
            waiting: Mutex::new(Some(HashMap::new())),
            transport,
            tasks: OnceLock::new(),
        });
        let tasks = [
            tokio::spawn(send_all(sender, packets)).abort_handle(),
            tokio::spawn(receive_all(receiver, Arc::clone(&line))).abort_handle(),
        ];
        let [sending, _] = line.tasks.get_or_init(|| tasks);
        if line.is_lost() {
            sending.abort();
        }
        Ok(Client {
            outgoing,
            line,
            id_next: AtomicU32::new(1),
            time_out,
            fsync: offered(FSYNC),
            posix_rename: offered(POSIX_RENAME),
            statvfs: offered(STATVFS),
        })
    }

    /// Returns whether the connection is gone.
    pub(super) fn is_lost(&self) -> bool {
        self.line.is_lost()
    }

    /// Returns whether the server can make files durable.
    pub(super) fn can_sync(&self) -> bool {
        self.fsync
    }

    /// Sends a request without waiting for the response.
    pub(super) async fn send(&self, request: Request) -> Done<Pending> {
        network::count_sftp_request();
        let id = self.id_next.fetch_add(1, Ordering::Relaxed);
        let (sender, response) = oneshot::channel();
        match &mut *self.line.waiting() {
            Some(waiting) => waiting.insert(id, sender),
            None => return Err(SftpFailure::Lost("connection lost".into())),
        };
        let pending = Pending { response, time_out: self.time_out, line: Arc::clone(&self.line) };
        match tokio::time::timeout(self.time_out, self.outgoing.send(request.packet(id))).await {
            Ok(Ok(())) => Ok(pending),
            Ok(Err(_)) => {
                // Sending ends slightly before receiving does; a retry in between must get a new connection
                self.line.lose();
                Err(SftpFailure::Lost("connection lost".into()))
            }
            Err(_) => {
                self.line.lose();
                Err(SftpFailure::Lost(format!("nothing could be sent for {} seconds", self.time_out.as_secs())))
            }
        }
    }

    async fn ask(&self, request: Request) -> Done<Response> {
        self.send(request).await?.response().await
    }

    async fn run(&self, request: Request) -> Done<()> {
        self.send(request).await?.done().await
    }

    /// Opens a file with flags of [`protocol::open`].
    pub(super) async fn open(&self, path: &str, flags: u32, mode: Option<u32>) -> Done<Bytes> {
        match self.ask(Request::new(kind::OPEN).bytes(path.as_bytes()).u32(flags).attributes(mode)).await? {
            Response::Handle(handle) => Ok(handle),
            other => Err(unexpected(other)),
        }
    }

    /// Opens a directory.
    pub(super) async fn open_directory(&self, path: &str) -> Done<Bytes> {
        match self.ask(Request::new(kind::OPENDIR).bytes(path.as_bytes())).await? {
            Response::Handle(handle) => Ok(handle),
            other => Err(unexpected(other)),
        }
    }

    /// Starts reading from a file.
    pub(super) async fn read(&self, handle: &[u8], offset: u64, size: u32) -> Done<Pending> {
        self.send(Request::new(kind::READ).bytes(handle).u64(offset).u32(size)).await
    }

    /// Starts writing to a file.
    pub(super) async fn write(&self, handle: &[u8], offset: u64, data: &[u8]) -> Done<Pending> {
        self.send(Request::new(kind::WRITE).bytes(handle).u64(offset).bytes(data)).await
    }

    /// Starts syncing a file. [`Client::can_sync`] must be true.
    pub(super) async fn sync(&self, handle: &[u8]) -> Done<Pending> {
        self.send(Request::extended(FSYNC).bytes(handle)).await
    }

    /// Starts closing a file or directory.
    pub(super) async fn close(&self, handle: &[u8]) -> Done<Pending> {
        self.send(Request::new(kind::CLOSE).bytes(handle)).await
    }

    /// Starts reading the next names of a directory.
    pub(super) async fn read_directory(&self, handle: &[u8]) -> Done<Pending> {
        self.send(Request::new(kind::READDIR).bytes(handle)).await
    }

    /// Attributes of a file, or of the link itself.
    pub(super) async fn attributes(&self, path: &str, follow_link: bool) -> Done<SftpAttributes> {
        let kind = if follow_link { kind::STAT } else { kind::LSTAT };
        match self.ask(Request::new(kind).bytes(path.as_bytes())).await? {
            Response::Attributes(attributes) => Ok(attributes),
            other => Err(unexpected(other)),
        }
    }

    /// Returns whether the file system of this path has no space left; `None` if the server can't tell.
    pub(super) async fn is_exhausted(&self, path: &str) -> Done<Option<bool>> {
        if !self.statvfs {
            return Ok(None);
        }
        match self.ask(Request::extended(STATVFS).bytes(path.as_bytes())).await? {
            Response::Extended(answer) => protocol::is_exhausted(answer).map(Some).map_err(|_| SftpFailure::Protocol),
            other => Err(unexpected(other)),
        }
    }

    /// Returns the destination of a link.
    pub(super) async fn link_destination(&self, path: &str) -> Done<Bytes> {
        match self.ask(Request::new(kind::READLINK).bytes(path.as_bytes())).await? {
            Response::Names(names) => names.into_iter().next().map(|(name, _)| name).ok_or(SftpFailure::Protocol),
            other => Err(unexpected(other)),
        }
    }

    /// Removes a file or link.
    pub(super) async fn remove(&self, path: &str) -> Done<()> {
        self.run(Request::new(kind::REMOVE).bytes(path.as_bytes())).await
    }

    /// Removes an empty directory.
    pub(super) async fn remove_directory(&self, path: &str) -> Done<()> {
        self.run(Request::new(kind::RMDIR).bytes(path.as_bytes())).await
    }

    /// Creates a directory whose parent exists.
    pub(super) async fn make_directory(&self, path: &str, mode: u32) -> Done<()> {
        self.run(Request::new(kind::MKDIR).bytes(path.as_bytes()).attributes(Some(mode))).await
    }

    /// Renames a file over another, atomically if the server supports it. Otherwise the other file is renamed to a
    /// third name and removed once the file is in place. For most servers "failure" means any error, so if the rename
    /// fails for another reason, the other file must still exist.
    pub(super) async fn replace(&self, from: &str, to: &str, aside: &str) -> Done<()> {
        if self.posix_rename {
            return self.run(Request::extended(POSIX_RENAME).bytes(from.as_bytes()).bytes(to.as_bytes())).await;
        }
        let failure = match self.rename(from, to).await {
            Err(failure) if failure.may_exist() => failure,
            done => return done,
        };
        match self.attributes(to, false).await {
            // A file does not replace a directory
            Ok(found) if found.is_directory() => return Err(failure),
            Ok(_) => {}
            // Nothing was in the way
            Err(missing) if missing.is_missing() => return Err(failure),
            Err(other) => return Err(other),
        }
        if self.rename(to, aside).await.is_err() {
            return Err(failure);
        }
        if let Err(failure) = self.rename(from, to).await {
            if matches!(failure, SftpFailure::Status { .. }) {
                self.rename(aside, to).await?;
            }
            return Err(failure);
        }
        match self.remove(aside).await {
            Err(other) if !other.is_missing() => Err(other),
            _ => Ok(()),
        }
    }

    async fn rename(&self, from: &str, to: &str) -> Done<()> {
        self.run(Request::new(kind::RENAME).bytes(from.as_bytes()).bytes(to.as_bytes())).await
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // It would keep the connection for as long as the server does. The sending task ends by itself
        self.line.tasks.get().into_iter().for_each(|[_, receiving]| receiving.abort());
    }
}

/// Reads one packet without its length; `None` at the end of the stream or for invalid data.
async fn receive(stream: &mut (impl AsyncRead + Unpin)) -> Option<Bytes> {
    let size = stream.read_u32().await.ok()? as usize;
    if size == 0 || size > PACKET_SIZE_MAX_BYTES {
        return None;
    }
    let mut packet = vec![0; size];
    stream.read_exact(&mut packet).await.ok()?;
    Some(packet.into())
}

/// Passes responses to their receivers until the connection ends, then notifies the remaining ones.
async fn receive_all(mut stream: impl AsyncRead + Unpin, line: Arc<Line>) {
    while let Some(packet) = receive(&mut stream).await {
        let Ok((id, response)) = protocol::response(packet) else { break };
        let sender = match &mut *line.waiting() {
            Some(waiting) => waiting.remove(&id),
            None => break,
        };
        // A receiver that gave up wants no answer
        if let Some(sender) = sender {
            let _ = sender.send(response);
        }
    }
    line.lose();
}

/// Sends packets until there are no more senders or the connection is gone.
async fn send_all(mut stream: impl AsyncWrite + Unpin, mut packets: mpsc::Receiver<Bytes>) {
    while let Some(packet) = packets.recv().await {
        if stream.write_all(&packet).await.is_err() || packets.is_empty() && stream.flush().await.is_err() {
            break;
        }
    }
}
