use ::protocol::message::NoSpace;
use futures_util::{StreamExt, stream};

use super::*;
use crate::storage::PATH_SIZE_MAX_BYTES;
use crate::storage::full::no_space;

fn path(text: &str) -> RepoPath {
    RepoPath::new(text).unwrap()
}

#[test]
fn parent_of_paths() {
    assert_eq!(parent("/a/b"), Some("/a"));
    assert_eq!(parent("/a"), Some("/"));
    assert_eq!(parent("/"), None);
    assert_eq!(parent("a/b"), Some("a"));
    assert_eq!(parent("a"), None);
}

#[test]
fn entry_kind_is_that_of_the_mode() {
    let kind = |mode| entry(String::new(), SftpAttributes { mode, size: Some(7), ..SftpAttributes::default() });
    assert_eq!((kind(Some(0o100_640)).kind, kind(Some(0o100_640)).size), (EntryKind::File, 7));
    assert_eq!((kind(Some(0o040_750)).kind, kind(Some(0o040_750)).size), (EntryKind::Path, 0));
    assert_eq!(kind(Some(0o120_777)).kind, EntryKind::Link);
    assert_eq!(kind(Some(0o140_777)).kind, EntryKind::Special);
}

fn settings() -> SftpSettings {
    SftpSettings {
        repo_path: "/repo".into(),
        host: "backup".into(),
        port: 22,
        user: "u".into(),
        private_key_file: "/none".into(),
        private_key_passphrase: None,
        public_key_file: None,
        host_key_hash: HashType::Sha256,
        host_key_check: HostKeyCheck::None,
        known_host_files: Vec::new(),
        home: None,
        io_timeout: Duration::from_secs(1),
    }
}

#[test]
fn error_names_host_path_and_what_the_server_said() {
    let settings = SftpSettings { private_key_passphrase: Some("topsecret".into()), ..settings() };
    assert!(!format!("{settings:?}").contains("topsecret"));
    let storage = SftpStorage::new(settings).unwrap();
    let refused = SftpFailure::Status { code: 3, message: "Permission denied".into() };
    let error = storage.0.error(ErrorCode::FileOpen, "unable to open file '/repo/x' for read", &refused);
    let expected = "unable to open file '/repo/x' for read: sftp error [3] permission denied on host 'backup:22'";
    assert_eq!(error.message, expected);
    // The key is looked for before anything is sent
    let error = storage.info(&path("x")).unwrap_err();
    assert_eq!(error.code, ErrorCode::FileMissing);
    assert!(error.message.contains("'/none'"), "{}", error.message);
}

#[test]
fn requests_that_wait_to_be_sent_fail_when_the_connection_ends() {
    let done = network::handle().unwrap().block_on(async {
        let (mut server, incoming) = tokio::io::duplex(64);
        // A server that takes the greeting and nothing more
        let (outgoing, _unread) = tokio::io::duplex(16);
        tokio::io::AsyncWriteExt::write_all(&mut server, &[0, 0, 0, 5, 2, 0, 0, 0, 3]).await.unwrap();
        let stream = tokio::io::join(incoming, outgoing);
        let client = Client::start(stream, Duration::from_secs(60), Box::new(Cuts::default())).await.ok().unwrap();
        let requests = stream::iter(0..1000).map(|_| client.remove("x")).buffer_unordered(1000).collect::<Vec<_>>();
        let end = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            drop(server);
        };
        tokio::time::timeout(Duration::from_secs(20), async { tokio::join!(requests, end).0 }).await
    });
    let done = done.expect("an answer long before the time-out of a request");
    assert!(
        done.iter().all(|done| matches!(done, Err(SftpFailure::Lost(why)) if why == "connection lost")),
        "{done:?}"
    );
}

/// Counts how often a connection was cut.
#[derive(Clone, Default)]
struct Cuts(Arc<AtomicU64>);

impl client::Transport for Cuts {
    fn cut(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_request_without_answer_ends_the_connection() {
    network::handle().unwrap().block_on(async {
        let (mut server, stream) = tokio::io::duplex(1 << 20);
        tokio::io::AsyncWriteExt::write_all(&mut server, &[0, 0, 0, 5, 2, 0, 0, 0, 3]).await.unwrap();
        let cuts = Cuts::default();
        let client = Client::start(stream, Duration::from_millis(50), Box::new(cuts.clone())).await.ok().unwrap();
        let other = client.send(protocol::Request::new(protocol::kind::STAT).bytes(b"y")).await.ok().unwrap();
        let failure = client.remove("x").await.unwrap_err();
        assert!(matches!(&failure, SftpFailure::Lost(why) if why.starts_with("no answer")), "{failure:?}");
        assert!(client.is_lost());
        assert_eq!(cuts.0.load(Ordering::Relaxed), 1);
        assert!(other.response().await.is_err());
        // Nothing more is sent, and the server's side ends
        assert!(client.remove("x").await.is_err());
        let rest = async {
            let mut rest = Vec::new();
            tokio::io::AsyncReadExt::read_to_end(&mut server, &mut rest).await
        };
        tokio::time::timeout(Duration::from_secs(20), rest).await.expect("the end of the stream").unwrap();
        assert_eq!(cuts.0.load(Ordering::Relaxed), 1);
    });
}

fn text(text: &[u8]) -> Vec<u8> {
    [&(text.len() as u32).to_be_bytes()[..], text].concat()
}

/// The answer with a status: its type and content.
fn status_of(code: u32) -> (u8, Vec<u8>) {
    (protocol::kind::STATUS, [&code.to_be_bytes()[..], &text(b""), &text(b"")].concat())
}

/// A server with these extensions. `answer` gets the type and the content of each request.
async fn serve(
    stream: tokio::io::DuplexStream,
    extensions: &[&str],
    mut answer: impl FnMut(u8, &[u8]) -> (u8, Vec<u8>),
) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (mut receiver, mut sender) = tokio::io::split(stream);
    let pairs = extensions.iter().flat_map(|name| [text(name.as_bytes()), text(b"1")]);
    let hello = [vec![2, 0, 0, 0, 3], pairs.flatten().collect()].concat();
    sender.write_all(&text(&hello)).await.unwrap();
    while let Ok(size) = receiver.read_u32().await {
        let mut packet = vec![0; size as usize];
        if receiver.read_exact(&mut packet).await.is_err() {
            break;
        }
        if packet[0] == protocol::kind::INIT {
            continue;
        }
        let (kind, body) = answer(packet[0], &packet[5..]);
        let answer = [&[kind][..], &packet[1..5], &body].concat();
        // The client has ended while its last request, which needs no answer, is answered
        if sender.write_all(&text(&answer)).await.is_err() {
            break;
        }
    }
}

/// A server where every directory contains another directory. Returns the length of the longest requested path.
async fn endless(stream: tokio::io::DuplexStream) -> usize {
    let (mut longest, mut is_read) = (0, std::collections::HashSet::new());
    let attributes = [4u32.to_be_bytes(), 0o040_750u32.to_be_bytes()].concat();
    serve(stream, &[], |kind, content| {
        let argument = &content[4..];
        longest = longest.max(argument.len());
        match kind {
            protocol::kind::OPENDIR => (protocol::kind::HANDLE, text(argument)),
            protocol::kind::READDIR if is_read.insert(argument.to_owned()) => {
                // The first name is long, so that the limit is reached soon
                let name = if is_read.len() == 1 { "a".repeat(24 << 10) } else { "a".to_owned() };
                let name = [&1u32.to_be_bytes()[..], &text(name.as_bytes()), &text(b""), &attributes].concat();
                (protocol::kind::NAME, name)
            }
            protocol::kind::READDIR => status_of(1),
            protocol::kind::LSTAT => (protocol::kind::ATTRS, attributes.clone()),
            _ => status_of(0),
        }
    })
    .await;
    longest
}

/// Writes a file to a server that answers a request of this type with this status, and may tell how many blocks are left.
/// Returns what the error says about its space.
fn written(failing: u8, code: u32, blocks_left: Option<u64>) -> Option<NoSpace> {
    let (server, stream) = tokio::io::duplex(1 << 20);
    let storage = SftpStorage::new(settings()).unwrap();
    let runtime = network::handle().unwrap();
    runtime.spawn(async move {
        let extensions: &[&str] = if blocks_left.is_some() { &["statvfs@openssh.com"] } else { &[] };
        let numbers = [4096, 4096, 100, 50, blocks_left.unwrap_or(0), 9, 9, 9, 0, 0, 255];
        let answer = |kind, _: &[u8]| match kind {
            kind if kind == failing => status_of(code),
            protocol::kind::OPEN => (protocol::kind::HANDLE, text(b"handle")),
            protocol::kind::EXTENDED => {
                (protocol::kind::EXTENDED_REPLY, numbers.iter().flat_map(|number| number.to_be_bytes()).collect())
            }
            _ => status_of(0),
        };
        serve(server, extensions, answer).await;
    });
    let client = runtime.block_on(Client::start(stream, Duration::from_secs(60), Box::new(Cuts::default())));
    storage.0.connection.try_lock().unwrap().client = Some(Arc::new(client.ok().unwrap()));
    let error = crate::storage::put(&storage, &path("x"), b"data", WriteOptions::ATOMIC).unwrap_err();
    assert!(error.message.contains(&format!("sftp error [{code}] ")), "{error}");
    no_space(&error)
}

#[test]
fn status_for_any_failure_is_a_full_disk_only_if_the_server_confirms_it() {
    let write = |code, blocks_left| written(protocol::kind::WRITE, code, blocks_left);
    assert_eq!(write(4, Some(0)), Some(NoSpace::Certain));
    // There may be a quota
    assert_eq!(write(4, Some(20)), Some(NoSpace::Possible));
    assert_eq!(write(4, None), Some(NoSpace::Possible));
    assert_eq!((write(14, Some(20)), write(15, None)), (Some(NoSpace::Certain), Some(NoSpace::Certain)));
    assert_eq!(write(3, Some(0)), None);
    for step in [protocol::kind::OPEN, protocol::kind::CLOSE] {
        assert_eq!(written(step, 4, Some(0)), Some(NoSpace::Certain));
        assert_eq!(written(step, 4, Some(20)), None);
        assert_eq!(written(step, 4, None), None);
    }
}

#[test]
fn directories_without_end_are_an_error() {
    let (result, longest) = network::handle().unwrap().block_on(async {
        let (server, stream) = tokio::io::duplex(1 << 20);
        let server = tokio::spawn(endless(server));
        let client = Client::start(stream, Duration::from_secs(60), Box::new(Cuts::default())).await.ok().unwrap();
        let result = remove_tree(&client, "/repo", false).await;
        drop(client);
        (result, server.await.unwrap())
    });
    assert!(matches!(result, Err(SftpFailure::Protocol)), "{result:?}");
    assert!(longest > PATH_SIZE_MAX_BYTES - 10, "{longest}");
}

#[test]
fn threads_that_wait_for_a_connection_share_its_failure() {
    let directory = tempfile::tempdir().unwrap();
    let key = russh::keys::ssh_key::private::Ed25519Keypair::from_seed(&[7; 32]);
    let key = russh::keys::PrivateKey::from(key).to_openssh(russh::keys::ssh_key::LineEnding::LF).unwrap();
    let file = directory.path().join("key");
    std::fs::write(&file, key.as_bytes()).unwrap();
    // The system accepts connections, and nobody answers
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let storage = SftpStorage::new(SftpSettings {
        host: "127.0.0.1".into(),
        port: silent.local_addr().unwrap().port(),
        private_key_file: file.to_str().unwrap().to_owned(),
        // All threads begin within this time
        io_timeout: Duration::from_secs(2),
        ..settings()
    })
    .unwrap();
    const THREADS: usize = 8;
    let begin = std::sync::Barrier::new(THREADS);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                begin.wait();
                let error = storage.info(&path("x")).unwrap_err();
                assert!(error.message.contains("timeout during SSH handshake"), "{}", error.message);
            });
        }
    });
    silent.set_nonblocking(true).unwrap();
    let connections = std::iter::from_fn(|| silent.accept().ok()).count();
    // A thread that comes late makes an attempt of its own
    assert!((1..THREADS / 2).contains(&connections), "{connections}");
}
