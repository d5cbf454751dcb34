//! Connections within a test: the server is a thread.

use std::io::{BufReader, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use protocol::greeting::{self, Service};
use protocol::message::{ErrorAnswer, RequestMessage};
use protocol::options::OptionValue;
use protocol::pack::read_message;
use protocol::storage::{FeaturesAnswer, StorageFeatures};
use protocol::{AnswerMessage, Call, Capabilities, Dialect, PackWriter};

use super::link::{Link, Opened};
use super::{Connection, RemoteSettings, SshSettings, Way};
use crate::serve::{Served, ServedOptions, ServedStorage, Server};
use crate::{CancelToken, Error, ErrorCode, Result};

struct SocketLink(UnixStream);

impl Link for SocketLink {
    fn read_name(&self) -> String {
        "test".to_owned()
    }

    fn ended(&mut self, _: Duration) -> Error {
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
    let (near, far) = UnixStream::pair().unwrap();
    std::thread::spawn(move || server(far));
    let way = Way::Ssh(SshSettings { program: String::new(), arguments: Vec::new() });
    let host = "far".to_owned();
    let settings = RemoteSettings {
        host,
        process: 1,
        way,
        timeout,
        key: 1,
        asks_passphrase: false,
        target_time: None,
        network_level: None,
    };
    let (input, output) = (near.try_clone().unwrap(), near.try_clone().unwrap());
    let opened = Opened { link: Box::new(SocketLink(near)), input: Box::new(input), output: Box::new(output) };
    Connection::over(&settings, "ssh", opened)
}

struct NoOptions;

impl ServedOptions for NoOptions {
    fn value(&self, _: &str) -> Result<OptionValue> {
        Ok(OptionValue::Null)
    }
}

/// Serves a data directory, as rbr does.
pub(crate) fn serve_data(stream: UnixStream, path: &Path) -> Result<()> {
    let storage = ServedStorage::DataDirectory(path.to_owned());
    let served = Served::new(storage, Box::new(NoOptions), CancelToken::new());
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
        assert_eq!(self.read(), Some(Call::Offer(Capabilities::own())));
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
        let answer = AnswerMessage::encode_error(session, &ErrorAnswer::from(error));
        answer.write_to(&mut self.output).unwrap();
    }
}
