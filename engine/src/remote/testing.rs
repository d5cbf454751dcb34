//! Connections within a test: the server is a thread.

use std::io::{self, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use protocol::greeting::{self, Service};
use protocol::message::{ErrorAnswer, RequestMessage};
use protocol::options::OptionValue;
use protocol::pack::read_message;
use protocol::storage::{FeaturesAnswer, StorageFeatures};
use protocol::{AnswerMessage, Call, Capabilities, Capability, Dialect, Offer, PackWriter};

use super::connection::Beginning;
use super::link::{Link, Opened};
use super::{Connection, RemoteSettings, SshSettings, Way};
use crate::serve::{RepositoryKind, ServeMore, Served, ServedOptions, ServedRepository, ServedStorage, Server};
use crate::storage::posix::PosixSettings;
use crate::tcp::KeepAlive;
use crate::tls::ClientSettings;
use crate::{CancelToken, Error, ErrorCode, Result};

struct SocketLink(UnixStream);

impl Link for SocketLink {
    fn read_name(&self) -> String {
        "test".to_owned()
    }

    fn ended(&mut self, _: Duration, _: bool) -> Error {
        Error::new(ErrorCode::Format, "unexpected EOF from test")
    }

    fn finish(&mut self, _: Duration) {
        // The server may have ended before
        let _ = self.0.shutdown(Shutdown::Write);
    }

    fn kill(&mut self) {
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

/// Connects to a server that runs on a thread.
pub(crate) fn connect(server: impl FnOnce(UnixStream) + Send + 'static) -> Result<Arc<Connection>> {
    connect_within(Duration::from_secs(60), server)
}

/// The same with a time limit of the protocol.
pub(crate) fn connect_within(
    timeout: Duration,
    server: impl FnOnce(UnixStream) + Send + 'static,
) -> Result<Arc<Connection>> {
    connect_offering(Capabilities::own().without(Capability::Channels), timeout, server)
}

/// Connects to a server that runs on a thread, and offers channels.
pub(crate) fn connect_with_channels(server: impl FnOnce(UnixStream) + Send + 'static) -> Result<Arc<Connection>> {
    connect_offering(Capabilities::own(), Duration::from_secs(60), server)
}

/// Connects to a server that runs on a thread, and waits after each write, a while for the end of what it sends.
pub(crate) fn connect_slowly(server: impl FnOnce(UnixStream) + Send + 'static) -> Result<Arc<Connection>> {
    let (near, far) = UnixStream::pair().unwrap();
    std::thread::spawn(move || server(far));
    let (sender, ended) = channel();
    let input = Box::new(WatchedInput(near.try_clone().unwrap(), sender));
    let output = Box::new(SlowOutput(near.try_clone().unwrap(), ended));
    let opened = Opened { link: Box::new(SocketLink(near)), input, output };
    let offered = Capabilities::own().without(Capability::Channels);
    Connection::over(&thread_settings(), Beginning { kind: "ssh", offered, ..Beginning::default() }, opened)
}

/// Tells that it has come to its end.
struct WatchedInput(UnixStream, Sender<()>);

impl Read for WatchedInput {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.0.read(buffer)?;
        if read == 0 {
            let _ = self.1.send(());
        }
        Ok(read)
    }
}

/// Waits after each write until the input was at its end for some time.
struct SlowOutput(UnixStream, Receiver<()>);

impl Write for SlowOutput {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.0.write(buffer)?;
        if self.1.recv_timeout(Duration::from_millis(500)).is_ok() {
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The settings of a server that is reached by TLS, with a time limit of connecting.
pub(crate) fn tls_settings(connect_timeout: Duration) -> RemoteSettings {
    let client = ClientSettings {
        host: "far".to_owned(),
        port: 8432,
        ca_file: None,
        ca_path: None,
        certificate: "/client.crt".into(),
        key: "/client.key".into(),
        ciphers_12: None,
        ciphers_13: None,
        connect_timeout,
        keep_alive: KeepAlive::default(),
    };
    RemoteSettings { way: Way::Tls { client: Box::new(client), arguments: Vec::new() }, ..thread_settings() }
}

/// The settings of the server on the thread.
pub(crate) fn thread_settings() -> RemoteSettings {
    let way = Way::Ssh(SshSettings { program: String::new(), arguments: Vec::new() });
    let (host, timeout) = ("far".to_owned(), Duration::from_secs(60));
    RemoteSettings {
        host,
        process: 1,
        way,
        timeout,
        key: 1,
        asks_passphrase: false,
        target_time: None,
        network_level: None,
        cancel: CancelToken::new(),
    }
}

fn connect_offering(
    offered: Capabilities,
    timeout: Duration,
    server: impl FnOnce(UnixStream) + Send + 'static,
) -> Result<Arc<Connection>> {
    let (near, far) = UnixStream::pair().unwrap();
    std::thread::spawn(move || server(far));
    let settings = RemoteSettings { timeout, ..thread_settings() };
    let (input, output) = (near.try_clone().unwrap(), near.try_clone().unwrap());
    let opened = Opened { link: Box::new(SocketLink(near)), input: Box::new(input), output: Box::new(output) };
    Connection::over(&settings, Beginning { kind: "ssh", offered, ..Beginning::default() }, opened)
}

/// What a client offers with [`connect`].
pub(crate) fn offer_without_channels() -> Call<'static> {
    Call::Offer(Offer { capabilities: Capabilities::own().without(Capability::Channels), following: 0 })
}

struct NoOptions;

impl ServedOptions for NoOptions {
    fn value(&self, _: &str) -> Result<OptionValue> {
        Ok(OptionValue::Null)
    }
}

fn served_data(path: &Path, cancel: &CancelToken) -> Served {
    Served::new(ServedStorage::DataDirectory(path.to_owned()), Box::new(NoOptions), cancel.clone())
}

/// Serves a data directory, as rbr does.
pub(crate) fn serve_data(stream: UnixStream, path: &Path) -> Result<()> {
    serve_data_watched(stream, path, |_| {})
}

/// Serves a data directory. `begin` is told of each further connection, before that is served.
pub(crate) fn serve_data_watched(
    stream: UnixStream,
    path: &Path,
    begin: impl Fn(&CancelToken) + Send + Sync + 'static,
) -> Result<()> {
    serve_data_over((stream.try_clone().unwrap(), stream), path, begin)
}

/// Does the same over a pair of streams.
pub(crate) fn serve_data_over(
    streams: (impl Read, impl Write + Send),
    path: &Path,
    begin: impl Fn(&CancelToken) + Send + Sync + 'static,
) -> Result<()> {
    let mut served = served_data(path, &CancelToken::new());
    let path = path.to_owned();
    let serve = Box::new(move |cancel: &CancelToken| {
        begin(cancel);
        Ok(served_data(&path, cancel))
    });
    served.more = Some(ServeMore { serve, silence_max: Duration::from_secs(60) });
    Server::greet(streams.0, streams.1)?.serve(served)
}

fn served_repository(path: &Path, cancel: &CancelToken) -> Served {
    let storage = Box::new(PosixSettings { path: path.to_owned(), symlinks: true });
    let (kind, path) = (RepositoryKind::Posix, path.to_str().unwrap().to_owned());
    let repository = ServedRepository { storage, path, kind, stanza: None };
    Served::new(ServedStorage::Repository(repository), Box::new(NoOptions), cancel.clone())
}

/// Serves a repository.
pub(crate) fn serve_repository(stream: UnixStream, path: &Path) -> Result<()> {
    let mut served = served_repository(path, &CancelToken::new());
    let path = path.to_owned();
    let serve = Box::new(move |cancel: &CancelToken| Ok(served_repository(&path, cancel)));
    served.more = Some(ServeMore { serve, silence_max: Duration::from_secs(60) });
    Server::greet(stream.try_clone().unwrap(), stream)?.serve(served)
}

/// A server that answers as the test says.
pub(crate) struct Script {
    input: BufReader<UnixStream>,
    output: UnixStream,
    message: Vec<u8>,
}

impl Script {
    /// Greets.
    pub(crate) fn new(stream: UnixStream) -> Self {
        let mut script = Self::silent(stream);
        script.greet();
        script
    }

    /// Does not greet yet.
    pub(crate) fn silent(stream: UnixStream) -> Self {
        let output = stream.try_clone().unwrap();
        Script { input: BufReader::new(stream), output, message: Vec::new() }
    }

    /// Greets.
    pub(crate) fn greet(&mut self) {
        self.output.write_all(greeting::encode(Service::Remote, Dialect::NEWEST).as_bytes()).unwrap();
    }

    /// Reads the first requests and answers them, with these capabilities.
    pub(crate) fn begin(&mut self, capabilities: Option<PackWriter<'_>>) {
        self.begin_as(capabilities, StorageFeatures::PATH);
    }

    /// The same as a storage with these features.
    pub(crate) fn begin_as(&mut self, capabilities: Option<PackWriter<'_>>, features: StorageFeatures) {
        assert!(matches!(self.read(), Some(Call::Offer(_))));
        self.answer(capabilities);
        assert_eq!(self.read(), Some(Call::Features));
        self.answer(Some(FeaturesAnswer { path: "/", features }.encode()));
    }

    /// Reads the next request; `None` at the end.
    pub(crate) fn read(&mut self) -> Option<Call<'_>> {
        read_message(&mut self.input, &mut self.message, 64 << 20).ok()?;
        Some(Call::decode(&RequestMessage::decode(&self.message).unwrap(), Dialect::NEWEST).unwrap())
    }

    /// The number of the last request.
    pub(crate) fn session(&self) -> u64 {
        RequestMessage::decode(&self.message).unwrap().session
    }

    /// Answers the last request.
    pub(crate) fn answer(&mut self, data: Option<PackWriter<'_>>) {
        self.answer_as(self.session(), data);
    }

    /// Answers a request with this number.
    pub(crate) fn answer_as(&mut self, session: u64, data: Option<PackWriter<'_>>) {
        AnswerMessage::encode(session, false, data).write_to(&mut self.output).unwrap();
    }

    /// Answers the last request and closes its session.
    pub(crate) fn close(&mut self, data: Option<PackWriter<'_>>) {
        AnswerMessage::encode(self.session(), true, data).write_to(&mut self.output).unwrap();
    }

    /// Answers the last request with an error.
    pub(crate) fn refuse(&mut self, error: &Error) {
        self.send_error(Some(self.session()), error);
    }

    /// Sends an error that answers no request.
    pub(crate) fn give_up(&mut self, error: &Error) {
        self.send_error(None, error);
    }

    fn send_error(&mut self, session: Option<u64>, error: &Error) {
        self.refuse_as(session, &ErrorAnswer::from(error));
    }

    /// Sends an error as it is.
    pub(crate) fn refuse_as(&mut self, session: Option<u64>, error: &ErrorAnswer<'_>) {
        AnswerMessage::encode_error(session, error).write_to(&mut self.output).unwrap();
    }
}
